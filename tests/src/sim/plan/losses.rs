//! How often leaders are lost with what they have just acknowledged; see [`crate::sim::losses`].

use fastrand::Rng;
use kv_core::types::ShardId;

use super::{Kept, Plan, mix};

/// Seeds in a hundred that have such losses.
const SHARE_PERCENT: u32 = 15;

/// What is drawn of it.
#[derive(Clone, Debug, Default)]
pub struct Losses {
    /// Times a simulated minute; 0 for never.
    pub often: f64,
    /// For how long a leader that is about to be lost is cut off from the other nodes, in microseconds, at most.
    pub cut_micros_max: u64,
    /// Which of those that a run draws happen: a failing run is cut down to those that it needs.
    pub kept: Kept,
}

impl Plan {
    /// Draws it, in some seeds, and with it the load that makes such a loss cost something: few shards, many asynchronous
    /// writes, impatient clients, and a network between clients and nodes that holds requests back for longer than an
    /// election takes.
    pub(super) fn draw_losses(&mut self) {
        let mut rng = Rng::with_seed(mix(self.seed, "lost leaders"));
        let has_faults = self.faults.kinds().iter().any(|(_, often)| *often > 0.0);
        if rng.u32(..100) >= SHARE_PERCENT || self.voters(ShardId(1)) < 3 || !has_faults {
            return;
        }
        self.losses.often = 20.0 + 40.0 * rng.f64();
        self.losses.cut_micros_max = [0, 60_000, 200_000][rng.usize(..3)];
        self.shards = rng.u64(1..=2);
        let workload = &mut self.workload;
        workload.operations_per_second = 60;
        workload.keys = workload.keys.max(12);
        workload.open_max = rng.usize(3..=8);
        workload.reads_percent = rng.u32(10..=40);
        workload.conditions_percent = rng.u32(..=10);
        workload.previous_percent = rng.u32(..=10);
        workload.async_percent = rng.u32(50..=95);
        self.clients.answer_micros_max = [30_000, 100_000][rng.usize(..2)];
        self.clients.held_micros_max = [1_000_000, 3_000_000][rng.usize(..2)];
        self.clients.prompt_percent = rng.u32(60..=90);
    }
}
