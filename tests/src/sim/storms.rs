//! Harder weather than the faults of [`super::faults`]: networks of odd shapes, links that flap, clog, lose half or bring twice,
//! clocks that run at half or twice their rate or jump by years, threads that stand still in the middle of what they do.
//!
//! *Swarm*: half of all seeds have no storm at all; of the others each leaves most kinds out and draws how often and how long
//! the rest comes. Everything here is drawn from streams of its own, so that a seed without storms does what it always did.
//!
//! What each kind can never produce stands where it is made: [`super::links`], [`super::clock`], [`super::stalls`].

use fastrand::Rng;

use super::{links::Cut, plan::Plan, world::World};

/// The kinds of storm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Storm {
    /// Some nodes, of a number drawn evenly, are cut off the rest.
    Split,
    /// One node is.
    Isolate,
    /// The leader of a shard is.
    IsolateLeader,
    /// Two halves meet in one node only.
    Bridge,
    /// Each node reaches its neighbours on a ring only.
    Ring,
    /// Links go and come.
    Flap,
    /// Up to half of all messages are lost.
    Loss,
    /// Up to half of all messages come twice.
    Duplicates,
    /// Messages overtake each other.
    Reorder,
    /// A few messages are held for minutes.
    Minutes,
    /// Links carry nothing for a while, then everything.
    Clog,
    /// Frames are damaged: their connection is closed, and what they held is lost.
    Corrupt,
    /// Operators ask for hand-overs again and again.
    Transfers,
    /// A node gets a twentieth of its processor.
    Starve,
    /// A node stands still between a turn and what it puts out.
    PauseInTurn,
    /// A node stands still between the sync of its log and the report of it.
    PauseAfterSync,
    /// A clock changes its rate.
    ClockRate,
    /// A clock jumps forward.
    ClockForward,
    /// A clock jumps back.
    ClockBack,
}

/// How many kinds there are.
pub const KINDS: usize = 19;

/// All kinds with their names and how often they come a minute, about, where a seed has them.
const ALL: [(Storm, &str, f64); KINDS] = [
    (Storm::Split, "split", 5.0),
    (Storm::Isolate, "isolate", 5.0),
    (Storm::IsolateLeader, "isolate-leader", 6.0),
    (Storm::Bridge, "bridge", 4.0),
    (Storm::Ring, "ring", 4.0),
    (Storm::Flap, "flap", 4.0),
    (Storm::Loss, "loss", 3.0),
    (Storm::Duplicates, "duplicates", 3.0),
    (Storm::Reorder, "reorder", 3.0),
    (Storm::Minutes, "minutes", 2.0),
    (Storm::Clog, "clog", 5.0),
    (Storm::Corrupt, "corrupt", 3.0),
    (Storm::Transfers, "transfers", 3.0),
    (Storm::Starve, "starve", 3.0),
    (Storm::PauseInTurn, "pause-in-turn", 8.0),
    (Storm::PauseAfterSync, "pause-after-sync", 8.0),
    (Storm::ClockRate, "clock-rate", 8.0),
    (Storm::ClockForward, "clock-forward", 4.0),
    (Storm::ClockBack, "clock-back", 4.0),
];

/// The names of all kinds.
pub fn names() -> impl Iterator<Item = &'static str> {
    ALL.into_iter().map(|(_, name, _)| name)
}

/// Which storms a run has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Storms {
    /// How many of each kind come in a simulated minute, on average.
    pub often: [f64; KINDS],
    /// How long one lasts on average, in microseconds.
    pub lasts_micros: u64,
}

impl Storms {
    /// Draws them for a seed.
    #[must_use]
    pub fn draw(mut rng: Rng, nodes: u64) -> Self {
        if rng.bool() {
            return Self::default();
        }
        let often = ALL.map(|(storm, _, often)| {
            let chosen = rng.u32(..4) == 0;
            let often = often * (0.3 + 1.4 * rng.f64());
            if chosen && (nodes > 1 || !storm.is_of_links()) { often } else { 0.0 }
        });
        Self { often, lasts_micros: [300_000, 2_000_000, 8_000_000][rng.usize(..3)] }
    }

    /// The kinds by name, with how often they come.
    pub fn kinds(&self) -> impl Iterator<Item = (&'static str, f64)> {
        ALL.into_iter().zip(self.often).map(|((_, name, _), often)| (name, often))
    }

    /// Whether clocks may run at half their rate.
    #[must_use]
    pub fn change_rates(&self) -> bool {
        self.often[Storm::ClockRate as usize] > 0.0
    }
}

impl Storm {
    /// Whether it does nothing where there is one node only.
    fn is_of_links(self) -> bool {
        matches!(
            self,
            Self::Split
                | Self::Isolate
                | Self::IsolateLeader
                | Self::Bridge
                | Self::Ring
                | Self::Flap
                | Self::Transfers
        )
    }
}

/// What ends a storm, or goes on with it.
#[derive(Clone, Debug)]
pub enum Next {
    /// The next storm begins.
    Begin(Storm),
    /// These links carry messages again.
    Mend(Vec<Cut>),
    /// Links that flap are cut or mended, until a time.
    Flap {
        /// The links.
        cuts: Vec<Cut>,
        /// Whether they are cut now.
        are_cut: bool,
        /// How long each state lasts, in microseconds.
        period: u64,
        /// When it is over.
        until: u64,
    },
    /// The weather of this kind is over.
    Clear(Storm),
    /// The next hand-over is asked for, until a time.
    Transfer {
        /// How long between two, in microseconds.
        period: u64,
        /// When it is over.
        until: u64,
    },
    /// The node's processor is its own again.
    Feed(usize),
}

/// Draws the storms.
#[derive(Debug)]
pub struct StormMaker {
    pub(super) rng: Rng,
    kinds: Vec<(Storm, f64)>,
    lasts_micros: u64,
}

impl StormMaker {
    /// The storms of a plan.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let kinds = ALL.into_iter().zip(plan.storms.often).map(|((storm, ..), often)| (storm, often));
        Self {
            rng: plan.stream("storms"),
            kinds: kinds.filter(|(_, often)| *often > 0.0).collect(),
            lasts_micros: plan.storms.lasts_micros,
        }
    }

    /// The next storm and how long it is until then, in microseconds; none if there are none.
    fn draw(&mut self) -> Option<(u64, Storm)> {
        let often: f64 = self.kinds.iter().map(|(_, often)| often).sum();
        let (last, _) = *self.kinds.last()?;
        let delay = -60_000_000.0 / often * (1.0 - self.rng.f64()).ln();
        let mut pick = self.rng.f64() * often;
        let storm = self.kinds.iter().find(|(_, often)| {
            pick -= often;
            pick <= 0.0
        });
        Some((delay as u64 + 1, storm.map_or(last, |(storm, _)| *storm)))
    }

    /// How long one lasts, in microseconds: exponential.
    pub(super) fn lasts(&mut self) -> u64 {
        let mean = self.lasts_micros as f64;
        (-mean * (1.0 - self.rng.f64()).ln()).min(8.0 * mean) as u64 + 1_000
    }
}

impl World {
    /// Schedules the next storm, if the plan has any.
    pub(super) fn schedule_storm(&mut self) {
        if let Some((after, storm)) = self.storms.draw() {
            self.schedule_next(after, Next::Begin(storm));
        }
    }

    /// Goes on with the storms; none is left once it is quiet.
    pub(super) fn next_of_storm(&mut self, next: Next) {
        if self.quiet {
            return;
        }
        match next {
            Next::Begin(storm) => {
                self.begin_storm(storm);
                self.schedule_storm();
            }
            Next::Mend(cuts) => self.mend_cuts(&cuts),
            Next::Flap { cuts, are_cut, period, until } => self.flap(cuts, are_cut, period, until),
            Next::Clear(storm) => self.network.clear(storm),
            Next::Transfer { period, until } => self.transfer_again(period, until),
            Next::Feed(node) => self.machines[node].starved = None,
        }
    }

    fn begin_storm(&mut self, storm: Storm) {
        let node = self.storms.rng.usize(..self.machines.len());
        self.counts.storms[storm as usize] += 1;
        self.trace.tell(self.now, || format!("STORM {storm:?} (node {})", node + 1));
        match storm {
            Storm::Split | Storm::Isolate | Storm::IsolateLeader | Storm::Bridge | Storm::Ring | Storm::Flap => {
                self.cut_shape(storm, node);
            }
            Storm::Loss | Storm::Duplicates | Storm::Reorder | Storm::Minutes | Storm::Corrupt => {
                self.network.disturb(storm, &mut self.storms.rng);
                let lasts = self.storms.lasts();
                self.schedule_next(lasts, Next::Clear(storm));
            }
            Storm::Clog => self.clog(node),
            Storm::Transfers => {
                let until = self.now + self.storms.lasts();
                let period = self.storms.rng.u64(20_000..500_000);
                self.transfer_again(period, until);
            }
            Storm::Starve | Storm::PauseInTurn | Storm::PauseAfterSync => self.stall(storm, node),
            Storm::ClockRate | Storm::ClockForward | Storm::ClockBack => self.disturb_clock(storm, node),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::plan::Options;

    #[test]
    fn kinds_are_listed_in_their_order_and_every_one_is_drawn_by_some_seed() {
        for (place, (storm, ..)) in ALL.iter().enumerate() {
            assert_eq!(*storm as usize, place);
        }
        let plans = || (1..400).map(|seed| Plan::draw(seed, Options::default()).storms);
        for (storm, ..) in ALL {
            assert!(plans().any(|storms| storms.often[storm as usize] > 0.0), "{storm:?}");
        }
        let calm = plans().filter(|storms| storms.often.iter().all(|often| *often == 0.0)).count();
        assert!((150..300).contains(&calm), "{calm} of 399 seeds have none");
        let light = Plan::draw(1, Options { light: true, ..Options::default() });
        assert!(light.storms.often.iter().all(|often| *often == 0.0));
    }
}
