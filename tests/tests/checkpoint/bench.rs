//! A node's disks with a worker on them.

use std::collections::VecDeque;

use bytes::Bytes;
use kv_core::{
    checkpoint::{
        Step, Worker,
        job::{CheckpointEvent, CheckpointJob},
    },
    codec::Reader,
    disk::StateStore,
    log::record::Install,
    state::record::{Footer, StateHeader, TREE_MARK},
    types::{LogIndex, ReplicaId, SessionId, ShardId},
};
use kv_tests::disk::{MemoryStore, SimDisk, SimFileDisk};

use crate::history::{History, Records};

pub(crate) const SHARD: ShardId = ShardId(1);
pub(crate) const REPLICA: ReplicaId = ReplicaId(7);

pub(crate) struct Bench {
    pub(crate) disk: SimDisk,
    pub(crate) store: MemoryStore,
    pub(crate) worker: Worker<SimFileDisk, MemoryStore>,
    /// The newest confirmed checkpoint, as the last load told.
    pub(crate) confirmed: Option<LogIndex>,
}

/// What a load came to.
#[derive(Debug)]
pub(crate) enum Load {
    Loaded(Footer, Vec<(SessionId, Bytes)>),
    Failed(String),
    DiskFailed(String),
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::on(SimDisk::new(), MemoryStore::default())
    }

    pub(crate) fn on(disk: SimDisk, store: MemoryStore) -> Self {
        let worker = Worker::new(disk.files(), store.clone());
        Self { disk, store, worker, confirmed: None }
    }

    /// The same disk with a worker that knows nothing, as after a restart.
    pub(crate) fn restart(self) -> Self {
        Self::on(self.disk, self.store)
    }

    /// A disk of its own with the same content, and an empty read index.
    pub(crate) fn fork(&self) -> Self {
        Self::on(self.disk.fork(), MemoryStore::default())
    }

    /// Works until nothing is left to do.
    pub(crate) fn run(&mut self) -> Vec<CheckpointEvent> {
        let mut events = Vec::new();
        while !self.worker.is_idle() {
            events.append(&mut self.step().events);
        }
        events
    }

    pub(crate) fn step(&mut self) -> Step {
        self.worker.step()
    }

    pub(crate) fn load(&mut self, at_least: LogIndex, install: Option<Install>, initial: Option<StateHeader>) -> Load {
        self.worker.submit(CheckpointJob::Load { shard: SHARD, replica: REPLICA, at_least, install, initial });
        let mut events = self.run();
        self.store.fail_read_after(u64::MAX);
        assert_eq!(events.len(), 1, "{events:?}");
        match events.remove(0) {
            CheckpointEvent::Loaded { footer, sessions, confirmed, .. } => {
                self.confirmed = confirmed;
                Load::Loaded(footer, sessions)
            }
            CheckpointEvent::LoadFailed { reason, .. } => Load::Failed(reason),
            CheckpointEvent::DiskFailed { reason } => Load::DiskFailed(reason),
            other => panic!("{other:?}"),
        }
    }

    /// Loads the initial state of an empty disk.
    pub(crate) fn found(history: &History) -> Self {
        let mut bench = Self::new();
        let loaded = bench.load(LogIndex(1), None, Some(history.initial()));
        bench.check(history, loaded);
        bench
    }

    pub(crate) fn submit_write(&mut self, history: &History, number: usize) {
        let point = &history.points[number];
        self.worker.submit(CheckpointJob::Write {
            shard: SHARD,
            replica: REPLICA,
            table: point.table.clone(),
            header: point.footer.header.clone(),
        });
    }

    /// Writes checkpoints, each to its end; the last that was reported durable. Ends early if the disk fails.
    pub(crate) fn write(&mut self, history: &History, numbers: impl IntoIterator<Item = usize>) -> Written {
        let mut durable = None;
        for number in numbers {
            self.submit_write(history, number);
            let mut inserted = false;
            let mut events: VecDeque<_> = self.run().into();
            while let Some(event) = events.pop_front() {
                match event {
                    CheckpointEvent::Durable { footer, .. } => {
                        assert_eq!(footer, history.points[number].footer);
                        durable = Some(footer.header.index);
                        self.confirm(&footer);
                        events.extend(self.run());
                    }
                    CheckpointEvent::Confirmed { index, .. } => assert_eq!(Some(index), durable),
                    CheckpointEvent::Inserted { index, .. } => {
                        assert_eq!(Some(index), durable);
                        inserted = true;
                    }
                    CheckpointEvent::DiskFailed { reason } => return Written { durable, failed: Some(reason) },
                    // Without power nothing can be read, either.
                    CheckpointEvent::TreeFailed { reason, .. } if self.disk.is_off() => {
                        return Written { durable, failed: Some(reason) };
                    }
                    other => panic!("{other:?}"),
                }
            }
            assert!(inserted);
        }
        Written { durable, failed: None }
    }

    /// A majority agrees with the checkpoint at this index.
    pub(crate) fn confirm(&mut self, footer: &Footer) {
        let (index, digest) = (footer.header.index, footer.digest);
        self.worker.submit(CheckpointJob::Confirmed { shard: SHARD, replica: REPLICA, index, digest });
    }

    /// All files but the notes of what is confirmed.
    pub(crate) fn checkpoint_files(&self) -> Vec<String> {
        self.disk.paths().into_iter().filter(|path| !path.contains("confirmed-")).collect()
    }

    /// What was loaded must be the state of a checkpoint, in the tree too; its index.
    pub(crate) fn check(&self, history: &History, loaded: Load) -> LogIndex {
        let Load::Loaded(footer, sessions) = loaded else { panic!("{loaded:?}") };
        let point = history.at(footer.header.index);
        assert_eq!(footer, point.footer);
        assert_eq!(self.tree(), point.records);
        let expected: Vec<_> = point.records.iter().filter(|(key, _)| key[0] == b's').collect();
        assert_eq!(sessions.len(), expected.len());
        for ((session, value), (key, expected)) in sessions.iter().zip(expected) {
            assert_eq!((&session.0.to_be_bytes()[..], value), (&key[1..], expected));
        }
        footer.header.index
    }

    /// All records in the tree but its mark.
    pub(crate) fn tree(&self) -> Records {
        let records = self.store.range(REPLICA, b"", usize::MAX).expect("the tree is there");
        records.into_iter().filter(|(key, _)| key != TREE_MARK).collect()
    }

    /// The tree's mark.
    pub(crate) fn mark(&self) -> Option<LogIndex> {
        let value = self.store.get(REPLICA, TREE_MARK).ok()??;
        Reader::new(value).varint().ok().map(LogIndex)
    }
}

/// What writing came to.
pub(crate) struct Written {
    pub(crate) durable: Option<LogIndex>,
    pub(crate) failed: Option<String>,
}
