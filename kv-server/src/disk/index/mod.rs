//! The read index: one database a node, one tree a replica, on sled or on redb.
//!
//! Nothing durable depends on it, and it is trusted with nothing: one damaged byte can make an engine panic, so that every call is
//! caught. A handle that failed is leaked (its own shutdown could panic again or hang) and a fresh directory takes its place,
//! in which no tree exists until it is reset: a caller sees errors, never missing keys. Directories that are no longer used
//! are removed, those of another engine too: a node that is started with another one begins its index anew.

mod blocks;
mod redb_engine;
mod sled_engine;
#[cfg(test)]
mod tests;
mod values;

use std::{
    fmt, fs, mem,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use bytes::Bytes;
use kv_core::{
    disk::{Change, StateStore, StoreError},
    types::ReplicaId,
};

use self::{redb_engine::RedbEngine, sled_engine::SledEngine, values::LongValues};
use crate::faults::Faults;

/// Memory that an engine keeps pages in, in bytes for the whole node. Past it pages are dropped and read again when needed.
const CACHE_BYTES: usize = 64 * 1024 * 1024;

/// What the read index is kept in. The answers are the same; what they cost is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// sled 0.34.
    #[default]
    Sled,
    /// redb 4: as much CPU for new keys, and less memory and disk. What it has is synced when the node stops; after a crash it is as old as
    /// that, or empty, and is brought up to date from the checkpoints' files.
    Redb,
}

impl Engine {
    /// The engine of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Sled, Self::Redb].into_iter().find(|engine| engine.name() == name)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Sled => "sled",
            Self::Redb => "redb",
        }
    }

    fn open(self, directory: &Path) -> Result<Box<dyn Database>, Problem> {
        let engine = self.open_engine(&directory.join("engine"))?;
        Ok(Box::new(LongValues::open(engine, &directory.join("values"))?))
    }

    fn open_engine(self, directory: &Path) -> Result<Box<dyn Database>, Problem> {
        Ok(match self {
            Self::Sled => Box::new(SledEngine::open(directory)?),
            Self::Redb => Box::new(RedbEngine::open(directory)?),
        })
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An open database: what [`StateStore`] says, of trees that are there.
trait Database: Send + Sync {
    /// Trees that are there.
    fn trees(&self) -> Vec<ReplicaId>;
    fn get(&self, tree: ReplicaId, key: &[u8]) -> Result<Option<Bytes>, Problem>;
    fn get_many(&self, tree: ReplicaId, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, Problem>;
    fn range(&self, tree: ReplicaId, from: &[u8], count_max: usize) -> Result<Vec<(Bytes, Bytes)>, Problem>;
    /// Calls with each record of a tree, ascending, until a call fails. Not while the tree is written to.
    fn each(&self, tree: ReplicaId, call: &mut Call<'_>) -> Result<(), Problem>;
    fn write(&self, tree: ReplicaId, changes: &[Change<'_>]) -> Result<(), Problem>;
    /// What can be done before a tree is reset or removed while others look records up.
    fn before_drop(&self, _tree: ReplicaId) -> Result<(), Problem> {
        Ok(())
    }
    fn reset(&mut self, tree: ReplicaId) -> Result<(), Problem>;
    fn remove(&mut self, tree: ReplicaId) -> Result<(), Problem>;
    /// Whether a stub of a long value was ever written, or may have been.
    fn may_have_stubs(&self) -> Result<bool, Problem>;
    /// Notes that one is going to be. It is not lost unless all is that is written after it.
    fn note_stubs(&self) -> Result<(), Problem>;
    /// Closes what can be closed safely, before the rest is leaked.
    fn close_files(&mut self) {}
}

/// What is done with a record.
type Call<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), Problem> + 'a;

/// Why a call on a database had no result.
#[derive(Debug)]
enum Problem {
    /// The replica has no tree. The database is as good as before.
    NoTree,
    /// What the tree holds is not what was written. The others are as good as before.
    Damaged(String),
    /// The database failed.
    Failed(String),
}

impl<E: std::error::Error> From<E> for Problem {
    fn from(error: E) -> Self {
        Self::Failed(error.to_string())
    }
}

/// The read index of a node. Clones share it.
#[derive(Clone)]
pub struct IndexStore {
    shared: Arc<Shared>,
    faults: Faults,
}

struct Shared {
    root: PathBuf,
    engine: Engine,
    state: RwLock<State>,
}

struct State {
    /// Grows when a fresh directory takes the place of a damaged one; also the directory's name.
    generation: u64,
    /// `None` if not even a fresh one could be opened: then every call is an error.
    database: Option<Box<dyn Database>>,
}

impl IndexStore {
    /// The index below this directory; a fresh one if there is none or it can't be opened. This never fails: without an
    /// index every call on it does.
    pub fn open(root: impl Into<PathBuf>, engine: Engine) -> Self {
        let root = root.into();
        let newest = generations(&root, engine).last().copied();
        let state = match newest.map(|generation| open_existing(&root, engine, generation)) {
            Some(Ok(state)) => state,
            Some(Err(reason)) => {
                tracing::warn!(%reason, "the read index can't be opened; it will be rebuilt");
                open_fresh(&root, engine, newest)
            }
            None => open_fresh(&root, engine, newest),
        };
        remove_others(&root, &directory(&root, engine, state.generation));
        Self { shared: Arc::new(Shared { root, engine, state: RwLock::new(state) }), faults: Faults::default() }
    }

    /// The same index, with faults on request: for the replicas, not for the checkpoint thread.
    pub(crate) fn with_faults(self, faults: Faults) -> Self {
        Self { faults, ..self }
    }

    fn read_state(&self) -> RwLockReadGuard<'_, State> {
        // Every call into an engine is caught before it could poison the lock.
        self.shared.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_state(&self) -> RwLockWriteGuard<'_, State> {
        self.shared.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a call on a replica's tree; a failure costs the whole index.
    fn on_tree<T>(
        &self,
        tree: ReplicaId,
        call: impl FnOnce(&dyn Database) -> Result<T, Problem>,
    ) -> Result<T, StoreError> {
        let state = self.read_state();
        let (generation, result) = match &state.database {
            Some(database) => (state.generation, caught(|| call(&**database))),
            None => (state.generation, Err(Problem::NoTree)),
        };
        drop(state);
        result.map_err(|problem| self.failed(tree, generation, problem))
    }

    fn before_drop(&self, tree: ReplicaId) {
        if let Err(error) = self.on_tree(tree, |database| database.before_drop(tree)) {
            tracing::debug!(%error, "a tree can't be read before it is dropped");
        }
    }

    /// Runs a call that adds or removes a tree.
    fn on_trees(
        &self,
        tree: ReplicaId,
        call: impl FnOnce(&mut dyn Database) -> Result<(), Problem>,
    ) -> Result<(), StoreError> {
        let mut state = self.write_state();
        let generation = state.generation;
        let Some(database) = &mut state.database else {
            return Err(StoreError("no directory for the read index can be opened".to_owned()));
        };
        let result = caught(|| call(&mut **database));
        drop(state);
        result.map_err(|problem| self.failed(tree, generation, problem))
    }

    fn failed(&self, tree: ReplicaId, generation: u64, problem: Problem) -> StoreError {
        match problem {
            Problem::NoTree => StoreError(format!("replica {tree} has no tree")),
            Problem::Damaged(reason) => StoreError(reason),
            Problem::Failed(reason) => self.abandon(generation, reason),
        }
    }

    /// Gives up a database that failed, unless somebody else has already.
    fn abandon(&self, generation: u64, reason: String) -> StoreError {
        let mut state = self.write_state();
        if state.generation == generation {
            tracing::warn!(%reason, "the read index failed; it will be rebuilt");
            let (root, engine) = (&self.shared.root, self.shared.engine);
            let fresh = open_fresh(root, engine, Some(generation));
            let mut failed = mem::replace(&mut *state, fresh);
            if let Some(database) = &mut failed.database {
                database.close_files();
            }
            mem::forget(failed);
            drop(state);
            // Nobody waits for it: it may be gigabytes.
            remove(&directory(root, engine, generation));
        }
        StoreError(reason)
    }
}

impl StateStore for IndexStore {
    fn get(&self, tree: ReplicaId, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.faults.in_lookup();
        self.on_tree(tree, |database| database.get(tree, key))
    }

    fn get_many(&self, tree: ReplicaId, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, StoreError> {
        self.on_tree(tree, |database| database.get_many(tree, keys))
    }

    fn range(&self, tree: ReplicaId, from: &[u8], count_max: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.on_tree(tree, |database| database.range(tree, from, count_max))
    }

    fn write(&self, tree: ReplicaId, changes: &[Change<'_>]) -> Result<(), StoreError> {
        self.on_tree(tree, |database| database.write(tree, changes))
    }

    fn reset(&self, tree: ReplicaId) -> Result<(), StoreError> {
        // If this fails the index is another one, in which there is no such tree, or none.
        self.before_drop(tree);
        self.on_trees(tree, |database| database.reset(tree))
    }

    fn remove(&self, tree: ReplicaId) -> Result<(), StoreError> {
        if self.read_state().database.is_none() {
            return Ok(());
        }
        self.before_drop(tree);
        self.on_trees(tree, |database| database.remove(tree))
    }
}

/// Runs a call into an engine; a panic in it is an error like any other.
fn caught<T>(call: impl FnOnce() -> Result<T, Problem>) -> Result<T, Problem> {
    // What an engine may have left half changed is never looked at again: a failure gives up the whole database.
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result,
        Err(panic) => Err(Problem::Failed(format!("the engine panicked: {}", crate::panic_text(panic.as_ref())))),
    }
}

fn open_database(root: &Path, engine: Engine, generation: u64) -> Result<Box<dyn Database>, String> {
    let directory = directory(root, engine, generation);
    caught(|| engine.open(&directory)).map_err(|problem| match problem {
        Problem::Failed(reason) | Problem::Damaged(reason) => reason,
        Problem::NoTree => "a tree is missing".to_owned(),
    })
}

fn open_existing(root: &Path, engine: Engine, generation: u64) -> Result<State, String> {
    Ok(State { generation, database: Some(open_database(root, engine, generation)?) })
}

fn open_fresh(root: &Path, engine: Engine, last: Option<u64>) -> State {
    let generation = last.map_or(1, |last| last + 1);
    let database = open_database(root, engine, generation)
        .inspect_err(|reason| tracing::error!(%reason, "no directory for the read index can be opened"))
        .ok();
    State { generation, database }
}

/// Another layout of what an engine holds has another name: what is there is no longer looked at, and made anew.
const fn prefix(engine: Engine) -> &'static str {
    match engine {
        Engine::Sled => "sled-values-",
        Engine::Redb => "redb-values-",
    }
}

fn directory(root: &Path, engine: Engine, generation: u64) -> PathBuf {
    root.join(format!("{}{generation}", prefix(engine)))
}

/// The generations of which there are directories.
fn generations(root: &Path, engine: Engine) -> Vec<u64> {
    let of_engine = |name: String| name.strip_prefix(prefix(engine))?.parse().ok();
    let mut generations: Vec<_> = names(root).into_iter().filter_map(of_engine).collect();
    generations.sort_unstable();
    generations
}

fn names(root: &Path) -> Vec<String> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Removes all directories but one: the root has nothing else in it.
fn remove_others(root: &Path, kept: &Path) {
    for name in names(root) {
        let path = root.join(&name);
        if path != kept && path.is_dir() {
            remove(&path);
        }
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_dir_all(path) {
        tracing::warn!(%error, path = %path.display(), "an old read index can't be removed");
    }
}

fn tree_name(replica: ReplicaId) -> String {
    format!("replica-{replica}")
}

fn tree_replica(name: &str) -> Option<ReplicaId> {
    name.strip_prefix("replica-")?.parse().ok().map(ReplicaId)
}
