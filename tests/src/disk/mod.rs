//! A simulated disk that loses, tears, rots and fills up, as disks do, and does so again for the same seed.
//!
//! Its fault model
//! ---------------
//! - A sector of 512 bytes is written whole or not at all. What was written and not synced survives a crash of the power in
//!   any subset of its sectors; what was synced survives. Names likewise: any subset of the changes that no sync of their
//!   directory has followed.
//! - A failed sync marks the pages clean: the cache goes on showing them, and no later sync writes them.
//! - A failed write leaves some of its first sectors in the cache. A failed read tells nothing. A disk may be full.
//! - A failed change of names (a file made, renamed, removed) did not happen; a failed sync of a directory leaves its changes as
//!   undecided as they were.
//! - A disk may lie: a sync returns Ok, and nothing is durable by it.
//! - Damage, on request: a flipped bit, a zeroed sector, a sector with what belongs elsewhere or was there before (a write
//!   that went astray, or never arrived), a lost file.
//! - The power can go between any two steps of a call ([`SimDisk::power_off_after`]), and an [`image`] of the disk can be
//!   taken before each of them.
//!
//! *Left out*: a sector that is half written (a disk of today writes 512 bytes whole), a read that is wrong once and right
//! the next time, and a file system that loses more than the names and sectors of which no sync was told as done.
//!
//! A handle is cheap to clone; all handles of one [`SimDisk`] are one disk. Randomness is passed in. Nothing here takes
//! time: the counters say what there is to charge for.

mod file;
mod files;
pub mod image;
mod log;
mod store;
mod tree;

use std::{cell::RefCell, collections::BTreeSet, rc::Rc};

use kv_core::disk::{DiskError, DiskErrorKind};

use self::{file::SimFile, tree::Tree};

pub use self::{file::SECTOR_BYTES, files::SimFileDisk, log::SimLogDisk, store::MemoryStore};

/// The disk of one node.
#[derive(Clone, Debug)]
pub struct SimDisk {
    inner: Rc<RefCell<Inner>>,
}

/// What was done to a disk, to charge time for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskCounters {
    /// Writes.
    pub writes: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Syncs of files and of directories.
    pub syncs: u64,
    /// Reads.
    pub reads: u64,
    /// Bytes read.
    pub bytes_read: u64,
}

#[derive(Debug)]
struct Inner {
    tree: Tree,
    counters: DiskCounters,
    fail_sync: bool,
    fail_write: bool,
    fail_segment: bool,
    /// Changes of names and syncs of directories until one of them fails.
    fail_names_after: Option<u64>,
    bytes_max: Option<u64>,
    /// Changing steps until the power goes.
    steps_left: Option<u64>,
    fail_read: bool,
    lies: bool,
    /// Changing steps that were made, ever.
    steps: u64,
    /// The step before which the power goes, counted from the first ever.
    off_at: Option<u64>,
    /// The disk before each changing step, if that is recorded.
    images: Option<Vec<image::Image>>,
}

impl Default for SimDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl SimDisk {
    /// An empty disk without faults.
    #[must_use]
    pub fn new() -> Self {
        let inner = Inner {
            tree: Tree::new(),
            counters: DiskCounters::default(),
            fail_sync: false,
            fail_write: false,
            fail_segment: false,
            fail_names_after: None,
            bytes_max: None,
            steps_left: None,
            fail_read: false,
            lies: false,
            steps: 0,
            off_at: None,
            images: None,
        };
        Self { inner: Rc::new(RefCell::new(inner)) }
    }

    /// The directory of the log on this disk.
    #[must_use]
    pub fn log(&self) -> SimLogDisk {
        SimLogDisk::new(self.clone())
    }

    /// The directory of the files on this disk.
    #[must_use]
    pub fn files(&self) -> SimFileDisk {
        SimFileDisk::new(self.clone())
    }

    /// Another disk with the same content, caches and faults. Of it no images are recorded.
    #[must_use]
    pub fn fork(&self) -> Self {
        let inner = self.inner.borrow();
        let fork = Inner { tree: inner.tree.clone(), images: None, ..*inner };
        Self { inner: Rc::new(RefCell::new(fork)) }
    }

    /// What was done since the counters were taken the last time.
    pub fn take_counters(&self) -> DiskCounters {
        std::mem::take(&mut self.inner.borrow_mut().counters)
    }

    /// The power goes and comes back: any subset of what is not synced is lost.
    pub fn crash(&self, random: &mut fastrand::Rng) {
        // Often all or nothing survives, so that long runs of sectors do so too.
        let (name_percent, sector_percent) = (chance(random), chance(random));
        let mut random_name = random.fork();
        self.crash_keeping(|| random_name.u8(0..100) < name_percent, |_, _| random.u8(0..100) < sector_percent);
    }

    /// The power goes and comes back, and of what is not synced that survives which is said: changes of names in their
    /// order, and sectors of files.
    pub fn crash_keeping(&self, keep_name: impl FnMut() -> bool, keep_sector: impl FnMut(&str, u64) -> bool) {
        let mut inner = self.inner.borrow_mut();
        inner.tree.crash(keep_name, keep_sector);
        inner.revive();
    }

    /// The process is killed, and the power stays: the caches go on showing what they showed.
    pub fn kill(&self) {
        self.inner.borrow_mut().revive();
    }

    /// Sectors that a crash may lose, with the paths of their files.
    #[must_use]
    pub fn unsynced(&self) -> Vec<(String, u64)> {
        self.inner.borrow().tree.unsynced()
    }

    /// The next sync of a file fails.
    pub fn fail_next_sync(&self) {
        self.inner.borrow_mut().fail_sync = true;
    }

    /// The next write fails, half of its sectors done.
    pub fn fail_next_write(&self) {
        self.inner.borrow_mut().fail_write = true;
    }

    /// The write that makes the next segment of the log fails, half of it done.
    pub fn fail_next_segment(&self) {
        self.inner.borrow_mut().fail_segment = true;
    }

    /// After so many more changes of names and syncs of directories one of these fails.
    pub fn fail_names_after(&self, count: u64) {
        self.inner.borrow_mut().fail_names_after = Some(count);
    }

    /// The next read of a file fails.
    pub fn fail_next_read(&self) {
        self.inner.borrow_mut().fail_read = true;
    }

    /// From now on a sync returns Ok and does nothing, or is honest again.
    pub fn lie_about_syncs(&self, lies: bool) {
        self.inner.borrow_mut().lies = lies;
    }

    /// Most bytes of all files together; past it the disk is full.
    pub fn set_bytes_max(&self, bytes_max: Option<u64>) {
        self.inner.borrow_mut().bytes_max = bytes_max;
    }

    /// Free bytes, if there is a bound.
    #[must_use]
    pub fn bytes_free(&self) -> Option<u64> {
        let inner = self.inner.borrow();
        inner.bytes_max.map(|bytes_max| bytes_max.saturating_sub(inner.bytes_used()))
    }

    /// After this many more changing steps (writes, syncs, changes of names) every call fails, until [`SimDisk::crash`] or
    /// [`SimDisk::kill`].
    pub fn power_off_after(&self, steps: u64) {
        self.inner.borrow_mut().steps_left = Some(steps);
    }

    /// How many more changing steps there are until the power goes, if it is to go.
    #[must_use]
    pub fn steps_left(&self) -> Option<u64> {
        self.inner.borrow().steps_left
    }

    /// Whether the power has gone.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.inner.borrow().steps_left == Some(0)
    }

    /// Paths of all files, sorted: the log's under `log/`, the others under `files/`.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        self.inner.borrow().tree.paths()
    }

    /// A file's bytes, as a process sees them.
    #[must_use]
    pub fn content(&self, path: &str) -> Option<Vec<u8>> {
        self.inner.borrow().tree.file(path).map(|file| file.content().to_vec())
    }

    /// Damage: the file has these bytes, as if it had always had them.
    pub fn replace(&self, path: &str, bytes: Vec<u8>) {
        self.damage(path, |file| file.replace(bytes));
    }

    /// Damage: one bit of a file is the other.
    pub fn flip_bit(&self, path: &str, bit: u64) {
        let offset = usize::try_from(bit / 8).unwrap_or(usize::MAX);
        self.damage(path, |file| file.flip(offset, 1 << (bit % 8)));
    }

    /// Damage: one sector of a file is zeros.
    pub fn zero_sector(&self, path: &str, sector: u64) {
        self.damage(path, |file| file.zero_sector(sector));
    }

    /// Damage: one sector of a file holds these bytes, which belong elsewhere or were there before.
    pub fn misplace_sector(&self, path: &str, sector: u64, bytes: &[u8]) {
        self.damage(path, |file| file.misplace(sector, bytes));
    }

    /// Damage: the file is gone.
    pub fn lose_file(&self, path: &str) {
        let mut inner = self.inner.borrow_mut();
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        if inner.tree.remove(path).is_some()
            && let Some(parent) = inner.tree.find(parent)
        {
            inner.tree.sync_directory(parent);
        }
    }

    /// Damage drawn by chance in one of the files whose paths begin so: a flipped bit or a zeroed sector; the path of the
    /// file, if there was one to damage.
    pub fn damage_any(&self, prefix: &str, random: &mut fastrand::Rng) -> Option<String> {
        let mut paths = self.paths();
        paths.retain(|path| path.starts_with(prefix) && self.content(path).is_some_and(|bytes| !bytes.is_empty()));
        let path = random.choice(paths)?;
        let bytes = self.content(&path)?.len() as u64;
        if random.bool() {
            self.flip_bit(&path, random.u64(0..bytes * 8));
        } else {
            self.zero_sector(&path, random.u64(0..bytes.div_ceil(SECTOR_BYTES as u64)));
        }
        Some(path)
    }

    fn damage(&self, path: &str, how: impl FnOnce(&mut SimFile)) {
        if let Some(file) = self.inner.borrow_mut().tree.file_mut(path) {
            how(file);
        }
    }
}

impl Inner {
    fn revive(&mut self) {
        (self.fail_sync, self.fail_write, self.fail_read, self.fail_segment) = (false, false, false, false);
        (self.fail_names_after, self.steps_left) = (None, None);
    }

    /// One changing step; fails if the power is off.
    fn step(&mut self) -> Result<(), DiskError> {
        if self.off_at == Some(self.steps) {
            (self.off_at, self.steps_left) = (None, Some(0));
        }
        if self.steps_left != Some(0) {
            self.steps += 1;
            if let Some(images) = &mut self.images {
                images.push(image::Image::new(&self.tree));
            }
        }
        match &mut self.steps_left {
            Some(0) => Err(io("the power is off")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Whether the change of names or the sync of a directory that is about to be made fails.
    fn fail_names(&mut self, path: &str) -> Result<(), DiskError> {
        match &mut self.fail_names_after {
            Some(0) => {
                self.fail_names_after = None;
                Err(io(format!("{path}: the directory can't be written")))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn bytes_used(&self) -> u64 {
        let paths = self.tree.paths();
        paths.iter().filter_map(|path| self.tree.file(path)).map(|file| file.content().len() as u64).sum()
    }

    /// Makes a directory with its parents, and syncs their names unless they are among those known to be durable.
    fn make_directory(&mut self, path: &str, durable: &mut BTreeSet<String>) -> Result<(), DiskError> {
        let mut done = String::new();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let parent = done.clone();
            done = if done.is_empty() { name.to_owned() } else { format!("{done}/{name}") };
            if self.tree.find(&done).is_none() {
                self.step()?;
                self.fail_names(&done)?;
                self.tree.make(&done, true).ok_or_else(|| not_found(&done))?;
            } else if durable.contains(&done) {
                continue;
            }
            self.sync_directory(&parent)?;
            durable.insert(done.clone());
        }
        Ok(())
    }

    fn write(&mut self, path: &str, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.step()?;
        if self.tree.find(path).is_none() {
            self.fail_names(path)?;
            self.tree.make(path, false).ok_or_else(|| not_found(path))?;
        }
        self.counters.writes += 1;
        self.counters.bytes_written += bytes.len() as u64;
        let size = self.tree.file(path).ok_or_else(|| not_found(path))?.content().len() as u64;
        let growth = (offset + bytes.len() as u64).saturating_sub(size);
        if growth > 0 && self.bytes_max.is_some_and(|bytes_max| self.bytes_used() + growth > bytes_max) {
            return Err(DiskError::new(DiskErrorKind::Full, format!("{path}: no space left")));
        }
        let failed = std::mem::take(&mut self.fail_write);
        // The kernel takes whole pages or none: a failed write ends between two sectors.
        let sector = SECTOR_BYTES as u64;
        let half = ((offset + bytes.len() as u64 / 2) / sector * sector).saturating_sub(offset);
        let written =
            if failed { &bytes[..usize::try_from(half).map_or(0, |half| half.min(bytes.len()))] } else { bytes };
        let file = self.tree.file_mut(path).ok_or_else(|| not_found(path))?;
        file.write(usize::try_from(offset).expect("simulated files are small"), written);
        if failed { Err(io(format!("{path}: the write failed"))) } else { Ok(()) }
    }

    fn sync(&mut self, path: &str) -> Result<(), DiskError> {
        self.step()?;
        self.counters.syncs += 1;
        let failed = std::mem::take(&mut self.fail_sync);
        let file = self.tree.file_mut(path).ok_or_else(|| not_found(path))?;
        if failed {
            file.fail_sync();
            return Err(io(format!("{path}: the sync failed")));
        }
        if !self.lies {
            file.sync();
        }
        Ok(())
    }

    fn sync_directory(&mut self, path: &str) -> Result<(), DiskError> {
        self.step()?;
        self.counters.syncs += 1;
        self.fail_names(path)?;
        let inode = self.tree.find(path).ok_or_else(|| not_found(path))?;
        if !self.lies {
            self.tree.sync_directory(inode);
        }
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError> {
        self.step()?;
        self.fail_names(from)?;
        self.tree.rename(from, to).ok_or_else(|| not_found(from))
    }

    fn remove(&mut self, path: &str) -> Result<(), DiskError> {
        self.step()?;
        self.fail_names(path)?;
        self.tree.remove(path).ok_or_else(|| not_found(path))
    }

    /// A file's bytes, for reading.
    fn content(&mut self, path: &str) -> Result<&[u8], DiskError> {
        if self.steps_left == Some(0) {
            return Err(io("the power is off"));
        }
        if std::mem::take(&mut self.fail_read) {
            return Err(io(format!("{path}: the read failed")));
        }
        Ok(self.tree.file(path).ok_or_else(|| not_found(path))?.content())
    }

    fn count_read(&mut self, bytes: usize) {
        self.counters.reads += 1;
        self.counters.bytes_read += bytes as u64;
    }
}

/// What a disk says when it is made to fail, and never otherwise.
const FAULTS: [&str; 6] = [
    "the power is off",
    "the write failed",
    "the sync failed",
    "the read failed",
    "the directory can't be written",
    "no space left",
];

/// Whether what a process says of its end names a fault that its disk was made to have.
#[must_use]
pub fn names_a_fault(reason: &str) -> bool {
    FAULTS.iter().any(|fault| reason.contains(fault))
}

/// Percent of what survives a crash.
fn chance(random: &mut fastrand::Rng) -> u8 {
    match random.u8(0..4) {
        0 => 0,
        1 => 100,
        _ => random.u8(1..100),
    }
}

fn io(message: impl Into<String>) -> DiskError {
    DiskError::new(DiskErrorKind::Io, message)
}

fn not_found(path: &str) -> DiskError {
    DiskError::new(DiskErrorKind::NotFound, format!("{path}: no such file"))
}
