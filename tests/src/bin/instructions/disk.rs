//! A log's disk that is memory: nothing is counted but what the log itself does.

use std::collections::BTreeMap;

use kv_core::disk::{DiskError, DiskErrorKind, LogDisk, SegmentNumber};

#[derive(Debug, Default)]
pub(crate) struct MemoryLog(BTreeMap<SegmentNumber, Vec<u8>>);

impl MemoryLog {
    fn segment(&mut self, segment: SegmentNumber) -> Result<&mut Vec<u8>, DiskError> {
        let error = || DiskError { kind: DiskErrorKind::NotFound, message: format!("no segment {}", segment.0) };
        self.0.get_mut(&segment).ok_or_else(error)
    }
}

impl LogDisk for MemoryLog {
    fn segments(&mut self) -> Result<Vec<(SegmentNumber, u64)>, DiskError> {
        Ok(self.0.iter().map(|(number, bytes)| (*number, bytes.len() as u64)).collect())
    }

    fn create(&mut self, segment: SegmentNumber, bytes: u64) -> Result<(), DiskError> {
        self.0.insert(segment, vec![0; usize::try_from(bytes).expect("a segment fits into memory")]);
        Ok(())
    }

    fn rename(&mut self, from: SegmentNumber, to: SegmentNumber) -> Result<(), DiskError> {
        let bytes = std::mem::take(self.segment(from)?);
        self.0.remove(&from);
        self.0.insert(to, bytes);
        Ok(())
    }

    fn remove(&mut self, segment: SegmentNumber) -> Result<(), DiskError> {
        self.0.remove(&segment);
        Ok(())
    }

    fn read(&mut self, segment: SegmentNumber, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        let from = usize::try_from(offset).expect("within a segment");
        into.copy_from_slice(&self.segment(segment)?[from..from + into.len()]);
        Ok(())
    }

    fn write(&mut self, segment: SegmentNumber, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let from = usize::try_from(offset).expect("within a segment");
        self.segment(segment)?[from..from + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self, _segment: SegmentNumber) -> Result<(), DiskError> {
        Ok(())
    }

    fn sync_directory(&mut self) -> Result<(), DiskError> {
        Ok(())
    }
}
