//! State-machine safety (Raft 5.4.3): all replicas apply the same entry at an index, it has the same outcome everywhere, and
//! each replica applies in order and leaves nothing out.

use std::collections::BTreeMap;

use kv_core::types::{LogIndex, ShardId};

use super::{
    Fact, Violation,
    view::{AppliedCommand, EntryMark, Place},
};
use crate::history::Moment;

/// What was applied at each index, by whoever did it first, and how far each replica is.
#[derive(Debug, Default)]
pub struct StateMachineSafety {
    applied: BTreeMap<(ShardId, LogIndex), First>,
    last: BTreeMap<Place, LogIndex>,
}

#[derive(Debug)]
struct First {
    entry: EntryMark,
    commands: Vec<AppliedCommand>,
    by: Place,
}

impl StateMachineSafety {
    /// Judges a fact.
    ///
    /// # Errors
    /// If a replica applies something else than another, with another outcome, or out of order.
    pub fn check(&mut self, at: Moment, fact: &Fact) -> Result<(), Violation> {
        let violation = |what| Violation { property: "state-machine safety", what, at };
        match fact {
            Fact::Started { place, .. } | Fact::StateLost { place } => {
                self.last.remove(place);
                Ok(())
            }
            Fact::StateBegins { place, index } => {
                self.last.insert(*place, *index);
                Ok(())
            }
            Fact::Installed { place, index, .. } => {
                self.last.insert(*place, *index);
                Ok(())
            }
            Fact::Applied { place, entry, commands } => {
                self.in_order(*place, entry.index).map_err(violation)?;
                self.same_entry(*place, *entry, commands).map_err(violation)
            }
            _ => Ok(()),
        }
    }

    /// After a start, or the loss of its state, a replica may begin anywhere: where its checkpoint stood.
    fn in_order(&mut self, place: Place, index: LogIndex) -> Result<(), String> {
        match self.last.insert(place, index) {
            Some(last) if last.next() != index => Err(format!("{place} applied {index} after {last}")),
            _ => Ok(()),
        }
    }

    fn same_entry(&mut self, place: Place, entry: EntryMark, commands: &[AppliedCommand]) -> Result<(), String> {
        let index = entry.index;
        let first = self.applied.entry((place.shard, index)).or_insert_with(|| First {
            entry,
            commands: commands.to_vec(),
            by: place,
        });
        let by = first.by;
        if first.entry != entry {
            let (term, other) = (entry.term, first.entry.term);
            return Err(format!("at {index} {place} applied an entry of term {term}, {by} another of term {other}"));
        }
        if first.commands != commands {
            let (ours, theirs) = (commands, &first.commands);
            return Err(format!("at {index} {place} came to {ours:?}, but {by} to {theirs:?}"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use kv_core::{
        command::{CommandOutcome, Previous},
        types::{Revision, Term},
    };

    use super::super::testing::{applied, judge, place, started};
    use super::*;

    fn verdict(facts: &[Fact]) -> Result<(), Violation> {
        let mut property = StateMachineSafety::default();
        judge(facts, |at, fact| property.check(at, fact))
    }

    fn written(revision: u64) -> Vec<AppliedCommand> {
        let outcome = CommandOutcome::Written { revision: Revision(revision), previous: Previous::NotAsked };
        vec![AppliedCommand { stamp: None, write: None, outcome }]
    }

    #[test]
    fn the_same_everywhere_and_again_after_a_start_is_good() {
        let facts = [
            applied(1, 2, 2, written(1)),
            applied(1, 3, 2, written(2)),
            applied(2, 2, 2, written(1)),
            started(1, 2, None, 3, &[]),
            applied(1, 2, 2, written(1)),
            Fact::Installed { place: place(3), index: LogIndex(2), term: Term(2), digest: kv_core::types::Digest(5) },
            applied(3, 3, 2, written(2)),
        ];
        assert_eq!(verdict(&facts), Ok(()));
    }

    #[test]
    fn another_entry_or_outcome_is_bad() {
        assert!(verdict(&[applied(1, 2, 2, written(1)), applied(2, 2, 3, written(1))]).is_err());
        assert!(verdict(&[applied(1, 2, 2, written(1)), applied(2, 2, 2, written(2))]).is_err());
    }

    #[test]
    fn a_gap_is_bad() {
        assert!(verdict(&[applied(1, 2, 2, written(1)), applied(1, 4, 2, written(2))]).is_err());
        assert!(verdict(&[applied(1, 2, 2, written(1)), applied(1, 2, 2, written(1))]).is_err());
    }
}
