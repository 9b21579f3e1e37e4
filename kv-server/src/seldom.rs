//! What would be said over and over is said now and then, with how often it was not.

use std::sync::{Mutex, PoisonError};

use kv_core::types::Time;

use crate::clock;

/// Least time between two messages of one kind.
const PAUSE_MICROS: u64 = 1_000_000;

/// When something was last said.
#[derive(Debug, Default)]
pub(crate) struct Seldom {
    said: Mutex<Said>,
}

#[derive(Debug, Default)]
struct Said {
    last: Option<Time>,
    unsaid: u64,
}

impl Seldom {
    /// Whether to say it: how often it was not said since the last time, or `None` if that was less than a second ago.
    pub(crate) fn now(&self) -> Option<u64> {
        self.at(clock::now())
    }

    fn at(&self, now: Time) -> Option<u64> {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.last.is_some_and(|last| now.micros_since(last) < PAUSE_MICROS) {
            said.unsaid += 1;
            return None;
        }
        said.last = Some(now);
        Some(std::mem::take(&mut said.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_once_a_second_and_what_was_not_said_is_counted() {
        let seldom = Seldom::default();
        let at: Vec<_> = [1, 2, 1_000_000, 1_000_001, 1_000_002, 9_000_000].map(|now| seldom.at(Time(now))).to_vec();
        assert_eq!(at, [Some(0), None, None, Some(2), None, Some(1)]);
    }
}
