//! Making one new base of a base and its deltas, when the deltas have grown; or one delta of many that are not confirmed.
//!
//! Files up to the newest confirmed checkpoint become a base: it is still the newest confirmed checkpoint, and can be given to
//! others. Deltas above it can't become part of a base, or there would be nothing to give to whoever lags, and with another
//! replica gone nobody could ever confirm anything again. So if there are too many of them they become one delta on top of the
//! confirmed checkpoint. That one has the newest delta's name and takes its place by a rename.
//!
//! The digest is computed from all records and compared with the one that deltas carried along step by step: if they differ,
//! a file or the tree that old records were read from lies, and nothing is replaced. (Deltas alone have no digest of their own:
//! each of them is proven whole by its hash, and their sum by the next load or base.) Deltas written meanwhile stand on the state
//! that the new file holds, so that they need not wait.

use std::ops::Range;

use bytes::Bytes;

use crate::{
    checkpoint::{
        chain::{ChainFile, names},
        context::{Context, Failure, Progress, ReplicaFiles, Step},
        format::Kind,
        merge::Merge,
        reader::Damaged,
        write::ClosingFile,
        writer::FileWriter,
    },
    disk::{DiskError, FileDisk},
    state::record::Footer,
    types::{Digest, LogIndex, ReplicaId},
};

/// Deltas are merged once they have more bytes than this and more than the base. Only what is confirmed is merged, so that
/// the newest confirmed checkpoint can be given to others.
pub const MERGE_BYTES_MIN: u64 = 16 * 1024 * 1024;
/// Deltas are merged once there are so many.
pub const MERGE_FILES: usize = 32;
/// A checkpoint of a replica with so many files waits until some of them are merged: more could not be offered to a peer.
pub const FILES_MAX: usize = 60;

/// When files are merged because there are so many: [`MERGE_FILES`] and [`FILES_MAX`], or fewer in simulations.
#[derive(Clone, Copy, Debug)]
pub(super) struct MergeBounds {
    pub(super) deltas: usize,
    pub(super) files_max: usize,
}

impl MergeBounds {
    /// Bounds with so many deltas, and as many files in proportion.
    pub(super) fn of(deltas: usize) -> Self {
        let deltas = deltas.clamp(2, MERGE_FILES);
        Self { deltas, files_max: (deltas * FILES_MAX).div_ceil(MERGE_FILES) }
    }
}

/// The files of a replica to merge now, by their places: those of its newest confirmed checkpoint if they have grown enough, else
/// those above it if there are too many. Where nothing is confirmed there is nothing to lose by a base of all.
pub(super) fn due(known: &ReplicaFiles, bounds: MergeBounds) -> Option<Range<usize>> {
    let confirmed = known.confirmed_files();
    if have_grown(confirmed, bounds) {
        return Some(0..confirmed.len());
    }
    (known.files.len() >= bounds.files_max).then_some(confirmed.len()..known.files.len())
}

fn have_grown(files: &[ChainFile], bounds: MergeBounds) -> bool {
    let Some((base, deltas)) = files.split_first() else { return false };
    let bytes: u64 = deltas.iter().map(|file| file.description.bytes).sum();
    deltas.len() >= bounds.deltas || bytes > base.description.bytes.max(MERGE_BYTES_MIN)
}

pub(super) struct BaseTask {
    replica: ReplicaId,
    directory: String,
    merged: Vec<ChainFile>,
    /// What the first of them stands on, if they are deltas.
    stands_on: Option<(LogIndex, Digest)>,
    /// Whether none of them is confirmed.
    is_unconfirmed: bool,
    /// What the newest of them says, known once they are open.
    footer: Footer,
    phase: Phase,
}

enum Phase {
    Open,
    Records(Merge, Box<FileWriter>),
    Close(ClosingFile),
    Remove,
}

impl BaseTask {
    /// Merges the files at these places of a replica's.
    pub(super) fn new(replica: ReplicaId, known: &ReplicaFiles, places: Range<usize>) -> Self {
        let stands_on = known.files[..places.start].last().map(|file| (file.index, file.digest));
        let is_unconfirmed = places.start >= known.confirmed_files().len();
        let (directory, merged) = (known.directory(replica), known.files[places].to_vec());
        Self { replica, directory, merged, stands_on, is_unconfirmed, footer: Footer::default(), phase: Phase::Open }
    }

    pub(super) fn replica(&self) -> ReplicaId {
        self.replica
    }

    /// Whether it would take away the file of a checkpoint that is now confirmed, or change it under somebody to whom it is given.
    pub(super) fn is_against(&self, confirmed: LogIndex) -> bool {
        self.is_unconfirmed && self.merged.iter().any(|file| file.index == confirmed)
    }

    /// Whether it can still be given up without a trace.
    pub(super) fn may_be_abandoned(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Records(..))
    }

    pub(super) fn step<F: FileDisk, S>(
        &mut self,
        cx: &mut Context<F, S>,
        step: &mut Step,
    ) -> Result<Progress, Failure> {
        match &mut self.phase {
            Phase::Open => {
                let merge = Merge::open(&mut cx.files, &self.directory, &names(&self.merged))?;
                let newest = merge.readers().last().ok_or_else(|| Damaged("there is nothing to merge".to_owned()))?;
                self.footer = newest.end().footer.footer.clone();
                let writer = FileWriter::new(self.directory.clone(), self.footer.header.index, self.stands_on);
                self.phase = Phase::Records(merge, Box::new(writer));
            }
            Phase::Records(..) => self.records(cx, step)?,
            Phase::Close(closing) => {
                if let Some(description) = closing.step(&mut cx.files, step)? {
                    let kind = if self.stands_on.is_some() { Kind::Delta } else { Kind::Base };
                    let file = ChainFile::new(description, kind, &self.footer);
                    let known =
                        cx.replicas.get_mut(&self.replica).expect("the merge of a replica loaded anew is abandoned");
                    point!(BaseMerged if kind == Kind::Base);
                    point!(DeltasMerged if kind == Kind::Delta);
                    let first = known.files.iter().position(|file| file.index == self.merged[0].index);
                    let first = first.expect("only a merge takes files away, and a replica has one at a time");
                    known.files.splice(first..first + self.merged.len(), [file]);
                    self.phase = Phase::Remove;
                }
            }
            Phase::Remove => {
                let mut old = names(&self.merged);
                if self.stands_on.is_some() {
                    // The new one took the newest's name.
                    old.pop();
                }
                let old = old.into_iter().map(|name| format!("{}/{name}", self.directory));
                cx.offers.remove_unless_offered(&mut cx.files, old)?;
                return Ok(Progress::Done);
            }
        }
        Ok(Progress::More)
    }

    fn records<F: FileDisk, S>(&mut self, cx: &mut Context<F, S>, step: &mut Step) -> Result<(), Failure> {
        let Phase::Records(merge, writer) = &mut self.phase else { return Ok(()) };
        let mut slice = cx.slice();
        let mut records: Vec<(Bytes, Option<Bytes>)> = Vec::new();
        let is_end = merge.slice_with_tombstones(&mut cx.files, &mut slice, &mut records)?;
        for (key, value) in &records {
            // In a base there is nothing below that a tombstone could hide.
            if value.is_some() || self.stands_on.is_some() {
                writer.push(key, value.as_deref());
            }
        }
        writer.flush(&mut cx.files)?;
        slice.report(step);
        if !is_end {
            return Ok(());
        }
        if self.stands_on.is_none() && merge.digest(&self.footer.header) != self.footer.digest {
            let what = format!("the files in {} do not add up to their digest", self.directory);
            return Err(Damaged(what).into());
        }
        let description = writer.finish(&mut cx.files, self.footer.clone())?;
        if let Phase::Records(_, writer) = std::mem::replace(&mut self.phase, Phase::Remove) {
            self.phase = Phase::Close(ClosingFile::new(writer, description));
        }
        Ok(())
    }

    /// Throws away what was begun; a base that is whole already stays.
    pub(super) fn abandon<F: FileDisk>(&self, files: &mut F) -> Result<(), DiskError> {
        match &self.phase {
            Phase::Records(_, writer) => files.remove(&writer.unfinished_path()),
            Phase::Close(closing) => files.remove(&closing.writer.unfinished_path()),
            Phase::Open | Phase::Remove => Ok(()),
        }
    }
}
