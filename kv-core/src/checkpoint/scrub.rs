//! The scrub: files and tree of a replica that runs are read again, slowly, so that what rots unread is found while others still
//! have it.
//!
//! A slice of one replica at a time, when the node asks for one. First its files, each against its hash; then its tree, whose sum
//! must be the newest checkpoint's. Checkpoints go on meanwhile: what they change of keys that were read already is taken out of
//! the sum and put in anew, so that a pass need not begin again, however often a shard is written.
//!
//! What is wrong is not mended here: the replica is loaded anew, which makes the tree from the files, or takes an older checkpoint,
//! or asks a peer.
//!
//! *Left out*: the active and the frozen table, which marks compare; files that a merge replaced in the midst of a pass.

use std::collections::VecDeque;

use xxhash_rust::xxh3::Xxh3;

use crate::{
    checkpoint::{
        context::{Context, Failure, ReplicaFiles, SLICE_BYTES_MAX, Slice, Step},
        format::HASH_BYTES,
        job::FileDescription,
        reader::Damaged,
        tree::Scan,
    },
    disk::{Change, FileDisk, StateStore, StoreError},
    types::ReplicaId,
};

/// Most files that one slice looks at; each is opened anew.
const SLICE_FILES_MAX: usize = 16;

/// How far the pass over one replica is.
pub(super) struct Scrub {
    /// Files that are still to be read; the first may be read in part.
    files: VecDeque<FileDescription>,
    part: Part,
    tree: Scan,
}

/// What was read of a file.
#[derive(Default)]
struct Part {
    offset: u64,
    hasher: Box<Xxh3>,
    tail: Vec<u8>,
}

impl Scrub {
    fn new(known: &ReplicaFiles) -> Self {
        let files = known.files.iter().map(|file| file.description.clone()).collect();
        Self { files, part: Part::default(), tree: Scan::new() }
    }

    /// Reads on; `true` at the end of the pass.
    fn step<F: FileDisk, S: StateStore>(
        &mut self,
        (files, store): (&mut F, &S),
        replica: ReplicaId,
        known: &ReplicaFiles,
        step: &mut Step,
    ) -> Result<bool, Failure> {
        if !self.files.is_empty() {
            self.read_files(files, replica, known, step)?;
            return Ok(false);
        }
        let mut slice = Slice::default();
        let is_end = self.tree.slice(store, replica, &mut slice)?;
        slice.report(step);
        self.tree.sessions.clear();
        self.tree.nodes.clear();
        // While a checkpoint is on its way into the tree, the tree stands at none.
        if !is_end || known.inserted != known.footer.header.index {
            return Ok(false);
        }
        if self.tree.digest(&known.footer.header) != known.footer.digest {
            return Err(StoreError("a record of it is not what was written".to_owned()).into());
        }
        Ok(true)
    }

    fn read_files<F: FileDisk>(
        &mut self,
        files: &mut F,
        replica: ReplicaId,
        known: &ReplicaFiles,
        step: &mut Step,
    ) -> Result<(), Damaged> {
        let directory = known.directory(replica);
        let mut left = SLICE_BYTES_MAX;
        for _ in 0..SLICE_FILES_MAX {
            let Some(file) = self.files.front().filter(|_| left > 0) else { return Ok(()) };
            if known.files.iter().any(|have| have.description == *file) {
                let read = self.part.read(files, &format!("{directory}/{}", file.name), file, left)?;
                step.bytes += read;
                left -= read.min(left);
                if self.part.offset < file.bytes {
                    return Ok(());
                }
            }
            self.files.pop_front();
            self.part = Part::default();
        }
        Ok(())
    }

    /// Records are about to be written: those of keys that were read already count as they will be.
    pub(super) fn before_write<S: StateStore>(
        &mut self,
        store: &S,
        replica: ReplicaId,
        changes: &[Change<'_>],
    ) -> Result<(), StoreError> {
        for (key, value) in changes {
            if self.tree.has_passed(key) {
                let old = store.get(replica, key)?;
                self.tree.replace(key, old.as_deref(), *value);
            }
        }
        Ok(())
    }
}

impl Part {
    /// Reads on in a file, and judges it at its end; how many bytes were read.
    fn read<F: FileDisk>(
        &mut self,
        files: &mut F,
        path: &str,
        file: &FileDescription,
        bytes_max: usize,
    ) -> Result<usize, Damaged> {
        let bytes = files.read(path, self.offset, bytes_max).map_err(|error| Damaged(format!("{path}: {error}")))?;
        let hashed = (file.bytes - HASH_BYTES as u64).saturating_sub(self.offset).min(bytes.len() as u64);
        let (hashed, tail) = bytes.split_at(usize::try_from(hashed).unwrap_or(bytes.len()));
        self.hasher.update(hashed);
        self.tail.extend_from_slice(tail);
        self.offset += bytes.len() as u64;
        let is_over = self.offset >= file.bytes || bytes.is_empty();
        let is_whole =
            self.offset == file.bytes && self.hasher.digest128() == file.hash && self.tail == file.hash.to_le_bytes();
        if is_over && !is_whole {
            return Err(Damaged(format!("{path} is not what was written")));
        }
        Ok(bytes.len())
    }
}

/// Looks at a slice of a replica, if its state is proven; if it finds anything wrong, the state is not proven any more.
///
/// # Errors
/// What is wrong.
pub(super) fn scrub<F: FileDisk, S: StateStore>(
    cx: &mut Context<F, S>,
    replica: ReplicaId,
    step: &mut Step,
) -> Result<(), Failure> {
    let Some(known) = cx.replicas.get_mut(&replica).filter(|known| known.is_loaded) else {
        cx.scrubs.remove(&replica);
        return Ok(());
    };
    let pass = cx.scrubs.entry(replica).or_insert_with(|| Scrub::new(known));
    let end = pass.step((&mut cx.files, &cx.store), replica, known, step);
    if !matches!(end, Ok(false)) {
        cx.scrubs.remove(&replica);
    }
    point!(ScrubPassed if matches!(end, Ok(true)));
    end.map(drop).inspect_err(|_| {
        point!(ScrubFoundDamage);
        known.is_loaded = false;
    })
}
