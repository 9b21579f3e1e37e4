//! What the checkers' tests share: short ways to write facts, and a clock that counts them.

use kv_core::types::{LogIndex, NodeId, ReplicaId, ShardId, Term};

use super::{
    Fact, Violation,
    view::{AppliedCommand, EntryMark, Place},
};
use crate::history::Moment;

/// The replica of shard 1 on this node; its id is the node's.
pub(super) fn place(node: u64) -> Place {
    Place { node: NodeId(node), shard: ShardId(1), replica: ReplicaId(node) }
}

pub(super) fn mark(index: u64, term: u64, hash: u64) -> EntryMark {
    EntryMark { index: LogIndex(index), term: Term(term), hash }
}

pub(super) fn appended(node: u64, index: u64, term: u64, hash: u64) -> Fact {
    Fact::Appended { place: place(node), entry: mark(index, term, hash) }
}

pub(super) fn committed(node: u64, index: u64) -> Fact {
    Fact::Committed { place: place(node), index: LogIndex(index) }
}

pub(super) fn leads(node: u64, term: u64, last_index: u64) -> Fact {
    Fact::BecameLeader { place: place(node), term: Term(term), last_index: LogIndex(last_index) }
}

pub(super) fn applied(node: u64, index: u64, term: u64, commands: Vec<AppliedCommand>) -> Fact {
    Fact::Applied { place: place(node), entry: mark(index, term, index), commands, digest: None }
}

/// A start that finds these entries in a log that stands on index 1 of term 1.
pub(super) fn started(node: u64, term: u64, vote: Option<u64>, commit: u64, entries: &[EntryMark]) -> Fact {
    Fact::Started {
        place: place(node),
        start: 1,
        term: Term(term),
        vote: vote.map(ReplicaId),
        commit: LogIndex(commit),
        boundary: (LogIndex(1), Term(1)),
        entries: entries.to_vec(),
    }
}

/// Gives facts to a check, one per event, a millisecond apart.
pub(super) fn judge(
    facts: &[Fact],
    mut check: impl FnMut(Moment, &Fact) -> Result<(), Violation>,
) -> Result<(), Violation> {
    facts.iter().enumerate().try_for_each(|(i, fact)| {
        let event = i as u64 + 1;
        check(Moment { event, micros: event * 1_000 }, fact)
    })
}
