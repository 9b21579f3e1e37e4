//! The judges of a run: each property that must hold has a file of its own.
//!
//! | Property | Where it is from | File | Judged |
//! |---|---|---|---|
//! | At most one leader per term and shard | Raft 5.2 | [`election_safety`] | each fact |
//! | Logs that agree at an entry agree before it | Raft 5.3 | [`log_matching`] | each fact |
//! | A leader holds what was committed before | Raft 5.4.3 | [`leader_completeness`] | each fact |
//! | Replicas apply the same, with the same outcome | Raft 5.4.3 | [`state_machine_safety`] | each fact |
//! | Term, commit and applied never go back | Raft 5.1 | [`monotonic`] | each fact |
//! | What left a replica outlives a crash | Raft fig. 2 (persistent state) | [`kept_promises`] | each fact |
//! | Nothing counts before it is synced | Raft fig. 2; thesis 10.2.1 | [`synced`] | each fact |
//! | One shard owns an arc at an epoch | ours | [`one_owner`] | each fact |
//! | A write takes effect once | Raft thesis 6.3 | [`exactly_once`] | each fact, and the history |
//! | Only a suffix of async writes is lost, within a bound | ours | [`async_suffix`] | each fact |
//! | Outcomes and states are those of a model | ours | [`model`] | each fact |
//! | A state that differs is found, and does not spread | ours | [`same_state_at_mark`] | each fact |
//! | `wait_durable` never lies | ours | [`durable_truth`] | each fact, and the history |
//! | A read gives what was applied, and it stays | ours | [`nothing_read_vanishes`] | each fact, and the history |
//! | A read is no older than it says, and than was asked | ours | [`bounded_age`] | each fact |
//! | Acknowledged writes are there in the end | ours | [`acknowledged_present`] | the history |
//! | Revisions grow in real time | ours | [`revisions`] | the history |
//! | One order explains each key's answers | Herlihy and Wing 1990 | [`linearizability`] | the history |
//!
//! [`Checkers`] runs them all. A judge keeps books of its own and believes no node. Each costs a map lookup or two per fact, so
//! that a simulation is not slowed by being watched.

pub mod acknowledged_present;
pub mod async_suffix;
pub mod bounded_age;
pub mod durable_truth;
pub mod election_safety;
pub mod exactly_once;
pub mod kept_promises;
pub mod leader_completeness;
pub mod linearizability;
pub mod log_matching;
pub mod logs;
pub mod model;
pub mod monotonic;
pub mod nothing_read_vanishes;
pub mod one_owner;
pub mod revisions;
pub mod same_state_at_mark;
pub mod state_machine_safety;
pub mod synced;
pub mod view;

pub use view::{Fact, Violation};

use crate::history::{History, Moment, Name};
use kv_core::{shard_map::ShardMap, state::sessions::SessionBounds, types::ShardId};

/// All properties, judged together.
#[derive(Debug)]
pub struct Checkers {
    election_safety: election_safety::ElectionSafety,
    log_matching: log_matching::LogMatching,
    leader_completeness: leader_completeness::LeaderCompleteness,
    state_machine_safety: state_machine_safety::StateMachineSafety,
    monotonic: monotonic::Monotonic,
    kept_promises: kept_promises::KeptPromises,
    synced: synced::Synced,
    one_owner: one_owner::OneOwner,
    exactly_once: exactly_once::ExactlyOnce,
    async_suffix: async_suffix::AsyncSuffix,
    durable_truth: durable_truth::DurableTruth,
    nothing_read_vanishes: nothing_read_vanishes::NothingReadVanishes,
    bounded_age: bounded_age::BoundedAge,
    same_state_at_mark: same_state_at_mark::SameStateAtMark,
    model: model::Model,
}

/// What a run bounds, as far as judges have to know it.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// For how long an asynchronous write may be undecided at the leader that acknowledged it before later ones must wait, in
    /// simulated time: with clocks that drift, as long as that can be.
    pub undecided_micros_max: u64,
    /// Most asynchronous writes of a shard that are acknowledged and not decided.
    pub undecided_commands_max: usize,
    /// Most bytes of them.
    pub undecided_bytes_max: u64,
    /// How much a shard remembers of sessions.
    pub sessions: SessionBounds,
}

impl Checkers {
    /// Judges for a run of a cluster that is founded with this layout.
    #[must_use]
    pub fn new(bounds: Bounds, layout: &ShardMap) -> Self {
        Self {
            election_safety: Default::default(),
            log_matching: Default::default(),
            leader_completeness: Default::default(),
            state_machine_safety: Default::default(),
            monotonic: Default::default(),
            kept_promises: Default::default(),
            synced: Default::default(),
            one_owner: Default::default(),
            exactly_once: Default::default(),
            async_suffix: async_suffix::AsyncSuffix::new(bounds),
            durable_truth: Default::default(),
            nothing_read_vanishes: Default::default(),
            bounded_age: Default::default(),
            same_state_at_mark: Default::default(),
            model: model::Model::new(layout, bounds.sessions),
        }
    }

    /// The model of the state.
    #[must_use]
    pub fn model(&self) -> &model::Model {
        &self.model
    }

    /// Judges a fact, when it happens.
    ///
    /// # Errors
    /// The first property that does not hold. What the checkers say afterwards means nothing.
    pub fn check(&mut self, at: Moment, fact: &Fact) -> Result<(), Violation> {
        self.election_safety.check(at, fact)?;
        self.log_matching.check(at, fact)?;
        self.leader_completeness.check(at, fact)?;
        self.state_machine_safety.check(at, fact)?;
        self.monotonic.check(at, fact)?;
        self.kept_promises.check(at, fact)?;
        self.synced.check(at, fact)?;
        self.one_owner.check(at, fact)?;
        self.exactly_once.check(at, fact)?;
        self.async_suffix.check(at, fact)?;
        self.durable_truth.check(at, fact)?;
        self.same_state_at_mark.check(at, fact)?;
        self.nothing_read_vanishes.check(at, fact)?;
        self.bounded_age.check(at, fact)?;
        self.model.check(at, fact)
    }

    /// Judges the whole run when it is over. The operations called at or after the event `final_reads_from` must hold a
    /// linearizable get of every key that was written; `shard_of` tells where a key belongs.
    ///
    /// # Errors
    /// The first property that does not hold.
    pub fn finish(
        &self,
        history: &History,
        final_reads_from: u64,
        shard_of: impl Fn(&Name) -> ShardId,
    ) -> Result<(), Violation> {
        acknowledged_present::check(history, final_reads_from)?;
        self.exactly_once.finish(history)?;
        self.durable_truth.finish(history)?;
        self.nothing_read_vanishes.finish(history, &shard_of)?;
        revisions::check(history, shard_of)?;
        linearizability::check(history)
    }
}

#[cfg(test)]
mod testing;
