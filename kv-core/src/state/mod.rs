//! The replicated state of one shard: a deterministic function of its log.
//!
//! [`ShardState::apply`] takes committed entries in order; what they say is in [`crate::command`]. Nothing in here reads a
//! clock, a random number or the order of a map that has none, so that all replicas hold the same at the same index, prove
//! it by a [`digest`], and answer a repeated command alike.
//!
//! Users' entries live in memory tables in front of a tree ([`tables`]); sessions and the description of the cluster's nodes
//! are whole in memory. [`ShardState::freeze`] hands out everything that changed since the last freeze, as records, together
//! with the [`StateHeader`]: that is what a checkpoint writes.
//!
//! Left out: who may apply what and when (the replica), files (the checkpoint worker).

mod apply;
mod arena;
pub mod codec;
pub mod digest;
pub mod record;
pub mod sessions;
mod table;
pub mod tables;
pub mod terms;
#[cfg(test)]
mod tests;
mod whole;

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{
    codec::{CodecError, Reader},
    configuration::Configuration,
    disk::{StateStore, StoreError},
    ring,
    shard_map::{Arc, NodeDescription},
    types::{Entry, Epoch, Key, LogIndex, NodeId, Revision, SessionId, Term, Token},
};

use self::{
    codec::{decode_entry, entry_key, node_key},
    record::{FrozenTable, StateHeader},
    sessions::{SessionBounds, Sessions},
    tables::Tables,
};
pub use self::{sessions::Session, tables::Tree, terms::TokenState};

/// The state of one shard at the last index applied.
#[derive(Clone, Debug)]
pub struct ShardState {
    header: StateHeader,
    tables: Tables,
    sessions: Sessions,
    nodes: BTreeMap<NodeId, NodeDescription>,
    changed: bool,
}

impl ShardState {
    /// The state that a checkpoint says, or the one with which a shard begins.
    ///
    /// # Errors
    /// If a session or a node's description does not decode.
    pub fn from_header(
        header: StateHeader,
        sessions: Vec<(SessionId, Bytes)>,
        nodes: Vec<(Bytes, Bytes)>,
    ) -> Result<Self, CodecError> {
        Self::restore(header, sessions, nodes, Sessions::default())
    }

    /// The same, its sessions bounded so from the next command on.
    #[must_use]
    pub fn with_session_bounds(mut self, bounds: SessionBounds) -> Self {
        self.sessions.set_bounds(bounds);
        self
    }

    /// The same, with a seed for the hash that finds its records. What the state is does not depend on it, nor in what order its
    /// records are told.
    ///
    /// # Panics
    /// If it has changed since it was made: its records would not be found again.
    #[must_use]
    pub fn with_table_seed(mut self, seed: u64) -> Self {
        assert!(!self.changed && self.tables.active.bytes() == 0, "only a state as it was loaded is given a seed");
        self.tables = Tables::with_seed(seed);
        self
    }

    /// The bounds of its sessions.
    #[must_use]
    pub fn session_bounds(&self) -> SessionBounds {
        self.sessions.bounds()
    }

    fn restore(
        header: StateHeader,
        session_records: Vec<(SessionId, Bytes)>,
        node_records: Vec<(Bytes, Bytes)>,
        mut sessions: Sessions,
    ) -> Result<Self, CodecError> {
        for (id, encoded) in session_records {
            if id > header.last_session {
                return Err(CodecError("sessions up to the last number given"));
            }
            sessions.restore(id, encoded)?;
        }
        let mut nodes = BTreeMap::new();
        for (key, encoded) in node_records {
            let mut reader = Reader::new(encoded);
            let node = NodeDescription::decode(&mut reader)?;
            reader.finish()?;
            if *key != *node_key(node.node) {
                return Err(CodecError("a node under its own number"));
            }
            nodes.insert(node.node, node);
        }
        Ok(Self { header, tables: Tables::default(), sessions, nodes, changed: false })
    }

    /// The last index applied, and its term.
    #[must_use]
    pub fn applied(&self) -> (LogIndex, Term) {
        (self.header.index, self.header.term)
    }

    /// The last revision given.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.header.revision
    }

    /// The epoch of the arc.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.header.epoch
    }

    /// The arc; `None` in the meta shard.
    #[must_use]
    pub fn arc(&self) -> Option<Arc> {
        #[cfg(kv_mutants)]
        if mutant!("S3") {
            // The first position of the next shard is owned here as well.
            return self
                .header
                .arc
                .map(|arc| Arc { last: crate::types::Position(arc.last.0.saturating_add(1)), ..arc });
        }
        self.header.arc
    }

    /// Everything of the state that is not a record.
    #[must_use]
    pub fn header(&self) -> &StateHeader {
        &self.header
    }

    /// Whether a key is in the arc. The meta shard owns none.
    #[must_use]
    pub fn owns(&self, key: &Key) -> bool {
        self.arc().is_some_and(|arc| arc.contains(ring::position(key.as_bytes())))
    }

    /// Takes over a configuration that holds from this index on.
    pub fn apply_configuration(&mut self, index: LogIndex, term: Term, configuration: Configuration) {
        self.advance(index, term);
        self.header.configurations.push((index, configuration));
    }

    /// Forgets the configurations that ended before this index, keeping the one that holds at it: a checkpoint needs them
    /// only from the log's own boundary on.
    pub fn forget_configurations_before(&mut self, index: LogIndex) {
        let upto = self.header.configurations.partition_point(|(from, _)| *from <= index);
        self.header.configurations.drain(..upto.saturating_sub(1));
    }

    /// What a key holds at the last index applied, whether or not the key is in the arc.
    ///
    /// # Errors
    /// If the read index fails. What it says can't be trusted any more, so the state has to be loaded again.
    pub fn get<S: StateStore>(&self, tree: &Tree<'_, S>, key: &Key) -> Result<Option<Entry>, StoreError> {
        let record = self.tables.get(tree, &entry_key(key))?;
        record.map(decode_entry).transpose().map_err(|error| StoreError(error.to_string()))
    }

    /// What has become of the write that a token of this shard names.
    #[must_use]
    pub fn durability(&self, token: Token) -> TokenState {
        terms::durability(&self.header, token)
    }

    /// A session, if it is known.
    #[must_use]
    pub fn session(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(id)
    }

    /// Encoded bytes of all sessions.
    #[must_use]
    pub fn sessions_bytes(&self) -> usize {
        self.sessions.bytes()
    }

    /// Number of sessions.
    #[must_use]
    pub fn sessions_count(&self) -> usize {
        self.sessions.count()
    }

    /// Bytes of the records changed since the last freeze; sessions are not counted.
    #[must_use]
    pub fn active_bytes(&self) -> usize {
        self.tables.active.bytes()
    }

    /// Bytes of the records that are being written into the tree.
    #[must_use]
    pub fn frozen_bytes(&self) -> usize {
        self.tables.frozen.as_ref().map_or(0, |(_, table)| table.bytes())
    }

    /// Whether a frozen table is not yet in the tree.
    #[must_use]
    pub fn has_frozen(&self) -> bool {
        self.tables.frozen.is_some()
    }

    /// Whether anything was applied since the last freeze.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        self.changed
    }

    /// Hands out all that changed since the last freeze, for a checkpoint at the last index applied. Lookups go on through
    /// the frozen table until [`ShardState::drop_frozen`].
    ///
    /// # Panics
    /// If the table frozen before is still held.
    pub fn freeze(&mut self) -> (FrozenTable, StateHeader) {
        for (key, record) in self.sessions.take_changes() {
            if !mutant!("B24") {
                self.tables.active.set(&key, record.as_deref());
            }
        }
        #[cfg(kv_mutants)]
        if mutant!("S1") && self.header.index.0.is_multiple_of(3) {
            // One entry is forgotten, on all replicas the same one.
            let is_entry = |key: &&[u8]| key.first() == Some(&record::SPACE_ENTRIES);
            let whole = std::mem::take(&mut self.tables.active);
            let forgotten = whole.sorted().map(|(key, _)| key).find(is_entry);
            for (key, value) in whole.sorted().filter(|(key, _)| Some(*key) != forgotten) {
                self.tables.active.set(key, value);
            }
        }
        self.changed = false;
        let mut header = self.header.clone();
        if mutant!("B19") {
            header.index = LogIndex(header.index.0 - 1);
        }
        (self.tables.freeze(header.index), header)
    }

    /// Lets go of the table frozen at this index, if there is one: its records are in the tree. Whoever drops it takes a while.
    pub fn drop_frozen(&mut self, index: LogIndex) -> Option<FrozenTable> {
        self.tables.drop_frozen(index)
    }

    /// Changes something behind the log's back, as a flipped bit in memory would: a record of the active table, or without one
    /// the last revision. For the simulator alone: nothing else may call it.
    #[doc(hidden)]
    pub fn damage(&mut self, random: u64) {
        let table = &mut self.tables.active;
        let is_entry = |(key, value): &(&[u8], Option<&[u8]>)| {
            key.first() == Some(&record::SPACE_ENTRIES) && value.is_some_and(|value| !value.is_empty())
        };
        let entries: Vec<_> = table.sorted().filter(is_entry).collect();
        let picked = random.checked_rem(entries.len() as u64).and_then(|at| entries.get(usize::try_from(at).ok()?));
        let Some((key, Some(value))) = picked else {
            self.header.revision = self.header.revision.next();
            return;
        };
        let (key, mut damaged) = (key.to_vec(), value.to_vec());
        *damaged.last_mut().expect("only what is not empty was picked") ^= 1 << (random >> 32 & 7);
        table.set(&key, Some(&damaged));
    }

    /// The cluster's nodes as the meta shard records them.
    #[must_use]
    pub fn nodes(&self) -> &BTreeMap<NodeId, NodeDescription> {
        &self.nodes
    }

    fn advance(&mut self, index: LogIndex, term: Term) {
        assert_eq!(index, self.header.index.next(), "entries are applied one after the other");
        assert!(term >= self.header.term, "terms never fall along a log");
        terms::note(&mut self.header, index, term);
        self.changed = true;
    }
}
