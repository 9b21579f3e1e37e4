//! What clients ask for: drawn from the plan, operation by operation.
//!
//! Keys are few, so that clients meet on them; the key set reaches every shard, so that none goes untested. Every value is
//! unique in the run, so that a read names the write that it saw. Conditions mostly name the revision that the client saw
//! last, so that they hold often enough to matter.
//!
//! *Never produced here*: keys and values near the largest that are taken, keys with a hash tag, a condition on a revision that the
//! client never saw, an operation that is invalid.

use std::collections::BTreeMap;

use bytes::Bytes;
use fastrand::Rng;
use kv_core::{
    command::{Action, Condition, Write},
    error::Outcome,
    io::{Consistency, Operation},
    ring::position,
    shard_map::ShardMap,
    types::{Durability, Key, Revision, ShardId, Value},
};

use super::plan::{Plan, Workload as Shares};
use crate::history::{Answer, Name};

/// Draws one client's operations.
#[derive(Debug)]
pub struct Workload {
    shares: Shares,
    async_by_default: bool,
    client: usize,
    drawn: u64,
    /// The revision of each key that the client saw last.
    seen: BTreeMap<Key, Revision>,
}

/// Writes of unknown outcome after which a key is no longer used. Whoever looks for an order that explains a key's answers has
/// to try each of them at every place.
const UNKNOWN_MAX: u32 = 8;

/// The keys of a run.
#[derive(Debug)]
pub struct Keys {
    map: ShardMap,
    /// Each with how many writes of unknown outcome it has had.
    in_use: Vec<Key>,
    unknown: Vec<u32>,
    given_up: Vec<Key>,
    /// Names so far.
    names: u64,
}

impl Keys {
    /// As many keys as planned, and one more for each shard that none of these reaches.
    #[must_use]
    pub fn new(plan: &Plan, map: ShardMap) -> Self {
        let mut keys = Self { map, in_use: Vec::new(), unknown: Vec::new(), given_up: Vec::new(), names: 0 };
        for _ in 0..plan.workload.keys {
            let key = keys.next_name();
            keys.in_use.push(key);
        }
        for row in keys.map.shards.clone() {
            if row.arc.is_some() && !keys.in_use.iter().any(|key| keys.shard_of(key) == row.shard) {
                let key = keys.next_in(row.shard);
                keys.in_use.push(key);
            }
        }
        keys.unknown = vec![0; keys.in_use.len()];
        keys
    }

    /// The keys that clients read and write.
    #[must_use]
    pub fn in_use(&self) -> &[Key] {
        &self.in_use
    }

    /// All keys that were ever in use.
    #[must_use]
    pub fn all(&self) -> Vec<Key> {
        self.given_up.iter().chain(&self.in_use).cloned().collect()
    }

    /// The shard of each key.
    #[must_use]
    pub fn shards(&self) -> BTreeMap<Name, ShardId> {
        self.all().iter().map(|key| (Name::of(key.as_bytes()), self.shard_of(key))).collect()
    }

    /// Takes note of what a writer was told. A key with many unknown outcomes makes room for another of its shard.
    pub fn written(&mut self, key: &Key, told: &Answer) {
        let Some(place) = self.in_use.iter().position(|other| other == key) else { return };
        self.unknown[place] += match told {
            Answer::Failed { outcome: Outcome::Unknown, .. } => 1,
            _ => 0,
        };
        if self.unknown[place] >= UNKNOWN_MAX {
            let fresh = self.next_in(self.shard_of(key));
            self.given_up.push(std::mem::replace(&mut self.in_use[place], fresh));
            self.unknown[place] = 0;
        }
    }

    /// Those of one shard, which has one at least.
    #[must_use]
    pub fn in_shard(&self, shard: ShardId) -> Vec<Key> {
        self.in_use.iter().filter(|key| self.shard_of(key) == shard).cloned().collect()
    }

    fn next_name(&mut self) -> Key {
        self.names += 1;
        Key::new(format!("k{}", self.names - 1)).expect("a short key is a key")
    }

    fn next_in(&mut self, shard: ShardId) -> Key {
        loop {
            let key = self.next_name();
            if self.shard_of(&key) == shard {
                return key;
            }
        }
    }

    fn shard_of(&self, key: &Key) -> ShardId {
        let position = position(key.as_bytes());
        let rows = self.map.shards.iter();
        let mut holding = rows.filter(|row| row.arc.is_some_and(|arc| arc.contains(position)));
        holding.next().expect("the arcs of a map cover the ring").shard
    }
}

impl Workload {
    /// The workload of a client.
    #[must_use]
    pub fn new(client: usize, plan: &Plan) -> Self {
        Self {
            shares: plan.workload,
            async_by_default: plan.operated.async_by_default,
            client,
            drawn: 0,
            seen: BTreeMap::new(),
        }
    }

    /// The next operation.
    pub fn draw(&mut self, rng: &mut Rng, keys: &[Key]) -> Operation {
        let key = keys[rng.usize(..keys.len())].clone();
        let percent = |rng: &mut Rng, share: u32| rng.u32(..100) < share;
        if percent(rng, self.shares.reads_percent) {
            let consistency = match percent(rng, self.shares.old_reads_percent) {
                true if rng.bool() => Consistency::Stale,
                true => Consistency::Bounded { age_micros_max: rng.u64(10_000..3_000_000) },
                false => Consistency::Linearizable,
            };
            return Operation::Get { key, consistency };
        }
        let action = if percent(rng, self.shares.deletes_percent) { Action::Delete } else { self.put(rng) };
        let condition = if percent(rng, self.shares.conditions_percent) {
            match self.seen.get(&key) {
                Some(revision) if rng.u32(..4) > 0 && *revision > Revision(0) => Condition::RevisionIs(*revision),
                _ => Condition::Absent,
            }
        } else {
            Condition::Always
        };
        let return_previous = percent(rng, self.shares.previous_percent);
        let may_be_async = condition == Condition::Always && !return_previous;
        let durability = match may_be_async && percent(rng, self.shares.async_percent) {
            true => Some(Durability::Async),
            // What can't be asynchronous says that it is not, where that is the default.
            false => (rng.bool() || self.async_by_default && !may_be_async).then_some(Durability::Sync),
        };
        Operation::Write { write: Write { key, action, condition, return_previous, session: None }, durability }
    }

    /// A put of a new value to a key, acknowledged as sync.
    pub fn final_put(&mut self, rng: &mut Rng, key: Key) -> Operation {
        let write =
            Write { key, action: self.put(rng), condition: Condition::Always, return_previous: false, session: None };
        Operation::Write { write, durability: Some(Durability::Sync) }
    }

    /// Remembers at which revision a key was seen.
    pub fn saw(&mut self, key: &Key, revision: Revision) {
        let seen = self.seen.entry(key.clone()).or_default();
        *seen = (*seen).max(revision);
    }

    fn put(&mut self, rng: &mut Rng) -> Action {
        self.drawn += 1;
        let mut value = format!("c{}-{}.", self.client, self.drawn).into_bytes();
        let bytes = rng.usize(..=self.shares.value_bytes_max).max(value.len());
        value.resize(bytes, b'.');
        Action::Put(Value::new(Bytes::from(value)).expect("the plan's values are short"))
    }
}
