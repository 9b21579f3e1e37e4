//! What ticks and heartbeats ask of a replica in which nothing happens, in a few words of memory.
//!
//! A node may have a thousand replicas, and each hears a tick twenty times a second and a heartbeat ten times. What a replica has
//! in memory is spread over dozens of places, and fetching those was nearly all of the cost. So one that rests ([`super::rest`])
//! leaves a *pulse*: its term, its commit index, its peers, and when something is due at the earliest. While nothing else happens
//! the pulse takes the ticks and the heartbeats of this term and sends what raft would have sent. Whatever else comes *wakes* the replica
//! first: it is given the ticks that it owes and what it was told, and is then as if it had taken each of them when it came.
//!
//! Nothing is sent less often, heard less often, or decided by a pulse. A follower is woken at the tick at which its
//! election timeout passes. A leader is woken at the tick at which it sees whether a majority was heard, and raft itself is told
//! before who was; raft hears of a greater term, of a vote asked for, of an entry, when it comes, since each of them wakes the replica.
//! Whether followers have been heard lately is told to operators ([`super::FollowerStatus`]) as of the last time that it was awake, at
//! most an election timeout ago.

use raft::{ProgressState, StateRole};

use super::{Phase, Replica, context::Context, convert::message_to_raft};
use crate::{
    disk::StateStore,
    io::Output,
    message::{Heartbeat, PeerMessage, RaftMessage},
    shard_map::ShardRow,
    state::ShardState,
    types::{LogIndex, NodeId, ReplicaId, ShardId, Term},
};

/// Most other replicas of a group whose leader can leave a pulse.
const OTHERS_MAX: usize = 4;

/// A replica at rest.
#[derive(Clone, Debug)]
pub(crate) struct Pulse {
    leads: bool,
    own: ReplicaId,
    term: Term,
    commit: LogIndex,
    /// At a leader all others of the group, at a follower its leader.
    others: [Option<Other>; OTHERS_MAX],
    /// Ticks that came and that the replica was not given.
    ticks: u64,
    /// Visits for checkpoints, one in each turn that had ticks, that it was not given.
    visits: u64,
    /// The visit at which a checkpoint may be due.
    visit_due: u64,
    /// Ticks since a follower heard its leader, or since a leader last saw whether it had heard a majority.
    elapsed_ticks: u64,
    /// How many of those there may be.
    elapsed_ticks_max: u64,
    /// Ticks since a leader's last heartbeat.
    silent_ticks: u64,
    heartbeat_ticks: u64,
    /// Heartbeats, or answers, that are to leave at the end of this turn.
    unsent: usize,
    sessions_bytes: usize,
    log_bytes: usize,
}

#[derive(Clone, Copy, Debug)]
struct Other {
    replica: ReplicaId,
    node: NodeId,
    /// How many ticks were owed when it was last heard, and the commit index that it told; `None` if it has not been.
    heard: Option<(u64, LogIndex)>,
}

/// What a tick asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beat {
    /// Nothing.
    None,
    /// Heartbeats are to be sent at the end of the turn.
    Sends,
    /// The replica must be woken, and take the tick itself.
    Wakes,
}

impl Pulse {
    /// A tick.
    pub(crate) fn tick(&mut self) -> Beat {
        if self.elapsed_ticks + 1 >= self.elapsed_ticks_max {
            return Beat::Wakes;
        }
        self.ticks += 1;
        self.elapsed_ticks += 1;
        self.silent_ticks += 1;
        if !self.leads || self.silent_ticks < self.heartbeat_ticks {
            return Beat::None;
        }
        self.silent_ticks = 0;
        self.unsent += 1;
        Beat::Sends
    }

    /// A visit for checkpoints; false if the replica must be woken for it.
    pub(crate) fn visit(&mut self) -> bool {
        let is_due = self.visits + 1 >= self.visit_due;
        self.visits += u64::from(!is_due);
        !is_due
    }

    /// A message from a node. False if it is more than a heartbeat, or another than is expected: then the replica must be woken.
    pub(crate) fn hear(&mut self, from: NodeId, message: &RaftMessage) -> bool {
        let Some(heartbeat) = Heartbeat::of(message) else { return false };
        let is_expected = heartbeat.is_answer == self.leads
            && heartbeat.to == self.own
            && heartbeat.term == self.term
            && heartbeat.commit <= self.commit;
        let mut others = self.others.iter_mut().flatten();
        let Some(other) = others.find(|other| other.replica == heartbeat.from && other.node == from) else {
            return false;
        };
        if !is_expected {
            return false;
        }
        if self.leads {
            let commit = other.heard.map_or(LogIndex(0), |(_, commit)| commit).max(heartbeat.commit);
            other.heard = Some((self.ticks, commit));
        } else {
            self.elapsed_ticks = 0;
            self.unsent += 1;
        }
        true
    }

    /// Whether anything is to be sent at the end of the turn.
    pub(crate) fn has_unsent(&self) -> bool {
        self.unsent > 0
    }

    /// Sends what raft would have had ready.
    pub(crate) fn send(&mut self, shard: ShardId, outputs: &mut Vec<Output>) {
        let Self { leads, own: from, term, commit, .. } = *self;
        for _ in 0..std::mem::take(&mut self.unsent) {
            for Other { replica: to, node, .. } in self.others.iter().flatten() {
                let message = Heartbeat { is_answer: !leads, to: *to, from, term, commit }.into();
                outputs.push(Output::Send { to: *node, message: PeerMessage::Raft { shard, message } });
            }
        }
    }

    /// Bytes of the replica's sessions.
    pub(crate) fn sessions_bytes(&self) -> usize {
        self.sessions_bytes
    }

    /// Bytes of its log in memory.
    pub(crate) fn log_bytes(&self) -> usize {
        self.log_bytes
    }

    fn heartbeat_to_itself(&self, other: &Other, commit: LogIndex) -> RaftMessage {
        Heartbeat { is_answer: self.leads, to: self.own, from: other.replica, term: self.term, commit }.into()
    }
}

impl Replica {
    /// What takes ticks and heartbeats from now on, if they would be all that there is to do. Asked behind the visit for checkpoints.
    pub(crate) fn pulse<S: StateStore>(&self, cx: &Context<'_, S>) -> Option<Pulse> {
        let Phase::Live(state) = &self.phase else { return None };
        let raft = &self.raft.raft;
        let is_unfit = cx.leaving || cx.disk_full || cx.log_full;
        if is_unfit
            || self.needs_pass(cx)
            || !self.flights.is_empty()
            || self.left.is_some()
            || !self.floors.is_empty()
            || !self.leadership.rests()
            || !self.checkpointing.rests()
            || self.is_busy()
            || !self.marks_rest()
            || !self.election.has_drawn(raft.state, raft.term)
            || raft.raft_log.last_index() != raft.raft_log.committed
        {
            return None;
        }
        let (leads, elapsed_ticks_max) = match raft.state {
            StateRole::Leader if self.leads_at_rest(cx) => (true, raft.election_timeout() as u64),
            StateRole::Follower if raft.promotable() && self.followers.is_empty() => {
                (false, self.election.drawn_ticks())
            }
            _ => return None,
        };
        let visit_due =
            if state.is_changed() { self.checkpointing.visits_left(cx.settings.checkpoint_ticks) } else { u64::MAX };
        Some(Pulse {
            leads,
            own: self.id,
            term: self.term(),
            commit: self.commit(),
            others: self.others_at_rest(leads)?,
            ticks: 0,
            visits: 0,
            visit_due,
            elapsed_ticks: raft.election_elapsed as u64,
            elapsed_ticks_max,
            silent_ticks: raft.heartbeat_elapsed() as u64,
            heartbeat_ticks: raft.heartbeat_timeout() as u64,
            unsent: 0,
            sessions_bytes: ShardState::sessions_bytes(state),
            log_bytes: self.log_bytes(),
        })
    }

    /// Whether a leader has nothing to send but heartbeats, and nobody to hand over to. The owner is the ring's: it does not change.
    fn leads_at_rest<S: StateStore>(&self, cx: &Context<'_, S>) -> bool {
        let raft = &self.raft.raft;
        let owner = cx.map.row(self.shard).and_then(ShardRow::owner).and_then(|node| self.replica_on(node));
        let last = raft.raft_log.last_index();
        raft.lead_transferee.is_none()
            && owner.is_none_or(|owner| owner == self.id)
            && raft.prs().iter().all(|(_, progress)| {
                progress.matched == last
                    && progress.state != ProgressState::Snapshot
                    && progress.pending_request_snapshot == 0
                    && !progress.ins.full()
            })
    }

    fn others_at_rest(&self, leads: bool) -> Option<[Option<Other>; OTHERS_MAX]> {
        let mut others = [None; OTHERS_MAX];
        let other = |replica: u64| {
            let replica = ReplicaId(replica);
            self.node_of(replica).map(|node| Other { replica, node, heard: None })
        };
        if leads {
            // In the order in which raft has its messages ready.
            let ids = self.raft.raft.prs().iter().map(|(id, _)| *id).filter(|id| *id != self.id.0);
            for (place, id) in ids.enumerate() {
                *others.get_mut(place)? = Some(other(id)?);
            }
        } else {
            others[0] = Some(other(self.raft.raft.leader_id)?);
        }
        Some(others)
    }

    /// Gives the replica what its pulse took in its place.
    pub(crate) fn wake(&mut self, pulse: &Pulse) {
        point!(PulseWoken);
        point!(PulseWokenUnsent if pulse.unsent > 0);
        let raft = &mut self.raft.raft;
        if pulse.leads {
            for _ in 0..pulse.ticks {
                raft.tick();
            }
            // All of it are heartbeats, and all but those of this turn have been sent.
            let unsent = pulse.unsent * pulse.others.iter().flatten().count();
            raft.msgs.drain(..raft.msgs.len().saturating_sub(unsent));
            for other in pulse.others.iter().flatten() {
                if let Some((ticks, commit)) = other.heard {
                    self.followers.note_heard_at(other.replica, ticks);
                    let _ = self.raft.step(message_to_raft(&pulse.heartbeat_to_itself(other, commit)));
                }
            }
            self.followers.pass(pulse.ticks);
        } else {
            for other in pulse.others.iter().flatten() {
                for _ in 0..pulse.unsent {
                    let _ = self.raft.step(message_to_raft(&pulse.heartbeat_to_itself(other, pulse.commit)));
                }
            }
            self.raft.raft.election_elapsed = usize::try_from(pulse.elapsed_ticks).unwrap_or(usize::MAX / 2);
        }
        self.leadership.pass(pulse.ticks, pulse.leads);
        self.reads.pass(pulse.ticks);
        self.checkpointing.pass(pulse.visits);
        self.marks_pass(pulse.visits);
    }
}
