//! Every message between nodes comes back as it went.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use fastrand::Rng;
use kv_core::{
    checkpoint::job::{FileDescription, Manifest},
    configuration::Configuration,
    error::Error,
    founding::{FoundingMessage, FoundingRecord, FoundingRefusal, Member},
    log::record::{EntryKind, LogEntry},
    message::{
        ClaimedLeadership, Heartbeat, LeadershipRound, MARKS_TOLD_MAX, MarkDigest, MarkReport, PeerMessage,
        RaftMessage, RaftMessageKind, SnapshotMark,
    },
    shard_map::NodeDescription,
    types::{Digest, Durability, Incarnation, LogIndex, MapVersion, NodeId, ReplicaId, ShardId, Term},
};
use kv_proto::v1::{self, peer_message::Body};
use prost::Message as _;

use super::super::{FromPeer, HeartbeatRow, batch_from_wire, founding_to_wire, message_to_wire};

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

/// What a message of an envelope says.
pub(super) fn read(message: v1::PeerMessage) -> Result<FromPeer, Error> {
    let mut read = Vec::new();
    batch_from_wire(v1::PeerBatch { messages: vec![message] }, |message| read.push(message));
    assert_eq!(read.len(), 1, "one message is one");
    read.remove(0)
}

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
        match read(v1::PeerMessage::decode(&wire[..]).expect("what was encoded decodes")) {
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
        match read(founding_to_wire(&message)) {
            Ok(FromPeer::Founding(read)) => assert_eq!(read, message),
            other => panic!("{message:?} came back as {other:?}"),
        }
    }
}

/// A heartbeat, or the answer to one, with nothing in it but what each has.
pub(super) fn heartbeat(answers: bool, random: &mut Rng) -> PeerMessage {
    let heartbeat = Heartbeat {
        is_answer: answers,
        to: ReplicaId(number_of(random)),
        from: ReplicaId(number_of(random)),
        term: Term(number_of(random)),
        commit: LogIndex(number_of(random)),
    };
    PeerMessage::Raft { shard: ShardId(number_of(random)), message: heartbeat.into() }
}

/// Heartbeats in one message, as a queue gathers them.
pub(super) fn gathered(messages: &[PeerMessage]) -> v1::PeerMessage {
    let mut rows = messages.iter().map(|message| HeartbeatRow::of(message).expect("a plain heartbeat is a row"));
    let mut gathered = rows.next().expect("there is one").begin();
    rows.for_each(|row| assert!(row.add_to(&mut gathered)));
    gathered
}

fn read_all(messages: Vec<v1::PeerMessage>) -> Vec<Result<FromPeer, Error>> {
    let mut read = Vec::new();
    batch_from_wire(v1::PeerBatch { messages }, |message| read.push(message));
    read
}

#[test]
fn heartbeats_in_one_message_come_back_one_by_one() {
    let mut random = Rng::with_seed(3);
    for answers in [false, true] {
        let sent: Vec<_> = (0..100).map(|_| heartbeat(answers, &mut random)).collect();
        let mut gathered = gathered(&sent);
        let other = HeartbeatRow::of(&heartbeat(!answers, &mut random)).expect("a plain heartbeat is a row");
        assert!(!other.add_to(&mut gathered), "a question is no answer");
        assert!(!other.add_to(&mut message_to_wire(sent[0].clone())));
        let wire = gathered.encode_to_vec();
        let alone: usize = sent.iter().map(|message| message_to_wire(message.clone()).encoded_len()).sum();
        assert!(wire.len() < alone, "{} bytes for what takes {alone}", wire.len());
        let read = read_all(vec![v1::PeerMessage::decode(&wire[..]).expect("what was encoded decodes")]);
        let read = read.into_iter().map(|message| match message {
            Ok(FromPeer::Node(message)) => message,
            other => panic!("a heartbeat came back as {other:?}"),
        });
        assert_eq!(read.collect::<Vec<_>>(), sent);
    }
}

#[test]
fn what_says_more_than_a_row_can_hold_is_none() {
    let mut random = Rng::with_seed(4);
    let PeerMessage::Raft { shard, message: plain } = heartbeat(false, &mut random) else {
        unreachable!("a heartbeat is raft's");
    };
    let is_row = |message: RaftMessage| HeartbeatRow::of(&PeerMessage::Raft { shard, message }).is_some();
    assert!(is_row(plain.clone()));
    let configuration = Configuration::default();
    let mark = SnapshotMark { index: LogIndex(1), term: Term(1), configuration };
    let changes: [fn(&mut RaftMessage); 9] = [
        |message| message.log_term = Term(1),
        |message| message.index = LogIndex(1),
        |message| message.commit_term = Term(1),
        |message| message.request_snapshot = LogIndex(1),
        |message| message.reject = true,
        |message| message.reject_hint = LogIndex(1),
        |message| message.context = Bytes::from_static(b"c"),
        |message| message.priority = 1,
        |message| message.kind = RaftMessageKind::Append,
    ];
    for change in changes {
        let mut message = plain.clone();
        change(&mut message);
        assert!(!is_row(message.clone()), "{message:?}");
    }
    assert!(!is_row(RaftMessage { snapshot: Some(Box::new(mark)), ..plain.clone() }));
    let entry = LogEntry {
        index: LogIndex(1),
        term: Term(1),
        kind: EntryKind::Commands,
        context: Bytes::new(),
        data: Bytes::new(),
    };
    assert!(!is_row(RaftMessage { entries: vec![entry], ..plain }));
}

#[test]
fn rows_that_do_not_fit_are_refused_and_the_other_messages_taken() {
    let rows = |count| v1::Heartbeats {
        shards: vec![1; count],
        to: vec![2; count],
        from: vec![3; count],
        terms: vec![4; count],
        commits: vec![5; count],
        ..v1::Heartbeats::default()
    };
    let message = |rows| v1::PeerMessage { shard: 0, body: Some(Body::Heartbeats(rows)) };
    let other = || message_to_wire(heartbeat(true, &mut Rng::with_seed(6)));
    let short: [fn(&mut v1::Heartbeats); 5] = [
        |rows| rows.shards.truncate(2),
        |rows| rows.to.truncate(2),
        |rows| rows.from.truncate(2),
        |rows| rows.terms.truncate(2),
        |rows| rows.commits.push(1),
    ];
    for shorten in short {
        let mut bad = rows(3);
        shorten(&mut bad);
        let read = read_all(vec![other(), message(bad), other()]);
        assert!(matches!(&read[..], [Ok(_), Err(_), Ok(_)]), "{read:?}");
    }
    let counts = |counts: &[usize]| {
        let read = read_all(counts.iter().map(|count| message(rows(*count))).collect());
        (read.iter().filter(|read| read.is_ok()).count(), read.iter().filter(|read| read.is_err()).count())
    };
    assert_eq!(counts(&[4_096]), (4_096, 0));
    assert_eq!(counts(&[4_097]), (0, 1), "no message has so many");
    assert_eq!(counts(&[4_096; 5]), (16_384, 1), "nor has an envelope");
}
