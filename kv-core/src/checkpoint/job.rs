//! What a turn asks of the checkpoint thread, and what it hears back.
//!
//! Jobs of one replica run in the order in which they were given. A job that fails on the disk ends in
//! [`CheckpointEvent::DiskFailed`], upon which the process stops: what the disk holds is then not known.

use bytes::Bytes;

use crate::{
    codec::put_u128,
    log::record::{Install, StagingId},
    state::record::{Footer, FrozenTable, StateHeader},
    types::{Digest, LogIndex, ReplicaId, SessionId, ShardId, Term},
};

/// A file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileDescription {
    /// Its name within the replica's directory.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// The hash at its end (xxh3-128), which covers all bytes before it.
    pub hash: u128,
}

/// The files that together are one checkpoint: a base and the deltas on it, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// The files.
    pub files: Vec<FileDescription>,
    /// The index of the checkpoint.
    pub index: LogIndex,
    /// The term of that index.
    pub term: Term,
    /// The digest of the state at that index.
    pub digest: Digest,
}

/// Most files in a manifest; a longer one from a peer is refused.
pub const MANIFEST_FILES_MAX: usize = 64;

impl Manifest {
    /// The name of the staging directory for exactly these files.
    #[must_use]
    pub fn staging(&self) -> StagingId {
        let mut bytes = Vec::new();
        put_u128(&mut bytes, self.digest.0);
        bytes.extend_from_slice(&self.index.0.to_le_bytes());
        for file in &self.files {
            put_u128(&mut bytes, file.hash);
        }
        StagingId(xxhash_rust::xxh3::xxh3_128(&bytes))
    }
}

/// Work for the checkpoint thread.
#[derive(Clone, Debug)]
pub enum CheckpointJob {
    /// Makes a replica's read index whole and proves it: finishes an install from staging if one is named and the files are
    /// not switched yet, brings the tree up to the newest checkpoint, and scans it against the footer's digest; on any
    /// mismatch rebuilds the tree from the files and scans again. Ends in `Loaded` or `LoadFailed`.
    Load {
        /// The shard.
        shard: ShardId,
        /// The replica.
        replica: ReplicaId,
        /// A checkpoint below this is of no use: the log above it has been given up.
        at_least: LogIndex,
        /// The newest install in the log.
        install: Option<Install>,
        /// The state to begin with if no checkpoint is of use, given only while nothing of the log has been given up.
        initial: Option<StateHeader>,
    },
    /// Writes a checkpoint: computes the digest, writes, syncs and reads back the delta file (`Durable`), brings its
    /// records into the tree (`Inserted`), and merges base and deltas when they have grown. Digest and files are those of
    /// the replica's previous checkpoint, which the worker knows since `Loaded`. On a full disk it ends in `NoRoom`.
    Write {
        /// The shard.
        shard: ShardId,
        /// The replica.
        replica: ReplicaId,
        /// The records changed since the previous checkpoint.
        table: FrozenTable,
        /// The state beside its records.
        header: StateHeader,
    },
    /// A majority of the shard's voters has the replica's checkpoint at this index: it may be given to others, and what it
    /// stands on may be merged into it. Nothing else leaves a node. Ends in `Confirmed` once that is noted for good.
    Confirmed {
        /// The shard.
        shard: ShardId,
        /// The replica.
        replica: ReplicaId,
        /// The checkpoint's index.
        index: LogIndex,
        /// Its digest.
        digest: Digest,
    },
    /// Frees a table whose records are in the tree: no turn should wait for it. Ends in nothing. At most one follows each
    /// `Inserted`; it counts no more as memory of tables.
    Free {
        /// The table, which nobody else holds any more.
        table: FrozenTable,
    },
    /// Removes all checkpoints of a replica, its install's files in staging excepted: a majority has another state.
    Forget {
        /// The replica.
        replica: ReplicaId,
    },
    /// Reads a slice of a replica's files or of its tree again. Ends in `TreeFailed` if it is not what was written, and in nothing
    /// if all is well. At most one waits: a further one is dropped.
    Scrub {
        /// The shard.
        shard: ShardId,
        /// The replica.
        replica: ReplicaId,
    },
    /// Lists the newest confirmed checkpoint's files for a stream and keeps them until `Release`. Ends in `Offered` or
    /// `OfferFailed`.
    Offer {
        /// The shard.
        shard: ShardId,
        /// The replica.
        replica: ReplicaId,
        /// The sender's number for the stream.
        stream: u64,
    },
    /// Reads a piece of an offered file. Ends in `PieceRead`.
    ReadPiece {
        /// The sender's number for the stream.
        stream: u64,
        /// Which file of the manifest.
        file: u32,
        /// From where on.
        offset: u64,
    },
    /// Lets go of what `Offer` kept.
    Release {
        /// The sender's number for the stream.
        stream: u64,
    },
    /// Makes ready to receive: tells which pieces of the manifest's files are lacking, those already here being linked or
    /// copied into staging. Ends in `Staged` or `StageFailed`.
    Stage {
        /// The replica that receives.
        replica: ReplicaId,
        /// What is to be received.
        manifest: Manifest,
    },
    /// Writes a piece into staging. Ends in `PieceWritten`.
    WritePiece {
        /// The replica that receives.
        replica: ReplicaId,
        /// The staging directory.
        staging: StagingId,
        /// Which file of the manifest.
        file: u32,
        /// Where the bytes belong.
        offset: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// Syncs staging, reads it back and verifies every hash and the footer. Ends in `Verified` or `StageFailed`.
    Verify {
        /// The replica that receives.
        replica: ReplicaId,
        /// The staging directory.
        staging: StagingId,
    },
    /// Throws a staging directory away.
    Discard {
        /// The replica that received.
        replica: ReplicaId,
        /// The staging directory.
        staging: StagingId,
    },
}

/// What the checkpoint thread reports.
#[derive(Clone, Debug)]
pub enum CheckpointEvent {
    /// The read index is whole and proven equal to this checkpoint.
    Loaded {
        /// The shard.
        shard: ShardId,
        /// The replica.
        replica: ReplicaId,
        /// The checkpoint; for a replica that has none yet, the initial state.
        footer: Footer,
        /// Index and digest of every checkpoint that the files hold, ascending; none for the initial state.
        checkpoints: Vec<(LogIndex, Digest)>,
        /// The newest of them that is noted as confirmed.
        confirmed: Option<LogIndex>,
        /// All sessions, encoded, ascending.
        sessions: Vec<(SessionId, Bytes)>,
        /// All records of [`crate::state::record::SPACE_NODES`], encoded, in key order.
        nodes: Vec<(Bytes, Bytes)>,
    },
    /// No checkpoint of use is readable: the state must come from a peer.
    LoadFailed {
        /// The shard.
        shard: ShardId,
        /// The replica.
        replica: ReplicaId,
        /// Why, for people.
        reason: String,
    },
    /// The checkpoint is synced and was read back: log at or below its index may be given up.
    Durable {
        /// The shard.
        shard: ShardId,
        /// The replica.
        replica: ReplicaId,
        /// The checkpoint.
        footer: Footer,
    },
    /// The checkpoint's records are in the tree: the frozen table can be dropped.
    Inserted {
        /// The shard.
        shard: ShardId,
        /// The replica.
        replica: ReplicaId,
        /// The checkpoint's index.
        index: LogIndex,
    },
    /// It is noted for good that a majority agrees with the checkpoint at this index: log up to it may be given up.
    Confirmed {
        /// The shard.
        shard: ShardId,
        /// The replica.
        replica: ReplicaId,
        /// The checkpoint's index.
        index: LogIndex,
    },
    /// The read index failed while a checkpoint was being written, or files turned out damaged: the state must be loaded again.
    TreeFailed {
        /// The shard.
        shard: ShardId,
        /// The replica.
        replica: ReplicaId,
        /// Why, for people.
        reason: String,
    },
    /// There was no room for a checkpoint: what was begun is gone, nothing stands on it, and it may be tried again.
    NoRoom {
        /// The shard.
        shard: ShardId,
        /// The replica.
        replica: ReplicaId,
        /// The records that were to be written.
        table: FrozenTable,
        /// The state beside them.
        header: StateHeader,
    },
    /// A checkpoint to stream.
    Offered {
        /// The stream.
        stream: u64,
        /// Its files.
        manifest: Manifest,
        /// The state beside its records.
        header: StateHeader,
    },
    /// There is no checkpoint to stream.
    OfferFailed {
        /// The stream.
        stream: u64,
    },
    /// A piece of an offered file; none if it can't be read.
    PieceRead {
        /// The stream.
        stream: u64,
        /// Which file of the manifest.
        file: u32,
        /// Where the bytes belong.
        offset: u64,
        /// The bytes; empty if it can't be read.
        bytes: Bytes,
    },
    /// Staging is ready for these files of the manifest, from these offsets on; what is before them, and the other files, is
    /// here already.
    Staged {
        /// The replica that receives.
        replica: ReplicaId,
        /// The staging directory.
        staging: StagingId,
        /// Numbers of the files that are lacking, ascending, each with the offset of its first byte that is.
        lacking: Vec<(u32, u64)>,
    },
    /// Staging can't be made or holds what it should not; it was thrown away.
    StageFailed {
        /// The replica that receives.
        replica: ReplicaId,
        /// The staging directory.
        staging: StagingId,
        /// Why, for people.
        reason: String,
    },
    /// A piece is in staging, not yet synced.
    PieceWritten {
        /// The replica that receives.
        replica: ReplicaId,
        /// The staging directory.
        staging: StagingId,
        /// Which file of the manifest.
        file: u32,
        /// Where the next piece begins.
        next_offset: u64,
    },
    /// Staging is synced and holds exactly what the manifest says.
    Verified {
        /// The replica that receives.
        replica: ReplicaId,
        /// The staging directory.
        staging: StagingId,
        /// The state beside its records.
        header: StateHeader,
    },
    /// The disk failed: the process must stop.
    DiskFailed {
        /// What was tried and what the system said.
        reason: String,
    },
}
