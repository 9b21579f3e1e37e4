//! An operation as the builders hand it on, and its answer: what the client over the wire and the one in memory share.

use kv_core::{
    command::Condition,
    types::{Key, Token, Value},
};

use crate::types::{Consistency, Durability, Fate, Read, Receipt};

/// What is asked. Keys and values are within their bounds.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    /// Reads a key.
    Get {
        /// The key.
        key: Key,
        /// How fresh the answer must be.
        consistency: Consistency,
    },
    /// Writes or deletes a key.
    Write(Write),
    /// Waits until an async write is durable or lost.
    WaitDurable(Token),
}

/// A change of one key.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    /// The key.
    pub(crate) key: Key,
    /// The new value; `None` deletes.
    pub(crate) value: Option<Value>,
    /// What must hold for it to be done.
    pub(crate) condition: Condition,
    /// Whether to answer what the key held before.
    pub(crate) return_previous: bool,
    /// When to acknowledge; `None` takes the cluster's default.
    pub(crate) durability: Option<Durability>,
}

/// What came of an operation that succeeded.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// To `Get`.
    Read(Read),
    /// To `Write`.
    Receipt(Receipt),
    /// To `WaitDurable`.
    Fate(Fate),
}
