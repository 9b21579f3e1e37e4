//! How a run begins from empty directories: drawn from a stream of its own, for a share of the seeds.

use fastrand::Rng;

use super::mix;

/// Seeds in a hundred that begin from empty directories.
const SHARE_PERCENT: u32 = 30;

/// What such a run adds to the others.
#[derive(Clone, Copy, Debug, Default)]
pub struct Founding {
    /// Whether the run begins so; if not, it begins with a founded cluster, and the rest means nothing.
    pub from_empty: bool,
    /// Nodes start within this time, in microseconds.
    pub starts_within_micros: u64,
    /// Faults of its own while the cluster is founded, and for how long, in microseconds.
    pub early_faults: u32,
    /// See there.
    pub early_micros: u64,
    /// Disks lost as a whole a simulated minute, afterwards.
    pub wipe: f64,
    /// Starts with other settings a simulated minute, afterwards.
    pub otherwise: f64,
    /// Writes of the identity file that a crash cuts short, in percent.
    pub cut_percent: u32,
}

impl Founding {
    /// Draws it; most seeds begin founded.
    pub(super) fn draw(seed: u64) -> Self {
        let mut rng = Rng::with_seed(mix(seed, "founding"));
        if rng.u32(..100) >= SHARE_PERCENT {
            return Self::default();
        }
        let calm = rng.u32(..3) == 0;
        Self {
            from_empty: true,
            starts_within_micros: [1_000, 500_000, 5_000_000][rng.usize(..3)],
            early_faults: if calm { 0 } else { rng.u32(1..=20) },
            early_micros: rng.u64(500_000..=10_000_000),
            wipe: if rng.bool() { 2.0 * rng.f64() } else { 0.0 },
            otherwise: if rng.bool() { 2.0 * rng.f64() } else { 0.0 },
            cut_percent: if calm || rng.bool() { 0 } else { rng.u32(1..=30) },
        }
    }

    /// Nothing goes wrong but what is asked for.
    #[must_use]
    pub fn calm() -> Self {
        Self { from_empty: true, starts_within_micros: 1, early_micros: 1, ..Self::default() }
    }
}
