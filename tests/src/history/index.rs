//! Which operations concern which key, and which keys are known to be of one shard.
//!
//! A history does not say where a key lies; tokens and session numbers do, and whoever made the run may know. Keys of which nothing
//! tells the shard are judged as if each were alone in one: that asks for less, never for something that was not promised.

use std::collections::HashMap;

use kv_core::types::{ShardId, Token};

use super::{Answer, Call, History, Name, Operation};

/// The operations of a history by key and by shard; operations are named by their place in the history.
#[derive(Debug, Default)]
pub struct Index {
    /// The keys in the order in which they were first asked for.
    pub keys: Vec<Name>,
    /// For each key the operations that concern it: its gets and writes, and the `wait_durable`s of a token of such a write.
    pub by_key: Vec<Vec<usize>>,
    /// For each operation its key; `None` for `wait_durable`.
    pub key_of: Vec<Option<usize>>,
    /// For each key its group: keys of one shard have the same, a key of unknown shard has one of its own.
    pub group_of: Vec<usize>,
    /// How many groups there are.
    pub groups: usize,
}

impl Index {
    /// The index of a history whose answers alone tell where a key lies.
    #[must_use]
    pub fn of(history: &History) -> Self {
        Self::knowing(history, |_| None)
    }

    /// The same of a run of which it is known where each key lies.
    #[must_use]
    pub fn with_shards(history: &History, shard_of: impl Fn(&Name) -> ShardId) -> Self {
        Self::knowing(history, |key| Some(shard_of(key)))
    }

    fn knowing(history: &History, known: impl Fn(&Name) -> Option<ShardId>) -> Self {
        let mut index = Self::default();
        let mut numbers: HashMap<&Name, usize> = HashMap::new();
        let mut shards: Vec<Option<ShardId>> = Vec::new();
        let mut keys_of_token: HashMap<Token, Vec<usize>> = HashMap::new();
        for (place, operation) in history.operations().iter().enumerate() {
            let Some(name) = operation.call.key() else {
                index.key_of.push(None);
                continue;
            };
            let key = *numbers.entry(name).or_insert_with(|| {
                index.keys.push(name.clone());
                index.by_key.push(Vec::new());
                shards.push(known(name));
                index.keys.len() - 1
            });
            index.key_of.push(Some(key));
            index.by_key[key].push(place);
            shards[key] = shards[key].or_else(|| shard_told(operation));
            if let Some(token) = token_of(operation) {
                let keys = keys_of_token.entry(token).or_default();
                if !keys.contains(&key) {
                    keys.push(key);
                }
            }
        }
        for (place, operation) in history.operations().iter().enumerate() {
            let Call::WaitDurable { token } = &operation.call else { continue };
            for key in keys_of_token.get(token).into_iter().flatten() {
                index.by_key[*key].push(place);
            }
        }
        index.group(&shards);
        index
    }

    fn group(&mut self, shards: &[Option<ShardId>]) {
        let mut groups: HashMap<ShardId, usize> = HashMap::new();
        for shard in shards {
            let next = self.groups;
            let group = shard.map_or(next, |shard| *groups.entry(shard).or_insert(next));
            self.groups += usize::from(group == next);
            self.group_of.push(group);
        }
    }
}

/// The token that a write was told.
#[must_use]
pub fn token_of(operation: &Operation) -> Option<Token> {
    match operation.answer() {
        Some(Answer::Accepted { token } | Answer::Written { token: Some(token), .. }) => Some(*token),
        _ => None,
    }
}

fn shard_told(operation: &Operation) -> Option<ShardId> {
    // A write that was answered was answered by the last shard that it was sent to.
    let stamped = || operation.stamps.last().map(|stamp| stamp.shard).filter(|_| is_decided(operation));
    token_of(operation).map(|token| token.shard).or_else(stamped)
}

fn is_decided(operation: &Operation) -> bool {
    matches!(operation.answer(), Some(Answer::Written { .. } | Answer::Accepted { .. }))
}
