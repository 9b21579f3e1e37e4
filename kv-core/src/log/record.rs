//! What a block of the log holds: records of all shards, in the order in which they take effect.
//!
//! Recovery folds records, oldest first, into one [`RecoveredShard`] a shard: a later record wins, an entry removes all
//! entries at or above its index, an install removes all earlier entries of its shard.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{
    configuration::Configuration,
    types::{BatchNumber, Digest, LogIndex, ReplicaId, ShardId, Term},
};

/// The content of one block: what the turns since the last block want to have on disk, synced as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogBatch {
    /// Its number, reported when it is synced.
    pub number: BatchNumber,
    /// Its records, at most [`BLOCK_BYTES_MAX`] bytes of them.
    pub records: Vec<Record>,
}

/// What the log says after a batch is synced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogReport {
    /// Size of the block that was written for the batch, whole sectors.
    pub block_bytes: u64,
    /// The batch.
    pub number: BatchNumber,
    /// Size of the segments in use, in bytes. Those prepared for later don't count.
    pub bytes: u64,
    /// Shards that keep the oldest segment from being recycled, if the log is past half of its bound.
    pub pinned_by: Vec<ShardId>,
}

/// Most bytes of records in one block; what is over waits for the next.
pub const BLOCK_BYTES_MAX: usize = 8 * 1024 * 1024;

/// One fact about one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A replica begins on this node, as if a snapshot stood at the boundary.
    Create {
        /// The shard.
        shard: ShardId,
        /// The replica's id.
        replica: ReplicaId,
        /// Its hard state.
        hard_state: HardState,
        /// Where its log begins.
        boundary: Boundary,
    },
    /// An entry; it removes all entries at or above its index.
    Entry {
        /// The shard.
        shard: ShardId,
        /// The entry.
        entry: LogEntry,
    },
    /// Term, vote and commit index.
    HardState {
        /// The shard.
        shard: ShardId,
        /// The newest values.
        hard_state: HardState,
    },
    /// Entries at or below the boundary are given up: a checkpoint at or above it is durable.
    Boundary {
        /// The shard.
        shard: ShardId,
        /// The last entry given up.
        boundary: Boundary,
    },
    /// A snapshot takes the place of all earlier entries; its files wait, synced and verified, in a staging directory.
    Install {
        /// The shard.
        shard: ShardId,
        /// What is installed.
        install: Install,
    },
    /// The replica is gone from this node for good.
    Tombstone {
        /// The shard.
        shard: ShardId,
        /// The replica's id, never to be used again.
        replica: ReplicaId,
    },
}

impl Record {
    /// The shard that the record is about.
    #[must_use]
    pub fn shard(&self) -> ShardId {
        match self {
            Self::Create { shard, .. }
            | Self::Entry { shard, .. }
            | Self::HardState { shard, .. }
            | Self::Boundary { shard, .. }
            | Self::Install { shard, .. }
            | Self::Tombstone { shard, .. } => *shard,
        }
    }

    /// About how many bytes it takes in a block; never fewer than it takes.
    #[must_use]
    pub fn bytes_about(&self) -> usize {
        match self {
            Self::Entry { entry, .. } => 64 + entry.data.len() + entry.context.len(),
            Self::HardState { .. } | Self::Tombstone { .. } => 64,
            Self::Create { boundary, .. } | Self::Boundary { boundary, .. } => {
                128 + boundary.configuration.bytes_about()
            }
            Self::Install { install, .. } => 160 + install.configuration.bytes_about(),
        }
    }
}

/// An entry of a shard's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Its index.
    pub index: LogIndex,
    /// The term of the leader that proposed it.
    pub term: Term,
    /// What the data is.
    pub kind: EntryKind,
    /// What raft carries beside the data.
    pub context: Bytes,
    /// Encoded commands, or an encoded configuration change.
    pub data: Bytes,
}

/// What an entry's data is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EntryKind {
    /// Commands for the state; nothing at all in a leader's first entry.
    #[default]
    Commands,
    /// A change of configuration, old form.
    Configuration,
    /// A change of configuration that may be joint.
    ConfigurationV2,
}

/// What a replica must not forget (Raft paper, figure 2), with the commit index beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The latest term seen.
    pub term: Term,
    /// Whom it voted for in that term; 0 means nobody.
    pub vote: ReplicaId,
    /// The highest index known to be committed.
    pub commit: LogIndex,
}

/// Where a replica's log begins: the entry before its first, which is in the checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Boundary {
    /// The index of the last entry given up.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
    /// The configuration at that index.
    pub configuration: Configuration,
}

/// A snapshot taken over from another replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Install {
    /// The last index that the snapshot covers.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
    /// The configuration at that index.
    pub configuration: Configuration,
    /// The staging directory that holds the files.
    pub staging: StagingId,
    /// The digest of the state at that index.
    pub digest: Digest,
}

/// Names a staging directory: the hash of the list of files that it is to hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StagingId(pub u128);

/// What a log says of one shard after recovery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveredShard {
    /// The replica's id.
    pub replica: ReplicaId,
    /// Its hard state.
    pub hard_state: HardState,
    /// Where its log begins.
    pub boundary: Boundary,
    /// The entries above the boundary, without gaps.
    pub entries: Vec<LogEntry>,
    /// The newest install, if one is in the log.
    pub install: Option<Install>,
}

/// What a log says after recovery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Every shard with a replica here.
    pub shards: BTreeMap<ShardId, RecoveredShard>,
    /// Replicas that were here and are gone for good.
    pub tombstones: BTreeMap<ReplicaId, ShardId>,
}
