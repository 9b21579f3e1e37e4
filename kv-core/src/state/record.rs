//! The records of a shard's state as tables, files and the read index hold them, and what a checkpoint says of the rest.
//!
//! One table of every key that is stored:
//!
//! | first byte | key | value | lifetime |
//! |---|---|---|---|
//! | `k` | the user's key | revision (varint), value (the rest) | until deleted |
//! | `m` | node id (8 bytes, big-endian) | node description | for ever; meta shard only |
//! | `s` | session id (8 bytes, big-endian) | the session with its outcomes | until evicted |
//! | 0 | nothing more: one key | index (varint) up to which the tree has all deltas | only in the tree |

use std::sync::Arc;

use smallvec::SmallVec;

pub use super::{arena::Place, table::Table};
use crate::{
    configuration::Configuration,
    shard_map,
    types::{Digest, Epoch, LogIndex, Revision, SessionId, Term},
};

/// First byte of the records that hold users' entries.
pub const SPACE_ENTRIES: u8 = b'k';
/// First byte of the records that describe nodes.
pub const SPACE_NODES: u8 = b'm';
/// First byte of the records that hold sessions.
pub const SPACE_SESSIONS: u8 = b's';

/// The tree's mark, which no file and no digest holds: the index up to which the tree has all deltas. It saves work and is
/// trusted for nothing else.
pub const TREE_MARK: &[u8] = &[0];

/// A record's key. One of a user's key of up to 23 bytes is made without an allocation.
pub type RecordKey = SmallVec<[u8; 24]>;

/// A table that takes no more writes, shared between the turn and the checkpoint thread.
pub type FrozenTable = Arc<Table>;

/// Everything of a shard's state at one index that is not a record: the content of a checkpoint's footer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateHeader {
    /// The last index applied.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
    /// The arc; `None` in the meta shard.
    pub arc: Option<shard_map::Arc>,
    /// The arc's epoch.
    pub epoch: Epoch,
    /// The last revision given.
    pub revision: Revision,
    /// The last session number given.
    pub last_session: SessionId,
    /// The first index of each term, newest last; at most [`TERMS_MAX`].
    pub terms: Vec<(Term, LogIndex)>,
    /// Configurations by the index from which they hold, from the log's boundary on.
    pub configurations: Vec<(LogIndex, Configuration)>,
}

/// Most terms whose first index is remembered.
pub const TERMS_MAX: usize = 4096;

/// What a checkpoint's footer says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Footer {
    /// The state beside its records.
    pub header: StateHeader,
    /// The digest of records and header.
    pub digest: Digest,
}
