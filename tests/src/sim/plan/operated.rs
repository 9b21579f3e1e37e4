//! How the cluster is made and looked after: drawn from a stream of its own.

use fastrand::Rng;

use super::mix;

/// What differs from a cluster of one, three or five nodes whose writes are synchronous unless they ask for something else, that
/// nobody touches, and of which all comes back in the end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Operated {
    /// Whether a write that says nothing of it is asynchronous.
    pub async_by_default: bool,
    /// Nodes that are stopped as a supervisor stops them (they hand their leaderships over first) a simulated minute.
    pub stops: f64,
    /// How many nodes stay away in the quiet phase until everything owed to clients was served, at most.
    pub away: u64,
    /// Whether those are cut off; if not, they are without power.
    pub away_cut_off: bool,
}

impl Operated {
    /// Draws it.
    pub(super) fn draw(seed: u64, nodes: u64) -> Self {
        let mut rng = Rng::with_seed(mix(seed, "operated"));
        let async_by_default = rng.u32(..6) == 0;
        let stops = if rng.u32(..4) == 0 { 1.0 + 6.0 * rng.f64() } else { 0.0 };
        let away = if rng.u32(..5) == 0 { rng.u64(1..=2) } else { 0 };
        let away_cut_off = rng.bool();
        Self { async_by_default, stops, away: away.min(nodes.saturating_sub(1) / 2), away_cut_off }
    }
}

/// In some seeds another number of nodes than the one that was drawn.
pub(super) fn draw_nodes(seed: u64, nodes: u64) -> u64 {
    let mut rng = Rng::with_seed(mix(seed, "number of nodes"));
    if rng.u32(..12) == 0 { [2, 4, 7][rng.usize(..3)] } else { nodes }
}
