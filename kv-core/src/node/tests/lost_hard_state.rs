//! A crash between the block with the first entries of a term and the block with the hard state that names the term.

use super::*;
use crate::{
    founding::configuration,
    log::record::{Boundary, HardState, RecoveredShard},
    points::{self, Point},
};

#[test]
fn a_start_takes_its_term_from_entries_whose_hard_state_was_lost() {
    let node = NodeId(1);
    let record = record(1, 1, 1);
    let row = record.layout().shards.into_iter().find(|row| row.shard == ShardId(1)).unwrap();
    let replica = row.replica_on(node).unwrap();
    let entry = |index, term| LogEntry {
        index: LogIndex(index),
        term: Term(term),
        kind: EntryKind::Commands,
        context: Bytes::new(),
        data: Bytes::new(),
    };
    let shard = RecoveredShard {
        replica,
        hard_state: HardState { term: Term(2), vote: replica, commit: LogIndex(2) },
        boundary: Boundary { index: LogIndex(1), term: Term(1), configuration: configuration(&row) },
        entries: vec![entry(2, 2), entry(3, 5)],
        install: None,
    };
    let recovered = Recovered { shards: [(ShardId(1), shard)].into(), ..Recovered::default() };
    let opening = Opening { recovered, ..Opening::first(node, record, Settings::default(), Time(1)) };
    let _before = points::take();
    let opened = Node::open(opening, Memory::default(), &mut Vec::new()).unwrap();
    let status = opened.shard_status(ShardId(1)).unwrap();
    // The vote was of another term.
    assert_eq!((status.term, status.vote, status.last_index), (Term(5), ReplicaId(0), LogIndex(3)));
    assert_eq!(points::take().of(Point::TermFromEntries), 1);
}
