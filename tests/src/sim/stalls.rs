//! Storms on a node's threads: they stand still in the middle of what they do, or get a twentieth of a processor.
//!
//! A node stands still, for longer than an election, after a turn was computed and before any of what it put out has taken
//! effect; or after its log was synced and before the node hears of it. A starved node runs at the beginning of each
//! period (20 ms to 2 s) for a twentieth of it, as the kernel's bandwidth control has it; ticks that are missed meanwhile are
//! one tick.
//!
//! *Never produced*: some of a turn's outputs before the pause and some after it (to everyone else that is messages that are
//! late, which the network makes); threads of one node that are starved apart from each other.

use super::{
    machine::Starved,
    storms::{Next, Storm},
    world::{Event, World},
};

/// A starved node runs for one part in so many.
pub(super) const STARVED_PART: u64 = 20;

impl World {
    /// A node stands still at its next turn or sync, or is starved for a while.
    pub(super) fn stall(&mut self, storm: Storm, node: usize) {
        let election_micros = self.plan.settings.tick_micros * self.plan.settings.election_ticks;
        let pause = self.storms.rng.u64(election_micros / 2..=4 * election_micros);
        let machine = &mut self.machines[node];
        match storm {
            Storm::PauseInTurn => machine.pause_in_turn = Some(pause),
            Storm::PauseAfterSync => machine.pause_after_sync = Some(pause),
            _ => {
                let period = [20_000, 100_000, 500_000, 2_000_000][self.storms.rng.usize(..4)];
                let phase = self.storms.rng.u64(..period);
                self.machines[node].starved = Some(Starved { period, phase });
                let lasts = 2 * self.storms.lasts();
                self.schedule_next(lasts, Next::Feed(node));
            }
        }
    }

    /// Whether the turn that was just done waits with all that it put out; schedules its end then.
    pub(super) fn pauses_in_turn(&mut self, node: usize, start: u64) -> bool {
        let Some(pause) = self.machines[node].pause_in_turn.take() else { return false };
        let until = self.now + pause;
        self.machines[node].paused_until = self.machines[node].paused_until.max(until);
        self.trace.tell(self.now, || format!("n{} stands still within a turn", node + 1));
        self.queue.push(until, Event::Release { node, start });
        true
    }

    /// What a turn put out before the node stood still takes effect.
    pub(super) fn release(&mut self, node: usize, start: u64) {
        if !self.is_current(node, start) {
            return;
        }
        let process = self.machines[node].process.as_mut().expect("the process is current");
        let mut outputs = std::mem::take(&mut process.held);
        process.holds = false;
        process.turn_scheduled = true;
        self.judge_turn(node, &outputs);
        self.perform(node, &mut outputs);
        // What came meanwhile.
        self.queue.push(self.now, Event::Turn { node, start });
    }

    /// The log was synced: the node may stand still before it hears of it.
    pub(super) fn pause_after_sync(&mut self, node: usize) {
        if let Some(pause) = self.machines[node].pause_after_sync.take() {
            let machine = &mut self.machines[node];
            machine.paused_until = machine.paused_until.max(self.now + pause);
            self.trace.tell(self.now, || format!("n{} stands still after a sync", node + 1));
        }
    }
}
