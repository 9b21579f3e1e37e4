//! Ticks, messages and changes of role; and who ought to lead.
//!
//! Leadership goes to the ring's owner once it has been healthy and caught up for a while. A leader whose state is not
//! proven, whose disk stalls or whose node stops gives its leadership to whoever is fit.

use super::{Phase, Replica, context::Context, convert::message_to_raft, election::Eagerness, validate::Verdict};
use crate::{
    disk::StateStore,
    error::{Error, ErrorKind},
    io::{Answer, Notice},
    message::{RaftMessage, RaftMessageKind},
    shard_map::ShardRow,
    types::{NodeId, ReplicaId, RequestId, Term, Time},
};

/// What was last seen of the role, and what the leader counts.
#[derive(Debug, Default)]
pub(super) struct Leadership {
    seen: (bool, Term, Option<NodeId>),
    /// For how many ticks the ring's owner has been fit to lead.
    owner_fit_ticks: u64,
    /// For how many ticks in a row it has not been.
    owner_unfit_ticks: u64,
    /// Ticks since the last hand-over to it; saturating.
    since_hand_over_ticks: u64,
    handed_over: bool,
}

impl Replica {
    /// The owner of a shard campaigns at once when the cluster is founded.
    pub(crate) fn campaign_first(&mut self) {
        let _ = self.raft.campaign();
    }

    /// One tick of the logical clock.
    pub(crate) fn tick<S: StateStore>(&mut self, cx: &mut Context<'_, S>) {
        if self.is_quarantined() {
            return;
        }
        let (role, term) = (self.raft.raft.state, self.raft.raft.term);
        let timeout = self.election.timeout(role, term, self.eagerness());
        self.raft.raft.set_randomized_election_timeout(timeout);
        self.raft.tick();
        if !self.leads() && self.raft.raft.election_elapsed == 0 {
            self.election.redraw();
        }
        self.expire(cx);
        self.ask_probe(cx, true);
        self.tick_incoming(cx);
        if self.leads() {
            self.seek_fit_leader(cx);
        }
    }

    fn eagerness(&self) -> Eagerness {
        if self.is_installing() {
            return Eagerness::Never;
        }
        match self.phase {
            Phase::Live(_) => Eagerness::Ready,
            _ => Eagerness::Unverified,
        }
    }

    /// A message of the group from another node.
    pub(crate) fn step<S: StateStore>(&mut self, from: NodeId, message: &RaftMessage, cx: &mut Context<'_, S>) {
        if self.is_quarantined() {
            return;
        }
        match self.judge(from, message) {
            Verdict::Step => {}
            Verdict::Drop => return,
            Verdict::Refuse(reason) => {
                return cx.notice(Notice::Refused { from, reason: format!("shard {}: {reason}", self.shard) });
            }
            Verdict::Quarantine(reason) => return self.quarantine(reason, cx),
        }
        // At its bound a follower takes no more entries until it can apply again, but goes on answering heartbeats and votes.
        let full = cx.tables_bytes >= cx.settings.tables_bytes_max || self.state().is_none();
        if message.kind == RaftMessageKind::Append
            && full
            && !message.entries.is_empty()
            && self.raft.store().bytes() >= 2 * cx.settings.kept_bytes_max
        {
            return;
        }
        // Dropped by raft: responses of replicas that it does not know, proposals without a leader.
        let _ = self.raft.step(message_to_raft(message));
    }

    /// Compares role, term and leader with what was last seen, and sees to what a change means for those who wait.
    pub(crate) fn observe<S: StateStore>(&mut self, cx: &mut Context<'_, S>) -> bool {
        let now = (self.leads(), self.term(), self.leader());
        let before = std::mem::replace(&mut self.leadership.seen, now);
        if before == now {
            return false;
        }
        if (before.0, before.1) != (now.0, now.1) {
            self.reads.start_again();
            self.leadership.owner_fit_ticks = 0;
            if before.0 {
                self.give_up_proposals(cx);
            }
        }
        if !now.0 {
            self.refuse_what_needs_a_leader(cx);
        }
        cx.notice(Notice::Role { shard: self.shard, leads: now.0, term: now.1, leader: now.2 });
        true
    }

    fn refuse_what_needs_a_leader<S: StateStore>(&mut self, cx: &mut Context<'_, S>) {
        let queued = std::mem::take(&mut self.proposals.queued);
        let requests = queued.into_iter().filter_map(|queued| queued.waiting.unanswered());
        let mut requests: Vec<RequestId> = requests.collect();
        for waiter in std::mem::take(&mut self.reads.waiting) {
            if let super::reads::Waiter::Read(read) = waiter {
                requests.push(read.request);
            }
        }
        for request in requests {
            let error = self.not_leading(cx);
            cx.reply(request, Err(error));
        }
    }

    /// Begins to hand the leadership to a node.
    pub(crate) fn hand_to<S: StateStore>(&mut self, request: RequestId, to: NodeId, cx: &mut Context<'_, S>) {
        let result = if !self.leads() {
            Err(self.not_leading(cx))
        } else {
            match self.replica_on(to).filter(|replica| self.is_voter(*replica)) {
                None => Err(Error::invalid(format!("node {to} has no voting replica of shard {}", self.shard))),
                Some(replica) => {
                    if replica != self.id {
                        self.raft.transfer_leader(replica.0);
                    }
                    Ok(Answer::TransferBegun)
                }
            }
        };
        cx.reply(request, result);
    }

    /// Each tick at the leader: gives the leadership away if it must, or to the ring's owner if it may.
    fn seek_fit_leader<S: StateStore>(&mut self, cx: &Context<'_, S>) {
        self.leadership.since_hand_over_ticks = self.leadership.since_hand_over_ticks.saturating_add(1);
        if self.raft.raft.lead_transferee.is_some() {
            return;
        }
        if cx.leaving || cx.disk_full || self.state().is_none() {
            if let Some(fit) = self.fittest() {
                self.raft.transfer_leader(fit.0);
            }
            return;
        }
        let owner = cx.map.row(self.shard).and_then(ShardRow::owner).and_then(|node| self.replica_on(node));
        let Some(owner) = owner.filter(|owner| *owner != self.id) else { return };
        if !self.is_fit(owner) {
            // raft forgets once an election timeout who answered, until the next heartbeat is answered.
            self.leadership.owner_unfit_ticks += 1;
            if self.leadership.owner_unfit_ticks > 2 * cx.settings.heartbeat_ticks {
                self.leadership.owner_fit_ticks = 0;
            }
            return;
        }
        self.leadership.owner_unfit_ticks = 0;
        self.leadership.owner_fit_ticks += 1;
        let rested =
            !self.leadership.handed_over || self.leadership.since_hand_over_ticks >= cx.settings.hand_over_pause_ticks;
        if self.leadership.owner_fit_ticks >= cx.settings.hand_over_ticks && rested {
            self.leadership.handed_over = true;
            self.leadership.since_hand_over_ticks = 0;
            self.leadership.owner_fit_ticks = 0;
            self.raft.transfer_leader(owner.0);
        }
    }

    /// Whether another replica answers and has all that is committed.
    fn is_fit(&self, replica: ReplicaId) -> bool {
        let progress = self.raft.raft.prs().get(replica.0);
        self.is_voter(replica)
            && progress.is_some_and(|progress| progress.recent_active && progress.matched >= self.commit().0)
    }

    fn fittest(&self) -> Option<ReplicaId> {
        let others = self.configuration.voters.iter().filter(|replica| **replica != self.id && self.is_fit(**replica));
        others.max_by_key(|replica| self.raft.raft.prs().get(replica.0).map_or(0, |progress| progress.matched)).copied()
    }

    /// Ends waits whose deadline has passed.
    fn expire<S: StateStore>(&mut self, cx: &mut Context<'_, S>) {
        let now = cx.now;
        let mut timed_out: Vec<(RequestId, bool)> = Vec::new();
        self.proposals.queued.retain(|queued| match queued.waiting.unanswered() {
            Some(request) => keep(queued.waiting.deadline, now, request, false, &mut timed_out),
            // The node's own; it is queued again if it is lost.
            None => true,
        });
        for proposed in self.proposals.proposed.values_mut() {
            for waiting in &mut proposed.waiting {
                if !waiting.answered && waiting.deadline <= now {
                    waiting.answered = true;
                    timed_out.push((waiting.request, true));
                }
            }
        }
        let reads = &mut self.reads;
        reads.retain(|read| keep(read.deadline, now, read.request, false, &mut timed_out));
        self.durable_waits.retain(|wait| keep(wait.deadline, now, wait.request, true, &mut timed_out));
        for (request, unknown) in timed_out {
            let error = if unknown {
                Error::unknown(ErrorKind::Timeout, "the deadline passed before it was decided")
            } else {
                Error::not_applied(ErrorKind::Timeout, "the deadline passed before the shard could answer")
            };
            cx.reply(request, Err(error));
        }
    }
}

fn keep(deadline: Time, now: Time, request: RequestId, unknown: bool, timed_out: &mut Vec<(RequestId, bool)>) -> bool {
    if deadline > now {
        return true;
    }
    timed_out.push((request, unknown));
    false
}
