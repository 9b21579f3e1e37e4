//! Acknowledged writes are present (ours): in the end, every key holds the last write that was acknowledged, or a later one.
//!
//! Linearizability says so too. This judge is here because it is the promise that people ask for first, and because it can't be
//! wrong in an interesting way: it compares the final read of each key with the highest revision that anyone was told.

use std::collections::BTreeMap;

use kv_core::types::Revision;

use super::Violation;
use crate::history::{Answer, Call, Consistency, History, Moment, Name, Operation, Previous, Seen};

/// What a key held at last, as far as clients were told before the final reads.
#[derive(Default)]
struct Known {
    revision: Revision,
    /// The value at that revision; `None` if that was a delete.
    value: Option<Name>,
    may_be_deleted: bool,
}

/// Judges a history whose operations from the event `final_reads_from` on hold the final reads.
///
/// # Errors
/// If a key that was written is not read in the end, or what was acknowledged is not there.
pub fn check(history: &History, final_reads_from: u64) -> Result<(), Violation> {
    let mut keys: BTreeMap<&Name, Known> = BTreeMap::new();
    for operation in history.operations() {
        let Call::Write { key, value, .. } = &operation.call else {
            if let (Some(key), Some(Answer::Read { entry: Some(seen), .. })) =
                (operation.call.key(), operation.answer())
            {
                keys.entry(key).or_default().learn(seen.revision, Some(&seen.value));
            }
            continue;
        };
        let known = keys.entry(key).or_default();
        known.may_be_deleted |= value.is_none() && operation.is_open_write();
        if let Some(Answer::Written { revision, previous, .. }) = operation.answer() {
            known.learn(*revision, value.as_ref());
            if let Previous::Entry(seen) = previous {
                known.learn(seen.revision, Some(&seen.value));
            }
        }
    }
    let finals = final_reads(history, final_reads_from);
    for (key, known) in keys.iter().filter(|(_, known)| known.revision != Revision(0)) {
        let Some((at, entry)) = finals.get(key) else {
            let what = format!("key {key} was not read in the end");
            return Err(violation(what, Moment { event: final_reads_from, micros: 0 }));
        };
        if let Some(what) = known.lost(entry.as_ref()) {
            return Err(violation(format!("key {key}: {what}"), *at));
        }
    }
    Ok(())
}

fn final_reads(history: &History, from: u64) -> BTreeMap<&Name, (Moment, Option<Seen>)> {
    let final_read = |operation: &'_ Operation| match (&operation.call, &operation.completed) {
        (Call::Get { consistency: Consistency::Linearizable, .. }, Some((at, Answer::Read { entry, .. })))
            if operation.invoked.event >= from =>
        {
            Some((*at, entry.clone()))
        }
        _ => None,
    };
    history.operations().iter().filter_map(|operation| Some((operation.call.key()?, final_read(operation)?))).collect()
}

impl Known {
    fn learn(&mut self, revision: Revision, value: Option<&Name>) {
        if revision > self.revision {
            (self.revision, self.value) = (revision, value.cloned());
        }
    }

    fn lost(&self, found: Option<&Seen>) -> Option<String> {
        let revision = self.revision;
        match (&self.value, found) {
            (_, Some(seen)) if seen.revision > revision => None,
            (Some(value), Some(seen)) if seen.revision == revision && seen.value == *value => None,
            (None, None) => None,
            (Some(_), None) if self.may_be_deleted => None,
            (Some(value), found) => {
                Some(format!("{value} at revision {revision} was known, in the end there is {found:?}"))
            }
            (None, found) => Some(format!("it was deleted at revision {revision}, in the end there is {found:?}")),
        }
    }
}

fn violation(what: String, at: Moment) -> Violation {
    Violation { property: "acknowledged writes present", what, at }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(before: &str, last: &str) -> Result<(), Violation> {
        let history = format!("{before}9 c9 90@90 get k linearizable => 91@91 read {last} age:0\n");
        check(&history.parse().unwrap(), 90)
    }

    const PUTS: &str = "0 c1 1@1 put k a sync => 2@2 written 1\n1 c1 3@3 put k b sync => 4@4 written 5\n";

    #[test]
    fn the_last_write_or_a_later_one_is_good() {
        assert_eq!(verdict(PUTS, "5:b"), Ok(()));
        assert_eq!(verdict(PUTS, "7:unknown"), Ok(()));
        assert_eq!(verdict(&format!("{PUTS}2 c1 5@5 delete k sync => 6@6 written 6\n"), "absent"), Ok(()));
        assert_eq!(verdict(&format!("{PUTS}2 c1 5@5 delete k sync => never\n"), "absent"), Ok(()));
    }

    #[test]
    fn a_lost_write_is_bad() {
        assert!(verdict(PUTS, "absent").is_err());
        assert!(verdict(PUTS, "1:a").is_err());
        assert!(verdict(PUTS, "5:c").is_err());
        assert!(verdict(&format!("{PUTS}2 c1 5@5 delete k sync => 6@6 written 6\n"), "5:b").is_err());
    }

    #[test]
    fn a_key_that_is_not_read_is_bad() {
        let unread = "0 c1 1@1 put other a sync => 2@2 written 1\n";
        assert!(verdict(unread, "absent").unwrap_err().what.contains("not read"));
    }
}
