//! A server: one node with its threads and ports, started, stopped and killed as a whole.
//!
//! Everything that can be refused is refused before a thread starts. After that a node ends in one of three ways: it is shut
//! down (it hands its leaderships over and finishes what it accepted), it is killed (its threads end where they stand, with
//! no flush and no farewell), or it fails (the same, with a sentence that says why).

use std::{
    collections::BTreeMap,
    fmt, io,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use kv_core::{
    checkpoint::newest_footers,
    log::{Log, LogSettings, record::Recovered},
    node::{self, Node, OpenError, OpenLogError, Opening},
    shard_map::NodeDescription,
};
use tokio::{runtime, sync::watch, time::timeout};

use crate::{
    checkpoint_thread, clock,
    config::{Config, Listeners},
    disk::{DataDirectory, IndexStore, RealFiles, RealLog},
    founding::Founding,
    http, jobs, log_thread,
    node_loop::{Beginning, NodeLoop, Opener},
    services::{self, Port},
    shared::Shared,
    stop::{Ending, Failure, Trouble},
    upkeep,
};

/// How long a shutdown waits for leaderships to leave and for accepted requests to end.
const HAND_OVER_WAIT: Duration = Duration::from_secs(5);
/// How long a shutdown then waits for connections to close.
const CLOSE_WAIT: Duration = Duration::from_millis(200);

/// Where a server listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// For peers.
    pub peer: SocketAddr,
    /// For clients.
    pub client: SocketAddr,
    /// For health checks and metrics.
    pub http: Option<SocketAddr>,
}

/// A running node. Dropping it kills it.
pub struct Server {
    shared: Arc<Shared>,
    addresses: Addresses,
    ended: watch::Receiver<bool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("node", &self.shared.node).field("addresses", &self.addresses).finish()
    }
}

impl Server {
    /// Binds the ports and starts the node. It takes traffic once the cluster is founded and its replicas have leaders.
    ///
    /// # Errors
    /// If the configuration, an address or the data directory is refused.
    pub fn start(config: Config) -> Result<Self, Failure> {
        config.check()?;
        let listeners = Listeners::bind(&config)?;
        Self::start_with(config, listeners)
    }

    /// Starts the node on ports that are bound already.
    ///
    /// # Errors
    /// If the configuration or the data directory is refused.
    pub fn start_with(config: Config, listeners: Listeners) -> Result<Self, Failure> {
        config.check()?;
        let addresses = addresses(&listeners).map_err(|error| Failure::new(Trouble::Address, error.to_string()))?;
        let shared = Shared::new(&config);
        let directory = DataDirectory::open(&config.data, config.node)?;
        let (path, lock) = (directory.path().to_owned(), directory.lock());
        let (log, recovered) = open_log(&directory)?;
        let mut files = RealFiles::open(directory.join("checkpoints"))?;
        let footers = newest_footers(&mut files)?;
        let store = IndexStore::open(directory.join("index"), config.engine);
        let founding = Founding::begin(&config, directory, u128::from_le_bytes(random()?), &shared)?;
        let shards = recovered.shards.iter();
        let committed_at_start: BTreeMap<_, _> = shards.map(|(id, shard)| (*id, shard.hard_state.commit)).collect();

        let (batches, batches_in) = mpsc::channel();
        let (jobs, jobs_in) = jobs::channel();
        let open: Opener = {
            let (settings, node) = (config.settings.clone(), config.node);
            let store = store.clone().with_faults(config.faults.clone());
            let (seed, run) = (u64::from_le_bytes(random()?), u64::from_le_bytes(random()?));
            Box::new(move |record| {
                let opening = Opening { node, record, recovered, footers, settings, seed, run, now: clock::now() };
                let mut outputs = Vec::new();
                let node = Node::open(opening, store, &mut outputs).map_err(open_failure)?;
                Ok((node, outputs))
            })
        };
        // A node that was founded before is refused here, before anything runs.
        let (node, open) = match founding.record() {
            Some(record) => (Some(open(record)?), None),
            None => (None, Some(open)),
        };
        let beginning = Beginning {
            shared: Arc::clone(&shared),
            founding,
            node,
            open,
            batches,
            jobs,
            tick: Duration::from_micros(config.settings.tick_micros),
            description: describe(&config, &addresses),
            committed_at_start,
        };
        let workers = [
            log_thread::start(log, batches_in, Arc::clone(&shared)).map_err(no_thread)?,
            checkpoint_thread::start(files, store, jobs_in, Arc::clone(&shared)).map_err(no_thread)?,
        ];
        let (ended, has_ended) = watch::channel(false);
        let thread = thread::Builder::new()
            .name(format!("loop-{}", config.node))
            .spawn({
                let shared = Arc::clone(&shared);
                move || {
                    let _span = shared.span().entered();
                    match catch_unwind(AssertUnwindSafe(|| run_loop(beginning, listeners, path, &shared))) {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => shared.stop.fail(Trouble::Internal, format!("the loop can't run: {error}")),
                        Err(panic) => shared.stop.panicked("the loop", panic.as_ref()),
                    }
                    // The loop has dropped its senders: the other threads end with what they are doing.
                    for worker in workers {
                        // A panic in it was caught and told.
                        let _told = worker.join();
                    }
                    // Nobody writes to the directory any more.
                    drop(lock);
                    ended.send_replace(true);
                }
            })
            .map_err(no_thread)?;
        Ok(Self { shared, addresses, ended: has_ended, thread: Mutex::new(Some(thread)) })
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Why it takes no traffic; `None` if it does.
    #[must_use]
    pub fn unready(&self) -> Option<String> {
        self.shared.unready.borrow().clone()
    }

    /// Waits until it takes traffic, or has ended.
    pub async fn ready(&self) {
        let mut unready = self.shared.unready.subscribe();
        let mut ended = self.ended.clone();
        tokio::select! {
            _ = unready.wait_for(Option::is_none) => {}
            _ = ended.wait_for(|ended| *ended) => {}
        }
    }

    /// Why it has ended, or is about to.
    #[must_use]
    pub fn ending(&self) -> Option<Ending> {
        self.shared.stop.ending()
    }

    /// Hands its leaderships over, finishes what it accepted, and ends. Returns at once; see [`Server::ended`].
    pub fn shutdown(&self) {
        self.shared.stop.ask(Ending::Shutdown);
    }

    /// Ends its threads where they stand, with no flush and no farewell, and waits until they have ended.
    pub fn kill(&self) {
        self.shared.stop.ask(Ending::Kill);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic of the loop would have been told before.
            let _told = thread.join();
        }
    }

    /// Waits until all its threads have ended, and tells why they did.
    pub async fn ended(&self) -> Ending {
        let mut ended = self.ended.clone();
        // An error means that the thread is gone, which is an end too.
        let _gone = ended.wait_for(|ended| *ended).await;
        self.shared.stop.ending().unwrap_or(Ending::Kill)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs the loop's runtime until the node ends.
fn run_loop(
    beginning: Beginning,
    listeners: Listeners,
    data: std::path::PathBuf,
    shared: &Arc<Shared>,
) -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let ran = runtime.block_on(async {
        let open = |listener, port| services::open_door(listener, port, shared);
        let (peers, clients) = (open(listeners.peer, Port::Peers)?, open(listeners.client, Port::Clients)?);
        shared.spawn("the port for peers", services::serve_peers(peers, Arc::clone(shared)));
        shared.spawn("the port for clients", services::serve_clients(clients, Arc::clone(shared)));
        if let Some(listener) = listeners.http {
            shared.spawn("the HTTP port", http::serve(open(listener, Port::Http)?, Arc::clone(shared)));
        }
        shared.spawn("the watch over the disk", upkeep::watch_disk(data, Arc::clone(shared)));
        let node = NodeLoop::new(beginning);
        tokio::select! {
            () = node.run() => {}
            () = leave(shared) => {}
        }
        Ok(())
    });
    // Connections and tasks go with it, where they stand.
    runtime.shutdown_background();
    ran
}

/// An orderly end: leaderships leave, what was accepted is answered, then connections are closed.
async fn leave(shared: &Shared) {
    shared.stop.asked().await;
    if shared.stop.is_abrupt() {
        // There is no farewell: the loop ends by itself.
        return std::future::pending().await;
    }
    if shared.cluster.get().is_some() {
        tracing::info!("the node hands its leaderships over and stops");
    } else {
        tracing::info!("the node stops; its cluster is not founded yet");
    }
    // One tick may still tell of the time before the hand-over.
    shared.is_idle.send_replace(false);
    let mut is_idle = shared.is_idle.subscribe();
    if timeout(HAND_OVER_WAIT, is_idle.wait_for(|is_idle| *is_idle)).await.is_err() {
        tracing::warn!("not all leaderships could be handed over in time");
    }
    shared.sinks.each(|sink| {
        sink.flush();
        sink.close(None);
    });
    shared.closing.cancel();
    tokio::time::sleep(CLOSE_WAIT).await;
}

fn open_log(directory: &DataDirectory) -> Result<(Log<RealLog>, Recovered), Failure> {
    let disk = || RealLog::open(directory.join("log"));
    let has_checkpoints = directory.has_checkpoints()?;
    node::open_log(disk, LogSettings::default(), directory.identity().is_some(), has_checkpoints).map_err(|error| {
        let place = match &error {
            OpenLogError::Log(_) => directory.join("log"),
            OpenLogError::WithoutIdentity { .. } => directory.path().to_owned(),
        };
        let failure = Failure::from(error);
        Failure { message: format!("{}: {failure}", place.display()), ..failure }
    })
}

fn open_failure(error: OpenError) -> Failure {
    match error {
        OpenError::Damaged { .. } => Failure::damaged(format!("{error}. Nothing was changed")),
        OpenError::NotMember => Failure::new(Trouble::DataDirectory, error.to_string()),
    }
}

fn no_thread(error: io::Error) -> Failure {
    Failure::new(Trouble::Internal, format!("a thread can't be started: {error}"))
}

fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::new(Trouble::Internal, format!("the system gives no random numbers: {error}")))?;
    Ok(bytes)
}

fn addresses(listeners: &Listeners) -> io::Result<Addresses> {
    Ok(Addresses {
        peer: listeners.peer.local_addr()?,
        client: listeners.client.local_addr()?,
        http: listeners.http.as_ref().map(std::net::TcpListener::local_addr).transpose()?,
    })
}

/// How the node is reached, as it tells the cluster.
fn describe(config: &Config, addresses: &Addresses) -> NodeDescription {
    let peer_address = config.members.get(&config.node).cloned().unwrap_or_default();
    let client_address = config.client_address.clone().unwrap_or_else(|| {
        let client = addresses.client;
        match peer_address.rsplit_once(':') {
            // Nobody can connect to "any address": clients find the node where its peers do.
            Some((host, _)) if client.ip().is_unspecified() => format!("{host}:{}", client.port()),
            _ => client.to_string(),
        }
    });
    NodeDescription {
        node: config.node,
        incarnation: Default::default(),
        peer_address,
        client_address,
        zone: config.zone.clone(),
        weight: config.weight,
    }
}
