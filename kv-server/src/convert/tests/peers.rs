//! Every message between nodes comes back as it went.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use fastrand::Rng;
use kv_core::{
    checkpoint::job::{FileDescription, Manifest},
    configuration::Configuration,
    founding::{FoundingMessage, FoundingRecord, FoundingRefusal, Member},
    log::record::{EntryKind, LogEntry},
    message::{
        ClaimedLeadership, LeadershipRound, MARKS_TOLD_MAX, MarkDigest, MarkReport, PeerMessage, RaftMessage,
        RaftMessageKind, SnapshotMark,
    },
    shard_map::NodeDescription,
    types::{Digest, Durability, Incarnation, LogIndex, MapVersion, NodeId, ReplicaId, ShardId, Term},
};
use kv_proto::v1;
use prost::Message as _;

use super::super::{FromPeer, founding_to_wire, message_from_wire, message_to_wire};

/// Kinds of [`PeerMessage`].
pub(super) const KINDS: usize = 14;

/// The number of a message's kind, below [`KINDS`]. A new kind does not compile here, to be added to [`message`] too.
fn number(message: &PeerMessage) -> usize {
    match message {
        PeerMessage::Raft { .. } => 0,
        PeerMessage::ReadProbe { .. } => 1,
        PeerMessage::ReadProbeAnswer { .. } => 2,
        PeerMessage::StateAsk { .. } => 3,
        PeerMessage::SnapshotOffer { .. } => 4,
        PeerMessage::SnapshotWant { .. } => 5,
        PeerMessage::SnapshotChunk { .. } => 6,
        PeerMessage::SnapshotEnd { .. } => 7,
        PeerMessage::MapAsk { .. } => 8,
        PeerMessage::MapTell(_) => 9,
        PeerMessage::DescribeNode(_) => 10,
        PeerMessage::Marks { .. } => 11,
        PeerMessage::LeadershipAsk { .. } => 12,
        PeerMessage::LeadershipAnswer { .. } => 13,
    }
}

/// Raft's messages. A new kind does not compile here, to be added to the list below.
fn raft_number(kind: RaftMessageKind) -> usize {
    match kind {
        RaftMessageKind::Append => 0,
        RaftMessageKind::AppendResponse => 1,
        RaftMessageKind::RequestVote => 2,
        RaftMessageKind::RequestVoteResponse => 3,
        RaftMessageKind::RequestPreVote => 4,
        RaftMessageKind::RequestPreVoteResponse => 5,
        RaftMessageKind::Snapshot => 6,
        RaftMessageKind::Heartbeat => 7,
        RaftMessageKind::HeartbeatResponse => 8,
        RaftMessageKind::TimeoutNow => 9,
    }
}

const RAFT_KINDS: [RaftMessageKind; 10] = [
    RaftMessageKind::Append,
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

fn round(random: &mut Rng) -> LeadershipRound {
    LeadershipRound { run: random.u64(..), number: number_of(random) }
}

/// A message of a kind, every field drawn.
pub(super) fn message(kind: usize, random: &mut Rng) -> PeerMessage {
    let shard = ShardId(number_of(random));
    match kind {
        0 => PeerMessage::Raft { shard, message: raft(random) },
        1 => PeerMessage::ReadProbe { shard, probe: number_of(random) },
        2 => {
            let index = random.bool().then(|| LogIndex(number_of(random)));
            PeerMessage::ReadProbeAnswer { shard, probe: number_of(random), index }
        }
        3 => {
            let (at_least, at_most) = (LogIndex(number_of(random)), LogIndex(number_of(random)));
            PeerMessage::StateAsk { shard, at_least, at_most }
        }
        4 => PeerMessage::SnapshotOffer {
            shard,
            stream: number_of(random),
            manifest: manifest(random),
            message: random.bool().then(|| Box::new(raft(random))),
        },
        5 => {
            let (file, offset) = (random.u32(..), number_of(random));
            PeerMessage::SnapshotWant { shard, stream: number_of(random), file, offset }
        }
        6 => PeerMessage::SnapshotChunk {
            shard,
            stream: number_of(random),
            file: random.u32(..),
            offset: number_of(random),
            bytes: bytes(random),
        },
        7 => PeerMessage::SnapshotEnd { shard, stream: number_of(random), complete: random.bool() },
        8 => PeerMessage::MapAsk { have: MapVersion(number_of(random)) },
        9 => {
            let mut map = record(random).layout();
            map.version = MapVersion(number_of(random));
            PeerMessage::MapTell(map)
        }
        10 => PeerMessage::DescribeNode(NodeDescription {
            node: NodeId(number_of(random)),
            incarnation: Incarnation(random.u128(..)),
            peer_address: text(random),
            client_address: text(random),
            zone: text(random),
            weight: random.u32(..),
        }),
        11 => PeerMessage::Marks { shard, report: report(random) },
        12 => {
            let claimed = |random: &mut Rng| ClaimedLeadership {
                shard: ShardId(number_of(random)),
                replica: ReplicaId(number_of(random)),
                term: Term(number_of(random)),
            };
            let leaderships = (0..random.usize(..4)).map(|_| claimed(random)).collect();
            PeerMessage::LeadershipAsk { round: round(random), leaderships }
        }
        _ => {
            let shards = (0..random.usize(..4)).map(|_| ShardId(number_of(random))).collect();
            PeerMessage::LeadershipAnswer { round: round(random), shards }
        }
    }
}

fn report(random: &mut Rng) -> MarkReport {
    let mut mark = || MarkDigest { index: LogIndex(number_of(random)), digest: Digest(random.u128(..)) };
    let checkpoints = (0..MARKS_TOLD_MAX).map(|_| mark()).collect::<Vec<_>>();
    MarkReport {
        number: number_of(random),
        checkpoints: checkpoints[..random.usize(..=MARKS_TOLD_MAX)].to_vec(),
        skipped: LogIndex(number_of(random)),
        wants_mark: random.bool(),
        wants_answer: random.bool(),
    }
}

fn number_of(random: &mut Rng) -> u64 {
    if random.bool() { random.u64(..300) } else { random.u64(..) }
}

fn bytes(random: &mut Rng) -> Bytes {
    let length = random.usize(..100);
    std::iter::repeat_with(|| random.u8(..)).take(length).collect()
}

fn text(random: &mut Rng) -> String {
    let length = random.usize(..20);
    std::iter::repeat_with(|| random.alphanumeric()).take(length).collect()
}

fn record(random: &mut Rng) -> FoundingRecord {
    let member = |id| Member {
        node: NodeId(id),
        incarnation: Incarnation(u128::MAX - u128::from(id)),
        peer_address: format!("node-{id}:7201"),
        zone: String::new(),
        weight: 1,
    };
    let members = (1..=random.u64(1..5)).map(member).collect();
    FoundingRecord { members, shards: random.u32(1..6), replication: 3, durability: Durability::Async }
}

fn manifest(random: &mut Rng) -> Manifest {
    let files = (0..random.usize(..5))
        .map(|number| FileDescription {
            name: format!("delta-{number}"),
            bytes: number_of(random),
            hash: random.u128(..),
        })
        .collect();
    Manifest {
        files,
        index: LogIndex(number_of(random)),
        term: Term(number_of(random)),
        digest: Digest(random.u128(..)),
    }
}

fn raft(random: &mut Rng) -> RaftMessage {
    let kinds = [EntryKind::Commands, EntryKind::Configuration, EntryKind::ConfigurationV2];
    let entries = (0..random.usize(..4))
        .map(|_| LogEntry {
            index: LogIndex(number_of(random)),
            term: Term(number_of(random)),
            kind: kinds[random.usize(..3)],
            context: bytes(random),
            data: bytes(random),
        })
        .collect();
    let configuration = Configuration {
        voters: vec![ReplicaId(1), ReplicaId(3)],
        learners: vec![ReplicaId(4)],
        voters_outgoing: vec![ReplicaId(1), ReplicaId(5)],
        learners_next: vec![ReplicaId(5)],
        auto_leave: random.bool(),
        nodes: BTreeMap::from([1, 3, 4, 5].map(|id| (ReplicaId(id), NodeId(id + 10)))),
    };
    let (index, term) = (LogIndex(number_of(random)), Term(number_of(random)));
    RaftMessage {
        kind: RAFT_KINDS[random.usize(..RAFT_KINDS.len())],
        to: ReplicaId(number_of(random)),
        from: ReplicaId(number_of(random)),
        term: Term(number_of(random)),
        log_term: Term(number_of(random)),
        index: LogIndex(number_of(random)),
        entries,
        commit: LogIndex(number_of(random)),
        commit_term: Term(number_of(random)),
        snapshot: random.bool().then(|| Box::new(SnapshotMark { index, term, configuration })),
        request_snapshot: LogIndex(number_of(random)),
        reject: random.bool(),
        reject_hint: LogIndex(number_of(random)),
        context: bytes(random),
        priority: random.i64(..),
    }
}

#[test]
fn every_message_comes_back_as_it_went() {
    let mut random = Rng::with_seed(1);
    let (mut seen, mut seen_raft) = (BTreeSet::new(), BTreeSet::new());
    for round in 0..2_000 {
        let message = message(round % KINDS, &mut random);
        seen.insert(number(&message));
        if let PeerMessage::Raft { message, .. } = &message {
            seen_raft.insert(raft_number(message.kind));
        }
        let wire = message_to_wire(message.clone()).encode_to_vec();
        let read = v1::PeerMessage::decode(&wire[..]).expect("what was encoded decodes");
        match message_from_wire(read) {
            Ok(FromPeer::Node(read)) => assert_eq!(read, message),
            other => panic!("{message:?} came back as {other:?}"),
        }
    }
    assert_eq!((seen.len(), seen_raft.len()), (KINDS, RAFT_KINDS.len()), "all kinds were drawn");
}

#[test]
fn a_founding_message_comes_back_as_it_went() {
    let record = record(&mut Rng::with_seed(2));
    let reason = FoundingRefusal::NotNamed { cluster: record.cluster_id() };
    for message in [FoundingMessage::Offer(record), FoundingMessage::Refusal { incarnation: Incarnation(7), reason }] {
        match message_from_wire(founding_to_wire(&message)) {
            Ok(FromPeer::Founding(read)) => assert_eq!(read, message),
            other => panic!("{message:?} came back as {other:?}"),
        }
    }
}
