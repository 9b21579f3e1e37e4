//! What an operator reads in the log: the core's notices, and requests that took long.

use std::time::{Duration, Instant};

use kv_core::{io::Notice, types::Time};

use crate::pending::Pending;

/// A request that took longer is named.
const SLOW_MICROS: u64 = 1_000_000;
/// At most one is named in this time.
const SLOW_PAUSE_MICROS: u64 = 1_000_000;

/// Names slow requests, not all of them.
#[derive(Default)]
pub(crate) struct SlowRequests {
    last: Option<Time>,
    unnamed: u64,
}

impl SlowRequests {
    /// A request was answered.
    pub(crate) fn answered(&mut self, pending: &Pending, now: Time, succeeded: bool) {
        let took = now.micros_since(pending.since);
        // Who waits for durability means to wait.
        if took < SLOW_MICROS || pending.what == "wait durable" {
            return;
        }
        if self.last.is_some_and(|last| now.micros_since(last) < SLOW_PAUSE_MICROS) {
            self.unnamed += 1;
            return;
        }
        let unnamed = std::mem::take(&mut self.unnamed);
        self.last = Some(now);
        let (what, shard, took_ms) = (pending.what, pending.shard, took / 1_000);
        tracing::warn!(what, %shard, took_ms, succeeded, unnamed, "a request was slow");
    }
}

/// Steps of one thread that take longer than they should: a turn, a sync, a segment's preparation. What waits for such a step
/// is slow for no fault of its own, and elections come of it.
pub(crate) struct SlowSteps {
    slow: Duration,
    last: Option<Instant>,
    unnamed: u64,
}

impl SlowSteps {
    /// Steps that take as long as this are slow.
    pub(crate) fn new(slow: Duration) -> Self {
        Self { slow, last: None, unnamed: 0 }
    }

    /// A step was taken that began then; how long it took. A slow one is named, at most one a second.
    pub(crate) fn took(&mut self, what: &'static str, began: Instant) -> Duration {
        let took = began.elapsed();
        if took >= self.slow {
            if self.last.is_some_and(|last| last.elapsed() < Duration::from_micros(SLOW_PAUSE_MICROS)) {
                self.unnamed += 1;
            } else {
                let unnamed = std::mem::take(&mut self.unnamed);
                self.last = Some(Instant::now());
                tracing::warn!(what, took_ms = took.as_millis() as u64, unnamed, "a step was slow");
            }
        }
        took
    }
}

/// Writes a notice of the core to the log.
pub(crate) fn tell(notice: &Notice) {
    match notice {
        Notice::Role { shard, leads: true, term, .. } => tracing::info!(%shard, %term, "this node leads a shard"),
        Notice::Role { shard, term, leader, .. } => {
            tracing::debug!(%shard, %term, leader = leader.map(|node| node.0), "a shard has another leader");
        }
        Notice::Quarantined { shard, reason } => {
            tracing::error!(%shard, %reason, "a replica is out of service until the node is started again");
        }
        Notice::Verified { shard, index } => tracing::debug!(%shard, %index, "a replica has proven its state"),
        Notice::StateLost { shard, reason } => {
            tracing::warn!(%shard, %reason, "a replica takes its state from a peer");
        }
        Notice::Refused { from, reason } => tracing::warn!(%from, %reason, "a message of a peer was refused"),
        Notice::LogStalled => {
            tracing::error!("the log's disk does not answer; leaderships are handed over");
        }
        Notice::DiskLow { free_bytes } => {
            tracing::error!(free_bytes, "little space is left on the disk; client writes are refused");
        }
    }
}
