//! What one machine did to its disk in a run, and what it had promised at each moment of it.
//!
//! The tape of a machine has an image of its disk before each step that changed it, and notes between the images: which
//! batch the log was given, which of them was told as synced, what a start found, which states were lost and proven. From
//! them follows, for each image, what a restart must find: [`Promise`].

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use kv_core::{
    log::record::{Boundary, LogBatch, Record, Recovered, RecoveredShard},
    types::{LogIndex, ReplicaId, ShardId},
};

use crate::disk::{MemoryStore, SimDisk, image::Image};

/// Something that changes what is promised.
#[derive(Clone, Debug)]
pub(crate) enum Note {
    /// The log begins to write this batch: from now on it may be there as a whole.
    Begun(LogBatch),
    /// The batch is told as synced: from now on it must be there.
    Synced,
    /// A start found this; what was in flight is settled by it.
    Told(Recovered),
    /// The replica's state is not readable here any more, and has to come from a peer.
    StateLost(ShardId),
    /// The replica's state is proven.
    Verified(ShardId),
    /// A checkpoint was told as durable.
    Durable(ReplicaId, LogIndex),
    /// Files of the machine are about to be damaged: any state may turn out lost.
    Damaged,
    /// The read index as it is now.
    Tree(MemoryStore),
}

/// The tape of one machine of a run, while it is recorded.
#[derive(Debug)]
pub(crate) struct Tape {
    pub(crate) node: usize,
    disk: SimDisk,
    /// Each with the number of images taken before it.
    notes: Vec<(usize, Note)>,
}

/// What a restart from an image must find.
#[derive(Clone, Debug, Default)]
pub(crate) struct Promise {
    /// What the log says, if the batch in flight is lost.
    pub(crate) settled: Rc<Recovered>,
    /// What it says if the batch in flight is there.
    pub(crate) in_flight: Option<Rc<Recovered>>,
    /// Replicas whose state may be lost.
    pub(crate) lost: Rc<BTreeSet<ShardId>>,
    /// Checkpoints that must be there, unless the state may be lost.
    pub(crate) durable: Rc<BTreeMap<ReplicaId, LogIndex>>,
    /// The read index.
    pub(crate) tree: MemoryStore,
}

impl Tape {
    /// Begins to record what is done to the disk of a machine.
    pub(crate) fn new(node: usize, disk: &SimDisk) -> Self {
        disk.record_images();
        Self { node, disk: disk.clone(), notes: Vec::new() }
    }

    /// Takes a note, of whatever machine: those of others are ignored.
    pub(crate) fn note(&mut self, node: usize, note: impl FnOnce() -> Note) {
        if node == self.node {
            self.notes.push((self.disk.images_taken(), note()));
        }
    }

    /// Ends the recording: each image with what was promised then, beginning with this.
    ///
    /// # Errors
    /// If a start found what contradicts the promises before it.
    pub(crate) fn end(self, begin: Promise, shards: &[ShardId]) -> Result<Vec<(Image, Promise)>, String> {
        let mut promise = begin;
        let mut notes = self.notes.into_iter().peekable();
        let mut out = Vec::new();
        for (number, image) in self.disk.take_images().into_iter().enumerate() {
            while let Some((_, note)) = notes.next_if(|(at, _)| *at <= number) {
                promise.take(note, shards)?;
            }
            out.push((image, promise.clone()));
        }
        Ok(out)
    }
}

impl Promise {
    /// Whether a restart may find this in the log.
    pub(crate) fn allows(&self, told: &Recovered) -> bool {
        *told == *self.settled || self.in_flight.as_deref() == Some(told)
    }

    fn take(&mut self, note: Note, shards: &[ShardId]) -> Result<(), String> {
        match note {
            Note::Begun(batch) => {
                let mut with = (*self.settled).clone();
                fold(&mut with, &batch);
                self.in_flight = Some(Rc::new(with));
            }
            Note::Synced => self.settled = self.in_flight.take().ok_or("a batch is synced that was not begun")?,
            Note::Told(recovered) => {
                if !self.allows(&recovered) {
                    return Err(format!("a start found {recovered:?}, and {:?} was promised", self.settled));
                }
                self.settled = Rc::new(recovered);
                self.in_flight = None;
            }
            Note::StateLost(shard) => {
                Rc::make_mut(&mut self.lost).insert(shard);
            }
            Note::Verified(shard) => {
                Rc::make_mut(&mut self.lost).remove(&shard);
            }
            Note::Durable(replica, index) => {
                Rc::make_mut(&mut self.durable).insert(replica, index);
            }
            Note::Damaged => Rc::make_mut(&mut self.lost).extend(shards),
            Note::Tree(tree) => self.tree = tree,
        }
        Ok(())
    }
}

/// What a log says after a batch more, worked out in the plainest way.
fn fold(recovered: &mut Recovered, batch: &LogBatch) {
    for record in &batch.records {
        let shard = record.shard();
        if let Record::Create { replica, hard_state, boundary, .. } = record {
            let (replica, hard_state, boundary) = (*replica, *hard_state, boundary.clone());
            let created = RecoveredShard { replica, hard_state, boundary, ..RecoveredShard::default() };
            recovered.shards.insert(shard, created);
            continue;
        }
        let found = recovered.shards.get_mut(&shard).expect("a record follows its shard's creation");
        match record {
            Record::Entry { entry, .. } => {
                found.entries.retain(|other| other.index < entry.index);
                found.entries.push(entry.clone());
            }
            Record::HardState { hard_state, .. } => found.hard_state = *hard_state,
            Record::Boundary { boundary, .. } => {
                found.entries.retain(|entry| entry.index > boundary.index);
                found.boundary = boundary.clone();
                found.install = found.install.take().filter(|install| install.index >= boundary.index);
            }
            Record::Install { install, .. } => {
                found.entries.clear();
                let (index, term, configuration) = (install.index, install.term, install.configuration.clone());
                found.boundary = Boundary { index, term, configuration };
                found.install = Some(install.clone());
            }
            Record::Tombstone { replica, .. } => {
                recovered.shards.remove(&shard);
                recovered.tombstones.insert(*replica, shard);
            }
            Record::Create { .. } => unreachable!("taken in above"),
        }
    }
}
