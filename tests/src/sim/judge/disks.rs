//! What is told of disks: what a log was given and has synced, and what a start found.

use std::collections::BTreeMap;

use kv_core::{
    log::record::{HardState, LogBatch, LogEntry, Record, Recovered},
    types::{NodeId, ReplicaId, ShardId},
};

use super::{Known, World};
use crate::check::view::{EntryMark, Fact, Place, SyncedRecord, hash_entry};

impl World {
    /// Tells that the node has synced a batch, and what is in it, if that was not told when it was handed over.
    pub(in crate::sim) fn judge_synced(&mut self, node: usize, batch: &LogBatch) {
        let mut facts = std::mem::take(&mut self.facts);
        if self.plan.nodes == 1 {
            for record in &batch.records {
                self.recorded(node, record, &mut facts);
            }
        }
        let mut synced: BTreeMap<ShardId, Vec<SyncedRecord>> = BTreeMap::new();
        for record in &batch.records {
            synced.entry(record.shard()).or_default().extend(synced_records(record).into_iter().flatten());
        }
        for (shard, records) in synced {
            facts.push(Fact::Synced { place: self.judge.place(node, shard), records });
        }
        self.tell(&mut facts);
        self.facts = facts;
    }

    /// Tells what a start of a node found on its disk.
    pub(in crate::sim) fn judge_start(&mut self, node: usize, recovered: &Recovered) {
        let mut facts = std::mem::take(&mut self.facts);
        let start = self.machines[node].start;
        for shard in (0..self.judge.shards as u64).map(ShardId) {
            let place = self.judge.place(node, shard);
            if place != Place::default() && !recovered.shards.contains_key(&shard) {
                *self.judge.known(node, shard) = Known::default();
                facts.push(Fact::NotFound { place });
            }
        }
        for (shard, found) in &recovered.shards {
            let last_index = found.entries.last().map_or(found.boundary.index, |entry| entry.index);
            let place = Place { node: NodeId(node as u64 + 1), shard: *shard, replica: found.replica };
            if self.plan.nodes == 1 {
                // A write that the crash cut short may be there as a whole; nobody was told of it.
                let told = self.judge.known(node, *shard).appended;
                let untold = found.entries.iter().filter(|entry| entry.index > told);
                facts.extend(untold.map(|entry| Fact::Appended { place, entry: mark(entry) }));
            }
            let known = self.judge.known(node, *shard);
            *known = Known { appended: last_index, committed: found.hard_state.commit, ..Known::default() };
            known.view.place = place;
            facts.push(Fact::Started {
                place,
                start,
                term: found.hard_state.term,
                vote: voted(found.hard_state.vote),
                commit: found.hard_state.commit,
                boundary: (found.boundary.index, found.boundary.term),
                entries: found.entries.iter().map(mark).collect(),
                voters: found.boundary.configuration.voters.len(),
            });
        }
        self.tell(&mut facts);
        self.facts = facts;
    }

    pub(in crate::sim) fn recorded(&mut self, node: usize, record: &Record, facts: &mut Vec<Fact>) {
        let known = self.judge.known(node, record.shard());
        match record {
            Record::Create { shard, replica, boundary, hard_state } => {
                let place = Place { node: NodeId(node as u64 + 1), shard: *shard, replica: *replica };
                known.view.place = place;
                known.appended = boundary.index;
                facts.push(Fact::Started {
                    place,
                    start: self.machines[node].start,
                    term: hard_state.term,
                    vote: voted(hard_state.vote),
                    commit: hard_state.commit,
                    boundary: (boundary.index, boundary.term),
                    entries: Vec::new(),
                    voters: boundary.configuration.voters.len(),
                });
            }
            Record::Entry { entry, .. } => {
                known.appended = entry.index;
                facts.push(Fact::Appended { place: known.view.place, entry: mark(entry) });
            }
            Record::Install { install, .. } => {
                known.appended = install.index;
                known.committed = known.committed.max(install.index);
                let place = known.view.place;
                let (index, term, digest) = (install.index, install.term, install.digest);
                facts.push(Fact::Installed { place, index, term, digest });
                self.counts.installs += 1;
                let shard = place.shard;
                self.trace.mark(self.now, Some(node), || format!("s{shard} installed at {index}"));
                self.judge_digest(node, place.shard, index, digest);
            }
            Record::HardState { .. } | Record::Boundary { .. } | Record::Tombstone { .. } => {}
        }
    }
}

fn voted(vote: ReplicaId) -> Option<ReplicaId> {
    (vote != ReplicaId(0)).then_some(vote)
}

/// What a record puts on the disk that others may count on: two facts at most.
fn synced_records(record: &Record) -> [Option<SyncedRecord>; 2] {
    let hard = |state: &HardState| SyncedRecord::HardState { term: state.term, vote: voted(state.vote) };
    match record {
        Record::Create { hard_state, boundary, .. } => {
            [Some(hard(hard_state)), Some(SyncedRecord::Stands { index: boundary.index })]
        }
        Record::Entry { entry, .. } => [Some(SyncedRecord::Entry { index: entry.index, term: entry.term }), None],
        Record::HardState { hard_state, .. } => [Some(hard(hard_state)), None],
        Record::Install { install, .. } => [Some(SyncedRecord::Stands { index: install.index }), None],
        // What is given up was there; the log's last index stays.
        Record::Boundary { .. } | Record::Tombstone { .. } => [None, None],
    }
}

fn mark(entry: &LogEntry) -> EntryMark {
    EntryMark { index: entry.index, term: entry.term, hash: hash_entry(entry.kind as u8, &entry.data) }
}
