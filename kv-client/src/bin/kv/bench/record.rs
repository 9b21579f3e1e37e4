//! What a benchmark saw: latencies of what succeeded, and what failed how often.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;
use kv_client::{Outcome, Result};

/// The kinds of operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Put,
    Get,
}

/// All operations of a run.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) puts: Side,
    pub(super) gets: Side,
    /// How often each error came, by kind and outcome.
    pub(super) errors: BTreeMap<String, u64>,
}

/// The operations of one kind that succeeded.
#[derive(Debug)]
pub(super) struct Side {
    /// In microseconds.
    pub(super) latency: Histogram<u64>,
    /// Gets that found their key; all puts.
    pub(super) found: u64,
}

/// Latencies are kept to three digits, up to a minute; longer ones count as a minute.
const LATENCY_MICROS_MAX: u64 = 60_000_000;

impl Record {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        let side = || Side {
            latency: Histogram::new_with_bounds(1, LATENCY_MICROS_MAX, 3)
                .expect("the bounds are sound: 1 < 2 x 1 <= max"),
            found: 0,
        };
        Self { puts: side(), gets: side(), errors: BTreeMap::new() }
    }

    /// An operation has ended: with whether it found its key, or with an error.
    pub(super) fn add(&mut self, kind: Kind, latency: Duration, result: &Result<bool>) {
        let side = match kind {
            Kind::Put => &mut self.puts,
            Kind::Get => &mut self.gets,
        };
        match result {
            Ok(found) => {
                side.latency.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1));
                side.found += u64::from(*found);
            }
            Err(error) => {
                let outcome = match error.outcome() {
                    Outcome::NotApplied => "not applied",
                    Outcome::Unknown => "outcome unknown",
                };
                *self.errors.entry(format!("{:?}, {outcome}", error.kind())).or_default() += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_client::{
        ErrorKind,
        testing::{Fault, MemoryKv},
    };

    #[tokio::test]
    async fn errors_are_counted_by_kind_and_outcome_and_not_as_latency() {
        let kv = MemoryKv::new();
        let client = kv.client();
        let mut record = Record::new();
        for fault in [Fault::LoseAnswer, Fault::LoseRequest, Fault::Refuse(ErrorKind::Overloaded)] {
            kv.fail_next(fault);
            let result = client.put("a", "1").await.map(|_| true);
            record.add(Kind::Put, Duration::from_millis(1), &result);
        }
        record.add(Kind::Get, Duration::ZERO, &Ok(false));
        record.add(Kind::Get, Duration::from_secs(600), &Ok(true));
        let errors: Vec<_> = record.errors.iter().map(|(name, count)| (name.as_str(), *count)).collect();
        assert_eq!(errors, [("Overloaded, not applied", 1), ("Timeout, outcome unknown", 2)]);
        assert_eq!((record.puts.latency.len(), record.gets.latency.len(), record.gets.found), (0, 2, 1));
    }
}
