//! The read index on sled: one database a node, one tree a replica.
//!
//! Nothing durable depends on it, and it is trusted with nothing: one damaged byte can make sled panic, so that every call is
//! caught. A handle that failed is leaked (its own shutdown could panic again or hang) and a fresh directory takes its place,
//! in which no tree exists until it is reset: a caller sees errors, never missing keys. Directories that are no longer used
//! are removed.
//!
//! Only plain inserts and removes: sled's batches stop every reader in the process behind one static lock. sled flushes when
//! it is dropped and when its own buffers are full, never on a timer: its syncs would compete with the log's.

use std::{
    collections::BTreeMap,
    fs, mem,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use bytes::Bytes;
use kv_core::{
    disk::{StateStore, StoreError},
    types::ReplicaId,
};

use crate::faults::Faults;

/// Memory that sled keeps pages in, in bytes for the whole node. Past it pages are dropped and read again when needed.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;

/// The read index of a node. Clones share it.
#[derive(Clone)]
pub struct SledStore {
    shared: Arc<Shared>,
    faults: Faults,
}

struct Shared {
    root: PathBuf,
    state: RwLock<State>,
}

struct State {
    /// Grows when a fresh directory takes the place of a damaged one; also the directory's name.
    generation: u64,
    /// `None` if not even a fresh one could be opened: then every call is an error.
    database: Option<sled::Db>,
    trees: BTreeMap<ReplicaId, sled::Tree>,
}

impl SledStore {
    /// The index below this directory; a fresh one if there is none or it can't be opened. This never fails: without an
    /// index every call on it does.
    pub fn open(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        let newest = generations(&root).last().copied();
        let state = match newest.map(|generation| open_existing(&root, generation)) {
            Some(Ok(state)) => state,
            Some(Err(reason)) => {
                tracing::warn!(%reason, "the read index can't be opened; it will be rebuilt");
                open_fresh(&root, newest)
            }
            None => open_fresh(&root, newest),
        };
        remove_others(&root, state.generation);
        Self { shared: Arc::new(Shared { root, state: RwLock::new(state) }), faults: Faults::default() }
    }

    /// The same index, with faults on request: for the replicas, not for the checkpoint thread.
    pub(crate) fn with_faults(self, faults: Faults) -> Self {
        Self { faults, ..self }
    }

    fn read_state(&self) -> RwLockReadGuard<'_, State> {
        // Every call into sled is caught before it could poison the lock.
        self.shared.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_state(&self) -> RwLockWriteGuard<'_, State> {
        self.shared.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a call on a replica's tree; a failure costs the whole index.
    fn on_tree<T>(&self, tree: ReplicaId, call: impl FnOnce(&sled::Tree) -> sled::Result<T>) -> Result<T, StoreError> {
        let state = self.read_state();
        let generation = state.generation;
        let handle = state.trees.get(&tree).ok_or_else(|| StoreError(format!("replica {tree} has no tree")))?;
        let result = caught(|| call(handle));
        drop(state);
        result.map_err(|reason| self.abandon(generation, reason))
    }

    /// Gives up a database that failed, unless somebody else has already.
    fn abandon(&self, generation: u64, reason: String) -> StoreError {
        let mut state = self.write_state();
        if state.generation == generation {
            tracing::warn!(%reason, "the read index failed; it will be rebuilt");
            let fresh = open_fresh(&self.shared.root, Some(generation));
            mem::forget(mem::replace(&mut *state, fresh));
            remove_others(&self.shared.root, state.generation);
        }
        StoreError(reason)
    }
}

impl StateStore for SledStore {
    fn get(&self, tree: ReplicaId, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.faults.in_lookup();
        self.on_tree(tree, |tree| Ok(tree.get(key)?.map(|value| Bytes::copy_from_slice(&value))))
    }

    fn range(&self, tree: ReplicaId, from: &[u8], count_max: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.on_tree(tree, |tree| {
            tree.range(from..)
                .take(count_max)
                .map(|record| record.map(|(key, value)| (Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value))))
                .collect()
        })
    }

    fn write(&self, tree: ReplicaId, changes: &[(Bytes, Option<Bytes>)]) -> Result<(), StoreError> {
        self.on_tree(tree, |tree| {
            for (key, value) in changes {
                match value {
                    Some(value) => tree.insert(key, &value[..])?,
                    None => tree.remove(key)?,
                };
            }
            Ok(())
        })
    }

    fn reset(&self, tree: ReplicaId) -> Result<(), StoreError> {
        let mut state = self.write_state();
        let generation = state.generation;
        state.trees.remove(&tree);
        let Some(database) = &state.database else {
            return Err(StoreError("no directory for the read index can be opened".to_owned()));
        };
        let name = tree_name(tree);
        let opened = caught(|| {
            database.drop_tree(&name)?;
            database.open_tree(&name)
        });
        match opened {
            Ok(handle) => {
                state.trees.insert(tree, handle);
                Ok(())
            }
            Err(reason) => {
                drop(state);
                Err(self.abandon(generation, reason))
            }
        }
    }

    fn remove(&self, tree: ReplicaId) -> Result<(), StoreError> {
        let mut state = self.write_state();
        let generation = state.generation;
        state.trees.remove(&tree);
        let Some(database) = &state.database else { return Ok(()) };
        let removed = caught(|| database.drop_tree(tree_name(tree)));
        drop(state);
        removed.map(drop).map_err(|reason| self.abandon(generation, reason))
    }
}

/// Runs a call into sled; a panic in it is an error like any other.
fn caught<T>(call: impl FnOnce() -> sled::Result<T>) -> Result<T, String> {
    // What sled may have left half changed is never looked at again: a failure gives up the whole database.
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(panic) => Err(format!("sled panicked: {}", crate::panic_text(panic.as_ref()))),
    }
}

fn open_database(path: &Path) -> Result<sled::Db, String> {
    caught(|| sled::Config::new().path(path).cache_capacity(CACHE_BYTES).flush_every_ms(None).open())
}

fn open_existing(root: &Path, generation: u64) -> Result<State, String> {
    let database = open_database(&directory(root, generation))?;
    let trees = caught(|| {
        let replicas = database.tree_names().into_iter().filter_map(|name| tree_replica(&name));
        replicas.map(|replica| Ok((replica, database.open_tree(tree_name(replica))?))).collect()
    });
    match trees {
        Ok(trees) => Ok(State { generation, database: Some(database), trees }),
        Err(reason) => {
            mem::forget(database);
            Err(reason)
        }
    }
}

fn open_fresh(root: &Path, last: Option<u64>) -> State {
    let generation = last.map_or(1, |last| last + 1);
    let database = open_database(&directory(root, generation))
        .inspect_err(|reason| tracing::error!(%reason, "no directory for the read index can be opened"))
        .ok();
    State { generation, database, trees: BTreeMap::new() }
}

fn directory(root: &Path, generation: u64) -> PathBuf {
    root.join(generation.to_string())
}

fn generations(root: &Path) -> Vec<u64> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let mut generations: Vec<_> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    generations.sort_unstable();
    generations
}

fn remove_others(root: &Path, kept: u64) {
    for generation in generations(root) {
        if generation != kept
            && let Err(error) = fs::remove_dir_all(directory(root, generation))
        {
            tracing::warn!(%error, generation, "an old read index can't be removed");
        }
    }
}

fn tree_name(replica: ReplicaId) -> String {
    format!("replica-{replica}")
}

fn tree_replica(name: &[u8]) -> Option<ReplicaId> {
    std::str::from_utf8(name).ok()?.strip_prefix("replica-")?.parse().ok().map(ReplicaId)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: ReplicaId = ReplicaId(7);

    fn record(key: &str, value: &str) -> (Bytes, Bytes) {
        (Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(value.as_bytes()))
    }

    fn filled(root: &Path) -> SledStore {
        let store = SledStore::open(root);
        store.reset(TREE).unwrap();
        let changes: Vec<_> = ["a", "b", "c"].map(|key| record(key, "1")).map(|(key, value)| (key, Some(value))).into();
        store.write(TREE, &changes).unwrap();
        store
    }

    #[test]
    fn records_are_inserted_removed_and_read_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let store = filled(directory.path());
        store.write(TREE, &[(Bytes::from("b"), None), (Bytes::from("d"), Some(Bytes::from("2")))]).unwrap();
        assert_eq!(store.get(TREE, b"a").unwrap(), Some(Bytes::from("1")));
        assert_eq!(store.get(TREE, b"b").unwrap(), None);
        assert_eq!(store.range(TREE, b"b", 2).unwrap(), [record("c", "1"), record("d", "2")]);
        store.reset(TREE).unwrap();
        assert_eq!(store.range(TREE, b"", 9).unwrap(), []);
    }

    #[test]
    fn a_tree_exists_only_after_a_reset_and_until_it_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let store = filled(directory.path());
        assert!(store.get(ReplicaId(8), b"a").is_err());
        store.remove(TREE).unwrap();
        assert!(store.get(TREE, b"a").is_err());
        assert!(store.write(TREE, &[]).is_err());
    }

    #[test]
    fn an_index_is_found_again() {
        let directory = tempfile::tempdir().unwrap();
        drop(filled(directory.path()));
        let store = SledStore::open(directory.path());
        // sled lets go of its lock some time after the drop: until then the index is begun anew, which is an error, never a miss.
        if let Ok(found) = store.get(TREE, b"c") {
            assert_eq!(found, Some(Bytes::from("1")));
        }
    }

    #[test]
    fn a_damaged_index_gives_errors_and_never_misses() {
        let directory = tempfile::tempdir().unwrap();
        drop(filled(directory.path()));
        let database = directory.path().join("1/db");
        let mut bytes = fs::read(&database).unwrap();
        for byte in &mut bytes {
            *byte ^= 0x5a;
        }
        fs::write(&database, bytes).unwrap();
        let store = SledStore::open(directory.path());
        assert!(store.get(TREE, b"a").is_err(), "the tree is lost, not empty");
        store.reset(TREE).unwrap();
        assert_eq!(store.get(TREE, b"a").unwrap(), None);
        assert_eq!(generations(directory.path()).len(), 1, "the damaged directory is gone");
    }

    #[test]
    fn a_panic_inside_costs_the_index_and_not_the_node() {
        let directory = tempfile::tempdir().unwrap();
        let store = filled(directory.path());
        let other = store.clone();
        let failed: Result<(), _> = store.on_tree(TREE, |_| panic!("a page is damaged"));
        assert!(failed.unwrap_err().0.contains("a page is damaged"));
        assert!(other.get(TREE, b"a").is_err());
        other.reset(TREE).unwrap();
        assert_eq!(store.get(TREE, b"a").unwrap(), None);
        assert_eq!(generations(directory.path()), [2]);
    }
}
