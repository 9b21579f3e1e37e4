//! The axis of time that all pictures of a page share, and what is drawn into each of them: shaded faults, the final reads, ticks.

use super::svg::{line, rect, text};
use crate::{
    history::run::{Run, What},
    verdict::words::span,
};

/// Width of every picture.
pub(super) const WIDTH: f64 = 1_056.0;
/// Where time begins, with room for names to the left.
pub(super) const LEFT: f64 = 104.0;
/// Where it ends.
pub(super) const END: f64 = WIDTH - 24.0;

/// Time from the left to the right.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    pub(super) until_micros: u64,
}

impl Axis {
    pub(super) fn of(until_micros: u64) -> Self {
        Self { until_micros: until_micros.max(1) }
    }

    /// Where a moment lies.
    pub(super) fn x(&self, micros: u64) -> f64 {
        LEFT + (END - LEFT) * (micros.min(self.until_micros) as f64 / self.until_micros as f64)
    }

    /// Vertical lines at round times over a height, each with its time below.
    pub(super) fn ticks(&self, top: f64, bottom: f64) -> String {
        let step = self.step_micros();
        let tick = |micros: u64| {
            let x = self.x(micros);
            let label = if micros == 0 { "0".to_owned() } else { round(micros) };
            line("grid", (x, top), (x, bottom)) + &text(x, bottom + 16.0, "middle", "tick", &label)
        };
        (0..=self.until_micros / step).map(|number| tick(number * step)).collect()
    }

    /// A round step of which about ten make the whole.
    fn step_micros(&self) -> u64 {
        let decades = (0..12).flat_map(|decade| [1, 2, 5].map(|step| step * 10_u64.pow(decade)));
        decades.into_iter().find(|step| self.until_micros / step <= 12).unwrap_or(u64::MAX)
    }

    /// The faults of a run as shades over a height, and a line where the final reads begin.
    pub(super) fn bands(&self, run: &Run, top: f64, bottom: f64) -> String {
        let mut svg = String::new();
        for event in &run.events {
            let from = self.x(event.from_micros);
            match event.what {
                What::Fault { .. } => {
                    let to = self.x(event.until_micros.unwrap_or(event.from_micros));
                    svg += &rect("band", (from, top), ((to - from).max(1.5), bottom - top), "");
                }
                What::FinalReads { .. } => svg += &line("end", (from, top), (from, bottom)),
                What::Leader { .. } | What::Note(_) => {}
            }
        }
        svg
    }
}

/// A round time in few letters.
fn round(micros: u64) -> String {
    match micros {
        _ if micros.is_multiple_of(60_000_000) => format!("{} min", micros / 60_000_000),
        _ if micros.is_multiple_of(1_000_000) => format!("{} s", micros / 1_000_000),
        _ if micros >= 1_000_000 => format!("{:.1} s", micros as f64 / 1e6),
        _ => span(micros).replace(".0 ", " "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        for (until, step) in
            [(1, 1), (950, 100), (3_000_000, 500_000), (120_000_000, 10_000_000), (3_600_000_000, 500_000_000)]
        {
            assert_eq!(Axis::of(until).step_micros(), step);
        }
        assert_eq!(
            [500, 20_000, 500_000, 1_500_000, 2_000_000, 120_000_000].map(round),
            ["500 us", "20 ms", "500 ms", "1.5 s", "2 s", "2 min"]
        );
        assert_eq!((Axis::of(10).x(0), Axis::of(10).x(10), Axis::of(10).x(99)), (LEFT, END, END));
    }
}
