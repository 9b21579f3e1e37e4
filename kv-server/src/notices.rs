//! What an operator reads in the log: the core's notices, and requests that took long.

use std::{
    fmt::{self, Display},
    time::{Duration, Instant},
};

use kv_core::{
    io::Notice,
    types::{NodeId, Time},
};

use crate::{metrics::Metrics, pending::Pending, seldom::Seldom, shared::Shared};

/// A request that took longer is named.
const SLOW_MICROS: u64 = 1_000_000;

/// Names slow requests, not all of them.
#[derive(Default)]
pub(crate) struct SlowRequests {
    seldom: Seldom,
}

impl SlowRequests {
    /// A request was answered.
    pub(crate) fn answered(&self, pending: &Pending, now: Time, succeeded: bool) {
        let took = now.micros_since(pending.since);
        // Who waits for durability means to wait.
        if took < SLOW_MICROS || pending.what == "wait durable" {
            return;
        }
        let Some(unnamed) = self.seldom.now() else { return };
        let (what, shard, took_ms) = (pending.what, pending.shard, took / 1_000);
        tracing::warn!(what, %shard, took_ms, succeeded, unnamed, "a request was slow");
    }
}

/// Steps of one thread that take longer than they should: a turn, a sync, a segment's preparation. What waits for such a step
/// is slow for no fault of its own, and elections come of it.
pub(crate) struct SlowSteps {
    slow: Duration,
    seldom: Seldom,
}

impl SlowSteps {
    /// Steps that take as long as this are slow.
    pub(crate) fn new(slow: Duration) -> Self {
        Self { slow, seldom: Seldom::default() }
    }

    /// A step was taken that began then; how long it took. A slow one is named, at most one a second.
    pub(crate) fn took(&self, what: &'static str, began: Instant) -> Duration {
        let took = began.elapsed();
        if took >= self.slow
            && let Some(unnamed) = self.seldom.now()
        {
            tracing::warn!(what, took_ms = took.as_millis() as u64, unnamed, "a step was slow");
        }
        took
    }
}

/// Names and counts messages of peers that are refused: a peer that sends one may send thousands.
#[derive(Default)]
pub(crate) struct RefusedMessages {
    seldom: Seldom,
}

impl RefusedMessages {
    /// A message was refused, for one of a few reasons; `what` says more of it.
    pub(crate) fn refused(&self, from: NodeId, reason: &'static str, what: &dyn Display, metrics: &Metrics) {
        metrics.peer_message_refused(reason);
        if let Some(unnamed) = self.seldom.now() {
            tracing::warn!(%from, reason, %what, unnamed, "a message of a peer was refused");
        }
    }
}

/// A list in one field.
struct Listed(Vec<String>);

impl Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

/// Writes a notice of the core to the log.
pub(crate) fn tell(notice: &Notice, shared: &Shared) {
    match notice {
        Notice::Role { shard, leads, leader, .. } => shared.leaders.told(*shard, *leads, *leader),
        // It hears of no leader any more: whoever led may be gone.
        Notice::Quarantined { shard, .. } => shared.leaders.told(*shard, false, None),
        _ => {}
    }
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
        Notice::MarkSkipped { shard, index } => {
            shared.metrics.mark_skipped(*shard);
            tracing::debug!(%shard, %index, "a replica was too busy with a checkpoint for a mark");
        }
        Notice::Diverged { shard, index, own, majority, held_by } => {
            shared.metrics.state_replaced(*shard);
            let held_by = Listed(held_by.iter().map(|node| format!("n{node}")).collect());
            tracing::error!(
                %shard, %index, digest = %own, majority = %majority, %held_by,
                "a replica's state differs from that of a majority: it is thrown away, and taken over from one of them"
            );
        }
        Notice::Disputed { shard, index, held } => {
            let held = Listed(held.iter().map(|(node, digest)| format!("n{node}: {digest}")).collect());
            tracing::error!(
                %shard, %index, %held,
                "replicas hold different states and no majority agrees on one: the shard answers nobody until one does; bring \
                 its other nodes up"
            );
        }
        Notice::Settled { shard } => {
            tracing::warn!(%shard, "a majority agrees with the replica's state: it serves again");
        }
        Notice::Refused { from, shard, reason } => {
            let what = shard.map_or_else(|| "the map, or several shards".to_owned(), |shard| format!("shard {shard}"));
            shared.refused_messages.refused(*from, reason, &what, &shared.metrics);
        }
        Notice::LogStalled => {
            tracing::error!("the log's disk does not answer; leaderships are handed over");
        }
        Notice::LogAnswers => tracing::info!("the log's disk answers again"),
        Notice::DiskLow { free_bytes } => {
            tracing::error!(free_bytes, "little space is left on the disk; client writes are refused");
        }
        Notice::DiskEnough { free_bytes } => {
            tracing::info!(free_bytes, "there is space again on the disk; client writes are taken");
        }
    }
}
