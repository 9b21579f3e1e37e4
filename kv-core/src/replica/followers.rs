//! What a leader knows of each of its followers, for operators: how far it is, whether it answers, whether it is being sent
//! a snapshot.
//!
//! raft's own note of who answered is wiped whenever it checks that it still has a majority, and says nothing until the next
//! heartbeat is answered. So it is noted here once more. Nothing is decided by this.

use std::collections::BTreeMap;

use raft::ProgressState;

use super::Replica;
use crate::types::{LogIndex, NodeId, ReplicaId};

/// Another replica of the group, as its leader knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FollowerStatus {
    /// The replica.
    pub replica: ReplicaId,
    /// Its node.
    pub node: NodeId,
    /// The last index known to be in its synced log.
    pub matched: LogIndex,
    /// Whether it has answered within an election timeout, as of now or of an election timeout ago.
    pub active: bool,
    /// Whether it is too far behind the log, and a snapshot is on its way to it.
    pub snapshot: bool,
}

/// When each follower was last heard.
#[derive(Debug, Default)]
pub(super) struct Followers {
    /// Ticks that this replica has led.
    ticks: u64,
    heard: BTreeMap<ReplicaId, u64>,
}

impl Followers {
    /// Whether nothing is known, as at a replica that does not lead.
    pub(super) fn is_empty(&self) -> bool {
        self.ticks == 0 && self.heard.is_empty()
    }

    /// A follower was heard so many ticks from now, of those that are about to pass.
    pub(super) fn note_heard_at(&mut self, replica: ReplicaId, ticks: u64) {
        self.heard.insert(replica, self.ticks + ticks);
    }

    /// So many ticks have passed.
    pub(super) fn pass(&mut self, ticks: u64) {
        self.ticks += ticks;
    }
}

impl Replica {
    /// Counts a tick; whoever does not lead has no followers.
    pub(super) fn tick_followers(&mut self) {
        if self.leads() {
            self.followers.ticks += 1;
        } else {
            self.followers = Followers::default();
        }
    }

    /// A message of this replica is stepped.
    pub(super) fn note_heard(&mut self, from: u64) {
        if self.leads() {
            self.followers.heard.insert(ReplicaId(from), self.followers.ticks);
        }
    }

    /// At the leader, the other replicas of the group, ascending.
    pub(super) fn follower_statuses(&self) -> Vec<FollowerStatus> {
        if !self.leads() {
            return Vec::new();
        }
        let election_ticks = self.raft.raft.election_timeout() as u64;
        let others = self.configuration.nodes.iter().filter(|(replica, _)| **replica != self.id);
        others
            .map(|(replica, node)| {
                let progress = self.raft.raft.prs().get(replica.0);
                let heard = self.followers.heard.get(replica);
                FollowerStatus {
                    replica: *replica,
                    node: *node,
                    matched: LogIndex(progress.map_or(0, |progress| progress.matched)),
                    active: heard.is_some_and(|heard| self.followers.ticks - heard <= election_ticks),
                    snapshot: progress.is_some_and(|progress| progress.state == ProgressState::Snapshot),
                }
            })
            .collect()
    }
}
