//! Nodes that stay away in the quiet phase: without power, or cut off from everybody, until all that is owed to clients was
//! served without them. Then they come back, and have to catch up.
//!
//! Who may stay away is the atlas's to say: every shard keeps a majority of whole replicas among the others.
//!
//! *Never produced*: nodes that are away before their cluster is founded, which needs them all.

use super::world::World;

impl World {
    /// Chooses the nodes that stay away, as the quiet phase begins.
    pub(super) fn send_away(&mut self) {
        if self.plan.operated.away == 0 || !self.all_are_founded() {
            return;
        }
        let mut rng = self.plan.stream("away");
        let mut nodes: Vec<usize> = (0..self.machines.len()).collect();
        rng.shuffle(&mut nodes);
        for node in nodes {
            let here = &self.machines[node];
            let is_fit = here.refused.is_none() && !self.injector.may_be_damaged(node);
            if (self.away.len() as u64) < self.plan.operated.away && is_fit && self.injector.atlas.admits_log(node) {
                self.away.insert(node);
                self.counts.away += 1;
                self.trace.mark(self.now, Some(node), || "stays away".to_owned());
            }
        }
        for node in self.away.clone() {
            if self.plan.operated.away_cut_off {
                self.each_link_of(node, |world, from, to| world.network.cut(from, to));
            } else {
                self.stop(node, true, "crashed, and stays away");
                // Whatever start was ahead of it is none any more.
                self.machines[node].start += 1;
            }
        }
    }

    /// Whether a node stays away.
    pub(super) fn is_away(&self, node: usize) -> bool {
        self.away.contains(&node)
    }

    /// All nodes come back.
    pub(super) fn bring_back(&mut self) {
        for node in std::mem::take(&mut self.away) {
            self.trace.mark(self.now, Some(node), || "comes back".to_owned());
            if self.plan.operated.away_cut_off {
                self.each_link_of(node, |world, from, to| world.network.mend(from, to));
            }
            if !self.machines[node].runs() && self.machines[node].refused.is_none() {
                self.schedule_start(node, 0);
            }
        }
    }

    fn each_link_of(&mut self, node: usize, mut change: impl FnMut(&mut Self, usize, usize)) {
        let ends = self.machines.len() + self.clients.len();
        for other in (0..ends).filter(|other| *other != node) {
            change(self, node, other);
            change(self, other, node);
        }
    }
}
