//! An engine that the server does not have, behind the core's trait, as simply as it can be done: for its cost to be seen.

use std::{fmt::Display, ops::Bound, path::Path};

use bytes::Bytes;
use fjall::{Database as Fjall, Keyspace, KeyspaceCreateOptions};
use kv_core::{
    disk::{Change, StateStore, StoreError},
    types::ReplicaId,
};

/// As the others have it in the server.
const CACHE_BYTES: u32 = 64 * 1024 * 1024;

fn failed(error: impl Display) -> StoreError {
    StoreError(error.to_string())
}

fn name(tree: ReplicaId) -> String {
    format!("replica{}", tree.0)
}

/// fjall 3: a log-structured merge tree for each replica, with threads of its own for flushes and merges.
#[derive(Clone)]
pub(crate) struct FjallStore(Fjall);

impl FjallStore {
    pub(crate) fn open(path: &Path) -> Self {
        Self(Fjall::builder(path).cache_size(CACHE_BYTES.into()).open().expect("a database can be made"))
    }

    fn keyspace(&self, tree: ReplicaId) -> Result<Keyspace, StoreError> {
        self.0.keyspace(&name(tree), KeyspaceCreateOptions::default).map_err(failed)
    }
}

impl StateStore for FjallStore {
    fn get(&self, tree: ReplicaId, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let value = self.keyspace(tree)?.get(key).map_err(failed)?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn range(&self, tree: ReplicaId, from: &[u8], count_max: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let range = (Bound::Included(from), Bound::Unbounded);
        let records = self.keyspace(tree)?.range::<&[u8], _>(range).take(count_max);
        let copy = |record: fjall::Guard| {
            let (key, value) = record.into_inner().map_err(failed)?;
            Ok((Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value)))
        };
        records.map(copy).collect()
    }

    fn write(&self, tree: ReplicaId, changes: &[Change<'_>]) -> Result<(), StoreError> {
        let keyspace = self.keyspace(tree)?;
        for (key, value) in changes {
            match value {
                Some(value) => keyspace.insert(*key, *value),
                None => keyspace.remove(*key),
            }
            .map_err(failed)?;
        }
        Ok(())
    }

    fn reset(&self, tree: ReplicaId) -> Result<(), StoreError> {
        self.keyspace(tree)?.clear().map_err(failed)
    }

    fn remove(&self, tree: ReplicaId) -> Result<(), StoreError> {
        self.0.delete_keyspace(self.keyspace(tree)?).map_err(failed)
    }
}
