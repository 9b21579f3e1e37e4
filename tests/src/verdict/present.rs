//! What was acknowledged is there in the end: the final read of each key finds the last thing that anybody was told of it, or
//! something later.
//!
//! The search for an order says so too. This is the promise that people ask for first, and it is judged so that there is nothing to
//! doubt: a comparison of two revisions.

use kv_core::types::Revision;

use super::Status;
use crate::history::{Answer, Call, Consistency, Operation, Previous, index::Index};

/// What was told of a key before it was read for the last time.
#[derive(Clone, Copy, Default)]
struct Known {
    revision: Revision,
    is_delete: bool,
    by: usize,
    may_be_deleted: bool,
    /// Whether a write of it was acknowledged that changed something, or may have.
    is_acknowledged: bool,
    final_read: Option<usize>,
}

/// Judges a history whose operations from the event `final_reads_from` on hold the final reads.
#[must_use]
pub fn judge(operations: &[Operation], index: &Index, final_reads_from: Option<u64>) -> Status {
    let Some(from) = final_reads_from else { return Status::NotAsked("the run has no final reads") };
    let mut keys = vec![Known::default(); index.keys.len()];
    for (place, operation) in operations.iter().enumerate() {
        let is_answered = matches!(operation.answer(), Some(Answer::Read { .. }));
        if let (Some(key), Call::Get { consistency: Consistency::Linearizable, .. }) =
            (index.key_of[place], &operation.call)
            && is_answered
            && operation.invoked.event >= from
        {
            keys[key].final_read = Some(place);
        }
    }
    for (place, operation) in operations.iter().enumerate() {
        if let Some(key) = index.key_of[place] {
            let read_from = keys[key].final_read.map_or(u64::MAX, |last| operations[last].invoked.event);
            keys[key].learn(operation, place, read_from);
        }
    }
    let (mut judged, mut unread) = (0, 0);
    for known in keys.iter().filter(|known| known.is_acknowledged) {
        let Some(last) = known.final_read else {
            unread += 1;
            continue;
        };
        judged += 1;
        if let Some(why) = known.lost(&operations[last]) {
            return Status::violated(why, &[&operations[known.by], &operations[last]], operations.len());
        }
    }
    match (judged, unread) {
        (0, 0) => Status::NotAsked("no write was acknowledged"),
        (_, 0) => Status::Held(format!("{judged} keys read in the end")),
        _ => Status::Undecided(format!("{unread} keys that were written were not read in the end, {judged} were")),
    }
}

impl Known {
    /// Learns what was told before the event at which the final read was called; of writes that were open then only that they were.
    fn learn(&mut self, operation: &Operation, place: usize, read_from: u64) {
        let is_before = operation.completed.as_ref().is_some_and(|(at, _)| at.event < read_from);
        let mut told = |revision: Revision, is_delete| {
            if is_before && revision > self.revision {
                (self.revision, self.is_delete, self.by) = (revision, is_delete, place);
            }
        };
        match (&operation.call, operation.answer()) {
            (Call::Get { .. }, Some(Answer::Read { entry: Some(entry), .. })) => told(entry.revision, false),
            (Call::Write { value, .. }, answer) => {
                if let Some(Answer::Written { revision, previous, .. }) = answer {
                    if let Previous::Entry(entry) = previous {
                        told(entry.revision, false);
                    }
                    told(*revision, value.is_none());
                }
                let is_decided = is_before && !operation.is_open_write();
                self.may_be_deleted |= value.is_none() && !is_decided;
                self.is_acknowledged |= match answer {
                    Some(Answer::Written { revision, .. }) => *revision != Revision(0),
                    answer => matches!(answer, Some(Answer::Accepted { .. })),
                };
            }
            _ => {}
        }
    }

    fn lost(&self, last: &Operation) -> Option<String> {
        let Some(Answer::Read { entry, .. }) = last.answer() else { return None };
        match entry {
            Some(seen) if seen.revision < self.revision => Some(format!(
                "revision {} was told of the key, and in the end it holds revision {}",
                self.revision, seen.revision
            )),
            Some(seen) if seen.revision == self.revision && self.is_delete => Some(format!(
                "revision {} deleted the key, and in the end it holds a value of that revision",
                self.revision
            )),
            None if self.revision != Revision(0) && !self.is_delete && !self.may_be_deleted => {
                Some("the key is gone in the end, and nobody can have deleted it".into())
            }
            _ => None,
        }
    }
}
