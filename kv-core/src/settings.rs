//! What of a node can be set, with defaults that serve. Times are in ticks of the logical clock unless they say otherwise.

use crate::{log::record::BLOCK_BYTES_MAX, state::sessions::SessionBounds};

/// Settings of one node. All nodes of a cluster should have the same timing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Length of a tick in microseconds. Only for turning a read's age and a request's deadline into ticks and back.
    pub tick_micros: u64,
    /// A leader sends heartbeats this often.
    pub heartbeat_ticks: u64,
    /// A follower that heard nothing campaigns after this many ticks up to twice as many.
    pub election_ticks: u64,
    /// Leadership goes to the ring's owner once it has been healthy and caught up for this long.
    pub hand_over_ticks: u64,
    /// Least ticks between two such hand-overs of one shard.
    pub hand_over_pause_ticks: u64,
    /// A checkpoint is made after this long with writes, even if nothing else asks for one.
    pub checkpoint_ticks: u64,
    /// A checkpoint is due once this share of `active_bytes_max` or `kept_bytes_max` is taken, in percent. The more, the more often a
    /// key that is overwritten is written to files and read index once for several writes; the less, the sooner log and
    /// memory are free again. Twelve shards with even loads should stay below `kept_node_bytes_max` and half of
    /// `tables_bytes_max`, past which checkpoints are due whatever this says.
    pub checkpoint_percent: usize,
    /// Active table of a shard; past it a checkpoint waits for a mark for a few ticks only.
    pub active_bytes_max: usize,
    /// Active and frozen tables of all shards of the node together; past it writes are refused and appends wait.
    pub tables_bytes_max: usize,
    /// Entries kept in memory behind a shard's checkpoint, for followers that lag.
    pub kept_bytes_max: usize,
    /// Entries kept in memory for all shards of the node.
    pub kept_node_bytes_max: usize,
    /// Entries that one turn applies, in bytes of all shards together, past which each shard gets one more; the rest waits for
    /// the next turn. After a start or a long absence there may be hundreds of MiB, and ticks must not wait for them.
    pub apply_bytes_max: usize,
    /// Values that one turn reads for its answers, in bytes of all shards together; past it reads are refused as overloaded. Small
    /// requests may ask for large values, and all answers of a turn are in memory at once.
    pub answer_bytes_max: usize,
    /// Entries of a shard that are proposed but not yet committed.
    pub uncommitted_bytes_max: usize,
    /// Async writes of a shard that are acknowledged but not yet decided: how many.
    pub async_commands_max: usize,
    /// How many bytes of them.
    pub async_bytes_max: usize,
    /// For how long, in microseconds of the node's clock. Should that step back by less than has passed since the last turn,
    /// nobody sees it, and it is for longer by as much; the two bounds above hold whatever a clock does.
    pub async_micros_max: u64,
    /// Requests that wait for their answer, per shard; past it they are refused.
    pub waiting_requests_max: usize,
    /// How much a shard remembers of its clients' sessions. The constants, everywhere but in simulations: all replicas of a
    /// shard must have the same, so no configuration sets them.
    pub session_bounds: SessionBounds,
    /// Records in one block of the log; at most [`crate::log::record::BLOCK_BYTES_MAX`], and well below a segment.
    pub block_bytes_max: usize,
    /// Client writes are refused while the log's segments take more than this; it counts on checkpoints to free them.
    pub log_bytes_max: u64,
    /// Client writes are refused while less is free on the disk.
    pub disk_reserve_bytes: u64,
    /// A stream of files that has not ended by then is given up.
    pub stream_ticks_max: u64,
}

impl Default for Settings {
    fn default() -> Self {
        const MIB: usize = 1024 * 1024;
        Self {
            tick_micros: 50_000,
            heartbeat_ticks: 2,
            election_ticks: 10,
            hand_over_ticks: 200,
            hand_over_pause_ticks: 1_200,
            checkpoint_ticks: 1_200,
            checkpoint_percent: 65,
            active_bytes_max: 16 * MIB,
            tables_bytes_max: 256 * MIB,
            kept_bytes_max: 16 * MIB,
            kept_node_bytes_max: 256 * MIB,
            apply_bytes_max: 4 * MIB,
            answer_bytes_max: 64 * MIB,
            uncommitted_bytes_max: 16 * MIB,
            async_commands_max: 1_000,
            async_bytes_max: MIB,
            async_micros_max: 100_000,
            waiting_requests_max: 65_536,
            session_bounds: SessionBounds::default(),
            block_bytes_max: BLOCK_BYTES_MAX,
            log_bytes_max: 1024 * MIB as u64,
            disk_reserve_bytes: 256 * MIB as u64,
            stream_ticks_max: 12_000,
        }
    }
}
