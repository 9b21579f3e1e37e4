//! What the world tells the checkers: facts about replicas, taken from what nodes put out, and the clients' history.
//!
//! A node is not believed about what it did: what its log holds is taken from the batches that it hands to its disk
//! ([`disks`]), what it promised from the messages that leave it, what it applied from its own report ([`outputs`]), which the
//! checkers compare with all others and with a model. The digests of whole states are looked at in [`states`].

mod disks;
mod outputs;
mod states;

use std::collections::BTreeMap;

use kv_core::{
    command::CommandOutcome,
    types::{Digest, LogIndex, ShardId, Term},
};

use super::{machine::founding_record, plan::Plan, world::World};
use crate::{
    check::{
        Bounds, Checkers,
        view::{Fact, Place, ReplicaView, Violation},
    },
    history::{History, Moment, Name},
};

/// The checkers with what they have to be told.
pub struct Judge {
    checkers: Checkers,
    /// What clients saw.
    pub history: History,
    /// From this event on clients read every key a last time.
    pub final_reads_from: u64,
    now: Moment,
    /// What is known of each replica, by node and shard.
    replicas: Vec<Known>,
    shards: usize,
    /// The last entry of each shard of which was told that it is decided.
    decided: Vec<LogIndex>,
    /// The replica whose state is looked at next.
    looked_at: usize,
}

#[derive(Clone, Debug, Default)]
struct Known {
    view: ReplicaView,
    appended: LogIndex,
    committed: LogIndex,
    promised: Term,
}

impl Judge {
    /// A judge before anything happened.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let shards = plan.shards as usize + 1;
        // By a clock that is as slow as any of the plan's.
        let undecided_micros_max =
            (plan.settings.async_micros_max * 1_000_000).div_ceil(1_000_000 - plan.slow_ppm_max()) + 1;
        let bounds = Bounds {
            undecided_micros_max,
            undecided_commands_max: plan.settings.async_commands_max,
            undecided_bytes_max: plan.settings.async_bytes_max as u64,
            sessions: plan.settings.session_bounds,
        };
        let checkers = Checkers::new(bounds, &founding_record(plan).layout());
        Self {
            decided: (0..shards as u64).map(|shard| LogIndex(checkers.model().next(ShardId(shard)).0 - 1)).collect(),
            checkers,
            final_reads_from: u64::MAX,
            history: History::default(),
            now: Moment::default(),
            replicas: vec![Known::default(); plan.nodes as usize * shards],
            shards,
            looked_at: 0,
        }
    }

    /// Goes on to the next event.
    pub fn advance(&mut self, micros: u64) {
        self.now.event += 1;
        self.now.micros = micros;
    }

    /// This moment.
    #[must_use]
    pub fn moment(&self) -> Moment {
        self.now
    }

    /// A moment of its own for a call or an answer, so that no two are at once.
    pub fn own_moment(&mut self) -> Moment {
        self.now.event += 1;
        self.now
    }

    /// The digests of all states that were decided so far.
    #[must_use]
    pub fn digests(&self) -> BTreeMap<(ShardId, LogIndex), Digest> {
        self.checkers.model().digests()
    }

    fn known(&mut self, node: usize, shard: ShardId) -> &mut Known {
        &mut self.replicas[node * self.shards + shard.0 as usize]
    }

    fn place(&mut self, node: usize, shard: ShardId) -> Place {
        self.known(node, shard).view.place
    }

    /// Judges what can only be judged at the end.
    ///
    /// # Errors
    /// The first property that does not hold.
    pub fn finish(&self, shards: &BTreeMap<Name, ShardId>) -> Result<(), Violation> {
        let shard_of = |key: &Name| shards.get(key).copied().unwrap_or_default();
        self.checkers.finish(&self.history, self.final_reads_from, shard_of)
    }

    /// The right digest of a state, if it is decided.
    #[must_use]
    pub fn digest_at(&self, shard: ShardId, index: LogIndex) -> Option<Digest> {
        self.checkers.model().digest_at(shard, index)
    }

    /// What must have come of the commands of an index, if that is decided.
    #[must_use]
    pub fn outcomes_at(&self, shard: ShardId, index: LogIndex) -> Option<&[CommandOutcome]> {
        self.checkers.model().outcomes_at(shard, index)
    }

    /// A replica's state stands at this index from now on.
    pub(super) fn state_begins(&mut self, node: usize, shard: ShardId, index: LogIndex) -> Place {
        let known = self.known(node, shard);
        known.view.applied = index;
        known.view.place
    }

    fn tell(&mut self, fact: &Fact) -> Result<(), Violation> {
        self.checkers.check(self.now, fact)
    }
}

impl World {
    /// Tells one fact.
    pub(super) fn tell_one(&mut self, fact: &Fact) {
        if let Err(violation) = self.judge.tell(fact) {
            self.failure.get_or_insert(violation);
        }
    }

    fn tell(&mut self, facts: &mut Vec<Fact>) {
        for fact in facts.drain(..) {
            if let Err(violation) = self.judge.tell(&fact) {
                self.failure.get_or_insert(violation);
            }
        }
    }
}
