//! What was acknowledged is there in the end: the final read of each key finds the last thing that anybody was told of it, or
//! something later.
//!
//! The search for an order says so too. This is the promise that people ask for first, and it is judged so that there is nothing to
//! doubt: a comparison of two revisions.

use kv_core::types::Revision;

use super::{Status, index::Index};
use crate::history::{Answer, Call, Consistency, Operation, Previous};

/// The last that was told of a key.
#[derive(Clone, Copy, Default)]
struct Known {
    revision: Revision,
    is_delete: bool,
    by: usize,
    may_be_deleted: bool,
    is_written: bool,
    final_read: Option<usize>,
}

/// Judges a history whose operations from the event `final_reads_from` on hold the final reads.
#[must_use]
pub fn judge(operations: &[Operation], index: &Index, final_reads_from: Option<u64>) -> Status {
    let Some(from) = final_reads_from else { return Status::NotAsked("the run has no final reads") };
    let mut keys = vec![Known::default(); index.keys.len()];
    for (place, operation) in operations.iter().enumerate() {
        if let Some(key) = index.key_of[place] {
            keys[key].learn(operation, place, operation.invoked.event >= from);
        }
    }
    let written = keys.iter().filter(|known| known.is_written && known.revision != Revision(0));
    let mut judged = 0;
    let mut unread = 0;
    for known in written {
        let Some(last) = known.final_read else {
            unread += 1;
            continue;
        };
        judged += 1;
        if let Some(why) = known.lost(&operations[last]) {
            return Status::violated(why, &[&operations[known.by], &operations[last]], operations.len());
        }
    }
    match unread {
        0 => Status::Held(format!("{judged} keys read in the end")),
        _ => Status::Undecided(format!("{unread} keys that were written were not read in the end, {judged} were")),
    }
}

impl Known {
    fn learn(&mut self, operation: &Operation, place: usize, is_final: bool) {
        let mut told = |revision: Revision, is_delete| {
            if revision > self.revision {
                (self.revision, self.is_delete, self.by) = (revision, is_delete, place);
            }
        };
        match (&operation.call, operation.answer()) {
            (Call::Get { consistency, .. }, Some(Answer::Read { entry, .. })) => {
                if let Some(entry) = entry {
                    told(entry.revision, false);
                }
                if is_final && *consistency == Consistency::Linearizable {
                    self.final_read = Some(place);
                }
            }
            (Call::Write { value, .. }, Some(Answer::Written { revision, previous, .. })) => {
                if let Previous::Entry(entry) = previous {
                    told(entry.revision, false);
                }
                told(*revision, value.is_none());
                self.is_written = true;
            }
            (Call::Write { value, .. }, _) => {
                self.may_be_deleted |= value.is_none() && operation.is_open_write();
                self.is_written = true;
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
            None if !self.is_delete && !self.may_be_deleted => {
                Some("the key is gone in the end, and nobody can have deleted it".into())
            }
            _ => None,
        }
    }
}
