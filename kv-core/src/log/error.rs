//! Why the log could not do it, by what is to be done about it.

use std::fmt;

use crate::disk::{DiskError, SegmentNumber};

use super::block::FORMAT_VERSION;

/// A failed call into the log. Out of [`append`](super::Log::append) each of them means: stop the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogError {
    /// The log can't be proven whole: the node must not start, and nothing on the disk may be changed.
    Corrupt {
        /// The damaged segment.
        segment: SegmentNumber,
        /// Where in it, in bytes.
        offset: u64,
        /// What is damaged.
        what: String,
    },
    /// The disk failed. What it holds now is not known before the log is opened again.
    Disk(DiskError),
    /// Written by another version of this program: use that version.
    Format {
        /// The segment.
        segment: SegmentNumber,
        /// The version that it says it has.
        version: u16,
    },
    /// A log is there already: open it instead of creating one.
    Exists,
    /// A bug of the caller: the batch contradicts the log or is too large. Nothing of it was written.
    Refused(String),
}

impl LogError {
    pub(crate) fn corrupt(segment: SegmentNumber, offset: usize, what: impl Into<String>) -> Self {
        Self::Corrupt { segment, offset: offset as u64, what: what.into() }
    }
}

impl From<DiskError> for LogError {
    fn from(error: DiskError) -> Self {
        Self::Disk(error)
    }
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Corrupt { segment, offset, what } => {
                write!(f, "the log is damaged: segment {}, offset {offset}: {what}. Nothing was changed", segment.0)
            }
            Self::Disk(error) => write!(f, "the log's disk failed: {error}"),
            Self::Format { segment, version } => write!(
                f,
                "segment {} of the log is of format version {version}; this program reads version {FORMAT_VERSION}. Use \
                 the program that wrote it",
                segment.0
            ),
            Self::Exists => f.write_str("a log is there already"),
            Self::Refused(what) => write!(f, "a batch was refused by the log, which is a bug of this program: {what}"),
        }
    }
}

impl std::error::Error for LogError {}
