//! Images of a disk, one before each of its changing steps, and the states in which a loss of power can leave each.
//!
//! What is undecided in an image: changes of names that no sync of their directory has followed, and sectors that were
//! written and not synced and whose loss would show. Any subset of them may survive. An image costs little: files share their
//! bytes until one of them is written.

use super::{SimDisk, tree::Tree};

/// A disk as it was at one moment, caches included.
#[derive(Clone, Debug)]
pub struct Image {
    tree: Tree,
}

/// What a loss of power decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Undecided {
    /// Number of changes of names, in their order.
    pub names: usize,
    /// Sectors, with the paths of their files.
    pub sectors: Vec<(String, u64)>,
}

impl Undecided {
    /// How many decisions there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.names + self.sectors.len()
    }
}

impl Image {
    pub(super) fn new(tree: &Tree) -> Self {
        Self { tree: tree.clone() }
    }

    /// What a loss of power at this moment decides.
    #[must_use]
    pub fn undecided(&self) -> Undecided {
        let (names, sectors) = self.tree.undecided();
        Undecided { names, sectors }
    }

    /// A disk after a loss of power at this moment: of what is undecided, in the order of [`Undecided`], that survives which
    /// `keep` says.
    #[must_use]
    pub fn after_power_loss(&self, undecided: &Undecided, keep: impl Fn(usize) -> bool) -> SimDisk {
        let disk = self.disk();
        let mut name = 0;
        let keep_name = || {
            name += 1;
            keep(name - 1)
        };
        let mut at = 0;
        let keep_sector = |path: &str, sector: u64| {
            // Sectors come file by file, but files in another order; those that would not show are not listed.
            let found = |(p, s): &(String, u64)| p == path && *s == sector;
            if !undecided.sectors.get(at).is_some_and(found) {
                match undecided.sectors.iter().position(found) {
                    Some(position) => at = position,
                    None => return true,
                }
            }
            at += 1;
            keep(undecided.names + at - 1)
        };
        disk.crash_keeping(keep_name, keep_sector);
        disk
    }

    /// A disk as if only the process had been killed: the caches go on showing what they showed.
    #[must_use]
    pub fn disk(&self) -> SimDisk {
        let disk = SimDisk::new();
        disk.inner.borrow_mut().tree = self.tree.clone();
        disk
    }
}

impl SimDisk {
    /// From now on an image is taken before each changing step.
    pub fn record_images(&self) {
        self.inner.borrow_mut().images.get_or_insert_default();
    }

    /// How many images were taken.
    #[must_use]
    pub fn images_taken(&self) -> usize {
        self.inner.borrow().images.as_ref().map_or(0, Vec::len)
    }

    /// Ends the recording: the images in their order, the present state last.
    #[must_use]
    pub fn take_images(&self) -> Vec<Image> {
        let mut inner = self.inner.borrow_mut();
        let mut images = inner.images.take().unwrap_or_default();
        images.push(Image::new(&inner.tree));
        images
    }

    /// The power goes before the step of this number, counted from the disk's first ever.
    pub fn power_off_at(&self, step: u64) {
        self.inner.borrow_mut().off_at = Some(step);
    }
}
