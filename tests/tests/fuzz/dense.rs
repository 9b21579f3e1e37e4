//! The inputs that cost the most memory for their bytes: lists of nothing but the smallest items there are. Mutation seldom
//! comes to one that is whole, so they are written here, as long as they get, and held against the same bounds.

use bytes::Bytes;
use kv_core::{
    codec::Reader,
    command::{BATCH_COMMANDS_MAX, Command, decode_batch, encode_batch},
    configuration::Configuration,
    disk::LogDisk,
    log::{
        Log, LogSettings,
        record::{Boundary, EntryKind, HardState, LogBatch, LogEntry, Record},
    },
    shard_map::{NodeDescription, ShardMap, ShardRow},
    state::{
        ShardState,
        codec::{decode_footer, encode_footer},
        record::{Footer, StateHeader, TERMS_MAX},
    },
    types::{BatchNumber, Incarnation, LogIndex, MapVersion, NodeId, ReplicaId, SessionId, ShardId, Term},
};

use crate::{
    bounded,
    codecs::{COMMAND_TIMES, FOOTER_TIMES, MAP_TIMES, SESSION_TIMES},
    log::{LOG_ENTRY_TIMES, LOG_TIMES, Segments},
};

const SEGMENT_BYTES: usize = 320 * 1024;

#[test]
fn a_batch_of_the_smallest_commands() {
    let data = encode_batch(&vec![Command::OpenSession; BATCH_COMMANDS_MAX]);
    let commands = bounded(COMMAND_TIMES, data.len(), || decode_batch(&data)).unwrap();
    assert_eq!(commands.len(), BATCH_COMMANDS_MAX);
}

#[test]
fn a_map_of_the_smallest_nodes_and_rows() {
    let row = ShardRow { shard: ShardId(0), arc: None, epoch: Default::default(), replicas: Vec::new() };
    let node = NodeDescription {
        node: NodeId(0),
        incarnation: Incarnation(0),
        peer_address: String::new(),
        client_address: String::new(),
        zone: String::new(),
        weight: 0,
    };
    for (nodes, rows) in [(0, 16_385), (4_097, 0)] {
        let map =
            ShardMap { version: MapVersion(1), nodes: vec![node.clone(); nodes], shards: vec![row.clone(); rows] };
        let bytes = map.encode();
        assert_eq!(bounded(MAP_TIMES, bytes.len(), || ShardMap::decode(bytes.clone())), Ok(map));
    }
}

#[test]
fn a_footer_of_the_smallest_terms_and_configurations() {
    let terms = (1..=TERMS_MAX as u64).map(|term| (Term(term), LogIndex(term))).collect();
    let configurations = (1_000..11_000).map(|index| (LogIndex(index), Configuration::default())).collect();
    for header in
        [StateHeader { terms, ..StateHeader::default() }, StateHeader { configurations, ..StateHeader::default() }]
    {
        let mut bytes = Vec::new();
        encode_footer(&Footer { header: header.clone(), ..Footer::default() }, &mut bytes);
        let bytes = Bytes::from(bytes);
        let footer = bounded(FOOTER_TIMES, bytes.len(), || decode_footer(&mut Reader::new(bytes.clone())));
        assert_eq!(footer.unwrap().header, header);
    }
}

#[test]
fn a_session_of_the_smallest_outcomes() {
    let count = 10_000_u64;
    let mut bytes = [&[0; 20][..], &(count as u32).to_le_bytes()].concat();
    for sequence in 1..=count {
        bytes.extend_from_slice(&sequence.to_le_bytes());
        bytes.extend_from_slice(&[1, 7, 0, 0, 0, 0, 0, 0, 0]);
    }
    let header = StateHeader { last_session: SessionId(1), ..StateHeader::default() };
    let length = bytes.len();
    let bytes = Bytes::from(bytes);
    let state =
        bounded(SESSION_TIMES, length, || ShardState::from_header(header, vec![(SessionId(1), bytes)], Vec::new()));
    assert!(state.is_ok(), "{:?}", state.map(drop));
}

/// One block of each kind of record that fills nearly all of its segment, with so many in it that a list of them has just grown.
/// What the log need not keep it does not hold either, however much of it there is in one block.
#[test]
fn a_log_of_the_smallest_records() {
    let shard = ShardId(1);
    let create = |number| Record::Create {
        shard: ShardId(number),
        replica: ReplicaId(number),
        hard_state: HardState::default(),
        boundary: Boundary::default(),
    };
    let entry = |index| {
        let (term, kind, index) = (Term(0), EntryKind::Commands, LogIndex(index));
        let (context, data) = (Bytes::new(), Bytes::new());
        Record::Entry { shard, entry: LogEntry { index, term, kind, context, data } }
    };
    let gone = |number| [create(number), Record::Tombstone { shard: ShardId(number), replica: ReplicaId(number) }];
    let cases: [(&str, u64, Vec<Record>); 4] = [
        ("entries", LOG_ENTRY_TIMES, (1..=32_769).map(entry).collect()),
        ("hard states", 2, vec![Record::HardState { shard, hard_state: HardState::default() }; 60_000]),
        ("replicas", LOG_TIMES, (2..17_000).map(create).collect()),
        ("replicas that are gone", 6, (2..14_000).flat_map(gone).collect()),
    ];
    let settings = LogSettings { segment_bytes: SEGMENT_BYTES, log_bytes_max: 4 * SEGMENT_BYTES as u64, spares_max: 2 };
    for (what, times, records) in cases {
        let mut disk = Segments::default();
        let mut log = Log::create(disk.clone(), settings.clone()).unwrap();
        log.append(&LogBatch { number: BatchNumber(1), records: vec![create(1)] }).unwrap();
        log.append(&LogBatch { number: BatchNumber(2), records }).unwrap();
        assert_eq!(disk.segments().unwrap().len(), 1, "{what}");
        let recovered = bounded(times, SEGMENT_BYTES, || Log::open(disk.clone(), settings.clone())).unwrap().1;
        assert!(recovered.shards.contains_key(&shard), "{what}");
    }
}
