//! What the algorithm asks of a disk: segments of the log, immutable files, and the read index.
//!
//! Three traits, implemented by the shell on real files and by the simulator on a disk that loses, tears and rots. Nothing
//! written is durable before the matching sync returned `Ok`; after a failed write or sync the caller stops, it never
//! retries. Calls are synchronous: they are made on the log thread and the checkpoint thread, apart from
//! [`StateStore::get`], which a turn may call meanwhile.

use std::fmt;

use bytes::Bytes;

use crate::types::ReplicaId;

/// Why a disk could not do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskErrorKind {
    /// No room is left.
    Full,
    /// No such file.
    NotFound,
    /// The device or the file system failed.
    Io,
}

/// A failed call into a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskError {
    /// Why.
    pub kind: DiskErrorKind,
    /// What was tried and what the system said, for people.
    pub message: String,
}

impl DiskError {
    /// An error with its message.
    pub fn new(kind: DiskErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for DiskError {}

/// The number of a log segment, which is also its file's name. Numbers only grow; a recycled segment gets a new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentNumber(pub u64);

/// The directory of the log: segments of one fixed size.
pub trait LogDisk {
    /// All segments with their sizes in bytes, ascending by number.
    ///
    /// # Errors
    /// If the directory can't be read.
    fn segments(&mut self) -> Result<Vec<(SegmentNumber, u64)>, DiskError>;

    /// Begins with the next [`LogDisk::create`] of so many bytes beside whatever else is done, unless that was begun. True once
    /// that call would not take long, which is at once where a disk has no such thing. No segment is made of it before.
    ///
    /// # Errors
    /// `Full` if there is no room.
    fn prepare(&mut self, bytes: u64) -> Result<bool, DiskError> {
        let _ = bytes;
        Ok(true)
    }

    /// Makes a segment of `bytes` zeros: allocated, written, synced, and its name synced in the directory.
    ///
    /// # Errors
    /// `Full` if there is no room; then no segment of that number is left behind.
    fn create(&mut self, segment: SegmentNumber, bytes: u64) -> Result<(), DiskError>;

    /// Gives an old segment a new number, its content as it is, and syncs the directory.
    ///
    /// # Errors
    /// If it can't be renamed or the directory can't be synced.
    fn rename(&mut self, from: SegmentNumber, to: SegmentNumber) -> Result<(), DiskError>;

    /// Removes a segment and syncs the directory.
    ///
    /// # Errors
    /// If it can't be removed or the directory can't be synced.
    fn remove(&mut self, segment: SegmentNumber) -> Result<(), DiskError>;

    /// Fills `into` from `offset` on.
    ///
    /// # Errors
    /// If it can't be read in full.
    fn read(&mut self, segment: SegmentNumber, offset: u64, into: &mut [u8]) -> Result<(), DiskError>;

    /// Writes within the segment's size. Not durable before [`LogDisk::sync`].
    ///
    /// # Errors
    /// If it can't be written in full. What the disk then holds is not known.
    fn write(&mut self, segment: SegmentNumber, offset: u64, bytes: &[u8]) -> Result<(), DiskError>;

    /// Makes all earlier writes to the segment durable.
    ///
    /// # Errors
    /// If it can't. What the disk then holds is not known, and a second sync proves nothing.
    fn sync(&mut self, segment: SegmentNumber) -> Result<(), DiskError>;

    /// Makes the directory's names durable.
    ///
    /// # Errors
    /// If it can't.
    fn sync_directory(&mut self) -> Result<(), DiskError>;
}

/// A directory tree of small sets of files, each written once and never changed. Paths are relative, with `/` between names.
pub trait FileDisk {
    /// Names of the files and directories in a directory, sorted; none if it does not exist.
    ///
    /// # Errors
    /// If it can't be read.
    fn list(&mut self, directory: &str) -> Result<Vec<String>, DiskError>;

    /// Makes a directory and its parents, and syncs their names. One that is there is not made, but its name is synced all the same
    /// the first time that this handle meets it: who made it may have been stopped before it came to that, and a loss of power
    /// would take all that was put into it since.
    ///
    /// # Errors
    /// If it can't.
    fn create_directory(&mut self, directory: &str) -> Result<(), DiskError>;

    /// Writes at an offset, making the file if it does not exist. Not durable before [`FileDisk::sync`] and, for a new
    /// file's name, [`FileDisk::sync_directory`].
    ///
    /// # Errors
    /// `Full` if there is no room.
    fn write(&mut self, path: &str, offset: u64, bytes: &[u8]) -> Result<(), DiskError>;

    /// Makes a file's bytes durable.
    ///
    /// # Errors
    /// If it can't. What the disk then holds is not known.
    fn sync(&mut self, path: &str) -> Result<(), DiskError>;

    /// Makes a directory's names durable.
    ///
    /// # Errors
    /// If it can't.
    fn sync_directory(&mut self, directory: &str) -> Result<(), DiskError>;

    /// Reads up to `bytes_max` bytes from `offset`; fewer only at the end of the file.
    ///
    /// # Errors
    /// `NotFound`, or `Io`.
    fn read(&mut self, path: &str, offset: u64, bytes_max: usize) -> Result<Bytes, DiskError>;

    /// A file's size in bytes; `None` if it does not exist.
    ///
    /// # Errors
    /// If it can't be told.
    fn size(&mut self, path: &str) -> Result<Option<u64>, DiskError>;

    /// Renames a file or a directory, replacing a file of that name. Durable after both directories are synced.
    ///
    /// # Errors
    /// `NotFound`, or `Io`.
    fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError>;

    /// Removes a file, or a directory with all in it. Does nothing if it does not exist.
    ///
    /// # Errors
    /// If it can't.
    fn remove(&mut self, path: &str) -> Result<(), DiskError>;
}

/// A call into the read index that failed: its content can't be trusted any more and has to be rebuilt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreError(pub String);

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the read index failed: {}", self.0)
    }
}

impl std::error::Error for StoreError {}

/// A key, and the value it gets or, without one, that it is removed.
pub type Change<'a> = (&'a [u8], Option<&'a [u8]>);

/// The read index: one ordered tree a replica. A cache that is rebuilt from files and log; nothing durable depends on it.
///
/// Handles are shared: a clone sees the same trees. Writes are not atomic and need no sync. A tree exists only after
/// [`StateStore::reset`]; a call on one that was lost (a fresh directory took the place of a damaged one) is an error, never
/// an empty answer.
pub trait StateStore: Clone {
    /// The value of a key.
    ///
    /// # Errors
    /// If the tree does not exist or can't be read.
    fn get(&self, tree: ReplicaId, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// The values of some keys, in their order, for less than by one call for each if they ascend. Not while the tree is written
    /// to.
    ///
    /// # Errors
    /// If the tree does not exist or can't be read.
    fn get_many(&self, tree: ReplicaId, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, StoreError> {
        keys.iter().map(|key| self.get(tree, key)).collect()
    }

    /// Up to `count_max` records with keys at or after `from`, ascending. Not while the tree is written to.
    ///
    /// # Errors
    /// If the tree does not exist or can't be read.
    fn range(&self, tree: ReplicaId, from: &[u8], count_max: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError>;

    /// Inserts (`Some`) and removes (`None`) records in this order. Not atomic.
    ///
    /// # Errors
    /// If the tree does not exist or can't be written.
    fn write(&self, tree: ReplicaId, changes: &[Change<'_>]) -> Result<(), StoreError>;

    /// Makes the tree exist and be empty.
    ///
    /// # Errors
    /// If it can't.
    fn reset(&self, tree: ReplicaId) -> Result<(), StoreError>;

    /// Removes a tree for good. Does nothing if it does not exist.
    ///
    /// # Errors
    /// If it can't.
    fn remove(&self, tree: ReplicaId) -> Result<(), StoreError>;
}
