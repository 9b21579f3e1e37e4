//! The bytes as they are on disk: a change here is a change of the data format.

use super::*;
use crate::{
    command::Previous,
    sequences::SequenceMap,
    state::{
        codec::{decode_footer, decode_session, encode_entry, encode_footer, encode_session, session_key},
        record::{Footer, TERMS_MAX},
        sessions::Remembered,
    },
    types::{NodeId, Position},
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn footer() -> Footer {
    let configuration = Configuration {
        voters: vec![ReplicaId(1), ReplicaId(2)],
        nodes: [(ReplicaId(1), NodeId(1)), (ReplicaId(2), NodeId(2))].into(),
        ..Configuration::default()
    };
    let header = StateHeader {
        index: LogIndex(300),
        term: Term(4),
        arc: Some(Arc { first: Position(1), last: Position(u64::MAX) }),
        epoch: Epoch(2),
        revision: Revision(250),
        last_session: SessionId(7),
        terms: vec![(Term(1), LogIndex(1)), (Term(4), LogIndex(200))],
        configurations: vec![(LogIndex(1), configuration)],
    };
    Footer { header, digest: Digest(0x0102) }
}

#[test]
fn keys_and_entries() {
    assert_eq!(&entry_key(&key(0))[..], b"ka");
    assert_eq!(hex(&session_key(SessionId(258))), "730000000000000102");
    assert_eq!(hex(&node_key(NodeId(3))), "6d0000000000000003");
    assert_eq!(hex(&encode_entry(Revision(300), &value(b"xy"))), "ac027879");
    assert_eq!(session_of_key(&session_key(SessionId(258))), Some(SessionId(258)));
    assert_eq!(session_of_key(&node_key(NodeId(3))), None);
}

#[test]
fn a_session() {
    let entry = Entry { revision: Revision(6), value: value(b"v") };
    let outcomes = [
        Remembered::Written { revision: Revision(7), previous: Previous::Entry(entry) },
        Remembered::Written { revision: Revision(8), previous: Previous::NotAsked },
        Remembered::Written { revision: Revision(9), previous: Previous::Absent },
        Remembered::Written { revision: Revision(0), previous: Previous::Unavailable },
        Remembered::Conflict { current: Revision(5) },
    ];
    let mut remembered = SequenceMap::default();
    (3..)
        .map(Sequence)
        .zip(outcomes)
        .for_each(|(sequence, outcome)| assert!(remembered.insert(sequence, outcome).is_none()));
    let session = Session::restore((LogIndex(9), 2), Sequence(3), remembered);
    let encoded = encode_session(&session);
    assert_eq!(
        hex(&encoded),
        "090000000000000002000000030000000000000005000000\
         03000000000000000307000000000000000600000000000000010000007604000000000000000108000000000000000500000000000000\
         02090000000000000006000000000000000400000000000000000700000000000000050500000000000000"
    );
    assert_eq!(decode_session(encoded.clone()), Ok(session));
    for cut in 0..encoded.len() {
        assert!(decode_session(encoded.slice(..cut)).is_err());
    }
}

#[test]
fn a_footer_and_its_digest() {
    let mut encoded = Vec::new();
    encode_footer(&footer(), &mut encoded);
    assert_eq!(
        hex(&encoded),
        "01ac0204010100000000000000ffffffffffffffff02fa01070201010\
         4c8010101020102000000000201010202\
         02010000000000000000000000000000"
    );
    let mut reader = Reader::new(encoded.into());
    assert_eq!(decode_footer(&mut reader), Ok(footer()));
    let mut sum = RecordSum::default();
    assert_eq!(sum.digest(&footer().header).to_string(), "72318746ee3a6b6486f7b7321b6481b3");
    sum.add(b"ka", b"v");
    assert_eq!(sum.digest(&footer().header).to_string(), "50a23797da5e26b91622cc6829b967cf");
}

#[test]
fn a_footer_with_too_many_terms_or_terms_that_fall_is_refused() {
    let mut long = footer();
    long.header.terms = (1..=TERMS_MAX as u64 + 1).map(|number| (Term(number), LogIndex(number))).collect();
    let mut falling = footer();
    falling.header.terms.reverse();
    for bad in [long, falling] {
        let mut encoded = Vec::new();
        encode_footer(&bad, &mut encoded);
        assert!(decode_footer(&mut Reader::new(encoded.into())).is_err());
    }
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_without_a_panic(bytes: Vec<u8>) {
        let bytes = Bytes::from(bytes);
        let _ = decode_session(bytes.clone());
        let _ = decode_footer(&mut Reader::new(bytes.clone()));
        let _ = decode_entry(bytes);
    }
}
