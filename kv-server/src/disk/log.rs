//! The log's segments as real files: zeroed when they are made, written in place, synced with fdatasync.
//!
//! A segment is made under a name that ends in `.new`, by a thread of its own ([`super::next_segment`]), and renamed once it is
//! whole, so that a crash leaves no segment of a wrong length. Because its blocks are allocated and written beforehand, a later
//! sync has no metadata to write.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use kv_core::disk::{DiskError, LogDisk, SegmentNumber};

use super::{disk_error, next_segment::NextSegment, sync_directory};

/// The directory of a node's log.
#[derive(Debug)]
pub struct RealLog {
    directory: PathBuf,
    open: BTreeMap<SegmentNumber, File>,
    next: NextSegment,
}

impl RealLog {
    /// The log in this directory, which is made if it does not exist. What an interrupted creation left is removed.
    ///
    /// # Errors
    /// If the directory can't be made or read.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self, DiskError> {
        let directory = directory.into();
        fs::create_dir_all(&directory).map_err(|error| disk_error("make", &directory, &error))?;
        if let Some(parent) = directory.parent() {
            sync_directory(parent)?;
        }
        for path in paths(&directory)? {
            if path.extension().is_some_and(|extension| extension == "new") {
                fs::remove_file(&path).map_err(|error| disk_error("remove", &path, &error))?;
            }
        }
        sync_directory(&directory)?;
        let next = NextSegment::new(directory.join("next.new"));
        Ok(Self { directory, open: BTreeMap::new(), next })
    }

    fn path(&self, segment: SegmentNumber) -> PathBuf {
        self.directory.join(format!("{:020}.log", segment.0))
    }

    fn file(&mut self, segment: SegmentNumber) -> Result<&File, DiskError> {
        let path = self.path(segment);
        match self.open.entry(segment) {
            std::collections::btree_map::Entry::Occupied(entry) => Ok(entry.into_mut()),
            std::collections::btree_map::Entry::Vacant(entry) => {
                let file = OpenOptions::new()
                    .read(true)
                    .write(true)
                    .open(&path)
                    .map_err(|error| disk_error("open", &path, &error))?;
                Ok(entry.insert(file))
            }
        }
    }
}

impl LogDisk for RealLog {
    fn segments(&mut self) -> Result<Vec<(SegmentNumber, u64)>, DiskError> {
        let mut segments = Vec::new();
        for path in paths(&self.directory)? {
            let Some(number) = segment_number(&path) else { continue };
            let bytes = fs::metadata(&path).map_err(|error| disk_error("look at", &path, &error))?.len();
            segments.push((number, bytes));
        }
        segments.sort_unstable();
        Ok(segments)
    }

    fn prepare(&mut self, bytes: u64) -> Result<bool, DiskError> {
        self.next.prepare(bytes)
    }

    fn create(&mut self, segment: SegmentNumber, bytes: u64) -> Result<(), DiskError> {
        let path = self.path(segment);
        let file = self.next.take(bytes)?;
        fs::rename(self.next.path(), &path).map_err(|error| disk_error("rename", self.next.path(), &error))?;
        self.open.insert(segment, file);
        sync_directory(&self.directory)
    }

    fn rename(&mut self, from: SegmentNumber, to: SegmentNumber) -> Result<(), DiskError> {
        let (old, new) = (self.path(from), self.path(to));
        fs::rename(&old, &new).map_err(|error| disk_error("rename", &old, &error))?;
        if let Some(file) = self.open.remove(&from) {
            self.open.insert(to, file);
        }
        sync_directory(&self.directory)
    }

    fn remove(&mut self, segment: SegmentNumber) -> Result<(), DiskError> {
        self.open.remove(&segment);
        let path = self.path(segment);
        fs::remove_file(&path).map_err(|error| disk_error("remove", &path, &error))?;
        sync_directory(&self.directory)
    }

    fn read(&mut self, segment: SegmentNumber, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        let path = self.path(segment);
        self.file(segment)?.read_exact_at(into, offset).map_err(|error| disk_error("read", &path, &error))
    }

    fn write(&mut self, segment: SegmentNumber, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let path = self.path(segment);
        self.file(segment)?.write_all_at(bytes, offset).map_err(|error| disk_error("write", &path, &error))
    }

    fn sync(&mut self, segment: SegmentNumber) -> Result<(), DiskError> {
        let path = self.path(segment);
        self.file(segment)?.sync_data().map_err(|error| disk_error("sync", &path, &error))
    }

    fn sync_directory(&mut self) -> Result<(), DiskError> {
        sync_directory(&self.directory)
    }
}

fn paths(directory: &Path) -> Result<Vec<PathBuf>, DiskError> {
    fs::read_dir(directory)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
        .map_err(|error| disk_error("list", directory, &error))
}

fn segment_number(path: &Path) -> Option<SegmentNumber> {
    let name = path.file_name()?.to_str()?.strip_suffix(".log")?;
    (name.len() == 20).then(|| name.parse().ok().map(SegmentNumber))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_core::disk::DiskErrorKind;

    #[test]
    fn a_segment_is_made_written_renamed_and_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut log = RealLog::open(&path).unwrap();
        log.create(SegmentNumber(1), 4096).unwrap();
        log.write(SegmentNumber(1), 512, b"hello").unwrap();
        log.sync(SegmentNumber(1)).unwrap();
        log.rename(SegmentNumber(1), SegmentNumber(7)).unwrap();
        drop(log);

        let mut log = RealLog::open(&path).unwrap();
        assert_eq!(log.segments().unwrap(), [(SegmentNumber(7), 4096)]);
        let mut read = [1; 6];
        log.read(SegmentNumber(7), 512, &mut read).unwrap();
        assert_eq!(&read, b"hello\0");
        assert_eq!(log.read(SegmentNumber(7), 4095, &mut read).unwrap_err().kind, DiskErrorKind::Io);
        assert_eq!(log.read(SegmentNumber(1), 0, &mut read).unwrap_err().kind, DiskErrorKind::NotFound);
        log.remove(SegmentNumber(7)).unwrap();
        assert_eq!(log.segments().unwrap(), []);
    }

    #[test]
    fn what_an_interrupted_creation_left_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let left = directory.path().join("00000000000000000003.new");
        fs::write(&left, b"half").unwrap();
        let mut log = RealLog::open(directory.path()).unwrap();
        assert!(!left.exists());
        assert_eq!(log.segments().unwrap(), []);
    }
}
