//! A read index in memory, with the faults that the real one has: it can be lost, be silently wrong, and fail.

use std::{cell::RefCell, collections::BTreeMap, ops::Bound, rc::Rc};

use bytes::Bytes;
use kv_core::{
    disk::{StateStore, StoreError},
    types::ReplicaId,
};

/// Trees in memory, shared by all clones. They outlive a crash of the node unless they are made to be lost.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    inner: Rc<RefCell<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    trees: BTreeMap<ReplicaId, BTreeMap<Bytes, Bytes>>,
    reads_until_failure: Option<u64>,
    reads: u64,
    records_written: u64,
}

impl MemoryStore {
    /// All trees are gone, as when a fresh directory takes the place of a damaged one.
    pub fn lose(&self) {
        self.inner.borrow_mut().trees.clear();
    }

    /// Other trees with the same content.
    #[must_use]
    pub fn fork(&self) -> Self {
        let trees = self.inner.borrow().trees.clone();
        Self { inner: Rc::new(RefCell::new(Inner { trees, ..Inner::default() })) }
    }

    /// Silently alters a record or drops one; the tree and the key, if there was a record.
    pub fn flip(&self, random: &mut fastrand::Rng) -> Option<(ReplicaId, Bytes)> {
        let mut inner = self.inner.borrow_mut();
        let filled: Vec<ReplicaId> =
            inner.trees.iter().filter(|(_, tree)| !tree.is_empty()).map(|(replica, _)| *replica).collect();
        let replica = random.choice(filled)?;
        let tree = inner.trees.get_mut(&replica)?;
        let key = tree.keys().nth(random.usize(0..tree.len()))?.clone();
        match tree.get_mut(&key) {
            Some(value) if !value.is_empty() && random.bool() => {
                let mut bytes = value.to_vec();
                let position = random.usize(0..bytes.len());
                bytes[position] ^= 1 << random.u8(0..8);
                *value = bytes.into();
            }
            _ => {
                tree.remove(&key);
            }
        }
        Some((replica, key))
    }

    /// After this many more reads one read fails.
    pub fn fail_read_after(&self, reads: u64) {
        self.inner.borrow_mut().reads_until_failure = Some(reads);
    }

    /// Whether a read to come fails.
    #[must_use]
    pub fn is_about_to_fail(&self) -> bool {
        self.inner.borrow().reads_until_failure.is_some()
    }

    /// Numbers of records in the trees.
    #[must_use]
    pub fn sizes(&self) -> BTreeMap<ReplicaId, usize> {
        self.inner.borrow().trees.iter().map(|(replica, tree)| (*replica, tree.len())).collect()
    }

    /// How many reads were made and records written since this was asked the last time.
    pub fn take_counters(&self) -> (u64, u64) {
        let mut inner = self.inner.borrow_mut();
        (std::mem::take(&mut inner.reads), std::mem::take(&mut inner.records_written))
    }
}

impl Inner {
    fn read(&mut self, tree: ReplicaId) -> Result<&BTreeMap<Bytes, Bytes>, StoreError> {
        self.reads += 1;
        match &mut self.reads_until_failure {
            Some(0) => {
                self.reads_until_failure = None;
                return Err(StoreError("a read failed".to_owned()));
            }
            Some(left) => *left -= 1,
            None => {}
        }
        self.trees.get(&tree).ok_or_else(|| missing(tree))
    }
}

impl StateStore for MemoryStore {
    fn get(&self, tree: ReplicaId, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.inner.borrow_mut().read(tree)?.get(key).cloned())
    }

    fn range(&self, tree: ReplicaId, from: &[u8], count_max: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let mut inner = self.inner.borrow_mut();
        let records = inner.read(tree)?.range::<[u8], _>((Bound::Included(from), Bound::Unbounded));
        Ok(records.take(count_max).map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn write(&self, tree: ReplicaId, changes: &[(Bytes, Option<Bytes>)]) -> Result<(), StoreError> {
        let mut inner = self.inner.borrow_mut();
        inner.records_written += changes.len() as u64;
        let records = inner.trees.get_mut(&tree).ok_or_else(|| missing(tree))?;
        for (key, value) in changes {
            match value {
                Some(value) => records.insert(key.clone(), value.clone()),
                None => records.remove(key),
            };
        }
        Ok(())
    }

    fn reset(&self, tree: ReplicaId) -> Result<(), StoreError> {
        self.inner.borrow_mut().trees.insert(tree, BTreeMap::new());
        Ok(())
    }

    fn remove(&self, tree: ReplicaId) -> Result<(), StoreError> {
        self.inner.borrow_mut().trees.remove(&tree);
        Ok(())
    }
}

fn missing(tree: ReplicaId) -> StoreError {
    StoreError(format!("there is no tree of replica {tree}"))
}
