//! One machine started again on a disk as a loss of power left it, its peers silent; and the judge of what it finds.
//!
//! What must hold: the log is opened, and says exactly what was promised, with or without the batch in flight; the checkpoints
//! told as durable are there; every state that was not lost is proven and brought up to all that the log knows to be decided,
//! with the digest that the same state had in the run; nobody is taken out of service; nothing panics.

use std::collections::BTreeMap;

use kv_core::{
    checkpoint::{job::CheckpointEvent, newest_footers},
    io::{Input, Notice, Output},
    log::record::{EntryKind, HardState, LogBatch, LogEntry, Record, Recovered},
    types::{BatchNumber, Digest, LogIndex, NodeId, ReplicaId, ShardId, Time},
};

use super::{
    story::{NODE, Story},
    tape::{Note, Promise, Tape},
};
use crate::{
    disk::SimDisk,
    sim::{
        clock::Clock,
        machine::{Machine, Opened, StartError},
    },
};

/// Rounds of log, worker and turn within which a machine must come to rest.
const ROUNDS_MAX: usize = 100_000;

/// When the machine starts, in microseconds: after all of the story.
const NOW_MICROS: u64 = 100_000_000;

/// A machine that is started again and again.
pub(super) struct Restarter<'a> {
    story: &'a Story,
    machine: Machine,
    outputs: Vec<Output>,
    inputs: Vec<Input>,
    /// States whose digest was compared, and states of which none was seen in the run.
    pub(super) compared: u64,
    pub(super) not_seen: u64,
}

impl<'a> Restarter<'a> {
    pub(super) fn new(story: &'a Story) -> Self {
        let clock = Clock::new(0, 0);
        let machine = Machine::new(NodeId(NODE as u64 + 1), clock, &story.plan);
        Self { story, machine, outputs: Vec::new(), inputs: Vec::new(), compared: 0, not_seen: 0 }
    }

    /// Starts the machine on this disk and judges it. With a tape, what it does to the disk is recorded.
    ///
    /// # Errors
    /// What does not hold.
    pub(super) fn judge(
        &mut self,
        disk: SimDisk,
        promise: &Promise,
        mut tape: Option<&mut Tape>,
    ) -> Result<Recovered, String> {
        self.machine.process = None;
        self.machine.refused = None;
        self.machine.disk = disk;
        self.machine.store = promise.tree.fork();
        self.outputs.clear();
        self.inputs.clear();
        self.judge_durable(promise)?;
        let told = match self.machine.open(&self.story.plan, NOW_MICROS, &mut self.outputs) {
            Ok(Opened::Node(recovered)) => recovered,
            Ok(Opened::Founding(_)) | Err(StartError::Otherwise(_)) => {
                return Err("the node of a founded cluster does not know its cluster".to_owned());
            }
            Err(StartError::Corrupt(reason)) => return Err(format!("the node refuses a whole log: {reason}")),
            Err(StartError::Disk(reason)) => return Err(format!("the start fails on a whole disk: {reason}")),
        };
        if !promise.allows(&told) {
            return Err(format!("the log says {told:?}, and promised was {:?}", promise.settled));
        }
        if let Some(tape) = &mut tape {
            tape.note(NODE, || Note::Told(told.clone()));
        }
        self.settle(tape)?;
        self.judge_states(promise, &told)?;
        Ok(told)
    }

    /// Has the started machine's log write one batch more, of so many bytes, at the place where the first crash may have left
    /// a torn one.
    pub(super) fn write_another(&mut self, told: &Recovered, bytes: usize, tape: &mut Tape) -> Result<(), String> {
        let Some((shard, found)) = told.shards.iter().next() else { return Ok(()) };
        let process = self.machine.process.as_mut().expect("it was started");
        let last = found.entries.last().map_or(found.boundary.index, |entry| entry.index);
        let term = found.hard_state.term.next();
        let hard_state = HardState { term, vote: ReplicaId(0), commit: found.hard_state.commit };
        let (kind, context, data) = (EntryKind::Commands, bytes::Bytes::new(), vec![7; bytes].into());
        let entry = LogEntry { index: last.next(), term, kind, context, data };
        let records = vec![Record::HardState { shard: *shard, hard_state }, Record::Entry { shard: *shard, entry }];
        let batch = LogBatch { number: BatchNumber(u64::MAX), records };
        tape.note(NODE, || Note::Begun(batch.clone()));
        process.writing = Some(batch);
        process.write_log()?;
        tape.note(NODE, || Note::Synced);
        Ok(())
    }

    /// Lets log, worker and node work until there is nothing left to do without the peers.
    fn settle(&mut self, mut tape: Option<&mut Tape>) -> Result<(), String> {
        self.inputs.push(Input::DiskFree { bytes: 1 << 40 });
        for _ in 0..ROUNDS_MAX {
            let process = self.machine.process.as_mut().expect("it was started");
            for output in self.outputs.drain(..) {
                match output {
                    Output::LogBatch(batch) => process.writing = Some(batch),
                    Output::Checkpoint(job) => process.submit(*job),
                    Output::Notice(Notice::Quarantined { shard, reason }) => {
                        return Err(format!("shard {shard} is taken out of service: {reason}"));
                    }
                    Output::Notice(Notice::StateLost { shard, .. }) => {
                        if let Some(tape) = &mut tape {
                            tape.note(NODE, || Note::StateLost(shard));
                        }
                    }
                    _ => {}
                }
            }
            if let Some(batch) = &process.writing {
                if let Some(tape) = &mut tape {
                    tape.note(NODE, || Note::Begun(batch.clone()));
                }
                let (_, report) = process.write_log()?;
                if let Some(tape) = &mut tape {
                    tape.note(NODE, || Note::Synced);
                }
                self.inputs.push(Input::Synced(report));
            }
            let (events, idle) = process.step();
            for event in events {
                if let CheckpointEvent::DiskFailed { reason } = event {
                    return Err(format!("the checkpoint thread fails on a whole disk: {reason}"));
                }
                self.inputs.push(Input::Checkpoint(Box::new(event)));
            }
            if idle && self.inputs.is_empty() {
                return Ok(());
            }
            if !self.inputs.is_empty() {
                let process = self.machine.process.as_mut().expect("it was started");
                let panicked = process.turn(Time(NOW_MICROS), &mut self.inputs, &mut self.outputs);
                panicked.map_err(|words| format!("the node panics: {words}"))?;
            }
        }
        Err(format!("the node is not at rest after {ROUNDS_MAX} rounds"))
    }

    fn judge_durable(&mut self, promise: &Promise) -> Result<(), String> {
        // On a copy: what is made durable by looking must not help the start that follows.
        let footers = newest_footers(&mut self.machine.disk.fork().files()).map_err(|error| format!("{error:?}"))?;
        let found: BTreeMap<ReplicaId, LogIndex> =
            footers.into_iter().map(|(replica, footer)| (replica, footer.header.index)).collect();
        for (shard, recovered) in &promise.settled.shards {
            let durable = promise.durable.get(&recovered.replica).copied().unwrap_or_default();
            let there = found.get(&recovered.replica).copied().unwrap_or_default();
            if there < durable && !promise.lost.contains(shard) {
                return Err(format!("shard {shard} has a checkpoint at {there}; one at {durable} was told as durable"));
            }
        }
        Ok(())
    }

    fn judge_states(&mut self, promise: &Promise, told: &Recovered) -> Result<(), String> {
        for shard in (0..=self.story.plan.shards).map(ShardId) {
            let Some(status) = self.machine.shard_status(shard) else {
                return Err(format!("the node has no replica of shard {shard}"));
            };
            if !status.live {
                if promise.lost.contains(&shard) {
                    continue;
                }
                return Err(format!("the state of shard {shard} is not proven"));
            }
            let decided = told.shards.get(&shard).map_or(LogIndex(1), |found| found.hard_state.commit);
            if status.applied < decided {
                return Err(format!("shard {shard} stands at {}, and {decided} is decided", status.applied));
            }
            self.judge_digest(shard)?;
        }
        Ok(())
    }

    fn judge_digest(&mut self, shard: ShardId) -> Result<(), String> {
        let Some((index, digest)) = self.machine.state_digest(shard) else { return Ok(()) };
        match self.story.digests.get(&(shard, index)) {
            None => self.not_seen += 1,
            Some(seen) if *seen == digest => self.compared += 1,
            Some(Digest(seen)) => {
                return Err(format!("shard {shard} at {index} has the digest {digest}, and had {}", Digest(*seen)));
            }
        }
        Ok(())
    }
}
