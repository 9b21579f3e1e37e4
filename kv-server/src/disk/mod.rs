//! Real files behind kv-core's disk traits, and the data directory that holds them.
//!
//! Every error names the path and what the system said. Nothing here retries: after a failed write or sync the caller stops.

mod directory;
mod files;
mod log;
mod store;

use std::{fs::File, io, path::Path};

use kv_core::disk::{DiskError, DiskErrorKind};

pub use kv_core::founding::DATA_FORMAT;

pub use self::{
    directory::{DataDirectory, DirectoryError},
    files::RealFiles,
    log::RealLog,
    store::SledStore,
};

/// Turns a system error into the core's, saying what was tried on which path.
fn disk_error(what: &str, path: &Path, error: &io::Error) -> DiskError {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => DiskErrorKind::Full,
        io::ErrorKind::NotFound => DiskErrorKind::NotFound,
        _ => DiskErrorKind::Io,
    };
    DiskError::new(kind, format!("could not {what} {}: {error}", path.display()))
}

/// Makes the names in a directory durable.
fn sync_directory(path: &Path) -> Result<(), DiskError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(|error| disk_error("sync", path, &error))
}
