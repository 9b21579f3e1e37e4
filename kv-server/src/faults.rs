//! Faults on request, to see what a node does: a process that stands still, a disk that is slow, silent, full or fails, a panic.
//!
//! The node asks at the places where these would strike. `serve` uses [`Faults::default`], which has none.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use kv_core::disk::{DiskError, DiskErrorKind};

/// How often what stands still looks whether it may go on.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The faults of one node. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    asked: Arc<Asked>,
}

#[derive(Debug, Default)]
struct Asked {
    log_stalls: AtomicBool,
    log_fails: AtomicBool,
    /// Microseconds.
    log_delay: AtomicU64,
    disk_full: AtomicBool,
    paused: AtomicBool,
    turn_panics: AtomicBool,
    lookup_panics: AtomicBool,
}

impl Faults {
    /// The log's disk does not answer until [`Faults::resume_log`].
    pub fn stall_log(&self) {
        self.asked.log_stalls.store(true, Ordering::Release);
    }

    /// The log's disk answers again.
    pub fn resume_log(&self) {
        self.asked.log_stalls.store(false, Ordering::Release);
    }

    /// Each sync of the log takes so much longer from now on; zero ends it.
    pub fn slow_log(&self, delay: Duration) {
        let micros = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        self.asked.log_delay.store(micros, Ordering::Release);
    }

    /// The node finds its disk full, or no longer, the next time it looks, which is within a second or so.
    pub fn fill_disk(&self, is_full: bool) {
        self.asked.disk_full.store(is_full, Ordering::Release);
    }

    /// The node stands still from its next turn on, its connections open, until [`Faults::resume`].
    pub fn pause(&self) {
        self.asked.paused.store(true, Ordering::Release);
    }

    /// The node goes on.
    pub fn resume(&self) {
        self.asked.paused.store(false, Ordering::Release);
    }

    /// The log's next sync fails.
    pub fn fail_log(&self) {
        self.asked.log_fails.store(true, Ordering::Release);
    }

    /// A failure of a sync that was asked for, and has not come yet, does not.
    pub fn forget_failure(&self) {
        self.asked.log_fails.store(false, Ordering::Release);
    }

    /// The next turn panics.
    pub fn panic_in_turn(&self) {
        self.asked.turn_panics.store(true, Ordering::Release);
    }

    /// The next replica that looks something up in the read index panics, which takes it out of service.
    pub fn panic_in_lookup(&self) {
        self.asked.lookup_panics.store(true, Ordering::Release);
    }

    /// Before a batch of the log: waits while the disk does not answer, unless the node is to end.
    pub(crate) fn before_sync(&self, is_ending: impl Fn() -> bool) -> Result<(), DiskError> {
        stand_still(&self.asked.log_stalls, &is_ending);
        let delay = Duration::from_micros(self.asked.log_delay.load(Ordering::Acquire));
        let began = Instant::now();
        while began.elapsed() < delay && !is_ending() {
            thread::sleep(LOOK_EVERY.min(delay));
        }
        if self.asked.log_fails.swap(false, Ordering::AcqRel) {
            return Err(DiskError::new(DiskErrorKind::Io, "the log can't be synced: by request"));
        }
        Ok(())
    }

    /// How much space is left, if so much is.
    pub(crate) fn disk_free(&self, bytes: u64) -> u64 {
        if self.asked.disk_full.load(Ordering::Acquire) { 0 } else { bytes }
    }

    /// In a turn: waits while the node stands still, unless it is to end.
    pub(crate) fn in_turn(&self, is_ending: impl Fn() -> bool) {
        stand_still(&self.asked.paused, &is_ending);
        assert!(!self.asked.turn_panics.swap(false, Ordering::AcqRel), "by request");
    }

    /// In a replica's lookup.
    pub(crate) fn in_lookup(&self) {
        assert!(!self.asked.lookup_panics.swap(false, Ordering::AcqRel), "by request");
    }
}

fn stand_still(is_asked: &AtomicBool, is_ending: &impl Fn() -> bool) {
    while is_asked.load(Ordering::Acquire) && !is_ending() {
        thread::sleep(LOOK_EVERY);
    }
}
