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
//! The log is made before the identity, and the identity is synced before the node says its first word. So a directory with
//! an identity and without a log was damaged, and one with a log and nothing else is an interrupted first start. Incarnation
//! and record are in one file, so that a directory can't lose the one and pass for unfounded with the other.

use std::{
    fmt,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use kv_core::{
    codec::{Reader, put_bytes, put_u32, put_u64},
    disk::DiskError,
    founding::IdentityFile,
    types::NodeId,
};

use super::{disk_error, sync_directory};

/// The format of data directories that this version reads and writes. It grows when what is on disk changes.
pub const DATA_FORMAT: u32 = 1;

/// First bytes of the file `identity`.
const MAGIC: u64 = u64::from_le_bytes(*b"kv-data\0");

/// A directory that this process uses, and no other can.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    identity: Option<IdentityFile>,
    /// Held for its lock.
    _lock: File,
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
        fs::create_dir_all(path).map_err(|error| disk_error("make", path, &error))?;
        let lock = lock(path)?;
        let identity = match read_checked(&path.join("identity"))? {
            Some(content) => Some(decode_identity(path, node, &content)?),
            None => {
                clear_interrupted_start(path)?;
                None
            }
        };
        Ok(Self { path: path.to_owned(), identity, _lock: lock })
    }

    /// What it says of its node; `None` if it was never used.
    #[must_use]
    pub fn identity(&self) -> Option<&IdentityFile> {
        self.identity.as_ref()
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
        write_checked(&self.path, "identity", &identity.encode())?;
        self.identity = Some(identity);
        Ok(())
    }
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

/// A directory without identity holds nothing that anybody was promised, unless something else says that it did.
fn clear_interrupted_start(path: &Path) -> Result<(), DirectoryError> {
    if path.join("checkpoints").exists() {
        return Err(DirectoryError::Damaged(format!(
            "{} holds checkpoints but its file `identity` is missing; restore the directory as a whole, or move it away \
             and add this node under a new id",
            path.display()
        )));
    }
    let log = path.join("log");
    match fs::remove_dir_all(&log) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(disk_error("remove", &log, &error).into()),
        _ => Ok(()),
    }
}

fn decode_identity(path: &Path, node: NodeId, content: &Bytes) -> Result<IdentityFile, DirectoryError> {
    let identity =
        IdentityFile::decode(content).map_err(|_| DirectoryError::Damaged(damaged(&path.join("identity"))))?;
    if identity.node != node {
        return Err(DirectoryError::Foreign(format!(
            "{} is the data directory of node {stored}, and this is node {node}; start it with --node {stored}, or give \
             this node a directory of its own",
            path.display(),
            stored = identity.node
        )));
    }
    if !path.join("log").exists() {
        return Err(DirectoryError::Damaged(format!(
            "{} has an identity but no log: what this node had acknowledged is gone; restore the directory as a whole, or \
             move it away and add this node under a new id",
            path.display()
        )));
    }
    Ok(identity)
}

/// Writes magic, format, content and checksum so that the file is either whole or not there.
fn write_checked(directory: &Path, name: &str, content: &[u8]) -> Result<(), DirectoryError> {
    let mut bytes = Vec::new();
    put_u64(&mut bytes, MAGIC);
    put_u32(&mut bytes, DATA_FORMAT);
    put_bytes(&mut bytes, content);
    let checksum = checksum(&bytes);
    put_u64(&mut bytes, checksum);
    let path = directory.join(name);
    let unfinished = directory.join(format!("{name}.new"));
    let written = File::create(&unfinished).and_then(|mut file| {
        file.write_all(&bytes)?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&unfinished, &path)).map_err(|error| disk_error("write", &path, &error))?;
    Ok(sync_directory(directory)?)
}

/// The content of a file that [`write_checked`] wrote; `None` if it does not exist.
fn read_checked(path: &Path) -> Result<Option<Bytes>, DirectoryError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => Bytes::from(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(disk_error("read", path, &error).into()),
    };
    let damage = || DirectoryError::Damaged(damaged(path));
    let mut reader = Reader::new(bytes.clone());
    if reader.u64() != Ok(MAGIC) {
        return Err(damage());
    }
    // The format comes before the checksum, which another format may do otherwise.
    let format = reader.u32().map_err(|_| damage())?;
    if format != DATA_FORMAT {
        return Err(DirectoryError::UnknownFormat(format!(
            "{} is of data format {format}, and this version knows only format {DATA_FORMAT}; run the version that wrote it",
            path.display()
        )));
    }
    let content = reader.bytes().map_err(|_| damage())?;
    let stored = reader.u64().map_err(|_| damage())?;
    if stored != checksum(&bytes[..bytes.len() - 8]) || reader.finish().is_err() {
        return Err(damage());
    }
    Ok(Some(content))
}

fn damaged(path: &Path) -> String {
    format!(
        "{} is damaged; restore the data directory as a whole, or move it away and add this node under a new id",
        path.display()
    )
}

fn checksum(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
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
    fn an_interrupted_first_start_is_begun_anew_and_lost_data_is_not() {
        let path = tempfile::tempdir().unwrap();
        fs::create_dir(path.path().join("log")).unwrap();
        assert_eq!(DataDirectory::open(path.path(), NODE).unwrap().identity(), None);
        assert!(!path.path().join("log").exists());
        drop(path);

        let path = tempfile::tempdir().unwrap();
        used(path.path());
        fs::remove_dir(path.path().join("log")).unwrap();
        assert!(matches!(DataDirectory::open(path.path(), NODE), Err(DirectoryError::Damaged(_))));
        fs::remove_file(path.path().join("identity")).unwrap();
        fs::create_dir(path.path().join("checkpoints")).unwrap();
        assert!(matches!(DataDirectory::open(path.path(), NODE), Err(DirectoryError::Damaged(_))));
    }
}
