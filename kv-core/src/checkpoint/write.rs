//! Writing a checkpoint: a frozen table becomes a file, then part of the tree.
//!
//! The old record of every key is read from the tree, which stands at the checkpoint before; with it the digest goes from
//! that checkpoint's to the new one's. The file is written under a temporary name, synced, read back to its end, named and
//! its name synced; only then is the checkpoint durable. Only then does the tree follow, so that it never holds what no file
//! does. The first checkpoint of a replica is a base by itself.

use std::collections::VecDeque;

use crate::{
    checkpoint::{
        chain::{ChainFile, set_directory, sync_names},
        context::{Context, Failure, Progress, Slice, Step},
        format::Kind,
        job::{CheckpointEvent, FileDescription},
        reader::{Damaged, FileReader},
        tree::mark_tree,
        writer::FileWriter,
    },
    disk::{DiskError, DiskErrorKind, FileDisk, StateStore},
    state::{
        digest::RecordSum,
        record::{Footer, FrozenTable, Place, StateHeader},
    },
    types::{ReplicaId, ShardId},
};

/// Old records asked for at once: values may have 1 MiB each, and the answer comes in one piece.
const LOOKUP_RECORDS_MAX: usize = 16;

pub(super) struct WriteTask {
    shard: ShardId,
    replica: ReplicaId,
    table: FrozenTable,
    /// Where its records are, in the order of their keys; made when the checkpoint begins.
    order: Vec<Place>,
    header: StateHeader,
    phase: Phase,
}

enum Phase {
    Begin,
    /// So many of them, in that order, are written.
    Records {
        writer: Box<FileWriter>,
        sum: RecordSum,
        done: usize,
    },
    Close(ClosingFile, Footer),
    /// So many of them are in the tree.
    Insert {
        done: usize,
    },
}

impl WriteTask {
    pub(super) fn new(shard: ShardId, replica: ReplicaId, table: FrozenTable, header: StateHeader) -> Self {
        Self { shard, replica, table, order: Vec::new(), header, phase: Phase::Begin }
    }

    pub(super) fn shard(&self) -> ShardId {
        self.shard
    }

    pub(super) fn replica(&self) -> ReplicaId {
        self.replica
    }

    pub(super) fn step<F: FileDisk, S: StateStore>(
        &mut self,
        cx: &mut Context<F, S>,
        step: &mut Step,
    ) -> Result<Progress, Failure> {
        match &mut self.phase {
            Phase::Begin => self.begin(cx)?,
            Phase::Records { .. } => self.records(cx, step)?,
            Phase::Close(closing, footer) => {
                if let Some(description) = closing.step(&mut cx.files, step)? {
                    let footer = std::mem::take(footer);
                    self.durable(cx, step, description, footer);
                }
            }
            Phase::Insert { .. } => return self.insert(cx, step),
        }
        Ok(Progress::More)
    }

    /// Throws away what was begun.
    pub(super) fn abandon<F: FileDisk>(&mut self, files: &mut F) -> Result<(), DiskError> {
        match &self.phase {
            Phase::Records { writer, .. } => files.remove(&writer.unfinished_path()),
            Phase::Close(closing, _) => files.remove(&closing.writer.unfinished_path()),
            Phase::Begin | Phase::Insert { .. } => Ok(()),
        }
    }

    /// Gives everything back, to be tried again.
    pub(super) fn no_room(&self) -> CheckpointEvent {
        let (table, header) = (self.table.clone(), self.header.clone());
        CheckpointEvent::NoRoom { shard: self.shard, replica: self.replica, table, header }
    }

    pub(super) fn failed(&self, reason: String) -> CheckpointEvent {
        CheckpointEvent::TreeFailed { shard: self.shard, replica: self.replica, reason }
    }

    fn begin<F: FileDisk, S: StateStore>(&mut self, cx: &mut Context<F, S>) -> Result<(), Failure> {
        let Some(known) = cx.replicas.get_mut(&self.replica).filter(|known| known.is_loaded) else {
            return Err(Damaged("the state was not loaded".to_owned()).into());
        };
        if self.header.index <= known.footer.header.index {
            return Err(Damaged("the checkpoint is not above the one before".to_owned()).into());
        }
        if known.set == 0 {
            known.set = 1;
        }
        let directory = set_directory(self.replica, known.set);
        cx.files.create_directory(&directory)?;
        if known.files.is_empty() {
            sync_names(&mut cx.files, self.replica, known.set)?;
        }
        let stands_on = known.files.last().map(|file| (file.index, file.digest));
        let writer = Box::new(FileWriter::new(directory, self.header.index, stands_on));
        let sum = RecordSum::of_footer(known.footer.digest, &known.footer.header);
        self.order = self.table.order();
        self.phase = Phase::Records { writer, sum, done: 0 };
        Ok(())
    }

    fn records<F: FileDisk, S: StateStore>(&mut self, cx: &mut Context<F, S>, step: &mut Step) -> Result<(), Failure> {
        let Phase::Records { writer, sum, done } = &mut self.phase else { return Ok(()) };
        let is_base = cx.replicas.get(&self.replica).is_some_and(|known| known.files.is_empty());
        let mut slice = cx.slice();
        while !slice.is_full() && *done < self.order.len() {
            let (mut keys, mut values) = (Vec::new(), Vec::new());
            for place in self.order[*done..].iter().take(LOOKUP_RECORDS_MAX) {
                if slice.is_full() {
                    break;
                }
                let (key, value) = self.table.record(*place);
                slice.count(key, value);
                keys.push(key);
                values.push(value);
            }
            *done += keys.len();
            let old = cx.store.get_many(self.replica, &keys)?;
            for ((key, value), old) in keys.into_iter().zip(values).zip(old) {
                if let Some(old) = old {
                    sum.subtract(key, &old);
                }
                if let Some(value) = value {
                    sum.add(key, value);
                }
                if value.is_some() || !is_base {
                    writer.push(key, value);
                }
            }
        }
        writer.flush(&mut cx.files)?;
        slice.report(step);
        if *done == self.order.len() {
            let footer = Footer { digest: sum.digest(&self.header), header: self.header.clone() };
            let description = writer.finish(&mut cx.files, footer.clone())?;
            if let Phase::Records { writer, .. } = std::mem::replace(&mut self.phase, Phase::Begin) {
                self.phase = Phase::Close(ClosingFile::new(writer, description), footer);
            }
        }
        Ok(())
    }

    fn durable<F, S>(&mut self, cx: &mut Context<F, S>, step: &mut Step, description: FileDescription, footer: Footer) {
        let known =
            cx.replicas.get_mut(&self.replica).expect("a checkpoint was begun only for a replica that is loaded");
        let kind = if known.files.is_empty() { Kind::Base } else { Kind::Delta };
        known.files.push(ChainFile::new(description, kind, &footer));
        known.footer = footer.clone();
        step.events.push(CheckpointEvent::Durable { shard: self.shard, replica: self.replica, footer });
        self.phase = Phase::Insert { done: 0 };
    }

    fn insert<F, S: StateStore>(&mut self, cx: &mut Context<F, S>, step: &mut Step) -> Result<Progress, Failure> {
        let Phase::Insert { done } = &mut self.phase else { return Ok(Progress::Done) };
        let mut slice = cx.slice();
        let mut changes = Vec::new();
        for place in &self.order[*done..] {
            if slice.is_full() {
                break;
            }
            let (key, value) = self.table.record(*place);
            slice.count(key, value);
            changes.push((key, value));
        }
        slice.report(step);
        if !changes.is_empty() {
            *done += changes.len();
            if let Some(scrub) = cx.scrubs.get_mut(&self.replica) {
                scrub.before_write(&cx.store, self.replica, &changes)?;
            }
            cx.store.write(self.replica, &changes)?;
            return Ok(Progress::More);
        }
        mark_tree(&cx.store, self.replica, self.header.index)?;
        let index = self.header.index;
        if let Some(known) = cx.replicas.get_mut(&self.replica) {
            known.inserted = index;
        }
        step.events.push(CheckpointEvent::Inserted { shard: self.shard, replica: self.replica, index });
        Ok(Progress::Done)
    }
}

/// A file that is written: to be synced, read back and named.
pub(super) struct ClosingFile {
    pub(super) writer: Box<FileWriter>,
    description: FileDescription,
    steps: VecDeque<Close>,
    reader: Option<Box<FileReader>>,
}

#[derive(Clone, Copy)]
enum Close {
    Sync,
    ReadBack,
    Name,
    SyncName,
}

impl ClosingFile {
    pub(super) fn new(writer: Box<FileWriter>, description: FileDescription) -> Self {
        let steps = [Close::Sync, Close::ReadBack, Close::Name, Close::SyncName].into();
        Self { writer, description, steps, reader: None }
    }

    /// One step; the file's description once it is whole for good.
    pub(super) fn step<F: FileDisk>(
        &mut self,
        files: &mut F,
        step: &mut Step,
    ) -> Result<Option<FileDescription>, DiskError> {
        match self.steps.front() {
            Some(Close::Sync) if !mutant!("B14") => files.sync(&self.writer.unfinished_path())?,
            Some(Close::ReadBack) => {
                // What was synced and does not read back shows that the disk can't be relied on at all.
                let is_end = self.read_back(files, step).map_err(|Damaged(what)| {
                    DiskError::new(DiskErrorKind::Io, format!("a file just written does not read back: {what}"))
                })?;
                if !is_end {
                    return Ok(None);
                }
            }
            Some(Close::Name) => files.rename(&self.writer.unfinished_path(), &self.writer.path())?,
            Some(Close::SyncName) if !mutant!("B13") => files.sync_directory(self.writer.directory())?,
            // Only with a planted bug is a sync left out.
            Some(Close::Sync | Close::SyncName) | None => {}
        }
        self.steps.pop_front();
        Ok(self.steps.is_empty().then(|| self.description.clone()))
    }

    fn read_back<F: FileDisk>(&mut self, files: &mut F, step: &mut Step) -> Result<bool, Damaged> {
        if self.reader.is_none() {
            let path = self.writer.unfinished_path();
            let name = path.rsplit('/').next().unwrap_or_default();
            let reader = FileReader::open(files, self.writer.directory(), name)?;
            let found = &reader.end().description;
            if (found.bytes, found.hash) != (self.description.bytes, self.description.hash) {
                return Err(Damaged(format!("{path} is another file")));
            }
            self.reader = Some(Box::new(reader));
        }
        let reader = self.reader.as_mut().expect("it was opened above");
        let mut slice = Slice::default();
        while !slice.is_full() {
            let Some((key, value)) = reader.advance(files)? else { break };
            slice.count(&key, value.as_deref());
        }
        slice.report(step);
        Ok(!slice.is_full() && reader.head().is_none())
    }
}
