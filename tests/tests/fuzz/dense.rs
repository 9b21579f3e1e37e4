//! The inputs that cost the most memory for their bytes: lists of nothing but the smallest items there are. Mutation seldom
//! comes to one that is whole, so they are written here, as long as they get, and held against the same bounds.

use bytes::Bytes;
use kv_core::{
    codec::Reader,
    command::{BATCH_COMMANDS_MAX, Command, decode_batch, encode_batch},
    configuration::Configuration,
    shard_map::{NodeDescription, ShardMap, ShardRow},
    state::{
        ShardState,
        codec::{decode_footer, encode_footer},
        record::{Footer, StateHeader, TERMS_MAX},
    },
    types::{Incarnation, LogIndex, MapVersion, NodeId, SessionId, ShardId, Term},
};

use crate::{
    bounded,
    codecs::{COMMAND_TIMES, FOOTER_TIMES, MAP_TIMES, SESSION_TIMES},
};

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
