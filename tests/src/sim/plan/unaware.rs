//! How often leaders are kept from hearing that they are deposed; see [`crate::sim::unaware`].

use fastrand::Rng;
use kv_core::types::ShardId;

use super::{Kept, Plan, mix};

/// Seeds in a hundred that have such leaders.
const SHARE_PERCENT: u32 = 20;

/// What is drawn of it.
#[derive(Clone, Debug, Default)]
pub struct Unaware {
    /// Times a simulated minute; 0 for never.
    pub often: f64,
    /// Which of those that a run draws happen: a failing run is cut down to those that it needs.
    pub kept: Kept,
}

impl Plan {
    /// Draws it, in some seeds. Of two voters neither is elected without the other's vote.
    pub(super) fn draw_unaware(&mut self) {
        let mut rng = Rng::with_seed(mix(self.seed, "unaware leaders"));
        let has_faults = self.faults.kinds().iter().any(|(_, often)| *often > 0.0);
        if rng.u32(..100) < SHARE_PERCENT && self.voters(ShardId(1)) >= 3 && has_faults {
            self.unaware.often = 8.0 + 20.0 * rng.f64();
        }
    }
}
