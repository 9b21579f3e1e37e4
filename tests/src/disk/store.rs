//! A read index in memory, with the faults that the real one has: it can be lost, be silently wrong, fail, and go back to where it
//! stood some writes ago.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Bound,
    rc::Rc,
};

use bytes::Bytes;
use kv_core::{
    disk::{Change, StateStore, StoreError},
    state::record::SPACE_ENTRIES,
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
    /// Records of which only the key is left.
    overwritten: BTreeSet<(ReplicaId, Bytes)>,
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
        inner.overwritten.clear();
        inner.journal.iter_mut().for_each(VecDeque::clear);
    }

    /// From now on the last writes can be undone.
    pub fn keep_journal(&self) {
        self.inner.borrow_mut().journal.get_or_insert_default();
    }

    /// Undoes up to so many of the last writes: nothing has made them durable. Half of the records that come back can't be read before
    /// they are written again, as if something else had been written meanwhile to where their values were.
    pub fn go_back(&self, writes: usize) {
        let mut inner = self.inner.borrow_mut();
        for _ in 0..writes {
            let Some(undo) = inner.journal.as_mut().and_then(VecDeque::pop_back) else { return };
            match undo {
                Undo::Tree(tree, records) => inner.undo_tree(tree, records),
                Undo::Records(tree, before) => inner.undo(tree, before),
            }
        }
    }

    /// Half of the users' records can't be read before they are written again: where their values were was not synced.
    pub fn lose_values(&self) {
        let mut inner = self.inner.borrow_mut();
        let lost = |(tree, records): (&ReplicaId, &Records)| {
            records.keys().filter(|key| is_lost(key)).map(|key| (*tree, key.clone())).collect::<Vec<_>>()
        };
        let lost: Vec<_> = inner.trees.iter().flat_map(lost).collect();
        inner.overwritten.extend(lost);
    }

    /// Other trees with the same content.
    #[must_use]
    pub fn fork(&self) -> Self {
        let inner = self.inner.borrow();
        let (trees, overwritten) = (inner.trees.clone(), inner.overwritten.clone());
        Self { inner: Rc::new(RefCell::new(Inner { trees, overwritten, ..Inner::default() })) }
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
                inner.overwritten.remove(&(replica, key.clone()));
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

    fn undo_tree(&mut self, tree: ReplicaId, records: Option<Records>) {
        self.overwritten.retain(|(of, _)| *of != tree);
        match records {
            Some(records) => {
                let lost = records.keys().filter(|key| is_lost(key)).map(|key| (tree, key.clone()));
                self.overwritten.extend(lost);
                self.trees.insert(tree, records);
            }
            None => drop(self.trees.remove(&tree)),
        }
    }

    fn undo(&mut self, tree: ReplicaId, before: Vec<(Bytes, Option<Bytes>)>) {
        let Some(records) = self.trees.get_mut(&tree) else { return };
        for (key, value) in before.into_iter().rev() {
            if value.is_some() && is_lost(&key) {
                self.overwritten.insert((tree, key.clone()));
            } else {
                self.overwritten.remove(&(tree, key.clone()));
            }
            match value {
                Some(value) => records.insert(key, value),
                None => records.remove(&key),
            };
        }
    }

    /// A record that is to be handed out.
    fn readable(&self, tree: ReplicaId, key: &[u8]) -> Result<(), StoreError> {
        let is_overwritten =
            !self.overwritten.is_empty() && self.overwritten.contains(&(tree, Bytes::copy_from_slice(key)));
        if is_overwritten { Err(StoreError("a value is not what was written".to_owned())) } else { Ok(()) }
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
        let mut inner = self.inner.borrow_mut();
        let found = inner.read(tree)?.get(key).cloned();
        inner.readable(tree, key)?;
        Ok(found)
    }

    fn range(&self, tree: ReplicaId, from: &[u8], count_max: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let mut inner = self.inner.borrow_mut();
        let records = inner.read(tree)?.range::<[u8], _>((Bound::Included(from), Bound::Unbounded));
        let found: Vec<_> = records.take(count_max).map(|(key, value)| (key.clone(), value.clone())).collect();
        found.iter().try_for_each(|(key, _)| inner.readable(tree, key))?;
        Ok(found)
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
        for (key, _) in &before {
            inner.overwritten.remove(&(tree, key.clone()));
        }
        inner.note(|| Undo::Records(tree, before));
        Ok(())
    }

    fn reset(&self, tree: ReplicaId) -> Result<(), StoreError> {
        let mut inner = self.inner.borrow_mut();
        let old = inner.trees.insert(tree, BTreeMap::new());
        inner.overwritten.retain(|(of, _)| *of != tree);
        inner.note(|| Undo::Tree(tree, old));
        Ok(())
    }

    fn remove(&self, tree: ReplicaId) -> Result<(), StoreError> {
        let mut inner = self.inner.borrow_mut();
        let old = inner.trees.remove(&tree);
        inner.overwritten.retain(|(of, _)| *of != tree);
        inner.note(|| Undo::Tree(tree, old));
        Ok(())
    }
}

/// Whether a user's record that comes back has lost its value.
fn is_lost(key: &[u8]) -> bool {
    key.first() == Some(&SPACE_ENTRIES) && key.last().is_some_and(|last| last % 2 == 1)
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

    #[test]
    fn what_was_overwritten_since_is_an_error_until_it_is_written_again() {
        let (store, tree) = (MemoryStore::default(), ReplicaId(1));
        store.keep_journal();
        store.reset(tree).unwrap();
        let (lost, kept) = ([SPACE_ENTRIES, 1], [SPACE_ENTRIES, 2]);
        for value in [b"1", b"2"] {
            store.write(tree, &[(&lost, Some(value)), (&kept, Some(value))]).unwrap();
        }
        store.go_back(1);
        assert_eq!(store.get(tree, &kept).unwrap(), Some(Bytes::from("1")));
        assert!(store.get(tree, &lost).is_err() && store.range(tree, b"", 9).is_err());
        store.write(tree, &[(&lost, Some(b"3"))]).unwrap();
        assert_eq!(store.get(tree, &lost).unwrap(), Some(Bytes::from("3")));
        assert_eq!(store.range(tree, b"", 9).unwrap().len(), 2);
        store.reset(tree).unwrap();
        store.go_back(1);
        assert!(store.get(tree, &lost).is_err() && store.get(tree, &kept).is_ok());
        store.write(tree, &[(&lost, Some(b"4"))]).unwrap();
        store.lose_values();
        assert!(store.get(tree, &lost).is_err() && store.get(tree, &kept).is_ok());
    }
}
