//! Ids, indexes, keys and values: every number of the system has a type of its own, so that two `u64` can never be swapped.
//!
//! A [`Key`] or [`Value`] that exists is within its bounds: they are checked where they are made. Bounds that clients can
//! see are the constants at the top.

use std::fmt;

use bytes::Bytes;

use crate::error::Error;

/// Longest key, in bytes. A longer one is refused as invalid where it is made.
pub const KEY_BYTES_MAX: usize = 4 * 1024;
/// Longest value, in bytes. A longer one is refused as invalid where it is made.
pub const VALUE_BYTES_MAX: usize = 1024 * 1024;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl $name {
            /// The next number.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }
    };
}

number!(/** A node: one server process with one data directory. Starts at 1; 0 means none. */ NodeId);
number!(/** A shard: one arc of the ring and one Raft group. 0 is the meta shard, which has no arc. */ ShardId);
number!(/** A replica of a shard on a node, and its raft id. Starts at 1, never reused; 0 means none. */ ReplicaId);
number!(/** A Raft term. Every shard starts in term 1. */ Term);
number!(/** An index in a shard's log. Every shard starts as if a snapshot stood at index 1. */ LogIndex);
number!(/** A version of a shard's state: each change to a key gets the next. 0 stands for an absent key. */ Revision);
number!(/** Counts the changes of who holds an arc. Starts at 1. */ Epoch);
number!(/** A session of a client with one shard; given by the shard, never reused. Starts at 1. */ SessionId);
number!(/** A write's number within its session. Starts at 1. */ Sequence);
number!(/** A place on the 64-bit ring. */ Position);
number!(/** The number of a log batch, which is one block on disk. Starts at 1 at each start of a node. */ BatchNumber);
number!(/** A request's number, given by the shell, echoed in the reply. Means nothing else. */ RequestId);
number!(/** Version of a node's view of the cluster: the meta shard's revision when the map was made. */ MapVersion);
number!(/** Raft's logical clock. One tick is 50 ms unless set otherwise. */ Ticks);

/// Monotonic time of one node in microseconds, from a clock that counts suspension. Two nodes' times have nothing to do with
/// each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Time {
    /// Microseconds from `earlier` to `self`; 0 if it is not earlier.
    #[must_use]
    pub const fn micros_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// This time less `micros` microseconds.
    #[must_use]
    pub const fn minus_micros(self, micros: u64) -> Self {
        Self(self.0.saturating_sub(micros))
    }

    /// This time and `micros` microseconds more.
    #[must_use]
    pub const fn plus_micros(self, micros: u64) -> Self {
        Self(self.0.saturating_add(micros))
    }
}

/// The meta shard: it replicates the cluster's own description.
pub const META_SHARD: ShardId = ShardId(0);

macro_rules! wide {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:032x})", stringify!($name), self.0)
            }
        }
    };
}

wide!(/** A cluster: the hash of its founding record. */ ClusterId);
wide!(/** A data directory: 128 random bits drawn when it was first used. A node whose disk was wiped has another. */ Incarnation);
wide!(/** A digest of a shard's whole state: the sum modulo 2^128 of a hash of each live record. */ Digest);

/// A key: 1 byte to 4 KiB.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Bytes);

impl Key {
    /// A key of these bytes.
    ///
    /// # Errors
    /// `Invalid` if it is empty or longer than [`KEY_BYTES_MAX`].
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self, Error> {
        let bytes = bytes.into();
        if bytes.is_empty() {
            return Err(Error::invalid("the key is empty; a key has 1 byte to 4 KiB"));
        }
        if bytes.len() > KEY_BYTES_MAX {
            return Err(Error::invalid(format!(
                "the key has {} bytes; a key has 1 byte to {KEY_BYTES_MAX}",
                bytes.len()
            )));
        }
        Ok(Self(bytes))
    }

    /// The key's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.0.escape_ascii())
    }
}

/// A value: up to 1 MiB. An empty value is a value; a deleted key has none.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Value(Bytes);

impl Value {
    /// A value of these bytes.
    ///
    /// # Errors
    /// `Invalid` if it is longer than [`VALUE_BYTES_MAX`].
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self, Error> {
        let bytes = bytes.into();
        if bytes.len() > VALUE_BYTES_MAX {
            return Err(Error::invalid(format!(
                "the value has {} bytes; a value has at most {VALUE_BYTES_MAX}",
                bytes.len()
            )));
        }
        Ok(Self(bytes))
    }

    /// The value's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(32)];
        write!(f, "Value({} bytes: {})", self.0.len(), shown.escape_ascii())
    }
}

/// A value with the revision at which it was written: what a key holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The shard's revision of the write.
    pub revision: Revision,
    /// What was written.
    pub value: Value,
}

/// Where a write stands in its shard's log: enough to ask later whether it became durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    /// The shard.
    pub shard: ShardId,
    /// The term in which the write was proposed.
    pub term: Term,
    /// The index at which it was proposed.
    pub index: LogIndex,
}

/// When a write is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Durability {
    /// After a majority has synced it and the leader has applied it.
    #[default]
    Sync,
    /// Once it is in the leader's memory: a crash of that leader may lose the last of them, within a bound.
    Async,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn keys_and_values_are_checked_where_they_are_made() {
        assert_eq!(Key::new("").unwrap_err().kind(), ErrorKind::Invalid);
        assert!(Key::new(vec![0; KEY_BYTES_MAX]).is_ok());
        assert_eq!(Key::new(vec![0; KEY_BYTES_MAX + 1]).unwrap_err().kind(), ErrorKind::Invalid);
        assert!(Value::new("").is_ok());
        assert!(Value::new(vec![0; VALUE_BYTES_MAX]).is_ok());
        assert_eq!(Value::new(vec![0; VALUE_BYTES_MAX + 1]).unwrap_err().kind(), ErrorKind::Invalid);
    }
}
