//! Ticks, messages and changes of role; and who ought to lead.
//!
//! Leadership goes to the ring's owner once it has been healthy and caught up for a while. A leader whose state is not
//! proven, whose disk stalls or whose node stops gives its leadership to whoever is fit.

use raft::StateRole;

use super::{
    Phase, Replica, context::Context, convert::message_to_raft, election::Eagerness, reads::Waiter, validate::Verdict,
};
use crate::{
    disk::StateStore,
    error::{Error, ErrorKind},
    io::{Answer, Consistency, Notice},
    message::{RaftMessage, RaftMessageKind},
    shard_map::ShardRow,
    types::{NodeId, ReplicaId, RequestId, Term, Time},
};

/// For so many ticks the owner of a new shard, or of one that it has just loaded, campaigns every other tick, unless somebody leads: a
/// member that is not founded yet, or starts as well, does not hear the first campaign.
const EAGER_TICKS: u64 = 20;

/// Whoever has voted for another gives it this many ticks to be heard as leader.
const VOTE_TICKS: usize = 2;

/// A leader that is not fit leads for so many election timeouts before it gives the leadership away.
const UNFIT_TIMEOUTS: u64 = 2;
/// Each time that it comes back to one that is still not fit it stays twice as long, up to this many times: where nobody is fit,
/// what could make them so (a snapshot on its way to whoever lags, above all) needs a leader that stays.
const UNFIT_DOUBLINGS_MAX: u32 = 5;
/// Who has not led for so many times as long has given the leadership to somebody who was fit.
const UNFIT_FORGOTTEN_TIMES: u64 = 16;

/// What was last seen of the role, and what the leader counts.
#[derive(Debug, Default)]
pub(super) struct Leadership {
    seen: (bool, Term, Option<NodeId>),
    /// The same leader by raft's number.
    seen_leader: u64,
    /// For how many ticks the ring's owner has been fit to lead.
    owner_fit_ticks: u64,
    /// For how many ticks in a row it has not been.
    owner_unfit_ticks: u64,
    /// For how many ticks this replica has led.
    leading_ticks: u64,
    /// For how many ticks more the owner of the shard campaigns again and again.
    eager_ticks: u64,
    /// Ticks since the last hand-over to it; saturating.
    since_hand_over_ticks: u64,
    handed_over: bool,
    /// A hand-over is under way.
    handing: bool,
    /// How often this replica gave the leadership away for want of fitness, and may have got it back from others that want it too.
    unfit_hand_overs: u32,
    /// Ticks since this replica last led.
    since_led_ticks: u64,
}

impl Leadership {
    /// For how long this replica leads, if it is not fit, before it gives the leadership away.
    fn unfit_ticks_max(&self, election_ticks: u64) -> u64 {
        (UNFIT_TIMEOUTS * election_ticks) << self.unfit_hand_overs.min(UNFIT_DOUBLINGS_MAX)
    }

    /// Whether a tick would do no more than to count.
    pub(super) fn rests(&self) -> bool {
        self.eager_ticks == 0 && !self.handing
    }

    /// So many ticks have passed in which the replica was fit to lead, and if it leads had nobody to hand the leadership to.
    pub(super) fn pass(&mut self, ticks: u64, leads: bool) {
        if ticks == 0 {
            return;
        }
        self.unfit_hand_overs = 0;
        if leads {
            self.since_led_ticks = 0;
            self.since_hand_over_ticks = self.since_hand_over_ticks.saturating_add(ticks);
            self.leading_ticks += ticks;
        } else {
            self.since_led_ticks = self.since_led_ticks.saturating_add(ticks);
        }
    }

    /// Each tick: who is fit, or has long not been asked to lead, has nothing to remember.
    fn note_fitness(&mut self, is_fit: bool, leads: bool, election_ticks: u64) {
        self.since_led_ticks = if leads { 0 } else { self.since_led_ticks.saturating_add(1) };
        if is_fit || self.since_led_ticks > UNFIT_FORGOTTEN_TIMES * self.unfit_ticks_max(election_ticks) {
            self.unfit_hand_overs = 0;
        }
    }
}

/// Whether nothing on this node should lead.
fn is_node_unfit<S: StateStore>(cx: &Context<'_, S>) -> bool {
    cx.leaving || cx.disk_full || cx.log_full
}

impl Replica {
    /// The owner of a shard campaigns at once when the cluster is founded, and again until the others have been founded too.
    pub(crate) fn campaign_first(&mut self) {
        self.leadership.eager_ticks = EAGER_TICKS;
        if self.may_campaign_early() {
            let _ = self.raft.campaign();
        }
    }

    /// The owner of a shard whose state is proven campaigns likewise if it knows of no leader: after a start of all nodes nobody has to
    /// wait for an election timeout. Where a majority hears a leader, the pre-votes change nothing.
    pub(super) fn campaign_when_proven<S: StateStore>(&mut self, cx: &Context<'_, S>) {
        let is_owner = cx.map.row(self.shard).and_then(ShardRow::owner) == Some(cx.node);
        if is_owner && self.raft.raft.leader_id == 0 && !self.is_unfit_to_lead(cx) {
            point!(OwnerCampaignedWhenProven);
            self.campaign_first();
        }
    }

    fn campaign_again<S: StateStore>(&mut self, cx: &Context<'_, S>) {
        if self.leadership.eager_ticks == 0 {
            return;
        }
        // Founded without a state, it may well lead without one; but not where it would have to hand the leadership over at once.
        let goes_on = self.raft.raft.leader_id == 0 && !is_node_unfit(cx);
        let ticks = if goes_on { self.leadership.eager_ticks - 1 } else { 0 };
        self.leadership.eager_ticks = ticks;
        if ticks % 2 == 1 && self.may_campaign_early() {
            point!(FirstCampaignRepeated);
            let _ = self.raft.campaign();
        }
    }

    /// Whoever doesn't wait for an election timeout must not spoil a candidacy: its own, which raft would give up for a new one with
    /// all votes that are under way, or one that it has just voted for.
    fn may_campaign_early(&self) -> bool {
        let raft = &self.raft.raft;
        let is_vote_fresh = ![0, raft.id].contains(&raft.vote) && raft.election_elapsed < VOTE_TICKS;
        point!(EarlyCampaignSpared if raft.state == StateRole::Candidate || is_vote_fresh);
        raft.state != StateRole::Candidate && !is_vote_fresh && !self.is_installing()
    }

    /// Its state is gone: whoever has one goes first.
    pub(super) fn lose_eagerness(&mut self) {
        self.leadership.eager_ticks = 0;
    }

    /// One tick of the logical clock.
    pub(crate) fn tick<S: StateStore>(&mut self, cx: &mut Context<'_, S>) {
        if self.is_quarantined() {
            return;
        }
        let (role, term) = (self.raft.raft.state, self.raft.raft.term);
        let timeout = self.election.timeout(role, term, self.eagerness());
        self.raft.raft.set_randomized_election_timeout(timeout);
        self.tick_followers();
        point!(TimeoutWhileInstalling if self.is_installing() && self.raft.raft.election_elapsed as u64 >= 2 * cx.settings.election_ticks);
        self.raft.tick();
        if !self.leads() && self.raft.raft.election_elapsed == 0 {
            self.election.redraw();
        }
        self.campaign_again(cx);
        self.expire(cx);
        self.reads.tick(cx.settings.heartbeat_ticks, self.leads());
        self.ask_probe(cx, true);
        self.tick_incoming(cx);
        let (is_fit, leads) = (!self.is_unfit_to_lead(cx), self.leads());
        self.leadership.note_fitness(is_fit, leads, cx.settings.election_ticks);
        if leads {
            self.seek_fit_leader(cx);
        }
    }

    /// Whether this replica should not lead, if anybody else can: it takes no writes.
    fn is_unfit_to_lead<S: StateStore>(&self, cx: &Context<'_, S>) -> bool {
        is_node_unfit(cx) || self.state().is_none()
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
                return cx.notice(Notice::Refused { from, shard: Some(self.shard), reason });
            }
            Verdict::Quarantine(reason) => return self.quarantine(reason, cx),
        }
        note_refusal(message);
        let mut message = message_to_raft(message);
        // At its bound a follower takes no more entries. What it answers tells the leader where it stands, and the commit
        // index still moves, so that it can apply, or take over a state.
        if self.log_is_full(cx) {
            point!(AppendWithoutEntries if !message.entries.is_empty());
            message.take_entries();
        }
        self.note_heard(message.from);
        // Dropped by raft: responses of replicas that it does not know, proposals without a leader.
        let _ = self.raft.step(message);
    }

    /// Whether role, term and leader are what was last seen.
    pub(super) fn has_told_role(&self) -> bool {
        let (leads, term, _) = self.leadership.seen;
        (leads, term, self.leadership.seen_leader) == (self.leads(), self.term(), self.raft.raft.leader_id)
    }

    /// Compares role, term and leader with what was last seen, and sees to what a change means for those who wait.
    pub(crate) fn observe<S: StateStore>(&mut self, cx: &mut Context<'_, S>) -> bool {
        let now = (self.leads(), self.term(), self.leader());
        let before = std::mem::replace(&mut self.leadership.seen, now);
        self.leadership.seen_leader = self.raft.raft.leader_id;
        if before == now {
            return false;
        }
        if (before.0, before.1) != (now.0, now.1) {
            point!(LeaderHeardNoMajority if before.0 && !now.0 && before.1 == now.1);
            point!(HandOverDone if self.leadership.handing && !now.0);
            self.leadership.handing = false;
            self.reads.start_again();
            self.leadership.owner_fit_ticks = 0;
            self.leadership.leading_ticks = 0;
            if before.0 {
                self.give_up_proposals(cx);
            }
        }
        point!(LeaderUnproven if now.0 && self.state().is_none());
        if now.0 {
            // It has nobody to ask any more: it proves itself.
            let waiting = std::mem::take(&mut self.reads.follower.waiting);
            point!(ReadMovedToTheLeader if !waiting.is_empty());
            self.reads.waiting.extend(waiting.into_iter().map(Waiter::Read));
        } else {
            self.refuse_what_needs_a_leader(cx);
        }
        cx.notice(Notice::Role { shard: self.shard, leads: now.0, term: now.1, leader: now.2 });
        true
    }

    fn refuse_what_needs_a_leader<S: StateStore>(&mut self, cx: &mut Context<'_, S>) {
        let queued = self.proposals.take_queued();
        let mut requests: Vec<RequestId> =
            queued.into_iter().filter_map(|queued| queued.waiting.unanswered()).collect();
        for waiter in std::mem::take(&mut self.reads.waiting) {
            match waiter {
                Waiter::Read(read) if read.consistency == Consistency::Linearizable => requests.push(read.request),
                // A read of bounded age goes on at a replica that does not lead.
                Waiter::Read(read) => {
                    point!(ReadMovedToAFollower);
                    self.reads.follower.waiting.push(read);
                }
                Waiter::Probe { .. } => {}
            }
        }
        self.reads.forget_probes();
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
        let handing = self.raft.raft.lead_transferee.is_some();
        point!(HandOverGivenUp if self.leadership.handing && !handing);
        self.leadership.handing = handing;
        if handing {
            return;
        }
        self.leadership.leading_ticks += 1;
        if self.is_unfit_to_lead(cx) {
            // Whether another is any fitter is not known here. So nobody gives the leadership away as soon as it has it, later
            // and later if it comes back, and each term's choice is another: it comes to rest at whoever is fit.
            if cx.leaving
                || self.leadership.leading_ticks >= self.leadership.unfit_ticks_max(cx.settings.election_ticks)
            {
                let Some(other) = self.other_in_turn() else {
                    point!(HandOverToNobody);
                    return;
                };
                point!(HandOverLeaving if cx.leaving);
                point!(HandOverDiskFull if cx.disk_full);
                point!(HandOverLogFull if cx.log_full);
                point!(HandOverUnproven if self.state().is_none());
                self.leadership.handing = true;
                point!(HandOverOnceMore if self.leadership.unfit_hand_overs > 0);
                self.leadership.unfit_hand_overs = self.leadership.unfit_hand_overs.saturating_add(1);
                self.raft.transfer_leader(other.0);
            }
            return;
        }
        let owner = cx.map.row(self.shard).and_then(ShardRow::owner).and_then(|node| self.replica_on(node));
        let Some(owner) = owner.filter(|owner| *owner != self.id) else { return };
        if !self.is_fit(owner) {
            // raft forgets once an election timeout who answered, until the next heartbeat is answered.
            self.leadership.owner_unfit_ticks += 1;
            if self.leadership.owner_unfit_ticks > 2 * cx.settings.heartbeat_ticks {
                point!(OwnerUnfitAgain if self.leadership.owner_fit_ticks > 0);
                self.leadership.owner_fit_ticks = 0;
            }
            return;
        }
        self.leadership.owner_unfit_ticks = 0;
        self.leadership.owner_fit_ticks += 1;
        let rested =
            !self.leadership.handed_over || self.leadership.since_hand_over_ticks >= cx.settings.hand_over_pause_ticks;
        if self.leadership.owner_fit_ticks >= cx.settings.hand_over_ticks && rested {
            point!(HandOverToOwner);
            (self.leadership.handed_over, self.leadership.handing) = (true, true);
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

    /// Another voter that has all that is committed, a different one each term.
    fn other_in_turn(&self) -> Option<ReplicaId> {
        let voters = self.configuration.voters.iter().copied();
        let fit: Vec<ReplicaId> = voters.filter(|replica| *replica != self.id && self.is_fit(*replica)).collect();
        let turn = usize::try_from(self.term().0).unwrap_or(0) % fit.len().max(1);
        fit.get(turn).copied()
    }

    /// Whether the log in memory is at its bound: checkpoints can't keep up, or there is no state to make one of. Only what is
    /// decided counts. What is not has a bound of its own at the leader, and to refuse it could keep it undecided for ever.
    pub(super) fn log_is_full<S: StateStore>(&self, cx: &Context<'_, S>) -> bool {
        let kept = cx.settings.kept_bytes_max;
        match self.state() {
            Some(_) => self.checkpointing.log_bytes() >= 2 * kept,
            None => self.raft.store().bytes_up_to(self.handed_out) >= 3 * kept,
        }
    }

    /// The node's clock went back by so much: deadlines go with it, and what was known of the state's age is worth nothing.
    pub(crate) fn clock_went_back(&mut self, micros: u64) {
        self.proposals.clock_went_back(micros);
        self.reads.clock_went_back(micros);
        for wait in &mut self.durable_waits {
            wait.deadline = wait.deadline.minus_micros(micros);
        }
    }

    /// Ends waits whose deadline has passed.
    fn expire<S: StateStore>(&mut self, cx: &mut Context<'_, S>) {
        let now = cx.now;
        let mut timed_out: Vec<(RequestId, bool)> = Vec::new();
        self.proposals.retain_queued(|queued| match queued.waiting.unanswered() {
            Some(request) => {
                point!(WriteExpiredInItsQueue if queued.waiting.deadline <= now);
                keep(queued.waiting.deadline, now, request, false, &mut timed_out)
            }
            // The node's own; it is queued again if it is lost.
            None => true,
        });
        for proposed in self.proposals.proposed.values_mut() {
            for waiting in &mut proposed.waiting {
                if !waiting.answered && waiting.deadline <= now {
                    point!(WriteExpiredUndecided);
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

/// Votes that were hoped for in vain.
fn note_refusal(message: &RaftMessage) {
    point!(PreVoteRefused if message.reject && message.kind == RaftMessageKind::RequestPreVoteResponse);
    point!(VoteRefused if message.reject && message.kind == RaftMessageKind::RequestVoteResponse);
}

fn keep(deadline: Time, now: Time, request: RequestId, unknown: bool, timed_out: &mut Vec<(RequestId, bool)>) -> bool {
    if deadline > now {
        return true;
    }
    timed_out.push((request, unknown));
    false
}
