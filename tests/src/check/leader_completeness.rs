//! Leader completeness (Raft 5.4.3): whoever leads holds every entry that was committed in an earlier term; and no replica drops
//! an entry that it knows to be committed.
//!
//! An entry of an earlier term may be committed in a later one, and only whoever leads after that owes it: a late winner of an
//! old term owes nothing. An entry was committed at the latest in the term in which a replica learned of it, so leaders of later
//! terms must hold it. With log matching it is enough to look at the last one of each term.

use std::collections::BTreeMap;

use kv_core::types::{LogIndex, ShardId, Term};

use super::{
    Fact, Violation,
    logs::{Log, Logs},
    view::Place,
};
use crate::history::Moment;

/// What was committed, and who knows it.
#[derive(Debug, Default)]
pub struct LeaderCompleteness {
    logs: Logs,
    /// For each term the last index that was committed in it or before, with the entry's own term.
    committed: BTreeMap<(ShardId, Term), (LogIndex, Term)>,
    known: BTreeMap<Place, LogIndex>,
}

impl LeaderCompleteness {
    /// Judges a fact.
    ///
    /// # Errors
    /// If a leader lacks a committed entry, or one is overwritten or committed twice.
    pub fn check(&mut self, at: Moment, fact: &Fact) -> Result<(), Violation> {
        let violation = |what| Violation { property: "leader completeness", what, at };
        if let Fact::Appended { place, entry } = fact
            && self.known.get(place).is_some_and(|commit| entry.index <= *commit)
            && self.logs.of(*place).and_then(|log| log.term_at(entry.index)) != Some(entry.term)
        {
            return Err(violation(format!("{place} overwrites the committed entry at {}", entry.index)));
        }
        self.logs.see(fact).map_err(violation)?;
        match fact {
            Fact::Committed { place, index, term } => self.commit(*place, *index, *term).map_err(violation),
            Fact::Started { place, commit, .. } => {
                self.known.insert(*place, *commit);
                Ok(())
            }
            Fact::BecameLeader { place, term, .. } => self.lead(*place, *term).map_err(violation),
            _ => Ok(()),
        }
    }

    fn commit(&mut self, place: Place, index: LogIndex, learned: Term) -> Result<(), String> {
        self.known.insert(place, index);
        let empty = Log::default();
        let log = self.logs.of(place).unwrap_or(&empty);
        if index < log.boundary() {
            return Ok(());
        }
        let Some(term) = log.term_at(index) else {
            return Err(format!("{place} says that {index} is committed, but holds only up to {}", log.last_index()));
        };
        // Entries of a later term all stand above those of an earlier one.
        for (other, other_term) in self.before(place.shard, Term(u64::MAX)) {
            if (*other_term > term && *other <= index) || (*other_term < term && *other >= index) {
                return Err(format!("{index} is committed in term {term}, but {other} in term {other_term}"));
            }
        }
        let highest = self.before(place.shard, Term(u64::MAX)).map(|(highest, _)| *highest).max();
        if highest.is_none_or(|highest| highest < index) {
            self.committed.insert((place.shard, learned.max(term)), (index, term));
        }
        Ok(())
    }

    /// What was certainly committed in terms before this one.
    fn before(&self, shard: ShardId, term: Term) -> impl Iterator<Item = &(LogIndex, Term)> {
        self.committed.range((shard, Term(0))..(shard, term)).map(|(_, last)| last)
    }

    fn lead(&self, place: Place, term: Term) -> Result<(), String> {
        let Some((index, committed_term)) = self.before(place.shard, term).max() else { return Ok(()) };
        let empty = Log::default();
        let log = self.logs.of(place).unwrap_or(&empty);
        if *index < log.boundary() || log.term_at(*index) == Some(*committed_term) {
            return Ok(());
        }
        let last = log.last_index();
        Err(format!(
            "{place} leads in term {term} with a log up to {last} that lacks {index} of term {committed_term}, which is committed"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{appended, committed, committed_in, judge, leads};
    use super::*;

    fn verdict(facts: &[Fact]) -> Result<(), Violation> {
        let mut property = LeaderCompleteness::default();
        judge(facts, |at, fact| property.check(at, fact))
    }

    #[test]
    fn a_leader_with_all_that_was_committed_is_good() {
        let facts = [
            leads(1, 2, 1),
            appended(1, 2, 2, 20),
            appended(2, 2, 2, 20),
            committed(1, 2),
            appended(1, 3, 2, 30),
            leads(2, 3, 2),
            appended(2, 3, 3, 31),
            appended(1, 3, 3, 31),
            committed(2, 3),
            committed(1, 3),
        ];
        assert_eq!(verdict(&facts), Ok(()));
    }

    #[test]
    fn a_late_leader_of_an_old_term_is_good() {
        let facts = [
            appended(1, 2, 5, 20),
            committed(1, 2),
            // It won in term 4, before, and only now learned of it.
            leads(3, 4, 1),
        ];
        assert_eq!(verdict(&facts), Ok(()));
    }

    #[test]
    fn an_old_entry_is_committed_in_the_term_of_the_leader_that_committed_it() {
        let facts = [
            appended(1, 2, 2, 20),
            appended(2, 2, 2, 20),
            appended(1, 3, 5, 30),
            // Whoever tells first may know only of a part, and in no case says when that was committed.
            committed_in(2, 2, 5),
            committed(1, 3),
            // Won in term 3, late: index 2 was committed only in term 5.
            leads(3, 3, 1),
        ];
        assert_eq!(verdict(&facts), Ok(()));
        assert!(verdict(&[&facts[..4], &[leads(3, 6, 1)]].concat()).is_err());
    }

    #[test]
    fn a_leader_that_lacks_a_committed_entry_is_bad() {
        assert!(verdict(&[appended(1, 2, 2, 20), committed(1, 2), leads(3, 3, 1)]).is_err());
        let other_entry = [appended(1, 2, 2, 20), committed(1, 2), appended(3, 2, 1, 21), leads(3, 3, 2)];
        assert!(verdict(&other_entry).is_err());
    }

    #[test]
    fn overwriting_a_committed_entry_is_bad() {
        let facts = [appended(1, 2, 2, 20), committed(1, 2), appended(1, 2, 3, 21)];
        assert!(verdict(&facts).unwrap_err().what.contains("overwrites"));
    }

    #[test]
    fn committing_what_is_not_there_or_twice_is_bad() {
        assert!(verdict(&[committed(1, 2)]).is_err());
        let twice = [appended(1, 2, 3, 20), committed(1, 2), appended(2, 2, 2, 21), committed(2, 2)];
        assert!(verdict(&twice).is_err());
    }
}
