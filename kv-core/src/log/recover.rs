//! Recovery: reads a log to its end, tells a torn end from damage, and folds the records.
//!
//! Only the last block of a log can be unsynced, because the next is written after the sync returned. A block is the last
//! iff no later sector of its segment carries a higher block number of this epoch, and no later segment a higher epoch.
//!
//! | what stands there | it is the last | others follow |
//! |---|---|---|
//! | CRCs right (stamps may be rotten) | it stands | it stands |
//! | a foreign stamp in it, a CRC wrong | torn, never acknowledged: cut | corruption |
//! | all stamps right, a CRC wrong | corruption | corruption |
//!
//! A segment that is missing, or of a wrong length, is corruption. So is a record that contradicts those before it. One hole
//! remains, and can't be closed by a log alone: if the disk loses whole sectors of the very last block after it was synced,
//! that block looks torn.
//!
//! Two steps: [`read`] changes nothing and may refuse; [`mend`] makes the log fit to be written again. Mending writes the
//! last block again in place and syncs everything that was read, because after a failed sync or a kill the page cache may
//! show what the disk does not hold. It zeroes all that follows, whatever the cache shows there: what is torn must be gone
//! before its place and its block number are used again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use crate::{
    disk::{LogDisk, SegmentNumber},
    types::{LogIndex, ShardId},
};

use super::{
    block::{self, BlockKind, BlockRead, Header, SECTOR_BYTES, Stamp},
    entry_data::EntryData,
    error::LogError,
    record::{LogEntry, Record, Recovered, RecoveredShard},
    record_codec::read_records,
    table::Table,
};

/// A log that has been read and found whole.
pub(crate) struct Recovery {
    /// What it says of all shards.
    pub(crate) table: Table,
    /// The lowest segment.
    pub(crate) oldest: SegmentNumber,
    /// The segment to be written next.
    pub(crate) current: SegmentNumber,
    /// Where in it; 0 if it has not been opened with a table yet.
    pub(crate) offset: usize,
    /// The number of the next block there.
    pub(crate) number: u32,
    /// The CRC of the last block.
    pub(crate) chain: u32,
    /// Where the last block stands.
    last_block: (SegmentNumber, usize),
    /// Its bytes, all stamps right.
    last_block_bytes: Vec<u8>,
    /// Segments prepared for later.
    pub(crate) spares: VecDeque<SegmentNumber>,
    /// Files that are of no use.
    rubbish: Vec<SegmentNumber>,
    entries: BTreeMap<ShardId, Entries>,
    /// Segments below this one may be gone.
    oldest_stated: SegmentNumber,
}

/// The entries of a shard that have been read.
struct Entries {
    /// The index of the first; one above the shard's last if there is none.
    first: u64,
    entries: VecDeque<LogEntry>,
    data: EntryData,
    /// Bytes of the data that was read since entries were last given up.
    data_bytes: usize,
}

/// Reads the whole log without changing anything.
///
/// # Errors
/// If it can't be read, or not be proven whole.
pub(crate) fn read<D: LogDisk>(disk: &mut D, segment_bytes: usize) -> Result<(Recovery, Recovered), LogError> {
    let files = disk.segments()?;
    let Some((oldest, _)) = files.first().copied() else {
        return Err(LogError::corrupt(SegmentNumber(0), 0, "there is no segment at all, though there must be a log"));
    };
    if let Some((number, _)) = files.iter().find(|(number, _)| number.0 > SEGMENT_NUMBER_MAX) {
        return Err(LogError::corrupt(*number, 0, "no log has so many segments"));
    }
    let mut recovery = Recovery::new(oldest);
    let mut segment = vec![0; segment_bytes];
    loop {
        let current = recovery.current;
        match files.iter().find(|(number, _)| *number == current) {
            None => return Err(LogError::corrupt(current, 0, "the segment is missing")),
            Some((_, bytes)) if *bytes != segment_bytes as u64 => {
                let what = format!("the segment has {bytes} bytes instead of {segment_bytes}");
                return Err(LogError::corrupt(current, 0, what));
            }
            Some(_) => disk.read(current, 0, &mut segment)?,
        }
        if !recovery.read_segment(&segment)? {
            break;
        }
    }
    let end = recovery.current;
    for (number, bytes) in files.into_iter().filter(|(number, _)| *number > end) {
        recovery.read_spare(disk, number, bytes, &mut segment)?;
    }
    let recovered = recovery.finish()?;
    Ok((recovery, recovered))
}

/// Makes a log that was read fit to be written again.
///
/// # Errors
/// If the disk fails; then the process must stop.
pub(crate) fn mend<D: LogDisk>(disk: &mut D, recovery: &Recovery, segment_bytes: usize) -> Result<(), LogError> {
    let zeros = vec![0; (segment_bytes - recovery.offset).min(ZEROS_BYTES)];
    let mut offset = recovery.offset;
    while offset < segment_bytes {
        let bytes = zeros.len().min(segment_bytes - offset);
        disk.write(recovery.current, offset as u64, &zeros[..bytes])?;
        offset += bytes;
    }
    let (segment, offset) = recovery.last_block;
    disk.write(segment, offset as u64, &recovery.last_block_bytes)?;
    for number in recovery.oldest.0..=recovery.current.0 {
        disk.sync(SegmentNumber(number))?;
    }
    for spare in &recovery.spares {
        disk.sync(*spare)?;
    }
    disk.sync_directory()?;
    for rubbish in &recovery.rubbish {
        disk.remove(*rubbish)?;
    }
    Ok(())
}

/// Far above what any log reaches, and far below what a u64 holds: the next number always exists.
const SEGMENT_NUMBER_MAX: u64 = u64::MAX / 2;
/// How much is zeroed by one write.
const ZEROS_BYTES: usize = 1024 * 1024;

impl Recovery {
    fn new(oldest: SegmentNumber) -> Self {
        Self {
            table: Table::default(),
            oldest,
            current: oldest,
            offset: 0,
            number: 1,
            chain: 0,
            last_block: (oldest, 0),
            last_block_bytes: Vec::new(),
            spares: VecDeque::new(),
            rubbish: Vec::new(),
            entries: BTreeMap::new(),
            oldest_stated: oldest,
        }
    }

    /// Reads the current segment from its start; whether it is closed and the next one is now the current.
    fn read_segment(&mut self, segment: &[u8]) -> Result<bool, LogError> {
        let mut last = None;
        loop {
            let stamp = Stamp { epoch: self.current, number: self.number };
            let read = match block::read_block(segment, self.offset, stamp) {
                // Who does not know that writes may be lost takes all damage for the log's end.
                BlockRead::Rotten(_) if mutant!("B9" | "B12") => BlockRead::Torn,
                read => read,
            };
            match read {
                BlockRead::Good { header, bytes } => {
                    let block = &segment[self.offset..self.offset + bytes];
                    point!(RottenStampStands if !block::is_stamped(block, stamp));
                    let closed = self.read_good_block(block, &header)?;
                    if closed {
                        self.keep_last_block(self.offset, block, stamp);
                        self.current.0 += 1;
                        (self.offset, self.number) = (0, 1);
                        return Ok(true);
                    }
                    last = Some((self.offset, block, stamp));
                    self.offset += bytes;
                    self.number += 1;
                }
                BlockRead::Torn => {
                    self.check_that_none_follows(segment)?;
                    if let Some((offset, block, stamp)) = last {
                        self.keep_last_block(offset, block, stamp);
                    }
                    return Ok(false);
                }
                BlockRead::Rotten(what) => return Err(self.corrupt(what)),
                BlockRead::Version(version) => return Err(LogError::Format { segment: self.current, version }),
            }
        }
    }

    fn keep_last_block(&mut self, offset: usize, block: &[u8], stamp: Stamp) {
        self.last_block = (self.current, offset);
        self.last_block_bytes = block.to_vec();
        block::restamp(&mut self.last_block_bytes, stamp);
    }

    /// Folds a block in; whether it closes the segment.
    fn read_good_block(&mut self, block: &[u8], header: &Header) -> Result<bool, LogError> {
        let first_of_log = self.current == self.oldest && self.number == 1;
        if !first_of_log && header.previous != self.chain && !mutant!("B18") {
            return Err(self.corrupt("a block does not follow the one before it"));
        }
        if header.oldest > self.current {
            return Err(self.corrupt("a block says that its own segment is no longer part of the log"));
        }
        self.chain = header.crc;
        self.oldest_stated = header.oldest;
        let payload = block::payload(block, header);
        match (header.kind, self.number) {
            (BlockKind::Table, 1) => {
                let table = Table::decode(payload).map_err(|error| self.corrupt(error.0))?;
                if first_of_log {
                    let first = |row: &super::table::Row| row.last.0.saturating_add(1);
                    let entries = table.rows.iter();
                    self.entries = entries.map(|(shard, row)| (*shard, Entries::new(first(row)))).collect();
                    self.table = table;
                } else if !self.table.states_the_same(&table) {
                    return Err(self.corrupt("the segment's table is not what the log says before it"));
                }
                Ok(false)
            }
            (BlockKind::Batch, 2..) => {
                self.read_batch(payload)?;
                Ok(false)
            }
            (BlockKind::Close, 2..) => {
                if payload[..] != close_payload(self.current) {
                    return Err(self.corrupt("the segment's end does not name the next segment"));
                }
                Ok(true)
            }
            _ => Err(self.corrupt("a block of this kind has no place here")),
        }
    }

    /// Takes in the records of a block. What is believed of one that is found unsound later in it does no harm: there is no log then.
    fn read_batch(&mut self, payload: Bytes) -> Result<(), LogError> {
        let mut shards = BTreeSet::new();
        for record in read_records(payload) {
            let record = record.map_err(|error| self.corrupt(error.0))?;
            self.table.apply_record(&record, self.current).map_err(|what| self.corrupt(what))?;
            shards.insert(record.shard());
            self.fold(record);
        }
        self.table.check_commits(shards.into_iter()).map_err(|what| self.corrupt(what))
    }

    /// Takes the entry out of a record that the table has found sound.
    fn fold(&mut self, record: Record) {
        match record {
            Record::Create { shard, boundary, .. } => {
                self.entries.insert(shard, Entries::new(boundary.index.0.saturating_add(1)));
            }
            Record::Tombstone { shard, .. } => {
                self.entries.remove(&shard);
            }
            Record::Entry { shard, entry } => {
                if let Some(entries) = self.entries.get_mut(&shard) {
                    entries.push(entry);
                }
            }
            Record::Boundary { shard, boundary } => {
                if let Some(entries) = self.entries.get_mut(&shard) {
                    entries.cut(boundary.index);
                }
            }
            Record::Install { shard, install } => {
                self.entries.insert(shard, Entries::new(install.index.0.saturating_add(1)));
            }
            Record::HardState { .. } => {}
        }
    }

    /// A block that is torn, or was never written, must be the last.
    fn check_that_none_follows(&self, segment: &[u8]) -> Result<(), LogError> {
        if mutant!("B9" | "B12" | "B15") {
            return Ok(());
        }
        let later =
            |stamp: &Stamp| stamp.epoch > self.current || stamp.epoch == self.current && stamp.number > self.number;
        let own = Stamp { epoch: self.current, number: self.number };
        let mut is_torn = false;
        let mut stamps = block::stamps(&segment[self.offset..]).inspect(|(_, stamp)| is_torn |= *stamp == own);
        let follows = stamps.find(|(_, stamp)| later(stamp));
        drop(stamps);
        point!(TornBlockCut if is_torn && follows.is_none());
        match follows {
            Some((distance, stamp)) => Err(self.corrupt(format!(
                "block {} is damaged or missing, and block {} stands behind it at offset {}",
                self.number,
                stamp.number,
                self.offset + distance
            ))),
            None => Ok(()),
        }
    }

    /// Looks for signs of the log in a segment that should be unused.
    fn read_spare<D: LogDisk>(
        &mut self,
        disk: &mut D,
        number: SegmentNumber,
        bytes: u64,
        buffer: &mut [u8],
    ) -> Result<(), LogError> {
        let mut offset = 0;
        while offset < bytes {
            let part = buffer.len().min(usize::try_from(bytes - offset).unwrap_or(usize::MAX));
            disk.read(number, offset, &mut buffer[..part])?;
            let later = block::stamps(&buffer[..part]).find(|(_, stamp)| stamp.epoch > self.current);
            if later.is_some() && !mutant!("B9" | "B12" | "B15") {
                return Err(self.corrupt(format!("the log ends here, and yet segment {} has been written", number.0)));
            }
            offset += part as u64;
        }
        let next = self.spares.back().map_or(self.current.0, |spare| spare.0) + 1;
        // A wrong length is no damage here: making a segment was interrupted.
        if bytes == buffer.len() as u64 && next == number.0 {
            self.spares.push_back(number);
        } else {
            point!(SegmentHalfMade);
            self.rubbish.push(number);
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<Recovered, LogError> {
        if self.last_block_bytes.is_empty() {
            return Err(LogError::corrupt(self.oldest, 0, "the first block of the log is missing"));
        }
        if self.oldest_stated < self.oldest {
            return Err(LogError::corrupt(self.oldest_stated, 0, "the segment is missing"));
        }
        let mut shards = BTreeMap::new();
        for (shard, row) in &self.table.rows {
            let entries = self.entries.remove(shard).unwrap_or_else(|| Entries::new(0));
            let complete = entries.first.checked_sub(1) == Some(row.boundary.index.0)
                && entries.entries.len() as u64 == row.last.0 - row.boundary.index.0;
            if !complete && !mutant!("B16") {
                return Err(self.corrupt(format!("entries of shard {shard} are missing")));
            }
            let mut term = row.boundary.term;
            for entry in &entries.entries {
                if entry.term < term && !mutant!("B16") {
                    return Err(self.corrupt(format!("the terms of shard {shard} fall at index {}", entry.index)));
                }
                term = entry.term;
            }
            shards.insert(
                *shard,
                RecoveredShard {
                    replica: row.replica,
                    hard_state: row.hard_state,
                    boundary: row.boundary.clone(),
                    entries: entries.entries.into(),
                    install: row.install.clone(),
                },
            );
        }
        Ok(Recovered { shards, tombstones: self.table.tombstones.clone() })
    }

    fn corrupt(&self, what: impl Into<String>) -> LogError {
        LogError::corrupt(self.current, self.offset, what)
    }
}

impl Entries {
    fn new(first: u64) -> Self {
        Self { first, entries: VecDeque::new(), data: EntryData::default(), data_bytes: 0 }
    }

    /// Adds an entry that leaves no gap; it removes all at or above its index.
    fn push(&mut self, mut entry: LogEntry) {
        entry.data = self.data.copy(&entry.data, self.data_bytes);
        self.data_bytes += entry.data.len();
        match entry.index.0.checked_sub(self.first).and_then(|position| usize::try_from(position).ok()) {
            Some(position) if mutant!("B16") && position < self.entries.len() => return,
            Some(position) => self.entries.truncate(position),
            None => {
                self.first = entry.index.0;
                self.entries.clear();
            }
        }
        self.entries.push_back(entry);
    }

    /// Removes all entries at or below a boundary.
    fn cut(&mut self, boundary: LogIndex) {
        let gone = usize::try_from(boundary.0.saturating_add(1).saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.entries.drain(..gone.min(self.entries.len()));
        (self.data, self.data_bytes) = (EntryData::default(), 0);
        self.first = self.first.max(boundary.0.saturating_add(1));
    }
}

/// What the last block of a segment says: the file that follows. Its number is also its epoch.
pub(crate) fn close_payload(segment: SegmentNumber) -> [u8; 8] {
    (segment.0 + 1).to_le_bytes()
}

/// Whether these bytes, the start of a segment, begin with a block, be it damaged.
pub(crate) fn begins_a_segment(bytes: &[u8], number: SegmentNumber) -> bool {
    bytes.len() >= SECTOR_BYTES
        && !matches!(block::read_block(bytes, 0, Stamp { epoch: number, number: 1 }), BlockRead::Torn)
}
