//! The index on redb.
//!
//! Each call that writes is a transaction that is not made durable: what is synced would compete with the log, and the index is no
//! promise. redb then finds after a crash what it had when it was last closed: an older index, whose mark says so, or none.
//! It is synced when it is closed.

use std::{collections::BTreeSet, fs, path::Path};

use bytes::Bytes;
use kv_core::{disk::Change, types::ReplicaId};
use redb::{Durability, ReadableDatabase, ReadableTable, TableDefinition, TableHandle, WriteTransaction};

use super::{CACHE_BYTES, Call, Database, Problem, tree_name, tree_replica};

/// A table of this name, with nothing in it.
const HAS_STUBS: &str = "has stubs";
const FILE: &str = "index.redb";

pub(super) struct RedbEngine {
    database: redb::Database,
    /// A transaction would make a table that is not there.
    trees: BTreeSet<ReplicaId>,
}

impl RedbEngine {
    pub(super) fn open(directory: &Path) -> Result<Self, Problem> {
        fs::create_dir_all(directory)?;
        let database = redb::Database::builder().set_cache_size(CACHE_BYTES).create(directory.join(FILE))?;
        let transaction = database.begin_read()?;
        let tables = transaction.list_tables()?;
        let trees = tables.filter_map(|table| tree_replica(table.name())).collect();
        Ok(Self { database, trees })
    }

    fn check(&self, tree: ReplicaId) -> Result<(), Problem> {
        if self.trees.contains(&tree) { Ok(()) } else { Err(Problem::NoTree) }
    }

    fn update(&self, work: impl FnOnce(&WriteTransaction) -> Result<(), Problem>) -> Result<(), Problem> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::None)?;
        work(&transaction)?;
        Ok(transaction.commit()?)
    }
}

fn table(name: &str) -> TableDefinition<'_, &'static [u8], &'static [u8]> {
    TableDefinition::new(name)
}

impl Database for RedbEngine {
    fn trees(&self) -> Vec<ReplicaId> {
        self.trees.iter().copied().collect()
    }

    fn get(&self, tree: ReplicaId, key: &[u8]) -> Result<Option<Bytes>, Problem> {
        Ok(self.get_many(tree, &[key])?.pop().flatten())
    }

    fn get_many(&self, tree: ReplicaId, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, Problem> {
        self.check(tree)?;
        let records = self.database.begin_read()?.open_table(table(&tree_name(tree)))?;
        let copied = |key: &&[u8]| Ok(records.get(*key)?.map(|value| Bytes::copy_from_slice(value.value())));
        keys.iter().map(copied).collect()
    }

    fn range(&self, tree: ReplicaId, from: &[u8], count_max: usize) -> Result<Vec<(Bytes, Bytes)>, Problem> {
        self.check(tree)?;
        let records = self.database.begin_read()?.open_table(table(&tree_name(tree)))?;
        let records = records.range(from..)?.take(count_max);
        records
            .map(|record| {
                let (key, value) = record?;
                Ok((Bytes::copy_from_slice(key.value()), Bytes::copy_from_slice(value.value())))
            })
            .collect()
    }

    fn each(&self, tree: ReplicaId, call: &mut Call<'_>) -> Result<(), Problem> {
        self.check(tree)?;
        let records = self.database.begin_read()?.open_table(table(&tree_name(tree)))?;
        for record in records.iter()? {
            let (key, value) = record?;
            call(key.value(), value.value())?;
        }
        Ok(())
    }

    fn write(&self, tree: ReplicaId, changes: &[Change<'_>]) -> Result<(), Problem> {
        self.check(tree)?;
        self.update(|transaction| {
            let mut records = transaction.open_table(table(&tree_name(tree)))?;
            for (key, value) in changes {
                match value {
                    Some(value) => records.insert(*key, *value)?,
                    None => records.remove(*key)?,
                };
            }
            Ok(())
        })
    }

    fn reset(&mut self, tree: ReplicaId) -> Result<(), Problem> {
        self.trees.remove(&tree);
        self.update(|transaction| {
            let name = tree_name(tree);
            transaction.delete_table(table(&name))?;
            transaction.open_table(table(&name))?;
            Ok(())
        })?;
        self.trees.insert(tree);
        Ok(())
    }

    fn remove(&mut self, tree: ReplicaId) -> Result<(), Problem> {
        self.trees.remove(&tree);
        self.update(|transaction| {
            transaction.delete_table(table(&tree_name(tree)))?;
            Ok(())
        })
    }

    fn may_have_stubs(&self) -> Result<bool, Problem> {
        let transaction = self.database.begin_read()?;
        Ok(transaction.list_tables()?.any(|table| table.name() == HAS_STUBS))
    }

    fn note_stubs(&self) -> Result<(), Problem> {
        self.update(|transaction| {
            transaction.open_table(table(HAS_STUBS))?;
            Ok(())
        })
    }
}

impl Drop for RedbEngine {
    fn drop(&mut self) {
        // A transaction is durable unless it is told not to be, and with it all before it.
        let synced =
            self.database.begin_write().map_err(Problem::from).and_then(|transaction| Ok(transaction.commit()?));
        if let Err(Problem::Failed(reason)) = synced {
            tracing::warn!(%reason, "the read index can't be synced; it will be rebuilt");
        }
    }
}
