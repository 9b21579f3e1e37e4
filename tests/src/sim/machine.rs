//! A machine: what outlives a process (disk, read index, clock), and the process while it is up.
//!
//! A process is what the shell runs: log, checkpoint worker and node, here driven by the world's events. It starts as the
//! shell starts it: a fresh directory gets its log, then its identity, synced; a directory with an identity must have a whole
//! log. In runs that begin from empty directories it is a member of a founding first ([`super::founding`]); in the others its
//! record is ready. Loss of power drops what was not synced; a call that is under way then is cut after a random number of the disk's
//! operations, so that a crash lands inside writes, syncs, renames and recoveries.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
};

use fastrand::Rng;
use kv_core::{
    checkpoint::{
        Worker,
        job::{CheckpointEvent, CheckpointJob},
        newest_footers,
    },
    disk::{DiskErrorKind, FileDisk, LogDisk},
    founding::{self, FounderOutput, FoundingRecord},
    inbox::Inbox,
    io::{Input, Operation, Output},
    log::{
        Log, LogError, LogSettings,
        record::{LogBatch, LogReport, Recovered},
    },
    message::Lane,
    node::{self, Node, OpenLogError, Opening, Role, ShardStatus},
    shard_map::NodeDescription,
    state::record::Footer,
    types::{Digest, Durability, Incarnation, LogIndex, NodeId, ReplicaId, RequestId, ShardId, Time},
};

use super::{clock::Clock, founding::Member, plan::Plan, stalls::STARVED_PART};
use crate::{
    check::view::{self, Place, ReplicaView},
    disk::{MemoryStore, SimDisk, SimFileDisk, SimLogDisk},
};

/// Connections between two nodes.
pub const LANES: usize = Lane::Snapshot as usize + 1;

/// The log's thread finds a moment to prepare a segment after so many batches.
const SYNCS_BETWEEN_IDLE: u64 = 16;

/// The file that says that this directory is a node's.
const IDENTITY: &str = "identity";

/// One machine.
pub struct Machine {
    id: NodeId,
    /// Its clock.
    pub clock: Clock,
    /// Its disk.
    pub disk: SimDisk,
    /// Its read index.
    pub store: MemoryStore,
    /// What is random on it.
    pub rng: Rng,
    /// Counts the processes that were started or are about to be; an event for an earlier one is ignored.
    pub start: u64,
    /// What runs.
    pub process: Option<Process>,
    /// Why the node refuses to start, if it does.
    pub refused: Option<String>,
    /// Its disk before its log was damaged, until a start has found the log good.
    pub(super) before_damage: Option<SimDisk>,
    /// Until then its threads stand still.
    pub paused_until: u64,
    /// Until then its disk answers nothing.
    pub stalled_until: u64,
    /// How many times slower than usual its disk is.
    pub slow_factor: u64,
    /// The share of the processor that it gets, if that is not all.
    pub starved: Option<Starved>,
    /// It stands still for so long between its next turn and what that puts out.
    pub pause_in_turn: Option<u64>,
    /// It stands still for so long after the next sync of its log.
    pub pause_after_sync: Option<u64>,
    /// When its last turn was, in simulated time and on its clock.
    pub last_turn: (u64, Time),
    /// The next start is cut short by a crash after this many of the disk's operations.
    pub crash_after_operations: Option<u64>,
    /// What it has to do with the founding, in runs that begin with one.
    pub(super) member: Option<Member>,
    founding: FoundingRecord,
}

/// A node runs at the beginning of each period only.
#[derive(Clone, Copy, Debug)]
pub struct Starved {
    /// How long a period is, in microseconds.
    pub period: u64,
    /// When one begins.
    pub phase: u64,
}

/// What became of a start.
pub(super) enum Opened {
    /// The node runs.
    Node(Recovered),
    /// The cluster is not founded yet: this is to be done first.
    Founding(Vec<FounderOutput>),
}

/// A running process.
pub struct Process {
    /// The node.
    pub node: Node<MemoryStore>,
    log: Log<SimLogDisk>,
    worker: Worker<SimFileDisk, MemoryStore>,
    /// What waits for the next turn.
    pub inbox: Inbox<Input>,
    /// What the log is writing.
    pub writing: Option<LogBatch>,
    /// What the last turn put out, if the node stands still before any of it takes effect.
    pub held: Vec<Output>,
    /// Whether it does.
    pub holds: bool,
    /// Whether a turn is scheduled.
    pub turn_scheduled: bool,
    /// Whether a step of the checkpoint worker is scheduled.
    pub step_scheduled: bool,
    /// The node's thread is busy until then.
    pub busy_until: u64,
    /// Requests that have not been answered: who asked, for which shard, what.
    pub serving: BTreeMap<RequestId, (usize, ShardId, Operation)>,
}

/// What a directory holds when its node begins.
pub(super) struct Directory {
    pub(super) log: Log<SimLogDisk>,
    pub(super) recovered: Recovered,
    pub(super) footers: BTreeMap<ReplicaId, Footer>,
}

/// Why a process did not come up.
pub enum StartError {
    /// It refuses, for damage.
    Corrupt(String),
    /// Its disk failed.
    Disk(String),
    /// It was started with settings that are not those of its directory.
    Otherwise(String),
}

/// The record that founds the cluster of a plan.
#[must_use]
pub fn founding_record(plan: &Plan) -> FoundingRecord {
    let members = (1..=plan.nodes)
        .map(|id| founding::Member {
            node: NodeId(id),
            incarnation: Incarnation(u128::from(plan.seed) << 64 | u128::from(id)),
            peer_address: format!("node-{id}:7201"),
            zone: String::new(),
            weight: 1,
        })
        .collect();
    FoundingRecord {
        members,
        shards: plan.shards as u32,
        replication: plan.replication as u32,
        durability: if plan.operated.async_by_default { Durability::Async } else { Durability::Sync },
    }
}

/// A replica as the checkers want it described.
#[must_use]
pub fn view(node: usize, status: &ShardStatus) -> ReplicaView {
    ReplicaView {
        place: Place { node: NodeId(node as u64 + 1), shard: status.shard, replica: status.replica },
        role: match status.role {
            Role::Leader => view::Role::Leader,
            Role::Follower => view::Role::Follower,
            Role::Candidate => view::Role::Candidate,
            Role::PreCandidate => view::Role::PreCandidate,
        },
        term: status.term,
        vote: (status.vote.0 != 0).then_some(status.vote),
        leader: None,
        commit: status.commit,
        applied: status.applied,
        first_index: status.first_index,
        last_index: status.last_index,
        arc: status.arc,
        epoch: status.epoch,
    }
}

impl Machine {
    /// A machine with an empty disk.
    #[must_use]
    pub fn new(id: NodeId, clock: Clock, plan: &Plan) -> Self {
        Self {
            id,
            clock,
            disk: SimDisk::new(),
            store: MemoryStore::default(),
            rng: plan.stream(&format!("machine {id}")),
            start: 0,
            process: None,
            refused: None,
            before_damage: None,
            paused_until: 0,
            stalled_until: 0,
            slow_factor: 1,
            starved: None,
            pause_in_turn: None,
            pause_after_sync: None,
            last_turn: (0, Time(0)),
            crash_after_operations: None,
            member: plan.founding.from_empty.then(|| Member::new(id, plan, plan.founding.cut_percent)),
            founding: founding_record(plan),
        }
    }

    /// Starts the process; what its first turn's outputs begin with is appended.
    ///
    /// # Errors
    /// If it refuses, or its disk fails under it.
    pub(super) fn open(&mut self, plan: &Plan, now: u64, outputs: &mut Vec<Output>) -> Result<Opened, StartError> {
        if let Some(operations) = self.crash_after_operations.take() {
            self.disk.power_off_after(operations);
        }
        let began_with = self.begin_counting();
        let opened = match self.member {
            Some(_) => self.try_open_member(plan, now, outputs),
            None => self.try_open(plan, now, outputs),
        };
        if let Some(member) = self.member.as_mut().filter(|_| opened.is_err() || self.disk.is_off()) {
            member.end();
        }
        if self.disk.is_off() {
            self.process = None;
            self.lose_power();
            return Err(StartError::Disk("the power was lost during the start".to_owned()));
        }
        self.end_counting(began_with);
        // What is left of a countdown that did not come to its end.
        self.disk.kill();
        match &opened {
            Ok(_) => self.before_damage = None,
            Err(StartError::Corrupt(reason)) => self.refused = Some(reason.clone()),
            Err(_) => {}
        }
        opened
    }

    fn try_open(&mut self, plan: &Plan, now: u64, outputs: &mut Vec<Output>) -> Result<Opened, StartError> {
        let disk = |error: kv_core::disk::DiskError| StartError::Disk(error.to_string());
        let settings = plan.log_settings();
        let mut files = self.disk.files();
        let founded = files.size(IDENTITY).map_err(disk)?.is_some();
        let (log, recovered) = self.open_log(settings, founded)?;
        if !founded {
            files.write(IDENTITY, 0, &self.id.0.to_le_bytes()).map_err(disk)?;
        }
        // Also if it was there: a kill may have left a name that the disk does not have.
        files.sync(IDENTITY).map_err(disk)?;
        files.sync_directory("").map_err(disk)?;
        let footers = newest_footers(&mut files).map_err(|error| StartError::Disk(format!("{error:?}")))?;
        self.begin(plan, now, Directory { log, recovered, footers }, outputs).map(Opened::Node)
    }

    /// Opens the log, or makes it if this is the first start.
    pub(super) fn open_log(
        &self,
        settings: LogSettings,
        has_identity: bool,
    ) -> Result<(Log<SimLogDisk>, Recovered), StartError> {
        let names = self.disk.files().list("").map_err(|error| StartError::Disk(error.to_string()))?;
        let has_checkpoints = names.iter().any(|name| !name.starts_with(IDENTITY));
        node::open_log(|| Ok(self.disk.log()), settings, has_identity, has_checkpoints).map_err(|error| match error {
            OpenLogError::Log(error) => refusal(error),
            other => StartError::Corrupt(other.to_string()),
        })
    }

    /// Begins as the node that the directory and the founding record say.
    pub(super) fn begin(
        &mut self,
        plan: &Plan,
        now: u64,
        directory: Directory,
        outputs: &mut Vec<Output>,
    ) -> Result<Recovered, StartError> {
        let Directory { log, recovered, footers } = directory;
        let opening = Opening {
            node: self.id,
            record: self.founding.clone(),
            recovered: recovered.clone(),
            footers,
            settings: plan.settings.clone(),
            seed: self.rng.u64(..),
            run: self.rng.u64(..),
            now: self.clock.at(now),
        };
        let mut node =
            Node::open(opening, self.store.clone(), outputs).map_err(|error| StartError::Corrupt(error.to_string()))?;
        node.watch_applied();
        let worker = Worker::new(self.disk.files(), self.store.clone())
            .with_chunks_of(plan.chunk_bytes_max)
            .with_slices_of(plan.slice_records_max)
            .with_merges_of(plan.merge_deltas);
        self.process = Some(Process {
            node,
            log,
            worker,
            inbox: Inbox::new(plan.inbox),
            writing: None,
            held: Vec::new(),
            holds: false,
            turn_scheduled: false,
            step_scheduled: false,
            busy_until: now,
            serving: BTreeMap::new(),
        });
        Ok(recovered)
    }

    /// Its id.
    pub(super) fn id(&self) -> NodeId {
        self.id
    }

    /// The record by which it has begun or will.
    pub(super) fn record(&self) -> &FoundingRecord {
        &self.founding
    }

    /// From now on it goes by this record.
    pub(super) fn found(&mut self, record: FoundingRecord) {
        self.founding = record;
    }

    /// Bounds what is free on the disk from now on, or takes the bound away.
    pub fn bound_free_bytes(&mut self, free: Option<u64>) {
        self.disk.set_bytes_max(Some(u64::MAX));
        let used = u64::MAX - self.disk.bytes_free().expect("a bound was just set");
        self.disk.set_bytes_max(free.map(|free| used + free));
    }

    /// Takes all faults off the disk.
    pub fn heal_disk(&mut self) {
        self.disk.set_bytes_max(None);
        self.disk.kill();
    }

    /// Ends the process, wherever it is. With the power, what was not synced is lost.
    pub fn stop(&mut self, power: bool) {
        if let Some(member) = &mut self.member {
            member.end();
        }
        if let Some(mut process) = self.process.take() {
            // The threads for log and checkpoints may be in the middle of something.
            if !self.disk.is_off() && self.rng.u32(..4) > 0 {
                self.disk.power_off_after(self.rng.u64(..6));
                if process.writing.is_some() {
                    let _cut_short = process.write_log();
                }
                if process.step_scheduled {
                    let _cut_short = process.step();
                }
            }
        }
        if power {
            self.disk.crash(&mut self.rng);
        } else {
            self.disk.kill();
        }
    }

    /// Until when its threads stand still; now or before if they run.
    #[must_use]
    pub fn stands_until(&self, now: u64) -> u64 {
        let throttled = self.starved.map_or(0, |starved| {
            let into = (now + starved.period - starved.phase) % starved.period;
            if into < starved.period / STARVED_PART { 0 } else { now + starved.period - into }
        });
        self.paused_until.max(throttled)
    }

    /// The simulated time so long before the last turn, by the node's own clock.
    #[must_use]
    pub fn micros_before_turn(&self, own_micros: u64) -> u64 {
        let (at, own) = self.last_turn;
        self.clock.shown_at(own.minus_micros(own_micros), at)
    }

    /// How the node is reached, as it tells the cluster.
    #[must_use]
    pub fn description(&self) -> NodeDescription {
        let member = self.founding.member(self.id).expect("every machine is a founding member");
        NodeDescription {
            node: self.id,
            incarnation: member.incarnation,
            peer_address: member.peer_address.clone(),
            client_address: format!("node-{}:7101", self.id),
            zone: member.zone.clone(),
            weight: member.weight,
        }
    }

    /// Log segments that were given up: numbers are never used twice.
    #[must_use]
    pub fn segments_recycled(&self) -> u64 {
        let segments = self.disk.log().segments().unwrap_or_default();
        segments.first().map_or(0, |(oldest, _)| oldest.0 - 1)
    }

    /// A replica as its node would tell it.
    #[must_use]
    pub fn shard_status(&self, shard: ShardId) -> Option<ShardStatus> {
        self.process.as_ref()?.node.shard_status(shard)
    }

    /// The digest of a replica's whole state, and the index at which it stands.
    #[must_use]
    pub fn state_digest(&self, shard: ShardId) -> Option<(LogIndex, Digest)> {
        let node = &self.process.as_ref()?.node;
        Some((node.shard_status(shard)?.applied, node.state_digest(shard).ok()??))
    }
}

impl Process {
    /// A turn of the node.
    ///
    /// # Errors
    /// If it panics: with what words.
    pub fn turn(&mut self, now: Time, inputs: &mut Vec<Input>, outputs: &mut Vec<Output>) -> Result<(), String> {
        catch_unwind(AssertUnwindSafe(|| self.node.turn(now, inputs, outputs))).map_err(|panic| words(&*panic))
    }

    /// Writes and syncs the batch that is being written, and gives it back with the log's report.
    ///
    /// # Errors
    /// If the log failed: the process must stop.
    pub fn write_log(&mut self) -> Result<(LogBatch, LogReport), String> {
        let batch = self.writing.take().ok_or("no batch is being written")?;
        let report = self.log.append(&batch).map_err(|error| error.to_string())?;
        // As the log's thread does when it has nothing else to do.
        if batch.number.0.is_multiple_of(SYNCS_BETWEEN_IDLE) {
            match self.log.prepare_next() {
                Err(LogError::Disk(error)) if error.kind == DiskErrorKind::Full => {}
                other => other.map(drop).map_err(|error| error.to_string())?,
            }
        }
        Ok((batch, report))
    }

    /// Gives the checkpoint worker a job.
    pub fn submit(&mut self, job: CheckpointJob) {
        self.worker.submit(job);
    }

    /// Whether the checkpoint worker merges files, or is about to.
    #[must_use]
    pub fn has_merges(&self) -> bool {
        self.worker.has_merges()
    }

    /// Lets the checkpoint worker do one step; true if nothing is left to do.
    pub fn step(&mut self) -> (Vec<CheckpointEvent>, bool) {
        let step = self.worker.step();
        (step.events, step.idle)
    }
}

pub(super) fn refusal(error: LogError) -> StartError {
    match error {
        LogError::Disk(error) => StartError::Disk(error.to_string()),
        other => StartError::Corrupt(other.to_string()),
    }
}

/// What a panic said.
fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without words".to_owned())
}
