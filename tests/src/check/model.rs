//! The model of the state (ours): what the commands of a log come to by the simplest code that could be right, and what every
//! replica must therefore hold.
//!
//! That replicas agree with each other is no proof: what all of them forget alike, or get wrong alike, they agree about. So the
//! judge applies every decided command to a state of its own: a map of entries, a map of sessions, the nodes, a few counters. The
//! outcome of each command must be the model's, on every replica; and so must the digest of the whole state, wherever one is
//! told: at each checkpoint, each load and each install, at looks at running replicas, and of all replicas at the end.
//!
//! The model shares with the core what has golden tests of its own: the records' bytes of entries and nodes, the hash, and how a
//! founded shard begins. Sessions, conditions, revisions, evictions and their bytes are written anew in [`shard`].
//!
//! *Left out*: who may read which state when (the other judges), and configurations that change, which nothing does yet.

mod sessions;
mod shard;
#[cfg(test)]
pub(super) mod tests;

use std::collections::BTreeMap;

use kv_core::{
    command::CommandOutcome,
    shard_map::ShardMap,
    state::sessions::SessionBounds,
    types::{Digest, LogIndex, ShardId},
};

use self::shard::Shard;
use super::{
    Fact, Violation,
    view::{AppliedCommand, Place},
};
use crate::history::Moment;

/// All shards as they must be.
#[derive(Debug, Default)]
pub struct Model {
    shards: BTreeMap<ShardId, Shard>,
    /// Digests that were told of states which no decided entry has come to yet, with who told them.
    early: BTreeMap<(ShardId, LogIndex), Vec<(Place, Digest)>>,
}

const PROPERTY: &str = "the model of the state";

impl Model {
    /// The shards of a cluster that was just founded, bounded so.
    #[must_use]
    pub fn new(layout: &ShardMap, bounds: SessionBounds) -> Self {
        let shards = layout.shards.iter().map(|row| (row.shard, Shard::founded(row, bounds))).collect();
        Self { shards, early: BTreeMap::new() }
    }

    /// Judges a fact.
    ///
    /// # Errors
    /// If a replica holds, or has answered, something else than the model.
    pub fn check(&mut self, at: Moment, fact: &Fact) -> Result<(), Violation> {
        let judged = match fact {
            Fact::Decided { shard, index, term, commands } => {
                let Some(model) = self.shards.get_mut(shard) else { return Ok(()) };
                model.apply(*index, *term, commands).and_then(|()| self.told_before(*shard, *index))
            }
            Fact::Applied { place, entry, commands, .. } => self.same_outcomes(*place, entry.index, commands),
            Fact::Held { place, index, digest } => self.same_state(*place, *index, *digest),
            _ => Ok(()),
        };
        judged.map_err(|what| Violation { property: PROPERTY, what, at })
    }

    /// The index after the last that is decided here.
    #[must_use]
    pub fn next(&self, shard: ShardId) -> LogIndex {
        self.shards.get(&shard).map_or(LogIndex(0), Shard::index).next()
    }

    /// The digest of the state at an index, if that is decided.
    #[must_use]
    pub fn digest_at(&self, shard: ShardId, index: LogIndex) -> Option<Digest> {
        self.shards.get(&shard)?.digest_at(index)
    }

    /// What came of the commands of an index, if that is decided.
    #[must_use]
    pub fn outcomes_at(&self, shard: ShardId, index: LogIndex) -> Option<&[CommandOutcome]> {
        self.shards.get(&shard)?.outcomes_at(index)
    }

    /// The digests of all states so far.
    #[must_use]
    pub fn digests(&self) -> BTreeMap<(ShardId, LogIndex), Digest> {
        let of_shard = |(shard, model): (&ShardId, &Shard)| {
            let shard = *shard;
            model.digests().map(move |(index, digest)| ((shard, index), digest)).collect::<Vec<_>>()
        };
        self.shards.iter().flat_map(of_shard).collect()
    }

    fn same_outcomes(&self, place: Place, index: LogIndex, commands: &[AppliedCommand]) -> Result<(), String> {
        let Some(model) = self.shards.get(&place.shard) else { return Ok(()) };
        let expected = model.outcomes_at(index);
        let told = commands.iter().map(|command| &command.outcome);
        if expected.is_some_and(|expected| expected.iter().eq(told.clone())) {
            return Ok(());
        }
        Err(format!("at {index} {place} came to {:?}, the model to {expected:?}", told.collect::<Vec<_>>()))
    }

    fn same_state(&mut self, place: Place, index: LogIndex, digest: Digest) -> Result<(), String> {
        let Some(model) = self.shards.get(&place.shard) else { return Ok(()) };
        match model.digest_at(index) {
            Some(known) if known == digest => Ok(()),
            Some(known) => Err(format!(
                "after {index} the state of {place} has the digest {digest}, the model {known}; the newest model holds {}",
                model.summary()
            )),
            None => {
                self.early.entry((place.shard, index)).or_default().push((place, digest));
                Ok(())
            }
        }
    }

    fn told_before(&mut self, shard: ShardId, index: LogIndex) -> Result<(), String> {
        let told = self.early.remove(&(shard, index)).unwrap_or_default();
        told.into_iter().try_for_each(|(place, digest)| self.same_state(place, index, digest))
    }
}
