//! Log matching (Raft 5.3): two logs that hold an entry of the same index and term are the same up to there.
//!
//! By induction it is enough that an entry is named by its index and term, and that its predecessor's term is always the same.

use std::collections::BTreeMap;

use kv_core::types::{LogIndex, ShardId, Term};

use super::{
    Fact, Violation,
    logs::Logs,
    view::{EntryMark, Place},
};
use crate::history::Moment;

/// Every entry ever appended.
#[derive(Debug, Default)]
pub struct LogMatching {
    logs: Logs,
    /// For each entry its hash and the term of the one before it.
    entries: BTreeMap<(ShardId, LogIndex, Term), (u64, Option<Term>)>,
}

impl LogMatching {
    /// Judges a fact.
    ///
    /// # Errors
    /// If two logs differ at or before an entry that both hold, or a log has a gap.
    pub fn check(&mut self, at: Moment, fact: &Fact) -> Result<(), Violation> {
        let violation = |what| Violation { property: "log matching", what, at };
        self.logs.see(fact).map_err(violation)?;
        if let Fact::Started { place, boundary, entries, .. } = fact {
            return self.recover(*place, boundary.1, entries).map_err(violation);
        }
        let Fact::Appended { place, entry } = fact else { return Ok(()) };
        let before = self.logs.of(*place).and_then(|log| log.term_at(LogIndex(entry.index.0 - 1)));
        if before.is_some_and(|before| before > entry.term) {
            let what = format!("{place} appended term {} at {} after a higher one", entry.term, entry.index);
            return Err(violation(what));
        }
        let known = *self.entries.entry((place.shard, entry.index, entry.term)).or_insert((entry.hash, before));
        if known == (entry.hash, before) {
            return Ok(());
        }
        let difference = if known.0 == entry.hash { "after another entry than" } else { "with other contents than" };
        let (index, term) = (entry.index, entry.term);
        Err(violation(format!("{place} holds the entry at {index} of term {term} {difference} another log")))
    }

    /// What comes back from a disk must be what was once appended, in the same order.
    fn recover(&self, place: Place, boundary_term: Term, entries: &[EntryMark]) -> Result<(), String> {
        let mut before = boundary_term;
        for entry in entries {
            let known = self.entries.get(&(place.shard, entry.index, entry.term));
            if known.is_none_or(|known| *known != (entry.hash, Some(before))) {
                let (index, term) = (entry.index, entry.term);
                return Err(format!("{place} recovered an entry at {index} of term {term}, known is {known:?}"));
            }
            before = entry.term;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{appended, judge, mark, started};
    use super::*;

    fn verdict(facts: &[Fact]) -> Result<(), Violation> {
        let mut property = LogMatching::default();
        judge(facts, |at, fact| property.check(at, fact))
    }

    #[test]
    fn logs_that_diverge_and_are_mended_are_good() {
        let facts = [
            appended(1, 2, 2, 20),
            appended(2, 2, 2, 20),
            appended(1, 3, 2, 30),
            appended(2, 3, 3, 31),
            appended(2, 4, 3, 41),
            appended(1, 3, 3, 31),
            appended(1, 4, 3, 41),
            // The crash comes before the overwriting is synced.
            started(1, 3, None, 2, &[mark(2, 2, 20), mark(3, 2, 30)]),
            appended(1, 3, 3, 31),
            appended(1, 4, 3, 41),
        ];
        assert_eq!(verdict(&facts), Ok(()));
    }

    #[test]
    fn an_entry_with_two_contents_is_bad() {
        assert!(verdict(&[appended(1, 2, 2, 20), appended(2, 2, 2, 21)]).is_err());
    }

    #[test]
    fn a_conflict_that_was_not_overwritten_is_bad() {
        let facts = [
            appended(1, 2, 2, 20),
            appended(2, 2, 3, 21),
            appended(2, 3, 3, 31),
            // Index 2 keeps the entry of term 2.
            appended(1, 3, 3, 31),
        ];
        assert!(verdict(&facts).unwrap_err().what.contains("after another entry"));
    }

    #[test]
    fn gaps_and_entries_from_nowhere_are_bad() {
        assert!(verdict(&[appended(1, 3, 2, 20)]).is_err());
        assert!(verdict(&[appended(1, 2, 2, 20), started(1, 2, None, 1, &[mark(2, 2, 21)])]).is_err());
        assert!(verdict(&[appended(1, 2, 2, 20), started(1, 2, None, 1, &[mark(3, 2, 20)])]).is_err());
        assert!(verdict(&[appended(1, 2, 3, 20), appended(1, 3, 2, 30)]).is_err());
    }
}
