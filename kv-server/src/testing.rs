//! A cluster in this process, for tests: real servers on loopback sockets and real files in a temporary directory.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use kv_server::testing::TestCluster;
//!
//! let mut cluster = TestCluster::start(3).await?;
//! let client = cluster.client().await?;
//! client.put("hello", "world").await?;
//! cluster.kill(2)?;
//! assert!(client.get("hello").await?.is_some());
//! cluster.restart(2)?;
//! // Or ten faults of all kinds, drawn from a seed, while the application goes on.
//! cluster.torment(&kv_server::testing::Nemesis::ALL, 1, 10, std::time::Duration::from_secs(2)).await?;
//! # Ok(())
//! # }
//! ```

mod nemesis;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use kv_client::Client;
use kv_core::types::NodeId;
use tempfile::TempDir;

pub use self::nemesis::{Fault, Nemesis};
use crate::{Addresses, Config, Failure, Faults, Links, Listeners, Server, Trouble, net};

/// How often binding a port again is tried after a restart: another process may have got it in between.
const BIND_ATTEMPTS: u32 = 50;
/// Pause between these attempts.
const BIND_PAUSE: Duration = Duration::from_millis(100);

/// Several nodes in one process. Dropping it kills them and removes their data, unless it was given a directory.
#[derive(Debug)]
pub struct TestCluster {
    nodes: BTreeMap<NodeId, Slot>,
    links: Links,
    data: PathBuf,
    /// Held for its removal.
    _temporary: Option<TempDir>,
}

#[derive(Debug)]
struct Slot {
    config: Config,
    addresses: Addresses,
    server: Option<Server>,
}

impl TestCluster {
    /// Starts this many nodes with default settings and waits until they take traffic.
    ///
    /// # Errors
    /// If a node can't be started.
    pub async fn start(nodes: u64) -> Result<Self, Failure> {
        Self::start_with(nodes, None, |_| {}).await
    }

    /// Starts this many nodes, their data in a directory that is kept, their configurations changed by `change`, and waits
    /// until they take traffic.
    ///
    /// # Errors
    /// If a node can't be started, or ends before it takes traffic.
    pub async fn start_with(
        nodes: u64,
        data: Option<PathBuf>,
        mut change: impl FnMut(&mut Config),
    ) -> Result<Self, Failure> {
        let (data, temporary) = match data {
            Some(data) => (data, None),
            None => {
                let temporary = tempfile::Builder::new().prefix("kv-").tempdir();
                let temporary = temporary.map_err(|error| Failure::new(Trouble::Disk, error.to_string()))?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        let mut ports = BTreeMap::new();
        for id in (1..=nodes).map(NodeId) {
            ports.insert(id, net::bind("peers", LOOPBACK, false)?);
        }
        let mut members = BTreeMap::new();
        for (id, port) in &ports {
            let address = port.local_addr().map_err(|error| Failure::new(Trouble::Address, error.to_string()))?;
            members.insert(*id, address.to_string());
        }
        let mut cluster = Self { nodes: BTreeMap::new(), links: Links::default(), data, _temporary: temporary };
        for (id, peer) in ports {
            let mut config = Config::new(id, members.clone(), cluster.data.join(id.to_string()));
            config.http_listen = Some(LOOPBACK.to_owned());
            config.links = cluster.links.clone();
            change(&mut config);
            let http = config.http_listen.as_deref().map(|address| net::bind("HTTP", address, false)).transpose()?;
            let listeners = Listeners { peer, client: net::bind("clients", LOOPBACK, false)?, http };
            let server = Server::start_with(config.clone(), listeners)?;
            let addresses = server.addresses();
            cluster.nodes.insert(id, Slot { config, addresses, server: Some(server) });
        }
        cluster.ready().await?;
        Ok(cluster)
    }

    /// Waits until every node that runs takes traffic.
    ///
    /// # Errors
    /// If one ends before.
    pub async fn ready(&self) -> Result<(), Failure> {
        for server in self.nodes.values().filter_map(|slot| slot.server.as_ref()) {
            server.ready().await;
            if let Some(crate::Ending::Failed(failure)) = server.ending() {
                return Err(failure);
            }
        }
        Ok(())
    }

    /// The nodes' ids.
    pub fn nodes(&self) -> impl Iterator<Item = u64> {
        self.nodes.keys().map(|id| id.0)
    }

    /// A node's server, if it runs.
    #[must_use]
    pub fn server(&self, node: u64) -> Option<&Server> {
        self.nodes.get(&NodeId(node))?.server.as_ref()
    }

    /// Where a node listens, or did before it was killed.
    #[must_use]
    pub fn addresses(&self, node: u64) -> Option<Addresses> {
        Some(self.nodes.get(&NodeId(node))?.addresses)
    }

    /// A node's data directory.
    #[must_use]
    pub fn data(&self, node: u64) -> PathBuf {
        self.data.join(node.to_string())
    }

    /// The directory that holds all nodes' data.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.data
    }

    /// A client that knows all nodes.
    ///
    /// # Errors
    /// If no node answers.
    pub async fn client(&self) -> kv_client::Result<Client> {
        let endpoints = self.nodes.values().map(|slot| slot.addresses.client.to_string());
        Client::builder().endpoints(endpoints).connect().await
    }

    /// Ends a node's threads where they stand, with no flush and no farewell.
    ///
    /// # Errors
    /// If there is no such node, or it does not run.
    pub fn kill(&mut self, node: u64) -> Result<(), Failure> {
        match self.slot(node)?.server.take() {
            Some(server) => {
                server.kill();
                Ok(())
            }
            None => Err(Failure::new(Trouble::Configuration, format!("node {node} does not run"))),
        }
    }

    /// Starts a node again on its ports and its data. It takes traffic some moments later.
    ///
    /// # Errors
    /// If there is no such node, it runs, or its data or an address is refused.
    pub fn restart(&mut self, node: u64) -> Result<(), Failure> {
        let slot = self.slot(node)?;
        if slot.server.is_some() {
            return Err(Failure::new(Trouble::Configuration, format!("node {node} runs")));
        }
        let http = slot.addresses.http.map(|address| bind_again("HTTP", address)).transpose()?;
        let listeners = Listeners {
            peer: bind_again("peers", slot.addresses.peer)?,
            client: bind_again("clients", slot.addresses.client)?,
            http,
        };
        slot.server = Some(Server::start_with(slot.config.clone(), listeners)?);
        Ok(())
    }

    /// Changes what a node is started with, from its next start on.
    ///
    /// # Errors
    /// If there is no such node.
    pub fn configure(&mut self, node: u64, change: impl FnOnce(&mut Config)) -> Result<(), Failure> {
        change(&mut self.slot(node)?.config);
        Ok(())
    }

    /// What may be made to go wrong at a node. It stays as asked for when the node is restarted.
    #[must_use]
    pub fn faults(&self, node: u64) -> Option<&Faults> {
        Some(&self.nodes.get(&NodeId(node))?.config.faults)
    }

    /// Cuts all links between these nodes and those, both ways.
    ///
    /// # Errors
    /// If there is no such node; nothing is cut then.
    pub fn partition(&self, one: &[u64], other: &[u64]) -> Result<(), Failure> {
        let ids = |nodes: &[u64]| nodes.iter().copied().map(NodeId).collect::<Vec<_>>();
        let (one, other) = (ids(one), ids(other));
        if let Some(unknown) = one.iter().chain(&other).find(|node| !self.nodes.contains_key(node)) {
            return Err(self.unknown(*unknown));
        }
        self.links.partition(&one, &other);
        Ok(())
    }

    /// Cuts what one node sends to another, and leaves the other way as it is.
    ///
    /// # Errors
    /// If there is no such node.
    pub fn cut_one_way(&self, from: u64, to: u64) -> Result<(), Failure> {
        let (from, to) = (NodeId(from), NodeId(to));
        if let Some(unknown) = [from, to].into_iter().find(|node| !self.nodes.contains_key(node)) {
            return Err(self.unknown(unknown));
        }
        self.links.cut_one_way(from, to);
        Ok(())
    }

    /// Restores all links.
    pub fn heal(&self) {
        self.links.heal();
    }

    fn slot(&mut self, node: u64) -> Result<&mut Slot, Failure> {
        let unknown = self.unknown(NodeId(node));
        self.nodes.get_mut(&NodeId(node)).ok_or(unknown)
    }

    fn unknown(&self, node: NodeId) -> Failure {
        Failure::new(Trouble::Configuration, format!("there is no node {node}; nodes are 1 to {}", self.nodes.len()))
    }
}

const LOOPBACK: &str = "127.0.0.1:0";

fn bind_again(what: &str, address: SocketAddr) -> Result<std::net::TcpListener, Failure> {
    for _ in 1..BIND_ATTEMPTS {
        match net::bind(what, &address.to_string(), false) {
            Err(failure) if failure.trouble == Trouble::Address => thread::sleep(BIND_PAUSE),
            other => return other,
        }
    }
    net::bind(what, &address.to_string(), false)
}
