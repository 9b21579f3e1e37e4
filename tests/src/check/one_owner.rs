//! One owner (ours): replicas of a shard agree on its arc at each epoch, and no two shards hold a position at the same epoch.

use std::collections::BTreeMap;

use kv_core::{
    shard_map::Arc,
    types::{Epoch, ShardId},
};

use super::{Fact, Violation};
use crate::history::Moment;

/// Which shard held which arc at which epoch.
#[derive(Debug, Default)]
pub struct OneOwner {
    arcs: BTreeMap<(ShardId, Epoch), Arc>,
}

impl OneOwner {
    /// Judges a fact.
    ///
    /// # Errors
    /// If a position has two owners, or a shard two arcs at an epoch.
    pub fn check(&mut self, at: Moment, fact: &Fact) -> Result<(), Violation> {
        let Fact::View(view) = fact else { return Ok(()) };
        let (Some(arc), shard, epoch) = (view.arc, view.place.shard, view.epoch) else { return Ok(()) };
        let violation = |what| Err(Violation { property: "one owner", what, at });
        if let Some(known) = self.arcs.get(&(shard, epoch)) {
            if *known == arc {
                return Ok(());
            }
            return violation(format!("{} holds {arc:?} at epoch {epoch}, another replica {known:?}", view.place));
        }
        // A new arc is seen as often as the ring is cut, which is seldom.
        for ((other, _), held) in self.arcs.iter().filter(|((other, at), _)| *other != shard && *at == epoch) {
            if arc.first <= held.last && held.first <= arc.last {
                return violation(format!(
                    "shard {shard} holds {arc:?} at epoch {epoch}, of which shard {other} holds {held:?}"
                ));
            }
        }
        self.arcs.insert((shard, epoch), arc);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use kv_core::types::{Position, ReplicaId};

    use super::super::{
        testing::{judge, place},
        view::{Place, ReplicaView},
    };
    use super::*;

    fn verdict(facts: &[Fact]) -> Result<(), Violation> {
        let mut property = OneOwner::default();
        judge(facts, |at, fact| property.check(at, fact))
    }

    fn holds(shard: u64, epoch: u64, first: u64, last: u64) -> Fact {
        let place = Place { shard: ShardId(shard), replica: ReplicaId(shard), ..place(1) };
        let arc = Some(Arc { first: Position(first), last: Position(last) });
        Fact::View(ReplicaView { place, arc, epoch: Epoch(epoch), ..Default::default() })
    }

    #[test]
    fn a_ring_that_is_cut_once_is_good() {
        let facts = [holds(1, 1, 0, 9), holds(2, 1, 10, 19), holds(1, 2, 0, 4), holds(3, 2, 5, 9), holds(1, 1, 0, 9)];
        assert_eq!(verdict(&facts), Ok(()));
    }

    #[test]
    fn two_owners_or_two_arcs_are_bad() {
        assert!(verdict(&[holds(1, 1, 0, 9), holds(2, 1, 9, 19)]).is_err());
        assert!(verdict(&[holds(1, 1, 0, 9), holds(1, 1, 0, 8)]).is_err());
    }
}
