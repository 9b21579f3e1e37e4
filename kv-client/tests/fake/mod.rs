//! A cluster that exists only as its gRPC surface: real sockets and messages, one store behind all nodes, and faults that a
//! test plans. What was asked is written down, so that tests can look at stamps, batches and targets.

#![allow(dead_code, unreachable_pub, reason = "a module of tests: each test file uses a part of it")]

mod node;
mod store;

use std::sync::{Arc, Mutex, MutexGuard};

use kv_proto::v1;

pub use node::Node;
pub use store::{Plan, Store};

/// A few nodes, each with a replica of every shard.
pub struct Cluster {
    pub nodes: Vec<Node>,
    pub store: Shared,
}

/// The store, shared by all nodes.
#[derive(Clone)]
pub struct Shared(Arc<Mutex<Store>>);

impl Shared {
    pub fn lock(&self) -> MutexGuard<'_, Store> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Cluster {
    /// `count` nodes with ids from 1, and 3 shards, all led by node 1.
    pub fn start(count: u64) -> Self {
        Self::with_id(count, 7)
    }

    /// The same, of a cluster with this id.
    pub fn with_id(count: u64, id: u8) -> Self {
        let store = Shared(Arc::new(Mutex::new(Store::new(id))));
        let nodes: Vec<_> = (1..=count).map(|id| Node::start(id, store.clone())).collect();
        store.lock().map = map(1, &nodes);
        Self { nodes, store }
    }

    pub fn url(&self) -> String {
        let addresses: Vec<_> = self.nodes.iter().map(|node| node.address.clone()).collect();
        format!("kv://{}", addresses.join(","))
    }

    pub async fn client(&self) -> kv_client::Client {
        kv_client::Client::connect(self.url()).await.expect("the cluster is there")
    }

    /// Starts a node that was killed: it comes up at another address, which all nodes know.
    pub fn start_elsewhere(&mut self, id: u64) {
        self.nodes.push(Node::start(id, self.store.clone()));
        self.nodes.sort_by_key(|node| node.id);
        let version = self.store.lock().map.version + 1;
        self.store.lock().map = map(version, &self.nodes);
    }

    /// Stops a node as a kill does: its sockets are closed.
    pub fn kill(&mut self, id: u64) {
        self.nodes.retain(|node| node.id != id);
    }
}

/// All nodes hold all shards; node 1 is everybody's owner.
pub fn map(version: u64, nodes: &[Node]) -> v1::ShardMap {
    let third = u64::MAX / 3;
    let row = |shard: u64, arc| v1::ShardRow {
        shard,
        arc,
        epoch: 1,
        replicas: nodes.iter().map(|node| v1::ReplicaPlace { replica: shard * 10 + node.id, node: node.id }).collect(),
    };
    let arc = |first, last| Some(v1::Arc { first, last });
    v1::ShardMap {
        version,
        nodes: nodes
            .iter()
            .map(|node| v1::Node {
                node: node.id,
                client_address: node.address.clone(),
                weight: 1,
                ..Default::default()
            })
            .collect(),
        shards: vec![
            row(0, None),
            row(1, arc(0, third)),
            row(2, arc(third + 1, 2 * third)),
            row(3, arc(2 * third + 1, u64::MAX)),
        ],
        ring_version: 1,
    }
}
