//! The log of a node: one stream of blocks for all its shards, on segments of one size that are recycled.
//!
//! What it promises
//! ----------------
//! When [`Log::append`] has returned `Ok`, the batch is on the disk as a whole, and so is every batch before it. When
//! [`Log::open`] has returned `Ok`, it has told every such batch. A batch whose append did not return `Ok` is there as a
//! whole or not at all. A log that can't be proven whole is not opened, and nothing of it is changed.
//!
//! How
//! ---
//! - One batch is one block ([`block`]): one write and one sync. The next is written after the sync returned, so only the
//!   last block of a log can be torn, and [`recover`] can tell a torn end from damage.
//! - A segment opens with a block that holds the [`table`] of all shards and ends with a block that names the next segment.
//!   Segments are prepared before they are needed: written with zeros and synced, so that an append never grows a file.
//! - A segment's number is its epoch. Numbers are never used twice: a recycled segment gets a new one, and its old content
//!   fails every check.
//! - Only the oldest segment is recycled, when no live entry is in it: each shard's last entry there is at or below a
//!   boundary that is stated in a later segment, at the latest by that segment's table. Every block says which segment is the
//!   oldest that must be there; a segment is given up only after a synced block has said so. Thus a missing segment is
//!   always noticed.
//!
//! After a failed call the log takes nothing any more, since what the disk holds is then not known: the process stops and
//! opens the log anew.
//!
//! Caveats
//! -------
//! The bound of the log's size is not enforced here: votes must be written even then. The report after each batch says how
//! large the log is and which shards keep it from shrinking; it is the caller who makes checkpoints and takes no more
//! entries.

mod block;
pub(crate) mod entry_data;
mod error;
pub mod record;
mod record_codec;
mod recover;
mod table;

use std::collections::VecDeque;

use crate::disk::{LogDisk, SegmentNumber};

use self::{
    block::{BlockBuffer, BlockKind, SECTOR_BYTES, Stamp},
    record::{BLOCK_BYTES_MAX, LogBatch, LogReport, Recovered},
    recover::{begins_a_segment, close_payload},
    table::Table,
};

pub use self::error::LogError;

/// How a log is laid out. All starts of a node must use the same segment size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// Size of a segment in bytes, a multiple of 512. A batch and the table of all shards must fit into one.
    pub segment_bytes: usize,
    /// Size that all segments in use should keep below, in bytes. Past half of it the reports name the shards that pin the
    /// oldest segment.
    pub log_bytes_max: u64,
    /// Most segments that wait to be used. Checkpoints free segments many at a time, and one that is made anew costs what the log
    /// writes once more. A recycled one that is over is removed, to give its room back.
    pub spares_max: usize,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { segment_bytes: 16 * 1024 * 1024, log_bytes_max: 1024 * 1024 * 1024, spares_max: 8 }
    }
}

/// Fewest sectors of a segment: a table, a batch, the end.
const SEGMENT_SECTORS_MIN: usize = 4;
/// Bytes kept free in a segment for the block that closes it.
const CLOSE_BYTES: usize = SECTOR_BYTES;

/// The log of a node on its disk.
#[derive(Debug)]
pub struct Log<D> {
    disk: D,
    settings: LogSettings,
    table: Table,
    oldest: SegmentNumber,
    place: Place,
    /// Segments ready for use, with the numbers that follow the current one.
    spares: VecDeque<SegmentNumber>,
    block: BlockBuffer,
    /// For tables and ends of segments, while a batch waits in the other.
    block_between: BlockBuffer,
    scratch: Vec<u8>,
    failed: bool,
}

/// Where the next block goes.
#[derive(Debug)]
struct Place {
    segment: SegmentNumber,
    offset: usize,
    number: u32,
    /// CRC of the block before.
    chain: u32,
}

impl<D: LogDisk> Log<D> {
    /// Makes the log of a fresh directory; what an interrupted creation left there is removed.
    ///
    /// # Errors
    /// `Exists` if there is a log. `Disk` if it can't be made.
    pub fn create(mut disk: D, settings: LogSettings) -> Result<Self, LogError> {
        check(&settings)?;
        let files = disk.segments()?;
        let mut bytes = Vec::new();
        for (number, size) in &files {
            bytes.resize(usize::try_from(*size).unwrap_or(usize::MAX).min(settings.segment_bytes), 0);
            disk.read(*number, 0, &mut bytes)?;
            if begins_a_segment(&bytes, *number) {
                return Err(LogError::Exists);
            }
        }
        for (number, _) in files {
            disk.remove(number)?;
        }
        let first = SegmentNumber(1);
        disk.create(first, settings.segment_bytes as u64)?;
        let place = Place { segment: first, offset: 0, number: 1, chain: 0 };
        let mut log = Self::new(disk, settings, Table::default(), first, place, VecDeque::new());
        log.write_table()?;
        log.disk.sync_directory()?;
        Ok(log)
    }

    /// Opens a log that must be there, and tells what it says.
    ///
    /// # Errors
    /// `Corrupt` or `Format`, nothing having been changed: the node must not start. `Disk`: the process must stop.
    pub fn open(mut disk: D, settings: LogSettings) -> Result<(Self, Recovered), LogError> {
        check(&settings)?;
        let read = recover::read(&mut disk, settings.segment_bytes);
        point!(DamagedLogRefused if matches!(read, Err(LogError::Corrupt { .. })));
        let (recovery, recovered) = read?;
        recover::mend(&mut disk, &recovery, settings.segment_bytes)?;
        let place = Place {
            segment: recovery.current,
            offset: recovery.offset,
            number: recovery.number,
            chain: recovery.chain,
        };
        let mut log = Self::new(disk, settings, recovery.table, recovery.oldest, place, recovery.spares);
        if log.place.offset == 0 {
            point!(SegmentOpenedAtStart);
            log.encode_table();
            log.write_table()?;
        }
        Ok((log, recovered))
    }

    /// Writes a batch as one block and syncs it. A batch without records is written too.
    ///
    /// # Errors
    /// Whatever it is, the process must stop: what the disk holds is not known, and no further call succeeds.
    pub fn append(&mut self, batch: &LogBatch) -> Result<LogReport, LogError> {
        if self.failed {
            return Err(LogError::Refused("the log has failed before and takes nothing any more".to_owned()));
        }
        if mutant!("S4") && batch.number.0.is_multiple_of(500) {
            return Err(LogError::Refused("it has taken enough".to_owned()));
        }
        self.failed = true;
        self.encode(batch)?;
        if self.place.offset + self.block.block_bytes() + CLOSE_BYTES > self.settings.segment_bytes {
            self.rotate()?;
        }
        let oldest = self.oldest_needed();
        let applied = self.table.apply(&batch.records, self.place.segment);
        applied.map_err(|what| LogError::Refused(what.to_owned()))?;
        self.place.write(&mut self.disk, &mut self.block, BlockKind::Batch, oldest)?;
        self.recycle(oldest)?;
        self.failed = false;
        Ok(self.report(batch))
    }

    /// Sees to the next segment if none is waiting, so that no append has to; for idle moments. True if one is waiting: until
    /// then it is to be called again after each append.
    ///
    /// # Errors
    /// `Disk`; with `Full` the log goes on as long as its segment lasts.
    pub fn prepare_next(&mut self) -> Result<bool, LogError> {
        let is_ready = !self.spares.is_empty() || self.disk.prepare(self.settings.segment_bytes as u64)?;
        if is_ready {
            self.make_next()?;
        }
        Ok(is_ready)
    }

    /// Makes the next segment if none is waiting, however long it takes.
    fn make_next(&mut self) -> Result<(), LogError> {
        if self.spares.is_empty() {
            let next = SegmentNumber(self.place.segment.0 + 1);
            self.disk.create(next, self.settings.segment_bytes as u64)?;
            self.spares.push_back(next);
        }
        Ok(())
    }

    fn new(
        disk: D,
        settings: LogSettings,
        table: Table,
        oldest: SegmentNumber,
        place: Place,
        spares: VecDeque<SegmentNumber>,
    ) -> Self {
        let (block, block_between, scratch) = (BlockBuffer::default(), BlockBuffer::default(), Vec::new());
        let mut log =
            Self { disk, settings, table, oldest, place, spares, block, block_between, scratch, failed: false };
        log.encode_table();
        log
    }

    fn encode(&mut self, batch: &LogBatch) -> Result<(), LogError> {
        self.block.clear();
        for record in &batch.records {
            record_codec::put_record(record, &mut self.block, &mut self.scratch);
            if self.block.payload_bytes() > BLOCK_BYTES_MAX {
                return Err(LogError::Refused(format!("a batch of more than {BLOCK_BYTES_MAX} bytes")));
            }
        }
        Ok(())
    }

    /// Closes the segment and opens the next, so that the block that waits fits.
    fn rotate(&mut self) -> Result<(), LogError> {
        self.encode_table();
        let needed = self.block_between.block_bytes() + self.block.block_bytes() + CLOSE_BYTES;
        if needed > self.settings.segment_bytes {
            let segment_bytes = self.settings.segment_bytes;
            return Err(LogError::Refused(format!("table and batch take {needed} bytes of {segment_bytes}")));
        }
        self.make_next()?;
        self.block_between.clear();
        self.block_between.put(&close_payload(self.place.segment));
        let oldest = self.oldest_needed();
        self.place.write(&mut self.disk, &mut self.block_between, BlockKind::Close, oldest)?;
        let next = self.spares.pop_front().expect("a segment was prepared above");
        self.place = Place { segment: next, offset: 0, number: 1, chain: self.place.chain };
        self.encode_table();
        self.write_table()
    }

    fn encode_table(&mut self) {
        self.scratch.clear();
        self.table.encode(&mut self.scratch);
        self.block_between.clear();
        self.block_between.put(&self.scratch);
    }

    /// Opens the segment with the table that has been encoded.
    fn write_table(&mut self) -> Result<(), LogError> {
        let oldest = self.oldest_needed();
        self.place.write(&mut self.disk, &mut self.block_between, BlockKind::Table, oldest)
    }

    /// The oldest segment with a live entry, by what is synced. The current one is always needed.
    fn oldest_needed(&self) -> SegmentNumber {
        self.table.lowest_held().map_or(self.place.segment, |held| held.min(self.place.segment))
    }

    /// Gives up all segments below this one; a synced block says that they are not needed.
    fn recycle(&mut self, oldest: SegmentNumber) -> Result<(), LogError> {
        while self.oldest < oldest {
            let last = self.spares.back().map_or(self.place.segment, |spare| *spare);
            if self.spares.len() < self.settings.spares_max {
                let next = SegmentNumber(last.0 + 1);
                self.disk.rename(self.oldest, next)?;
                self.spares.push_back(next);
            } else {
                point!(SegmentRemoved);
                self.disk.remove(self.oldest)?;
            }
            self.oldest.0 += 1;
        }
        Ok(())
    }

    fn report(&self, batch: &LogBatch) -> LogReport {
        let segments = self.place.segment.0 - self.oldest.0 + 1;
        let bytes = segments * self.settings.segment_bytes as u64;
        let pinned = bytes > self.settings.log_bytes_max / 2 && self.oldest < self.place.segment;
        let pinned_by = if pinned { self.table.held_by(self.oldest).collect() } else { Vec::new() };
        LogReport { number: batch.number, block_bytes: self.block.block_bytes() as u64, bytes, pinned_by }
    }
}

impl Place {
    /// Writes a block here, syncs it, and moves on.
    fn write<D: LogDisk>(
        &mut self,
        disk: &mut D,
        block: &mut BlockBuffer,
        kind: BlockKind,
        oldest: SegmentNumber,
    ) -> Result<(), LogError> {
        let stamp = Stamp { epoch: self.segment, number: self.number };
        let (bytes, crc) = block.finish(stamp, kind, oldest, self.chain);
        disk.write(self.segment, self.offset as u64, bytes)?;
        if !mutant!("B9") {
            let synced = disk.sync(self.segment);
            if !mutant!("B12") {
                synced?;
            }
        }
        self.offset += bytes.len();
        self.number += 1;
        self.chain = crc;
        Ok(())
    }
}

fn check(settings: &LogSettings) -> Result<(), LogError> {
    let bytes = settings.segment_bytes;
    if !bytes.is_multiple_of(SECTOR_BYTES) || bytes < SEGMENT_SECTORS_MIN * SECTOR_BYTES {
        return Err(LogError::Refused(format!("segments of {bytes} bytes; they must be multiples of {SECTOR_BYTES}")));
    }
    Ok(())
}
