//! Why a node stopped or did not start, with the exit code and the sentence that a person reads.

use std::{
    any::Any,
    fmt,
    sync::{Mutex, PoisonError},
};

use kv_core::{
    disk::{DiskError, DiskErrorKind},
    log::LogError,
    node::OpenLogError,
};
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

    /// What is on disk is damaged, with all that can be done about it today.
    ///
    /// An older copy of the directory is never advised: started from it, a node would have forgotten votes and
    /// acknowledgements, and could help to lose what it once promised.
    pub(crate) fn damaged(what: impl fmt::Display) -> Self {
        Self::new(Trouble::Damaged, format!("{what}. {STAYS_OUT}"))
    }
}

/// What to do about a node whose data is damaged.
const STAYS_OUT: &str = "Keep the directory as it is, and check the disk. The node stays out: this version can't replace a \
                         node yet, and an older copy of the directory must never be started, since it has forgotten what the \
                         node acknowledged. The other nodes serve on as long as they are a majority";

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<DirectoryError> for Failure {
    fn from(error: DirectoryError) -> Self {
        match error {
            DirectoryError::InUse(message)
            | DirectoryError::UnknownFormat(message)
            | DirectoryError::Foreign(message) => Self::new(Trouble::DataDirectory, message),
            DirectoryError::Damaged(message) => Self::damaged(message),
            DirectoryError::Disk(error) => error.into(),
        }
    }
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Corrupt { .. } | LogError::Exists => Self::damaged(error),
            LogError::Format { .. } => Self::new(Trouble::DataDirectory, error.to_string()),
            LogError::Refused(_) => Self::new(Trouble::Internal, error.to_string()),
            LogError::Disk(error) => error.into(),
        }
    }
}

impl From<OpenLogError> for Failure {
    fn from(error: OpenLogError) -> Self {
        match error {
            OpenLogError::Log(error) => error.into(),
            OpenLogError::WithoutIdentity { .. } => Self::damaged(error),
        }
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
        self.failed(Failure::new(trouble, message));
    }

    /// The same, with the whole of it.
    pub(crate) fn failed(&self, failure: Failure) {
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
    use kv_core::disk::SegmentNumber;

    #[test]
    fn what_to_do_is_said_wherever_a_full_disk_or_damage_is_found() {
        let full = || DiskError::new(DiskErrorKind::Full, "could not write log/3");
        let ways: [Failure; 4] = [
            full().into(),
            LogError::Disk(full()).into(),
            OpenLogError::Log(LogError::Disk(full())).into(),
            DirectoryError::Disk(full()).into(),
        ];
        for failure in ways {
            assert_eq!(failure.trouble, Trouble::Disk);
            assert!(failure.message.contains("free some space and start again"), "{failure}");
        }
        let ways: [Failure; 3] = [
            LogError::Corrupt { segment: SegmentNumber(3), offset: 0, what: "it is gone".to_owned() }.into(),
            OpenLogError::WithoutIdentity { what: "checkpoints" }.into(),
            DirectoryError::Damaged("identity is damaged".to_owned()).into(),
        ];
        for failure in ways {
            assert_eq!(failure.trouble, Trouble::Damaged);
            assert!(failure.message.contains("The node stays out"), "{failure}");
        }
    }

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
