//! Reads that must not be stale: ReadIndex (Raft thesis 6.4), one round for all reads of a turn.
//!
//! A round proves that this replica still led when it began; what is asked of the other nodes, and why that is a proof, is told in
//! [`crate::node::rounds`]. Reads that come while a round is under way are no part of it: they wait for one that begins later.
//! A round that a change of role or term swept away is begun anew; one whose answers don't come is asked again under a new
//! number. The index that it proves is raised to the last async write that this leader has acknowledged, so that callers
//! read their own.
//!
//! At a replica that does not lead, a read of bounded age asks the leader for an index by a probe of our own. The state is
//! then at most as old as the moment at which the probe was sent, on this node's clock; heartbeats prove no age. At the leader
//! such a read shares a round, and its age reaches back to when that began: a leader that stood still meanwhile may have been
//! deposed, and does not know it. Who wants a state newer than an answer can come back goes on asking once a tick, not as fast as
//! the network brings answers.
//!
//! What a peer says of reads counts only if it holds the shard, and an answer to a probe only from the leader that was asked:
//! whoever could answer for another could have old states taken for new ones. A peer waits with its newest probe only.

use std::collections::{BTreeMap, VecDeque};

use super::{
    Replica,
    context::Context,
    validate::{INDEX_MAX, NO_MEMBER, OUT_OF_RANGE},
};
use crate::{
    disk::StateStore,
    io::{Consistency, Notice},
    message::{ClaimedLeadership, PeerMessage},
    types::{Epoch, Key, LogIndex, NodeId, ReplicaId, RequestId, Term, Time},
};

/// Rounds under way per shard; further reads wait for one to end and share the next.
const ROUNDS_MAX: usize = 4;

/// A read that waits.
#[derive(Clone, Debug)]
pub(super) struct Read {
    pub(super) request: RequestId,
    pub(super) key: Key,
    pub(super) epoch: Option<Epoch>,
    pub(super) consistency: Consistency,
    pub(super) deadline: Time,
    /// A probe was sent for it.
    pub(super) asked: bool,
}

/// Who waits for an index that is proven to be current.
#[derive(Clone, Debug)]
pub(super) enum Waiter {
    /// A client's read, answered here.
    Read(Read),
    /// Another replica's probe.
    Probe { from: NodeId, probe: u64 },
}

/// The reads of one replica.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// Not yet in a round.
    pub(super) waiting: Vec<Waiter>,
    /// The newest probe of each node that is not yet in a round.
    probes: BTreeMap<NodeId, u64>,
    /// Under way, oldest first.
    rounds: VecDeque<Round>,
    /// The last round in which each other replica recognised this one.
    recognised: BTreeMap<ReplicaId, u64>,
    /// Ticks since the last round was asked.
    unanswered_ticks: u64,
    /// The rounds under way are to be asked again.
    ask_again: bool,
    /// Proven, and not answered yet.
    pub(super) proven: Vec<Proven>,
    /// Those of bounded age for which all that was proven came too late: asked for again at the next tick.
    pub(super) too_late: Vec<Read>,
    /// The term in which the rounds were asked.
    term: Term,
    /// At a replica that does not lead.
    pub(super) follower: FollowerReads,
}

/// A round under way.
#[derive(Debug)]
struct Round {
    number: u64,
    began_at: Time,
    /// The commit index when it began.
    index: LogIndex,
    waiters: Vec<Waiter>,
}

/// What a round has proven: at this index the state was as new as the moment at which the round began.
#[derive(Debug)]
pub(super) struct Proven {
    pub(super) index: LogIndex,
    pub(super) as_of: Time,
    pub(super) waiter: Waiter,
}

/// Reads of bounded age at a replica that does not lead.
#[derive(Debug, Default)]
pub(super) struct FollowerReads {
    /// Waiting for a state that is fresh enough.
    pub(super) waiting: Vec<Read>,
    /// The probe under way.
    probe: Option<Probe>,
    /// The state is at least as new as everything acknowledged before this time.
    pub(super) fresh_as_of: Option<Time>,
}

#[derive(Debug)]
struct Probe {
    number: u64,
    /// The leader that was asked.
    of: NodeId,
    asked_at: Time,
    ticks: u64,
    index: Option<LogIndex>,
    /// Who was asked knows no index: it does not lead any more, or too many wait there. It is asked again at the next tick, or
    /// the two would go on asking and answering as fast as the network brings it.
    in_vain: bool,
}

impl Reads {
    /// How many clients wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
            + self.probes.len()
            + self.proven.len()
            + self.follower.waiting.len()
            + self.too_late.len()
            + self.rounds.iter().map(|round| round.waiters.len()).sum::<usize>()
    }

    /// Keeps only the clients' reads for which `keep` says so.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Read) -> bool) {
        let mut waiter = |waiter: &Waiter| match waiter {
            Waiter::Read(read) => keep(read),
            Waiter::Probe { .. } => true,
        };
        self.waiting.retain(&mut waiter);
        for round in &mut self.rounds {
            round.waiters.retain(&mut waiter);
        }
        self.proven.retain(|proven| waiter(&proven.waiter));
        self.too_late.retain(&mut keep);
        self.follower.waiting.retain(keep);
    }

    /// The clock went back: no age is known any more, and those who wait do so no longer than before.
    pub(super) fn clock_went_back(&mut self, micros: u64) {
        self.follower.fresh_as_of = None;
        self.follower.probe = None;
        // What a round began with is the past of another time: asked again, it has an age that is known.
        self.start_again();
        let reads = self.waiting.iter_mut().filter_map(|waiter| match waiter {
            Waiter::Read(read) => Some(read),
            Waiter::Probe { .. } => None,
        });
        for read in reads.chain(&mut self.follower.waiting).chain(&mut self.too_late) {
            read.deadline = read.deadline.minus_micros(micros);
        }
    }

    /// Each tick: rounds that were not answered within a heartbeat's time are asked again, messages may have been lost; and reads
    /// that all answers came too late for wait for newer ones.
    pub(super) fn tick(&mut self, heartbeat_ticks: u64, leads: bool) {
        let again = std::mem::take(&mut self.too_late).into_iter().map(|read| Read { asked: false, ..read });
        if leads {
            self.waiting.extend(again.map(Waiter::Read));
        } else {
            self.follower.waiting.extend(again);
        }
        self.unanswered_ticks += 1;
        self.ask_again = !self.rounds.is_empty() && self.unanswered_ticks >= heartbeat_ticks && !mutant!("B4");
    }

    /// The probe's index is applied: the state is as new as the moment at which the probe was sent.
    pub(super) fn settle_probe(&mut self, applied: LogIndex) {
        let follower = &mut self.follower;
        if let Some(probe) = &follower.probe
            && let Some(index) = probe.index
        {
            if index > applied && !crate::mutant!("B6") {
                point!(ProbeWaitedForApply);
                return;
            }
            follower.fresh_as_of = follower.fresh_as_of.max(Some(probe.asked_at));
            follower.probe = None;
        }
    }

    /// Role or term changed: rounds and indexes of before prove nothing any more.
    pub(super) fn start_again(&mut self) {
        point!(ReadAskedAgain if !self.rounds.is_empty());
        point!(ReadProvenAskedAgain if !self.proven.is_empty());
        self.recognised.clear();
        // The next leader is asked at once, and what an earlier one has told is not waited for in vain.
        self.follower.probe = None;
        self.follower.waiting.iter_mut().for_each(|read| read.asked = false);
        let asked: Vec<Waiter> = std::mem::take(&mut self.rounds).into_iter().flat_map(|round| round.waiters).collect();
        let proven = std::mem::take(&mut self.proven).into_iter().map(|proven| proven.waiter);
        for waiter in asked.into_iter().chain(proven) {
            match waiter {
                Waiter::Probe { from, probe } => {
                    self.probes.entry(from).or_insert(probe);
                }
                Waiter::Read(_) => self.waiting.push(waiter),
            }
        }
    }

    /// A replica that does not lead proves nothing to others: they ask whoever does.
    pub(super) fn forget_probes(&mut self) {
        self.probes.clear();
    }

    /// Whether a probe of this replica is under way.
    pub(super) fn is_probing(&self) -> bool {
        self.follower.probe.is_some()
    }

    /// So many ticks have passed while nobody asked.
    pub(super) fn pass(&mut self, ticks: u64) {
        self.unanswered_ticks += ticks;
    }

    /// Whether no read, no round and no probe is under way.
    pub(super) fn nobody_asks(&self) -> bool {
        self.nobody_waits()
            && self.rounds.is_empty()
            && self.proven.is_empty()
            && self.too_late.is_empty()
            && self.follower.waiting.is_empty()
            && !self.is_probing()
    }

    fn nobody_waits(&self) -> bool {
        self.waiting.is_empty() && self.probes.is_empty()
    }
}

impl Replica {
    /// Begins a round for the reads that wait, if this replica can prove that it leads.
    pub(super) fn ask_round<S: StateStore>(&mut self, cx: &mut Context<'_, S>) {
        if !self.leads() {
            return;
        }
        if self.reads.ask_again {
            point!(RoundAskedAgain);
            self.ask_peers(cx);
        }
        if self.reads.nobody_waits() {
            return;
        }
        #[cfg(kv_mutants)]
        if self.answers_without_a_round(cx) {
            return;
        }
        if !self.can_ask_round() {
            point!(ReadWaitedForARound if self.reads.rounds.len() >= ROUNDS_MAX);
            point!(ReadHeldUntilCommit if !self.raft.raft.commit_to_current_term());
            return;
        }
        let mut waiters = std::mem::take(&mut self.reads.waiting);
        if !self.reads.probes.is_empty() {
            // Who asked waits until it has applied what is proven, and may not have heard yet that it is decided.
            self.raft.ping();
            let probes = std::mem::take(&mut self.reads.probes);
            waiters.extend(probes.into_iter().map(|(from, probe)| Waiter::Probe { from, probe }));
        }
        if let Some(last) = self.reads.rounds.back_mut()
            && mutant!("R1")
        {
            last.waiters.extend(waiters);
            return;
        }
        let round = Round { number: cx.rounds.next(), began_at: cx.now, index: self.commit(), waiters };
        self.reads.term = self.term();
        self.reads.rounds.push_back(round);
        self.ask_peers(cx);
        // Alone it needs nobody.
        self.settle_rounds();
    }

    /// Asks all other replicas in the round that is sent at the end of this turn. Whoever answers that one proves those before it
    /// as well.
    fn ask_peers<S: StateStore>(&mut self, cx: &mut Context<'_, S>) {
        (self.reads.ask_again, self.reads.unanswered_ticks) = (false, 0);
        let (shard, term) = (self.shard, self.term());
        for (replica, node) in self.configuration.nodes.iter().filter(|(replica, _)| **replica != self.id) {
            cx.rounds.ask(*node, ClaimedLeadership { shard, replica: *replica, term });
        }
    }

    /// Whether reads wait that a round may be begun for. Before its first commit in its term a leader does not know what is
    /// committed.
    pub(super) fn can_ask_round(&self) -> bool {
        self.leads()
            && !self.reads.nobody_waits()
            && self.reads.rounds.len() < ROUNDS_MAX
            && self.raft.raft.commit_to_current_term()
    }

    /// Whether this replica knows who asks as the leader that it claims to be, or why nobody honest would ask. In whatever state
    /// it is: it counts wherever its vote does.
    pub(crate) fn recognises(&self, from: NodeId, claimed: ClaimedLeadership) -> Result<bool, &'static str> {
        if claimed.replica != self.id {
            return Err("it is for another replica");
        }
        if self.replica_on(from).is_none() {
            return Err(NO_MEMBER);
        }
        if claimed.term == Term(0) || claimed.term > self.term_max() {
            return Err(OUT_OF_RANGE);
        }
        let is_current = claimed.term == self.term() || mutant!("R2");
        Ok(is_current && !self.is_quarantined())
    }

    /// The replica on another node recognised this one in a round: true if that proves anything that was not proven before, or why
    /// nobody honest would say so.
    pub(crate) fn recognised(&mut self, from: NodeId, number: u64) -> Result<bool, &'static str> {
        let Some(replica) = self.replica_on(from) else {
            return Err(NO_MEMBER);
        };
        if !self.leads() || self.term() != self.reads.term {
            point!(RoundOfThePastProven);
            return Ok(false);
        }
        let last = self.reads.recognised.entry(replica).or_default();
        *last = number.max(*last);
        if mutant!("R3") {
            *last = self.reads.rounds.back().map_or(*last, |round| round.number);
        }
        Ok(self.settle_rounds())
    }

    /// Ends the rounds that a majority has answered; true if there are any. Their reads may be answered once the index is applied.
    fn settle_rounds(&mut self) -> bool {
        let mut has_proven = false;
        while let Some(round) = self.reads.rounds.front() {
            let recognised = &self.reads.recognised;
            let is_proven = self.configuration.is_majority(|replica| {
                replica == self.id || recognised.get(&replica).is_some_and(|last| *last >= round.number)
            });
            if !is_proven {
                break;
            }
            has_proven = true;
            let Some(Round { began_at: as_of, index, waiters, .. }) = self.reads.rounds.pop_front() else { break };
            let acknowledged = self.proposals.acknowledged_up_to();
            point!(ReadWaitedForAsync if acknowledged > index);
            let index = index.max(acknowledged);
            self.reads.proven.extend(waiters.into_iter().map(|waiter| Proven { index, as_of, waiter }));
        }
        has_proven
    }

    /// Planted: reads are answered without any proof (B1), before the first commit of the term (B3), or as raft's own lease
    /// does (B5).
    #[cfg(kv_mutants)]
    fn answers_without_a_round<S: StateStore>(&mut self, cx: &Context<'_, S>) -> bool {
        let has_committed = self.raft.raft.commit_to_current_term();
        let index = match () {
            () if mutant!("B1") => self.handed_out,
            () if mutant!("B3") && !has_committed => LogIndex(0),
            () if mutant!("B5") && has_committed => self.commit(),
            () => return false,
        };
        let probes = std::mem::take(&mut self.reads.probes);
        let waiting = std::mem::take(&mut self.reads.waiting).into_iter();
        let waiting = waiting.chain(probes.into_iter().map(|(from, probe)| Waiter::Probe { from, probe }));
        self.reads.proven.extend(waiting.map(|waiter| Proven { index, as_of: cx.now, waiter }));
        true
    }

    /// Moves the probe for reads of bounded age along: one under way, asked again if no answer came.
    pub(super) fn ask_probe<S: StateStore>(&mut self, cx: &mut Context<'_, S>, tick: bool) {
        let election_ticks = cx.settings.election_ticks;
        if let Some(probe) = &mut self.reads.follower.probe {
            probe.ticks += u64::from(tick);
            let is_lost = probe.index.is_none() && probe.ticks >= election_ticks;
            if !(is_lost || (probe.in_vain && tick)) {
                return;
            }
            point!(ProbeAskedAgain if !probe.in_vain);
            self.reads.follower.probe = None;
        }
        if self.reads.follower.waiting.is_empty() || self.leads() {
            return;
        }
        let Some(leader) = self.leader() else { return };
        self.reads.follower.waiting.iter_mut().for_each(|read| read.asked = true);
        let number = cx.unique.next_number();
        self.reads.follower.probe =
            Some(Probe { number, of: leader, asked_at: cx.now, ticks: 0, index: None, in_vain: false });
        cx.send(leader, PeerMessage::ReadProbe { shard: self.shard, probe: number });
    }

    /// Another replica asks for a current index.
    pub(crate) fn probed<S: StateStore>(&mut self, from: NodeId, probe: u64, cx: &mut Context<'_, S>) {
        if !self.leads() || self.reads.len() >= cx.settings.waiting_requests_max {
            point!(ProbeRefused);
            cx.send(from, PeerMessage::ReadProbeAnswer { shard: self.shard, probe, index: None });
            return;
        }
        // Who asks anew no longer waits for what it asked before.
        self.reads.probes.insert(from, probe);
    }

    /// The leader's answer to this replica's probe.
    pub(crate) fn probe_answered<S: StateStore>(
        &mut self,
        from: NodeId,
        number: u64,
        index: Option<LogIndex>,
        cx: &mut Context<'_, S>,
    ) {
        if index.is_some_and(|index| index.0 > INDEX_MAX) {
            return self.refuse(from, OUT_OF_RANGE, cx);
        }
        let Some(probe) = self.reads.follower.probe.as_mut().filter(|probe| probe.number == number) else {
            point!(ProbeAnsweredLate);
            return;
        };
        if probe.of != from {
            return self.refuse(from, "it answers what another was asked", cx);
        }
        match index {
            Some(index) => probe.index = Some(index),
            None => {
                point!(ProbeInVain);
                probe.in_vain = true;
            }
        }
    }

    fn refuse<S: StateStore>(&self, from: NodeId, reason: &'static str, cx: &mut Context<'_, S>) {
        cx.notice(Notice::Refused { from, shard: Some(self.shard), reason });
    }
}
