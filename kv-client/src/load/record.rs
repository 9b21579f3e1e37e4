//! What a load saw: latencies of what succeeded, and what failed how often.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;

/// The kinds of operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A write of one key.
    Put,
    /// A read of one key.
    Get,
}

/// Operations that have ended.
#[derive(Debug, Default)]
pub struct Record {
    /// Puts that succeeded.
    pub puts: Side,
    /// Gets that succeeded.
    pub gets: Side,
    /// How often each failure came, by its name.
    pub errors: BTreeMap<String, u64>,
}

/// The operations of one kind that succeeded.
#[derive(Debug)]
pub struct Side {
    /// In microseconds, to three digits.
    pub latency: Histogram<u64>,
    /// Gets that found their key; all puts.
    pub found: u64,
}

/// Longest latency that is told from longer ones: a minute.
pub const LATENCY_MICROS_MAX: u64 = 60_000_000;

impl Default for Side {
    fn default() -> Self {
        let latency =
            Histogram::new_with_bounds(1, LATENCY_MICROS_MAX, 3).expect("the bounds are sound: 1 < 2 x 1 <= max");
        Self { latency, found: 0 }
    }
}

impl Record {
    /// An operation has ended: with whether it found its key, or with the name of its failure.
    pub fn add(&mut self, kind: Kind, latency: Duration, result: Result<bool, String>) {
        let side = match kind {
            Kind::Put => &mut self.puts,
            Kind::Get => &mut self.gets,
        };
        match result {
            Ok(found) => {
                side.latency.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1));
                side.found += u64::from(found);
            }
            Err(name) => *self.errors.entry(name).or_default() += 1,
        }
    }

    /// How many succeeded.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.puts.latency.len() + self.gets.latency.len()
    }

    /// How many failed.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.errors.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ErrorKind,
        load::{Kv, Target},
        testing::{Fault, MemoryKv},
    };
    use bytes::Bytes;

    #[tokio::test]
    async fn errors_are_counted_by_kind_and_outcome_and_not_as_latency() {
        let kv = MemoryKv::new();
        let client = Kv::from(kv.client());
        let mut record = Record::default();
        for fault in [Fault::LoseAnswer, Fault::LoseRequest, Fault::Refuse(ErrorKind::Overloaded)] {
            kv.fail_next(fault);
            let result = client.put("a", &Bytes::from_static(b"1")).await.map(|()| true);
            record.add(Kind::Put, Duration::from_millis(1), result);
        }
        record.add(Kind::Get, Duration::ZERO, Ok(false));
        record.add(Kind::Get, Duration::from_secs(600), Ok(true));
        let errors: Vec<_> = record.errors.iter().map(|(name, count)| (name.as_str(), *count)).collect();
        assert_eq!(errors, [("Overloaded, not applied", 1), ("Timeout, outcome unknown", 2)]);
        assert_eq!((record.puts.latency.len(), record.gets.latency.len(), record.gets.found), (0, 2, 1));
        assert_eq!((record.operations(), record.failures()), (2, 3));
    }
}
