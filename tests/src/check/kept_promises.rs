//! Persistent state (Raft figure 2): what has left a replica in a message outlives every crash that the disk survives.
//!
//! A replica that said a term comes back in that term or a later one; it votes once per term, whatever happened in between; and
//! an entry that it said to hold is there after a start, unless a leader of a later term had it overwritten before.

use std::collections::BTreeMap;

use kv_core::types::{LogIndex, ReplicaId, Term};

use super::{Fact, Violation, view::Place};
use crate::history::Moment;

/// What each replica has said.
#[derive(Debug, Default)]
pub struct KeptPromises {
    said: BTreeMap<Place, Said>,
    votes: BTreeMap<(Place, Term), ReplicaId>,
}

#[derive(Debug, Default)]
struct Said {
    term: Term,
    /// The index up to which it said to hold its leader's log. An overwritten entry takes it back.
    accepted: LogIndex,
    /// The newest term of an entry given to its disk.
    appended: Term,
}

impl KeptPromises {
    /// Judges a fact.
    ///
    /// # Errors
    /// If a promise is broken.
    pub fn check(&mut self, at: Moment, fact: &Fact) -> Result<(), Violation> {
        let what = match fact {
            Fact::Promised { place, term, vote, accepted } => self.promise(*place, *term, *vote, *accepted),
            Fact::Started { place, term, vote, boundary, entries, .. } => {
                let last_index = entries.last().map_or(boundary.0, |entry| entry.index);
                self.come_back(*place, *term, *vote, last_index)
            }
            Fact::Installed { place, index, .. } => {
                self.take_back(*place, *index);
                None
            }
            Fact::Appended { place, entry } => {
                // The entry is new or stands there already. If it replaces one, what stood behind is gone as well; the disk
                // holds the new one at the earliest when the next promise leaves.
                self.take_back(*place, LogIndex(entry.index.0.saturating_sub(1)));
                let said = self.said.entry(*place).or_default();
                said.appended = said.appended.max(entry.term);
                None
            }
            _ => None,
        };
        what.map_or(Ok(()), |what| Err(Violation { property: "kept promises", what, at }))
    }

    fn promise(
        &mut self,
        place: Place,
        term: Term,
        vote: Option<ReplicaId>,
        accepted: Option<LogIndex>,
    ) -> Option<String> {
        let said = self.said.entry(place).or_default();
        if term < said.term {
            return Some(format!("{place} speaks in term {term} after it spoke in term {}", said.term));
        }
        said.term = term;
        // An answer to an earlier leader that leaves together with a later leader's overwriting was true when it was made.
        if term >= said.appended {
            said.accepted = said.accepted.max(accepted.unwrap_or_default());
        }
        let vote = vote?;
        let first = *self.votes.entry((place, term)).or_insert(vote);
        (first != vote).then(|| format!("{place} voted for {vote} in term {term}, in which it voted for {first}"))
    }

    fn come_back(&mut self, place: Place, term: Term, vote: Option<ReplicaId>, last: LogIndex) -> Option<String> {
        let said = self.said.get(&place)?;
        if term < said.term {
            return Some(format!("{place} comes back in term {term}, having spoken in term {}", said.term));
        }
        if last < said.accepted {
            return Some(format!("{place} comes back with a log up to {last}, having said to hold {}", said.accepted));
        }
        let promised = *self.votes.get(&(place, term))?;
        (vote != Some(promised))
            .then(|| format!("{place} comes back in term {term} with the vote {vote:?}, having voted for {promised}"))
    }

    fn take_back(&mut self, place: Place, index: LogIndex) {
        if let Some(said) = self.said.get_mut(&place) {
            said.accepted = said.accepted.min(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{appended, judge, mark, place, started};
    use super::*;

    fn verdict(facts: &[Fact]) -> Result<(), Violation> {
        let mut property = KeptPromises::default();
        judge(facts, |at, fact| property.check(at, fact))
    }

    fn voted(term: u64, candidate: u64) -> Fact {
        Fact::Promised { place: place(1), term: Term(term), vote: Some(ReplicaId(candidate)), accepted: None }
    }

    fn accepted(term: u64, index: u64) -> Fact {
        Fact::Promised { place: place(1), term: Term(term), vote: None, accepted: Some(LogIndex(index)) }
    }

    #[test]
    fn promises_that_are_kept_are_good() {
        let facts = [
            voted(2, 2),
            started(1, 2, Some(2), 1, &[]),
            voted(2, 2),
            appended(1, 2, 2, 20),
            appended(1, 3, 2, 30),
            accepted(2, 3),
            // A leader of term 3 overwrites index 3; the crash comes before that is synced.
            appended(1, 3, 3, 31),
            // The answer to the leader of term 2 was on its way, and leaves with the one to the leader of term 3.
            accepted(2, 4),
            started(1, 2, Some(2), 1, &[mark(2, 2, 20)]),
            voted(4, 3),
        ];
        assert_eq!(verdict(&facts), Ok(()));
    }

    #[test]
    fn a_forgotten_vote_or_term_is_bad() {
        assert!(verdict(&[voted(2, 2), started(1, 2, None, 1, &[])]).is_err());
        assert!(verdict(&[voted(2, 2), started(1, 1, None, 1, &[])]).is_err());
        assert!(verdict(&[voted(2, 2), voted(2, 3)]).is_err());
        assert!(verdict(&[voted(2, 2), accepted(1, 1)]).is_err());
    }

    #[test]
    fn a_lost_entry_that_was_acknowledged_is_bad() {
        assert!(verdict(&[appended(1, 2, 2, 20), accepted(2, 2), started(1, 2, None, 1, &[])]).is_err());
    }
}
