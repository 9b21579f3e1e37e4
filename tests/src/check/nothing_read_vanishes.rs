//! Nothing read ever vanishes (ours): whatever a read of any kind gave was applied, and later linearizable reads see it or what
//! replaced it.
//!
//! A node may show only decided values, so an entry that was read must stand in the applied log, with that very revision: at
//! once, not some day.

use std::collections::BTreeMap;

use kv_core::{
    command::CommandOutcome,
    types::{Revision, ShardId},
};

use super::{
    Fact, Violation,
    view::{AppliedCommand, AppliedWrite},
};
use crate::history::{Answer, Call, Consistency, History, Moment, Name, Previous, Seen};

/// Every put that was applied, by shard and revision.
#[derive(Debug, Default)]
pub struct NothingReadVanishes {
    puts: BTreeMap<(ShardId, Revision), (Name, Name)>,
}

const PROPERTY: &str = "nothing read vanishes";

impl NothingReadVanishes {
    /// Judges a fact.
    ///
    /// # Errors
    /// If a replica gave an entry that is not applied anywhere.
    pub fn check(&mut self, at: Moment, fact: &Fact) -> Result<(), Violation> {
        match fact {
            Fact::Applied { place, commands, .. } => {
                commands.iter().for_each(|command| self.apply(place.shard, command));
                Ok(())
            }
            Fact::AnsweredRead { place, key, entry: Some(seen), .. } => {
                self.stands(place.shard, key, seen).map_err(|what| violation(format!("{place} gave {what}"), at))
            }
            _ => Ok(()),
        }
    }

    fn apply(&mut self, shard: ShardId, command: &AppliedCommand) {
        if let AppliedCommand {
            write: Some(AppliedWrite { key, value: Some(value) }),
            outcome: CommandOutcome::Written { revision, .. },
            ..
        } = command
        {
            self.puts.entry((shard, *revision)).or_insert_with(|| (key.clone(), value.clone()));
        }
    }

    fn stands(&self, shard: ShardId, key: &Name, seen: &Seen) -> Result<(), String> {
        match self.puts.get(&(shard, seen.revision)) {
            Some((put_key, put_value)) if put_key == key && *put_value == seen.value => Ok(()),
            other => Err(format!("{key} = {} at revision {}, where {other:?} was applied", seen.value, seen.revision)),
        }
    }

    /// Judges what clients were given when the run is over.
    ///
    /// # Errors
    /// If a client was given an entry that was never applied, or one that a later read does not know of.
    pub fn finish(&self, history: &History, shard_of: impl Fn(&Name) -> ShardId) -> Result<(), Violation> {
        let mut ends: Vec<_> = Vec::new();
        for operation in history.operations() {
            let (Some(key), Some((at, answer))) = (operation.call.key(), &operation.completed) else { continue };
            let seen = match answer {
                Answer::Read { entry: Some(seen), .. } | Answer::Written { previous: Previous::Entry(seen), .. } => {
                    seen
                }
                _ => continue,
            };
            self.stands(shard_of(key), key, seen)
                .map_err(|what| violation(format!("a client was given {what}: {operation}"), *at))?;
            ends.push((at.event, key, seen.revision));
        }
        ends.sort_unstable_by_key(|(event, ..)| *event);
        later_reads_know(history, &ends)
    }
}

/// Each linearizable read that finds an entry finds none older than what was seen before it was called.
fn later_reads_know(history: &History, ends: &[(u64, &Name, Revision)]) -> Result<(), Violation> {
    let mut highest: BTreeMap<&Name, Revision> = BTreeMap::new();
    let mut ends = ends.iter().peekable();
    for operation in history.operations() {
        while let Some((_, key, revision)) = ends.next_if(|(event, ..)| *event < operation.invoked.event) {
            let highest = highest.entry(key).or_default();
            *highest = (*highest).max(*revision);
        }
        let Call::Get { key, consistency: Consistency::Linearizable } = &operation.call else { continue };
        let (Some((at, Answer::Read { entry, .. })), Some(floor)) = (&operation.completed, highest.get(key)) else {
            continue;
        };
        let known = match entry {
            Some(seen) => seen.revision >= *floor,
            None => may_be_deleted(history, key, at.event, *floor),
        };
        if !known {
            return Err(violation(format!("revision {floor} of {key} was read before, and then: {operation}"), *at));
        }
    }
    Ok(())
}

/// Whether a delete can have removed a revision before an event.
fn may_be_deleted(history: &History, key: &Name, before: u64, revision: Revision) -> bool {
    history.operations().iter().any(|operation| {
        let deletes = matches!(&operation.call, Call::Write { key: its, value: None, .. } if its == key);
        let did = match operation.answer() {
            Some(Answer::Written { revision: own, .. }) => *own > revision,
            _ => operation.is_open_write(),
        };
        deletes && did && operation.invoked.event < before
    })
}

fn violation(what: String, at: Moment) -> Violation {
    Violation { property: PROPERTY, what, at }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{applied, judge, place};
    use super::*;

    fn verdict(facts: &[Fact], history: &str) -> Result<(), Violation> {
        let mut property = NothingReadVanishes::default();
        judge(facts, |at, fact| property.check(at, fact))?;
        property.finish(&history.parse().unwrap(), |_| ShardId(1))
    }

    fn put(index: u64, value: &str) -> Fact {
        let write = Some(AppliedWrite { key: "k".into(), value: Some(value.into()) });
        let outcome =
            CommandOutcome::Written { revision: Revision(index), previous: kv_core::command::Previous::NotAsked };
        applied(1, index, 2, vec![AppliedCommand { stamp: None, write, outcome }])
    }

    fn answered(revision: u64, value: &str) -> Fact {
        let entry = Some(Seen { revision: Revision(revision), value: value.into() });
        Fact::AnsweredRead { place: place(1), key: "k".into(), entry, at: Revision(revision) }
    }

    #[test]
    fn reads_of_what_was_applied_are_good() {
        let history = "0 c1 1@1 get k stale => 2@2 read 2:a age:5\n\
                       1 c1 3@3 get k linearizable => 4@4 read 3:b age:0\n\
                       2 c1 5@5 delete k sync => never\n\
                       3 c1 6@6 get k linearizable => 7@7 read absent age:0\n";
        assert_eq!(verdict(&[put(2, "a"), answered(2, "a"), put(3, "b")], history), Ok(()));
    }

    #[test]
    fn a_read_of_what_is_not_yet_decided_is_bad() {
        assert!(verdict(&[answered(2, "a"), put(2, "a")], "").is_err());
        assert!(verdict(&[put(2, "a"), answered(2, "b")], "").is_err());
        assert!(verdict(&[put(2, "a")], "0 c1 1@1 get k stale => 2@2 read 2:b age:5\n").is_err());
    }

    #[test]
    fn a_read_that_is_forgotten_is_bad() {
        let then = |later: &str| {
            format!(
                "0 c1 1@1 get k stale => 2@2 read 3:b age:0\n\
                 1 c1 3@3 get k linearizable => 4@4 read {later} age:0\n"
            )
        };
        assert!(verdict(&[put(2, "a"), put(3, "b")], &then("2:a")).is_err());
        assert!(verdict(&[put(2, "a"), put(3, "b")], &then("absent")).is_err());
        assert_eq!(verdict(&[put(2, "a"), put(3, "b")], &then("3:b")), Ok(()));
    }
}
