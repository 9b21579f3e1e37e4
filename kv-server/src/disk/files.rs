//! Checkpoint files on a real file system, under one root.
//!
//! A file that was written stays open until it is synced, so that an error of the kernel's write-back is seen by the sync and
//! not lost with a handle. Paths that could leave the root are refused.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Component, Path, PathBuf},
};

use bytes::Bytes;
use kv_core::disk::{DiskError, DiskErrorKind, FileDisk};

use super::{disk_error, sync_directory};

/// Files under a root directory.
#[derive(Debug)]
pub struct RealFiles {
    root: PathBuf,
    /// Files with writes that were not synced yet.
    unsynced: BTreeMap<PathBuf, File>,
    /// Directories whose names were synced.
    durable: BTreeSet<PathBuf>,
}

impl RealFiles {
    /// Files under this directory, which is made if it does not exist.
    ///
    /// # Errors
    /// If it can't be made.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, DiskError> {
        let root = root.into();
        fs::create_dir_all(&root).map_err(|error| disk_error("make", &root, &error))?;
        if let Some(parent) = root.parent() {
            sync_directory(parent)?;
        }
        Ok(Self::at(root))
    }

    /// Files under this directory, which must exist.
    pub(crate) fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), unsynced: BTreeMap::new(), durable: BTreeSet::new() }
    }

    fn path(&self, relative: &str) -> Result<PathBuf, DiskError> {
        let relative = Path::new(relative);
        if relative.components().all(|component| matches!(component, Component::Normal(_))) {
            Ok(self.root.join(relative))
        } else {
            Err(DiskError::new(DiskErrorKind::Io, format!("{} is not a path below the root", relative.display())))
        }
    }

    /// Forgets what is known of a path and of all below it.
    fn forget(&mut self, path: &Path) {
        self.durable.retain(|directory| !directory.starts_with(path));
        self.unsynced.retain(|open, _| !open.starts_with(path));
    }
}

impl FileDisk for RealFiles {
    fn list(&mut self, directory: &str) -> Result<Vec<String>, DiskError> {
        let path = self.path(directory)?;
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(disk_error("list", &path, &error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| disk_error("list", &path, &error))?;
            // Nothing of ours has a name that is not UTF-8.
            names.extend(entry.file_name().into_string().ok());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn create_directory(&mut self, directory: &str) -> Result<(), DiskError> {
        let path = self.path(directory)?;
        let mut made = self.root.clone();
        for component in path.strip_prefix(&self.root).expect("made below the root").components() {
            let parent = made.clone();
            made.push(component);
            match fs::create_dir(&made) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    if self.durable.contains(&made) {
                        continue;
                    }
                }
                Err(error) => return Err(disk_error("make", &made, &error)),
            }
            sync_directory(&parent)?;
            self.durable.insert(made.clone());
        }
        Ok(())
    }

    fn write(&mut self, path: &str, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let path = self.path(path)?;
        if !self.unsynced.contains_key(&path) {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
                .map_err(|error| disk_error("open", &path, &error))?;
            self.unsynced.insert(path.clone(), file);
        }
        self.unsynced[&path].write_all_at(bytes, offset).map_err(|error| disk_error("write", &path, &error))
    }

    fn sync(&mut self, path: &str) -> Result<(), DiskError> {
        let path = self.path(path)?;
        let file = match self.unsynced.remove(&path) {
            Some(file) => file,
            None => File::open(&path).map_err(|error| disk_error("open", &path, &error))?,
        };
        file.sync_all().map_err(|error| disk_error("sync", &path, &error))
    }

    fn sync_directory(&mut self, directory: &str) -> Result<(), DiskError> {
        let path = self.path(directory)?;
        sync_directory(&path)
    }

    fn read(&mut self, path: &str, offset: u64, bytes_max: usize) -> Result<Bytes, DiskError> {
        let path = self.path(path)?;
        let file = File::open(&path).map_err(|error| disk_error("open", &path, &error))?;
        let size = file.metadata().map_err(|error| disk_error("look at", &path, &error))?.len();
        let count = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX).min(bytes_max);
        let mut bytes = vec![0; count];
        file.read_exact_at(&mut bytes, offset).map_err(|error| disk_error("read", &path, &error))?;
        Ok(bytes.into())
    }

    fn size(&mut self, path: &str) -> Result<Option<u64>, DiskError> {
        let path = self.path(path)?;
        match fs::metadata(&path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(disk_error("look at", &path, &error)),
        }
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError> {
        let (from, to) = (self.path(from)?, self.path(to)?);
        self.forget(&from);
        self.forget(&to);
        fs::rename(&from, &to).map_err(|error| disk_error("rename", &from, &error))
    }

    fn remove(&mut self, path: &str) -> Result<(), DiskError> {
        let path = self.path(path)?;
        self.forget(&path);
        let removed = match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(&path),
            Ok(_) => fs::remove_file(&path),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(disk_error("remove", &path, &error)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_written_listed_renamed_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let mut files = RealFiles::open(directory.path().join("checkpoints")).unwrap();
        assert_eq!(files.list("1").unwrap(), Vec::<String>::new());
        files.create_directory("1/staging").unwrap();
        files.create_directory("1/staging").unwrap();
        files.write("1/staging/b", 0, b"hello").unwrap();
        files.write("1/staging/b", 5, b" world").unwrap();
        files.sync("1/staging/b").unwrap();
        files.sync_directory("1/staging").unwrap();
        assert_eq!(files.size("1/staging/b").unwrap(), Some(11));
        assert_eq!(&files.read("1/staging/b", 6, 100).unwrap()[..], b"world");
        assert_eq!(&files.read("1/staging/b", 60, 100).unwrap()[..], b"");
        assert_eq!(files.read("1/none", 0, 1).unwrap_err().kind, DiskErrorKind::NotFound);
        files.rename("1/staging/b", "1/a").unwrap();
        assert_eq!(files.list("1").unwrap(), ["a", "staging"]);
        files.remove("1").unwrap();
        files.remove("1").unwrap();
        assert_eq!(files.size("1/a").unwrap(), None);
    }

    #[test]
    fn a_path_never_leaves_the_root() {
        let directory = tempfile::tempdir().unwrap();
        let mut files = RealFiles::open(directory.path().join("checkpoints")).unwrap();
        for path in ["../a", "/etc/passwd", "a/../../b", "./a"] {
            assert!(files.write(path, 0, b"x").is_err(), "{path}");
        }
    }
}
