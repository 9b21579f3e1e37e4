//! What a client knows of its cluster: the router behind a lock, the clock that it is asked with, and who waits for a newer
//! map.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use kv_core::{
    router::Router,
    types::{ClusterId, NodeId, Time},
};
use kv_proto::v1;
use tokio::{sync::Notify, time::Instant};

use crate::{convert, link::Host};

/// The router of a client, shared by its calls and its links.
#[derive(Debug)]
pub(crate) struct Routing {
    cluster: ClusterId,
    router: Mutex<Router>,
    /// Where nodes answered that have not said how clients reach them. At most one entry for an address given.
    answered_at: Mutex<BTreeMap<NodeId, String>>,
    /// Counts what may have changed a node's address.
    addresses_version: AtomicU64,
    epoch: Instant,
    /// Told when a map was taken.
    pub(crate) map_changed: Notify,
    /// Told when a newer map is wanted.
    pub(crate) map_wanted: Notify,
}

impl Routing {
    /// Knows nothing yet but the cluster.
    pub(crate) fn new(cluster: ClusterId) -> Self {
        Self {
            cluster,
            router: Mutex::new(Router::new()),
            answered_at: Mutex::default(),
            addresses_version: AtomicU64::new(0),
            epoch: Instant::now(),
            map_changed: Notify::new(),
            map_wanted: Notify::new(),
        }
    }

    /// The cluster.
    pub(crate) fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The router. Locked for one question at a time, never across an await.
    pub(crate) fn router(&self) -> MutexGuard<'_, Router> {
        // The router changes nothing that a panic could leave half done: whatever it knows is a hint.
        self.router.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An instant on the router's clock.
    pub(crate) fn time(&self, instant: Instant) -> Time {
        let micros = instant.saturating_duration_since(self.epoch).as_micros();
        Time(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    /// The moment on the router's clock that is `timeout` from now, bounded so that it can be waited for.
    pub(crate) fn deadline(&self, timeout: Duration) -> Instant {
        Instant::now() + timeout.min(TIMEOUT_MAX)
    }

    /// A node answered at this address.
    pub(crate) fn node_answered_at(&self, node: NodeId, address: &str) {
        self.lock_answered_at().insert(node, address.to_owned());
        self.addresses_version.fetch_add(1, Ordering::AcqRel);
    }

    /// While this stays the same, every node is where it was.
    pub(crate) fn addresses_version(&self) -> u64 {
        self.addresses_version.load(Ordering::Acquire)
    }

    /// Where to reach a node, if it is known.
    pub(crate) fn address(&self, node: NodeId) -> Option<String> {
        let said = self.router().address(node).filter(|address| !address.is_empty()).map(str::to_owned);
        said.or_else(|| self.lock_answered_at().get(&node).cloned())
    }

    /// Takes a map; what can't be right is left out, with a word in the log.
    pub(crate) fn take(&self, map: &kv_core::shard_map::ShardMap) -> Result<(), String> {
        let taken = self.router().take_map(map).map_err(|error| error.to_string())?;
        if taken {
            self.addresses_version.fetch_add(1, Ordering::AcqRel);
            self.map_changed.notify_waiters();
        }
        Ok(())
    }

    fn lock_answered_at(&self) -> MutexGuard<'_, BTreeMap<NodeId, String>> {
        self.answered_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The longest time that a call waits, whatever it asks for.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);

impl Host for Routing {
    fn known(&self) -> (ClusterId, u64) {
        (self.cluster, self.router().map_version().0)
    }

    fn take_map(&self, map: v1::ShardMap) {
        if let Err(error) = self.take(&convert::map(map)) {
            tracing::warn!(error, "a node sent a map that can't be used");
        }
    }
}
