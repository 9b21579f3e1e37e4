//! The directory of the log on a simulated disk.

use std::collections::BTreeSet;

use kv_core::disk::{DiskError, DiskErrorKind, LogDisk, SegmentNumber};

use super::{SimDisk, io};

const DIRECTORY: &str = "log";

/// Handle to the log's directory of a [`SimDisk`].
#[derive(Clone, Debug)]
pub struct SimLogDisk {
    disk: SimDisk,
    /// The log's directory, once this handle has synced its name.
    durable: BTreeSet<String>,
}

impl SimLogDisk {
    pub(crate) fn new(disk: SimDisk) -> Self {
        Self { disk, durable: BTreeSet::new() }
    }

    /// The path on the disk of a segment.
    #[must_use]
    pub fn path(segment: SegmentNumber) -> String {
        format!("{DIRECTORY}/{:016x}", segment.0)
    }
}

impl LogDisk for SimLogDisk {
    fn segments(&mut self) -> Result<Vec<(SegmentNumber, u64)>, DiskError> {
        let inner = self.disk.inner.borrow();
        let names = inner.tree.find(DIRECTORY).and_then(|inode| inner.tree.names(inode));
        let numbers = names.into_iter().flatten().map(|(name, _)| {
            let number = u64::from_str_radix(name, 16).map_err(|_| io(format!("{name}: not a segment's name")))?;
            let path = format!("{DIRECTORY}/{name}");
            let bytes = inner.tree.file(&path).map_or(0, |file| file.content().len() as u64);
            Ok((SegmentNumber(number), bytes))
        });
        numbers.collect()
    }

    fn create(&mut self, segment: SegmentNumber, bytes: u64) -> Result<(), DiskError> {
        let mut inner = self.disk.inner.borrow_mut();
        inner.make_directory(DIRECTORY, &mut self.durable)?;
        let path = Self::path(segment);
        if inner.tree.find(&path).is_some() {
            return Err(io(format!("{path}: it exists")));
        }
        if std::mem::take(&mut inner.fail_segment) {
            inner.fail_write = true;
        }
        let zeros = vec![0; usize::try_from(bytes).expect("simulated segments are small")];
        let written = inner.write(&path, 0, &zeros);
        if matches!(&written, Err(error) if error.kind == DiskErrorKind::Full) {
            inner.remove(&path)?;
        }
        written?;
        inner.sync(&path)?;
        inner.sync_directory(DIRECTORY)
    }

    fn rename(&mut self, from: SegmentNumber, to: SegmentNumber) -> Result<(), DiskError> {
        let mut inner = self.disk.inner.borrow_mut();
        inner.rename(&Self::path(from), &Self::path(to))?;
        inner.sync_directory(DIRECTORY)
    }

    fn remove(&mut self, segment: SegmentNumber) -> Result<(), DiskError> {
        let mut inner = self.disk.inner.borrow_mut();
        inner.remove(&Self::path(segment))?;
        inner.sync_directory(DIRECTORY)
    }

    fn read(&mut self, segment: SegmentNumber, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        let mut inner = self.disk.inner.borrow_mut();
        inner.count_read(into.len());
        let path = Self::path(segment);
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let content = inner.content(&path)?.get(start..).and_then(|rest| rest.get(..into.len()));
        into.copy_from_slice(content.ok_or_else(|| io(format!("{path}: it is shorter")))?);
        Ok(())
    }

    fn write(&mut self, segment: SegmentNumber, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let mut inner = self.disk.inner.borrow_mut();
        let path = Self::path(segment);
        let size = inner.content(&path)?.len() as u64;
        if offset + bytes.len() as u64 > size {
            return Err(io(format!("{path}: a write past the end")));
        }
        inner.write(&path, offset, bytes)
    }

    fn sync(&mut self, segment: SegmentNumber) -> Result<(), DiskError> {
        self.disk.inner.borrow_mut().sync(&Self::path(segment))
    }

    fn sync_directory(&mut self) -> Result<(), DiskError> {
        self.disk.inner.borrow_mut().sync_directory(DIRECTORY)
    }
}
