//! What a replica says of itself: for operators, metrics and the simulator's checks.

use raft::StateRole;

use super::{FollowerStatus, Phase, Replica};
use crate::{
    shard_map::Arc,
    types::{Digest, Epoch, LogIndex, NodeId, ReplicaId, Revision, ShardId, Term},
};

/// A replica's role in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// It leads.
    Leader,
    /// It follows.
    Follower,
    /// It campaigns.
    Candidate,
    /// It asks whether a campaign would succeed.
    PreCandidate,
}

/// One replica at the end of a turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardStatus {
    /// The shard.
    pub shard: ShardId,
    /// The replica.
    pub replica: ReplicaId,
    /// Its role.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// Whom it voted for in that term; 0 means nobody.
    pub vote: ReplicaId,
    /// The node of the leader, if it knows one.
    pub leader: Option<NodeId>,
    /// The highest index known to be committed.
    pub commit: LogIndex,
    /// The highest index that is on its own disk.
    pub persisted: LogIndex,
    /// The last index applied to the state; the checkpoint's while the state is loaded.
    pub applied: LogIndex,
    /// The first index in its log.
    pub first_index: LogIndex,
    /// The last index in its log.
    pub last_index: LogIndex,
    /// The term of that index.
    pub last_term: Term,
    /// Whether the state is proven, so that it applies and serves.
    pub live: bool,
    /// Whether it was taken out of service.
    pub quarantined: bool,
    /// Why it was; empty if it was not.
    pub quarantine_reason: String,
    /// The arc that it owns; none in the meta shard, or while the state is loaded.
    pub arc: Option<Arc>,
    /// The epoch of its arc; 0 while the state is loaded.
    pub epoch: Epoch,
    /// The state's revision; 0 while it is loaded.
    pub revision: Revision,
    /// Bytes of entries kept in memory.
    pub log_bytes: usize,
    /// Bytes of changes in memory that no checkpoint has taken over.
    pub table_bytes: usize,
    /// The newest durable checkpoint.
    pub checkpoint: Option<LogIndex>,
    /// The newest checkpoint with which a majority agrees: only such are given to others.
    pub confirmed: Option<LogIndex>,
    /// Whether replicas hold different states and no majority agrees on one: the shard answers nobody.
    pub disputed: bool,
    /// The digest of the newest checkpoint that was made or proven here.
    pub digest: Option<Digest>,
    /// Requests that wait for this replica.
    pub waiting: usize,
    /// At the leader, the other replicas of the group.
    pub followers: Vec<FollowerStatus>,
}

impl Replica {
    /// The replica as it stands.
    pub(crate) fn status(&self) -> ShardStatus {
        let core = &self.raft.raft;
        let store = self.raft.store();
        let state = self.state();
        ShardStatus {
            shard: self.shard,
            replica: self.id,
            role: match core.state {
                StateRole::Leader => Role::Leader,
                StateRole::Follower => Role::Follower,
                StateRole::Candidate => Role::Candidate,
                StateRole::PreCandidate => Role::PreCandidate,
            },
            term: Term(core.term),
            vote: ReplicaId(core.vote),
            leader: self.leader(),
            commit: self.commit(),
            persisted: self.persisted(),
            applied: state.map_or(store.checkpoint().map_or(LogIndex(0), |at| at.index), |state| state.applied().0),
            first_index: store.boundary().index.next(),
            last_index: self.last_index(),
            last_term: Term(core.raft_log.last_term()),
            live: state.is_some(),
            quarantined: self.is_quarantined(),
            quarantine_reason: match &self.phase {
                Phase::Quarantined(reason) => reason.clone(),
                _ => String::new(),
            },
            arc: state.and_then(|state| state.arc()),
            epoch: state.map_or(Epoch(0), |state| state.epoch()),
            revision: state.map_or(Revision(0), |state| state.revision()),
            log_bytes: store.bytes(),
            table_bytes: self.table_bytes(),
            checkpoint: self.checkpoint_index(),
            confirmed: self.confirmed_index(),
            disputed: self.is_disputed(),
            digest: self.checkpointing.digest(),
            waiting: self.proposals.len() + self.reads.len() + self.durable_waits.len(),
            followers: self.follower_statuses(),
        }
    }

    /// Changes something of the state behind the log's back, for the simulator.
    pub(crate) fn damage_state(&mut self, random: u64) -> bool {
        let Phase::Live(state) = &mut self.phase else { return false };
        state.damage(random);
        true
    }

    /// An entry of the log as it stands in memory, for checks from outside.
    pub(crate) fn entry(&self, index: LogIndex) -> Option<crate::log::record::LogEntry> {
        self.raft.store().entry(index).map(super::convert::entry_from_raft)
    }

    /// Bytes of changes in memory that no checkpoint has taken over.
    pub(crate) fn table_bytes(&self) -> usize {
        self.state().map_or(0, |state| state.active_bytes() + state.frozen_bytes())
    }

    /// Bytes of entries kept in memory.
    pub(crate) fn log_bytes(&self) -> usize {
        self.raft.store().bytes()
    }

    /// Whether acknowledged async writes are not decided yet.
    pub(crate) fn has_undecided(&self) -> bool {
        self.proposals.has_undecided()
    }
}
