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
//! append with other entries, a term far ahead) can cost a shard its safety or its leader, or have its replicas taken out of
//! service; nothing here asks for more. Only panics, the life of the other shards, and memory are judged.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use kv_core::{
    checkpoint::job::{CheckpointEvent, CheckpointJob, FileDescription, Manifest},
    command::{Action, Command, Condition, Write, encode_batch},
    configuration::Configuration,
    disk::StateStore,
    founding::{FoundingRecord, Member},
    io::{Answer, Input, Notice, Operation, Output, Request},
    log::record::{EntryKind, LogEntry, LogReport, Recovered},
    message::{MARKS_TOLD_MAX, MarkDigest, MarkReport, PeerMessage, RaftMessage, RaftMessageKind, SnapshotMark},
    node::{Node, Opening, Role},
    settings::Settings,
    state::record::{Footer, StateHeader},
    types::{
        Digest, Durability, Epoch, Incarnation, Key, LogIndex, MapVersion, NodeId, ReplicaId, RequestId, ShardId, Term,
        Time, Value,
    },
};
use kv_tests::{disk::MemoryStore, fuzz::Target};

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

/// Bytes of a script, zeros at its end.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn below(&mut self, count: usize) -> usize {
        usize::from(self.byte()) % count
    }

    /// A number that is small, near one that is true now, or near where numbers end.
    fn number(&mut self, near: u64) -> u64 {
        let byte = self.byte();
        let by = u64::from(byte & 7);
        match byte >> 3 {
            0..12 => near.wrapping_add(by),
            12..18 => near.wrapping_sub(by),
            18..22 => by,
            22..25 => u64::MAX - by,
            25..27 => u64::MAX / 2 - 3 + by,
            27..29 => 1 << (8 * by),
            _ => u64::from(u32::MAX) + by,
        }
    }
}

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

    /// A checkpoint thread without files: the tree is all there is, and what peers offer can't be staged.
    fn checkpoint(&mut self, node: NodeId, job: CheckpointJob) {
        let store = self.stores[&node].clone();
        let event = match job {
            CheckpointJob::Load { shard, replica, initial: Some(header), .. } => {
                store.reset(replica).unwrap();
                let footer = Footer { header, digest: Digest(0) };
                let (checkpoints, sessions, nodes) = (Vec::new(), Vec::new(), Vec::new());
                CheckpointEvent::Loaded { shard, replica, footer, checkpoints, confirmed: None, sessions, nodes }
            }
            CheckpointJob::Load { shard, replica, .. } => {
                CheckpointEvent::LoadFailed { shard, replica, reason: "there are no files".to_owned() }
            }
            CheckpointJob::Write { shard, replica, table, header } => {
                let changes: Vec<_> = table.records.clone().into_iter().collect();
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
            // What is offered lacks everything, takes every piece, and is verified if its index is even.
            CheckpointJob::Stage { replica, manifest } => {
                let staging = manifest.staging();
                let lacking = (0..manifest.files.len() as u32).map(|file| (file, 0)).collect();
                CheckpointEvent::Staged { replica, staging, lacking }
            }
            CheckpointJob::WritePiece { replica, staging, file, offset, bytes } => {
                let next_offset = offset.saturating_add(bytes.len() as u64);
                CheckpointEvent::PieceWritten { replica, staging, file, next_offset }
            }
            CheckpointJob::Verify { replica, staging } => {
                CheckpointEvent::StageFailed { replica, staging, reason: "not what was offered".to_owned() }
            }
            CheckpointJob::Release { .. } | CheckpointJob::Discard { .. } | CheckpointJob::Forget { .. } => return,
        };
        self.give(node, Input::Checkpoint(event));
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
                for _ in 0..=(script.byte() / 250) * 40 {
                    self.give(node, Input::Peer { from, message: message.clone() });
                }
            }
        }
    }

    fn lie(&self, node: NodeId, shard: ShardId, script: &mut Script) -> PeerMessage {
        let index = self.truth(node, shard).3;
        let number = u64::from(script.byte());
        let other = ShardId(script.number(shard.0));
        let asked = if script.byte() < 230 { shard } else { other };
        match script.below(20) {
            0 => PeerMessage::ReadProbe { shard: asked, probe: number },
            1 => {
                let index = (script.byte() & 1 == 0).then(|| LogIndex(script.number(index)));
                PeerMessage::ReadProbeAnswer { shard: asked, probe: script.number(node.0 << 32), index }
            }
            2 => {
                let (at_least, at_most) = (LogIndex(script.number(0)), LogIndex(script.number(index)));
                PeerMessage::StateAsk { shard: asked, at_least, at_most }
            }
            3 | 4 => {
                let mut message = self.raft_lie(node, shard, script);
                message.kind = RaftMessageKind::Snapshot;
                let manifest = manifest(index, script);
                if script.byte() < 200 {
                    let (index, term) = (manifest.index, manifest.term);
                    message.snapshot = Some(SnapshotMark { index, term, configuration: Configuration::default() });
                }
                let message = (script.byte() < 220).then_some(message);
                PeerMessage::SnapshotOffer { shard: asked, stream: number % 4, manifest, message }
            }
            5 => PeerMessage::SnapshotWant {
                shard: asked,
                stream: script.number(node.0 << 32),
                file: script.number(0) as u32,
                offset: script.number(0),
            },
            6 | 7 => PeerMessage::SnapshotChunk {
                shard: asked,
                stream: number % 4,
                file: script.number(0) as u32,
                offset: script.number(0),
                bytes: vec![7; script.below(200)].into(),
            },
            8 => PeerMessage::SnapshotEnd {
                shard: asked,
                stream: script.number(node.0 << 32),
                complete: number & 1 == 0,
            },
            9 => PeerMessage::MapAsk { have: MapVersion(script.number(0)) },
            10 => {
                let mut map = self.nodes[&node].map().clone();
                map.version = MapVersion(script.number(map.version.0));
                let row = script.below(map.shards.len());
                match script.below(8) {
                    0 => map.shards[row].epoch = Epoch(script.number(1)),
                    1 => map.shards[row].replicas.rotate_left(1),
                    2 => map.shards[row].shard = other,
                    3 => drop(map.nodes.pop()),
                    4 => map.nodes[0].incarnation = Incarnation(9),
                    5 => map.nodes[0].zone = "z".repeat(4 * usize::from(script.byte())),
                    _ => {}
                }
                PeerMessage::MapTell(map)
            }
            11 => {
                let mut own = self.nodes[&node].map().nodes[2].clone();
                own.node = NodeId(script.number(LIAR.0));
                own.weight = script.number(1) as u32;
                own.zone = "z".repeat(4 * usize::from(script.byte()));
                PeerMessage::DescribeNode(own)
            }
            12..15 => PeerMessage::Marks { shard: asked, report: self.marks_lie(node, shard, script) },
            _ => PeerMessage::Raft { shard: asked, message: self.raft_lie(node, shard, script) },
        }
    }

    /// An account of states that the liar never held, at true indexes and others.
    fn marks_lie(&self, node: NodeId, shard: ShardId, script: &mut Script) -> MarkReport {
        let status = self.nodes[&node].shard_status(shard).unwrap();
        let near = status.checkpoint.unwrap_or(status.applied).0;
        let mark = |script: &mut Script| {
            let index = LogIndex(script.number(near));
            let own = status.digest.filter(|_| script.byte() < 64);
            MarkDigest { index, digest: own.unwrap_or(Digest(u128::from(script.byte() & 3))) }
        };
        let mut checkpoints: Vec<_> = (0..script.below(MARKS_TOLD_MAX + 2)).map(|_| mark(script)).collect();
        if script.byte() < 230 {
            checkpoints.sort_by_key(|mark| mark.index);
            checkpoints.dedup_by_key(|mark| mark.index);
        }
        let flags = script.byte();
        MarkReport {
            number: script.number(LIAR.0 << 32),
            checkpoints,
            skipped: LogIndex(script.number(near)),
            wants_mark: flags & 1 == 0,
            wants_answer: flags & 2 == 0,
        }
    }

    fn raft_lie(&self, node: NodeId, shard: ShardId, script: &mut Script) -> RaftMessage {
        let (to, from, term, last, commit) = self.truth(node, shard);
        let term = script.number(term);
        let mut index = script.number(last);
        let log_term = script.number(term);
        let first = index;
        let count = if script.byte() < 128 { 0 } else { script.below(4) };
        let entries = (0..count)
            .map(|_| {
                index = if script.byte() < 200 { index.wrapping_add(1) } else { script.number(index) };
                LogEntry {
                    index: LogIndex(index),
                    term: Term(if script.byte() < 200 { term } else { script.number(term) }),
                    kind: [
                        EntryKind::Commands,
                        EntryKind::Commands,
                        EntryKind::Configuration,
                        EntryKind::ConfigurationV2,
                    ][script.below(4)],
                    context: Bytes::new(),
                    data: match script.below(4) {
                        0 => Bytes::new(),
                        1 => encode_batch(&[Command::OpenSession]),
                        2 => encode_batch(&vec![Command::OpenSession; usize::from(script.byte())]),
                        _ => Bytes::copy_from_slice(&[script.byte(), script.byte()]),
                    },
                }
            })
            .collect();
        RaftMessage {
            kind: KINDS[script.below(KINDS.len())],
            to: if script.byte() < 240 { to } else { ReplicaId(script.number(to.0)) },
            from: if script.byte() < 240 { from } else { ReplicaId(script.number(from.0)) },
            term: Term(term),
            log_term: Term(log_term),
            index: LogIndex(first),
            entries,
            commit: LogIndex(script.number(commit)),
            commit_term: Term(script.number(term)),
            snapshot: None,
            request_snapshot: LogIndex(if script.byte() < 240 { 0 } else { script.number(0) }),
            reject: script.byte() & 1 == 0,
            reject_hint: LogIndex(script.number(last)),
            context: [Bytes::new(), Bytes::from_static(b"CampaignTransfer"), Bytes::from_static(&[9; 16])]
                [script.below(3)]
            .clone(),
            priority: script.number(0) as i64,
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
            .filter(|shard| HONEST.iter().all(|node| self.is_fit(*node, *shard)))
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

const KINDS: [RaftMessageKind; 13] = [
    RaftMessageKind::Append,
    RaftMessageKind::Append,
    RaftMessageKind::Append,
    RaftMessageKind::AppendResponse,
    RaftMessageKind::AppendResponse,
    RaftMessageKind::RequestVote,
    RaftMessageKind::RequestVoteResponse,
    RaftMessageKind::RequestPreVote,
    RaftMessageKind::RequestPreVoteResponse,
    RaftMessageKind::Snapshot,
    RaftMessageKind::Heartbeat,
    RaftMessageKind::HeartbeatResponse,
    RaftMessageKind::TimeoutNow,
];

fn manifest(index: u64, script: &mut Script) -> Manifest {
    let files = (0..script.below(4) * if script.byte() < 250 { 1 } else { 30 })
        .map(|number| FileDescription {
            name: ["base-3", "delta-7", "../../etc", "DELTA"][script.below(4)].to_owned(),
            bytes: script.number(100),
            hash: number as u128,
        })
        .collect();
    Manifest {
        files,
        index: LogIndex(script.number(index)),
        term: Term(script.number(2)),
        digest: Digest(u128::from(script.byte())),
    }
}

/// Changes one field of a message that was truly sent.
fn alter(message: &mut PeerMessage, script: &mut Script) {
    let PeerMessage::Raft { shard, message } = message else { return };
    match script.below(14) {
        0 => shard.0 = script.number(shard.0),
        1 => message.to.0 = script.number(message.to.0),
        2 => message.from.0 = script.number(message.from.0),
        3 => message.term.0 = script.number(message.term.0),
        4 => message.log_term.0 = script.number(message.log_term.0),
        5 => message.index.0 = script.number(message.index.0),
        6 => message.commit.0 = script.number(message.commit.0),
        7 => message.reject = !message.reject,
        8 => message.kind = KINDS[script.below(KINDS.len())],
        9 => message.entries.reverse(),
        10 => drop(message.entries.pop()),
        11 => {
            let entry = message.entries.first().cloned();
            message.entries.extend(entry);
        }
        12 => {
            if let Some(entry) = message.entries.last_mut() {
                entry.data = Bytes::from_static(&[1, 0x80]);
            }
        }
        _ => message.reject_hint.0 = script.number(message.reject_hint.0),
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
