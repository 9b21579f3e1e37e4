//! How the log of a data directory is opened, which depends on what else is in the directory.
//!
//! The log is made before the identity, and the identity is synced before the node says its first word. So an identity without
//! a log is damage, and so is a log or a checkpoint without an identity once it holds anything: what this node had acknowledged
//! is there, and nobody knows whose it is. Only a log that says nothing may stand alone: it is what an interrupted first start
//! leaves.

use std::fmt;

use crate::{
    disk::{DiskError, LogDisk},
    log::{Log, LogError, LogSettings, record::Recovered},
};

/// Why a log is not opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenLogError {
    /// The log itself is the reason.
    Log(LogError),
    /// There is no identity, but something that needs one: `what`, for people.
    WithoutIdentity {
        /// What is there.
        what: &'static str,
    },
}

impl fmt::Display for OpenLogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log(error) => error.fmt(f),
            Self::WithoutIdentity { what } => write!(
                f,
                "the data directory holds {what} but its file `identity` is missing; if the file was moved away, put that \
                 very file back"
            ),
        }
    }
}

impl std::error::Error for OpenLogError {}

impl From<LogError> for OpenLogError {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

impl From<DiskError> for OpenLogError {
    fn from(error: DiskError) -> Self {
        Self::Log(LogError::Disk(error))
    }
}

/// Opens the log of a directory, or makes it if this is its first start.
///
/// # Errors
/// If something is damaged or missing, nothing having been changed; or if the disk fails.
pub fn open_log<D: LogDisk>(
    mut disk: impl FnMut() -> Result<D, DiskError>,
    settings: LogSettings,
    has_identity: bool,
    has_checkpoints: bool,
) -> Result<(Log<D>, Recovered), OpenLogError> {
    if has_identity {
        return Ok(Log::open(disk()?, settings)?);
    }
    if has_checkpoints {
        return Err(OpenLogError::WithoutIdentity { what: "checkpoints" });
    }
    match Log::create(disk()?, settings.clone()) {
        Err(LogError::Exists) => {}
        made => return Ok((made?, Recovered::default())),
    }
    let (log, recovered) = Log::open(disk()?, settings)?;
    if recovered != Recovered::default() {
        return Err(OpenLogError::WithoutIdentity { what: "a log that is in use" });
    }
    Ok((log, recovered))
}
