//! A node's own clock: it runs too fast or too slow, changes its rate, jumps, and began at another time than the others'.
//!
//! What the core sees of a clock is a tick now and then, and with each turn a time that is meant to be monotonic and to count
//! suspension. So time of a node means nothing to another; a rate of its own shows what would depend on it (half to twice as
//! fast as true time, where a plan says so). A *jump forward* is what a suspended machine looks like, and may be years. A
//! *jump back* is no legal behaviour of such a clock; the core claims to survive it all the same if it is seen, that is if it
//! goes behind the last turn. Ticks come by the rate alone: a jump is not made of ticks.
//!
//! *Never produced*: a step back that hides behind the time since the node's last turn (ages are then too small by as much,
//! and nobody could tell); a rate beyond twice or half; ticks that run at another rate than the time does.

use fastrand::Rng;
use kv_core::types::Time;

use super::{storms::Storm, world::World};

/// True time, in millionths.
pub const TRUE_RATE_PPM: u64 = 1_000_000;
/// The slowest rate that a storm draws: half of true time.
pub const RATE_PPM_MIN: u64 = TRUE_RATE_PPM / 2;
/// The fastest: twice.
pub const RATE_PPM_MAX: u64 = TRUE_RATE_PPM * 2;

/// A year, in microseconds.
const YEAR_MICROS: u64 = 365 * 24 * 3_600 * 1_000_000;
/// No jump back is shorter: it goes behind any pause, so that the next turn sees it.
const BACK_MICROS_MIN: u64 = 600_000_000;

/// A clock, as a function of simulated time.
#[derive(Clone, Debug)]
pub struct Clock {
    /// By time; in each it runs evenly. There is at least one.
    pieces: Vec<Piece>,
}

/// A time in which a clock runs evenly.
#[derive(Clone, Copy, Debug)]
struct Piece {
    /// Simulated time at which it begins, in microseconds.
    from_micros: u64,
    /// What the clock shows then.
    shows: u64,
    /// How much too fast it runs, in parts per million; negative for too slow.
    drift_ppm: i64,
}

impl Piece {
    fn at(self, micros: u64) -> u64 {
        let elapsed = micros.saturating_sub(self.from_micros);
        let drift = i128::from(elapsed) * i128::from(self.drift_ppm) / 1_000_000;
        self.shows + elapsed.saturating_add_signed(drift as i64)
    }

    fn rate_ppm(self) -> i128 {
        1_000_000 + i128::from(self.drift_ppm)
    }
}

impl Clock {
    /// A clock that shows this at simulated time 0, and is this much too fast, in parts per million.
    #[must_use]
    pub fn new(offset_micros: u64, drift_ppm: i64) -> Self {
        Self { pieces: vec![Piece { from_micros: 0, shows: offset_micros, drift_ppm }] }
    }

    /// What it shows now or later than its last change.
    #[must_use]
    pub fn at(&self, micros: u64) -> Time {
        Time(self.last().at(micros))
    }

    /// Simulated microseconds in which it shows this many at its present rate, rounded up.
    #[must_use]
    pub fn to_simulated(&self, own_micros: u64) -> u64 {
        let rate = self.last().rate_ppm();
        ((i128::from(own_micros) * 1_000_000 + rate - 1) / rate) as u64
    }

    /// When it showed a time last, but not after `by`, in simulated microseconds, rounded down; the moment of a jump if that
    /// left the time out.
    #[must_use]
    pub fn shown_at(&self, own: Time, by: u64) -> u64 {
        let has = |piece: &Piece| piece.from_micros <= by && piece.shows <= own.0;
        let Some(place) = self.pieces.iter().rposition(has) else { return 0 };
        let piece = self.pieces[place];
        let elapsed = i128::from(own.0 - piece.shows) * 1_000_000 / piece.rate_ppm();
        let end = self.pieces.get(place + 1).map_or(u64::MAX, |next| next.from_micros);
        // Twice what rounding may have added on the way.
        (piece.from_micros + elapsed as u64).saturating_sub(2).min(end).min(by)
    }

    /// From now on it runs at this rate, in millionths of true time.
    pub fn run_at(&mut self, now: u64, rate_ppm: u64) {
        let shows = self.at(now).0;
        self.pieces.push(Piece { from_micros: now, shows, drift_ppm: rate_ppm as i64 - TRUE_RATE_PPM as i64 });
    }

    /// It jumps; back no further than to its zero.
    pub fn jump(&mut self, now: u64, micros: i64) {
        let shows = self.at(now).0.saturating_add_signed(micros);
        self.pieces.push(Piece { from_micros: now, shows, drift_ppm: self.last().drift_ppm });
    }

    /// It runs again as it did at first.
    pub fn settle(&mut self, now: u64) {
        let (first, last) = (self.pieces[0].drift_ppm, self.last().drift_ppm);
        if first != last {
            self.run_at(now, (TRUE_RATE_PPM as i64 + first) as u64);
        }
    }

    fn last(&self) -> Piece {
        *self.pieces.last().expect("a clock has a piece")
    }
}

impl World {
    /// A clock goes wrong.
    pub(super) fn disturb_clock(&mut self, storm: Storm, node: usize) {
        let rng = &mut self.storms.rng;
        let clock = &mut self.machines[node].clock;
        match storm {
            Storm::ClockRate => clock.run_at(self.now, draw_rate_ppm(rng)),
            Storm::ClockForward => clock.jump(self.now, draw_jump_micros(rng) as i64),
            _ => {
                let back = draw_jump_micros(rng).max(BACK_MICROS_MIN);
                // One that stands close to its zero already would go back by less, and nobody might see it.
                if clock.at(self.now).0 >= BACK_MICROS_MIN {
                    clock.jump(self.now, -(back as i64));
                }
            }
        }
    }
}

/// Anything from half to twice as fast, often one of the two.
fn draw_rate_ppm(rng: &mut Rng) -> u64 {
    match rng.u32(..3) {
        0 => RATE_PPM_MIN,
        1 => RATE_PPM_MAX,
        _ => rng.u64(RATE_PPM_MIN..=RATE_PPM_MAX),
    }
}

/// Milliseconds, minutes, or years.
fn draw_jump_micros(rng: &mut Rng) -> u64 {
    match rng.u32(..3) {
        0 => rng.u64(1_000..10_000_000),
        1 => rng.u64(10_000_000..100_000_000_000),
        _ => rng.u64(YEAR_MICROS..=10 * YEAR_MICROS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fast_clock_needs_less_time_for_a_second() {
        let clock = Clock::new(7, 50_000);
        assert_eq!(clock.at(1_000_000), Time(1_050_007));
        let needed = clock.to_simulated(1_000_000);
        assert!(needed < 1_000_000);
        assert!(clock.at(needed).micros_since(clock.at(0)) >= 1_000_000 - 1);
    }

    #[test]
    fn what_a_clock_showed_is_found_again_through_rates_and_jumps() {
        let mut clock = Clock::new(1_000, 0);
        clock.run_at(1_000_000, RATE_PPM_MAX);
        assert_eq!(clock.at(2_000_000), Time(3_001_000));
        clock.jump(2_000_000, 10 * YEAR_MICROS as i64);
        clock.run_at(3_000_000, RATE_PPM_MIN);
        let now = clock.at(5_000_000);
        // A second on the slow clock is two.
        assert!((2_999_990..=3_000_000).contains(&clock.shown_at(Time(now.0 - 1_000_000), 5_000_000)));
        // Two seconds on it reach into the piece that is twice as fast.
        assert!((2_499_990..=2_500_000).contains(&clock.shown_at(Time(now.0 - 2_000_000), 5_000_000)));
        // A time that it never showed stands for the moment of the jump.
        assert_eq!(clock.shown_at(Time(now.0 - YEAR_MICROS), 5_000_000), 2_000_000);
        clock.jump(5_000_000, -i64::MAX);
        assert_eq!(clock.at(5_000_000), Time(0));
        let twice = |by| clock.shown_at(Time(500_000), by);
        assert!((5_999_990..=6_000_000).contains(&twice(7_000_000)), "shown twice: the last time counts");
        assert!((498_990..=499_000).contains(&twice(4_000_000)), "or the last before that");
        clock.settle(7_000_000);
        assert_eq!(clock.at(8_000_000).micros_since(clock.at(7_000_000)), 1_000_000);
    }
}
