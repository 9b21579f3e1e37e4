//! Making one new base of a base and its deltas, when the deltas have grown.
//!
//! The digest is computed from all records and compared with the one that deltas carried along step by step: if they differ,
//! a file or the tree that old records were read from lies, and nothing is replaced. Deltas written meanwhile stand on the
//! state that the new base holds, so that they need not wait.

use bytes::Bytes;

use crate::{
    checkpoint::{
        chain::{ChainFile, names},
        context::{Context, Failure, Progress, ReplicaFiles, Slice, Step},
        format::Kind,
        merge::Merge,
        reader::Damaged,
        write::ClosingFile,
        writer::FileWriter,
    },
    disk::{DiskError, FileDisk},
    state::record::Footer,
    types::ReplicaId,
};

/// Deltas are merged once they have more bytes than this and more than the base. Only what is confirmed is merged, so that
/// the newest confirmed checkpoint can be given to others.
pub const MERGE_BYTES_MIN: u64 = 16 * 1024 * 1024;
/// Deltas are merged once there are so many.
pub const MERGE_FILES: usize = 32;
/// A checkpoint of a replica with so many files waits until they are merged: more could not be offered to a peer. Then all
/// are merged, confirmed or not; until the next is confirmed there is nothing to give to others.
pub const FILES_MAX: usize = 60;

/// The files of a replica to merge now: those of its newest confirmed checkpoint if they have grown enough.
pub(super) fn due(known: &ReplicaFiles) -> Option<&[ChainFile]> {
    if known.files.len() >= FILES_MAX {
        return Some(&known.files);
    }
    Some(known.confirmed_files()).filter(|files| have_grown(files))
}

fn have_grown(files: &[ChainFile]) -> bool {
    let Some((base, deltas)) = files.split_first() else { return false };
    let bytes: u64 = deltas.iter().map(|file| file.description.bytes).sum();
    deltas.len() >= MERGE_FILES || bytes > base.description.bytes.max(MERGE_BYTES_MIN)
}

pub(super) struct BaseTask {
    replica: ReplicaId,
    directory: String,
    merged: Vec<ChainFile>,
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
    /// Merges these files, the first that a replica has.
    pub(super) fn new(replica: ReplicaId, known: &ReplicaFiles, files: &[ChainFile]) -> Self {
        let (directory, merged) = (known.directory(replica), files.to_vec());
        Self { replica, directory, merged, footer: Footer::default(), phase: Phase::Open }
    }

    pub(super) fn replica(&self) -> ReplicaId {
        self.replica
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
                let writer = FileWriter::new(self.directory.clone(), self.footer.header.index, None);
                self.phase = Phase::Records(merge, Box::new(writer));
            }
            Phase::Records(..) => self.records(cx, step)?,
            Phase::Close(closing) => {
                if let Some(description) = closing.step(&mut cx.files, step)? {
                    let base = ChainFile::new(description, Kind::Base, &self.footer);
                    let known =
                        cx.replicas.get_mut(&self.replica).expect("the merge of a replica loaded anew is abandoned");
                    point!(BaseMerged);
                    known.files.splice(..self.merged.len(), [base]);
                    self.phase = Phase::Remove;
                }
            }
            Phase::Remove => {
                let old = names(&self.merged).into_iter().map(|name| format!("{}/{name}", self.directory));
                cx.offers.remove_unless_offered(&mut cx.files, old)?;
                return Ok(Progress::Done);
            }
        }
        Ok(Progress::More)
    }

    fn records<F: FileDisk, S>(&mut self, cx: &mut Context<F, S>, step: &mut Step) -> Result<(), Failure> {
        let Phase::Records(merge, writer) = &mut self.phase else { return Ok(()) };
        let mut slice = Slice::default();
        let mut live: Vec<(Bytes, Bytes)> = Vec::new();
        let is_end = merge.slice(&mut cx.files, &mut slice, &mut live)?;
        for (key, value) in &live {
            writer.push(key, Some(value));
        }
        writer.flush(&mut cx.files)?;
        slice.report(step);
        if !is_end {
            return Ok(());
        }
        if merge.digest(&self.footer.header) != self.footer.digest {
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
