//! The fault atlas: what may be damaged on which node, so that every shard keeps a majority of whole replicas, and nothing else
//! is held back.
//!
//! A replica is whole if its node's log is, and its own files are. A node's log counts as damaged for good from its first
//! damage on; it may then be damaged again and again. A replica's files count as damaged until a start after the damage has
//! proven its state, from other files or from a peer. What is damaged may turn out harmless; it counts all the same.

use std::collections::{BTreeMap, BTreeSet};

use kv_core::types::{ReplicaId, ShardId};

use super::{machine::founding_record, plan::Plan};

/// Which disks may be damaged where.
#[derive(Clone, Debug)]
pub struct Atlas {
    /// For each shard its replicas, with the nodes that they are on.
    shards: BTreeMap<ShardId, BTreeMap<ReplicaId, usize>>,
    /// Nodes whose logs were damaged.
    logs: BTreeSet<usize>,
    /// Replicas whose files were damaged, with the start of their node that was under way or ahead then.
    files: BTreeMap<(usize, ShardId), u64>,
}

impl Atlas {
    /// All disks of a plan's cluster, whole.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let layout = founding_record(plan).layout();
        let places = |row: &kv_core::shard_map::ShardRow| {
            row.replicas.iter().map(|place| (place.replica, place.node.0 as usize - 1)).collect()
        };
        let shards = layout.shards.iter().map(|row| (row.shard, places(row))).collect();
        Self { shards, logs: BTreeSet::new(), files: BTreeMap::new() }
    }

    /// Whether this node's log may be damaged; if so it counts as damaged from now on.
    pub fn admits_log(&mut self, node: usize) -> bool {
        let added = self.logs.insert(node);
        let admitted = !added || self.every_shard_has_a_majority();
        if !admitted {
            self.logs.remove(&node);
        }
        admitted
    }

    /// Whether the files of a replica may be damaged; if so they count as damaged until a later start than this one of its
    /// node has proven its state.
    pub fn admits_files(&mut self, node: usize, shard: ShardId, start: u64) -> bool {
        let before = self.files.get(&(node, shard)).copied();
        self.files.insert((node, shard), before.map_or(start, |before| before.max(start)));
        let admitted = before.is_some() || self.every_shard_has_a_majority();
        if !admitted {
            self.files.remove(&(node, shard));
        }
        admitted
    }

    /// Whether the state of a replica may be made wrong, so that no start by itself can tell; if so it counts as damaged until
    /// it is known to be right again, and a start after that has proven it.
    pub fn admits_wrong_state(&mut self, node: usize, shard: ShardId) -> bool {
        self.admits_files(node, shard, u64::MAX)
    }

    /// A state that was made wrong is right again, in this start of its node.
    pub fn is_right_again(&mut self, node: usize, shard: ShardId, start: u64) {
        if let Some(damaged) = self.files.get_mut(&(node, shard)) {
            *damaged = start;
        }
    }

    /// A start has loaded a state that was made wrong before.
    pub fn is_wrong_again(&mut self, node: usize, shard: ShardId) {
        self.files.insert((node, shard), u64::MAX);
    }

    /// Whether the files of all replicas of a node may be damaged.
    pub fn admits_all_files(&mut self, node: usize, start: u64) -> bool {
        let here = |replicas: &BTreeMap<ReplicaId, usize>| replicas.values().any(|other| *other == node);
        let shards: Vec<ShardId> =
            self.shards.iter().filter(|(_, replicas)| here(replicas)).map(|(shard, _)| *shard).collect();
        let before = self.files.clone();
        let admitted = shards.into_iter().all(|shard| self.admits_files(node, shard, start));
        if !admitted {
            self.files = before;
        }
        admitted
    }

    /// A start of the node has proven the replica's state.
    pub fn proven(&mut self, node: usize, shard: ShardId, start: u64) {
        if self.files.get(&(node, shard)).is_some_and(|damaged| *damaged < start) {
            self.files.remove(&(node, shard));
        }
    }

    /// Whether the node's log was ever damaged: it may then refuse to start.
    #[must_use]
    pub fn has_damaged_log(&self, node: usize) -> bool {
        self.logs.contains(&node)
    }

    /// Whether files of the replica may be damaged: it may then find no checkpoint of use.
    #[must_use]
    pub fn has_damaged_files(&self, node: usize, shard: ShardId) -> bool {
        self.files.contains_key(&(node, shard))
    }

    /// The shard of a replica.
    #[must_use]
    pub fn shard_of(&self, replica: ReplicaId) -> Option<ShardId> {
        self.shards.iter().find(|(_, replicas)| replicas.contains_key(&replica)).map(|(shard, _)| *shard)
    }

    fn every_shard_has_a_majority(&self) -> bool {
        self.shards.iter().all(|(shard, replicas)| {
            let is_whole = |node: &&usize| !self.logs.contains(*node) && !self.files.contains_key(&(**node, *shard));
            2 * replicas.values().filter(is_whole).count() > replicas.len()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::plan::Options;

    fn atlas(nodes: u64, replication: u64) -> Atlas {
        let plan = Plan::draw(1, Options { light: true, ..Options::default() });
        Atlas::new(&Plan { nodes, shards: 8, replication, ..plan })
    }

    #[test]
    fn a_minority_of_logs_may_be_damaged_and_again() {
        let mut atlas = atlas(3, 3);
        assert!(atlas.admits_log(1) && atlas.admits_log(1) && !atlas.admits_log(2));
        assert!(atlas.has_damaged_log(1) && !atlas.has_damaged_log(2));
        assert!(!atlas.admits_files(0, ShardId(1), 1) && atlas.admits_files(1, ShardId(1), 1));
    }

    #[test]
    fn a_wrong_state_is_proven_by_no_start_before_it_is_right_again() {
        let mut atlas = atlas(3, 3);
        assert!(atlas.admits_wrong_state(0, ShardId(1)) && atlas.admits_files(0, ShardId(1), 3));
        atlas.proven(0, ShardId(1), 9);
        assert!(!atlas.admits_files(1, ShardId(1), 9));
        atlas.is_right_again(0, ShardId(1), 9);
        atlas.proven(0, ShardId(1), 10);
        assert!(atlas.admits_files(1, ShardId(1), 9));
    }

    #[test]
    fn each_shard_is_counted_by_itself() {
        let mut atlas = atlas(3, 3);
        assert!(atlas.admits_files(0, ShardId(1), 1) && atlas.admits_files(1, ShardId(2), 1));
        assert!(!atlas.admits_files(1, ShardId(1), 1) && !atlas.admits_log(2));
        assert!(!atlas.admits_all_files(2, 1) && atlas.admits_files(2, ShardId(3), 1));
    }

    #[test]
    fn what_a_later_start_has_proven_is_whole_again() {
        let mut atlas = atlas(3, 3);
        assert!(atlas.admits_files(0, ShardId(1), 4));
        atlas.proven(0, ShardId(1), 4);
        assert!(atlas.has_damaged_files(0, ShardId(1)) && !atlas.has_damaged_files(0, ShardId(2)));
        assert!(!atlas.admits_files(1, ShardId(1), 9) && !atlas.has_damaged_files(1, ShardId(1)));
        atlas.proven(0, ShardId(1), 5);
        assert!(!atlas.has_damaged_files(0, ShardId(1)));
        assert!(atlas.admits_files(1, ShardId(1), 9));
    }

    #[test]
    fn two_of_five_logs_may_be_damaged_where_no_shard_has_both() {
        let mut found = false;
        for other in 1..5 {
            let mut atlas = atlas(5, 3);
            assert!(atlas.admits_log(0));
            let shares = atlas.shards.values().filter(|replicas| replicas.len() == 3).any(|replicas| {
                replicas.values().any(|node| *node == 0) && replicas.values().any(|node| *node == other)
            });
            assert_eq!(atlas.admits_log(other), !shares);
            found |= shares;
        }
        assert!(found);
    }
}
