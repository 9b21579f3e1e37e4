//! Async loss (ours): of what a leader acknowledged early in a term, only a suffix may be lost, and never more than the bound.
//!
//! The bound holds when it is acknowledged: so many commands and bytes undecided at most (1,000 and 1 MiB, unless a run draws
//! them smaller), the oldest for so long at most (100 ms). Whatever is lost was undecided when its leader last acknowledged
//! anything, so the loss is within the bound as well.

use std::collections::{BTreeMap, VecDeque};

use kv_core::types::{LogIndex, ShardId, Term};

use super::{Bounds, Fact, Violation};
use crate::history::Moment;

/// What was acknowledged early, for each shard and term.
#[derive(Debug)]
pub struct AsyncSuffix {
    bounds: Bounds,
    accepted: BTreeMap<(ShardId, Term), VecDeque<Accepted>>,
    /// Lowest index of those that a leader acknowledged in a term and that were lost.
    lost: BTreeMap<(ShardId, Term), LogIndex>,
    /// What is applied: the last index of the shard.
    applied: BTreeMap<ShardId, LogIndex>,
}

#[derive(Clone, Copy, Debug)]
struct Accepted {
    index: LogIndex,
    bytes: u64,
    at: Moment,
}

impl AsyncSuffix {
    /// A judge by these bounds.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, accepted: BTreeMap::new(), lost: BTreeMap::new(), applied: BTreeMap::new() }
    }

    /// Judges a fact.
    ///
    /// # Errors
    /// If more is at risk than the bound, or something is kept that comes after a loss.
    pub fn check(&mut self, at: Moment, fact: &Fact) -> Result<(), Violation> {
        let violation = |what| Violation { property: "async loss", what, at };
        match fact {
            Fact::AcceptedAsync { place, token, bytes, held_micros } => {
                // The leader looked at its clock when it made the answer, and may have stood still before that left.
                let at = Moment { micros: at.micros - held_micros, ..at };
                let accepted = Accepted { index: token.index, bytes: *bytes, at };
                self.accept(place.shard, token.term, accepted).map_err(violation)
            }
            Fact::Applied { place, entry, .. } => {
                let last = self.applied.entry(place.shard).or_default();
                if entry.index <= *last {
                    return Ok(());
                }
                *last = entry.index;
                self.decide(place.shard, entry.index, entry.term).map_err(violation)
            }
            _ => Ok(()),
        }
    }

    fn accept(&mut self, shard: ShardId, term: Term, accepted: Accepted) -> Result<(), String> {
        if self.applied.get(&shard).is_some_and(|applied| accepted.index <= *applied) {
            // A leader that was deposed without knowing acknowledges what is decided otherwise already: lost at once.
            self.lost.entry((shard, term)).or_insert(accepted.index);
        }
        let undecided = self.accepted.entry((shard, term)).or_default();
        if undecided.back().is_some_and(|last| last.index > accepted.index) {
            return Err(format!("index {} is acknowledged after a later one of term {term}", accepted.index));
        }
        undecided.push_back(accepted);
        let (commands, bytes) = (undecided.len(), undecided.iter().map(|accepted| accepted.bytes).sum::<u64>());
        let oldest_micros = undecided.front().map_or(0, |oldest| accepted.at.micros - oldest.at.micros);
        let Bounds { undecided_commands_max, undecided_bytes_max, undecided_micros_max, .. } = self.bounds;
        if commands > undecided_commands_max || bytes > undecided_bytes_max || oldest_micros > undecided_micros_max {
            return Err(format!(
                "shard {shard} in term {term} has acknowledged {commands} undecided commands of {bytes} bytes, the oldest {oldest_micros} us ago"
            ));
        }
        Ok(())
    }

    /// An index was applied for the first time: what was acknowledged there is kept if the term is the same, else lost.
    fn decide(&mut self, shard: ShardId, index: LogIndex, applied_term: Term) -> Result<(), String> {
        let all_terms = (shard, Term(0))..=(shard, Term(u64::MAX));
        for ((_, term), undecided) in self.accepted.range_mut(all_terms) {
            while let Some(first) = undecided.front().filter(|first| first.index <= index).copied() {
                undecided.pop_front();
                if first.index == index && *term == applied_term {
                    if let Some(lost) = self.lost.get(&(shard, *term)) {
                        return Err(format!(
                            "{index} of term {term} is kept, but {lost}, acknowledged before, is lost"
                        ));
                    }
                } else {
                    let lost = self.lost.entry((shard, *term)).or_insert(first.index);
                    *lost = first.index.min(*lost);
                }
            }
        }
        self.accepted.retain(|_, undecided| !undecided.is_empty());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use kv_core::types::Token;

    use super::super::testing::{BOUNDS, applied, judge, place};
    use super::*;

    fn verdict(facts: &[Fact]) -> Result<(), Violation> {
        let mut property = AsyncSuffix::new(BOUNDS);
        judge(facts, |at, fact| property.check(at, fact))
    }

    fn accepted(term: u64, index: u64, bytes: u64) -> Fact {
        let token = Token { shard: ShardId(1), term: Term(term), index: LogIndex(index) };
        Fact::AcceptedAsync { place: place(1), token, bytes, held_micros: 0 }
    }

    #[test]
    fn losing_a_suffix_is_good() {
        let facts = [
            accepted(2, 2, 10),
            accepted(2, 3, 10),
            accepted(2, 4, 10),
            applied(1, 2, 2, vec![]),
            applied(1, 3, 3, vec![]),
            applied(1, 4, 3, vec![]),
            accepted(3, 5, 10),
            applied(1, 5, 3, vec![]),
        ];
        assert_eq!(verdict(&facts), Ok(()));
    }

    #[test]
    fn losing_what_is_not_a_suffix_is_bad() {
        let facts = [accepted(2, 2, 10), accepted(2, 3, 10), applied(1, 2, 3, vec![]), applied(1, 3, 2, vec![])];
        assert!(verdict(&facts).is_err());
    }

    #[test]
    fn more_than_the_bound_is_bad() {
        // 100 of one event each, a millisecond apart, is all that 100 ms allow.
        let commands: Vec<_> = (0..=101).map(|i| accepted(2, 2 + i, 1)).collect();
        assert_eq!(verdict(&commands[..101]), Ok(()));
        assert!(verdict(&commands).unwrap_err().what.contains("101000 us"));
        assert!(verdict(&[accepted(2, 2, BOUNDS.undecided_bytes_max), accepted(2, 3, 1)]).is_err());
        let mut property = AsyncSuffix::new(Bounds { undecided_commands_max: 7, ..BOUNDS });
        let many: Vec<_> = (0..9).map(|_| accepted(2, 2, 1)).collect();
        assert_eq!(judge(&many, |at, fact| property.check(at, fact)).unwrap_err().at.event, 8);
    }
}
