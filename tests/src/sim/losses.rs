//! Leaders that are lost with what they have just acknowledged: cut off from the other nodes for a moment while clients still
//! reach them, then without power, killed, or deposed.
//!
//! An asynchronous write is at risk only between its answer and its commit, a few milliseconds, in which a fault that is drawn
//! at random seldom falls. Here it always does. Requests that clients sent before are under way meanwhile, and come to the next
//! leader.
//!
//! *Never produced*: the loss of several leaders at the same moment (other faults do that), and a cut that ends before the
//! leader is lost.

use fastrand::Rng;
use kv_core::{node::Role, types::ShardId};

use super::{
    faults::Mend,
    plan::Plan,
    world::{Event, World},
};

/// A part of such a loss.
#[derive(Debug)]
pub(super) enum Loss {
    /// The leader of some shard is cut off.
    Begins,
    /// It is lost.
    Strikes {
        /// Which node it is.
        node: usize,
    },
}

/// Draws them.
#[derive(Debug)]
pub(super) struct LossMaker {
    rng: Rng,
    /// Times a simulated minute; 0 for never.
    often: f64,
    cut_micros_max: u64,
    /// How many were drawn so far.
    drawn: u64,
}

impl LossMaker {
    pub(super) fn new(plan: &Plan) -> Self {
        let losses = &plan.losses;
        Self { rng: plan.stream("losses"), often: losses.often, cut_micros_max: losses.cut_micros_max, drawn: 0 }
    }
}

impl World {
    /// Schedules the next loss, if the plan has any.
    pub(super) fn schedule_loss(&mut self) {
        let LossMaker { rng, often, .. } = &mut self.losses;
        self.queue.push_by_chance(self.now, rng, *often, Event::Loss(Loss::Begins));
    }

    pub(super) fn loss_event(&mut self, loss: &Loss) {
        if self.quiet {
            return;
        }
        match loss {
            Loss::Begins => {
                self.losses.drawn += 1;
                self.counts.losses_drawn = self.losses.drawn;
                let shard = ShardId(self.losses.rng.u64(1..=self.plan.shards));
                let cut_micros = self.losses.rng.u64(..=self.losses.cut_micros_max);
                if self.plan.losses.kept.keeps(self.losses.drawn) {
                    self.cut_a_leader_off(shard, cut_micros);
                }
                self.schedule_loss();
            }
            Loss::Strikes { node } => self.lose(*node),
        }
    }

    fn cut_a_leader_off(&mut self, shard: ShardId, cut_micros: u64) {
        let leads =
            |node: &usize| self.machines[*node].shard_status(shard).is_some_and(|status| status.role == Role::Leader);
        let Some(node) = (0..self.machines.len()).find(leads) else { return };
        self.counts.losses += 1;
        let hears = self.losses.rng.bool();
        let others = (0..self.machines.len()).filter(|other| *other != node);
        let links: Vec<_> = others.flat_map(|other| [(node, other), (other, node)]).collect();
        let links: Vec<_> = links.into_iter().filter(|(from, _)| *from == node || !hears).collect();
        links.iter().for_each(|(from, to)| self.network.cut(*from, *to));
        self.trace.tell(self.now, || format!("LOSS of node {}, the leader of shard {shard}", node + 1));
        let number = self.losses.drawn;
        self.trace.mark(self.now, Some(node), || format!("loss {number}: cut off, the leader of s{shard}"));
        // A while longer than an election at most, so that a leader which only is cut off is deposed.
        let lasts = cut_micros + 3 * self.election_micros();
        self.schedule_mend(lasts, Mend::Links(links));
        self.queue.push(self.now + cut_micros, Event::Loss(Loss::Strikes { node }));
    }

    fn lose(&mut self, node: usize) {
        let kind = self.losses.rng.u8(..4);
        // Back before the others have missed it, or when another leads.
        let most = if self.losses.rng.bool() { 20_000 } else { 4 * self.election_micros() };
        let after = self.losses.rng.u64(1_000..=most);
        if kind == 0 {
            // It goes on alone, until it is deposed.
            return;
        }
        self.stop(node, kind > 1, "lost as a leader");
        self.schedule_start(node, after);
    }

    /// The least time that an election takes by the plan, in microseconds.
    fn election_micros(&self) -> u64 {
        self.plan.settings.tick_micros * self.plan.settings.election_ticks
    }
}
