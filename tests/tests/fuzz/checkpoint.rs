//! Checkpoint files that nobody wrote: found at a start and loaded, or gathered from a peer and verified.
//!
//! An input is a byte that says what to do, then files, each behind its length (two bytes). With bit 1 of the first byte
//! checksums and hashes are set right first, with bit 2 the digests too, so that what is behind them is reached. Without bit
//! 4 the files are a replica's own, with it a peer's.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, sync::Arc};

use bytes::Bytes;
use kv_core::{
    checkpoint::{
        Worker,
        job::{CheckpointEvent, CheckpointJob, FileDescription, Manifest},
        newest_footers,
    },
    codec::Reader,
    configuration::Configuration,
    disk::{Change, DiskError, DiskErrorKind, FileDisk, StateStore, StoreError},
    log::record::StagingId,
    state::{
        ShardState,
        codec::{decode_footer, encode_footer, entry_key, session_key},
        digest::RecordSum,
        record::{Footer, StateHeader, Table},
    },
    types::{Epoch, Key, LogIndex, ReplicaId, Revision, SessionId, ShardId, Term},
};
use kv_tests::{disk::MemoryStore, fuzz::Target};
use xxhash_rust::xxh3::xxh3_128;

use crate::{bounded, mode};

const SHARD: ShardId = ShardId(1);
const REPLICA: ReplicaId = ReplicaId(7);
const SET: &str = "r7/set-1";
/// Why it is more than twice the input: blocks are read ahead into a buffer, one that reaches over its end is joined in a new buffer beside
/// its parts, and the records of a slice are held while they are taken into the tree. Of files of many MiB never more is
/// held than a block (at most 8 MiB), a slice of the records (256) and the footer.
const TIMES: u64 = 4;

/// Files in memory; clones are the same disk.
#[derive(Clone, Debug, Default)]
struct Files(Rc<RefCell<BTreeMap<String, Vec<u8>>>>);

impl FileDisk for Files {
    fn list(&mut self, directory: &str) -> Result<Vec<String>, DiskError> {
        let prefix = if directory.is_empty() { String::new() } else { format!("{directory}/") };
        let files = self.0.borrow();
        let inside = files.keys().filter_map(|path| path.strip_prefix(&prefix)?.split('/').next());
        let mut names: Vec<String> = inside.map(str::to_owned).collect();
        names.dedup();
        Ok(names)
    }

    fn create_directory(&mut self, _directory: &str) -> Result<(), DiskError> {
        Ok(())
    }

    fn write(&mut self, path: &str, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let mut files = self.0.borrow_mut();
        let file = files.entry(path.to_owned()).or_default();
        let end = offset as usize + bytes.len();
        file.resize(file.len().max(end), 0);
        file[offset as usize..end].copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self, _path: &str) -> Result<(), DiskError> {
        Ok(())
    }

    fn sync_directory(&mut self, _directory: &str) -> Result<(), DiskError> {
        Ok(())
    }

    fn read(&mut self, path: &str, offset: u64, bytes_max: usize) -> Result<Bytes, DiskError> {
        let files = self.0.borrow();
        let file = files.get(path).ok_or_else(|| DiskError::new(DiskErrorKind::NotFound, "no such file"))?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(file.len());
        Ok(Bytes::copy_from_slice(&file[start..start.saturating_add(bytes_max).min(file.len())]))
    }

    fn size(&mut self, path: &str) -> Result<Option<u64>, DiskError> {
        Ok(self.0.borrow().get(path).map(|file| file.len() as u64))
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError> {
        let mut files = self.0.borrow_mut();
        let moved: Vec<String> =
            files.keys().filter(|path| *path == from || path.starts_with(&format!("{from}/"))).cloned().collect();
        for path in moved {
            let bytes = files.remove(&path).unwrap();
            files.insert(path.replacen(from, to, 1), bytes);
        }
        Ok(())
    }

    fn remove(&mut self, path: &str) -> Result<(), DiskError> {
        let inside = format!("{path}/");
        self.0.borrow_mut().retain(|name, _| name != path && !name.starts_with(&inside));
        Ok(())
    }
}

/// A read index whose memory is not counted: it stands for a disk.
#[derive(Clone, Default)]
struct Uncounted(MemoryStore);

impl StateStore for Uncounted {
    fn get(&self, tree: ReplicaId, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.0.get(tree, key)
    }

    fn range(&self, tree: ReplicaId, from: &[u8], count_max: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.0.range(tree, from, count_max)
    }

    fn write(&self, tree: ReplicaId, changes: &[Change<'_>]) -> Result<(), StoreError> {
        let mut result = Ok(());
        allocation_counter::opt_out(|| {
            result = self.0.write(tree, changes);
        });
        result
    }

    fn reset(&self, tree: ReplicaId) -> Result<(), StoreError> {
        self.0.reset(tree)
    }

    fn remove(&self, tree: ReplicaId) -> Result<(), StoreError> {
        self.0.remove(tree)
    }
}

fn run(worker: &mut Worker<Files, Uncounted>) -> Vec<CheckpointEvent> {
    let mut events = Vec::new();
    while !worker.is_idle() {
        events.append(&mut worker.step().events);
    }
    events
}

fn header(index: u64) -> StateHeader {
    StateHeader {
        index: LogIndex(index),
        term: Term(2),
        epoch: Epoch(1),
        revision: Revision(7),
        last_session: SessionId(20),
        terms: vec![(Term(1), LogIndex(1)), (Term(2), LogIndex(5))],
        configurations: vec![(LogIndex(1), Configuration::default())],
        ..StateHeader::default()
    }
}

/// The files of a replica after each of three checkpoints.
fn seeds() -> Vec<Vec<u8>> {
    let files = Files::default();
    let mut worker = Worker::new(files.clone(), Uncounted::default());
    let (shard, replica, at_least) = (SHARD, REPLICA, LogIndex(1));
    worker.submit(CheckpointJob::Load { shard, replica, at_least, install: None, initial: Some(header(1)) });
    assert!(matches!(run(&mut worker)[..], [CheckpointEvent::Loaded { .. }]));
    let session = [&9_u64.to_le_bytes()[..], &1_u32.to_le_bytes(), &0_u64.to_le_bytes(), &0_u32.to_le_bytes()].concat();
    let mut seeds = Vec::new();
    for number in 1..=3_u64 {
        let mut table = Table::default();
        for key in 0..4 {
            let value = (key + number) % 4 != 0;
            let key = entry_key(&Key::new(format!("key{key}")).unwrap());
            table.set(&key, value.then_some(&vec![1; 5 * number as usize]));
        }
        table.set(&session_key(SessionId(number)), Some(&session));
        let header = header(10 * number);
        worker.submit(CheckpointJob::Write { shard, replica, table: Arc::new(table), header });
        assert!(matches!(run(&mut worker)[..], [CheckpointEvent::Durable { .. }, CheckpointEvent::Inserted { .. }]));
        let mut all = Vec::new();
        let files = files.0.borrow();
        let mut names: Vec<_> = files.keys().collect();
        // The base first.
        names.sort();
        for bytes in names.into_iter().map(|name| &files[name]) {
            all.extend_from_slice(&(bytes.len() as u16).to_le_bytes());
            all.extend_from_slice(bytes);
        }
        for what in [3, 7] {
            seeds.push([&[what], &all[..]].concat());
        }
    }
    seeds
}

/// Where a footer stands, as the tail says.
fn footer_start(file: &[u8]) -> Option<usize> {
    let tail = file.len().checked_sub(32)?;
    let length = u32::from_le_bytes(file[tail + 8..tail + 12].try_into().ok()?) as usize;
    tail.checked_sub(length).filter(|start| *start >= 8)
}

fn footer(file: &[u8]) -> Option<(usize, Footer)> {
    let start = footer_start(file)?;
    let footer = decode_footer(&mut Reader::new(Bytes::copy_from_slice(&file[start..]))).ok()?;
    Some((start, footer))
}

/// The records of a file, whatever its checksums say.
fn records(file: &[u8], end: usize) -> Option<Vec<(Bytes, Option<Bytes>)>> {
    let mut records = Vec::new();
    let mut at = 8;
    while at + 8 < end {
        let length = u32::from_le_bytes(file[at..at + 4].try_into().ok()?) as usize;
        let mut reader = Reader::new(Bytes::copy_from_slice(file.get(at + 8..at + 8 + length)?));
        while reader.remaining() > 0 {
            let key = reader.bytes().ok()?;
            let value = if reader.bool().ok()? { Some(reader.bytes().ok()?) } else { None };
            records.push((key, value));
        }
        at += 8 + length;
    }
    Some(records)
}

/// Sets the digests right, each with what the file stands on.
fn seal_digests(files: &mut [Vec<u8>]) -> Option<()> {
    let mut state = BTreeMap::new();
    let mut before: Option<Footer> = None;
    for file in files {
        let (start, mut footer) = footer(file)?;
        for (key, value) in records(file, start)? {
            match value {
                Some(value) => state.insert(key, value),
                None => state.remove(&key),
            };
        }
        let mut sum = RecordSum::default();
        state.iter().for_each(|(key, value)| sum.add(key, value));
        footer.digest = sum.digest(&footer.header);
        let mut end = Vec::new();
        encode_footer(&footer, &mut end);
        file[start..start + end.len()].copy_from_slice(&end);
        if let Some(before) = &before {
            let mut reader = Reader::new(Bytes::copy_from_slice(&file[start + end.len()..]));
            if reader.bool().ok()? && reader.varint().ok()? == before.header.index.0 {
                let at = file.len() - reader.remaining();
                file.get_mut(at..at + 16)?.copy_from_slice(&before.digest.0.to_le_bytes());
            }
        }
        before = Some(footer);
    }
    Some(())
}

/// Sets checksums and hash of a file right.
fn seal(file: &mut [u8]) -> Option<()> {
    let start = footer_start(file)?;
    let crc =
        |at: usize, bytes: &[u8]| crc32fast::hash(&[&(at as u64).to_le_bytes()[..], bytes].concat()).to_le_bytes();
    let mut at = 8;
    while at + 8 < start {
        let length = u32::from_le_bytes(file[at..at + 4].try_into().ok()?) as usize;
        let end = (at + 8 + length).min(start);
        let checksum = crc(at, &file[at + 8..end]);
        file[at + 4..at + 8].copy_from_slice(&checksum);
        at = end;
    }
    let tail = file.len() - 32;
    let checksum = crc(start, &file[start..tail]);
    file[tail..tail + 8].copy_from_slice(&(start as u64).to_le_bytes());
    file[tail + 12..tail + 16].copy_from_slice(&checksum);
    let hash = xxh3_128(&file[..tail + 16]);
    file[tail + 16..].copy_from_slice(&hash.to_le_bytes());
    Some(())
}

/// The input's files with the names that they should have.
fn files(input: &[u8]) -> Vec<(String, Vec<u8>)> {
    let (what, mut rest) = mode(input);
    let mut files = Vec::new();
    while let [low, high, bytes @ ..] = rest {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(bytes.len());
        files.push(bytes[..length].to_vec());
        rest = &bytes[length..];
    }
    if what & 2 != 0 {
        let _ = seal_digests(&mut files);
    }
    if what & 1 != 0 {
        for file in &mut files {
            let _ = seal(file);
        }
    }
    let name = |file: &Vec<u8>| {
        let kind = if file.get(7) == Some(&b'b') { "base" } else { "delta" };
        let index = footer_start(file)
            .and_then(|start| Reader::new(Bytes::copy_from_slice(file.get(start + 1..)?)).varint().ok());
        format!("{kind}-{}", index.unwrap_or(3))
    };
    files.into_iter().map(|file| (name(&file), file)).collect()
}

fn load_from(disk: &Files) -> Vec<CheckpointEvent> {
    let mut worker = Worker::new(disk.clone(), Uncounted::default());
    let (shard, replica, at_least) = (SHARD, REPLICA, LogIndex(1));
    worker.submit(CheckpointJob::Load { shard, replica, at_least, install: None, initial: None });
    run(&mut worker)
}

/// One byte of the newest file is another: then it is not what was loaded before.
fn damage(disk: &Files, loaded: &Footer) {
    let newest = format!("-{}", loaded.header.index.0);
    let damaged = disk.0.borrow_mut().iter_mut().find(|(name, _)| name.ends_with(&newest)).map(|(_, file)| {
        let at = xxh3_128(file) as usize % file.len();
        file[at] ^= 1 << (at % 8);
        at
    });
    let Some(at) = damaged else { return };
    let again = load_from(disk);
    let same = matches!(&again[..], [CheckpointEvent::Loaded { footer, .. }] if footer == loaded);
    assert!(!same, "a file is taken for whole whose byte {at} was changed");
}

/// A replica's own files, at its start.
fn load(files: Vec<(String, Vec<u8>)>) -> String {
    let bytes: usize = files.iter().map(|(_, file)| file.len()).sum();
    let disk = Files::default();
    for (name, file) in files {
        disk.0.borrow_mut().insert(format!("{SET}/{name}"), file);
    }
    let footers = bounded(TIMES, bytes, || newest_footers(&mut disk.clone())).unwrap();
    let found = footers.len();
    let loaded = bounded(TIMES, bytes, || load_from(&disk));
    match &loaded[..] {
        [CheckpointEvent::Loaded { footer, sessions, nodes, .. }] => {
            damage(&disk, footer);
            let state = ShardState::from_header(footer.header.clone(), sessions.clone(), nodes.clone());
            format!("loaded, {:?}", state.map(drop))
        }
        [CheckpointEvent::LoadFailed { reason, .. }] => format!("{found} {reason}"),
        other => panic!("{other:?}"),
    }
}

/// A peer's files, piece by piece.
fn gather(files: Vec<(String, Vec<u8>)>) -> String {
    let bytes: usize = files.iter().map(|(_, file)| file.len()).sum();
    let described = |(name, file): &(String, Vec<u8>)| FileDescription {
        name: name.clone(),
        bytes: file.len() as u64,
        hash: file.last_chunk().map_or(0, |hash| u128::from_le_bytes(*hash)),
    };
    let newest = files.last().and_then(|(_, file)| footer(file)).map(|(_, footer)| footer).unwrap_or_default();
    let manifest = Manifest {
        files: files.iter().map(described).collect(),
        index: newest.header.index,
        term: newest.header.term,
        digest: newest.digest,
    };
    let (replica, staging): (_, StagingId) = (REPLICA, manifest.staging());
    let disk = Files::default();
    let mut worker = Worker::new(disk.clone(), Uncounted::default());
    let mut events = bounded(TIMES, bytes, || {
        worker.submit(CheckpointJob::Stage { replica, manifest });
        run(&mut worker)
    });
    let mut is_damaged = false;
    for (file, (_, bytes)) in (0..).zip(files) {
        // In one input of four one bit is lost on the way.
        let bytes = match xxh3_128(&bytes) as usize {
            hash if hash % 4 == 0 && !bytes.is_empty() => {
                let mut bytes = bytes;
                let at = (hash / 4) % bytes.len();
                bytes[at] ^= 1 << (at % 8);
                is_damaged = true;
                bytes
            }
            _ => bytes,
        };
        worker.submit(CheckpointJob::WritePiece { replica, staging, file, offset: 0, bytes: bytes.into() });
        events.append(&mut run(&mut worker));
    }
    events.append(&mut bounded(TIMES, bytes, || {
        worker.submit(CheckpointJob::Verify { replica, staging });
        run(&mut worker)
    }));
    match events.pop() {
        Some(CheckpointEvent::Verified { .. }) if is_damaged => panic!("a file is taken for whole that is not"),
        Some(CheckpointEvent::Verified { header, .. }) => format!("verified, {}", header.configurations.len().min(2)),
        Some(CheckpointEvent::StageFailed { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn checkpoint_files() {
    let target = Target { name: "checkpoint", runs: 50_000, bytes_max: 4_096, seeds: seeds() };
    target.run(|input| {
        let files = files(input);
        let said = if mode(input).0 & 4 == 0 { load(files) } else { gather(files) };
        // Every file and every candidate has a reason of its own: what was said last is what it came to.
        let last = said.rsplit("; ").nth(usize::from(said.contains("can be read"))).unwrap_or_default();
        last.rsplit(": ").next().unwrap_or_default().to_owned()
    });
}
