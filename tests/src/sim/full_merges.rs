//! Disks that run full just while files of checkpoints are merged.
//!
//! A merge begins when a checkpoint has just been written or confirmed, and takes milliseconds; a disk that runs full at random
//! has refused the checkpoint before. Here some merges that wait or are under way find no room from their next step on, for up to
//! a few seconds. Nothing may come of it but that the deltas stay for longer.
//!
//! *Never here*: merges of seeds that merge no more often than production does, where there would be hardly one to strike.

use fastrand::Rng;
use kv_core::checkpoint::MERGE_FILES;

use super::{faults::Mend, plan::Plan, world::World};

/// Merges in a hundred that are struck, while the plan has some left.
const SHARE_PERCENT: u32 = 20;

/// For how long a disk is full at most, in microseconds.
const FULL_MICROS_MAX: u64 = 3_000_000;

/// Draws which merges are struck.
#[derive(Debug)]
pub(super) struct FullMerges {
    rng: Rng,
    left: u64,
}

impl FullMerges {
    pub(super) fn new(plan: &Plan) -> Self {
        Self { rng: plan.stream("full merges"), left: plan.full_merges }
    }
}

impl Plan {
    /// Draws how many there are, in some seeds.
    pub(super) fn draw_full_merges(&mut self) {
        let mut rng = self.stream("full merges drawn");
        let has_faults = self.faults.kinds().iter().any(|(_, often)| *often > 0.0);
        if rng.bool() && has_faults && self.merge_deltas < MERGE_FILES {
            self.full_merges = rng.u64(1..=4);
        }
    }
}

impl World {
    /// After a step of a checkpoint thread: the disk may run full under the merge that it is at.
    pub(super) fn fill_under_a_merge(&mut self, node: usize) {
        let merges = self.machines[node].process.as_ref().is_some_and(|process| process.has_merges());
        let FullMerges { rng, left } = &mut self.full_merges;
        if *left == 0 || !merges || self.quiet || rng.u32(..100) >= SHARE_PERCENT {
            return;
        }
        *left -= 1;
        let lasts = rng.u64(1_000..=FULL_MICROS_MAX);
        self.counts.full_merges += 1;
        self.machines[node].bound_free_bytes(Some(0));
        self.trace.mark(self.now, Some(node), || "its disk runs full under a merge".to_owned());
        self.schedule_mend(lasts, Mend::DiskFull(node));
    }
}
