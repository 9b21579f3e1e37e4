//! Names on the simulated disk: directories whose changes are lost by a crash unless the directory was synced.

use std::collections::{BTreeMap, BTreeSet};

use super::file::SimFile;

/// The number of a file or a directory, whatever its names.
pub(crate) type Inode = u64;
const ROOT: Inode = 0;

/// All files and directories of a disk.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    inodes: BTreeMap<Inode, Object>,
    next: Inode,
    /// Changes of names that are not durable, oldest first.
    pending: Vec<Operation>,
}

#[derive(Clone, Debug)]
enum Object {
    File(SimFile),
    Directory { names: BTreeMap<String, Inode>, durable: BTreeMap<String, Inode> },
}

/// A change of names that happens as a whole or not at all.
#[derive(Clone, Debug)]
struct Operation {
    /// Directory, name, and what it stands for from now on.
    changes: Vec<(Inode, String, Option<Inode>)>,
    /// Directories that are not yet synced.
    waits_for: BTreeSet<Inode>,
}

impl Tree {
    pub(crate) fn new() -> Self {
        let root = Object::Directory { names: BTreeMap::new(), durable: BTreeMap::new() };
        Self { inodes: BTreeMap::from([(ROOT, root)]), next: ROOT + 1, pending: Vec::new() }
    }

    pub(crate) fn find(&self, path: &str) -> Option<Inode> {
        path.split('/')
            .filter(|name| !name.is_empty())
            .try_fold(ROOT, |inode, name| self.names(inode)?.get(name).copied())
    }

    pub(crate) fn names(&self, inode: Inode) -> Option<&BTreeMap<String, Inode>> {
        match self.inodes.get(&inode) {
            Some(Object::Directory { names, .. }) => Some(names),
            _ => None,
        }
    }

    pub(crate) fn file(&self, path: &str) -> Option<&SimFile> {
        match self.inodes.get(&self.find(path)?) {
            Some(Object::File(file)) => Some(file),
            _ => None,
        }
    }

    pub(crate) fn file_mut(&mut self, path: &str) -> Option<&mut SimFile> {
        let inode = self.find(path)?;
        match self.inodes.get_mut(&inode) {
            Some(Object::File(file)) => Some(file),
            _ => None,
        }
    }

    /// Paths of all files, sorted.
    pub(crate) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.walk(ROOT, "", &mut |path, _| paths.push(path.to_owned()));
        paths.sort();
        paths
    }

    /// Makes an empty file or directory; `None` if its directory does not exist.
    pub(crate) fn make(&mut self, path: &str, directory: bool) -> Option<()> {
        let (parent, name) = self.parent(path)?;
        let inode = self.next;
        self.next += 1;
        let object = match directory {
            true => Object::Directory { names: BTreeMap::new(), durable: BTreeMap::new() },
            false => Object::File(SimFile::default()),
        };
        self.inodes.insert(inode, object);
        self.change(vec![(parent, name, Some(inode))]);
        Some(())
    }

    /// Renames, replacing what has the new name; `None` if there is no such file.
    pub(crate) fn rename(&mut self, from: &str, to: &str) -> Option<()> {
        let inode = self.find(from)?;
        let ((from_parent, from_name), (to_parent, to_name)) = (self.parent(from)?, self.parent(to)?);
        self.change(vec![(from_parent, from_name, None), (to_parent, to_name, Some(inode))]);
        Some(())
    }

    /// Removes a file, or a directory after all in it, each by a change of its own.
    pub(crate) fn remove(&mut self, path: &str) -> Option<()> {
        let inode = self.find(path)?;
        let names: Vec<String> = self.names(inode).into_iter().flatten().map(|(name, _)| name.clone()).collect();
        for name in names {
            self.remove(&format!("{path}/{name}"));
        }
        let (parent, name) = self.parent(path)?;
        self.change(vec![(parent, name, None)]);
        Some(())
    }

    /// Makes the names of a directory durable. A rename from one directory to another is durable after both.
    pub(crate) fn sync_directory(&mut self, inode: Inode) {
        let mut position = 0;
        // Only what loses a name can become unreachable; most syncs of a directory take none away.
        let mut unnamed = false;
        while position < self.pending.len() {
            self.pending[position].waits_for.remove(&inode);
            if !self.pending[position].waits_for.is_empty() {
                position += 1;
                continue;
            }
            let done = self.pending.remove(position);
            for earlier in &mut self.pending[..position] {
                let overtaken = |change: &(Inode, String, _)| {
                    done.changes.iter().any(|newer| (newer.0, &newer.1) == (change.0, &change.1))
                };
                let before = earlier.changes.len();
                earlier.changes.retain(|change| !overtaken(change));
                unnamed |= earlier.changes.len() < before;
            }
            unnamed |= self.make_durable(done);
        }
        if unnamed {
            self.forget_unreachable();
        }
    }

    /// Files with sectors that a crash may lose, by the name they have now.
    pub(crate) fn unsynced(&self) -> Vec<(String, u64)> {
        let mut unsynced = Vec::new();
        self.walk(ROOT, "", &mut |path, file| unsynced.extend(file.unsynced().map(|sector| (path.to_owned(), sector))));
        unsynced
    }

    /// Those whose loss would show, and how many changes of names a crash may lose.
    pub(crate) fn undecided(&self) -> (usize, Vec<(String, u64)>) {
        let mut sectors = Vec::new();
        self.walk(ROOT, "", &mut |path, file| {
            sectors.extend(file.unsynced_and_other().map(|sector| (path.to_owned(), sector)));
        });
        (self.pending.len(), sectors)
    }

    /// The power went. `keep_name` is asked once for each change of names that is not durable, `keep_sector` for each
    /// unsynced sector of each file that still has a name.
    pub(crate) fn crash(
        &mut self,
        mut keep_name: impl FnMut() -> bool,
        mut keep_sector: impl FnMut(&str, u64) -> bool,
    ) {
        let mut paths = BTreeMap::new();
        self.walk_inodes(ROOT, "", &mut |path, inode| {
            paths.insert(inode, path.to_owned());
        });
        for operation in std::mem::take(&mut self.pending) {
            if keep_name() {
                self.make_durable(operation);
            }
        }
        for (inode, object) in &mut self.inodes {
            match object {
                Object::Directory { names, durable } => names.clone_from(durable),
                Object::File(file) => {
                    let path = paths.get(inode).map_or("", String::as_str);
                    file.crash(|sector| keep_sector(path, sector));
                }
            }
        }
        self.forget_unreachable();
    }

    fn parent(&self, path: &str) -> Option<(Inode, String)> {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        let inode = self.find(directory)?;
        self.names(inode)?;
        Some((inode, name.to_owned()))
    }

    fn change(&mut self, changes: Vec<(Inode, String, Option<Inode>)>) {
        for (directory, name, inode) in &changes {
            if let Some(Object::Directory { names, .. }) = self.inodes.get_mut(directory) {
                set(names, name, *inode);
            }
        }
        let waits_for = changes.iter().map(|(directory, ..)| *directory).collect();
        self.pending.push(Operation { changes, waits_for });
    }

    /// Makes a change of names durable; true if something may have lost its last name by it.
    fn make_durable(&mut self, operation: Operation) -> bool {
        let mut unnamed = false;
        for (directory, name, inode) in &operation.changes {
            let Some(Object::Directory { durable, .. }) = self.inodes.get_mut(directory) else {
                unnamed = true;
                continue;
            };
            let before = set(durable, name, *inode);
            // What is renamed keeps a name.
            unnamed |= before.is_some() && operation.changes.iter().all(|(.., other)| *other != before);
        }
        unnamed
    }

    fn forget_unreachable(&mut self) {
        let mut reached = BTreeSet::new();
        let mut ahead = vec![ROOT];
        ahead.extend(self.pending.iter().flat_map(|operation| &operation.changes).filter_map(|(_, _, inode)| *inode));
        while let Some(inode) = ahead.pop() {
            if reached.insert(inode)
                && let Some(Object::Directory { names, durable }) = self.inodes.get(&inode)
            {
                ahead.extend(names.values().chain(durable.values()));
            }
        }
        self.inodes.retain(|inode, _| reached.contains(inode));
    }

    fn walk(&self, inode: Inode, path: &str, visit: &mut impl FnMut(&str, &SimFile)) {
        self.walk_inodes(inode, path, &mut |path, inode| {
            if let Some(Object::File(file)) = self.inodes.get(&inode) {
                visit(path, file);
            }
        });
    }

    fn walk_inodes(&self, inode: Inode, path: &str, visit: &mut impl FnMut(&str, Inode)) {
        for (name, child) in self.names(inode).into_iter().flatten() {
            let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
            visit(&path, *child);
            self.walk_inodes(*child, &path, visit);
        }
    }
}

fn set(names: &mut BTreeMap<String, Inode>, name: &str, inode: Option<Inode>) -> Option<Inode> {
    match inode {
        Some(inode) => names.insert(name.to_owned(), inode),
        None => names.remove(name),
    }
}
