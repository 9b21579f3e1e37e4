//! The data directory: whose it is, that one process uses it at a time, and where everything in it stands.
//!
//! | name | what it is |
//! |---|---|
//! | `lock` | locked as long as a process uses the directory |
//! | `identity` | format, node id, incarnation, and the cluster's founding record once it is known |
//! | `log/` | the log's segments |
//! | `checkpoints/` | base and delta files |
//! | `index/` | the read index, which may be deleted at any time |
//!
//! What may stand without what is the core's to say (`kv_core::node::open_log`); here it is turned into words.

use std::{
    fmt,
    fs::{self, File, OpenOptions, TryLockError},
    path::{Path, PathBuf},
    sync::Arc,
};

use kv_core::{
    disk::{DiskError, FileDisk},
    founding::{DATA_FORMAT, IDENTITY_PATH, IdentityError, IdentityFile},
    types::NodeId,
};

use super::{RealFiles, disk_error, sync_directory};

/// A directory that this process uses, and no other can.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    identity: Option<IdentityFile>,
    lock: DirectoryLock,
}

/// While this or a copy of it lives, no other process uses the directory.
#[derive(Clone, Debug)]
pub struct DirectoryLock {
    /// Held for its lock.
    _file: Arc<File>,
}

/// Why a data directory is not used. The message says what to do.
#[derive(Debug)]
pub enum DirectoryError {
    /// Another process uses it.
    InUse(String),
    /// It was written in a format that this version does not know.
    UnknownFormat(String),
    /// It belongs to another node or cluster.
    Foreign(String),
    /// What it holds is damaged.
    Damaged(String),
    /// The system refused.
    Disk(DiskError),
}

impl fmt::Display for DirectoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(message) | Self::UnknownFormat(message) | Self::Foreign(message) | Self::Damaged(message) => {
                f.write_str(message)
            }
            Self::Disk(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for DirectoryError {}

impl From<DiskError> for DirectoryError {
    fn from(error: DiskError) -> Self {
        Self::Disk(error)
    }
}

impl DataDirectory {
    /// Takes a directory for this node, making it if it does not exist.
    ///
    /// # Errors
    /// If it is in use, another node's, damaged, of an unknown format, or can't be read.
    pub fn open(path: &Path, node: NodeId) -> Result<Self, DirectoryError> {
        make(path)?;
        let lock = lock(path)?;
        let identity = IdentityFile::load(&mut RealFiles::at(path), node).map_err(|error| unusable(path, error))?;
        if identity.is_some() && !path.join("log").exists() {
            return Err(DirectoryError::Damaged(format!(
                "{} has an identity but no log: what this node had acknowledged is gone; if the directory `log` was moved \
                 away, put it back as it was",
                path.display()
            )));
        }
        Ok(Self { path: path.to_owned(), identity, lock: DirectoryLock { _file: Arc::new(lock) } })
    }

    /// What it says of its node; `None` if it was never used.
    #[must_use]
    pub fn identity(&self) -> Option<&IdentityFile> {
        self.identity.as_ref()
    }

    /// Whether there are checkpoints in it.
    ///
    /// # Errors
    /// If that can't be told.
    pub fn has_checkpoints(&self) -> Result<bool, DirectoryError> {
        Ok(!RealFiles::at(&self.path).list("checkpoints")?.is_empty())
    }

    /// Its lock, for those who use the directory for longer than this lives.
    #[must_use]
    pub fn lock(&self) -> DirectoryLock {
        self.lock.clone()
    }

    /// Where the directory is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A place in it.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes and syncs what it says of its node. The log must be there by now.
    ///
    /// # Errors
    /// If it can't.
    pub fn write_identity(&mut self, identity: IdentityFile) -> Result<(), DirectoryError> {
        identity.store(&mut RealFiles::at(&self.path))?;
        self.identity = Some(identity);
        Ok(())
    }
}

/// Makes the directory with those that it stands in, and syncs their names: an earlier start may have been stopped before it came
/// to that, and a loss of power would take everything. Those that this process may not open were not made by it.
fn make(path: &Path) -> Result<(), DiskError> {
    fs::create_dir_all(path).map_err(|error| disk_error("make", path, &error))?;
    let whole = path.canonicalize().map_err(|error| disk_error("look at", path, &error))?;
    for directory in whole.ancestors().skip(1) {
        match File::open(directory) {
            Ok(_) => sync_directory(directory)?,
            Err(_) => break,
        }
    }
    Ok(())
}

fn lock(path: &Path) -> Result<File, DirectoryError> {
    let path = path.join("lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|error| disk_error("open", &path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(DirectoryError::InUse(format!(
            "another process uses this data directory ({} is locked); stop it, or give this node a directory of its own",
            path.display()
        ))),
        Err(TryLockError::Error(error)) => Err(disk_error("lock", &path, &error).into()),
    }
}

fn unusable(path: &Path, error: IdentityError) -> DirectoryError {
    let file = path.join(IDENTITY_PATH);
    match error {
        IdentityError::Disk(error) => DirectoryError::Disk(error),
        IdentityError::Damaged => {
            DirectoryError::Damaged(format!("{} is damaged. Nothing was changed", file.display()))
        }
        IdentityError::UnknownFormat { format } => DirectoryError::UnknownFormat(format!(
            "{} is of data format {format}, and this version knows only format {DATA_FORMAT}; run the version that wrote it",
            file.display()
        )),
        IdentityError::OtherNode { owner } => DirectoryError::Foreign(format!(
            "{} is the data directory of node {owner}; start it with --node {owner}, or give this node a directory of its own",
            path.display()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_core::types::Incarnation;

    const NODE: NodeId = NodeId(2);

    fn identity() -> IdentityFile {
        IdentityFile { node: NODE, incarnation: Incarnation(99), lowest: Some(Incarnation(5)), record: None }
    }

    fn used(path: &Path) {
        let mut directory = DataDirectory::open(path, NODE).unwrap();
        assert_eq!(directory.identity(), None);
        fs::create_dir(directory.join("log")).unwrap();
        directory.write_identity(identity()).unwrap();
    }

    #[test]
    fn a_directory_keeps_its_identity() {
        let path = tempfile::tempdir().unwrap();
        used(path.path());
        let directory = DataDirectory::open(path.path(), NODE).unwrap();
        assert_eq!(directory.identity(), Some(&identity()));
    }

    #[test]
    fn a_directory_is_made_with_those_that_it_stands_in() {
        let path = tempfile::tempdir().unwrap();
        let deep = path.path().join("not/there/yet");
        used(&deep);
        assert!(DataDirectory::open(&deep, NODE).unwrap().identity().is_some());
        fs::write(path.path().join("file"), "").unwrap();
        let error = DataDirectory::open(&path.path().join("file/below"), NODE).unwrap_err();
        assert!(matches!(&error, DirectoryError::Disk(error) if error.message.contains("file/below")), "{error}");
    }

    #[test]
    fn a_directory_is_used_by_one_process_at_a_time() {
        let path = tempfile::tempdir().unwrap();
        let first = DataDirectory::open(path.path(), NODE).unwrap();
        assert!(matches!(DataDirectory::open(path.path(), NODE), Err(DirectoryError::InUse(_))));
        drop(first);
        assert!(DataDirectory::open(path.path(), NODE).is_ok());
    }

    #[test]
    fn another_nodes_directory_is_refused() {
        let path = tempfile::tempdir().unwrap();
        used(path.path());
        let error = DataDirectory::open(path.path(), NodeId(3)).unwrap_err();
        assert!(matches!(&error, DirectoryError::Foreign(message) if message.contains("--node 2")), "{error}");
    }

    #[test]
    fn every_changed_byte_of_the_identity_is_noticed() {
        let path = tempfile::tempdir().unwrap();
        used(path.path());
        let file = path.path().join("identity");
        let bytes = fs::read(&file).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            fs::write(&file, changed).unwrap();
            let error = DataDirectory::open(path.path(), NODE).unwrap_err();
            let unknown_format = (8..12).contains(&at);
            assert_eq!(matches!(error, DirectoryError::UnknownFormat(_)), unknown_format, "byte {at}: {error}");
            assert_eq!(matches!(error, DirectoryError::Damaged(_)), !unknown_format, "byte {at}: {error}");
        }
        fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
        assert!(DataDirectory::open(path.path(), NODE).is_err());
    }

    #[test]
    fn a_log_or_checkpoints_that_are_missing_or_alone_are_noticed() {
        let path = tempfile::tempdir().unwrap();
        used(path.path());
        let directory = DataDirectory::open(path.path(), NODE).unwrap();
        assert!(!directory.has_checkpoints().unwrap());
        fs::create_dir(directory.join("checkpoints")).unwrap();
        assert!(!directory.has_checkpoints().unwrap(), "the directory is made before there is an identity");
        fs::write(directory.join("checkpoints").join("1"), "").unwrap();
        assert!(directory.has_checkpoints().unwrap());
        drop(directory);
        fs::remove_dir(path.path().join("log")).unwrap();
        assert!(matches!(DataDirectory::open(path.path(), NODE), Err(DirectoryError::Damaged(_))));
    }
}
