//! A client's restraint towards a node that is overloaded.
//!
//! Each refusal costs the node something, and every operation that is refused is asked again: under ten times its load a node
//! would do nothing but refuse. So a client asks a node about [`TIMES`] as often as that node has lately taken what it asked
//! (adaptive throttling: the chance to hold an operation back is the share of all that goes beyond that). What is held back
//! waits at the client as if it had been refused. A node that takes everything, or does not answer at all, is not affected.

use crate::types::Time;

/// A node is asked so many times as often as it takes what it is asked.
const TIMES: u32 = 2;
/// So many refusals change little.
const SLACK: u32 = 8;
/// What was counted is halved each time that this long has passed, in microseconds.
const HALVED_MICROS: u64 = 1_000_000;

/// What became lately of operations meant for one node.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Throttle {
    since: Time,
    /// Answered, refused, or held back.
    meant: u32,
    /// Answered other than as overloaded.
    taken: u32,
}

impl Throttle {
    /// The node answered.
    pub(super) fn answered(&mut self, overloaded: bool, now: Time) {
        self.age(now);
        self.meant = self.meant.saturating_add(1);
        self.taken = self.taken.saturating_add(u32::from(!overloaded));
    }

    /// Whether to hold back what is about to be sent.
    pub(super) fn holds_back(&mut self, now: Time, random: u64) -> bool {
        self.age(now);
        let beyond = self.meant.saturating_sub(self.taken.saturating_mul(TIMES));
        let holds = (random >> 32) % u64::from(self.meant.saturating_add(SLACK)) < u64::from(beyond);
        self.meant = self.meant.saturating_add(u32::from(holds));
        holds
    }

    fn age(&mut self, now: Time) {
        let halvings = now.micros_since(self.since) / HALVED_MICROS;
        if halvings > 0 {
            let by = u32::try_from(halvings).unwrap_or(u32::MAX);
            self.meant = self.meant.checked_shr(by).unwrap_or(0);
            self.taken = self.taken.checked_shr(by).unwrap_or(0);
            self.since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of 10,000 operations a second, how many are sent to a node that takes so many.
    fn sent(taken_per_second: u32) -> u32 {
        let mut throttle = Throttle::default();
        let (mut random, mut sent) = (1_u64, 0);
        for second in 0..5 {
            let (mut left, now) = (taken_per_second, Time(10_000_000 + second * HALVED_MICROS));
            sent = 0;
            for operation in 0..10_000_u64 {
                random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(operation | 1);
                if !throttle.holds_back(now, random) {
                    sent += 1;
                    throttle.answered(left == 0, now);
                    left = left.saturating_sub(1);
                }
            }
        }
        sent
    }

    #[test]
    fn a_node_is_asked_about_twice_as_often_as_it_answers() {
        assert_eq!(sent(10_000), 10_000);
        assert_eq!(sent(6_000), 10_000);
        assert!((1_000..3_500).contains(&sent(1_000)), "{}", sent(1_000));
        assert!(sent(0) < 200, "{}", sent(0));
        assert!(sent(0) > 0, "or nobody would notice its recovery");
    }
}
