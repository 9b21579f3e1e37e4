//! Recovery of the log from segments that nobody wrote.
//!
//! An input is a byte that says what to do, the first segment's number, and the segments' bytes. With bit 1 of the first
//! byte stamps, chain and checksums of all blocks are set right first, so that what is behind them is reached.
//!
//! What recovery makes of it is given to a node, which must refuse it or begin.
//!
//! *Why it takes more than twice the input*: what a log says is more in memory than on disk. An entry takes at least 9 bytes of a block
//! where there are many, a replica 14; in memory the one takes 88, three times that while its list grows, and the other some 1,100, in
//! the table of the log and once more in what recovery tells. Records that say nothing that lasts are read one by one and take
//! nothing. To come to any of this a checksum must be right, which only our own writing or a forger makes.

use std::{
    cell::{RefCell, RefMut},
    collections::BTreeMap,
    rc::Rc,
};

use kv_core::{
    disk::{DiskError, DiskErrorKind, LogDisk, SegmentNumber},
    founding::{FoundingRecord, Member, configuration},
    io::Input,
    log::{
        Log, LogError, LogSettings,
        record::{Boundary, EntryKind, HardState, Install, LogBatch, LogEntry, Record, Recovered, StagingId},
    },
    node::{Node, Opening},
    settings::Settings,
    types::{BatchNumber, Digest, Durability, Incarnation, LogIndex, NodeId, ReplicaId, ShardId, Term, Time},
};
use kv_tests::{disk::MemoryStore, fuzz::Target};

use crate::{bounded, mode};

const SECTOR: usize = 512;
const SEGMENT: usize = 4_096;
const SEGMENTS_MAX: usize = 4;
/// What is held of a log of nothing but entries.
pub(crate) const LOG_ENTRY_TIMES: u64 = 32;
/// What is held of any log: the worst is one of nothing but replicas.
pub(crate) const LOG_TIMES: u64 = 88;

/// Segments in memory; clones are the same disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Segments(Rc<RefCell<BTreeMap<SegmentNumber, Vec<u8>>>>);

impl Segments {
    fn file(&self, segment: SegmentNumber) -> Result<RefMut<'_, Vec<u8>>, DiskError> {
        RefMut::filter_map(self.0.borrow_mut(), |files| files.get_mut(&segment))
            .map_err(|_| DiskError::new(DiskErrorKind::NotFound, "no such segment"))
    }
}

impl LogDisk for Segments {
    fn segments(&mut self) -> Result<Vec<(SegmentNumber, u64)>, DiskError> {
        Ok(self.0.borrow().iter().map(|(number, bytes)| (*number, bytes.len() as u64)).collect())
    }

    fn create(&mut self, segment: SegmentNumber, bytes: u64) -> Result<(), DiskError> {
        self.0.borrow_mut().insert(segment, vec![0; bytes as usize]);
        Ok(())
    }

    fn rename(&mut self, from: SegmentNumber, to: SegmentNumber) -> Result<(), DiskError> {
        let bytes = std::mem::take(&mut *self.file(from)?);
        self.0.borrow_mut().remove(&from);
        self.0.borrow_mut().insert(to, bytes);
        Ok(())
    }

    fn remove(&mut self, segment: SegmentNumber) -> Result<(), DiskError> {
        self.0.borrow_mut().remove(&segment);
        Ok(())
    }

    fn read(&mut self, segment: SegmentNumber, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        let file = self.file(segment)?;
        into.copy_from_slice(&file[offset as usize..][..into.len()]);
        Ok(())
    }

    fn write(&mut self, segment: SegmentNumber, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.file(segment)?[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self, segment: SegmentNumber) -> Result<(), DiskError> {
        self.file(segment).map(drop)
    }

    fn sync_directory(&mut self) -> Result<(), DiskError> {
        Ok(())
    }
}

fn settings() -> LogSettings {
    LogSettings { segment_bytes: SEGMENT, log_bytes_max: 64 * 1024, spares_max: 2 }
}

fn founding() -> FoundingRecord {
    let member = |id| Member {
        node: NodeId(id),
        incarnation: Incarnation(u128::from(id)),
        peer_address: String::new(),
        zone: String::new(),
        weight: 1,
    };
    FoundingRecord { members: (1..=3).map(member).collect(), shards: 1, replication: 3, durability: Durability::Sync }
}

/// Records of the founding's two shards on node 1, as a life of that node would write them.
fn batches() -> Vec<Vec<Record>> {
    let map = founding().layout();
    let own: Vec<(ShardId, ReplicaId)> =
        map.shards.iter().map(|row| (row.shard, row.replica_on(NodeId(1)).unwrap())).collect();
    let boundary = |shard: usize, index, term| Boundary {
        index: LogIndex(index),
        term: Term(term),
        configuration: configuration(&map.shards[shard]),
    };
    let hard_state = |term, commit| HardState { term: Term(term), vote: ReplicaId(0), commit: LogIndex(commit) };
    let entry = |index, term, bytes: usize| {
        let (index, term) = (LogIndex(index), Term(term));
        let data = vec![7; bytes].into();
        Record::Entry {
            shard: own[1].0,
            entry: LogEntry { index, term, kind: EntryKind::Commands, context: bytes::Bytes::new(), data },
        }
    };
    let install = Install {
        index: LogIndex(20),
        term: Term(3),
        configuration: configuration(&map.shards[1]),
        staging: StagingId(5),
        digest: Digest(6),
    };
    let create = |shard: usize| Record::Create {
        shard: own[shard].0,
        replica: own[shard].1,
        hard_state: hard_state(1, 1),
        boundary: boundary(shard, 1, 1),
    };
    vec![
        vec![create(0), create(1)],
        vec![entry(2, 2, 100), entry(3, 2, 700), Record::HardState { shard: own[1].0, hard_state: hard_state(2, 1) }],
        vec![entry(3, 3, 20), entry(4, 3, 900)],
        vec![Record::Boundary { shard: own[1].0, boundary: boundary(1, 4, 3) }],
        (5..20).map(|index| entry(index, 3, 0)).collect(),
        vec![Record::Install { shard: own[1].0, install }],
        vec![entry(21, 3, 1_500)],
        vec![entry(22, 4, 1_500), Record::HardState { shard: own[1].0, hard_state: hard_state(4, 21) }],
        vec![entry(23, 4, 300)],
    ]
}

/// The log after each of its batches.
fn seeds() -> Vec<Vec<u8>> {
    let disk = Segments::default();
    let mut log = Log::create(disk.clone(), settings()).unwrap();
    let mut seeds = Vec::new();
    for (number, records) in (1..).zip(batches()) {
        log.append(&LogBatch { number: BatchNumber(number), records }).unwrap();
        let segments = disk.0.borrow();
        let first = segments.keys().next().unwrap().0;
        let mut seed = vec![1, first as u8];
        segments.values().for_each(|bytes| seed.extend_from_slice(bytes));
        // The zeros at the end are made again from the input's length.
        let used = seed.len() - seed.iter().rev().take_while(|byte| **byte == 0).count();
        seed.truncate(used + 1);
        seeds.push(seed);
    }
    seeds
}

/// The input as segments.
fn segments(input: &[u8]) -> Segments {
    let (what, rest) = mode(input);
    let (first, rest) = mode(rest);
    let mut segments = BTreeMap::new();
    let count = rest.len().div_ceil(SEGMENT).clamp(1, SEGMENTS_MAX);
    for position in 0..count {
        let mut bytes = vec![0; SEGMENT];
        let part = &rest[(position * SEGMENT).min(rest.len())..((position + 1) * SEGMENT).min(rest.len())];
        bytes[..part.len()].copy_from_slice(part);
        segments.insert(SegmentNumber(u64::from(first) + position as u64), bytes);
    }
    if what & 1 != 0 {
        let mut previous = None;
        for (number, bytes) in &mut segments {
            seal(*number, bytes, &mut previous);
        }
    }
    Segments(Rc::new(RefCell::new(segments)))
}

/// Sets right what proves the blocks of a segment: those that begin with the magic number.
fn seal(segment: SegmentNumber, bytes: &mut [u8], previous: &mut Option<u32>) {
    let (mut offset, mut number) = (0, 1_u32);
    while bytes.get(offset + 16..offset + 20) == Some(b"kvlg") {
        let length = u32::from_le_bytes(bytes[offset + 24..offset + 28].try_into().unwrap()) as usize;
        let sectors = (32 + length).div_ceil(SECTOR - 16);
        let end = (offset + sectors * SECTOR).min(bytes.len());
        let stamp = [&segment.0.to_le_bytes()[..], &number.to_le_bytes()].concat();
        let check = crc32fast::hash(&stamp).to_le_bytes();
        for sector in bytes[offset..end].chunks_exact_mut(SECTOR) {
            sector[..12].copy_from_slice(&stamp);
            sector[12..16].copy_from_slice(&check);
        }
        let crc = |bytes: &mut dyn Iterator<Item = &[u8]>| {
            let mut hasher = crc32fast::Hasher::new();
            hasher.update(&stamp);
            bytes.for_each(|bytes| hasher.update(bytes));
            hasher.finalize()
        };
        let parts = bytes[offset..end].chunks_exact(SECTOR).enumerate();
        let payload = crc(&mut parts.map(|(position, sector)| &sector[if position == 0 { 48 } else { 16 }..]));
        let header = &mut bytes[offset + 16..offset + 48];
        if let Some(previous) = *previous {
            header[20..24].copy_from_slice(&u32::to_le_bytes(previous));
        }
        header[24..28].copy_from_slice(&payload.to_le_bytes());
        let whole = crc(&mut [&header[..28]].into_iter());
        header[28..].copy_from_slice(&whole.to_le_bytes());
        *previous = Some(whole);
        (offset, number) = (end, number + 1);
    }
}

/// One byte of a block is another that others follow: no log that is whole has such a block.
fn damage(disk: &Segments) {
    // The oldest segment: others may be spares, whose bytes nobody believes.
    let damaged = disk.0.borrow_mut().values_mut().next().and_then(|segment| {
        let length = u32::from_le_bytes(*segment.get(24..28)?.first_chunk()?) as usize;
        let end = (32 + length).div_ceil(SECTOR - 16) * SECTOR;
        let is_followed = segment.get(end + 16..end + 20)? == b"kvlg";
        // A stamp may rot: the block stands without it.
        let at =
            (0..end).filter(|at| at % SECTOR >= 16).nth(crc32fast::hash(segment) as usize % (end / SECTOR * 496))?;
        is_followed.then(|| segment[at] ^= 1 << (at % 8))
    });
    if damaged.is_some() {
        assert!(Log::open(disk.clone(), settings()).is_err(), "a block is taken for whole that is not");
    }
}

/// A node that begins with this log refuses it, or takes a turn.
fn begin(recovered: Recovered) -> String {
    let opening = Opening {
        node: NodeId(1),
        record: founding(),
        recovered,
        footers: BTreeMap::new(),
        settings: Settings::default(),
        seed: 1,
        run: 1,
        now: Time(1),
    };
    let mut outputs = Vec::new();
    match Node::open(opening, MemoryStore::default(), &mut outputs) {
        Ok(mut node) => {
            node.turn(Time(2), &mut vec![Input::Tick], &mut outputs);
            format!("a node begins, {}", node.status().shards.iter().any(|shard| shard.quarantined))
        }
        Err(error) => error.to_string(),
    }
}

#[test]
fn log_recovery() {
    let seeds = seeds();
    assert!(seeds.len() > 5);
    let target = Target { name: "log", runs: 50_000, bytes_max: 2 + SEGMENTS_MAX * SEGMENT, seeds };
    target.run(|input| {
        let disk = segments(input);
        let bytes = disk.0.borrow().len() * SEGMENT;
        match bounded(LOG_TIMES, bytes, || Log::open(disk.clone(), settings())) {
            Ok((mut log, recovered)) => {
                let appended = log.append(&LogBatch { number: BatchNumber(1), records: Vec::new() });
                let again = appended.is_ok().then(|| Log::open(disk.clone(), settings()).unwrap().1);
                assert!(
                    again.is_none_or(|again| again == recovered),
                    "a log says something else when it is read again"
                );
                if appended.is_ok() {
                    damage(&disk);
                }
                begin(recovered)
            }
            Err(LogError::Corrupt { what, .. }) => what,
            Err(error) => error.to_string(),
        }
    });
}
