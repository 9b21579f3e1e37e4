//! Revisions grow in real time (ours): a change that was called after another was answered has a higher revision in its shard,
//! a linearizable read says a shard revision no lower than any that was told before, and a revision stands for one entry.

use std::collections::BTreeMap;

use kv_core::types::{Revision, ShardId};

use super::Violation;
use crate::history::{Answer, Call, Consistency, History, Moment, Name, Operation, Previous, Seen};

/// Judges the revisions of a history.
///
/// # Errors
/// If a revision goes back or stands for two entries.
pub fn check(history: &History, shard_of: impl Fn(&Name) -> ShardId) -> Result<(), Violation> {
    one_entry_each(history, &shard_of)?;
    let mut answered: Vec<_> = history
        .operations()
        .iter()
        .filter_map(|operation| {
            let (at, _) = operation.completed.as_ref()?;
            Some((at.event, shard_of(operation.call.key()?), told(operation)?))
        })
        .collect();
    answered.sort_unstable();
    let mut answered = answered.into_iter().peekable();
    let mut floors: BTreeMap<ShardId, Revision> = BTreeMap::new();
    for operation in history.operations() {
        while let Some((_, shard, revision)) = answered.next_if(|(event, ..)| *event < operation.invoked.event) {
            let floor = floors.entry(shard).or_default();
            *floor = (*floor).max(revision);
        }
        let (Some(key), Some((at, answer))) = (operation.call.key(), &operation.completed) else { continue };
        let floor = floors.get(&shard_of(key)).copied().unwrap_or_default();
        let grows = match (&operation.call, answer) {
            (Call::Write { .. }, Answer::Written { revision, .. }) => *revision == Revision(0) || *revision > floor,
            (Call::Get { consistency: Consistency::Linearizable, .. }, Answer::Read { at: Some(at), .. }) => {
                *at >= floor
            }
            _ => true,
        };
        if !grows {
            return Err(violation(format!("revision {floor} was told before the call of: {operation}"), *at));
        }
    }
    Ok(())
}

/// The highest revision that an answer tells: the shard had it by then.
fn told(operation: &Operation) -> Option<Revision> {
    match operation.answer()? {
        Answer::Read { entry, at, .. } => entry.as_ref().map(|seen| seen.revision).max(*at),
        Answer::Written { revision, .. } => Some(*revision),
        Answer::Failed { current, .. } => *current,
        Answer::Accepted { .. } | Answer::Durability(_) => None,
    }
}

fn one_entry_each(history: &History, shard_of: impl Fn(&Name) -> ShardId) -> Result<(), Violation> {
    let mut entries: BTreeMap<(ShardId, Revision), (Name, Option<Name>)> = BTreeMap::new();
    for operation in history.operations() {
        let (Some(key), Some((at, answer))) = (operation.call.key(), &operation.completed) else { continue };
        let seen = |seen: &Seen| (seen.revision, Some(seen.value.clone()));
        let mut told = Vec::new();
        match (&operation.call, answer) {
            (_, Answer::Read { entry, at, .. }) => {
                told.extend(entry.iter().map(seen));
                if at.is_some_and(|at| entry.as_ref().is_some_and(|entry| entry.revision > at)) {
                    return Err(violation(
                        format!("the entry is newer than the state: {operation}"),
                        operation.invoked,
                    ));
                }
            }
            (Call::Write { value, .. }, Answer::Written { revision, previous, .. }) => {
                told.push((*revision, value.clone()));
                if let Previous::Entry(entry) = previous {
                    told.push(seen(entry));
                }
            }
            _ => {}
        }
        for (revision, value) in told.into_iter().filter(|(revision, _)| *revision != Revision(0)) {
            let entry = (key.clone(), value);
            let first = entries.entry((shard_of(key), revision)).or_insert_with(|| entry.clone());
            if *first != entry {
                return Err(violation(format!("revision {revision} stands for {first:?} and for {entry:?}"), *at));
            }
        }
    }
    Ok(())
}

fn violation(what: String, at: Moment) -> Violation {
    Violation { property: "revisions", what, at }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(history: &str) -> Result<(), Violation> {
        check(&history.parse().unwrap(), |_| ShardId(1))
    }

    #[test]
    fn growing_revisions_are_good() {
        let history = "0 c1 1@1 put k a sync => 2@2 written 1\n\
                       1 c1 3@3 put j b sync => 6@6 written 3\n\
                       2 c2 4@4 put k c sync => 5@5 written 2\n\
                       3 c2 7@7 get k linearizable => 8@8 read 2:c at:3 age:0\n\
                       4 c2 9@9 get k stale => 10@10 read 1:a at:1 age:9\n\
                       5 c2 11@11 delete z sync => 12@12 written 0\n";
        assert_eq!(verdict(history), Ok(()));
    }

    #[test]
    fn revisions_that_go_back_over_two_keys_are_bad() {
        let history = "0 c1 1@1 put k a sync => 2@2 written 2\n1 c1 3@3 put j b sync => 4@4 written 1\n";
        assert!(verdict(history).is_err());
        let history =
            "0 c1 1@1 put k a sync => 2@2 written 2\n1 c1 3@3 get j linearizable => 4@4 read absent at:1 age:0\n";
        assert!(verdict(history).is_err());
    }

    #[test]
    fn a_revision_of_two_entries_is_bad() {
        let history = "0 c1 1@1 put k a sync => 3@3 written 2\n1 c2 2@2 put j b sync => 4@4 written 2\n";
        assert!(verdict(history).is_err());
        assert!(verdict("0 c1 1@1 get k stale => 2@2 read 5:a at:4 age:0\n").is_err());
    }
}
