//! The same state at a mark (ours): what leaves a node as a checkpoint is held by a majority of its shard, and a replica throws
//! its state away only if a majority without it holds another one at the same index.
//!
//! That replicas which nothing made to differ hold the same at the same index is judged where digests are told.

use std::collections::{BTreeMap, BTreeSet};

use kv_core::types::{Digest, LogIndex, NodeId, ShardId};

use super::{Fact, Violation, view::Place};
use crate::history::Moment;

/// Who was seen to hold which digest at an index.
#[derive(Debug, Default)]
pub struct SameStateAtMark {
    held: BTreeMap<(ShardId, LogIndex), BTreeMap<Digest, BTreeSet<NodeId>>>,
    /// What a node was last seen to hold there. It may have held another state before: the right one, whose files then rotted.
    last: BTreeMap<(ShardId, LogIndex, NodeId), Digest>,
}

impl SameStateAtMark {
    /// Judges a fact.
    ///
    /// # Errors
    /// If a checkpoint leaves its node unconfirmed, or a state is thrown away without a majority against it.
    pub fn check(&mut self, at: Moment, fact: &Fact) -> Result<(), Violation> {
        let violation = |what| Err(Violation { property: "the same state at a mark", what, at });
        match fact {
            Fact::Checkpointed { place, index, digest } => {
                let held = self.held.entry((place.shard, *index)).or_default();
                held.entry(*digest).or_default().insert(place.node);
                self.last.insert((place.shard, *index, place.node), *digest);
                Ok(())
            }
            Fact::Offered { place, index, digest, voters } => {
                let count = self.holders(*place, *index).get(digest).map_or(0, BTreeSet::len);
                if count > voters / 2 {
                    return Ok(());
                }
                violation(format!("{place} offers its checkpoint at {index}, which {count} of {voters} voters hold"))
            }
            Fact::Discarded { place, index, voters } => {
                let holders = self.holders(*place, *index);
                let own = self.last.get(&(place.shard, *index, place.node));
                let others = holders.iter().filter(|(digest, _)| Some(*digest) != own);
                let without_it = others.map(|(_, nodes)| nodes.iter().filter(|node| **node != place.node).count());
                let most = without_it.max().unwrap_or(0);
                if most > voters / 2 {
                    return Ok(());
                }
                violation(format!(
                    "{place} throws its state away at {index}, where at most {most} of {voters} voters hold another one"
                ))
            }
            _ => Ok(()),
        }
    }

    fn holders(&self, place: Place, index: LogIndex) -> BTreeMap<Digest, BTreeSet<NodeId>> {
        self.held.get(&(place.shard, index)).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{judge, place};
    use super::*;

    fn verdict(facts: &[Fact]) -> Result<(), Violation> {
        let mut property = SameStateAtMark::default();
        judge(facts, |at, fact| property.check(at, fact))
    }

    fn held(node: u64, digest: u128) -> Fact {
        Fact::Checkpointed { place: place(node), index: LogIndex(7), digest: Digest(digest) }
    }

    fn offered(node: u64, digest: u128) -> Fact {
        Fact::Offered { place: place(node), index: LogIndex(7), digest: Digest(digest), voters: 3 }
    }

    fn discarded(node: u64) -> Fact {
        Fact::Discarded { place: place(node), index: LogIndex(7), voters: 3 }
    }

    #[test]
    fn what_a_majority_holds_may_be_offered_and_what_it_contradicts_thrown_away() {
        verdict(&[held(1, 5), held(2, 5), offered(2, 5), held(3, 6), discarded(3)]).unwrap();
    }

    #[test]
    fn one_holder_alone_may_not_offer() {
        verdict(&[held(1, 5), held(2, 6), offered(1, 5)]).unwrap_err();
    }

    #[test]
    fn who_once_held_what_the_majority_holds_may_hold_another_state_now() {
        verdict(&[held(1, 5), held(2, 5), held(3, 5), held(3, 6), discarded(3)]).unwrap();
        verdict(&[held(1, 5), held(3, 5), held(3, 6), discarded(3)]).unwrap_err();
    }

    #[test]
    fn one_voice_is_no_reason_to_throw_a_state_away() {
        verdict(&[held(1, 5), held(2, 6), discarded(2)]).unwrap_err();
        verdict(&[held(1, 5), held(2, 5), held(3, 5), discarded(2)]).unwrap_err();
    }
}
