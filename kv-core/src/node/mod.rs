//! A node: all replicas of one loop, behind one plain function.
//!
//! [`Node::turn`] takes what happened and returns what is to be done. It reads no clock, draws no random number and does no
//! IO; the one call out of it is the read index ([`StateStore::get`]).
//!
//! A turn, in order: inputs go to their replicas; what clients asked is proposed, all reads share a round; raft's Readies are
//! taken until no replica has one; what is decided is applied and answered; checkpoints begin where they are due; the
//! records of all shards leave as one block. Messages that need no sync come out before that block, so that followers write
//! while the leader does.
//!
//! A panic inside one group takes that replica out of service, not the node.

pub(crate) mod batcher;
mod dispatch;
mod first_start;
mod map;
mod open;
mod passes;
mod replicas;
pub(crate) mod rounds;
mod streams;
#[cfg(test)]
mod tests;

use bytes::Bytes;

use self::{batcher::Batcher, map::MapKeeper, replicas::Replicas, rounds::LeadershipRounds, streams::Streams};
pub use self::{
    first_start::{OpenLogError, open_log},
    open::{OpenError, Opening},
};
pub use crate::replica::{FollowerStatus, OWN_COMMANDS_MAX, Role, ShardStatus};
use crate::{
    command::CommandOutcome,
    disk::{StateStore, StoreError},
    io::{Input, Notice, Output},
    log::record::{EntryKind, LogEntry},
    replica::{Replica, context::Unique},
    settings::Settings,
    shard_map::ShardMap,
    state::Tree,
    types::{Digest, Durability, LogIndex, NodeId, ShardId, Term, Time},
};

/// A node of a cluster. `S` is its read index.
pub struct Node<S> {
    id: NodeId,
    settings: Settings,
    durability: Durability,
    store: S,
    replicas: Replicas,
    batcher: Batcher,
    rounds: LeadershipRounds,
    unique: Unique,
    streams: Streams,
    keeper: MapKeeper,
    disk_full: bool,
    log_full: bool,
    /// Ticks since the log last said how large it is, while it is past its bound.
    log_full_ticks: u64,
    /// The shard whose replica was scrubbed last, and the ticks since.
    scrubbed: (ShardId, u64),
    /// Kept entries are past the node's bound, and none of them may be given up yet.
    kept_full: bool,
    log_stalled: bool,
    stopping: bool,
    /// The time of the last turn.
    last_turn: Time,
    /// Bytes of all replicas' tables when the turn began, and as they are by now: whoever changes a replica adds up.
    tables_bytes: usize,
    tables_bytes_now: usize,
    sessions_bytes: usize,
    /// Bytes of entries that this turn may still apply.
    apply_bytes_left: usize,
    /// Bytes of values that this turn may still read for its answers.
    answer_bytes_left: usize,
    /// Replicas that this turn has touched, in no order and some more than once until they are passed over.
    dirty: Vec<ShardId>,
    /// Replicas that have more to apply than the last turn did.
    unfinished: Vec<ShardId>,
    changed: Vec<ShardId>,
    watched: Option<Vec<AppliedEntry>>,
}

/// An entry that was applied to a replica's state, for checks from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedEntry {
    /// The shard.
    pub shard: ShardId,
    /// Its index.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
    /// What its data is.
    pub kind: EntryKind,
    /// Its data.
    pub data: Bytes,
    /// What came of its commands, in their order; what was remembered, as it was remembered.
    pub outcomes: Vec<CommandOutcome>,
}

/// A node at the end of a turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// The node.
    pub node: NodeId,
    /// Its replicas, ascending by shard.
    pub shards: Vec<ShardStatus>,
    /// Whether it refuses client writes because little disk is left.
    pub disk_full: bool,
    /// Whether its log's disk has been silent for an election timeout.
    pub log_stalled: bool,
    /// Whether acknowledged async writes are not decided yet.
    pub has_undecided: bool,
}

impl<S: StateStore> Node<S> {
    /// Takes what happened (`inputs` is empty afterwards) and appends what is to be done.
    ///
    /// `now` should never go back. If it does, what was known of the age of states is forgotten and deadlines are as far away
    /// as they were, so that no answer is wrong for it; a step back that hides behind the time since the last turn is not
    /// seen, and makes ages too small by as much.
    ///
    /// A turn takes at most 4,096 inputs or 4 MiB of them: the caller cuts. It applies a bounded part of what is decided; if
    /// [`Node::has_more`] afterwards, the caller takes another turn.
    pub fn turn(&mut self, now: Time, inputs: &mut Vec<Input>, outputs: &mut Vec<Output>) {
        #[cfg(kv_mutants)]
        crate::mutants::set_clock(now.0);
        self.changed.clear();
        if now < self.last_turn {
            point!(ClockWentBack);
            self.clock_went_back(self.last_turn.micros_since(now));
        }
        self.last_turn = now;
        self.apply_bytes_left = self.settings.apply_bytes_max;
        self.answer_bytes_left = self.settings.answer_bytes_max;
        self.dirty.append(&mut self.unfinished);
        debug_assert_eq!(
            self.replicas.values().map(Replica::table_bytes).sum::<usize>(),
            self.tables_bytes_now,
            "a replica was changed and nobody added up"
        );
        self.tables_bytes = self.tables_bytes_now;
        let mut tick = false;
        for input in inputs.drain(..) {
            tick |= matches!(input, Input::Tick);
            self.take(now, input, outputs);
        }
        self.flush(now, outputs);
        self.rounds.emit(outputs);
        self.begin_checkpoints(now, tick, outputs);
        self.map_from_meta(outputs);
        if let Some(batch) = self.batcher.emit() {
            outputs.push(Output::LogBatch(batch));
        }
        in_order(&mut self.dirty);
        self.changed.append(&mut self.dirty);
    }

    fn clock_went_back(&mut self, micros: u64) {
        self.replicas.slots().for_each(|slot| slot.awake().clock_went_back(micros));
    }

    /// Past the node's bound of kept entries, of which it has so many bytes, the shards with the most of them give up what is behind
    /// their checkpoints.
    fn keep_logs_within_bound(&mut self, mut total: usize, now: Time, outputs: &mut Vec<Output>) {
        self.kept_full = false;
        if total <= self.settings.kept_node_bytes_max {
            return;
        }
        let mut sizes: Vec<_> = self.replicas.values().map(|replica| (replica.log_bytes(), replica.shard())).collect();
        sizes.sort_unstable();
        while let Some((bytes, shard)) = sizes.pop()
            && total > self.settings.kept_node_bytes_max
        {
            self.with_replica(shard, now, outputs, |replica, cx| replica.relieve(cx));
            point!(NodeHeldTooMuchLog);
            self.dirty(shard);
            total -= bytes - self.replicas.get(shard).map_or(0, Replica::log_bytes).min(bytes);
        }
        // What is left waits for marks to be confirmed.
        self.kept_full = total > self.settings.kept_node_bytes_max;
    }

    fn dirty(&mut self, shard: ShardId) {
        self.dirty.push(shard);
    }

    /// The node's number.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The node's map of the cluster.
    #[must_use]
    pub fn map(&self) -> &ShardMap {
        self.keeper.map()
    }

    /// The node as it stands.
    #[must_use]
    pub fn status(&self) -> NodeStatus {
        NodeStatus {
            node: self.id,
            shards: self.replicas.values().map(Replica::status).collect(),
            disk_full: self.disk_full,
            log_stalled: self.log_stalled,
            has_undecided: self.has_undecided(),
        }
    }

    /// One replica as it stands.
    #[must_use]
    pub fn shard_status(&self, shard: ShardId) -> Option<ShardStatus> {
        self.replicas.get(shard).map(Replica::status)
    }

    /// The shards that the last turn passed over, ascending: in no other did anything change that a status tells, but for who of a
    /// leader's followers was heard.
    #[must_use]
    pub fn changed_shards(&self) -> &[ShardId] {
        &self.changed
    }

    /// An entry of a shard's log as it stands in memory, for checks from outside.
    #[must_use]
    pub fn entry(&self, shard: ShardId, index: LogIndex) -> Option<LogEntry> {
        self.replicas.get(shard)?.entry(index)
    }

    /// From now on [`Node::take_applied`] tells what is applied.
    pub fn watch_applied(&mut self) {
        self.watched.get_or_insert_default();
    }

    /// What was applied since the last call; nothing unless it is watched. The caller keeps it from growing.
    #[must_use]
    pub fn take_applied(&mut self) -> Vec<AppliedEntry> {
        self.watched.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The digest of a replica's whole state at its applied index, from a scan of all its records; `None` while the state is
    /// not proven. For checks from outside: it takes as long as the state is large.
    ///
    /// # Errors
    /// If the read index fails.
    pub fn state_digest(&self, shard: ShardId) -> Result<Option<Digest>, StoreError> {
        let Some(replica) = self.replicas.get(shard) else { return Ok(None) };
        let tree = Tree::new(&self.store, replica.id());
        replica.state().map(|state| state.digest_of_all(&tree)).transpose()
    }

    /// Changes something of a replica's state behind its log's back; false if it has no proven state. For the simulator alone.
    #[doc(hidden)]
    pub fn damage_state(&mut self, shard: ShardId, random: u64) -> bool {
        self.replicas.get_mut(shard).is_some_and(|replica| replica.damage_state(random))
    }

    /// Whether the last turn left something to be applied: another one should follow soon, with inputs or without.
    #[must_use]
    pub fn has_more(&self) -> bool {
        !self.unfinished.is_empty()
    }

    /// Whether the node leads no shard and owes no decision: it may stop without anybody noticing.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        !self.replicas.values().any(|replica| replica.leads() || replica.has_undecided())
    }

    /// Whether writes that were acknowledged early are still undecided.
    #[must_use]
    pub fn has_undecided(&self) -> bool {
        self.replicas.values().any(Replica::has_undecided)
    }

    fn refuse(from: NodeId, shard: Option<ShardId>, reason: &'static str, outputs: &mut Vec<Output>) {
        outputs.push(Output::Notice(Notice::Refused { from, shard, reason }));
    }
}

/// Ascending, each once.
fn in_order(shards: &mut Vec<ShardId>) {
    shards.sort_unstable();
    shards.dedup();
}
