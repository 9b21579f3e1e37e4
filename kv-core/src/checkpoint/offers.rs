//! Checkpoints that are being read for peers: their files stay until the stream is done, even if merged meanwhile.
//!
//! What is read is hashed on the way. A file that rotted since it was loaded would be sent again and again, and refused by its
//! receiver each time, if the sender did not find out by itself that it is the one whose disk is at fault.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use crate::{
    checkpoint::{
        chain::names,
        context::ReplicaFiles,
        job::{CheckpointEvent, MANIFEST_FILES_MAX, Manifest},
        reader::read_end,
    },
    disk::{DiskError, FileDisk},
    message::CHUNK_BYTES_MAX,
    state::record::Footer,
    types::{ReplicaId, ShardId},
};

/// Most offers at a time; one more fails.
pub const OFFERS_MAX: usize = 16;

/// The files of one stream, by their number in the manifest.
#[derive(Debug)]
struct Offer {
    shard: ShardId,
    replica: ReplicaId,
    paths: Vec<String>,
    reading: Option<Reading>,
}

/// A file that is read from its start, piece by piece.
struct Reading {
    file: u32,
    offset: u64,
    hasher: Box<Xxh3>,
}

/// An offered file is not what it was when it was loaded.
#[derive(Debug)]
pub(super) struct Rotten {
    pub(super) shard: ShardId,
    pub(super) replica: ReplicaId,
    pub(super) reason: String,
}

/// The hash at the end of a file, which covers all bytes before it.
const HASH_BYTES: u64 = 16;

/// All offers.
#[derive(Debug)]
pub(super) struct Offers {
    /// Most bytes that are read in one piece.
    pub(super) chunk_bytes_max: usize,
    offers: BTreeMap<u64, Offer>,
    /// Files that are no longer needed but by an offer.
    doomed: BTreeSet<String>,
}

impl Default for Offers {
    fn default() -> Self {
        Self { chunk_bytes_max: CHUNK_BYTES_MAX, offers: BTreeMap::new(), doomed: BTreeSet::new() }
    }
}

impl Offers {
    /// Offers a replica's newest confirmed checkpoint. One that no majority agrees with never leaves the node: a wrong state
    /// that spreads could outvote the right one.
    pub(super) fn offer<F: FileDisk>(
        &mut self,
        disk: &mut F,
        stream: u64,
        (shard, replica): (ShardId, ReplicaId),
        known: Option<&ReplicaFiles>,
    ) -> CheckpointEvent {
        let failed = CheckpointEvent::OfferFailed { stream };
        let Some(known) = known.filter(|known| known.is_loaded && self.offers.len() < OFFERS_MAX) else {
            return failed;
        };
        let files = if mutant!("M1") { &known.files } else { known.confirmed_files() };
        let (Some(newest), true) = (files.last(), files.len() <= MANIFEST_FILES_MAX) else { return failed };
        let directory = known.directory(replica);
        // One that rotted meanwhile is found by the receiver, or here; the replica itself finds it when it loads or merges.
        let Ok(end) = read_end(disk, &directory, &newest.description.name) else { return failed };
        let Footer { header, digest } = end.footer.footer;
        if end.description != newest.description {
            return failed;
        }
        let paths = names(files).iter().map(|name| format!("{directory}/{name}")).collect();
        self.offers.insert(stream, Offer { shard, replica, paths, reading: None });
        let files = files.iter().map(|file| file.description.clone()).collect();
        let manifest = Manifest { files, index: header.index, term: header.term, digest };
        CheckpointEvent::Offered { stream, manifest, header }
    }

    /// Reads a piece of an offered file. One that can't be read is empty, and the stream ends. With it, if that shows now, what
    /// is wrong with the file.
    pub(super) fn read<F: FileDisk>(
        &mut self,
        files: &mut F,
        stream: u64,
        file: u32,
        offset: u64,
    ) -> (CheckpointEvent, Option<Rotten>) {
        let chunk_bytes_max = self.chunk_bytes_max;
        let offer = self.offers.get_mut(&stream);
        let read = offer.and_then(|offer| offer.read(files, (file, offset), chunk_bytes_max));
        let (bytes, rotten) = read.unwrap_or_default();
        (CheckpointEvent::PieceRead { stream, file, offset, bytes }, rotten)
    }

    /// Ends an offer, and removes what it alone had kept.
    pub(super) fn release<F: FileDisk>(&mut self, files: &mut F, stream: u64) -> Result<(), DiskError> {
        self.offers.remove(&stream);
        let doomed = std::mem::take(&mut self.doomed);
        self.remove_unless_offered(files, doomed)
    }

    /// Ends all offers of a replica, whose files are about to be looked through.
    pub(super) fn drop_replica(&mut self, replica: ReplicaId) {
        self.offers.retain(|_, offer| offer.replica != replica);
    }

    /// Removes files, those that are offered as soon as they no longer are.
    pub(super) fn remove_unless_offered<F: FileDisk>(
        &mut self,
        files: &mut F,
        paths: impl IntoIterator<Item = String>,
    ) -> Result<(), DiskError> {
        for path in paths {
            if self.offers.values().any(|offer| offer.paths.contains(&path)) {
                point!(FileKeptForAnOffer);
                self.doomed.insert(path);
            } else {
                files.remove(&path)?;
            }
        }
        Ok(())
    }
}

impl Offer {
    /// A piece of a file, and what is wrong with the file if that shows by this piece; `None` if there is no such file.
    fn read<F: FileDisk>(
        &mut self,
        files: &mut F,
        (file, offset): (u32, u64),
        bytes_max: usize,
    ) -> Option<(Bytes, Option<Rotten>)> {
        let path = self.paths.get(file as usize)?;
        let rotten = |what: &str| {
            let reason = format!("{path} {what}");
            Some(Rotten { shard: self.shard, replica: self.replica, reason })
        };
        let (Ok(Some(size)), Ok(bytes)) = (files.size(path), files.read(path, offset, bytes_max)) else {
            return Some((Bytes::new(), rotten("was offered and can't be read")));
        };
        if offset == 0 {
            self.reading = Some(Reading { file, offset: 0, hasher: Box::default() });
        }
        let next = self.reading.take().filter(|reading| reading.file == file && reading.offset == offset);
        let Some(mut reading) = next else { return Some((bytes, None)) };
        let hashed = size.saturating_sub(HASH_BYTES).saturating_sub(offset).min(bytes.len() as u64);
        reading.hasher.update(&bytes[..usize::try_from(hashed).map_or(0, |hashed| hashed)]);
        reading.offset += bytes.len() as u64;
        if reading.offset < size {
            self.reading = Some(reading);
            return Some((bytes, None));
        }
        let stated = files.read(path, size.saturating_sub(HASH_BYTES), HASH_BYTES as usize).unwrap_or_default();
        let is_whole = stated[..] == reading.hasher.digest128().to_le_bytes();
        let rotten = if is_whole { None } else { rotten("was offered and is damaged") };
        Some((bytes, rotten))
    }
}

impl std::fmt::Debug for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reading").field("file", &self.file).field("offset", &self.offset).finish_non_exhaustive()
    }
}
