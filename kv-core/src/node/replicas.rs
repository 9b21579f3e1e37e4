//! The replicas of a node, those at rest with their pulses beside each other in memory.
//!
//! Whoever means to change a replica gets it awake. What is only looked at may owe ticks, which nothing that is looked at shows.

use std::collections::BTreeMap;

use crate::{
    replica::{Replica, pulse::Pulse},
    types::ShardId,
};

/// All of them, ascending by shard; none comes or goes while the node lives.
pub(super) struct Replicas {
    shards: Vec<ShardId>,
    /// Of those at rest.
    pulses: Vec<Option<Pulse>>,
    replicas: Vec<Replica>,
}

/// A replica, and its pulse if it rests.
pub(super) struct Slot<'a> {
    pub(super) shard: ShardId,
    pub(super) pulse: &'a mut Option<Pulse>,
    pub(super) replica: &'a mut Replica,
}

impl Replicas {
    pub(super) fn new(all: BTreeMap<ShardId, Replica>) -> Self {
        let (shards, replicas): (Vec<_>, Vec<_>) = all.into_iter().unzip();
        Self { pulses: vec![None; shards.len()], shards, replicas }
    }

    fn place(&self, shard: ShardId) -> Option<usize> {
        // Where nodes hold all shards, the number is the place.
        let likely = usize::try_from(shard.0).ok().filter(|place| self.shards.get(*place) == Some(&shard));
        likely.or_else(|| self.shards.binary_search(&shard).ok())
    }

    pub(super) fn get(&self, shard: ShardId) -> Option<&Replica> {
        self.replicas.get(self.place(shard)?)
    }

    pub(super) fn get_mut(&mut self, shard: ShardId) -> Option<&mut Replica> {
        self.slot(shard).map(Slot::awake)
    }

    /// The shards, ascending.
    pub(super) fn shards(&self) -> &[ShardId] {
        &self.shards
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Replica> + Clone {
        self.replicas.iter()
    }

    pub(super) fn slot(&mut self, shard: ShardId) -> Option<Slot<'_>> {
        let place = self.place(shard)?;
        Some(Slot { shard, pulse: &mut self.pulses[place], replica: &mut self.replicas[place] })
    }

    /// The pulse of a replica at rest.
    pub(super) fn pulse(&mut self, shard: ShardId) -> Option<&mut Pulse> {
        let place = self.place(shard)?;
        self.pulses[place].as_mut()
    }

    pub(super) fn slots(&mut self) -> impl Iterator<Item = Slot<'_>> {
        let each = self.shards.iter().zip(&mut self.pulses).zip(&mut self.replicas);
        each.map(|((shard, pulse), replica)| Slot { shard: *shard, pulse, replica })
    }

    /// How many rest.
    #[cfg(test)]
    pub(super) fn at_rest(&self) -> usize {
        self.pulses.iter().flatten().count()
    }
}

impl<'a> Slot<'a> {
    /// The replica, awake.
    pub(super) fn awake(self) -> &'a mut Replica {
        if let Some(pulse) = self.pulse.take() {
            self.replica.wake(&pulse);
        }
        self.replica
    }
}
