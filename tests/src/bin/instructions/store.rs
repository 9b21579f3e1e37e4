//! A read index without records: all that the load writes is still in the tables.

use bytes::Bytes;
use kv_core::{
    disk::{Change, StateStore, StoreError},
    types::ReplicaId,
};

#[derive(Clone)]
pub(crate) struct Empty;

impl StateStore for Empty {
    fn get(&self, _tree: ReplicaId, _key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(None)
    }

    fn range(&self, _tree: ReplicaId, _from: &[u8], _count_max: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        Ok(Vec::new())
    }

    fn write(&self, _tree: ReplicaId, _changes: &[Change<'_>]) -> Result<(), StoreError> {
        Ok(())
    }

    fn reset(&self, _tree: ReplicaId) -> Result<(), StoreError> {
        Ok(())
    }

    fn remove(&self, _tree: ReplicaId) -> Result<(), StoreError> {
        Ok(())
    }
}
