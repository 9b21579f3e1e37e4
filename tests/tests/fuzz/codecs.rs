//! What is decoded in one piece: commands, maps, what founding leaves behind and sends around, and the parts of a state.
//!
//! Of each it is asked that what is taken would be written in the very same bytes: a checksum, a bound or a rest that nobody looks
//! at shows in bytes that are taken and were never written.

use bytes::Bytes;
use kv_core::{
    codec::Reader,
    command::{Action, BATCH_COMMANDS_MAX, Command, Condition, SessionStamp, Write, decode_batch, encode_batch},
    configuration::Configuration,
    founding::{
        ConfigurationDigest, FoundingMessage, FoundingRecord, FoundingRefusal, IdentityFile, Member, Unfounded,
    },
    shard_map::{Arc, CheckedMap, NodeDescription, ShardMap, ShardRow},
    state::{
        ShardState,
        codec::{decode_entry, decode_footer, encode_entry, encode_footer, node_key},
        record::{Footer, StateHeader},
    },
    types::{
        ClusterId, Digest, Durability, Epoch, Incarnation, Key, LogIndex, MapVersion, NodeId, Position, ReplicaId,
        Revision, Sequence, SessionId, Term, Value,
    },
};
use kv_tests::fuzz::Target;
use xxhash_rust::xxh3::xxh3_64;

use crate::{bounded, mode, with_mode};

const BYTES_MAX: usize = 4 * 1024;
/// Batches may be longer: the longest one of the smallest commands, and some more, so that what is too long is tried as well.
const BATCH_BYTES_MAX: usize = BATCH_COMMANDS_MAX + 4 * 1024;
/// The smallest command takes one byte, and while the list grows there are one and a half of it. A batch has at most 16,384
/// commands, so that it never takes more than some 4 MiB.
pub(crate) const COMMAND_TIMES: u64 = 2 * size_of::<Command>() as u64;
/// The smallest row takes 4 bytes.
pub(crate) const MAP_TIMES: u64 = size_of::<ShardRow>() as u64 / 4;
/// The smallest configuration in a footer takes 8 bytes. Its terms take less: 2 bytes become 16, and there are at most 4,096.
pub(crate) const FOOTER_TIMES: u64 = size_of::<(LogIndex, Configuration)>() as u64 / 8;
/// The smallest outcome that a session remembers takes 17 bytes, and some 64 in a list; while that grows there are three of it. What a
/// shard writes has at most 1,024.
pub(crate) const SESSION_TIMES: u64 = 3 * 64 / 17 + 1;

/// A session's bytes count those of its key.
const SESSION_KEY_BYTES: usize = 9;

fn record(members: u64, shards: u32) -> FoundingRecord {
    let member = |id| Member {
        node: NodeId(id),
        incarnation: Incarnation(u128::from(id) * 7),
        peer_address: format!("node-{id}:7201"),
        zone: "z".to_owned(),
        weight: 1,
    };
    FoundingRecord {
        members: (1..=members).map(member).collect(),
        shards,
        replication: 3,
        durability: Durability::Sync,
    }
}

fn description(node: u64) -> NodeDescription {
    let mut description = record(node, 1).layout().nodes.pop().unwrap();
    description.client_address = "client:7101".to_owned();
    description
}

fn commands() -> Vec<Command> {
    let stamp = SessionStamp { session: SessionId(1), sequence: Sequence(300), floor: Sequence(2) };
    let write = |action, condition, session| {
        Command::Write(Write { key: Key::new("key").unwrap(), action, condition, return_previous: true, session })
    };
    vec![
        Command::OpenSession,
        write(Action::Put(Value::new("value").unwrap()), Condition::Always, Some(stamp)),
        write(Action::Delete, Condition::RevisionIs(Revision(1_000)), None),
        write(Action::Put(Value::new("").unwrap()), Condition::Absent, None),
        Command::DescribeNode(description(3)),
    ]
}

#[test]
fn command() {
    let all = encode_batch(&commands()).to_vec();
    let many = encode_batch(&vec![Command::OpenSession; 1_000]).to_vec();
    let most = encode_batch(&vec![Command::OpenSession; BATCH_COMMANDS_MAX]).to_vec();
    let target = Target { name: "command", runs: 100_000, bytes_max: BATCH_BYTES_MAX, seeds: vec![all, many, most] };
    target.run(|input| {
        let data = Bytes::copy_from_slice(input);
        match bounded(COMMAND_TIMES, input.len(), || decode_batch(&data).map(|commands| commands.len())) {
            Ok(count) => {
                let commands = decode_batch(&data).unwrap();
                assert!(count <= BATCH_COMMANDS_MAX, "a batch of {count} commands is taken");
                assert!(input.is_empty() || encode_batch(&commands) == data, "one batch has two encodings");
                format!("commands {:?}", "x".repeat(count.ilog2_or_zero()))
            }
            Err(error) => error.to_string(),
        }
    });
}

#[test]
fn shard_map() {
    let map = record(5, 8).layout();
    let mut next = map.clone();
    next.version = MapVersion(9);
    let few = ShardMap { nodes: vec![description(1)], ..ShardMap::default() };
    let seeds = [map.encode(), next.encode(), few.encode()].map(|bytes| bytes.to_vec()).to_vec();
    let target = Target { name: "shard_map", runs: 80_000, bytes_max: BYTES_MAX, seeds };
    let known = CheckedMap::new(map).unwrap();
    target.run(|input| {
        let bytes = Bytes::copy_from_slice(input);
        let map = match bounded(MAP_TIMES, input.len(), || ShardMap::decode(bytes.clone())) {
            Ok(map) => map,
            Err(error) => return error.to_string(),
        };
        assert_eq!(map.encode(), bytes, "one map has two encodings");
        let mut known = known.clone();
        let taken = format!("{:?}", known.take_map(&map));
        for row in &map.shards {
            let _ = known.take_row(row);
            let _ = row.arc.map(|arc| (known.row_at(arc.first).is_some(), known.row_at(arc.last).is_some()));
        }
        match CheckedMap::new(map) {
            Ok(map) => {
                assert!(map.row_at(Position(0)).is_some() && map.row_at(Position(u64::MAX)).is_some());
                taken
            }
            Err(error) => error.to_string() + &taken,
        }
    });
}

/// Sets the hash at the end right.
fn seal(bytes: &mut [u8]) {
    if let Some(length) = bytes.len().checked_sub(8) {
        let hash = xxh3_64(&bytes[..length]);
        bytes[length..].copy_from_slice(&hash.to_le_bytes());
    }
}

/// What founding leaves on the disk and sends: the low bits of the first byte say what it is, 16 that its hash is set right.
#[test]
fn founding() {
    let record = record(3, 4);
    let unfounded = Unfounded {
        incarnation: Incarnation(1),
        digest: ConfigurationDigest(2),
        lowest: Some(Incarnation(3)),
        bind: true,
        zone: "z".to_owned(),
        weight: 4,
    };
    let reason = FoundingRefusal::OtherConfiguration { cluster: ClusterId(6) };
    let identity = IdentityFile {
        node: NodeId(2),
        incarnation: Incarnation(14),
        lowest: Some(Incarnation(7)),
        record: Some(record.clone()),
    };
    let messages = [
        FoundingMessage::Offer(record.clone()),
        FoundingMessage::Unfounded(unfounded),
        FoundingMessage::Refusal { incarnation: Incarnation(9), reason },
    ];
    let mut seeds = vec![with_mode(16, &record.encode()), with_mode(17, &identity.encode())];
    seeds.extend(messages.iter().map(|message| with_mode(2, &message.encode())));
    let target = Target { name: "founding", runs: 150_000, bytes_max: BYTES_MAX, seeds };
    target.run(|input| {
        let (mode, rest) = mode(input);
        let mut rest = rest.to_vec();
        if mode & 16 != 0 {
            // In a message the record stands behind its length.
            let start = if mode % 4 == 2 { rest.len().min(3) } else { 0 };
            seal(&mut rest[start..]);
        }
        let bytes = Bytes::from(rest);
        let length = input.len();
        let decoded = match mode % 4 {
            0 => bounded(2, length, || FoundingRecord::decode(&bytes)).map(Founding::Record),
            1 => bounded(2, length, || IdentityFile::decode(&bytes)).map(Founding::Identity),
            _ => bounded(2, length, || FoundingMessage::decode(bytes.clone())).map(Founding::Message),
        };
        decoded.map_or_else(|error| error.to_string(), |decoded| decoded.check(&bytes))
    });
}

/// What founding's bytes came to.
enum Founding {
    Record(FoundingRecord),
    Identity(IdentityFile),
    Message(FoundingMessage),
}

impl Founding {
    /// Nothing has two encodings: whatever is taken is, byte for byte, what would be written of it. A hash that is not compared, at
    /// whatever depth, a flag of which some bits count for nothing, or bytes that are left over would be taken for right.
    fn check(self, bytes: &Bytes) -> String {
        let (again, record, said) = match self {
            Self::Record(record) => (record.encode(), Some(record), "a record".to_owned()),
            Self::Identity(file) => (file.encode(), file.record, format!("a file, {:?}", file.lowest.is_some())),
            Self::Message(message) => {
                let again = message.encode();
                match message {
                    FoundingMessage::Offer(record) => (again, Some(record), "an offer".to_owned()),
                    FoundingMessage::Unfounded(unfounded) => (again, None, format!("unfounded {}", unfounded.bind)),
                    FoundingMessage::Refusal { reason, .. } => {
                        let said = format!("{reason:?}");
                        (again, None, said.split(' ').next().unwrap_or_default().to_owned())
                    }
                }
            }
        };
        assert_eq!(again, bytes, "{said} has two encodings, or a hash that is wrong is taken for right");
        // Many shards take long to place.
        if let Some(record) = record.filter(|record| record.shards <= 8) {
            CheckedMap::new(record.layout()).unwrap();
        }
        said
    }
}

/// What a checkpoint says of a state, and its records: the first byte says which.
#[test]
fn state() {
    let configuration = Configuration {
        voters: vec![ReplicaId(1), ReplicaId(2)],
        nodes: [(ReplicaId(1), NodeId(1)), (ReplicaId(2), NodeId(2))].into(),
        ..Configuration::default()
    };
    let header = StateHeader {
        index: LogIndex(40),
        term: Term(3),
        arc: Some(Arc { first: Position(0), last: Position(u64::MAX) }),
        epoch: Epoch(1),
        revision: Revision(7),
        last_session: SessionId(u64::MAX),
        terms: vec![(Term(1), LogIndex(1)), (Term(3), LogIndex(9))],
        configurations: vec![(LogIndex(1), configuration.clone()), (LogIndex(2), configuration)],
    };
    let mut footer = Vec::new();
    encode_footer(&Footer { header: header.clone(), digest: Digest(5) }, &mut footer);
    let mut node = Vec::new();
    description(2).encode(&mut node);
    let mut session = Vec::new();
    session.extend_from_slice(&[9, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0]);
    for (sequence, tag) in [(2_u64, 1_u8), (3, 3), (9, 5)] {
        session.extend_from_slice(&sequence.to_le_bytes());
        session.push(tag);
        session.extend_from_slice(&7_u64.to_le_bytes());
        if tag == 3 {
            session.extend_from_slice(&6_u64.to_le_bytes());
            session.extend_from_slice(&4_u32.to_le_bytes());
            session.extend_from_slice(b"past");
        }
    }
    let seeds = vec![
        with_mode(0, &footer),
        with_mode(1, &session),
        with_mode(2, &node),
        with_mode(3, &encode_entry(Revision(300), &Value::new("value").unwrap())),
    ];
    let target = Target { name: "state", runs: 150_000, bytes_max: BYTES_MAX, seeds };
    target.run(|input| {
        let (mode, rest) = mode(input);
        let bytes = Bytes::copy_from_slice(rest);
        let length = input.len();
        let said = match mode % 4 {
            0 => {
                let mut reader = Reader::new(bytes.clone());
                bounded(FOOTER_TIMES, length, || decode_footer(&mut reader)).map(|footer| {
                    let mut again = Vec::new();
                    encode_footer(&footer, &mut again);
                    assert_eq!(again, bytes[..bytes.len() - reader.remaining()], "one footer has two encodings");
                    let restored = ShardState::from_header(footer.header.clone(), Vec::new(), Vec::new());
                    format!("a footer of {} terms, {}", "x".repeat(footer.header.terms.len().min(5)), restored.is_ok())
                })
            }
            1 => bounded(SESSION_TIMES, length, || {
                ShardState::from_header(header.clone(), vec![(SessionId(1), bytes.clone())], Vec::new())
            })
            .map(|state| {
                let session = state.session(SessionId(1)).expect("it was restored");
                assert_eq!(
                    session.bytes(),
                    SESSION_KEY_BYTES + bytes.len(),
                    "a session is of other bytes than were read"
                );
                "a session".to_owned()
            }),
            2 => bounded(2, length, || {
                let nodes = vec![(Bytes::copy_from_slice(&node_key(NodeId(2))), bytes.clone())];
                ShardState::from_header(header.clone(), Vec::new(), nodes)
            })
            .map(|state| {
                let mut again = Vec::new();
                state.nodes()[&NodeId(2)].encode(&mut again);
                assert_eq!(again, bytes, "one node's description has two encodings");
                "a node".to_owned()
            }),
            _ => bounded(2, length, || decode_entry(bytes.clone())).map(|entry| {
                assert_eq!(encode_entry(entry.revision, &entry.value), bytes, "one entry has two encodings");
                "an entry".to_owned()
            }),
        };
        said.unwrap_or_else(|error| error.to_string())
    });
}

trait Log2 {
    fn ilog2_or_zero(self) -> usize;
}

impl Log2 for usize {
    /// About how large it is, so that sizes of one kind count as one.
    fn ilog2_or_zero(self) -> usize {
        self.checked_ilog2().map_or(0, |log| log as usize + 1)
    }
}
