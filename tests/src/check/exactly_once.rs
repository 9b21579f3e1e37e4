//! Exactly once (Raft thesis 6.3): a write that was acknowledged took effect once, and no write ever takes effect twice.
//!
//! Judged by what was applied: a revision is given once; a (session, sequence) that comes again gets the revision and outcome of
//! the first time, and not a new one; no value, each being unique, is put at two revisions.

use std::collections::BTreeMap;

use kv_core::{
    command::CommandOutcome,
    types::{LogIndex, Revision, Sequence, SessionId, ShardId},
};

use super::{
    Fact, Violation,
    view::{AppliedCommand, AppliedWrite},
};
use crate::history::{Answer, Call, History, Moment, Name, Operation, Stamp};

/// What took effect, of which stamp, as first applied by any replica.
#[derive(Debug, Default)]
pub struct ExactlyOnce {
    last: BTreeMap<ShardId, LogIndex>,
    outcomes: BTreeMap<(ShardId, SessionId, Sequence), Effect>,
    /// The revision at which each value was put, and in which shard.
    values: BTreeMap<Name, (ShardId, Revision)>,
    /// Which key and value got which revision.
    revisions: BTreeMap<(ShardId, Revision), (Name, Option<Name>)>,
}

/// What a write did: the revision that it got, or the revision that its condition met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Wrote(Revision),
    Met(Revision),
}

const PROPERTY: &str = "exactly once";

impl ExactlyOnce {
    /// Judges a fact.
    ///
    /// # Errors
    /// If a write takes effect again.
    pub fn check(&mut self, at: Moment, fact: &Fact) -> Result<(), Violation> {
        let Fact::Applied { place, entry, commands, .. } = fact else { return Ok(()) };
        // That all replicas come to the same is another property: here each index counts once.
        let last = self.last.entry(place.shard).or_default();
        if entry.index <= *last {
            return Ok(());
        }
        *last = entry.index;
        let judged = commands.iter().try_for_each(|command| self.apply(place.shard, command));
        judged.map_err(|what| Violation { property: PROPERTY, what: format!("at index {}: {what}", entry.index), at })
    }

    fn apply(&mut self, shard: ShardId, command: &AppliedCommand) -> Result<(), String> {
        let effect = match command.outcome {
            CommandOutcome::Written { revision, .. } => Effect::Wrote(revision),
            CommandOutcome::Conflict { current } => Effect::Met(current),
            // Nothing was done: whatever was done before stands.
            _ => return Ok(()),
        };
        let Some(write) = &command.write else { return Ok(()) };
        if let Some((session, sequence)) = command.stamp {
            let first = *self.outcomes.entry((shard, session, sequence)).or_insert(effect);
            if first != effect {
                return Err(format!("write {sequence} of session {session} came to {effect:?}, before to {first:?}"));
            }
        }
        let Effect::Wrote(revision) = effect else { return Ok(()) };
        self.put(shard, write, revision)
    }

    fn put(&mut self, shard: ShardId, write: &AppliedWrite, revision: Revision) -> Result<(), String> {
        if let Some(value) = &write.value {
            let first = *self.values.entry(value.clone()).or_insert((shard, revision));
            if first != (shard, revision) {
                let (first_shard, first) = first;
                return Err(format!(
                    "value {value} was put at revision {revision}, before at {first} of shard {first_shard}"
                ));
            }
        }
        // A remembered outcome gives the write's own revision again.
        let named = (write.key.clone(), write.value.clone());
        let first = self.revisions.entry((shard, revision)).or_insert_with(|| named.clone());
        if revision != Revision(0) && *first != named {
            return Err(format!("revision {revision} was given to {first:?} and to {named:?}"));
        }
        Ok(())
    }

    /// Judges the acknowledgements when the run is over: each was applied, as it was told.
    ///
    /// # Errors
    /// If an acknowledged put was never applied, or otherwise than it was told.
    pub fn finish(&self, history: &History) -> Result<(), Violation> {
        for operation in history.operations() {
            let (Call::Write { value, .. }, Some((at, Answer::Written { revision, .. }))) =
                (&operation.call, &operation.completed)
            else {
                continue;
            };
            let by_value =
                value.as_ref().map(|value| self.values.get(value).map(|(_, revision)| Effect::Wrote(*revision)));
            let applied = by_value.or_else(|| self.by_stamp(operation));
            // A delete without a session leaves no name by which it could be found.
            let Some(applied) = applied else { continue };
            if applied != Some(Effect::Wrote(*revision)) {
                let what = format!("acknowledged at revision {revision}, applied {applied:?}: {operation}");
                return Err(Violation { property: PROPERTY, what, at: *at });
            }
        }
        Ok(())
    }

    fn by_stamp(&self, operation: &Operation) -> Option<Option<Effect>> {
        let Stamp { shard, session, sequence } = *operation.stamps.last()?;
        Some(self.outcomes.get(&(shard, session, sequence)).copied())
    }
}

#[cfg(test)]
mod tests {
    use kv_core::command::Previous;

    use super::super::testing::{applied, judge};
    use super::*;

    fn verdict(facts: &[Fact], history: &str) -> Result<(), Violation> {
        let mut property = ExactlyOnce::default();
        judge(facts, |at, fact| property.check(at, fact))?;
        property.finish(&history.parse().unwrap())
    }

    fn write(sequence: u64, value: &str, outcome: CommandOutcome) -> Vec<AppliedCommand> {
        let value = (!value.is_empty()).then(|| Name::from(value));
        let stamp = (sequence > 0).then_some((SessionId(1), Sequence(sequence)));
        vec![AppliedCommand { stamp, write: Some(AppliedWrite { key: "k".into(), value }), outcome }]
    }

    fn at(revision: u64) -> CommandOutcome {
        CommandOutcome::Written { revision: Revision(revision), previous: Previous::NotAsked }
    }

    const ACKNOWLEDGED: &str = "0 c1 1@1 put k a sync 1/1/1 => 9@9 written 1\n";

    #[test]
    fn a_remembered_outcome_is_good() {
        let facts = [
            applied(1, 2, 2, write(1, "a", at(1))),
            applied(2, 2, 2, write(1, "a", at(1))),
            applied(1, 3, 2, write(2, "b", CommandOutcome::Conflict { current: Revision(1) })),
            applied(1, 4, 2, write(1, "a", at(1))),
            applied(1, 5, 2, write(1, "a", CommandOutcome::Finished)),
            applied(1, 6, 2, write(1, "a", CommandOutcome::SessionExpired)),
            applied(1, 7, 2, write(2, "b", CommandOutcome::Conflict { current: Revision(1) })),
        ];
        assert_eq!(verdict(&facts, ACKNOWLEDGED), Ok(()));
    }

    #[test]
    fn a_write_that_runs_twice_is_bad() {
        let twice = |sequence, value| {
            [applied(1, 2, 2, write(sequence, value, at(1))), applied(1, 3, 2, write(sequence, value, at(2)))]
        };
        assert!(verdict(&twice(1, "a"), "").is_err());
        assert!(verdict(&twice(1, ""), "").is_err(), "a delete");
        assert!(verdict(&twice(0, "a"), "").is_err(), "without a session the value tells");
    }

    #[test]
    fn a_revision_that_is_given_twice_is_bad() {
        let facts = [applied(1, 2, 2, write(1, "a", at(1))), applied(1, 3, 2, write(2, "b", at(1)))];
        assert!(verdict(&facts, "").is_err());
    }

    #[test]
    fn a_condition_that_is_judged_again_is_bad() {
        let facts = [
            applied(1, 2, 2, write(1, "a", CommandOutcome::Conflict { current: Revision(1) })),
            applied(1, 3, 2, write(1, "a", at(2))),
        ];
        assert!(verdict(&facts, "").is_err());
    }

    #[test]
    fn an_acknowledgement_of_what_was_not_applied_is_bad() {
        assert!(verdict(&[], ACKNOWLEDGED).is_err());
        assert!(verdict(&[applied(1, 2, 2, write(1, "a", at(2)))], ACKNOWLEDGED).is_err());
        assert!(verdict(&[], "0 c1 1@1 delete k sync 1/1/1 => 9@9 written 1\n").is_err());
    }
}
