//! Small batches, small logs, and what a log should say after them, worked out in the plainest way.

use std::collections::BTreeMap;

use kv_core::{
    configuration::Configuration,
    log::{
        Log, LogError, LogSettings,
        record::{Boundary, EntryKind, HardState, LogBatch, LogEntry, Record, Recovered, RecoveredShard},
    },
    types::{BatchNumber, LogIndex, NodeId, ReplicaId, ShardId, Term},
};
use kv_tests::disk::{SimDisk, SimLogDisk};

pub(crate) type SimLog = Log<SimLogDisk>;

pub(crate) fn settings(segment_bytes: usize) -> LogSettings {
    LogSettings { segment_bytes, log_bytes_max: 64 * 1024, spares_max: 2 }
}

pub(crate) fn batch(records: Vec<Record>) -> LogBatch {
    LogBatch { number: BatchNumber(1), records }
}

pub(crate) fn create(shard: u64) -> Record {
    let configuration = Configuration {
        voters: vec![ReplicaId(shard + 10)],
        nodes: BTreeMap::from([(ReplicaId(shard + 10), NodeId(1))]),
        ..Configuration::default()
    };
    Record::Create {
        shard: ShardId(shard),
        replica: ReplicaId(shard + 10),
        hard_state: HardState { term: Term(1), vote: ReplicaId(0), commit: LogIndex(1) },
        boundary: Boundary { index: LogIndex(1), term: Term(1), configuration },
    }
}

/// An entry whose data tell which one it is.
pub(crate) fn entry(shard: u64, index: u64, term: u64, bytes: usize) -> Record {
    let data: Vec<u8> = (0..bytes).map(|byte| (byte as u64 * 7 + index * 31 + term * 101 + shard) as u8).collect();
    let entry = LogEntry {
        index: LogIndex(index),
        term: Term(term),
        kind: EntryKind::Commands,
        context: bytes::Bytes::new(),
        data: data.into(),
    };
    Record::Entry { shard: ShardId(shard), entry }
}

pub(crate) fn vote(shard: u64, term: u64, vote: u64, commit: u64) -> Record {
    let hard_state = HardState { term: Term(term), vote: ReplicaId(vote), commit: LogIndex(commit) };
    Record::HardState { shard: ShardId(shard), hard_state }
}

pub(crate) fn boundary(shard: u64, index: u64, term: u64) -> Record {
    let boundary = Boundary { index: LogIndex(index), term: Term(term), configuration: Configuration::default() };
    Record::Boundary { shard: ShardId(shard), boundary }
}

/// What a log should say: batches folded in the plainest way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) shards: BTreeMap<ShardId, ModelShard>,
    pub(crate) tombstones: BTreeMap<ReplicaId, ShardId>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ModelShard {
    pub(crate) recovered: RecoveredShard,
    pub(crate) entries: BTreeMap<LogIndex, LogEntry>,
}

impl Model {
    pub(crate) fn apply(&mut self, batch: &LogBatch) {
        for record in &batch.records {
            let shard = record.shard();
            if let Record::Create { replica, hard_state, boundary, .. } = record {
                let recovered = RecoveredShard {
                    replica: *replica,
                    hard_state: *hard_state,
                    boundary: boundary.clone(),
                    ..RecoveredShard::default()
                };
                self.shards.insert(shard, ModelShard { recovered, entries: BTreeMap::new() });
                continue;
            }
            let model = self.shards.get_mut(&shard).unwrap();
            match record {
                Record::Entry { entry, .. } => {
                    model.entries.split_off(&entry.index);
                    model.entries.insert(entry.index, entry.clone());
                }
                Record::HardState { hard_state, .. } => model.recovered.hard_state = *hard_state,
                Record::Boundary { boundary, .. } => {
                    model.entries = model.entries.split_off(&boundary.index.next());
                    model.recovered.boundary = boundary.clone();
                    if model.recovered.install.as_ref().is_some_and(|install| install.index < boundary.index) {
                        model.recovered.install = None;
                    }
                }
                Record::Install { install, .. } => {
                    model.entries.clear();
                    let (index, term) = (install.index, install.term);
                    model.recovered.boundary = Boundary { index, term, configuration: install.configuration.clone() };
                    model.recovered.install = Some(install.clone());
                }
                Record::Tombstone { replica, .. } => {
                    self.shards.remove(&shard);
                    self.tombstones.insert(*replica, shard);
                }
                Record::Create { .. } => unreachable!(),
            }
        }
    }

    pub(crate) fn recovered(&self) -> Recovered {
        let shards = self.shards.iter().map(|(shard, model)| {
            let entries = model.entries.values().cloned().collect();
            (*shard, RecoveredShard { entries, ..model.recovered.clone() })
        });
        Recovered { shards: shards.collect(), tombstones: self.tombstones.clone() }
    }
}

/// A small log: three segments in use, a recycled one in waiting, the last block of several sectors.
pub(crate) struct Sample {
    pub(crate) disk: SimDisk,
    /// What the log says after each block of the last segment, with the sector at which that block ends.
    pub(crate) ends: Vec<(u64, Recovered)>,
    pub(crate) settings: LogSettings,
}

pub(crate) const SAMPLE_SEGMENT_BYTES: usize = 4096;

impl Sample {
    pub(crate) fn new() -> Self {
        let (disk, settings) = (SimDisk::new(), settings(SAMPLE_SEGMENT_BYTES));
        let mut log = Log::create(disk.log(), settings.clone()).unwrap();
        let mut model = Model::default();
        let mut ends = Vec::new();
        let mut segment = String::new();
        for records in sample_batches() {
            let before = model.clone();
            let batch = batch(records);
            log.append(&batch).unwrap();
            model.apply(&batch);
            let now = used_segments(&disk).pop().unwrap();
            if now != segment {
                segment = now;
                ends = vec![(1, before.recovered())];
            }
            ends.push((stamped_sectors(&disk, &segment), model.recovered()));
        }
        let sample = Self { disk, ends, settings };
        assert_eq!(sample.segments().len(), 3, "used segments");
        let paths = sample.disk.paths();
        assert_eq!(paths.len(), 4, "one segment waits: {:?} of {paths:?}", sample.segments());
        let [_, _, .., before, last] = &sample.ends[..] else { panic!("too few blocks in the last segment") };
        assert!(last.0 - before.0 >= 3 && last.0 < 8, "{:?}", sample.ends.iter().map(|end| end.0).collect::<Vec<_>>());
        sample
    }

    /// What the log says.
    pub(crate) fn recovered(&self) -> &Recovered {
        &self.ends.last().unwrap().1
    }

    /// Paths of the segments in use.
    pub(crate) fn segments(&self) -> Vec<String> {
        used_segments(&self.disk)
    }

    /// Opens a damaged copy. A refusal must have changed nothing.
    pub(crate) fn open(&self, disk: &SimDisk) -> Result<Recovered, LogError> {
        let content =
            |disk: &SimDisk| -> Vec<_> { disk.paths().into_iter().map(|path| (disk.content(&path), path)).collect() };
        let before = content(disk);
        let opened = Log::open(disk.log(), self.settings.clone());
        if opened.is_err() {
            assert!(content(disk) == before && disk.unsynced().is_empty(), "a refused log was changed");
        }
        opened.map(|(_, recovered)| recovered)
    }
}

fn sample_batches() -> Vec<Vec<Record>> {
    vec![
        vec![create(1), create(2)],
        vec![vote(2, 5, 12, 1)],
        vec![entry(1, 2, 2, 900), entry(1, 3, 2, 900), vote(1, 2, 11, 1)],
        vec![entry(1, 4, 2, 700), entry(2, 2, 5, 100)],
        // Boundaries above all of the first segment, so that it is recycled.
        vec![boundary(1, 4, 2), boundary(2, 2, 5)],
        vec![entry(1, 5, 2, 900), entry(1, 6, 2, 400)],
        vec![entry(1, 7, 2, 800)],
        vec![entry(1, 6, 3, 900), vote(1, 3, 0, 5)],
        vec![entry(1, 7, 3, 600), entry(2, 3, 5, 100)],
        vec![entry(2, 4, 5, 1_100)],
        vec![entry(1, 8, 3, 1_000), entry(1, 9, 3, 200)],
        // Frees the second segment, which waits with its old content until the end.
        vec![vote(2, 6, 13, 4), boundary(1, 6, 3), boundary(2, 3, 5)],
        vec![entry(1, 10, 3, 300)],
        vec![entry(2, 5, 6, 350)],
        vec![entry(1, 11, 3, 900), vote(1, 3, 0, 9), entry(2, 6, 6, 250)],
    ]
}

/// Segments that begin with a stamp of their own number, by path.
fn used_segments(disk: &SimDisk) -> Vec<String> {
    let used = |path: &String| {
        let number = u64::from_str_radix(path.trim_start_matches("log/"), 16).unwrap();
        disk.content(path).unwrap()[..8] == number.to_le_bytes()
    };
    disk.paths().into_iter().filter(used).collect()
}

/// How many sectors at the start of a segment carry its number.
fn stamped_sectors(disk: &SimDisk, path: &str) -> u64 {
    let content = disk.content(path).unwrap();
    content.chunks(512).take_while(|sector| sector[..8] == content[..8]).count() as u64
}
