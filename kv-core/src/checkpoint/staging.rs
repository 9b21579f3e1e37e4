//! Gathering a checkpoint from a peer: a directory named by what it is to hold, proven before anybody relies on it.
//!
//! Files that are here already are copied, and proven while they are copied: one that has rotted is fetched. What a stream that
//! broke off has left stays: the next one of the same files goes on in the middle of a file, and one of other files takes over
//! what they share. So a replica has at most one directory that is being filled. What was left is proven with all the rest, before
//! anybody relies on it; if it turns out wrong the directory goes, and the next stream begins anew.
//!
//! A staging directory lives as long as the process, unless the log's install names it: what was never synced may be gone or
//! half there after a loss of power, and to find that out at the end of a stream would cost more than to begin anew.

use std::collections::VecDeque;

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use crate::{
    checkpoint::{
        chain::{chains, staging_directory},
        confirmed::note_confirmed,
        context::{Context, Failure, Progress, SLICE_BYTES_MAX, Step},
        format::{HASH_BYTES, Kind},
        job::{CheckpointEvent, MANIFEST_FILES_MAX, Manifest},
        merge::Merge,
        reader::Damaged,
        writer::parse_file_name,
    },
    disk::{DiskError, DiskErrorKind, FileDisk},
    log::record::StagingId,
    types::{LogIndex, ReplicaId},
};

/// A staging directory of this run.
#[derive(Debug)]
pub(super) struct Staging {
    manifest: Manifest,
    /// Bytes that are there of each file of the manifest, without gaps from its start.
    received: Vec<u64>,
    /// Whether it is synced and proven whole.
    pub(super) is_verified: bool,
}

/// A failure that costs the staging directory, or the process.
fn stage_failure(error: DiskError) -> Failure {
    match error.kind {
        // No room for a peer's files is no reason to stop.
        DiskErrorKind::Full | DiskErrorKind::NotFound => Failure::Files(Damaged(error.message)),
        DiskErrorKind::Io => Failure::Disk(error),
    }
}

/// Throws a staging directory away.
pub(super) fn discard<F: FileDisk, S>(
    cx: &mut Context<F, S>,
    replica: ReplicaId,
    staging: StagingId,
) -> Result<(), DiskError> {
    cx.stagings.remove(&(replica, staging));
    cx.files.remove(&staging_directory(replica, staging))
}

/// Writes a piece where the last one ended; one that belongs elsewhere is not written, but told where the next is to be.
pub(super) fn write_piece<F: FileDisk, S>(
    cx: &mut Context<F, S>,
    (replica, id): (ReplicaId, StagingId),
    (file, offset): (u32, u64),
    bytes: &Bytes,
) -> Result<CheckpointEvent, Failure> {
    let unknown = || Failure::Files(Damaged("no such file is being gathered".to_owned()));
    let staging = cx.stagings.get_mut(&(replica, id)).filter(|staging| !staging.is_verified).ok_or_else(unknown)?;
    let description = staging.manifest.files.get(file as usize).ok_or_else(unknown)?;
    let received = staging.received.get_mut(file as usize).ok_or_else(unknown)?;
    point!(PieceElsewhere if offset != *received);
    if offset == *received {
        let end = offset + bytes.len() as u64;
        if end > description.bytes {
            return Err(Damaged(format!("{} has more bytes than were offered", description.name)).into());
        }
        let path = format!("{}/{}", staging_directory(replica, id), description.name);
        cx.files.write(&path, offset, bytes).map_err(stage_failure)?;
        *received = end;
    }
    Ok(CheckpointEvent::PieceWritten { replica, staging: id, file, next_offset: *received })
}

/// Makes a staging directory ready.
pub(super) struct StageTask {
    replica: ReplicaId,
    manifest: Manifest,
    staging: StagingId,
    next: usize,
    received: Vec<u64>,
    copy: Option<Copy>,
    has_begun: bool,
}

struct Copy {
    from: String,
    to: String,
    offset: u64,
    hasher: Xxh3,
    /// What the file has where its hash should be: that can rot too.
    tail: Vec<u8>,
}

impl StageTask {
    pub(super) fn new(replica: ReplicaId, manifest: Manifest) -> Self {
        let staging = manifest.staging();
        let received = vec![0; manifest.files.len()];
        Self { replica, manifest, staging, next: 0, received, copy: None, has_begun: false }
    }

    pub(super) fn id(&self) -> (ReplicaId, StagingId) {
        (self.replica, self.staging)
    }

    pub(super) fn step<F: FileDisk, S>(
        &mut self,
        cx: &mut Context<F, S>,
        step: &mut Step,
    ) -> Result<Progress, Failure> {
        if !self.has_begun {
            check_manifest(&self.manifest)?;
            self.begin(cx)?;
            self.has_begun = true;
            return Ok(Progress::More);
        }
        if self.copy.is_some() {
            self.copy_on(cx, step)?;
            return Ok(Progress::More);
        }
        let Some(file) = self.manifest.files.get(self.next) else {
            self.staged(cx, step);
            return Ok(Progress::Done);
        };
        let known = cx.replicas.get(&self.replica).filter(|_| self.received[self.next] == 0);
        match known.filter(|known| known.files.iter().any(|have| have.description == *file)) {
            Some(known) => {
                let from = format!("{}/{}", known.directory(self.replica), file.name);
                let to = format!("{}/{}", staging_directory(self.replica, self.staging), file.name);
                self.copy = Some(Copy { from, to, offset: 0, hasher: Xxh3::new(), tail: Vec::new() });
            }
            None => self.next += 1,
        }
        Ok(Progress::More)
    }

    /// Makes the directory, with what an earlier stream left of these files. It is known from here on, so that nobody who looks
    /// through the replica's directory takes it for something that is left over.
    fn begin<F: FileDisk, S>(&mut self, cx: &mut Context<F, S>) -> Result<(), Failure> {
        let directory = staging_directory(self.replica, self.staging);
        let earlier = cx.stagings.remove(&self.id()).filter(|earlier| earlier.manifest == self.manifest);
        match earlier {
            Some(earlier) => self.received = earlier.received,
            None => cx.files.remove(&directory)?,
        }
        cx.files.create_directory(&directory).map_err(stage_failure)?;
        let others = cx.stagings.iter().filter(|((replica, _), other)| *replica == self.replica && !other.is_verified);
        for id in others.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.take_over(cx, id)?;
        }
        let (manifest, received) = (self.manifest.clone(), self.received.clone());
        cx.stagings.insert(self.id(), Staging { manifest, received, is_verified: false });
        Ok(())
    }

    /// Other files were being gathered: what they share with these is moved, the rest goes.
    fn take_over<F: FileDisk, S>(
        &mut self,
        cx: &mut Context<F, S>,
        other: (ReplicaId, StagingId),
    ) -> Result<(), Failure> {
        let Some(old) = cx.stagings.get(&other) else { return Ok(()) };
        let (from, to) = (staging_directory(other.0, other.1), staging_directory(self.replica, self.staging));
        for (file, received) in
            self.manifest.files.iter().zip(&mut self.received).filter(|(_, received)| **received == 0)
        {
            let had = old.manifest.files.iter().zip(&old.received).find(|(had, bytes)| *had == file && **bytes > 0);
            if let Some((_, had)) = had {
                point!(StagedFileTakenOver);
                cx.files
                    .rename(&format!("{from}/{}", file.name), &format!("{to}/{}", file.name))
                    .map_err(stage_failure)?;
                *received = *had;
            }
        }
        // A change of names is durable once both directories are, and one of them is about to go.
        cx.files.sync_directory(&from)?;
        cx.files.sync_directory(&to)?;
        Ok(discard(cx, other.0, other.1)?)
    }

    fn copy_on<F: FileDisk, S>(&mut self, cx: &mut Context<F, S>, step: &mut Step) -> Result<(), Failure> {
        let (Some(copy), Some(file)) = (&mut self.copy, self.manifest.files.get(self.next)) else { return Ok(()) };
        let bytes = cx.files.read(&copy.from, copy.offset, SLICE_BYTES_MAX).unwrap_or_default();
        let hashed = file.bytes - HASH_BYTES as u64;
        let before_hash = hashed.saturating_sub(copy.offset).min(bytes.len() as u64);
        let (hashed, tail) = bytes.split_at(usize::try_from(before_hash).unwrap_or(bytes.len()));
        copy.hasher.update(hashed);
        copy.tail.extend_from_slice(tail);
        if !bytes.is_empty() {
            cx.files.write(&copy.to, copy.offset, &bytes).map_err(stage_failure)?;
        }
        copy.offset += bytes.len() as u64;
        step.bytes += bytes.len();
        let is_whole =
            copy.offset == file.bytes && copy.hasher.digest128() == file.hash && copy.tail == file.hash.to_le_bytes();
        point!(FileWasHere if is_whole);
        if is_whole {
            self.received[self.next] = file.bytes;
        } else if bytes.is_empty() || copy.offset >= file.bytes {
            point!(FileHereWasRotten);
            cx.files.remove(&copy.to)?;
        } else {
            return Ok(());
        }
        self.copy = None;
        self.next += 1;
        Ok(())
    }

    fn staged<F, S>(&mut self, cx: &mut Context<F, S>, step: &mut Step) {
        let lacking = self.manifest.files.iter().zip(&self.received).zip(0..);
        let lacking = lacking.filter(|((file, received), _)| file.bytes != **received);
        let lacking = lacking.map(|((_, received), number)| (number, *received)).collect();
        let (manifest, received) = (self.manifest.clone(), std::mem::take(&mut self.received));
        cx.stagings.insert(self.id(), Staging { manifest, received, is_verified: false });
        step.events.push(CheckpointEvent::Staged { replica: self.replica, staging: self.staging, lacking });
    }
}

/// A base, then deltas, each above the one before, up to the index of the checkpoint.
fn check_manifest(manifest: &Manifest) -> Result<(), Damaged> {
    let bad = |what: &str| Err(Damaged(format!("the list of files {what}")));
    if manifest.files.is_empty() || manifest.files.len() > MANIFEST_FILES_MAX {
        return bad("is empty or too long");
    }
    let mut last: Option<LogIndex> = None;
    for file in &manifest.files {
        match parse_file_name(&file.name) {
            Some((Kind::Base, index)) if last.is_none() => last = Some(index),
            Some((Kind::Delta, index)) if last.is_some_and(|last| last < index) => last = Some(index),
            _ => return bad("is not a base and deltas that rise"),
        }
        if file.bytes <= HASH_BYTES as u64 {
            return bad("has a file that can't be one");
        }
    }
    if last == Some(manifest.index) { Ok(()) } else { bad("does not end at its index") }
}

/// Syncs a staging directory and proves it.
pub(super) struct VerifyTask {
    replica: ReplicaId,
    staging: StagingId,
    phase: Phase,
}

enum Phase {
    Begin,
    Sync(VecDeque<String>),
    Prove(Merge),
}

impl VerifyTask {
    pub(super) fn new(replica: ReplicaId, staging: StagingId) -> Self {
        Self { replica, staging, phase: Phase::Begin }
    }

    pub(super) fn id(&self) -> (ReplicaId, StagingId) {
        (self.replica, self.staging)
    }

    pub(super) fn step<F: FileDisk, S>(
        &mut self,
        cx: &mut Context<F, S>,
        step: &mut Step,
    ) -> Result<Progress, Failure> {
        let Some(staging) = cx.stagings.get(&self.id()) else {
            return Err(Damaged("no such files are being gathered".to_owned()).into());
        };
        let directory = staging_directory(self.replica, self.staging);
        let names: VecDeque<String> = staging.manifest.files.iter().map(|file| file.name.clone()).collect();
        match &mut self.phase {
            Phase::Begin => {
                let mut sizes = staging.manifest.files.iter().zip(&staging.received);
                if !sizes.all(|(file, received)| file.bytes == *received) {
                    return Err(Damaged("files are lacking".to_owned()).into());
                }
                self.phase = Phase::Sync(names);
            }
            Phase::Sync(left) => match left.pop_front() {
                Some(name) => cx.files.sync(&format!("{directory}/{name}"))?,
                None => {
                    cx.files.sync_directory(&directory)?;
                    self.phase = Phase::Prove(open_as_offered(&mut cx.files, &directory, &staging.manifest)?);
                }
            },
            Phase::Prove(merge) => {
                let mut slice = cx.slice();
                let is_end = merge.slice(&mut cx.files, &mut slice, &mut Vec::new())?;
                slice.report(step);
                if is_end {
                    self.proven(cx, step)?;
                    return Ok(Progress::Done);
                }
            }
        }
        Ok(Progress::More)
    }

    /// Only a confirmed checkpoint is ever given to others: it is so here too, as soon as these are the replica's files.
    fn proven<F: FileDisk, S>(&mut self, cx: &mut Context<F, S>, step: &mut Step) -> Result<(), Failure> {
        let Phase::Prove(merge) = &self.phase else { return Ok(()) };
        let newest = merge.readers().last().expect("an empty list of files was refused");
        let header = newest.end().footer.footer.header.clone();
        let staging = cx.stagings.get_mut(&(self.replica, self.staging)).expect("it was there when the step began");
        if merge.digest(&header) != staging.manifest.digest {
            return Err(Damaged("the files do not add up to their digest".to_owned()).into());
        }
        let directory = staging_directory(self.replica, self.staging);
        let confirmed = (staging.manifest.index, staging.manifest.digest);
        note_confirmed(&mut cx.files, &directory, confirmed, |_| false).map_err(stage_failure)?;
        staging.is_verified = true;
        step.events.push(CheckpointEvent::Verified { replica: self.replica, staging: self.staging, header });
        Ok(())
    }
}

/// Opens files that are exactly those of a manifest, each standing on the one before.
fn open_as_offered<F: FileDisk>(files: &mut F, staging: &str, manifest: &Manifest) -> Result<Merge, Failure> {
    let chain = chains(files, staging)?.chains.into_iter().next();
    let chain = chain.ok_or_else(|| Damaged("the files do not stand on each other".to_owned()))?;
    let header = &chain.footer.header;
    let is_offered = chain.files.iter().map(|file| &file.description).eq(&manifest.files)
        && (header.index, header.term) == (manifest.index, manifest.term)
        && chain.footer.digest == manifest.digest;
    if !is_offered {
        return Err(Damaged("the files are not those that were offered".to_owned()).into());
    }
    Ok(Merge::open(files, staging, &chain.names())?)
}
