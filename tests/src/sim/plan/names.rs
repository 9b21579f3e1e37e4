//! How often changes of names fail, and whether the read index goes back; see [`crate::sim::name_faults`].

use fastrand::Rng;

use super::mix;

/// What is drawn of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Names {
    /// How many changes of names or syncs of directories fail a simulated minute, cluster-wide.
    pub often: f64,
    /// Whether a read index may be found as it was some writes ago when a process ends.
    pub trees_go_back: bool,
}

impl Names {
    /// Draws it; a run without faults has none.
    pub(super) fn draw(seed: u64, has_faults: bool) -> Self {
        let mut rng = Rng::with_seed(mix(seed, "name faults"));
        let (fails, back) = (rng.u32(..3) == 0 && has_faults, rng.bool() && has_faults);
        Self { often: if fails { 0.5 + 4.0 * rng.f64() } else { 0.0 }, trees_go_back: back }
    }
}
