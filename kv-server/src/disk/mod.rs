//! Real files behind kv-core's disk traits, and the data directory that holds them.
//!
//! Every error names the path and what the system said. Nothing here retries: after a failed write or sync the caller stops.

mod directory;
mod files;
mod index;
mod log;
mod next_segment;

use std::{fs::File, io, path::Path};

use kv_core::disk::{DiskError, DiskErrorKind};

pub use kv_core::founding::DATA_FORMAT;

pub use self::{
    directory::{DataDirectory, DirectoryError},
    files::RealFiles,
    index::{Engine, IndexStore},
    log::RealLog,
};

/// Turns a system error into the core's, saying what was tried on which path.
fn disk_error(what: &str, path: &Path, error: &io::Error) -> DiskError {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => DiskErrorKind::Full,
        io::ErrorKind::NotFound => DiskErrorKind::NotFound,
        _ => DiskErrorKind::Io,
    };
    let hint = match error.kind() {
        io::ErrorKind::PermissionDenied => "; the user that runs the node must be allowed to read and write there",
        io::ErrorKind::ReadOnlyFilesystem => {
            "; the file system takes no writes: look at the system's log, the disk may fail"
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            "; something else has that name: choose another path"
        }
        _ if error.raw_os_error() == Some(EIO) => "; look at the system's log, the disk may fail",
        _ => "",
    };
    DiskError::new(kind, format!("could not {what} {}: {error}{hint}", path.display()))
}

/// What the system says of a device that does not do what it should, on every Unix.
const EIO: i32 = 5;

/// Makes the names in a directory durable.
fn sync_directory(path: &Path) -> Result<(), DiskError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(|error| disk_error("sync", path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_do_about_a_disk_is_said() {
        let said = |error: io::Error| disk_error("open", Path::new("data/1/lock"), &error).message;
        assert!(said(io::ErrorKind::PermissionDenied.into()).contains("must be allowed"));
        assert!(said(io::ErrorKind::ReadOnlyFilesystem.into()).contains("takes no writes"));
        assert!(said(io::Error::from_raw_os_error(EIO)).contains("the system's log"));
        assert!(said(io::ErrorKind::NotFound.into()).starts_with("could not open data/1/lock: "));
    }
}
