//! When the next message of a link may leave.
//!
//! Messages of sync writes are paced by those that come back, as TCP paces small segments (RFC 896): after a message the next one
//! leaves when the node has sent something, when few operations of whatever kind are outstanding, or when it has been held for
//! [`HELD_MAX`]. A few callers never wait for it. Of many at once, those whom an answer sets free ask together, and the node has fewer
//! and larger messages, turns and syncs for the same writes. Reads and async writes are not held, and what is held leaves with them:
//! they cost no sync, and their answers take hardly longer than the way there and back. A write that leaves its durability to the
//! cluster counts as sync: a link does not know what the cluster's is.
//!
//! Nothing is held where several threads run the callers: there the sender runs before those whom an answer has just set free, so
//! that groups of callers alternate and messages become smaller (256 puts under way lost a fifth of their throughput). A sender that first
//! lets all run that can, once after each answer, still loses a tenth with 64 under way.
//!
//! Leaves out what is in a message, and the clock.

use std::time::Duration;

use tokio::{runtime::RuntimeFlavor, time::Instant};

/// Longest time for which a message is held, up to the runtime's clock, which rings in whole milliseconds: two mostly, and less than
/// three. No caller waits long for what others have asked, however far away the node is.
pub(super) const HELD_MAX: Duration = Duration::from_millis(1);

/// While fewer operations than this are outstanding on a link nothing is held: there would be little to gain, and each would wait
/// longer than it has to. Eight puts under way on three links lost a tenth of their throughput by it.
pub(super) const OUTSTANDING_HELD_MIN: usize = 8;

/// What a link knows of the messages that went and came.
#[derive(Debug)]
pub(super) struct Pacing {
    /// Whether anything is held at all.
    is_on: bool,
    /// A message has left, and nothing has come since.
    is_ahead: bool,
    /// Until when the next message is held, if it is.
    held_until: Option<Instant>,
}

impl Pacing {
    /// A link on a runtime of this kind, that has sent nothing yet.
    pub(super) fn new(flavor: RuntimeFlavor) -> Self {
        Self { is_on: flavor == RuntimeFlavor::CurrentThread, is_ahead: false, held_until: None }
    }

    /// Until when the next message must wait, with so many operations outstanding; `None` if it may leave. To be asked only
    /// when there is something to send.
    pub(super) fn hold(&mut self, now: Instant, outstanding: usize) -> Option<Instant> {
        let until = self.held_until.take().unwrap_or(now + HELD_MAX);
        if self.is_ahead && outstanding >= OUTSTANDING_HELD_MIN && now < until {
            self.held_until = Some(until);
        }
        self.held_until
    }

    /// Whether a message is held: what more is to be sent joins it, and nobody has to be told.
    pub(super) fn is_holding(&self) -> bool {
        self.held_until.is_some()
    }

    /// A message has left. One that was full is no reason to hold the next.
    pub(super) fn sent(&mut self, was_full: bool) {
        *self = Self { is_ahead: self.is_on && !was_full, held_until: None, ..*self };
    }

    /// The node has sent something, or the stream is another one: the next message may leave.
    pub(super) fn release(&mut self) {
        *self = Self { is_ahead: false, held_until: None, ..*self };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: usize = OUTSTANDING_HELD_MIN;

    #[test]
    fn a_message_is_held_until_the_node_sends_something_or_little_is_outstanding() {
        let (now, mut pacing) = (Instant::now(), Pacing::new(RuntimeFlavor::CurrentThread));
        assert_eq!(pacing.hold(now, MANY), None);
        pacing.sent(false);
        assert!(!pacing.is_holding());
        assert_eq!(pacing.hold(now, MANY), Some(now + HELD_MAX));
        assert!(pacing.is_holding());
        assert_eq!(pacing.hold(now, MANY - 1), None, "the others were answered");
        assert!(!pacing.is_holding(), "who puts in something now has to tell");
        assert_eq!(pacing.hold(now, MANY), Some(now + HELD_MAX));
        pacing.release();
        assert_eq!((pacing.hold(now, MANY), pacing.is_holding()), (None, false));
    }

    #[test]
    fn a_message_is_held_for_a_bounded_time_from_when_there_was_one() {
        let (began, mut pacing) = (Instant::now(), Pacing::new(RuntimeFlavor::CurrentThread));
        pacing.sent(false);
        let later = began + 5 * HELD_MAX;
        assert_eq!(pacing.hold(later, MANY), Some(later + HELD_MAX));
        assert_eq!(pacing.hold(later + HELD_MAX / 2, MANY), Some(later + HELD_MAX));
        assert_eq!((pacing.hold(later + HELD_MAX, MANY), pacing.is_holding()), (None, false));
        pacing.sent(false);
        assert_eq!(pacing.hold(later + HELD_MAX, MANY), Some(later + 2 * HELD_MAX));
    }

    #[test]
    fn nothing_is_held_on_a_runtime_of_several_threads() {
        let (now, mut pacing) = (Instant::now(), Pacing::new(RuntimeFlavor::MultiThread));
        for _ in 0..2 {
            pacing.sent(false);
            assert_eq!((pacing.hold(now, 1_000), pacing.is_holding()), (None, false));
            pacing.release();
        }
    }

    #[test]
    fn what_did_not_fit_into_a_message_follows_at_once() {
        let (now, mut pacing) = (Instant::now(), Pacing::new(RuntimeFlavor::CurrentThread));
        pacing.sent(true);
        assert_eq!(pacing.hold(now, MANY), None);
    }
}
