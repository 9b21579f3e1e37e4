//! The operations of a run by slices of time: how many ended how, and how long they took.

use super::axis::Axis;
use crate::{
    history::Operation,
    verdict::text::{How, how},
};

/// Into how many slices a run is cut: each some pixels wide.
const SLICES: u64 = 232;

/// All slices of a run.
#[derive(Debug)]
pub(super) struct Slices {
    pub(super) all: Vec<Slice>,
    pub(super) slice_micros: u64,
    latencies: Vec<u64>,
    longest_silence_micros: u64,
}

/// What ended in a slice of time.
#[derive(Clone, Debug, Default)]
pub(super) struct Slice {
    pub(super) from_micros: u64,
    pub(super) ok: u64,
    pub(super) fail: u64,
    pub(super) unknown: u64,
    pub(super) p50_micros: Option<u64>,
    pub(super) p99_micros: Option<u64>,
}

impl Slices {
    pub(super) fn of(operations: &[Operation], axis: &Axis) -> Self {
        let slice_micros = axis.until_micros.div_ceil(SLICES).max(1);
        let count = axis.until_micros / slice_micros + 1;
        let mut all: Vec<_> =
            (0..count).map(|number| Slice { from_micros: number * slice_micros, ..Slice::default() }).collect();
        let mut spans: Vec<Vec<u64>> = vec![Vec::new(); all.len()];
        let mut answered: Vec<u64> = Vec::new();
        for operation in operations {
            // What was never answered shows where it was asked.
            let at = operation.completed.as_ref().map_or(operation.invoked, |(at, _)| *at);
            let place = usize::try_from(at.micros / slice_micros).unwrap_or(usize::MAX).min(all.len() - 1);
            match how(operation) {
                How::Ok => {
                    all[place].ok += 1;
                    spans[place].push(at.micros.saturating_sub(operation.invoked.micros));
                    answered.push(at.micros);
                }
                How::Fail => all[place].fail += 1,
                How::Unknown => all[place].unknown += 1,
            }
        }
        for (slice, spans) in all.iter_mut().zip(&mut spans) {
            spans.sort_unstable();
            (slice.p50_micros, slice.p99_micros) = (quantile(spans, 0.5), quantile(spans, 0.99));
        }
        let mut latencies: Vec<_> = spans.into_iter().flatten().collect();
        latencies.sort_unstable();
        answered.sort_unstable();
        let longest_silence_micros = answered.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default();
        Self { all, slice_micros, latencies, longest_silence_micros }
    }

    /// The latency that a share of all operations that were done did not exceed.
    pub(super) fn quantile(&self, share: f64) -> Option<u64> {
        quantile(&self.latencies, share)
    }

    /// The longest time between two operations that were done.
    pub(super) fn longest_silence_micros(&self) -> u64 {
        self.longest_silence_micros
    }

    /// How many a second so many of a slice are.
    pub(super) fn per_second(&self, count: u64) -> f64 {
        count as f64 * 1e6 / self.slice_micros as f64
    }
}

/// The value that a share of ascending ones does not exceed.
fn quantile(ascending: &[u64], share: f64) -> Option<u64> {
    let last = ascending.len().checked_sub(1)?;
    ascending.get(((ascending.len() as f64 * share) as usize).min(last)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::History;

    #[test]
    fn operations_are_counted_where_they_ended() {
        let history: History = "0 c1 1@0 put k a sync => 3@1000 written 1\n\
                                1 c1 4@1000 put k b sync => 5@232000 failed Conflict NotApplied current:1\n\
                                2 c2 2@500 get k linearizable => never\n\
                                3 c1 6@232000 get k linearizable => 7@232000 read 1:a age:0\n"
            .parse()
            .unwrap();
        let slices = Slices::of(history.operations(), &Axis::of(232_000));
        let count = |place: usize| (slices.all[place].ok, slices.all[place].fail, slices.all[place].unknown);
        assert_eq!((slices.all.len(), count(0), count(1), count(232)), (233, (0, 0, 1), (1, 0, 0), (1, 1, 0)));
        assert_eq!((slices.quantile(0.5), slices.quantile(0.0)), (Some(1_000), Some(0)));
        assert_eq!((slices.longest_silence_micros(), slices.per_second(3)), (231_000, 3_000.0));
        assert_eq!(Slices::of(&[], &Axis::of(0)).quantile(0.5), None);
    }
}
