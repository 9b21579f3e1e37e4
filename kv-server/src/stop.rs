//! Why a node stopped or did not start, with the exit code and the sentence that a person reads.

use std::{
    any::Any,
    fmt,
    sync::{Mutex, PoisonError},
};

use kv_core::disk::{DiskError, DiskErrorKind};
use tokio::sync::watch;

use crate::{disk::DirectoryError, panic_text};

/// What kind of trouble it is; each has an exit code of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// A bug, or something that has no code of its own.
    Internal,
    /// The configuration can't be right.
    Configuration,
    /// The data directory belongs to another node or cluster, is in use, was wiped, or has an unknown format.
    DataDirectory,
    /// What is on disk is damaged.
    Damaged,
    /// An address can't be listened on.
    Address,
    /// The disk failed while the node ran.
    Disk,
}

impl Trouble {
    /// The process' exit code.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Internal => 1,
            Self::Configuration => 2,
            Self::DataDirectory => 3,
            Self::Damaged => 4,
            Self::Address => 5,
            Self::Disk => 6,
        }
    }
}

/// Why a node did not start, or stopped by itself: what happened and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The kind.
    pub trouble: Trouble,
    /// For people.
    pub message: String,
}

impl Failure {
    /// A failure with its message.
    pub fn new(trouble: Trouble, message: impl Into<String>) -> Self {
        Self { trouble, message: message.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<DirectoryError> for Failure {
    fn from(error: DirectoryError) -> Self {
        let trouble = match &error {
            DirectoryError::InUse(_) | DirectoryError::UnknownFormat(_) | DirectoryError::Foreign(_) => {
                Trouble::DataDirectory
            }
            DirectoryError::Damaged(_) => Trouble::Damaged,
            DirectoryError::Disk(_) => Trouble::Disk,
        };
        Self::new(trouble, error.to_string())
    }
}

impl From<DiskError> for Failure {
    fn from(error: DiskError) -> Self {
        let hint = match error.kind {
            DiskErrorKind::Full => "; free some space and start again",
            DiskErrorKind::NotFound | DiskErrorKind::Io => "",
        };
        Self::new(Trouble::Disk, format!("{error}{hint}"))
    }
}

/// How a node is to end, or has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Hand over, finish what was accepted, then end.
    Shutdown,
    /// End now, with no flush and no farewell.
    Kill,
    /// It can't go on; nothing more is acknowledged.
    Failed(Failure),
}

/// The one place where the end of a node is decided; the first decision that is final stays.
#[derive(Debug)]
pub(crate) struct Stop {
    decided: Mutex<()>,
    ending: watch::Sender<Option<Ending>>,
}

impl Default for Stop {
    fn default() -> Self {
        Self { decided: Mutex::default(), ending: watch::Sender::new(None) }
    }
}

impl Stop {
    /// Asks for an end. A shutdown may still become a kill or a failure; these are final.
    pub(crate) fn ask(&self, ending: Ending) {
        let _decided = self.decided.lock().unwrap_or_else(PoisonError::into_inner);
        self.ending.send_if_modified(|current| match current {
            None | Some(Ending::Shutdown) if current.as_ref() != Some(&ending) => {
                *current = Some(ending);
                true
            }
            _ => false,
        });
    }

    /// Ends the node for a reason.
    pub(crate) fn fail(&self, trouble: Trouble, message: impl Into<String>) {
        let failure = Failure::new(trouble, message);
        tracing::error!(error = %failure, "the node stops");
        self.ask(Ending::Failed(failure));
    }

    /// Ends the node because a part of it panicked: what it was about to do is not known any more.
    pub(crate) fn panicked(&self, what: &str, panic: &(dyn Any + Send)) {
        self.fail(Trouble::Internal, format!("{what} panicked, which is a bug: {}", panic_text(panic)));
    }

    /// What was decided, if anything was.
    pub(crate) fn ending(&self) -> Option<Ending> {
        self.ending.borrow().clone()
    }

    /// Whether the node ends without any further step.
    pub(crate) fn is_abrupt(&self) -> bool {
        matches!(&*self.ending.borrow(), Some(Ending::Kill | Ending::Failed(_)))
    }

    /// Waits until an end is asked for.
    pub(crate) async fn asked(&self) {
        self.wait(|ending| ending.is_some()).await;
    }

    /// Waits until the node is to end without any further step.
    pub(crate) async fn abrupt(&self) {
        self.wait(|ending| matches!(ending, Some(Ending::Kill | Ending::Failed(_)))).await;
    }

    async fn wait(&self, condition: impl FnMut(&Option<Ending>) -> bool) {
        // The sender lives as long as `self`, so that the wait ends only with the condition.
        let mut ending = self.ending.subscribe();
        let _closed = ending.wait_for(condition).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shutdown_may_become_a_kill_and_a_kill_stays() {
        let stop = Stop::default();
        stop.ask(Ending::Shutdown);
        assert!(!stop.is_abrupt());
        stop.ask(Ending::Kill);
        stop.fail(Trouble::Disk, "late");
        assert_eq!(stop.ending(), Some(Ending::Kill));
        assert!(stop.is_abrupt());
    }
}
