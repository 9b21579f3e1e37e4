//! What the tasks and threads of one node share. Everything here belongs to one node: a process may hold several.

use std::{
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt;
use kv_core::{
    error::{Error, ErrorKind},
    founding::FoundingRecord,
    shard_map::{CheckedMap, ShardMap},
    types::{ClusterId, Incarnation, NodeId, Time},
};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    clock,
    config::Config,
    convert::map_to_wire,
    faults::Faults,
    inbox::{Event, Inbox},
    leaders::Leaders,
    links::Links,
    metrics::Metrics,
    notices::RefusedMessages,
    peers::Contacts,
    sink::Sinks,
    status::Report,
    stop::Stop,
    unread::Unread,
};

/// The cluster, once it is founded.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// Its id.
    pub(crate) id: ClusterId,
    /// What it was founded with.
    pub(crate) record: FoundingRecord,
}

/// What the tasks and threads of a node share.
pub(crate) struct Shared {
    /// The node.
    pub(crate) node: NodeId,
    /// Its data directory's incarnation, which may change until the cluster is founded.
    pub(crate) incarnation: Mutex<Incarnation>,
    /// Members and their peer addresses, as configured.
    pub(crate) members: BTreeMap<NodeId, String>,
    /// What waits for the next turn.
    pub(crate) inbox: Inbox,
    /// Where the end is decided.
    pub(crate) stop: Stop,
    /// Cancelled when open streams and ports are to be closed in an orderly way.
    pub(crate) closing: CancellationToken,
    /// Its metrics.
    pub(crate) metrics: Metrics,
    /// What its clients have not read.
    pub(crate) unread: Arc<Unread>,
    /// Connections of clients at a time.
    pub(crate) connections_max: usize,
    /// Its clients' streams.
    pub(crate) sinks: Sinks,
    /// What was said of the ways to and from peers.
    pub(crate) contacts: Contacts,
    /// Who leads what elsewhere.
    pub(crate) leaders: Leaders,
    /// Counts messages of peers that are refused.
    pub(crate) refused_messages: RefusedMessages,
    /// Which links to peers are allowed.
    pub(crate) links: Links,
    /// What is made to go wrong.
    pub(crate) faults: Faults,
    /// When it started.
    pub(crate) started: Time,
    /// Free bytes on the disk, as last seen.
    pub(crate) disk_free_bytes: AtomicU64,
    /// Why it is not ready; `None` if it is.
    pub(crate) unready: watch::Sender<Option<String>>,
    /// Whether it leads nothing and owes no answer, as of the last tick.
    pub(crate) is_idle: watch::Sender<bool>,
    /// The map, once there is one.
    pub(crate) map: watch::Sender<Option<Arc<CheckedMap>>>,
    /// Cancelled when the cluster is founded: connections made before are made again.
    pub(crate) founded: CancellationToken,
    pub(crate) cluster: OnceLock<Cluster>,
}

/// How long a task waits for the loop to say how the node is doing.
const REPORT_WAIT: Duration = Duration::from_secs(2);

impl Shared {
    /// A node that is not founded yet.
    pub(crate) fn new(config: &Config) -> Arc<Self> {
        let metrics = Metrics::new();
        let unread = metrics.unread(config.unread_bytes_max);
        Arc::new(Self {
            node: config.node,
            incarnation: Mutex::default(),
            members: config.members.clone(),
            inbox: Inbox::default(),
            stop: Stop::default(),
            closing: CancellationToken::new(),
            metrics,
            unread,
            connections_max: config.connections_max,
            sinks: Sinks::default(),
            contacts: Contacts::default(),
            leaders: Leaders::default(),
            refused_messages: RefusedMessages::default(),
            links: config.links.clone(),
            faults: config.faults.clone(),
            started: clock::now(),
            disk_free_bytes: AtomicU64::new(0),
            unready: watch::Sender::new(Some("the node is starting".to_owned())),
            is_idle: watch::Sender::new(false),
            map: watch::Sender::new(None),
            founded: CancellationToken::new(),
            cluster: OnceLock::new(),
        })
    }

    /// What everything that this node logs is marked with: a process may hold several.
    pub(crate) fn span(&self) -> tracing::Span {
        tracing::error_span!("node", id = self.node.0)
    }

    /// Runs a task that the node can't do without: if it panics, the node stops and says so, instead of living on without it.
    pub(crate) fn spawn(self: &Arc<Self>, what: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
                shared.stop.panicked(what, panic.as_ref());
            }
        });
    }

    /// The data directory's incarnation.
    pub(crate) fn incarnation(&self) -> Incarnation {
        *self.incarnation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The data directory has this incarnation from now on.
    pub(crate) fn set_incarnation(&self, incarnation: Incarnation) {
        *self.incarnation.lock().unwrap_or_else(PoisonError::into_inner) = incarnation;
    }

    /// The cluster has been founded, or was long ago.
    pub(crate) fn found(&self, record: FoundingRecord) {
        let cluster = Cluster { id: record.cluster_id(), record };
        if self.cluster.set(cluster).is_ok() {
            self.founded.cancel();
        }
    }

    /// The cluster's id; zero while it is not founded.
    pub(crate) fn cluster_id(&self) -> ClusterId {
        self.cluster.get().map(|cluster| cluster.id).unwrap_or_default()
    }

    /// The map.
    ///
    /// # Errors
    /// While the cluster is not founded.
    pub(crate) fn known_map(&self) -> Result<Arc<CheckedMap>, Error> {
        self.map.borrow().clone().ok_or_else(|| self.not_founded())
    }

    /// What a request gets before the cluster is founded.
    pub(crate) fn not_founded(&self) -> Error {
        let reason = self.unready.borrow().clone().unwrap_or_else(|| "the node is starting".to_owned());
        Error::not_applied(ErrorKind::NoQuorum, reason).with(|detail| detail.retry_after_ms = Some(200))
    }

    /// Takes a new map and pushes it to clients. One that can't be right is not taken.
    pub(crate) fn publish_map(&self, map: ShardMap) {
        let wire = map_to_wire(&map);
        match CheckedMap::new(map) {
            Ok(map) => {
                self.map.send_replace(Some(Arc::new(map)));
                self.sinks.each(|sink| sink.push_map(wire.clone()));
            }
            Err(error) => tracing::error!(%error, "the node's own map is not published"),
        }
    }

    /// Sets why the node is not ready.
    pub(crate) fn set_unready(&self, reason: Option<String>) {
        self.unready.send_if_modified(|current| {
            let changed = *current != reason;
            *current = reason;
            changed
        });
    }

    /// How the node is doing.
    ///
    /// # Errors
    /// If the loop does not answer within two seconds.
    pub(crate) async fn report(&self) -> Result<Report, Error> {
        let (asked, answered) = oneshot::channel();
        self.inbox.push(Event::Status(asked));
        match tokio::time::timeout(REPORT_WAIT, answered).await {
            Ok(Ok(report)) => Ok(report),
            _ => Err(Error::not_applied(ErrorKind::Timeout, "the node is too busy to say how it is doing")),
        }
    }

    /// Free bytes on the disk, as last seen.
    pub(crate) fn disk_free(&self) -> u64 {
        self.disk_free_bytes.load(Ordering::Relaxed)
    }
}
