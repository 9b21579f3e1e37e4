//! A read index in memory, with the faults that the real one has: it can be lost, be silently wrong, fail, and go back to where it
//! stood some writes ago.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    rc::Rc,
};

use bytes::Bytes;
use kv_core::{
    disk::{Change, StateStore, StoreError},
    types::ReplicaId,
};

/// Trees in memory, shared by all clones. They outlive a crash of the node unless they are made to be lost.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    inner: Rc<RefCell<Inner>>,
}

/// Writes that can be undone, at most.
const JOURNAL_WRITES_MAX: usize = 64;

type Records = BTreeMap<Bytes, Bytes>;

#[derive(Debug, Default)]
struct Inner {
    trees: BTreeMap<ReplicaId, Records>,
    /// What the last writes replaced, the newest last, if that is kept.
    journal: Option<VecDeque<Undo>>,
    reads_until_failure: Option<u64>,
    reads: u64,
    records_written: u64,
}

/// What a write replaced.
#[derive(Debug)]
enum Undo {
    Records(ReplicaId, Vec<(Bytes, Option<Bytes>)>),
    Tree(ReplicaId, Option<Records>),
}

impl MemoryStore {
    /// All trees are gone, as when a fresh directory takes the place of a damaged one.
    pub fn lose(&self) {
        let mut inner = self.inner.borrow_mut();
        inner.trees.clear();
        inner.journal.iter_mut().for_each(VecDeque::clear);
    }

    /// From now on the last writes can be undone.
    pub fn keep_journal(&self) {
        self.inner.borrow_mut().journal.get_or_insert_default();
    }

    /// Undoes up to so many of the last writes: nothing has made them durable.
    pub fn go_back(&self, writes: usize) {
        let mut inner = self.inner.borrow_mut();
        for _ in 0..writes {
            let Some(undo) = inner.journal.as_mut().and_then(VecDeque::pop_back) else { return };
            match undo {
                Undo::Tree(tree, Some(records)) => drop(inner.trees.insert(tree, records)),
                Undo::Tree(tree, None) => drop(inner.trees.remove(&tree)),
                Undo::Records(tree, before) => {
                    let Some(records) = inner.trees.get_mut(&tree) else { continue };
                    for (key, value) in before.into_iter().rev() {
                        match value {
                            Some(value) => records.insert(key, value),
                            None => records.remove(&key),
                        };
                    }
                }
            }
        }
    }

    /// Other trees with the same content.
    #[must_use]
    pub fn fork(&self) -> Self {
        let trees = self.inner.borrow().trees.clone();
        Self { inner: Rc::new(RefCell::new(Inner { trees, ..Inner::default() })) }
    }

    /// Silently alters a record or drops one; the tree and the key, if there was a record.
    pub fn flip(&self, random: &mut fastrand::Rng) -> Option<(ReplicaId, Bytes)> {
        let inner = self.inner.borrow();
        let filled: Vec<ReplicaId> =
            inner.trees.iter().filter(|(_, tree)| !tree.is_empty()).map(|(replica, _)| *replica).collect();
        let replica = random.choice(filled)?;
        drop(inner);
        self.flip_in(replica, random).map(|key| (replica, key))
    }

    /// The same in the tree of one replica; the key, if there was a record.
    pub fn flip_in(&self, replica: ReplicaId, random: &mut fastrand::Rng) -> Option<Bytes> {
        let mut inner = self.inner.borrow_mut();
        let tree = inner.trees.get_mut(&replica).filter(|tree| !tree.is_empty())?;
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
        Some(key)
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
    fn note(&mut self, undo: impl FnOnce() -> Undo) {
        if let Some(journal) = &mut self.journal {
            journal.push_back(undo());
            if journal.len() > JOURNAL_WRITES_MAX {
                journal.pop_front();
            }
        }
    }

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

    fn write(&self, tree: ReplicaId, changes: &[Change<'_>]) -> Result<(), StoreError> {
        let mut inner = self.inner.borrow_mut();
        inner.records_written += changes.len() as u64;
        let records = inner.trees.get_mut(&tree).ok_or_else(|| missing(tree))?;
        let mut before = Vec::new();
        for (key, value) in changes {
            let key = Bytes::copy_from_slice(key);
            let old = match value {
                Some(value) => records.insert(key.clone(), Bytes::copy_from_slice(value)),
                None => records.remove(&key),
            };
            before.push((key, old));
        }
        inner.note(|| Undo::Records(tree, before));
        Ok(())
    }

    fn reset(&self, tree: ReplicaId) -> Result<(), StoreError> {
        let mut inner = self.inner.borrow_mut();
        let old = inner.trees.insert(tree, BTreeMap::new());
        inner.note(|| Undo::Tree(tree, old));
        Ok(())
    }

    fn remove(&self, tree: ReplicaId) -> Result<(), StoreError> {
        let mut inner = self.inner.borrow_mut();
        let old = inner.trees.remove(&tree);
        inner.note(|| Undo::Tree(tree, old));
        Ok(())
    }
}

fn missing(tree: ReplicaId) -> StoreError {
    StoreError(format!("there is no tree of replica {tree}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_back_is_as_it_was() {
        let (store, tree) = (MemoryStore::default(), ReplicaId(1));
        store.keep_journal();
        store.reset(tree).unwrap();
        let key = |at: u8| [at % 5];
        let mut seen = vec![store.fork().range(tree, &[], 9).unwrap()];
        for at in 0..40 {
            let value = [at];
            let value = (at % 3 > 0).then_some(&value[..]);
            store.write(tree, &[(&key(at), value), (&key(at + 1), value)]).unwrap();
            if at == 20 {
                // It counts as a write of its own.
                store.reset(tree).unwrap();
                seen.push(Vec::new());
            }
            seen.push(store.range(tree, &[], 9).unwrap());
        }
        let mut at = seen.len() - 1;
        for back in [1, 3, 7, 15] {
            store.go_back(back);
            at -= back;
            assert_eq!(store.range(tree, &[], 9).unwrap(), seen[at], "{at}");
        }
        store.go_back(1_000);
        assert!(store.range(tree, &[], 9).is_err(), "before the first reset there was no tree");
    }
}
