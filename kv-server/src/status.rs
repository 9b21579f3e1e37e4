//! How a node is doing, as of one turn.

use std::collections::BTreeMap;

use kv_core::{
    node::{NodeStatus, ShardStatus},
    types::{LogIndex, ShardId},
};

/// What a node says of itself when it is asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    /// The core's own account; `None` until the cluster is founded.
    pub(crate) node: Option<NodeStatus>,
    /// Whether it takes traffic.
    pub(crate) ready: bool,
    /// Events that wait for a turn.
    pub(crate) inbox_events: usize,
    /// Requests taken and not yet answered.
    pub(crate) requests_outstanding: usize,
    /// Bytes of answers that clients have not read.
    pub(crate) unread_bytes: usize,
    /// Bytes of calls that are open, and of messages that are not whole.
    pub(crate) asking_bytes: usize,
    /// Messages to peers that wait for their connections.
    pub(crate) peer_queue_messages: usize,
    /// Free bytes on the disk of the data directory.
    pub(crate) disk_free_bytes: u64,
    /// Size of the log's segments in bytes.
    pub(crate) log_bytes: u64,
    /// Blocks of the log written and synced since the node started.
    pub(crate) log_syncs: u64,
    /// Bytes of these blocks.
    pub(crate) log_written_bytes: u64,
}

impl Report {
    /// The replicas, ascending by shard.
    pub(crate) fn shards(&self) -> &[ShardStatus] {
        self.node.as_ref().map_or(&[], |node| &node.shards)
    }
}

/// Why a node is not ready; `None` if it is: every replica serves, has a leader, and has applied what its log knew to be
/// committed when the node started.
pub(crate) fn unready(shards: &[ShardStatus], committed_at_start: &BTreeMap<ShardId, LogIndex>) -> Option<String> {
    shards.iter().find_map(|shard| {
        let must = committed_at_start.get(&shard.shard).copied().unwrap_or_default();
        let what = if shard.quarantined {
            "is out of service"
        } else if !shard.live {
            "has not proven its state yet"
        } else if shard.disputed {
            "holds another state than others, and no majority agrees on one"
        } else if shard.applied < must {
            "has not applied yet what was committed when the node started"
        } else if shard.leader.is_none() {
            "knows no leader"
        } else {
            return None;
        };
        Some(format!("the replica of shard {} {what}", shard.shard))
    })
}
