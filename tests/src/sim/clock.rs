//! A node's own clock: it runs too fast or too slow, and began at another time than the others'.
//!
//! Time of a node means nothing to another; drift shows what would depend on it. The clock never stands or goes back, and goes
//! on while its node is paused.

use kv_core::types::Time;

/// A clock, as a function of simulated time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// What it shows at simulated time 0, in microseconds.
    pub offset_micros: u64,
    /// How much too fast it runs, in parts per million; negative for too slow.
    pub drift_ppm: i64,
}

impl Clock {
    /// What it shows.
    #[must_use]
    pub fn at(self, micros: u64) -> Time {
        let drift = i128::from(micros) * i128::from(self.drift_ppm) / 1_000_000;
        Time(self.offset_micros + micros.saturating_add_signed(drift as i64))
    }

    /// Simulated microseconds in which it shows this many, rounded up.
    #[must_use]
    pub fn to_simulated(self, own_micros: u64) -> u64 {
        let rate = 1_000_000 + i128::from(self.drift_ppm);
        ((i128::from(own_micros) * 1_000_000 + rate - 1) / rate) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fast_clock_needs_less_time_for_a_second() {
        let clock = Clock { offset_micros: 7, drift_ppm: 50_000 };
        assert_eq!(clock.at(1_000_000), Time(1_050_007));
        let needed = clock.to_simulated(1_000_000);
        assert!(needed < 1_000_000);
        assert!(clock.at(needed).micros_since(clock.at(0)) >= 1_000_000 - 1);
    }
}
