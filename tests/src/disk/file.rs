//! The bytes of one simulated file: what is on the platter, and what the page cache shows.
//!
//! Copies share their bytes until one of them is written, so that thousands of images of one disk cost little.

use std::{collections::BTreeSet, sync::Arc};

/// What a disk writes whole or not at all, in bytes.
pub const SECTOR_BYTES: usize = 512;

/// A file in two layers. Every write goes to the cache; a sync brings the dirty sectors to the platter.
#[derive(Clone, Debug, Default)]
pub(crate) struct SimFile {
    durable: Arc<Vec<u8>>,
    cached: Arc<Vec<u8>>,
    /// Written since the last sync.
    dirty: BTreeSet<u64>,
    /// Marked clean by a sync that failed: the cache shows them, no later sync writes them.
    ghosts: BTreeSet<u64>,
}

impl SimFile {
    pub(crate) fn content(&self) -> &[u8] {
        &self.cached
    }

    pub(crate) fn write(&mut self, offset: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len();
        let cached = Arc::make_mut(&mut self.cached);
        if cached.len() < end {
            cached.resize(end, 0);
        }
        cached[offset..end].copy_from_slice(bytes);
        for sector in offset / SECTOR_BYTES..=(end - 1) / SECTOR_BYTES {
            self.dirty.insert(sector as u64);
            self.ghosts.remove(&(sector as u64));
        }
    }

    pub(crate) fn sync(&mut self) {
        for sector in std::mem::take(&mut self.dirty) {
            self.bring(sector);
        }
        // A sync also makes the length durable, which grew by writes only.
        if self.durable.len() != self.cached.len() {
            Arc::make_mut(&mut self.durable).resize(self.cached.len(), 0);
        }
    }

    /// What Linux does: the error is told once, and the pages count as clean from then on.
    pub(crate) fn fail_sync(&mut self) {
        self.ghosts.append(&mut self.dirty);
    }

    /// Sectors of which it is not known whether they are on the platter.
    pub(crate) fn unsynced(&self) -> impl Iterator<Item = u64> {
        self.dirty.union(&self.ghosts).copied()
    }

    /// Those of them whose loss would show: the platter holds something else there.
    pub(crate) fn unsynced_and_other(&self) -> impl Iterator<Item = u64> {
        self.unsynced().filter(|sector| {
            let part = |bytes: &[u8]| {
                let start = (*sector as usize * SECTOR_BYTES).min(bytes.len());
                bytes[start..(start + SECTOR_BYTES).min(bytes.len())].to_vec()
            };
            part(&self.durable) != part(&self.cached)
        })
    }

    /// The power went: of the unsynced sectors those are on the platter that `keep` says.
    pub(crate) fn crash(&mut self, mut keep: impl FnMut(u64) -> bool) {
        let unsynced: Vec<u64> = self.unsynced().collect();
        for sector in unsynced {
            if keep(sector) {
                self.bring(sector);
            }
        }
        self.dirty.clear();
        self.ghosts.clear();
        self.cached.clone_from(&self.durable);
    }

    /// Damage: both layers get these bytes, as if they had always been there.
    pub(crate) fn replace(&mut self, bytes: Vec<u8>) {
        let bytes = Arc::new(bytes);
        *self = Self { durable: bytes.clone(), cached: bytes, ..Self::default() };
    }

    /// Damage of one byte, on the platter and in the cache.
    pub(crate) fn flip(&mut self, offset: usize, mask: u8) {
        for layer in [&mut self.durable, &mut self.cached] {
            if let Some(byte) = Arc::make_mut(layer).get_mut(offset) {
                *byte ^= mask;
            }
        }
    }

    /// Damage of one sector, on the platter and in the cache.
    pub(crate) fn zero_sector(&mut self, sector: u64) {
        let start = usize::try_from(sector).unwrap_or(usize::MAX).saturating_mul(SECTOR_BYTES);
        for layer in [&mut self.durable, &mut self.cached] {
            let end = start.saturating_add(SECTOR_BYTES).min(layer.len());
            if start < end {
                Arc::make_mut(layer)[start..end].fill(0);
            }
        }
    }

    /// Damage of one sector, on the platter and in the cache: it holds these bytes.
    pub(crate) fn misplace(&mut self, sector: u64, bytes: &[u8]) {
        let start = usize::try_from(sector).unwrap_or(usize::MAX).saturating_mul(SECTOR_BYTES);
        for layer in [&mut self.durable, &mut self.cached] {
            let end = start.saturating_add(SECTOR_BYTES.min(bytes.len())).min(layer.len());
            if start < end {
                Arc::make_mut(layer)[start..end].copy_from_slice(&bytes[..end - start]);
            }
        }
    }

    fn bring(&mut self, sector: u64) {
        let start = sector as usize * SECTOR_BYTES;
        let end = (start + SECTOR_BYTES).min(self.cached.len());
        let durable = Arc::make_mut(&mut self.durable);
        if durable.len() < end {
            durable.resize(end, 0);
        }
        durable[start..end].copy_from_slice(&self.cached[start..end]);
    }
}
