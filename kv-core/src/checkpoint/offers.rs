//! Checkpoints that are being read for peers: their files stay until the stream is done, even if merged meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    checkpoint::{
        chain::names,
        context::ReplicaFiles,
        job::{CheckpointEvent, MANIFEST_FILES_MAX, Manifest},
    },
    disk::{DiskError, FileDisk},
    message::CHUNK_BYTES_MAX,
    types::ReplicaId,
};

/// Most offers at a time; one more fails.
pub const OFFERS_MAX: usize = 16;

/// The files of one stream, by their number in the manifest.
#[derive(Debug)]
struct Offer {
    replica: ReplicaId,
    paths: Vec<String>,
}

/// All offers.
#[derive(Debug, Default)]
pub(super) struct Offers {
    offers: BTreeMap<u64, Offer>,
    /// Files that are no longer needed but by an offer.
    doomed: BTreeSet<String>,
}

impl Offers {
    /// Offers a replica's newest checkpoint.
    pub(super) fn offer(&mut self, stream: u64, replica: ReplicaId, known: Option<&ReplicaFiles>) -> CheckpointEvent {
        let known =
            known.filter(|known| known.is_loaded && !known.files.is_empty() && known.files.len() <= MANIFEST_FILES_MAX);
        let (Some(known), true) = (known, self.offers.len() < OFFERS_MAX) else {
            return CheckpointEvent::OfferFailed { stream };
        };
        let directory = known.directory(replica);
        let paths = names(&known.files).iter().map(|name| format!("{directory}/{name}")).collect();
        self.offers.insert(stream, Offer { replica, paths });
        let header = known.footer.header.clone();
        let manifest = Manifest {
            files: known.files.iter().map(|file| file.description.clone()).collect(),
            index: header.index,
            term: header.term,
            digest: known.footer.digest,
        };
        CheckpointEvent::Offered { stream, manifest, header }
    }

    /// Reads a piece of an offered file. One that can't be read is empty: the stream ends, and nothing else.
    pub(super) fn read<F: FileDisk>(&self, files: &mut F, stream: u64, file: u32, offset: u64) -> CheckpointEvent {
        let path = self.offers.get(&stream).and_then(|offer| offer.paths.get(file as usize));
        let bytes = path.and_then(|path| files.read(path, offset, CHUNK_BYTES_MAX).ok());
        CheckpointEvent::PieceRead { stream, file, offset, bytes: bytes.unwrap_or_default() }
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
                self.doomed.insert(path);
            } else {
                files.remove(&path)?;
            }
        }
        Ok(())
    }
}
