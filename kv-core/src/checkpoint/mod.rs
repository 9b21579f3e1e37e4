//! Checkpoints of a shard's state: immutable files of our own, and the read index that is made from them.
//!
//! A checkpoint is a *base* (a whole state) and *deltas* (what changed since), each naming the state that it stands on. The
//! [`worker::Worker`] runs on the checkpoint thread and in the simulator, on any [`crate::disk::FileDisk`] and
//! [`crate::disk::StateStore`]. What it promises:
//!
//! - `Durable` means synced, read back, and named for good: log up to it may be given up.
//! - `Loaded` means that every record of the files and of the tree was read and adds up to the newest footer's digest.
//! - What rots under a replica that runs is found by a pass over its files and tree that goes on all the time, slowly ([`scrub`]).
//! - No file goes before what takes its place is durable and proven; nothing goes when a load fails.
//! - A crash between any two steps leaves the last durable checkpoint, or a newer one.
//! - Files and tree may be missing, damaged or lying: the answer is an older checkpoint that is still of use, a tree made
//!   anew, or `LoadFailed`; never a wrong state.
//!
//! Left out: when checkpoints are made and what log they free (the replica), and comparing digests between replicas.
//! A delta that finds no room on the disk stops the process, as any failing write does; a merge, or a peer's files, do not.

mod base;
mod chain;
mod confirmed;
mod context;
mod format;
pub mod job;
mod load;
mod merge;
mod offers;
mod reader;
mod scrub;
mod staging;
mod tree;
mod worker;
mod write;
mod writer;

pub use self::{
    base::{FILES_MAX, MERGE_BYTES_MIN, MERGE_FILES},
    chain::newest_footers,
    context::{SLICE_BYTES_MAX, SLICE_RECORDS_MAX, Step},
    offers::OFFERS_MAX,
    worker::Worker,
};
