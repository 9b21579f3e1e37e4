//! A read that may be old is no older than it says, and than was asked (ours): the age that it tells is at most the bound that
//! was asked for, by the clock of the node that answers, and its state holds every write of the shard that was acknowledged
//! before the moment to which that age reaches back.
//!
//! The second half is judged in simulated time: whoever tells the fact looks up when the node's clock, with all its rates and
//! jumps, showed that moment. A write counts as acknowledged when the leader's answer leaves it, which is the earliest moment
//! at which anybody can know.

use std::collections::BTreeMap;

use kv_core::types::{Revision, ShardId};

use super::{Fact, Violation};
use crate::history::Moment;

/// What was acknowledged, and when.
#[derive(Debug, Default)]
pub struct BoundedAge {
    /// For each shard, when its highest acknowledged revision grew, and to what; both ascend.
    acknowledged: BTreeMap<ShardId, Vec<(u64, Revision)>>,
}

impl BoundedAge {
    /// Judges a fact.
    ///
    /// # Errors
    /// If an answer is older than it may be.
    pub fn check(&mut self, at: Moment, fact: &Fact) -> Result<(), Violation> {
        let violation = |what| Err(Violation { property: "bounded age", what, at });
        match fact {
            Fact::AcknowledgedWrite { place, revision } => {
                let known = self.acknowledged.entry(place.shard).or_default();
                if known.last().is_none_or(|(_, last)| last < revision) {
                    known.push((at.micros, *revision));
                }
                Ok(())
            }
            Fact::AnsweredOldRead { place, asked_micros_max: Some(asked), told_micros, .. }
                if told_micros.is_none_or(|told| told > *asked) =>
            {
                violation(format!("{place} was asked for at most {asked} us and answered with {told_micros:?}"))
            }
            Fact::AnsweredOldRead { place, at: read, current_at_micros: Some(since), told_micros, .. } => {
                let known = self.acknowledged.get(&place.shard).map_or(&[][..], Vec::as_slice);
                let before = known.partition_point(|(micros, _)| micros < since);
                match known[..before].last() {
                    Some((micros, revision)) if read < revision => violation(format!(
                        "{place} answered from revision {read} with an age of {told_micros:?} us, which reaches back to \
                         {since} us; revision {revision} was acknowledged at {micros} us"
                    )),
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{judge, place};
    use super::*;

    fn verdict(facts: &[Fact]) -> Result<(), Violation> {
        let mut property = BoundedAge::default();
        judge(facts, |at, fact| property.check(at, fact))
    }

    fn wrote(revision: u64) -> Fact {
        Fact::AcknowledgedWrite { place: place(1), revision: Revision(revision) }
    }

    fn read(at: u64, asked: Option<u64>, told: Option<u64>, since: Option<u64>) -> Fact {
        Fact::AnsweredOldRead {
            place: place(2),
            at: Revision(at),
            asked_micros_max: asked,
            told_micros: told,
            current_at_micros: since,
        }
    }

    #[test]
    fn old_states_of_an_honest_age_are_good() {
        // Facts are a millisecond apart.
        let facts = [
            wrote(5),
            wrote(7),
            wrote(6),
            read(5, Some(9_000), Some(3_000), Some(1_500)),
            read(7, Some(9_000), Some(2_000), Some(3_000)),
            read(0, None, None, None),
            read(0, None, Some(7_000), Some(900)),
        ];
        assert_eq!(verdict(&facts), Ok(()));
    }

    #[test]
    fn an_age_above_the_bound_or_none_at_all_is_bad() {
        assert!(verdict(&[read(0, Some(10), Some(11), Some(0))]).is_err());
        assert!(verdict(&[read(0, Some(10), None, None)]).is_err());
    }

    #[test]
    fn a_state_without_what_was_acknowledged_before_is_bad() {
        assert!(verdict(&[wrote(5), wrote(6), read(5, Some(100), Some(10), Some(2_500))]).is_err());
        assert!(verdict(&[wrote(5), wrote(6), wrote(4), read(5, None, Some(10), Some(3_500))]).is_err());
    }
}
