//! How fast a connection is read that sends and sends, and asks nothing by it.
//!
//! Bytes of messages that come to an end are of use, and are read as fast as they come. Others cost work and memory, and bring
//! nothing: what has come of a message that is not whole, and what belongs to none, as the rest of a message that was refused
//! for its length. A connection *owes* them. Those that owe more than their credit share [`BYTES_PER_SECOND`], whoever they are:
//! their sockets' buffers fill, and the senders wait.
//!
//! What may yet become whole is held against nobody while there is room: parallel calls with large values begin together and
//! end together. Once what is held of all connections' messages takes [`PRESSED_PART`] of its bound, credit is scarce: little
//! for a newcomer, more for who has sent whole messages.
//!
//! *Leaves out*: what is held in the end, which `unread.rs` bounds; frames without data, which `toll.rs` counts.

use std::time::Duration;

use tokio::time::Instant;

use crate::unread::Reader;

/// What all connections of a port that are without credit may send together: it costs less than a tenth of a core.
const BYTES_PER_SECOND: u64 = 64 * 1024 * 1024;
/// What is forgiven a connection that does not wait, at the most: what it sends in vain now and then adds up to nothing.
const FORGIVEN_PER_SECOND: u64 = 256 * 1024;
/// What may come and belong to no message. A connection's window, since all of it may lie there and wait for its turn.
const STRAY_BYTES_MAX: u64 = crate::services::CONNECTION_WINDOW_BYTES as u64;
/// The part of the bound of what is asked from which on room is scarce.
const PRESSED_PART: usize = 2;
/// A newcomer's credit when room is scarce.
const CREDIT_BYTES: u64 = 256 * 1024;
/// What whole messages add to it at the most: the longest that a peer sends.
const EARNED_BYTES_MAX: u64 = crate::peers::FRAME_BYTES_MAX as u64;
/// How long a connection without credit waits, so that it is not woken for every piece, and sees when there is room again.
const WAIT: Duration = Duration::from_millis(50);

/// What a connection has sent, and how much of it is forgiven since it waited.
#[derive(Debug)]
pub(crate) struct Pace {
    data_bytes: u64,
    forgiven_bytes: u64,
    since: Instant,
    waits: bool,
}

/// What is known of a connection's messages.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Account {
    /// Bytes of those that have come whole.
    pub(crate) whole_bytes: u64,
    /// Bytes that have come of those that have not.
    pub(crate) held_bytes: u64,
    /// Whether what is asked on all connections leaves little room.
    pub(crate) is_pressed: bool,
    /// Connections of the port that are without credit.
    pub(crate) slow: u64,
}

impl Account {
    /// As it is now.
    pub(crate) fn of(reader: &Reader) -> Self {
        let is_pressed = reader.node().asking_bytes() > reader.node().bytes_max() / PRESSED_PART;
        Self {
            whole_bytes: reader.whole_bytes(),
            held_bytes: reader.partial_bytes() as u64,
            is_pressed,
            slow: reader.node().slow() as u64,
        }
    }

    fn credit_bytes(&self) -> u64 {
        if self.is_pressed {
            CREDIT_BYTES + self.whole_bytes.min(EARNED_BYTES_MAX)
        } else {
            self.held_bytes + STRAY_BYTES_MAX
        }
    }
}

impl Pace {
    /// A connection that has sent nothing yet.
    pub(crate) fn new(now: Instant) -> Self {
        Self { data_bytes: 0, forgiven_bytes: 0, since: now, waits: false }
    }

    /// Data of this length are being read.
    pub(crate) fn data(&mut self, bytes: usize) {
        self.data_bytes += bytes as u64;
    }

    /// Whether the connection owes no more than its credit.
    pub(crate) fn is_within(&self, account: &Account) -> bool {
        self.data_bytes.saturating_sub(account.whole_bytes + self.forgiven_bytes) <= account.credit_bytes()
    }

    /// How long the connection is not to be read, if it owes more than its credit.
    pub(crate) fn due(&mut self, now: Instant, account: &Account) -> Option<Duration> {
        let useless = self.data_bytes.saturating_sub(account.whole_bytes);
        self.forgiven_bytes = self.forgiven_bytes.min(useless);
        let credit = account.credit_bytes();
        let shared = BYTES_PER_SECOND / account.slow.max(1);
        let rate = if self.waits { shared } else { shared.min(FORGIVEN_PER_SECOND) };
        let micros = u64::try_from(now.duration_since(self.since).as_micros()).unwrap_or(u64::MAX);
        self.since = now;
        // Never more than it owes: nobody saves up.
        let forgiven = micros.saturating_mul(rate) / 1_000_000;
        self.forgiven_bytes = self.forgiven_bytes.saturating_add(forgiven).min(useless);
        self.waits = useless - self.forgiven_bytes > credit;
        self.waits.then_some(WAIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;
    const PIECE: usize = 16 * 1024;
    /// So many that each has 512 KiB a second.
    const SLOW: u64 = 128;

    fn of(whole_bytes: u64, held_bytes: u64, is_pressed: bool) -> Account {
        Account { whole_bytes, held_bytes, is_pressed, slow: SLOW }
    }

    /// Sends so much in pieces, each as soon as it may be read, and tells how many seconds went by. What is held is all that
    /// came, or nothing.
    fn send(pace: &mut Pace, now: &mut Instant, bytes: u64, account: &Account, is_held: bool) -> f64 {
        let began = *now;
        for piece in 1..=bytes / PIECE as u64 {
            let account = Account { held_bytes: if is_held { piece * PIECE as u64 } else { 0 }, ..*account };
            while !pace.is_within(&account) {
                match pace.due(*now, &account) {
                    Some(wait) => *now += wait,
                    None => break,
                }
            }
            pace.data(PIECE);
        }
        (*now - began).as_secs_f64()
    }

    #[test]
    fn messages_that_become_whole_never_wait() {
        let (now, mut whole_bytes) = (Instant::now(), 0);
        let mut pace = Pace::new(now);
        let mut message = |bytes: u64, is_pressed: bool| {
            for piece in 0..bytes / PIECE as u64 {
                let account = of(whole_bytes, piece * PIECE as u64, is_pressed);
                assert!(pace.is_within(&account), "at {piece} of {bytes} bytes");
                pace.data(PIECE);
            }
            whole_bytes += bytes;
        };
        for _ in 0..100 {
            message(MIB / 4, true);
        }
        for _ in 0..100 {
            message(8 * MIB, true);
            message(4 * MIB, false);
        }
    }

    #[test]
    fn what_is_held_waits_only_where_room_is_scarce() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        assert_eq!(send(&mut pace, &mut now, 256 * MIB, &of(0, 0, false), true), 0.0);
        let took = send(&mut Pace::new(now), &mut now, 10 * MIB, &of(0, 0, true), true);
        assert!((19.0..20.0).contains(&took), "{took} s");
        // What it owes from better times is not asked back at once, and nothing more is lent.
        let took = send(&mut pace, &mut now, 2 * MIB, &of(0, 0, true), true);
        assert!(took > 400.0, "{took} s");
    }

    #[test]
    fn what_belongs_to_no_message_is_read_slowly() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        let took = send(&mut pace, &mut now, 46 * MIB, &of(0, 0, false), false);
        assert!((59.0..61.0).contains(&took), "{took} s");
        // Whoever was silent for long has its credit again, and not more.
        now += Duration::from_secs(1_000_000);
        let took = send(&mut pace, &mut now, 46 * MIB, &of(0, 0, false), false);
        assert!((57.0..61.0).contains(&took), "{took} s");
    }
}
