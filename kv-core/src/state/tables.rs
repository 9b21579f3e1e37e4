//! Where records are looked up: the active table, the frozen table, then the tree of the read index.
//!
//! Both tables hold tombstones, so that a record removed since the tree was written is not found in the tree.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    disk::{StateStore, StoreError},
    state::record::{FrozenTable, Table},
    types::{LogIndex, ReplicaId},
};

/// A replica's tree in the read index.
#[derive(Clone, Copy, Debug)]
pub struct Tree<'a, S> {
    store: &'a S,
    replica: ReplicaId,
}

impl<'a, S: StateStore> Tree<'a, S> {
    /// The tree of a replica.
    pub fn new(store: &'a S, replica: ReplicaId) -> Self {
        Self { store, replica }
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.store.get(self.replica, key)
    }

    pub(super) fn range(&self, from: &[u8], count_max: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.store.range(self.replica, from, count_max)
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Tables {
    seed: u64,
    pub(super) active: Table,
    pub(super) frozen: Option<(LogIndex, FrozenTable)>,
}

impl Tables {
    /// Empty ones, whose hashes have this seed.
    pub(super) fn with_seed(seed: u64) -> Self {
        Self { seed, active: Table::with_seed(seed), frozen: None }
    }

    pub(super) fn get<S: StateStore>(&self, tree: &Tree<'_, S>, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        if let Some(record) = self.active.get(key) {
            return Ok(record);
        }
        if let Some(record) = self.frozen.as_ref().and_then(|(_, table)| table.get(key)) {
            return Ok(record);
        }
        tree.get(key)
    }

    pub(super) fn freeze(&mut self, index: LogIndex) -> FrozenTable {
        assert!(self.frozen.is_none(), "a table is frozen only when the one before is in the tree");
        let table = Arc::new(std::mem::replace(&mut self.active, Table::with_seed(self.seed)));
        self.frozen = Some((index, Arc::clone(&table)));
        table
    }

    pub(super) fn drop_frozen(&mut self, index: LogIndex) -> Option<FrozenTable> {
        self.frozen.take_if(|(frozen, _)| *frozen == index).map(|(_, table)| table)
    }
}
