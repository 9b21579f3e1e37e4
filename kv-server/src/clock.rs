//! The clock of a node: monotonic, and it counts the time that the machine was suspended.

use kv_core::types::Time;
use rustix::time::{ClockId, clock_gettime};

/// Now, in microseconds since some moment before the process began.
pub(crate) fn now() -> Time {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    Time(seconds * 1_000_000 + nanos / 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_goes_back() {
        let earlier = now();
        assert!(earlier.0 > 0);
        assert!(now() >= earlier);
    }
}
