//! The directory tree of immutable files on a simulated disk.

use std::collections::BTreeSet;

use bytes::Bytes;
use kv_core::disk::{DiskError, FileDisk};

use super::{SimDisk, io};

const ROOT: &str = "files";

/// Handle to the files' directory of a [`SimDisk`].
#[derive(Clone, Debug)]
pub struct SimFileDisk {
    disk: SimDisk,
    /// Directories whose names this handle has synced.
    durable: BTreeSet<String>,
}

impl SimFileDisk {
    pub(crate) fn new(disk: SimDisk) -> Self {
        Self { disk, durable: BTreeSet::new() }
    }

    fn forget(&mut self, path: &str) {
        self.durable.retain(|directory| directory != path && !directory.starts_with(&format!("{path}/")));
    }

    /// The path on the disk of a file or directory.
    #[must_use]
    pub fn path(path: &str) -> String {
        if path.is_empty() { ROOT.to_owned() } else { format!("{ROOT}/{path}") }
    }
}

impl FileDisk for SimFileDisk {
    fn list(&mut self, directory: &str) -> Result<Vec<String>, DiskError> {
        let inner = self.disk.inner.borrow();
        let inode = inner.tree.find(&Self::path(directory));
        let names = inode.and_then(|inode| inner.tree.names(inode));
        Ok(names.into_iter().flatten().map(|(name, _)| name.clone()).collect())
    }

    fn create_directory(&mut self, directory: &str) -> Result<(), DiskError> {
        self.disk.inner.borrow_mut().make_directory(&Self::path(directory), &mut self.durable)
    }

    fn write(&mut self, path: &str, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let mut inner = self.disk.inner.borrow_mut();
        // On a real disk the root is made, and its name synced, when the handle is.
        inner.make_directory(ROOT, &mut self.durable)?;
        inner.write(&Self::path(path), offset, bytes)
    }

    fn sync(&mut self, path: &str) -> Result<(), DiskError> {
        self.disk.inner.borrow_mut().sync(&Self::path(path))
    }

    fn sync_directory(&mut self, directory: &str) -> Result<(), DiskError> {
        let mut inner = self.disk.inner.borrow_mut();
        inner.make_directory(ROOT, &mut self.durable)?;
        inner.sync_directory(&Self::path(directory))
    }

    fn read(&mut self, path: &str, offset: u64, bytes_max: usize) -> Result<Bytes, DiskError> {
        let mut inner = self.disk.inner.borrow_mut();
        let content = inner.content(&Self::path(path))?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
        let end = start.saturating_add(bytes_max).min(content.len());
        let bytes = Bytes::copy_from_slice(&content[start..end]);
        inner.count_read(bytes.len());
        Ok(bytes)
    }

    fn size(&mut self, path: &str) -> Result<Option<u64>, DiskError> {
        let inner = self.disk.inner.borrow();
        if inner.steps_left == Some(0) {
            return Err(io("the power is off"));
        }
        Ok(inner.tree.file(&Self::path(path)).map(|file| file.content().len() as u64))
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError> {
        self.forget(&Self::path(from));
        self.disk.inner.borrow_mut().rename(&Self::path(from), &Self::path(to))
    }

    fn remove(&mut self, path: &str) -> Result<(), DiskError> {
        self.forget(&Self::path(path));
        let mut inner = self.disk.inner.borrow_mut();
        match inner.tree.find(&Self::path(path)) {
            Some(_) => inner.remove(&Self::path(path)),
            None => Ok(()),
        }
    }
}
