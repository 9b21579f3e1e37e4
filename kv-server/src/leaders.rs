//! Who leads which shard, as far as this node knows: whom a single call is handed on to without asking the core first.
//!
//! Of a shard with a replica here the replica tells, when it changes: a leader that is no longer heard is no longer known, so
//! that no call waits for one that is gone. Of any other shard the last answer tells. It is a guess either way, and costs a refusal
//! if it is wrong. At most one entry for a shard.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use kv_core::types::{NodeId, ShardId};

/// The leaders that are known, this node left out.
#[derive(Debug, Default)]
pub(crate) struct Leaders {
    known: Mutex<BTreeMap<ShardId, NodeId>>,
}

impl Leaders {
    /// This node leads the shard, or knows this one as its leader, or none.
    pub(crate) fn told(&self, shard: ShardId, leads_here: bool, leader: Option<NodeId>) {
        let mut known = self.lock();
        match leader.filter(|_| !leads_here) {
            Some(leader) => known.insert(shard, leader),
            None => known.remove(&shard),
        };
    }

    /// A node was asked for a shard that has no replica here, and answered as its leader or did not.
    pub(crate) fn asked(&self, shard: ShardId, node: NodeId, answered: bool) {
        let mut known = self.lock();
        if answered {
            known.insert(shard, node);
        } else if known.get(&shard) == Some(&node) {
            known.remove(&shard);
        }
    }

    /// Who leads the shard elsewhere.
    pub(crate) fn of(&self, shard: ShardId) -> Option<NodeId> {
        self.lock().get(&shard).copied()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ShardId, NodeId>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: ShardId = ShardId(3);

    #[test]
    fn a_leader_is_known_until_its_replica_hears_it_no_more() {
        let leaders = Leaders::default();
        leaders.told(SHARD, false, Some(NodeId(2)));
        assert_eq!(leaders.of(SHARD), Some(NodeId(2)));
        leaders.told(SHARD, false, None);
        assert_eq!(leaders.of(SHARD), None);
        leaders.told(SHARD, false, Some(NodeId(3)));
        leaders.told(SHARD, true, Some(NodeId(1)));
        assert_eq!(leaders.of(SHARD), None, "this node asks itself first in any case");
    }

    #[test]
    fn only_the_one_that_failed_is_forgotten() {
        let leaders = Leaders::default();
        leaders.asked(SHARD, NodeId(2), true);
        leaders.asked(SHARD, NodeId(3), false);
        assert_eq!(leaders.of(SHARD), Some(NodeId(2)));
        leaders.asked(SHARD, NodeId(2), false);
        assert_eq!(leaders.of(SHARD), None);
    }
}
