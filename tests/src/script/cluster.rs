//! Nodes, the links between them, and steps that run until nothing is left to do.
//!
//! A step goes in rounds: what was sent in the round before arrives; every node that has inputs takes a turn; then every
//! disk writes and syncs its block, and every checkpoint worker makes one step. What is held back (a link, a disk, a
//! checkpoint worker) keeps what it has until it is released. A link that is cut loses without a word; a node that is down
//! refuses, and the sender hears of it.

use std::collections::{BTreeMap, BTreeSet};

use kv_core::{
    error::Error,
    founding::{FoundingRecord, Member, WEIGHT_MAX},
    io::{Answer, Input, Notice, Operation, Output, Request},
    message::PeerMessage,
    node::ShardStatus,
    settings::Settings,
    types::{Digest, Durability, Epoch, Incarnation, LogIndex, NodeId, RequestId, ShardId},
};

use super::{
    host::Host,
    words::{self, Words},
};

/// Rounds after which a step is held to have no end.
const ROUNDS_MAX: usize = 20_000;

/// Requests that a script does not name have numbers from here on.
pub const UNNUMBERED: u64 = 1 << 32;

/// The shard that scripts are about.
pub const SHARD: ShardId = ShardId(1);

/// A cluster of a script.
pub struct Cluster {
    /// Its nodes.
    pub hosts: BTreeMap<NodeId, Host>,
    /// What is told of it, and how.
    pub words: Words,
    /// The trace since it was taken the last time.
    pub trace: Vec<String>,
    /// Requests, with their answers once they have them.
    pub answers: BTreeMap<RequestId, Option<Result<Answer, Error>>>,
    /// Links that lose.
    pub cut: BTreeSet<(NodeId, NodeId)>,
    /// Links that hold back.
    pub held: BTreeSet<(NodeId, NodeId)>,
    /// Nodes whose log's disk stands still.
    pub held_disks: BTreeSet<NodeId>,
    /// Nodes whose checkpoint worker stands still.
    pub held_files: BTreeSet<NodeId>,
    under_way: BTreeMap<(NodeId, NodeId), Vec<PeerMessage>>,
    requests: u64,
}

impl Cluster {
    /// Nodes 1 to `count`, of which node 1 owns shard 1; none is up.
    #[must_use]
    pub fn new(count: u64, shards: u32, settings: &Settings) -> Self {
        let record = record(count, shards);
        let row = record.layout().shards.iter().find(|row| row.shard == SHARD).cloned().expect("there is shard 1");
        assert_eq!(row.owner(), Some(NodeId(1)), "scripts are written for a shard that node 1 owns");
        let replicas = row.replicas.iter().map(|place| (place.replica, place.node)).collect();
        let host = |id: u64| (NodeId(id), Host::new(NodeId(id), record.clone(), settings.clone()));
        Self {
            hosts: (1..=count).map(host).collect(),
            words: Words::new(SHARD, replicas),
            trace: Vec::new(),
            answers: BTreeMap::new(),
            cut: BTreeSet::new(),
            held: BTreeSet::new(),
            held_disks: BTreeSet::new(),
            held_files: BTreeSet::new(),
            under_way: BTreeMap::new(),
            requests: 0,
        }
    }

    /// All nodes, ascending.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeId> {
        self.hosts.keys().copied().collect()
    }

    /// A node.
    ///
    /// # Panics
    /// If there is none of that number.
    pub fn host(&mut self, node: NodeId) -> &mut Host {
        self.hosts.get_mut(&node).unwrap_or_else(|| panic!("there is no node {node}"))
    }

    /// Starts a node's process.
    ///
    /// # Errors
    /// If it refuses to start.
    pub fn start(&mut self, node: NodeId) -> Result<(), String> {
        let started = self.host(node).start();
        if let Err(error) = &started {
            self.tell(node, format!("does not start: {error}"));
        }
        self.perform(node, started?);
        Ok(())
    }

    /// The power of a node goes.
    pub fn crash(&mut self, node: NodeId) {
        let lost = self.host(node).crash();
        self.tell(node, "crashes");
        if let Some(lost) = lost.and_then(|batch| self.words.block(node, &batch)) {
            self.tell(node, format!("loses {lost}"));
        }
        // What it had sent is on its way. What it was sent is not.
        self.under_way.retain(|(_, to), _| *to != node);
    }

    /// A request for the next turn of a node.
    pub fn ask(
        &mut self,
        node: NodeId,
        shard: ShardId,
        epoch: Option<Epoch>,
        millis: u64,
        operation: Operation,
    ) -> RequestId {
        self.requests += 1;
        let id = RequestId(self.requests);
        let host = self.host(node);
        let deadline = host.now().plus_micros(millis * 1_000);
        host.give(Input::Request(Request { id, shard, epoch, deadline, operation }));
        self.answers.insert(id, None);
        id
    }

    /// The next requests have these numbers, or those that come after all that were asked before.
    pub fn number_from(&mut self, first: Option<u64>) {
        let numbered = self.answers.keys().map(|id| id.0).filter(|id| *id < UNNUMBERED);
        self.requests = first.unwrap_or_else(|| numbered.max().unwrap_or(0));
    }

    /// One tick of the clocks of these nodes, and what follows from it.
    pub fn tick(&mut self, nodes: &[NodeId]) {
        for node in nodes {
            self.host(*node).tick();
        }
        self.settle();
    }

    /// Lets everything happen that is not held back.
    ///
    /// # Panics
    /// If it does not end.
    pub fn settle(&mut self) {
        for _ in 0..ROUNDS_MAX {
            if !self.round() {
                return;
            }
        }
        panic!(
            "a step does not end; its last words:\n{}",
            self.trace.split_off(self.trace.len().saturating_sub(20)).join("\n")
        );
    }

    fn round(&mut self) -> bool {
        let mut has_moved = false;
        for (from, to) in self.under_way.keys().copied().collect::<Vec<_>>() {
            if !self.held.contains(&(from, to)) {
                has_moved = true;
                let messages = self.under_way.remove(&(from, to)).unwrap_or_default();
                self.arrive(from, to, messages);
            }
        }
        for node in self.nodes() {
            if let Some(outputs) = self.host(node).turn() {
                has_moved = true;
                self.perform(node, outputs);
            }
        }
        for node in self.nodes() {
            if !self.held_disks.contains(&node) {
                has_moved |= self.sync(node);
            }
            if !self.held_files.contains(&node) {
                has_moved |= self.step(node);
            }
        }
        has_moved
    }

    fn arrive(&mut self, from: NodeId, to: NodeId, messages: Vec<PeerMessage>) {
        let is_cut = self.cut.contains(&(from, to));
        if is_cut || self.host(to).process.is_none() {
            if !is_cut {
                self.host(from).give(Input::Undelivered { to, shard: None });
            }
            return;
        }
        for message in messages {
            self.host(to).give(Input::Peer { from, message });
        }
    }

    /// Writes and syncs a node's block, if there is one; true if there was.
    pub fn sync(&mut self, node: NodeId) -> bool {
        match self.host(node).sync() {
            Ok(None) => return false,
            Ok(Some(batch)) => {
                if let Some(block) = self.words.block(node, &batch) {
                    self.tell(node, format!("syncs {block}"));
                }
            }
            Err(reason) => self.fail(node, &reason),
        }
        true
    }

    /// One step of a node's checkpoint worker, if it has work; true if it had.
    pub fn step(&mut self, node: NodeId) -> bool {
        if !self.host(node).process.as_ref().is_some_and(|process| process.is_working) {
            return false;
        }
        match self.host(node).step() {
            Ok(events) => {
                for event in events.iter().filter_map(|event| self.words.event(event)).collect::<Vec<_>>() {
                    self.tell(node, event);
                }
            }
            Err(reason) => self.fail(node, &reason),
        }
        true
    }

    fn fail(&mut self, node: NodeId, reason: &str) {
        self.tell(node, format!("stops: {reason}"));
        self.host(node).process = None;
    }

    /// Loses what a link holds back; says how much of it is told of.
    pub fn lose(&mut self, link: (NodeId, NodeId)) -> usize {
        self.under_way.remove(&link).map_or(0, |messages| messages.len())
    }

    fn perform(&mut self, node: NodeId, outputs: Vec<Output>) {
        let is_verified = |output: &Output| matches!(output, Output::Notice(Notice::Verified { .. }));
        let (verified, outputs): (Vec<_>, Vec<_>) = outputs.into_iter().partition(is_verified);
        for output in verified {
            // A state is proven before anything is applied to it; entries applied have no place among the outputs.
            if let Output::Notice(notice) = output {
                self.notice(node, &notice);
            }
        }
        let applied = self.hosts.get_mut(&node).and_then(|host| host.process.as_mut());
        for entry in applied.map(|process| process.node.take_applied()).unwrap_or_default() {
            if let Some(words) = self.words.applied(&entry) {
                self.tell(node, words);
            }
        }
        for output in in_order(outputs) {
            match output {
                Output::Send { to, message } => self.send(node, to, message),
                Output::LogBatch(batch) => {
                    let process = self.host(node).process.as_mut().expect("it just took a turn");
                    assert!(process.writing.replace(batch).is_none(), "one block at a time");
                }
                Output::Checkpoint(job) => {
                    if let Some(words) = self.words.job(&job) {
                        self.tell(node, words);
                    }
                    self.host(node).process.as_mut().expect("it just took a turn").submit(*job);
                }
                Output::Reply { request, result } => {
                    self.trace.push(words::answer(request, &result));
                    let waiting = self.answers.insert(request, Some(result));
                    assert!(matches!(waiting, Some(None)), "{request} was asked once and is answered once");
                }
                Output::MapChanged(_) => {}
                Output::Notice(notice) => self.notice(node, &notice),
            }
        }
    }

    fn notice(&mut self, node: NodeId, notice: &Notice) {
        if let Some(words) = self.words.notice(notice) {
            self.tell(node, words);
        }
    }

    fn send(&mut self, from: NodeId, to: NodeId, message: PeerMessage) {
        if let Some(mut words) = self.words.message(from, to, &message) {
            if self.cut.contains(&(from, to)) {
                words.push_str(" (lost)");
            } else if self.held.contains(&(from, to)) {
                words.push_str(" (held)");
            }
            self.trace.push(words);
        }
        self.under_way.entry((from, to)).or_default().push(message);
    }

    fn tell(&mut self, node: NodeId, what: impl AsRef<str>) {
        self.trace.push(format!("n{node} {}", what.as_ref()));
    }

    /// A replica of shard 1 as its node tells it; `None` if the node is down.
    #[must_use]
    pub fn status(&self, node: NodeId) -> Option<ShardStatus> {
        self.hosts.get(&node)?.process.as_ref()?.node.shard_status(SHARD)
    }

    /// Where a replica's state stands, and its digest, computed from all its records.
    #[must_use]
    pub fn state(&self, node: NodeId) -> Option<(LogIndex, Digest)> {
        let process = self.hosts.get(&node)?.process.as_ref()?;
        let applied = process.node.shard_status(SHARD)?.applied;
        Some((applied, process.node.state_digest(SHARD).ok()??))
    }
}

/// raft tells its peers in the order of a map of its own: here messages that leave together leave by the number of the node.
fn in_order(mut outputs: Vec<Output>) -> Vec<Output> {
    let to = |output: &Output| match output {
        Output::Send { to, .. } => Some(*to),
        _ => None,
    };
    for run in outputs.chunk_by_mut(|one, other| to(one).is_some() && to(other).is_some()) {
        run.sort_by_key(to);
    }
    outputs
}

/// The record that founds a script's cluster.
#[must_use]
pub fn record(count: u64, shards: u32) -> FoundingRecord {
    let member = |node| Member {
        node: NodeId(node),
        incarnation: Incarnation(u128::from(node)),
        peer_address: format!("n{node}:7201"),
        zone: String::new(),
        // A heavy node has many places on the ring, and owns the first shard.
        weight: if node == 1 { WEIGHT_MAX } else { 1 },
    };
    FoundingRecord { members: (1..=count).map(member).collect(), shards, replication: 3, durability: Durability::Sync }
}
