//! The checkpoint thread's work, one bounded step at a time.
//!
//! Four lanes take turns: pieces for peers; what comes from peers; states being loaded and written; merges. Within a lane
//! jobs run one after the other, in the order given, so that jobs of one replica never meet in its files, and a long merge
//! holds up neither a checkpoint nor a stream. Beside them a slice of the scrub has its turn when there is nothing else to do, or
//! after so many steps. A step handles some hundred records, or syncs one file, so that a simulated crash can fall between any two.

mod merges;

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
};

use crate::{
    checkpoint::{
        base::{BaseTask, MERGE_FILES, MergeBounds},
        chain::{directory, set_directory, sets},
        confirmed::note_confirmed,
        context::{Context, Failure, Progress, ReplicaFiles, SLICE_RECORDS_MAX, Step},
        job::{CheckpointEvent, CheckpointJob},
        load::{LoadTask, Wanted},
        offers::{Offers, Rotten},
        reader::Damaged,
        scrub::scrub,
        staging::{StageTask, VerifyTask, discard, write_piece},
        write::WriteTask,
    },
    disk::{DiskError, DiskErrorKind, FileDisk, StateStore},
    log::record::StagingId,
    types::{Digest, LogIndex, ReplicaId, ShardId},
};

/// Runs the jobs of a node's replicas on its disks.
pub struct Worker<F, S> {
    cx: Context<F, S>,
    offer_jobs: VecDeque<CheckpointJob>,
    staging_jobs: VecDeque<CheckpointJob>,
    staging: Option<StagingTask>,
    state_jobs: VecDeque<CheckpointJob>,
    state: Option<StateTask>,
    /// Checkpoints in a row that went before a load that came first.
    overtaken: u32,
    merges: VecDeque<(ShardId, ReplicaId)>,
    merge: Option<(ShardId, BaseTask)>,
    /// The lane that has the next turn.
    turn: usize,
    /// The slice of the scrub that waits.
    scrub: Option<(ShardId, ReplicaId)>,
    /// Steps that it has waited for.
    scrub_waited: u32,
    /// The disk failed: nothing is done any more.
    is_stopped: bool,
}

enum StagingTask {
    Stage(Box<StageTask>),
    Verify(VerifyTask),
}

enum StateTask {
    Load(Box<LoadTask>),
    Write(Box<WriteTask>),
}

const LANES: usize = 4;
/// Steps of other work after which a slice of the scrub has its turn.
const SCRUB_WAITS_STEPS_MAX: u32 = 64;
/// Most checkpoints in a row that go before a load that came first. Shards that are written to always have the next one ready,
/// and what is never loaded neither serves nor lets go of its log.
const OVERTAKES_MAX: u32 = 8;

impl<F: FileDisk, S: StateStore> Worker<F, S> {
    /// A worker that knows nothing of any replica yet: each is to be loaded before anything else.
    pub fn new(files: F, store: S) -> Self {
        let replicas = BTreeMap::new();
        Self {
            cx: Context {
                slice_records_max: SLICE_RECORDS_MAX,
                merge_bounds: MergeBounds::of(MERGE_FILES),
                files,
                store,
                replicas,
                offers: Offers::default(),
                stagings: BTreeMap::new(),
                scrubs: BTreeMap::new(),
            },
            offer_jobs: VecDeque::new(),
            staging_jobs: VecDeque::new(),
            staging: None,
            state_jobs: VecDeque::new(),
            state: None,
            overtaken: 0,
            merges: VecDeque::new(),
            merge: None,
            turn: 0,
            scrub: None,
            scrub_waited: 0,
            is_stopped: false,
        }
    }

    /// Reads files for peers in pieces of at most so many bytes. [`CHUNK_BYTES_MAX`](crate::message::CHUNK_BYTES_MAX) of them
    /// everywhere but in simulations, whose files would be one piece each.
    #[must_use]
    pub fn with_chunks_of(mut self, bytes_max: usize) -> Self {
        self.cx.offers.chunk_bytes_max = bytes_max.clamp(1, crate::message::CHUNK_BYTES_MAX);
        self
    }

    /// Handles at most so many records in one step, [`SLICE_RECORDS_MAX`] everywhere but in simulations, which have few.
    #[must_use]
    pub fn with_slices_of(mut self, records_max: usize) -> Self {
        self.cx.slice_records_max = records_max.clamp(1, SLICE_RECORDS_MAX);
        self
    }

    /// Merges when there are so many deltas, [`MERGE_FILES`] everywhere but in simulations, which are too short to make many.
    #[must_use]
    pub fn with_merges_of(mut self, deltas: usize) -> Self {
        self.cx.merge_bounds = MergeBounds::of(deltas);
        self
    }

    /// Takes a job; [`Worker::step`] works on it.
    pub fn submit(&mut self, job: CheckpointJob) {
        let queue = match &job {
            CheckpointJob::Scrub { shard, replica } => {
                self.scrub.get_or_insert((*shard, *replica));
                return;
            }
            // It is dropped with the job: here and not where it came from, since that takes a while.
            CheckpointJob::Free { .. } => return,
            CheckpointJob::Load { .. } | CheckpointJob::Write { .. } | CheckpointJob::Forget { .. } => {
                &mut self.state_jobs
            }
            CheckpointJob::Offer { .. }
            | CheckpointJob::ReadPiece { .. }
            | CheckpointJob::Release { .. }
            | CheckpointJob::Confirmed { .. } => &mut self.offer_jobs,
            CheckpointJob::Stage { .. }
            | CheckpointJob::WritePiece { .. }
            | CheckpointJob::Verify { .. }
            | CheckpointJob::Discard { .. } => &mut self.staging_jobs,
        };
        queue.push_back(job);
    }

    /// Does one bounded piece of work, if there is any.
    pub fn step(&mut self) -> Step {
        let mut step = Step::default();
        if !self.is_stopped {
            let mut is_done = self.scrub_waited >= SCRUB_WAITS_STEPS_MAX && self.scrub(&mut step);
            for _ in 0..LANES {
                if is_done {
                    break;
                }
                let lane = self.turn;
                self.turn = (self.turn + 1) % LANES;
                match self.lane(lane, &mut step) {
                    Ok(done) => is_done = done,
                    Err(error) => {
                        (self.is_stopped, is_done) = (true, true);
                        step.events.push(CheckpointEvent::DiskFailed { reason: error.message });
                    }
                }
            }
            if is_done {
                self.scrub_waited = if self.scrub.is_some() { self.scrub_waited + 1 } else { 0 };
            } else {
                self.scrub(&mut step);
            }
        }
        step.idle = self.is_idle();
        step
    }

    /// Whether nothing is left to do until the next job.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let has_work = !self.offer_jobs.is_empty()
            || !self.staging_jobs.is_empty()
            || self.staging.is_some()
            || !self.state_jobs.is_empty()
            || self.state.is_some()
            || !self.merges.is_empty()
            || self.merge.is_some()
            || self.scrub.is_some();
        self.is_stopped || !has_work
    }

    /// Whether a merge is under way or waits.
    #[must_use]
    pub fn has_merges(&self) -> bool {
        self.merge.is_some() || !self.merges.is_empty()
    }

    /// The files that it works on.
    pub fn files(&mut self) -> &mut F {
        &mut self.cx.files
    }

    /// Whether the lane had something to do.
    fn lane(&mut self, lane: usize, step: &mut Step) -> Result<bool, DiskError> {
        match lane {
            0 => self.offers(step),
            1 => self.stagings(step),
            2 => self.states(step),
            _ => self.merges(step),
        }
    }

    /// Does the slice of the scrub that waits, if there is one.
    fn scrub(&mut self, step: &mut Step) -> bool {
        let Some((shard, replica)) = self.scrub.take() else { return false };
        self.scrub_waited = 0;
        if self.merge.as_ref().is_some_and(|(_, task)| task.replica() == replica && !task.may_be_abandoned()) {
            // A file may have its new content, and what is known of it be the old.
            return true;
        }
        if let Err(failure) = scrub(&mut self.cx, replica, step) {
            let reason = match failure {
                Failure::Disk(error) => error.message,
                Failure::Store(error) => error.to_string(),
                Failure::Files(Damaged(reason)) => reason,
            };
            step.events.push(CheckpointEvent::TreeFailed { shard, replica, reason });
        }
        true
    }

    fn offers(&mut self, step: &mut Step) -> Result<bool, DiskError> {
        let Some(job) = self.offer_jobs.pop_front() else { return Ok(false) };
        let cx = &mut self.cx;
        match job {
            CheckpointJob::Offer { shard, replica, stream } => {
                let known = cx.replicas.get(&replica);
                step.events.push(cx.offers.offer(&mut cx.files, stream, (shard, replica), known));
            }
            CheckpointJob::ReadPiece { stream, file, offset } => {
                let (event, rotten) = cx.offers.read(&mut cx.files, stream, file, offset);
                if let CheckpointEvent::PieceRead { bytes, .. } = &event {
                    step.bytes += bytes.len();
                }
                step.events.push(event);
                if let Some(Rotten { shard, replica, reason }) = rotten
                    && let Some(known) = cx.replicas.get_mut(&replica).filter(|known| known.is_loaded)
                {
                    point!(OfferedFileRotten);
                    known.is_loaded = false;
                    step.events.push(CheckpointEvent::TreeFailed { shard, replica, reason });
                }
            }
            CheckpointJob::Confirmed { shard, replica, index, digest } => {
                self.note_confirmed(shard, replica, (index, digest), step)?;
            }
            CheckpointJob::Release { stream } => cx.offers.release(&mut cx.files, stream)?,
            _ => unreachable!("submit puts only these here"),
        }
        Ok(true)
    }

    fn stagings(&mut self, step: &mut Step) -> Result<bool, DiskError> {
        let (id, result) = match &mut self.staging {
            Some(StagingTask::Stage(task)) => (task.id(), task.step(&mut self.cx, step)),
            Some(StagingTask::Verify(task)) => (task.id(), task.step(&mut self.cx, step)),
            None => {
                let Some(job) = self.staging_jobs.pop_front() else { return Ok(false) };
                let (id, result) = self.begin_staging(job, step);
                (id, result.map(|()| Progress::More))
            }
        };
        if !matches!(result, Ok(Progress::More)) {
            self.staging = None;
        }
        if let Err(failure) = result {
            let reason = reason(failure)?;
            let (replica, staging) = id;
            discard(&mut self.cx, replica, staging)?;
            step.events.push(CheckpointEvent::StageFailed { replica, staging, reason });
        }
        Ok(true)
    }

    fn begin_staging(&mut self, job: CheckpointJob, step: &mut Step) -> ((ReplicaId, StagingId), Result<(), Failure>) {
        match job {
            CheckpointJob::Stage { replica, manifest } => {
                let task = StageTask::new(replica, manifest);
                let id = task.id();
                self.staging = Some(StagingTask::Stage(Box::new(task)));
                (id, Ok(()))
            }
            CheckpointJob::Verify { replica, staging } => {
                self.staging = Some(StagingTask::Verify(VerifyTask::new(replica, staging)));
                ((replica, staging), Ok(()))
            }
            CheckpointJob::WritePiece { replica, staging, file, offset, bytes } => {
                let id = (replica, staging);
                let written = write_piece(&mut self.cx, id, (file, offset), &bytes);
                step.bytes += bytes.len();
                (id, written.map(|event| step.events.push(event)))
            }
            CheckpointJob::Discard { replica, staging } => {
                ((replica, staging), discard(&mut self.cx, replica, staging).map_err(Failure::from))
            }
            _ => unreachable!("submit puts only these here"),
        }
    }

    fn states(&mut self, step: &mut Step) -> Result<bool, DiskError> {
        match &mut self.state {
            Some(StateTask::Load(task)) => match task.step(&mut self.cx, step) {
                Ok(Progress::More) => return Ok(true),
                Ok(Progress::Done) => {}
                Err(failure) => {
                    let reason = reason(failure)?;
                    step.events.push(task.failed(&mut self.cx, &reason));
                }
            },
            Some(StateTask::Write(task)) => match task.step(&mut self.cx, step) {
                Ok(Progress::More) => return Ok(true),
                Ok(Progress::Done) => {
                    let (shard, replica) = (task.shard(), task.replica());
                    self.merge_if_due(shard, replica);
                }
                // Nothing was promised on the strength of what is being written.
                Err(Failure::Disk(error)) if error.kind == DiskErrorKind::Full => {
                    task.abandon(&mut self.cx.files)?;
                    step.events.push(task.no_room());
                }
                Err(failure) => {
                    let reason = reason(failure)?;
                    task.abandon(&mut self.cx.files)?;
                    if let Some(known) = self.cx.replicas.get_mut(&task.replica()) {
                        known.is_loaded = false;
                    }
                    point!(CheckpointFailed);
                    step.events.push(task.failed(reason));
                }
            },
            None => return self.begin_state(),
        }
        self.state = None;
        Ok(true)
    }

    fn begin_state(&mut self) -> Result<bool, DiskError> {
        let next = self.next_state_job();
        if let Some(CheckpointJob::Write { replica, .. }) = self.state_jobs.get(next) {
            let count = self.cx.replicas.get(replica).map_or(0, |known| known.files.len());
            if count >= self.cx.merge_bounds.files_max && self.is_merging(*replica) {
                return Ok(false);
            }
        }
        let Some(job) = self.state_jobs.remove(next) else { return Ok(false) };
        point!(LoadHadItsTurn if self.overtaken == OVERTAKES_MAX);
        self.overtaken = if next > 0 { self.overtaken + 1 } else { 0 };
        self.state = Some(match job {
            CheckpointJob::Forget { replica } => {
                self.abandon_merge(replica)?;
                forget(&mut self.cx, replica)?;
                return Ok(true);
            }
            CheckpointJob::Load { shard, replica, at_least, install, initial } => {
                self.abandon_merge(replica)?;
                let wanted = Wanted { shard, replica, at_least, install, initial };
                StateTask::Load(Box::new(LoadTask::new(wanted)))
            }
            CheckpointJob::Write { shard, replica, table, header } => {
                StateTask::Write(Box::new(WriteTask::new(shard, replica, table, header)))
            }
            _ => unreachable!("submit puts only these here"),
        });
        Ok(true)
    }

    /// A checkpoint of one replica does not wait for the loading of others: at a start that can take long, and meanwhile
    /// tables and log would fill up. But no load waits for ever. Jobs of one replica keep their order.
    fn next_state_job(&self) -> usize {
        let replica = |job: &CheckpointJob| match job {
            CheckpointJob::Load { replica, .. }
            | CheckpointJob::Write { replica, .. }
            | CheckpointJob::Forget { replica } => Some(*replica),
            _ => None,
        };
        let is_first = |at: usize| {
            let of = replica(&self.state_jobs[at]);
            self.state_jobs.iter().take(at).all(|earlier| replica(earlier) != of)
        };
        let write = |job: &CheckpointJob| matches!(job, CheckpointJob::Write { .. });
        let may_overtake = self.overtaken < OVERTAKES_MAX;
        let first_write = (0..self.state_jobs.len()).find(|at| write(&self.state_jobs[*at]) && is_first(*at));
        first_write.filter(|_| may_overtake).unwrap_or(0)
    }

    /// Notes that a checkpoint is confirmed, if it is one of those that there are now.
    fn note_confirmed(
        &mut self,
        shard: ShardId,
        replica: ReplicaId,
        (index, digest): (LogIndex, Digest),
        step: &mut Step,
    ) -> Result<(), DiskError> {
        if !self.merge_makes_way(replica, index)? {
            // The replica tries again; by then the merge is over.
            return Ok(());
        }
        let Some(known) = self.cx.replicas.get_mut(&replica).filter(|known| known.is_loaded) else { return Ok(()) };
        let is_here = |note| known.files.iter().any(|file| (file.index, file.digest) == note);
        if !is_here((index, digest)) || index < known.confirmed {
            return Ok(());
        }
        let directory = set_directory(replica, known.set);
        match note_confirmed(&mut self.cx.files, &directory, (index, digest), is_here) {
            // Without room it is not noted; the replica tries again.
            Err(error) if error.kind == DiskErrorKind::Full => return Ok(()),
            other => other?,
        }
        known.confirmed = index;
        step.events.push(CheckpointEvent::Confirmed { shard, replica, index });
        self.merge_if_due(shard, replica);
        Ok(())
    }
}

impl<F, S> fmt::Debug for Worker<F, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("state_jobs", &self.state_jobs.len()).finish_non_exhaustive()
    }
}

/// Removes all sets of a replica's files. A crash on the way leaves some of them, and the replica finds again that it differs.
fn forget<F: FileDisk, S>(cx: &mut Context<F, S>, replica: ReplicaId) -> Result<(), DiskError> {
    cx.offers.drop_replica(replica);
    cx.scrubs.remove(&replica);
    let root = directory(replica);
    let names = cx.files.list(&root)?;
    let numbers = sets(&names);
    for number in &numbers {
        cx.files.remove(&set_directory(replica, *number))?;
    }
    if !numbers.is_empty() {
        cx.files.sync_directory(&root)?;
    }
    let set = numbers.last().copied().unwrap_or(0);
    cx.replicas.insert(replica, ReplicaFiles { set, has_failed: true, ..ReplicaFiles::default() });
    Ok(())
}

/// What went wrong, for people, unless it was the disk.
fn reason(failure: Failure) -> Result<String, DiskError> {
    match failure {
        Failure::Disk(error) => Err(error),
        Failure::Store(error) => Ok(error.to_string()),
        Failure::Files(Damaged(reason)) => Ok(reason),
    }
}
