//! What the liar says: whatever the protocol has words for, with numbers that are small, near what is true, or near where numbers
//! end. Every choice is read from the input's bytes, so that an input says the same at every run.

use bytes::Bytes;
use kv_core::{
    checkpoint::job::{FileDescription, Manifest},
    command::{Command, encode_batch},
    configuration::Configuration,
    io::{Consistency, Input},
    log::record::{EntryKind, LogEntry},
    message::{MARKS_TOLD_MAX, MarkDigest, MarkReport, PeerMessage, RaftMessage, RaftMessageKind, SnapshotMark},
    types::{Digest, Epoch, Incarnation, LogIndex, MapVersion, NodeId, ReplicaId, ShardId, Term},
};

use super::{HONEST, LIAR, NODES, spared::Spared, world::Cluster};

/// Bytes of a script, zeros at its end.
pub(super) struct Script<'a>(pub(super) &'a [u8]);

impl Script<'_> {
    pub(super) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub(super) fn below(&mut self, count: usize) -> usize {
        usize::from(self.byte()) % count
    }

    /// A number that is small, near one that is true now, or near where numbers end.
    pub(super) fn number(&mut self, near: u64) -> u64 {
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

impl Cluster {
    /// One step of the script. The liar leaves alone a shard that is spared.
    pub(super) fn step(&mut self, script: &mut Script, spared: Option<&Spared>) {
        let node = HONEST[script.below(2)];
        let shard = ShardId(script.below(self.map().shards.len()) as u64);
        // Where nobody lies of a shard, it may be led by the node that lies of others.
        let asked = if spared.is_some_and(|spared| spared.shard == shard) { &NODES[..] } else { &HONEST[..] };
        let step = script.byte();
        // Steps that came later took few numbers of the others, so that scripts that are kept mean what they meant.
        match step % 20 {
            _ if step >= 250 => self.read_at_one_behind(shard, asked, script, spared),
            _ if step >= 248 => self.hold_back(NODES[script.below(3)], NODES[script.below(3)]),
            0 => self.settle(),
            1 => self.tick(1 + script.below(12)),
            2 => {
                let bytes = 64 * script.below(40);
                for node in asked {
                    self.write(*node, shard, bytes);
                }
            }
            3 => drop(self.turns()),
            4 | 5 => {
                // What was truly said, said again: to another, by the liar, altered.
                let Some((to, message)) = self.sent.get(script.below(64)).cloned() else { return };
                let to = if script.byte() & 1 == 0 { to } else { node };
                let mut message = message;
                alter(&mut message, script);
                self.tell(to, LIAR, message, 1, spared);
            }
            6 => {
                let to = NodeId(script.number(1));
                self.give(node, Input::Undelivered { to, shard: (script.byte() & 1 == 0).then_some(shard) });
            }
            7..10 => {
                let consistency = match script.below(8) {
                    0..4 => Consistency::Linearizable,
                    4 | 5 => Consistency::Bounded { age_micros_max: 1_000_000 },
                    6 => Consistency::Bounded { age_micros_max: 1_000 * (1 + u64::from(script.byte())) },
                    _ => Consistency::Stale,
                };
                for node in asked {
                    self.read(*node, shard, consistency);
                }
            }
            _ => {
                let from = if script.byte() < 240 { LIAR } else { NodeId(script.number(1)) };
                let message = self.lie(node, shard, script);
                // A connection says whose it is. Two voices that contradict each other at an index that no log has would be two
                // liars of three: such a dispute ends only with a mark above it.
                let from = if matches!(message, PeerMessage::Marks { .. }) { LIAR } else { from };
                let times = if script.byte() < 250 { 1 } else { 40 };
                self.tell(node, from, message, times, spared);
            }
        }
    }

    /// A shard is written, and one of its followers has not heard that it is decided when it is read there; the liar may speak
    /// between that follower's question and the leader's answer. All the steps of this are in the script's reach one by one, but
    /// seldom in this order. It brings up whatever lets a replica that is behind, or that is told so, pass for one that is not.
    fn read_at_one_behind(&mut self, shard: ShardId, asked: &[NodeId], script: &mut Script, spared: Option<&Spared>) {
        let Some(leader) = self.leader(shard, asked) else { return };
        let others: Vec<NodeId> = asked.iter().filter(|node| **node != leader).copied().collect();
        let behind = others[script.below(others.len())];
        self.hold_back(leader, behind);
        self.write(leader, shard, 64);
        self.settle();
        let age_micros_max = 10_000 * (1 + u64::from(script.byte()));
        self.read(behind, shard, Consistency::Bounded { age_micros_max });
        self.turns();
        let message = match script.below(4) {
            0 => None,
            1 | 2 => Some(self.probe_answer(behind, shard, script)),
            _ => Some(self.lie(behind, shard, script)),
        };
        if let Some(message) = message {
            self.tell(behind, LIAR, message, 1, spared);
        }
        if script.byte() & 1 == 0 {
            self.settle();
        }
    }

    fn tell(&mut self, to: NodeId, from: NodeId, message: PeerMessage, times: usize, spared: Option<&Spared>) {
        let message = match spared {
            Some(spared) => spared.leave_alone(to, from, message, self),
            None => Some(message),
        };
        if let Some(message) = message {
            for _ in 0..times {
                self.say(to, from, message.clone());
            }
        }
    }

    fn lie(&self, node: NodeId, shard: ShardId, script: &mut Script) -> PeerMessage {
        let index = self.truth(node, shard).3;
        let number = u64::from(script.byte());
        let other = ShardId(script.number(shard.0));
        let asked = if script.byte() < 230 { shard } else { other };
        match script.below(24) {
            0 => PeerMessage::ReadProbe { shard: asked, probe: number },
            1 => self.probe_answer(node, asked, script),
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
                    message.snapshot =
                        Some(Box::new(SnapshotMark { index, term, configuration: Configuration::default() }));
                }
                let message = (script.byte() < 220).then(|| Box::new(message));
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
            15 | 16 => self.leadership_ask(node, shard, script),
            17 | 18 => self.leadership_answer(node, shard, script),
            _ => PeerMessage::Raft { shard: asked, message: self.raft_lie(node, shard, script) },
        }
    }

    /// An account of states that the liar never held, at true indexes and others.
    fn marks_lie(&self, node: NodeId, shard: ShardId, script: &mut Script) -> MarkReport {
        let status = self.nodes[&node].shard_status(shard);
        let near = status.as_ref().map_or(0, |status| status.checkpoint.unwrap_or(status.applied).0);
        let digest = status.and_then(|status| status.digest);
        let mark = |script: &mut Script| {
            let index = LogIndex(script.number(near));
            let own = digest.filter(|_| script.byte() < 64);
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
pub(super) fn alter(message: &mut PeerMessage, script: &mut Script) {
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
