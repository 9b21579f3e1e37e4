//! Faults on request, to see what a node does: a disk that is silent or fails, a panic.
//!
//! The node asks at the places where these would strike. `serve` uses [`Faults::default`], which has none.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use kv_core::disk::{DiskError, DiskErrorKind};

/// How often a stalled log looks whether it may go on.
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

    /// The log's next sync fails.
    pub fn fail_log(&self) {
        self.asked.log_fails.store(true, Ordering::Release);
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
        while self.asked.log_stalls.load(Ordering::Acquire) && !is_ending() {
            thread::sleep(LOOK_EVERY);
        }
        if self.asked.log_fails.swap(false, Ordering::AcqRel) {
            return Err(DiskError::new(DiskErrorKind::Io, "the log can't be synced: by request"));
        }
        Ok(())
    }

    /// In a turn.
    pub(crate) fn in_turn(&self) {
        assert!(!self.asked.turn_panics.swap(false, Ordering::AcqRel), "by request");
    }

    /// In a replica's lookup.
    pub(crate) fn in_lookup(&self) {
        assert!(!self.asked.lookup_panics.swap(false, Ordering::AcqRel), "by request");
    }
}
