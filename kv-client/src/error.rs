//! What went wrong, and whether the operation took effect.
//!
//! Ask [`Error::outcome`] first: after `NotApplied` a write did not happen and never will; after `Unknown` it may have, or
//! may yet. [`Error::kind`] tells what to do next.

use std::{borrow::Cow, fmt, time::Duration};

use crate::types::Revision;

/// The result of a call.
pub type Result<T> = std::result::Result<T, Error>;

/// What to do next. A missing key is no error: a read answers `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Wait and ask again: no node that can serve the key could be reached within the deadline, or its shard has no leader
    /// with a majority.
    Unavailable,
    /// Wait as long as [`Error::retry_after`] says: a queue is at its bound, here or at the node.
    Overloaded,
    /// Free space on the node: it takes no writes until then.
    DiskFull,
    /// Give it more time, or ask again: the deadline passed first.
    Timeout,
    /// Read, and decide: the write's session expired while it was under way. It happened at most once.
    SessionExpired,
    /// Read again, and decide: the condition did not hold. [`Error::current`] says what the key's revision is.
    Conflict,
    /// Mend the request: it can never succeed as it is.
    Invalid,
    /// Check the addresses: they belong to another cluster, or to more than one.
    WrongCluster,
    /// Look at `kv status`: no node could serve, and one whose replica is out of service was asked. It serves again when a
    /// majority of the shard's other replicas does.
    Corrupt,
    /// Report it: this is a bug.
    Internal,
}

/// Whether the operation took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It did not, and never will.
    NotApplied,
    /// It may have, or may yet. It happened at most once.
    Unknown,
}

/// A failed call.
#[derive(Clone, Debug)]
pub struct Error {
    kind: ErrorKind,
    outcome: Outcome,
    message: Cow<'static, str>,
    retry_after: Option<Duration>,
    current: Option<Revision>,
}

impl Error {
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

    /// Whether the same call may succeed later and can be made again without doing anything twice. The client itself has
    /// already asked again, as often as the deadline allowed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        let passes = matches!(
            self.kind,
            ErrorKind::Unavailable | ErrorKind::Overloaded | ErrorKind::DiskFull | ErrorKind::Timeout
        );
        passes && self.outcome == Outcome::NotApplied
    }

    /// How long to wait before asking again, if the node said so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// With [`ErrorKind::Conflict`]: the key's revision. `None` if the key is absent, and with every other kind.
    #[must_use]
    pub fn current(&self) -> Option<Revision> {
        self.current
    }

    pub(crate) fn not_applied(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, outcome: Outcome::NotApplied, message: message.into(), retry_after: None, current: None }
    }

    pub(crate) fn with_outcome(mut self, outcome: Outcome) -> Self {
        self.outcome = outcome;
        self
    }

    pub(crate) fn with_retry_after(mut self, retry_after: Option<Duration>) -> Self {
        self.retry_after = retry_after;
        self
    }

    pub(crate) fn with_current(mut self, current: Option<Revision>) -> Self {
        self.current = current.filter(|revision| *revision != Revision(0));
        self
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
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

/// Bounds that kv-core checks where keys and values are made: the error says which.
impl From<kv_core::error::Error> for Error {
    fn from(error: kv_core::error::Error) -> Self {
        use kv_core::error::ErrorKind as Core;
        let kind = match error.kind() {
            Core::NotOwner | Core::StaleEpoch | Core::NoQuorum => ErrorKind::Unavailable,
            Core::Overloaded => ErrorKind::Overloaded,
            Core::DiskFull => ErrorKind::DiskFull,
            Core::Timeout => ErrorKind::Timeout,
            Core::SessionExpired => ErrorKind::SessionExpired,
            Core::Conflict => ErrorKind::Conflict,
            Core::Invalid => ErrorKind::Invalid,
            Core::WrongCluster => ErrorKind::WrongCluster,
            Core::Corrupt => ErrorKind::Corrupt,
            _ => ErrorKind::Internal,
        };
        let outcome = match error.outcome() {
            kv_core::error::Outcome::NotApplied => Outcome::NotApplied,
            kv_core::error::Outcome::Unknown => Outcome::Unknown,
        };
        Self::not_applied(kind, error.message().to_owned())
            .with_outcome(outcome)
            .with_retry_after(error.retry_after_ms().map(Duration::from_millis))
            .with_current(error.current())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_certainly_did_not_happen_is_retryable() {
        let error = Error::not_applied(ErrorKind::Timeout, "too late");
        assert!(error.is_retryable());
        let error = error.with_outcome(Outcome::Unknown);
        assert!(!error.is_retryable());
        assert_eq!(error.to_string(), "too late (it is not known whether the operation took effect)");
        assert!(!Error::not_applied(ErrorKind::Conflict, "no").is_retryable());
    }

    #[test]
    fn a_conflict_says_which_revision_is_there() {
        let absent = Error::from(kv_core::error::Error::conflict(Revision(0)));
        let present = Error::from(kv_core::error::Error::conflict(Revision(7)));
        assert_eq!((absent.kind(), absent.current()), (ErrorKind::Conflict, None));
        assert_eq!((present.kind(), present.current()), (ErrorKind::Conflict, Some(Revision(7))));
    }
}
