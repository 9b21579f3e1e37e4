//! Three nodes without disks and network: what one sends is the other's next input, and what a log or a checkpoint thread would
//! do is done at once.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::LazyLock,
};

use bytes::Bytes;
use kv_core::{
    checkpoint::job::{CheckpointEvent, CheckpointJob},
    command::{Action, Condition, Write},
    configuration::Configuration,
    disk::StateStore,
    founding::{FoundingRecord, Member},
    io::{Answer, Input, Notice, Operation, Output, Request},
    log::record::{Install, LogReport, StagingId},
    message::PeerMessage,
    node::{Node, Opening, Role},
    settings::Settings,
    shard_map::{ShardMap, ShardRow},
    state::record::{Footer, StateHeader},
    types::{Digest, Durability, Incarnation, Key, LogIndex, NodeId, ReplicaId, RequestId, ShardId, Term, Time, Value},
};
use kv_tests::disk::MemoryStore;

use super::{LIAR, NODES, SHARDS, plain};

/// Messages that may be on their way at once.
const IN_FLIGHT_MAX: usize = 20_000;
/// Inputs of one turn: the shell cuts there too.
const TURN_INPUTS_MAX: usize = 4_096;

/// What founded the cluster, and the map that follows: the same for all runs.
pub(super) static FOUNDING: LazyLock<(FoundingRecord, ShardMap)> = LazyLock::new(|| {
    let member = |node| Member {
        node: NodeId(node),
        incarnation: Incarnation(u128::from(node)),
        peer_address: format!("n{node}:1"),
        zone: String::new(),
        weight: 1,
    };
    let record = FoundingRecord {
        members: (1..=3).map(member).collect(),
        shards: SHARDS,
        replication: 3,
        durability: Durability::Sync,
    };
    let map = record.layout();
    (record, map)
});

/// A shard's row, which nothing changes.
pub(super) fn row(shard: ShardId) -> &'static ShardRow {
    FOUNDING.1.shards.iter().find(|row| row.shard == shard).expect("it is one of the cluster's")
}

pub(super) struct Cluster {
    pub(super) nodes: BTreeMap<NodeId, Node<MemoryStore>>,
    stores: BTreeMap<NodeId, MemoryStore>,
    pub(super) inputs: BTreeMap<NodeId, Vec<Input>>,
    /// The liar's messages are held back while it is silent.
    pub(super) is_silent: bool,
    /// What was last sent, to be altered and sent again.
    pub(super) sent: VecDeque<(NodeId, PeerMessage)>,
    pub(super) now: Time,
    requests: u64,
    /// Writes that were acknowledged.
    pub(super) written: BTreeSet<RequestId>,
    /// What each replica began with: a state from a peer is made of it.
    initial: BTreeMap<ReplicaId, StateHeader>,
    /// What is being gathered: its place.
    staged: BTreeMap<(ReplicaId, StagingId), (LogIndex, Term)>,
    /// Shards of which a replica took a state over.
    pub(super) installed: BTreeSet<ShardId>,
    /// Messages that were refused, by reason.
    pub(super) refused: BTreeMap<&'static str, u64>,
    /// Replicas that were taken out of service, and why.
    pub(super) quarantined: BTreeMap<(NodeId, ShardId), String>,
    /// Lies that no honest node could tell, of which each was seen to be refused and counted.
    pub(super) plain_lies: u64,
}

impl Cluster {
    pub(super) fn start() -> Self {
        let mut cluster = Self {
            nodes: BTreeMap::new(),
            stores: BTreeMap::new(),
            inputs: BTreeMap::new(),
            is_silent: false,
            sent: VecDeque::new(),
            now: Time(1),
            requests: 0,
            written: BTreeSet::new(),
            initial: BTreeMap::new(),
            staged: BTreeMap::new(),
            installed: BTreeSet::new(),
            refused: BTreeMap::new(),
            quarantined: BTreeMap::new(),
            plain_lies: 0,
        };
        let settings = Settings { active_bytes_max: 16 * 1024, kept_bytes_max: 16 * 1024, ..Settings::default() };
        for node in NODES {
            let store = MemoryStore::default();
            let opening = Opening::first(node, FOUNDING.0.clone(), settings.clone(), cluster.now);
            let mut outputs = Vec::new();
            let opened = Node::open(opening, store.clone(), &mut outputs).unwrap();
            let mut own = opened.map().nodes.iter().find(|known| known.node == node).unwrap().clone();
            own.client_address = format!("n{node}:2");
            cluster.inputs.insert(node, vec![Input::Describe(own)]);
            cluster.nodes.insert(node, opened);
            cluster.stores.insert(node, store);
            cluster.perform(node, outputs);
        }
        cluster.tick(3);
        cluster
    }

    fn perform(&mut self, node: NodeId, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Send { to, message } => {
                    if self.sent.len() == 64 {
                        self.sent.pop_front();
                    }
                    self.sent.push_back((to, message.clone()));
                    if !(self.is_silent && (node == LIAR || to == LIAR)) {
                        self.give(to, Input::Peer { from: node, message });
                    }
                }
                Output::LogBatch(batch) => {
                    let report = LogReport { number: batch.number, ..LogReport::default() };
                    self.give(node, Input::Synced(report));
                }
                Output::Checkpoint(job) => self.checkpoint(node, job),
                Output::Reply { request, result: Ok(Answer::Written { .. }) } => {
                    self.written.insert(request);
                }
                Output::Reply { .. } => {}
                Output::MapChanged(_) => {}
                Output::Notice(Notice::Refused { reason, .. }) => *self.refused.entry(reason).or_default() += 1,
                Output::Notice(Notice::Quarantined { shard, reason }) => {
                    // The node would live on. But raft must not be brought by a message to stop on what can't be.
                    assert!(!reason.contains("must be impossible"), "node {node}, shard {shard}: {reason}");
                    self.quarantined.insert((node, shard), reason);
                }
                Output::Notice(_) => {}
            }
        }
    }

    pub(super) fn give(&mut self, to: NodeId, input: Input) {
        // What is for nobody is dropped by the shell.
        if let Some(inputs) = self.inputs.get_mut(&to) {
            inputs.push(input);
            assert!(inputs.len() < IN_FLIGHT_MAX, "messages make ever more messages");
        }
    }

    /// A checkpoint thread without files: the tree is all there is. What peers offer can be staged, and half of it is whole.
    fn checkpoint(&mut self, node: NodeId, job: CheckpointJob) {
        let store = self.stores[&node].clone();
        let loaded = |shard, replica, header| {
            store.reset(replica).unwrap();
            let footer = Footer { header, digest: Digest(0) };
            let (checkpoints, sessions, nodes) = (Vec::new(), Vec::new(), Vec::new());
            CheckpointEvent::Loaded { shard, replica, footer, checkpoints, confirmed: None, sessions, nodes }
        };
        let event = match job {
            CheckpointJob::Load { shard, replica, install: Some(Install { index, term, .. }), .. } => {
                self.installed.insert(shard);
                loaded(shard, replica, self.header(replica, index, term))
            }
            CheckpointJob::Load { shard, replica, initial: Some(header), .. } => {
                self.initial.insert(replica, header.clone());
                loaded(shard, replica, header)
            }
            CheckpointJob::Load { shard, replica, .. } => {
                CheckpointEvent::LoadFailed { shard, replica, reason: "there are no files".to_owned() }
            }
            CheckpointJob::Write { shard, replica, table, header } => {
                let changes: Vec<_> =
                    table.sorted().map(|(key, value)| (Bytes::copy_from_slice(key), value.clone())).collect();
                store.write(replica, &changes).unwrap();
                let StateHeader { index, .. } = header;
                let footer = Footer { header, digest: Digest(1) };
                self.give(node, Input::Checkpoint(CheckpointEvent::Durable { shard, replica, footer }));
                CheckpointEvent::Inserted { shard, replica, index }
            }
            CheckpointJob::Confirmed { shard, replica, index, .. } => {
                CheckpointEvent::Confirmed { shard, replica, index }
            }
            CheckpointJob::Offer { stream, .. } => CheckpointEvent::OfferFailed { stream },
            CheckpointJob::ReadPiece { stream, file, offset } => {
                CheckpointEvent::PieceRead { stream, file, offset, bytes: Bytes::new() }
            }
            // What is offered lacks everything, takes every piece, and is whole if its index is even.
            CheckpointJob::Stage { replica, manifest } => {
                let staging = manifest.staging();
                self.staged.retain(|(other, _), _| *other != replica);
                self.staged.insert((replica, staging), (manifest.index, manifest.term));
                let lacking = (0..manifest.files.len() as u32).map(|file| (file, 0)).collect();
                CheckpointEvent::Staged { replica, staging, lacking }
            }
            CheckpointJob::WritePiece { replica, staging, file, offset, bytes } => {
                let next_offset = offset.saturating_add(bytes.len() as u64);
                CheckpointEvent::PieceWritten { replica, staging, file, next_offset }
            }
            CheckpointJob::Verify { replica, staging } => match self.staged.get(&(replica, staging)) {
                Some((index, term)) if index.0.is_multiple_of(2) => {
                    CheckpointEvent::Verified { replica, staging, header: self.header(replica, *index, *term) }
                }
                _ => CheckpointEvent::StageFailed { replica, staging, reason: "not what was offered".to_owned() },
            },
            CheckpointJob::Release { .. }
            | CheckpointJob::Discard { .. }
            | CheckpointJob::Forget { .. }
            | CheckpointJob::Scrub { .. } => return,
        };
        self.give(node, Input::Checkpoint(event));
    }

    /// The state that a replica began with, as if it stood elsewhere.
    fn header(&self, replica: ReplicaId, index: LogIndex, term: Term) -> StateHeader {
        let mut header = self.initial.get(&replica).cloned().unwrap_or_default();
        let configuration = header.configurations.pop().map_or_else(Configuration::default, |(_, last)| last);
        header.configurations = vec![(index, configuration)];
        StateHeader { index, term, ..header }
    }

    /// A turn of each node that has inputs.
    pub(super) fn turns(&mut self) -> bool {
        let mut any = false;
        for node in NODES {
            let mut inputs = std::mem::take(self.inputs.get_mut(&node).unwrap());
            if inputs.is_empty() && !self.nodes[&node].has_more() {
                continue;
            }
            any = true;
            if inputs.len() > TURN_INPUTS_MAX {
                let rest = inputs.split_off(TURN_INPUTS_MAX);
                self.inputs.insert(node, rest);
            }
            let lies = plain::lies(&self.nodes[&node], &inputs);
            let mut outputs = Vec::new();
            self.now = self.now.plus_micros(10);
            self.nodes.get_mut(&node).unwrap().turn(self.now, &mut inputs, &mut outputs);
            self.plain_lies += plain::check(&self.nodes[&node], &lies, &outputs);
            self.perform(node, outputs);
        }
        any
    }

    pub(super) fn settle(&mut self) {
        for _ in 0..2_000 {
            if !self.turns() {
                return;
            }
        }
        panic!("nodes go on sending each other messages for ever");
    }

    pub(super) fn tick(&mut self, ticks: usize) {
        for _ in 0..ticks {
            self.now = self.now.plus_micros(50_000);
            for node in NODES {
                self.give(node, Input::Tick);
            }
            self.settle();
        }
    }

    pub(super) fn write(&mut self, node: NodeId, shard: ShardId, bytes: usize) -> Option<RequestId> {
        self.requests += 1;
        let arc = row(shard).arc?;
        let key = (0_u32..)
            .map(|number| format!("key{number}"))
            .find(|key| arc.contains(kv_core::ring::position(key.as_bytes())))
            .unwrap();
        let write = Write {
            key: Key::new(key).unwrap(),
            action: Action::Put(Value::new(vec![1; bytes]).unwrap()),
            condition: Condition::Always,
            return_previous: false,
            session: None,
        };
        let request = Request {
            id: RequestId(self.requests),
            shard,
            epoch: None,
            deadline: self.now.plus_micros(60_000_000),
            operation: Operation::Write { write, durability: None },
        };
        let id = request.id;
        self.give(node, Input::Request(request));
        Some(id)
    }

    /// Who of these leads a shard.
    pub(super) fn leader(&self, shard: ShardId, among: &[NodeId]) -> Option<NodeId> {
        let leads = |node: &&NodeId| {
            let status = self.nodes[node].shard_status(shard);
            status.is_some_and(|status| status.role == Role::Leader && !status.quarantined)
        };
        among.iter().find(leads).copied()
    }

    /// What stands true of a shard on a node, for lies that are nearly true.
    pub(super) fn truth(&self, node: NodeId, shard: ShardId) -> (ReplicaId, ReplicaId, u64, u64, u64) {
        let row = row(shard);
        let status = self.nodes[&node].shard_status(shard).unwrap();
        let from = row.replica_on(LIAR).unwrap();
        (row.replica_on(node).unwrap(), from, status.term.0, status.last_index.0, status.commit.0)
    }
}
