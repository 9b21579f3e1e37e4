//! Replicas whose state is made to differ from their group's while their process runs: a record changes in memory behind the
//! log's back, as a flipped bit or a bug of ours would have it, or in the read index, as a disk that rots would.
//!
//! Drawn from a stream of its own, and bounded by the atlas: a majority of each shard stays right. Until the replica is right
//! again, what it says to clients is lost on the way, and no checker hears what it applied (then they hear it, see
//! `aftermath.rs`): that a wrong state answers wrongly before anybody can know is no news. What is judged is that it does not
//! last (in quiet, every state that was made to differ is found and replaced), that it does not spread (a replica that nothing
//! was done to is compared as ever), and that nobody who was right is thrown away.
//!
//! *Never produced*: a checkpoint's file that rots under a running replica (the fault `rot-running` does that, and that the
//! scrub finds it is judged nowhere but in the scrub's own tests); shards that nobody writes to, since without writes there is
//! no mark; a majority that is wrong, which nobody can notice; what a wrong replica tells clients before it is found.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use kv_core::{
    io::Operation,
    node::{Role, ShardStatus},
    types::{Digest, LogIndex, ShardId},
};

use super::{
    aftermath::Aftermath,
    plan::Plan,
    world::{Event, World},
};
use crate::check::view::Fact;

/// What was made to differ, and how often that happens.
#[derive(Debug)]
pub(super) struct Divergence {
    rng: Rng,
    /// Draws those of the read index, if there are any.
    trees: Option<Rng>,
    /// Times a simulated minute; 0 for never.
    often: f64,
    /// How many were drawn so far.
    drawn: u64,
    /// The replicas whose state may be wrong, by node and shard, with their applied index when it was made so.
    altered: BTreeMap<(usize, ShardId), LogIndex>,
    /// Those whose state as a whole turned out right, but of which a checkpoint that is still being written may be wrong, or
    /// carry the digest on from a record that was wrong when it was overwritten.
    doubtful: BTreeSet<(usize, ShardId)>,
    /// What is left of wrong states once they are right again.
    pub(super) aftermath: Aftermath,
}

impl Divergence {
    pub(super) fn new(plan: &Plan) -> Self {
        let trees = plan.divergences.trees.then(|| plan.stream("divergences of trees"));
        Self {
            rng: plan.stream("divergences"),
            trees,
            often: plan.divergences.often,
            drawn: 0,
            altered: BTreeMap::new(),
            doubtful: BTreeSet::new(),
            aftermath: Aftermath::default(),
        }
    }

    /// Whether a replica's state may be wrong.
    pub(super) fn is_altered(&self, node: usize, shard: ShardId) -> bool {
        self.altered.contains_key(&(node, shard))
    }

    /// A replica's state is wrong from this index on.
    pub(super) fn is_wrong_from(&mut self, node: usize, shard: ShardId, index: LogIndex) {
        self.altered.insert((node, shard), index);
    }

    /// Whether a checkpoint of a replica may be wrong.
    pub(super) fn is_doubtful(&self, node: usize, shard: ShardId) -> bool {
        self.doubtful.contains(&(node, shard))
    }
}

impl World {
    /// Schedules the next change, if the plan has any.
    pub(super) fn schedule_divergence(&mut self) {
        let divergence = &mut self.divergence;
        self.queue.push_by_chance(self.now, &mut divergence.rng, divergence.often, Event::Diverge);
    }

    /// Draws a replica and makes its state differ.
    pub(super) fn diverge(&mut self) {
        if self.quiet {
            return;
        }
        let node = self.divergence.rng.usize(..self.machines.len());
        let shards: BTreeSet<ShardId> = self.keys.shards().into_values().collect();
        let shards = Vec::from_iter(shards);
        let (pick, random) = (self.divergence.rng.usize(..), self.divergence.rng.u64(..));
        let shard = shards.get(pick % shards.len().max(1)).copied().filter(|_| self.machines[node].process.is_some());
        self.divergence.drawn += 1;
        self.counts.divergences_drawn = self.divergence.drawn;
        let shard = shard.filter(|_| self.plan.divergences.kept.keeps(self.divergence.drawn));
        if let Some(shard) = shard
            && self.injector.atlas.admits_wrong_state(node, shard)
        {
            match self.divergence.trees.as_mut().map(Rng::bool) {
                Some(true) => self.alter_tree(node, shard),
                _ => self.alter(node, shard, random),
            };
        }
        self.schedule_divergence();
    }

    /// Makes a replica's state differ; false if it has none.
    pub(super) fn alter(&mut self, node: usize, shard: ShardId, random: u64) -> bool {
        let Some(process) = &mut self.machines[node].process else { return false };
        let Some(status) = process.node.shard_status(shard) else { return false };
        if !process.node.damage_state(shard, random) {
            return false;
        }
        self.counts.diverged += 1;
        self.divergence.altered.insert((node, shard), status.applied);
        self.trace
            .tell(self.now, || format!("ALTERED the state of shard {shard} on n{} at {}", node + 1, status.applied));
        true
    }

    /// Makes a record of a replica's read index another; false if it has none.
    pub(super) fn alter_tree(&mut self, node: usize, shard: ShardId) -> bool {
        let machine = &mut self.machines[node];
        let Some(status) = machine.shard_status(shard).filter(|status| status.live) else { return false };
        let mut rng = self.divergence.trees.as_mut().map_or_else(|| Rng::with_seed(7), Rng::fork);
        let Some(key) = machine.store.flip_in(status.replica, &mut rng) else { return false };
        self.counts.diverged += 1;
        // Digests go on from what they were: only who reads all of it knows.
        self.divergence.altered.insert((node, shard), LogIndex(u64::MAX));
        self.trace.tell(self.now, || format!("ALTERED {key:?} of the tree of shard {shard} on n{}", node + 1));
        true
    }

    /// A state of which a digest is known: if it is what all others hold there, the replica is right again. `loaded` is
    /// whether the state is read back as a whole, so that nothing of the one before is left.
    pub(super) fn is_right_again(
        &mut self,
        node: usize,
        shard: ShardId,
        index: LogIndex,
        digest: Digest,
        loaded: bool,
    ) {
        if loaded && self.judge.digest_at(shard, index) == Some(digest) {
            self.divergence.doubtful.remove(&(node, shard));
        }
        let Some(since) = self.divergence.altered.get(&(node, shard)).copied() else { return };
        // A checkpoint that was frozen before the change says nothing.
        if self.judge.digest_at(shard, index) != Some(digest) || (!loaded && index <= since) {
            return;
        }
        self.divergence.altered.remove(&(node, shard));
        self.injector.atlas.is_right_again(node, shard, self.machines[node].start);
        self.trace.tell(self.now, || format!("n{} is right again about shard {shard}", node + 1));
        self.tell_unheard(node, shard, index, loaded);
        if !loaded && let Some(status) = self.machines[node].shard_status(shard) {
            self.state_begins(node, shard, status.applied);
        }
    }

    /// The state of a replica begins anew at an index: what it applies next comes after that.
    pub(super) fn state_begins(&mut self, node: usize, shard: ShardId, index: LogIndex) {
        let place = self.judge.state_begins(node, shard, index);
        self.tell_one(&Fact::StateBegins { place, index });
    }

    /// Changes something in each shard that has a replica which may be wrong.
    pub(super) fn change_where_somebody_differs(&mut self) {
        let shards: BTreeSet<ShardId> = self.divergence.altered.keys().map(|(_, shard)| *shard).collect();
        for shard in shards {
            let leads = |status: ShardStatus| status.role == Role::Leader;
            let mut nodes = 0..self.machines.len();
            if let Some(leader) = nodes.find(|node| self.machines[*node].shard_status(shard).is_some_and(leads)) {
                self.ask_for(leader, shard, Operation::OpenSession);
            }
        }
    }

    /// A replica that was made to differ and is not known to be right again.
    pub(super) fn still_diverged(&mut self) -> Option<String> {
        let altered: Vec<_> = self.divergence.altered.keys().copied().collect();
        for (node, shard) in altered {
            if self.is_away(node) {
                continue;
            }
            if self.machines[node].process.is_none() {
                if self.machines[node].refused.is_some() {
                    self.divergence.altered.remove(&(node, shard));
                }
                continue;
            }
            let Some((index, digest)) = self.machines[node].state_digest(shard) else {
                return Some(format!("node {} has no state of shard {shard}", node + 1));
            };
            let mut others = (0..self.machines.len()).filter(|other| !self.divergence.is_altered(*other, shard));
            let right =
                others.find_map(|other| self.machines[other].state_digest(shard).filter(|(at, _)| *at == index));
            if right.is_none_or(|(_, right)| right != digest) {
                return Some(format!("node {} holds a wrong state of shard {shard} at {index}", node + 1));
            }
            self.divergence.altered.remove(&(node, shard));
            self.divergence.doubtful.insert((node, shard));
            self.tell_unheard(node, shard, index, false);
            self.state_begins(node, shard, index);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{plan::Options, trace::Trace};

    const SHARD: ShardId = ShardId(1);

    /// Three nodes on which nothing goes wrong by itself, with a mark every two seconds and little log kept.
    fn calm() -> World {
        let mut plan = Plan::draw(1, Options { light: true, ..Options::default() });
        plan.settings.checkpoint_ticks = 40;
        plan.settings.kept_bytes_max = 2 * 1024;
        plan.workload.operations_per_second = 40;
        // What is made to differ is not written anew before a mark.
        plan.workload.keys = 2_000;
        let mut world = World::new(plan, Trace::new(None));
        go_on(&mut world, 8);
        world
    }

    fn go_on(world: &mut World, seconds: u64) {
        world.run_until(world.now + seconds * 1_000_000);
        assert_eq!(world.failure, None);
    }

    fn leader(world: &World) -> usize {
        let leads =
            |node: &usize| world.machines[*node].shard_status(SHARD).is_some_and(|status| status.role == Role::Leader);
        (0..3).find(leads).expect("somebody leads")
    }

    fn disputed(world: &World, node: usize) -> bool {
        world.machines[node].shard_status(SHARD).is_some_and(|status| status.disputed)
    }

    #[test]
    fn a_state_that_differs_is_found_at_the_next_mark_and_replaced_by_the_majoritys() {
        for follower in [false, true] {
            let mut world = calm();
            let node = (leader(&world) + usize::from(follower)) % 3;
            assert!(world.alter(node, SHARD, 7));
            assert!(world.still_diverged().is_some());
            go_on(&mut world, 12);
            assert_eq!((world.counts.discarded, world.still_diverged(), follower), (1, None, follower));
        }
    }

    #[test]
    fn a_record_of_the_read_index_that_rots_unread_is_found_by_the_scrub() {
        let mut world = calm();
        let node = (leader(&world) + 1) % 3;
        assert!(world.alter_tree(node, SHARD));
        assert!(world.still_diverged().is_some());
        go_on(&mut world, 60);
        assert_eq!((world.counts.discarded, world.still_diverged()), (0, None), "it is made anew from the files here");
    }

    #[test]
    fn without_a_majority_the_shard_stops_and_says_so_until_there_is_one() {
        let mut world = calm();
        let wrong = leader(&world);
        let (right, away) = ((wrong + 1) % 3, (wrong + 2) % 3);
        world.stop(away, true, "is taken away");
        assert!(world.alter(wrong, SHARD, 7));
        go_on(&mut world, 12);
        assert!(disputed(&world, wrong) && disputed(&world, right), "one voice against one");
        assert_eq!(world.counts.discarded, 0);
        world.schedule_start(away, 0);
        go_on(&mut world, 30);
        assert_eq!(world.counts.discarded, 1);
        assert_eq!(world.still_diverged(), None);
        assert!((0..3).all(|node| !disputed(&world, node)));
    }

    #[test]
    fn a_wrong_leader_with_a_lagging_follower_never_spreads_its_state() {
        let mut world = calm();
        let wrong = leader(&world);
        let away = (wrong + 1) % 3;
        world.stop(away, true, "is taken away");
        go_on(&mut world, 20);
        let installs = world.counts.installs;
        assert!(world.alter(wrong, SHARD, 7));
        go_on(&mut world, 6);
        world.schedule_start(away, 0);
        go_on(&mut world, 40);
        assert!(world.counts.installs > installs, "the log had gone on without it");
        assert_eq!(world.counts.discarded, 1);
        assert_eq!(world.still_diverged(), None);
    }
}
