//! What an HTTP/2 connection may say that asks for nothing: frames are counted as they are read, and past an allowance the
//! connection is read more slowly.
//!
//! A ping, settings, a reset, a frame of data without data cost whoever sends them next to nothing, and cost us some work each,
//! on the thread that does everything else too. None of them is wrong by itself, so nobody is cut for them: the connection
//! waits, its socket's buffers fill, and the sender waits too. What a connection does that is of use pays for them: calls,
//! data, and what is sent to it.
//!
//! *Leaves out*: calls themselves (see `inbox.rs`), and many connections that each stay within their allowance: a port's bound
//! of connections is theirs.

use std::time::Duration;

use tokio::time::Instant;

/// Length of what a client's connection begins with.
const PREFACE_BYTES: usize = 24;
const HEADER_BYTES: usize = 9;
/// Kinds of frames.
const DATA: u8 = 0;
const HEADERS: u8 = 1;

/// Frames of no use that a connection may send at once, and then so many a second. Past it it is read no faster.
const FRAMES_BURST: i64 = 2_000;
const FRAMES_PER_SECOND: i64 = 500;
/// What a call pays for: its own resets, and the window that a client grants for the answer.
const CALL_PAYS: i64 = 4;
/// So many bytes of data, in either direction, pay for one frame.
const BYTES_PAY: usize = 64;
/// How long a connection waits at the least once its allowance is used up, so that it is not woken for every frame.
const WAIT_LEAST: Duration = Duration::from_millis(50);

/// The account of a connection.
#[derive(Debug)]
pub(crate) struct Toll {
    /// Frames that are left. Below zero for as many as came in one piece after it was used up.
    left: i64,
    /// When the last were granted.
    granted: Instant,
    /// Bytes of the preface or a payload that are to come before the next header.
    skip: usize,
    header: [u8; HEADER_BYTES],
    header_bytes: usize,
    /// Bytes that were sent and have not paid for a whole frame.
    sent_bytes: usize,
}

impl Toll {
    /// A connection that has said nothing yet.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            left: FRAMES_BURST,
            granted: now,
            skip: PREFACE_BYTES,
            header: [0; HEADER_BYTES],
            header_bytes: 0,
            sent_bytes: 0,
        }
    }

    /// Whether the connection may be read, as far as its frames go.
    pub(crate) fn is_paid(&self) -> bool {
        self.left > 0
    }

    /// Grants what is due by now, and says how long the connection has to wait, if it has.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Duration> {
        let micros = i64::try_from(now.duration_since(self.granted).as_micros()).unwrap_or(i64::MAX);
        let granted = micros.saturating_mul(FRAMES_PER_SECOND) / 1_000_000;
        if granted > 0 {
            self.granted = now;
            self.pay(granted);
        }
        let millis = (1 - self.left).max(0) * 1_000 / FRAMES_PER_SECOND;
        let wait = Duration::from_millis(u64::try_from(millis).unwrap_or(0)).max(WAIT_LEAST);
        (self.left <= 0).then_some(wait)
    }

    fn pay(&mut self, frames: i64) {
        self.left = self.left.saturating_add(frames).min(FRAMES_BURST);
    }

    /// These bytes were read. Tells how long the data are that begin in them.
    pub(crate) fn read(&mut self, mut bytes: &[u8]) -> usize {
        let mut data_bytes = 0;
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            let taken = (HEADER_BYTES - self.header_bytes).min(bytes.len());
            self.header[self.header_bytes..self.header_bytes + taken].copy_from_slice(&bytes[..taken]);
            self.header_bytes += taken;
            bytes = &bytes[taken..];
            if self.header_bytes == HEADER_BYTES {
                self.header_bytes = 0;
                let [high, middle, low, kind, ..] = self.header;
                self.skip = u32::from_be_bytes([0, high, middle, low]) as usize;
                self.frame(kind);
                data_bytes += if kind == DATA { self.skip } else { 0 };
            }
        }
        data_bytes
    }

    fn frame(&mut self, kind: u8) {
        match kind {
            HEADERS => self.pay(CALL_PAYS),
            // Tiny ones are HTTP/2's own to bound: a client that asks for one small thing after the other sends them too.
            DATA if self.skip > 0 => self.pay(1 + (self.skip / BYTES_PAY) as i64),
            _ => self.left -= 1,
        }
    }

    /// So many bytes were sent.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.sent_bytes += bytes;
        if self.sent_bytes >= BYTES_PAY {
            self.pay((self.sent_bytes / BYTES_PAY) as i64);
            self.sent_bytes %= BYTES_PAY;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, length: usize) -> Vec<u8> {
        let mut frame = vec![0, (length >> 8) as u8, length as u8, kind, 0, 0, 0, 0, 1];
        frame.resize(HEADER_BYTES + length, 7);
        frame
    }

    fn greeted() -> Toll {
        let mut toll = Toll::new(Instant::now());
        toll.read(&[0; PREFACE_BYTES]);
        toll
    }

    #[test]
    fn past_the_allowance_a_connection_waits_and_then_gets_so_many_a_second() {
        let mut toll = greeted();
        let ping = frame(6, 8);
        toll.read(&ping.repeat(FRAMES_BURST as usize - 1));
        assert!(toll.is_paid());
        toll.read(&ping);
        assert!(toll.left <= 0);
        let (began, mut now) = (toll.granted, toll.granted);
        for _ in 0..10_000 {
            while let Some(wait) = toll.due(now) {
                now += wait;
            }
            toll.read(&ping);
        }
        let (took, fair) = ((now - began).as_secs_f64(), 10_000.0 / FRAMES_PER_SECOND as f64);
        assert!((took / fair - 1.0).abs() < 0.1, "{took} s, where {fair} s are fair");
    }

    #[test]
    fn bytes_that_come_one_by_one_are_the_same_frames() {
        let (mut whole, mut single) = (greeted(), greeted());
        let bytes = [frame(6, 8), frame(0, 0), frame(0, 1_000), frame(1, 20), frame(4, 6), frame(0, 10)].concat();
        whole.left = 100;
        single.left = 100;
        let data_bytes: usize = bytes.iter().map(|byte| single.read(&[*byte])).sum();
        assert_eq!((whole.read(&bytes), data_bytes), (1_010, 1_010));
        assert_eq!((whole.left, whole.skip, whole.header_bytes), (single.left, single.skip, single.header_bytes));
        assert_eq!(whole.left, 100 - 3 + 1 + 1_000 / BYTES_PAY as i64 + CALL_PAYS + 1);
    }

    #[test]
    fn calls_and_what_is_sent_pay() {
        let mut toll = greeted();
        // A call, its small message, the windows that a simple client grants after each answer.
        let call = [frame(1, 60), frame(0, 20), frame(8, 4), frame(8, 4)].concat();
        for _ in 0..100_000 {
            assert!(toll.is_paid());
            toll.read(&call);
        }
        // Answers on one stream, and a window granted for each.
        for _ in 0..100_000 {
            assert!(toll.is_paid());
            toll.sent(BYTES_PAY);
            toll.read(&frame(8, 4));
        }
    }

    #[test]
    fn resets_of_calls_are_paid_by_the_calls() {
        let mut toll = greeted();
        let pair = [frame(1, 60), frame(3, 4)].concat();
        for _ in 0..100_000 {
            toll.read(&pair);
        }
        assert!(toll.is_paid(), "who resets before a call is taken is closed by HTTP/2's own bound");
    }
}
