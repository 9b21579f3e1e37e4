//! The whole state of a shard, read from tables and tree: what a digest from scratch is made of.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{
    ShardState, Tree,
    digest::RecordSum,
    record::{RecordKey, TREE_MARK},
};
use crate::{
    disk::{StateStore, StoreError},
    types::Digest,
};

/// Records read from the tree in one call.
const RANGE_RECORDS: usize = 256;

impl ShardState {
    /// The digest at the last index applied, from all records. It takes as long as the state is large.
    ///
    /// # Errors
    /// If the read index fails.
    pub fn digest_of_all<S: StateStore>(&self, tree: &Tree<'_, S>) -> Result<Digest, StoreError> {
        let mut changed: BTreeMap<RecordKey, Option<Bytes>> = BTreeMap::new();
        if let Some((_, frozen)) = &self.tables.frozen {
            changed.extend(frozen.sorted().map(copied));
        }
        changed.extend(self.tables.active.sorted().map(copied));
        changed.extend(self.sessions.clone().take_changes());
        let mut sum = RecordSum::default();
        let mut from = Bytes::new();
        loop {
            let records = tree.range(&from, RANGE_RECORDS)?;
            for (key, value) in records.iter().filter(|(key, _)| key != TREE_MARK && !changed.contains_key(&key[..])) {
                sum.add(key, value);
            }
            match records.last() {
                Some((last, _)) if records.len() == RANGE_RECORDS => from = [&last[..], &[0]].concat().into(),
                _ => break,
            }
        }
        for (key, value) in changed {
            if let Some(value) = value {
                sum.add(&key, &value);
            }
        }
        Ok(sum.digest(self.header()))
    }
}

fn copied((key, value): (&[u8], Option<&[u8]>)) -> (RecordKey, Option<Bytes>) {
    (key.into(), value.map(Bytes::copy_from_slice))
}
