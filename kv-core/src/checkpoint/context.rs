//! What all work of the checkpoint thread shares: the disks, what is known of each replica's files, and the size of a slice.

use std::collections::BTreeMap;

use crate::{
    checkpoint::{
        base::MergeBounds,
        chain::{ChainFile, set_directory},
        job::CheckpointEvent,
        offers::Offers,
        reader::Damaged,
        scrub::Scrub,
        staging::Staging,
    },
    disk::{DiskError, StoreError},
    log::record::StagingId,
    state::record::Footer,
    types::{LogIndex, ReplicaId},
};

/// Most records that one step handles.
pub const SLICE_RECORDS_MAX: usize = 256;
/// Bytes of records after which a step ends; one record can be larger.
pub const SLICE_BYTES_MAX: usize = 1024 * 1024;

/// What one step did.
#[derive(Debug, Default)]
pub struct Step {
    /// What is to be told to the node, in this order.
    pub events: Vec<CheckpointEvent>,
    /// Whether nothing is left to do until the next job.
    pub idle: bool,
    /// Number of records read or written.
    pub records: usize,
    /// Number of bytes read or written.
    pub bytes: usize,
}

/// How much of a step's bound is used.
#[derive(Debug)]
pub(super) struct Slice {
    records_max: usize,
    pub(super) records: usize,
    pub(super) bytes: usize,
}

impl Default for Slice {
    fn default() -> Self {
        Self { records_max: SLICE_RECORDS_MAX, records: 0, bytes: 0 }
    }
}

impl Slice {
    pub(super) fn is_full(&self) -> bool {
        self.records >= self.records_max || self.bytes >= SLICE_BYTES_MAX
    }

    /// How many more records it has room for.
    pub(super) fn records_left(&self) -> usize {
        self.records_max.saturating_sub(self.records)
    }

    pub(super) fn count(&mut self, key: &[u8], value: Option<&[u8]>) {
        self.records += 1;
        self.bytes += key.len() + value.map_or(0, <[u8]>::len);
    }

    pub(super) fn report(&self, step: &mut Step) {
        step.records += self.records;
        step.bytes += self.bytes;
    }
}

/// Whether a piece of work is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    More,
    Done,
}

/// Why a piece of work can't go on.
#[derive(Debug)]
pub(super) enum Failure {
    /// The disk failed.
    Disk(DiskError),
    /// The read index failed.
    Store(StoreError),
    /// Files don't hold what they should.
    Files(Damaged),
}

impl From<DiskError> for Failure {
    fn from(error: DiskError) -> Self {
        Self::Disk(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Damaged> for Failure {
    fn from(damaged: Damaged) -> Self {
        Self::Files(damaged)
    }
}

/// What is known of a replica's files.
#[derive(Clone, Debug, Default)]
pub(super) struct ReplicaFiles {
    /// The set that counts; 0 if none was made yet.
    pub(super) set: u64,
    /// Base and deltas, the oldest first; none before the first checkpoint.
    pub(super) files: Vec<ChainFile>,
    /// The newest checkpoint, or the initial state.
    pub(super) footer: Footer,
    /// The newest checkpoint that a majority is known to agree with; 0 for none.
    pub(super) confirmed: LogIndex,
    /// The checkpoint that the tree has all of.
    pub(super) inserted: LogIndex,
    /// Whether the tree is proven and follows the files.
    pub(super) is_loaded: bool,
    /// The last attempt to load from this set failed.
    pub(super) has_failed: bool,
}

impl ReplicaFiles {
    pub(super) fn directory(&self, replica: ReplicaId) -> String {
        set_directory(replica, self.set)
    }

    /// The files that together are the newest confirmed checkpoint; none if there is no such state among them.
    pub(super) fn confirmed_files(&self) -> &[ChainFile] {
        let newest = self.files.iter().position(|file| file.index == self.confirmed);
        newest.map_or(&[], |newest| &self.files[..=newest])
    }
}

/// Disks, and what is known of what they hold.
pub(super) struct Context<F, S> {
    /// Most records that one step handles: [`SLICE_RECORDS_MAX`], or fewer in simulations.
    pub(super) slice_records_max: usize,
    /// When files are merged because there are so many.
    pub(super) merge_bounds: MergeBounds,
    pub(super) files: F,
    pub(super) store: S,
    pub(super) replicas: BTreeMap<ReplicaId, ReplicaFiles>,
    pub(super) offers: Offers,
    pub(super) stagings: BTreeMap<(ReplicaId, StagingId), Staging>,
    pub(super) scrubs: BTreeMap<ReplicaId, Scrub>,
}

impl<F, S> Context<F, S> {
    /// The bound of a step that begins.
    pub(super) fn slice(&self) -> Slice {
        Slice { records_max: self.slice_records_max, ..Slice::default() }
    }
}
