//! Three running nodes, among whose peers one lies.
//!
//! An input is read as a script: what the liar sends to whom, which messages in flight it alters, when time passes and when
//! clients write. The liar is node 3: it says in its own name, and in its replicas', whatever the protocol has words for;
//! wrong ids, terms and indexes of no log, entries out of order, offers of files that are none, epochs of the future.
//!
//! What must hold: no turn panics; no node holds more than a bound, and owes nobody more messages than it was sent; a
//! replica that can't go on takes only itself out of service; and once the liar is silent every shard whose replicas on the
//! other two nodes are in service takes writes.
//!
//! *Caveat*: Raft trusts its voters. A voter that lies in ways that an honest one could have spoken (votes it never gave, an
//! append with other entries, a term far ahead, a state that is none) can cost a shard its safety or its leader, or have its replicas taken out of
//! service; nothing here asks for more. Only panics, the life of the other shards, and memory are judged.

mod liar;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use kv_core::{
    checkpoint::job::{CheckpointEvent, CheckpointJob},
    command::{Action, Condition, Write},
    configuration::Configuration,
    disk::StateStore,
    founding::{FoundingRecord, Member},
    io::{Answer, Input, Notice, Operation, Output, Request},
    log::record::{EntryKind, Install, LogEntry, LogReport, Recovered, StagingId},
    message::{PeerMessage, RaftMessage, RaftMessageKind},
    node::{Node, Opening, Role},
    settings::Settings,
    state::record::{Footer, StateHeader},
    types::{
        Digest, Durability, Epoch, Incarnation, Key, LogIndex, MapVersion, NodeId, ReplicaId, RequestId, ShardId, Term,
        Time, Value,
    },
};
use kv_tests::{disk::MemoryStore, fuzz::Target};

use self::liar::{Script, alter};

/// The node whose messages the script makes up.
const LIAR: NodeId = NodeId(3);
const HONEST: [NodeId; 2] = [NodeId(1), NodeId(2)];
const SHARDS: u32 = 2;
/// What one run may make the three nodes hold together. Honest ones hold some hundred KiB, inputs have at most 2.
const HELD_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Replicas that believed in greater terms may have been led so far from each other that they refuse each other's.
const TERM_FIT_MAX: u64 = 1 << 31;
/// Messages that may be on their way at once.
const IN_FLIGHT_MAX: usize = 20_000;
/// Ticks within which, the liar being silent, a shard in service takes a write.
const HEAL_TICKS: usize = 200;

struct Cluster {
    nodes: BTreeMap<NodeId, Node<MemoryStore>>,
    stores: BTreeMap<NodeId, MemoryStore>,
    inputs: BTreeMap<NodeId, Vec<Input>>,
    /// The liar's messages are held back while it is silent.
    is_silent: bool,
    /// What was last sent, to be altered and sent again.
    sent: VecDeque<(NodeId, PeerMessage)>,
    now: Time,
    requests: u64,
    written: u64,
    /// What each replica began with: a state from a peer is made of it.
    initial: BTreeMap<ReplicaId, StateHeader>,
    /// What is being gathered: its place.
    staged: BTreeMap<(ReplicaId, StagingId), (LogIndex, Term)>,
    /// Shards of which a replica took a state over.
    installed: BTreeSet<ShardId>,
    refused: BTreeMap<&'static str, u64>,
    quarantined: BTreeMap<(NodeId, ShardId), String>,
}

impl Cluster {
    fn start() -> Self {
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
        let mut cluster = Self {
            nodes: BTreeMap::new(),
            stores: BTreeMap::new(),
            inputs: BTreeMap::new(),
            is_silent: false,
            sent: VecDeque::new(),
            now: Time(1),
            requests: 0,
            written: 0,
            initial: BTreeMap::new(),
            staged: BTreeMap::new(),
            installed: BTreeSet::new(),
            refused: BTreeMap::new(),
            quarantined: BTreeMap::new(),
        };
        let settings = Settings { active_bytes_max: 16 * 1024, kept_bytes_max: 16 * 1024, ..Settings::default() };
        for node in (1..=3).map(NodeId) {
            let store = MemoryStore::default();
            let opening = Opening {
                node,
                record: record.clone(),
                recovered: Recovered::default(),
                footers: BTreeMap::new(),
                settings: settings.clone(),
                seed: node.0,
                run: node.0 << 32,
                now: cluster.now,
            };
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
                Output::Reply { result, .. } => {
                    self.written += u64::from(matches!(result, Ok(Answer::Written { .. })));
                }
                Output::MapChanged(_) => {}
                Output::Notice(Notice::Refused { reason, .. }) => *self.refused.entry(reason).or_default() += 1,
                Output::Notice(Notice::Quarantined { shard, reason }) => {
                    self.quarantined.insert((node, shard), reason);
                }
                Output::Notice(_) => {}
            }
        }
    }

    fn give(&mut self, to: NodeId, input: Input) {
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
                let changes: Vec<_> = table.sorted().map(|(key, value)| (key.clone(), value.clone())).collect();
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
    fn turns(&mut self) -> bool {
        let mut any = false;
        for node in (1..=3).map(NodeId) {
            let mut inputs = std::mem::take(self.inputs.get_mut(&node).unwrap());
            if inputs.is_empty() {
                continue;
            }
            any = true;
            inputs.truncate(4_096);
            let mut outputs = Vec::new();
            self.now = self.now.plus_micros(10);
            self.nodes.get_mut(&node).unwrap().turn(self.now, &mut inputs, &mut outputs);
            self.perform(node, outputs);
        }
        any
    }

    fn settle(&mut self) {
        for _ in 0..2_000 {
            if !self.turns() {
                return;
            }
        }
        panic!("nodes go on sending each other messages for ever");
    }

    fn tick(&mut self, ticks: usize) {
        for _ in 0..ticks {
            self.now = self.now.plus_micros(50_000);
            for node in (1..=3).map(NodeId) {
                self.give(node, Input::Tick);
            }
            self.settle();
        }
    }

    fn write(&mut self, node: NodeId, shard: ShardId, bytes: usize) {
        self.requests += 1;
        let map = self.nodes[&NodeId(1)].map();
        let Some(arc) = map.shards.iter().find(|row| row.shard == shard).and_then(|row| row.arc) else { return };
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
        self.give(node, Input::Request(request));
    }

    fn leader(&self, shard: ShardId) -> Option<NodeId> {
        let leads = |node: &NodeId| {
            self.nodes[node]
                .shard_status(shard)
                .is_some_and(|status| status.role == Role::Leader && !status.quarantined)
        };
        HONEST.into_iter().find(leads)
    }

    /// What stands true of a shard on a node, for lies that are nearly true.
    fn truth(&self, node: NodeId, shard: ShardId) -> (ReplicaId, ReplicaId, u64, u64, u64) {
        let map = &self.nodes[&NodeId(1)].map().shards;
        let row = map.iter().find(|row| row.shard == shard).unwrap();
        let status = self.nodes[&node].shard_status(shard).unwrap();
        let from = row.replica_on(LIAR).unwrap();
        (row.replica_on(node).unwrap(), from, status.term.0, status.last_index.0, status.commit.0)
    }

    fn step(&mut self, script: &mut Script) {
        let node = HONEST[script.below(2)];
        let shard = ShardId(script.below(1 + SHARDS as usize) as u64);
        match script.below(16) {
            0 => self.settle(),
            1 => self.tick(1 + script.below(12)),
            2 => {
                for node in HONEST {
                    self.write(node, shard, 64 * script.below(40));
                }
            }
            3 => drop(self.turns()),
            4 | 5 => {
                // What was truly said, said again: to another, by the liar, altered.
                let Some((to, message)) = self.sent.get(script.below(64)).cloned() else { return };
                let to = if script.byte() & 1 == 0 { to } else { node };
                let mut message = message;
                alter(&mut message, script);
                self.give(to, Input::Peer { from: LIAR, message });
            }
            6 => {
                let to = NodeId(script.number(1));
                self.give(node, Input::Undelivered { to, shard: (script.byte() & 1 == 0).then_some(shard) });
            }
            _ => {
                let from = if script.byte() < 240 { LIAR } else { NodeId(script.number(1)) };
                let message = self.lie(node, shard, script);
                // A connection says whose it is. Two voices that contradict each other at an index that no log has would be two
                // liars of three: such a dispute ends only with a mark above it.
                let from = if matches!(message, PeerMessage::Marks { .. }) { LIAR } else { from };
                for _ in 0..=(script.byte() / 250) * 40 {
                    self.give(node, Input::Peer { from, message: message.clone() });
                }
            }
        }
    }

    fn is_fit(&self, node: NodeId, shard: ShardId) -> bool {
        let status = self.nodes[&node].shard_status(shard).unwrap();
        !status.quarantined && status.term.0 < TERM_FIT_MAX
    }

    /// The liar is silent: every shard whose replicas on the others are in service takes a write.
    fn heal(&mut self) {
        self.is_silent = true;
        for node in HONEST {
            let inputs = self.inputs.get_mut(&node).unwrap();
            inputs.retain(|input| !matches!(input, Input::Peer { from, .. } if *from == LIAR));
        }
        let fit: Vec<ShardId> = (1..=u64::from(SHARDS))
            .map(ShardId)
            // A state that the liar gave may stand where no other log reaches, and nobody has files to give here.
            .filter(|shard| HONEST.iter().all(|node| self.is_fit(*node, *shard)) && !self.installed.contains(shard))
            .collect();
        for shard in fit {
            // A leader of before may be deposed only now; what the liar had said may come to light only now.
            let before = self.written;
            let is_over = (0..HEAL_TICKS).any(|tick| {
                if let Some(leader) = self.leader(shard).filter(|_| tick % 4 == 0) {
                    self.write(leader, shard, 10);
                }
                self.tick(1);
                self.written > before || self.quarantined.keys().any(|(_, other)| *other == shard)
            });
            let status = HONEST.map(|node| self.nodes[&node].shard_status(shard));
            assert!(is_over, "shard {shard} takes no writes: {status:#?}");
        }
    }
}

fn run(input: &[u8]) -> String {
    let mut cluster = Cluster::start();
    let mut script = Script(input);
    while !script.0.is_empty() {
        cluster.step(&mut script);
    }
    cluster.settle();
    cluster.heal();
    let refused: Vec<_> = cluster.refused.keys().collect();
    let quarantined: Vec<_> = cluster.quarantined.values().collect();
    format!("refused {refused:?}, out of service {quarantined:?}")
}

#[test]
fn three_nodes() {
    let seeds =
        (0..40_u8).map(|seed| (0..60_u8).map(|at| at.wrapping_mul(seed.wrapping_mul(2) | 1)).collect()).collect();
    let target = Target { name: "cluster", runs: 2_500, bytes_max: 1_024, seeds };
    target.run(|input| {
        let mut said = String::new();
        let info = allocation_counter::measure(|| said = run(input));
        assert!(info.bytes_max <= HELD_BYTES_MAX, "three nodes held {} bytes", info.bytes_max);
        said
    });
}

#[test]
fn an_honest_cluster_refuses_nothing() {
    let mut cluster = Cluster::start();
    for round in 0..40_usize {
        for node in HONEST {
            cluster.write(node, ShardId(1 + round as u64 % u64::from(SHARDS)), 600);
        }
        cluster.tick(1);
    }
    cluster.heal();
    assert!(cluster.written > 20, "{} writes", cluster.written);
    assert_eq!((cluster.refused.len(), cluster.quarantined.len()), (0, 0), "{:?}", cluster.quarantined);
}

#[test]
fn each_of_the_plainest_lies_is_refused_and_counted() {
    let mut cluster = Cluster::start();
    let (node, shard) = (NodeId(1), ShardId(1));
    let (to, from, term, last, commit) = cluster.truth(node, shard);
    let honest = RaftMessage {
        kind: RaftMessageKind::Heartbeat,
        to,
        from,
        term: Term(term),
        log_term: Term(0),
        index: LogIndex(0),
        entries: Vec::new(),
        commit: LogIndex(commit),
        commit_term: Term(0),
        snapshot: None,
        request_snapshot: LogIndex(0),
        reject: false,
        reject_hint: LogIndex(0),
        context: Bytes::new(),
        priority: 0,
    };
    let entry = |index, entry_term| LogEntry {
        index: LogIndex(index),
        term: Term(entry_term),
        kind: EntryKind::Commands,
        context: Bytes::new(),
        data: Bytes::new(),
    };
    let append = RaftMessage { kind: RaftMessageKind::Append, ..honest.clone() };
    let lies = vec![
        RaftMessage { to: ReplicaId(99), ..honest.clone() },
        RaftMessage { from: to, ..honest.clone() },
        RaftMessage { term: Term(0), ..honest.clone() },
        RaftMessage { term: Term(u64::MAX), ..honest.clone() },
        RaftMessage { index: LogIndex(u64::MAX), log_term: Term(1), ..append.clone() },
        RaftMessage { index: LogIndex(last + 7), entries: vec![entry(last + 8, term)], ..append.clone() },
        RaftMessage { request_snapshot: LogIndex(1), ..honest.clone() },
        RaftMessage { commit: LogIndex(last + 1), ..honest.clone() },
        RaftMessage { entries: vec![entry(5, term)], ..honest.clone() },
        RaftMessage { entries: vec![entry(2, term), entry(1, term)], log_term: Term(1), ..append.clone() },
        RaftMessage { entries: vec![entry(1, term + 1)], log_term: Term(1), ..append.clone() },
        RaftMessage { kind: RaftMessageKind::Snapshot, ..honest },
    ];
    for (number, message) in (1..).zip(lies) {
        let shown = format!("{message:?}");
        cluster.give(node, Input::Peer { from: LIAR, message: PeerMessage::Raft { shard, message } });
        cluster.settle();
        assert_eq!(cluster.refused.values().sum::<u64>(), number, "{shown}");
    }
    let unknown = PeerMessage::ReadProbe { shard: ShardId(77), probe: 1 };
    let other = PeerMessage::DescribeNode(cluster.nodes[&node].map().nodes[0].clone());
    let mut map = cluster.nodes[&node].map().clone();
    map.version = MapVersion(1_000_000);
    map.shards[1].epoch = Epoch(9);
    let all: u64 = cluster.refused.values().sum();
    for message in [unknown, other, PeerMessage::MapTell(map)] {
        cluster.give(node, Input::Peer { from: LIAR, message });
    }
    cluster.settle();
    assert_eq!(cluster.refused.values().sum::<u64>(), all + 3, "{:?}", cluster.refused);
    cluster.heal();
    assert!(cluster.quarantined.is_empty());
}
