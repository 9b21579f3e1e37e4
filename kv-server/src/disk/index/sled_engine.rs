//! The index on sled.
//!
//! Only plain inserts and removes: sled's batches stop every reader in the process behind one static lock. sled flushes when
//! it is dropped and when its own buffers are full, never on a timer: its syncs would compete with the log's.

use std::{collections::BTreeMap, path::Path};

use bytes::Bytes;
use kv_core::{disk::Change, types::ReplicaId};

use super::{CACHE_BYTES, Database, Problem, tree_name, tree_replica};

pub(super) struct SledEngine {
    database: sled::Db,
    trees: BTreeMap<ReplicaId, sled::Tree>,
}

impl SledEngine {
    pub(super) fn open(directory: &Path) -> Result<Self, Problem> {
        let configuration = sled::Config::new().path(directory).cache_capacity(CACHE_BYTES as u64).flush_every_ms(None);
        let database = configuration.open()?;
        let mut trees = BTreeMap::new();
        for name in database.tree_names() {
            if let Some(replica) = std::str::from_utf8(&name).ok().and_then(tree_replica) {
                trees.insert(replica, database.open_tree(name)?);
            }
        }
        Ok(Self { database, trees })
    }

    fn tree(&self, tree: ReplicaId) -> Result<&sled::Tree, Problem> {
        self.trees.get(&tree).ok_or(Problem::NoTree)
    }
}

impl Database for SledEngine {
    fn get(&self, tree: ReplicaId, key: &[u8]) -> Result<Option<Bytes>, Problem> {
        Ok(self.tree(tree)?.get(key)?.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn range(&self, tree: ReplicaId, from: &[u8], count_max: usize) -> Result<Vec<(Bytes, Bytes)>, Problem> {
        let records = self.tree(tree)?.range(from..).take(count_max);
        records
            .map(|record| {
                let (key, value) = record?;
                Ok((Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value)))
            })
            .collect()
    }

    fn write(&self, tree: ReplicaId, changes: &[Change<'_>]) -> Result<(), Problem> {
        let tree = self.tree(tree)?;
        for (key, value) in changes {
            match value {
                Some(value) => tree.insert(key, *value)?,
                None => tree.remove(key)?,
            };
        }
        Ok(())
    }

    fn reset(&mut self, tree: ReplicaId) -> Result<(), Problem> {
        self.remove(tree)?;
        self.trees.insert(tree, self.database.open_tree(tree_name(tree))?);
        Ok(())
    }

    fn remove(&mut self, tree: ReplicaId) -> Result<(), Problem> {
        self.trees.remove(&tree);
        self.database.drop_tree(tree_name(tree))?;
        Ok(())
    }
}
