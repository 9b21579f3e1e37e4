//! One node of a script's cluster: its disk, its read index, its clock, and the process while it is up.
//!
//! Nothing happens by itself: the cluster says when a turn is taken, a block is synced, a step of the checkpoint worker is
//! made. A crash loses all that is not synced.

use kv_core::{
    checkpoint::{Worker, job::CheckpointEvent, newest_footers},
    founding::FoundingRecord,
    io::{Input, Output},
    log::{Log, LogSettings, record::LogBatch},
    node::{Node, Opening},
    settings::Settings,
    types::{NodeId, ShardId, Time},
};

use crate::disk::{MemoryStore, SimDisk, SimFileDisk, SimLogDisk};

/// Segments of a script's log, in bytes.
const SEGMENT_BYTES: usize = 256 * 1024;
/// How long a turn takes, in microseconds.
const MICROS_OF_TURN: u64 = 1;

/// A machine.
pub struct Host {
    id: NodeId,
    record: FoundingRecord,
    settings: Settings,
    starts: u64,
    micros: u64,
    /// Its disk.
    pub disk: SimDisk,
    /// Its read index.
    pub store: MemoryStore,
    /// What runs, if it is up.
    pub process: Option<Process>,
}

/// A running process.
pub struct Process {
    /// The node.
    pub node: Node<MemoryStore>,
    /// What waits for the next turn.
    pub inbox: Vec<Input>,
    /// What the log's thread was given.
    pub writing: Option<LogBatch>,
    /// Whether the checkpoint worker has something to do.
    pub is_working: bool,
    log: Log<SimLogDisk>,
    worker: Worker<SimFileDisk, MemoryStore>,
}

impl Host {
    /// A machine with an empty disk.
    #[must_use]
    pub fn new(id: NodeId, record: FoundingRecord, mut settings: Settings) -> Self {
        settings.block_bytes_max = settings.block_bytes_max.min(SEGMENT_BYTES / 2);
        // Clocks of different nodes have nothing to do with each other.
        let micros = id.0 * 1_000_000;
        let (disk, store) = (SimDisk::new(), MemoryStore::default());
        Self { id, record, settings, starts: 0, micros, disk, store, process: None }
    }

    /// Its clock.
    #[must_use]
    pub fn now(&self) -> Time {
        Time(self.micros)
    }

    /// Starts the process; gives what its first turn's outputs begin with.
    ///
    /// # Errors
    /// If it refuses to start.
    pub fn start(&mut self) -> Result<Vec<Output>, String> {
        self.starts += 1;
        let settings =
            LogSettings { segment_bytes: SEGMENT_BYTES, log_bytes_max: self.settings.log_bytes_max, spares_max: 2 };
        let opened = if self.starts == 1 {
            Log::create(self.disk.log(), settings).map(|log| (log, Default::default()))
        } else {
            Log::open(self.disk.log(), settings)
        };
        let (log, recovered) = opened.map_err(|error| error.to_string())?;
        let mut files = self.disk.files();
        let footers = newest_footers(&mut files).map_err(|error| error.to_string())?;
        let opening = Opening {
            node: self.id,
            record: self.record.clone(),
            recovered,
            footers,
            settings: self.settings.clone(),
            // With these node 2 is the first to campaign when node 1 is gone, and votes are rarely split.
            seed: self.id.0 * 77,
            run: (self.id.0 << 32) + (self.starts << 16),
            now: self.now(),
        };
        let mut outputs = Vec::new();
        let mut node = Node::open(opening, self.store.clone(), &mut outputs).map_err(|error| error.to_string())?;
        node.watch_applied();
        let worker = Worker::new(files, self.store.clone());
        let (inbox, writing) = (Vec::new(), None);
        self.process = Some(Process { node, inbox, writing, is_working: false, log, worker });
        Ok(outputs)
    }

    /// The power goes: what is not synced is lost.
    pub fn crash(&mut self) -> Option<LogBatch> {
        let process = self.process.take();
        self.disk.crash_keeping(|| false, |_, _| false);
        process.and_then(|process| process.writing)
    }

    /// Changes a replica's state behind its log's back; false if there is none.
    pub fn differ(&mut self, shard: ShardId) -> bool {
        self.process.as_mut().is_some_and(|process| process.node.damage_state(shard, 0))
    }

    /// Gives the next turn an input, if the process is up.
    pub fn give(&mut self, input: Input) {
        if let Some(process) = &mut self.process {
            process.inbox.push(input);
        }
    }

    /// One tick of its clock.
    pub fn tick(&mut self) {
        self.micros += self.settings.tick_micros;
        self.give(Input::Tick);
    }

    /// Time passes without a tick, as in a stall.
    pub fn wait(&mut self, micros: u64) {
        self.micros += micros;
    }

    /// A turn, if there is anything to take.
    pub fn turn(&mut self) -> Option<Vec<Output>> {
        let now = self.micros + MICROS_OF_TURN;
        let process = self.process.as_mut().filter(|process| !process.inbox.is_empty() || process.node.has_more())?;
        self.micros = now;
        let mut outputs = Vec::new();
        process.node.turn(Time(now), &mut process.inbox, &mut outputs);
        Some(outputs)
    }

    /// Writes and syncs the block that the log's thread was given, and reports it.
    ///
    /// # Errors
    /// If the disk fails: the process must stop.
    pub fn sync(&mut self) -> Result<Option<LogBatch>, String> {
        let Some(process) = &mut self.process else { return Ok(None) };
        let Some(batch) = process.writing.take() else { return Ok(None) };
        let report = process.log.append(&batch).map_err(|error| error.to_string())?;
        process.inbox.push(Input::Synced(report));
        Ok(Some(batch))
    }

    /// One step of the checkpoint worker; what it reports is given to the next turn.
    ///
    /// # Errors
    /// If the disk fails: the process must stop.
    pub fn step(&mut self) -> Result<Vec<CheckpointEvent>, String> {
        let Some(process) = self.process.as_mut().filter(|process| process.is_working) else { return Ok(Vec::new()) };
        let step = process.worker.step();
        process.is_working = !step.idle;
        for event in &step.events {
            if let CheckpointEvent::DiskFailed { reason } = event {
                return Err(reason.clone());
            }
            process.inbox.push(Input::Checkpoint(Box::new(event.clone())));
        }
        Ok(step.events)
    }
}

impl Process {
    /// Gives the checkpoint worker a job.
    pub fn submit(&mut self, job: kv_core::checkpoint::job::CheckpointJob) {
        self.worker.submit(job);
        self.is_working = true;
    }
}
