//! Monotonic state (Raft 5.1 and figure 2): a replica's term never goes back, it votes once per term, and while its process runs
//! its commit and applied indexes never go back, unless it gives its state up; it applies nothing that is not committed.
//!
//! What must outlive a crash is judged by `kept_promises`.

use std::collections::BTreeMap;

use kv_core::types::LogIndex;

use super::{
    Fact, Violation,
    view::{Place, ReplicaView},
};
use crate::history::Moment;

/// How each replica looked last, since its start.
#[derive(Debug, Default)]
pub struct Monotonic {
    last: BTreeMap<Place, ReplicaView>,
}

impl Monotonic {
    /// Judges a fact.
    ///
    /// # Errors
    /// If something went back.
    pub fn check(&mut self, at: Moment, fact: &Fact) -> Result<(), Violation> {
        match fact {
            Fact::Started { place, .. } | Fact::NotFound { place } => {
                self.last.remove(place);
                Ok(())
            }
            Fact::StateLost { place } => {
                if let Some(last) = self.last.get_mut(place) {
                    last.applied = LogIndex(0);
                }
                Ok(())
            }
            Fact::StateBegins { place, index } => {
                if let Some(last) = self.last.get_mut(place) {
                    last.applied = last.applied.min(*index);
                }
                Ok(())
            }
            Fact::View(view) => {
                let last = self.last.insert(view.place, *view);
                let what = impossible_by_itself(view).or_else(|| went_back(&last?, view));
                what.map_or(Ok(()), |what| Err(Violation { property: "monotonic state", what, at }))
            }
            _ => Ok(()),
        }
    }
}

fn impossible_by_itself(view: &ReplicaView) -> Option<String> {
    let place = view.place;
    if view.applied > view.commit {
        return Some(format!("{place} applied up to {}, committed is {}", view.applied, view.commit));
    }
    if view.commit > view.last_index {
        return Some(format!("{place} has a log up to {}, committed is {}", view.last_index, view.commit));
    }
    None
}

fn went_back(last: &ReplicaView, now: &ReplicaView) -> Option<String> {
    let place = now.place;
    if now.term < last.term {
        return Some(format!("the term of {place} went from {} to {}", last.term, now.term));
    }
    if now.term == last.term && last.vote.is_some() && now.vote != last.vote {
        let (from, to) = (last.vote, now.vote);
        return Some(format!("{place} changed its vote in term {} from {from:?} to {to:?}", now.term));
    }
    if now.commit < last.commit {
        return Some(format!("the commit index of {place} went from {} to {}", last.commit, now.commit));
    }
    if now.applied < last.applied {
        return Some(format!("the applied index of {place} went from {} to {}", last.applied, now.applied));
    }
    None
}

#[cfg(test)]
mod tests {
    use kv_core::types::{ReplicaId, Term};

    use super::super::testing::{judge, place, started};
    use super::*;

    fn verdict(facts: &[Fact]) -> Result<(), Violation> {
        let mut property = Monotonic::default();
        judge(facts, |at, fact| property.check(at, fact))
    }

    fn view(term: u64, vote: Option<u64>, commit: u64, applied: u64) -> Fact {
        Fact::View(ReplicaView {
            place: place(1),
            term: Term(term),
            vote: vote.map(ReplicaId),
            commit: LogIndex(commit),
            applied: LogIndex(applied),
            last_index: LogIndex(9),
            ..Default::default()
        })
    }

    #[test]
    fn growing_and_a_start_are_good() {
        let facts = [
            view(2, None, 3, 2),
            view(2, Some(1), 3, 3),
            view(3, Some(2), 5, 4),
            started(1, 3, Some(2), 4, &[]),
            view(3, Some(2), 4, 1),
            Fact::NotFound { place: place(1) },
            view(1, None, 1, 1),
        ];
        assert_eq!(verdict(&facts), Ok(()));
    }

    #[test]
    fn whatever_goes_back_is_bad() {
        let first = view(3, Some(2), 5, 4);
        for later in [
            view(2, Some(2), 5, 4),
            view(3, Some(1), 5, 4),
            view(3, None, 5, 4),
            view(3, Some(2), 4, 4),
            view(3, Some(2), 5, 3),
        ] {
            assert!(verdict(&[first.clone(), later.clone()]).is_err(), "{later:?}");
        }
    }

    #[test]
    fn applying_ahead_of_commit_or_committing_ahead_of_the_log_is_bad() {
        assert!(verdict(&[view(2, None, 3, 4)]).is_err());
        assert!(verdict(&[view(2, None, 10, 4)]).is_err());
    }
}
