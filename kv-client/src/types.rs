//! What calls are made of and what they answer.

use std::time::Duration;

use bytes::Bytes;

pub use kv_core::types::{NodeId, Revision, ShardId, Token};

/// What a key holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What was written.
    pub value: Bytes,
    /// The revision of the write: grows with every change in the key's shard.
    pub revision: Revision,
}

/// The answer to a read, with how fresh it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// What the key holds; `None` if it is absent.
    pub entry: Option<Entry>,
    /// The shard's revision as of which this is true.
    pub revision: Revision,
    /// This was true at most so long ago when the node answered: zero for a linearizable read; `None` for a stale read that
    /// could not tell.
    pub age: Option<Duration>,
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// It sees every write that was acknowledged before it began.
    #[default]
    Linearizable,
    /// It sees every write that was acknowledged longer ago than this. Any replica answers.
    Bounded(Duration),
    /// It sees some state of the past. Any replica answers.
    Stale,
}

/// When a write is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// After a majority of the replicas has it on disk.
    Sync,
    /// Once the shard's leader has it in memory. If that leader crashes, the last of such writes may be lost;
    /// [`Client::wait_durable`](crate::Client::wait_durable) tells. Only for unconditional writes that don't ask for the
    /// previous entry.
    Async,
}

/// What a key held before a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Previous {
    /// It was not asked for.
    NotAsked,
    /// The key was absent.
    Absent,
    /// It held this.
    Entry(Entry),
    /// It was asked for, but the shard no longer remembers it: the write was sent again much later.
    Unavailable,
}

/// An acknowledged write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The revision of the write; 0 if it changed nothing (the delete of an absent key); `None` if it is not decided yet
    /// (an async write).
    pub revision: Option<Revision>,
    /// What the key held before, if that was asked for.
    pub previous: Previous,
    /// For [`Client::wait_durable`](crate::Client::wait_durable). `None` if the answer to an earlier sending was remembered;
    /// such a write is durable.
    pub token: Option<Token>,
    /// What the acknowledgement stands for.
    pub durability: Durability,
}

/// What became of an async write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// A majority of the replicas has it on disk.
    Durable,
    /// It is gone, and nobody has ever read it.
    Lost,
    /// It is too long ago to tell.
    Unknown,
}
