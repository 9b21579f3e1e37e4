//! What a refusal calls for, by its kind: the one place that says which refusals are worth a second node.
//!
//! Used by whoever looks for the node that serves a shard: the client's [`Attempt`](super::Attempt), and a server that finds
//! it for callers without one. How long to wait, and whether a write may be sent again at all, is theirs to say.

use crate::error::ErrorKind;

/// What may help after a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Another node: this one does not lead, or only its replica is cut off, damaged or slow.
    AnotherNode,
    /// A fresher map: the arc has changed hands.
    FreshMap,
    /// Time: the node has too much to do, or no room.
    Time,
    /// Another session, if nothing can have come of the write.
    NewSession,
    /// Nothing that whoever routes can do.
    Nothing,
}

impl Remedy {
    /// The remedy for a refusal of this kind.
    #[must_use]
    pub fn of(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::NotOwner | ErrorKind::NoQuorum | ErrorKind::Timeout | ErrorKind::Corrupt => Self::AnotherNode,
            ErrorKind::StaleEpoch => Self::FreshMap,
            ErrorKind::Overloaded | ErrorKind::DiskFull => Self::Time,
            ErrorKind::SessionExpired => Self::NewSession,
            ErrorKind::Conflict | ErrorKind::Invalid | ErrorKind::WrongCluster | ErrorKind::Internal => Self::Nothing,
        }
    }
}
