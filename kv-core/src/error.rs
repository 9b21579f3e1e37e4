//! What went wrong, what to do next, and whether the operation happened.
//!
//! An [`ErrorKind`] tells the caller what to do next; an [`Outcome`] tells whether a write may have taken effect. An error
//! is `NotApplied` only where that is proven; whatever can't be proven is `Unknown`, and `Unknown` never becomes "failed".

use std::{borrow::Cow, fmt};

use crate::{
    shard_map::ShardRow,
    types::{NodeId, Revision},
};

/// What a caller does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Ask the node named by the error's row or leader: this one does not lead the shard, or has no replica of it.
    NotOwner,
    /// Take the error's row into the map and ask again: the arc has changed hands since.
    StaleEpoch,
    /// Wait and ask again: the shard has no leader that can reach a majority.
    NoQuorum,
    /// Wait as long as the error says and ask again: a queue is at its bound.
    Overloaded,
    /// Free space on the node, or wait for its leaderships to move, and ask again.
    DiskFull,
    /// Ask again if there is time left: the deadline passed first.
    Timeout,
    /// Open a new session. A write that was sent under the old one may or may not have taken effect.
    SessionExpired,
    /// Read again and decide: the condition did not hold. The error carries the current revision, 0 if the key is absent.
    Conflict,
    /// Mend the request: it can never succeed as it is.
    Invalid,
    /// Check the addresses: this is another cluster.
    WrongCluster,
    /// Ask another node: this one's replica is out of service. Its status says why; starting the node again may bring it back.
    Corrupt,
    /// Report it: this is a bug.
    Internal,
}

/// Whether the operation took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It did not, and never will.
    NotApplied,
    /// It may have, or may yet.
    Unknown,
}

/// An error with its kind, its outcome, and what helps to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    outcome: Outcome,
    message: Cow<'static, str>,
    detail: Option<Box<ErrorDetail>>,
}

/// What an error may carry beside its message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorDetail {
    /// The shard's row in the map of the node that refused.
    pub row: Option<ShardRow>,
    /// The leader, if the node that refused knows it.
    pub leader: Option<NodeId>,
    /// How long to wait before asking again, in milliseconds.
    pub retry_after_ms: Option<u64>,
    /// With `Conflict`: the key's revision, 0 if it is absent.
    pub current: Option<Revision>,
}

impl Error {
    /// An error of this kind that did not take effect.
    pub fn not_applied(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, outcome: Outcome::NotApplied, message: message.into(), detail: None }
    }

    /// An error of this kind of which it is not known whether it took effect.
    pub fn unknown(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, outcome: Outcome::Unknown, message: message.into(), detail: None }
    }

    /// The request can never succeed as it is.
    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::not_applied(ErrorKind::Invalid, message)
    }

    /// A queue is at its bound.
    pub fn overloaded(message: impl Into<Cow<'static, str>>, retry_after_ms: u64) -> Self {
        Self::not_applied(ErrorKind::Overloaded, message).with(|detail| detail.retry_after_ms = Some(retry_after_ms))
    }

    /// The condition did not hold; the key's revision is `current`, 0 if it is absent.
    #[must_use]
    pub fn conflict(current: Revision) -> Self {
        let message = if current == Revision(0) {
            Cow::Borrowed("the condition did not hold: the key is absent")
        } else {
            Cow::Owned(format!("the condition did not hold: the key is at revision {current}"))
        };
        Self::not_applied(ErrorKind::Conflict, message).with(|detail| detail.current = Some(current))
    }

    /// The same error with its detail changed by `set`.
    #[must_use]
    pub fn with(mut self, set: impl FnOnce(&mut ErrorDetail)) -> Self {
        set(self.detail.get_or_insert_with(Box::default));
        self
    }

    /// The same error with another outcome: for a layer that knows more, or less, than the one below.
    #[must_use]
    pub fn with_outcome(mut self, outcome: Outcome) -> Self {
        self.outcome = outcome;
        self
    }

    /// What to do next.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether the operation took effect.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// What happened, for people.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The shard's row in the map of the node that refused.
    #[must_use]
    pub fn row(&self) -> Option<&ShardRow> {
        self.detail.as_ref()?.row.as_ref()
    }

    /// The leader, if the node that refused knows it.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        self.detail.as_ref()?.leader
    }

    /// How long to wait before asking again, in milliseconds.
    #[must_use]
    pub fn retry_after_ms(&self) -> Option<u64> {
        self.detail.as_ref()?.retry_after_ms
    }

    /// With `Conflict`: the key's revision, 0 if it is absent.
    #[must_use]
    pub fn current(&self) -> Option<Revision> {
        self.detail.as_ref()?.current
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match self.outcome {
            Outcome::NotApplied => Ok(()),
            Outcome::Unknown => f.write_str(" (it is not known whether the operation took effect)"),
        }
    }
}

impl std::error::Error for Error {}
