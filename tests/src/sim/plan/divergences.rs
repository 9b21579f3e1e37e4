//! How often replicas are made to differ from their groups; see [`crate::sim::divergence`].

use fastrand::Rng;

use super::{Kept, mix};

/// What is drawn of it.
#[derive(Clone, Debug, Default)]
pub struct Divergences {
    /// Times a simulated minute; 0 for never.
    pub often: f64,
    /// Whether half of them are records of the read index instead of the state in memory.
    pub trees: bool,
    /// Which of those that a run draws happen: a failing run is cut down to those that it needs.
    pub kept: Kept,
}

impl Divergences {
    /// Draws it; most seeds have none. Where two replicas are all there are nobody can be outvoted.
    pub(super) fn draw(seed: u64, replicas: u64, has_faults: bool) -> Self {
        let mut rng = Rng::with_seed(mix(seed, "divergence"));
        let is_wanted = rng.u32(..4) == 0 && replicas >= 3 && has_faults;
        Self {
            often: if is_wanted { 0.5 + 5.0 * rng.f64() } else { 0.0 },
            trees: is_wanted && rng.bool(),
            kept: Kept::All,
        }
    }
}
