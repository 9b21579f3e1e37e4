//! What clients ask for: drawn from the plan, operation by operation.
//!
//! Keys are few, so that clients meet on them; the key set reaches every shard, so that none goes untested. Every value is
//! unique in the run, so that a read names the write that it saw. Conditions mostly name the revision that the client saw
//! last, so that they hold often enough to matter.

use std::collections::BTreeMap;

use bytes::Bytes;
use fastrand::Rng;
use kv_core::{
    command::{Action, Condition, Write},
    io::{Consistency, Durability, Operation},
    ring::position,
    shard_map::ShardMap,
    types::{Key, Revision, Value},
};

use super::plan::{Plan, Workload as Shares};

/// Draws one client's operations.
#[derive(Debug)]
pub struct Workload {
    shares: Shares,
    client: usize,
    drawn: u64,
    /// The revision of each key that the client saw last.
    seen: BTreeMap<Key, Revision>,
}

/// The keys of a run: as many as planned, and one more for each shard that none of these reaches.
#[must_use]
pub fn keys(plan: &Plan, map: &ShardMap) -> Vec<Key> {
    let name = |number: u64| Key::new(format!("k{number}")).expect("a short key is a key");
    let mut keys: Vec<_> = (0..plan.workload.keys).map(name).collect();
    let mut number = plan.workload.keys;
    for arc in map.shards.iter().filter_map(|row| row.arc) {
        while !keys.iter().any(|key| arc.contains(position(key.as_bytes()))) {
            if arc.contains(position(name(number).as_bytes())) {
                keys.push(name(number));
            }
            number += 1;
        }
    }
    keys
}

impl Workload {
    /// The workload of a client.
    #[must_use]
    pub fn new(client: usize, plan: &Plan) -> Self {
        Self { shares: plan.workload, client, drawn: 0, seen: BTreeMap::new() }
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
            false => rng.bool().then_some(Durability::Sync),
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
