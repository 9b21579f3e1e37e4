//! Reads that must not be stale: ReadIndex (Raft thesis 6.4), one round for all reads of a turn.
//!
//! A round's context is never used twice: raft keys its rounds by the context alone, and an old round's answers would prove
//! a new one. A round that a change of role or term swept away is asked again with a new context. The index that a round
//! proves is raised to the last async write that this leader has acknowledged, so that callers read their own.
//!
//! At a replica that does not lead, a read of bounded age asks the leader for an index by a probe of our own. The state is
//! then at most as old as the moment at which the probe was sent, on this node's clock; heartbeats prove no age. At the leader
//! such a read shares a round, and its age reaches back to when that began: a leader that stood still meanwhile may have been
//! deposed, and does not know it.

use std::collections::BTreeMap;

use super::{Replica, context::Context};
use crate::{
    disk::StateStore,
    io::Consistency,
    message::PeerMessage,
    types::{Epoch, Key, LogIndex, NodeId, RequestId, Term, Time},
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
    /// Under way, by context.
    rounds: BTreeMap<Vec<u8>, Round>,
    /// Proven, and not answered yet.
    pub(super) proven: Vec<Proven>,
    /// The term in which the rounds were asked.
    term: Term,
    /// At a replica that does not lead.
    pub(super) follower: FollowerReads,
}

/// A round under way.
#[derive(Debug)]
struct Round {
    began_at: Time,
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
    asked_at: Time,
    ticks: u64,
    index: Option<LogIndex>,
}

impl Reads {
    /// How many clients wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
            + self.proven.len()
            + self.follower.waiting.len()
            + self.rounds.values().map(|round| round.waiters.len()).sum::<usize>()
    }

    /// Keeps only the clients' reads for which `keep` says so.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Read) -> bool) {
        let mut waiter = |waiter: &Waiter| match waiter {
            Waiter::Read(read) => keep(read),
            Waiter::Probe { .. } => true,
        };
        self.waiting.retain(&mut waiter);
        for round in self.rounds.values_mut() {
            round.waiters.retain(&mut waiter);
        }
        self.proven.retain(|proven| waiter(&proven.waiter));
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
        for read in reads.chain(&mut self.follower.waiting) {
            read.deadline = read.deadline.minus_micros(micros);
        }
    }

    /// A round has ended: its reads may be answered once this index is applied.
    pub(super) fn proven(&mut self, context: &[u8], index: LogIndex, acknowledged: LogIndex) {
        if let Some(Round { began_at: as_of, waiters }) = self.rounds.remove(context) {
            point!(ReadWaitedForAsync if acknowledged > index);
            let index = index.max(acknowledged);
            self.proven.extend(waiters.into_iter().map(|waiter| Proven { index, as_of, waiter }));
        } else {
            point!(RoundOfThePastProven);
        }
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
        for round in std::mem::take(&mut self.rounds).into_values() {
            self.waiting.extend(round.waiters);
        }
        self.waiting.extend(std::mem::take(&mut self.proven).into_iter().map(|proven| proven.waiter));
    }
}

impl Replica {
    /// Begins a round for the reads that wait, if this replica can prove that it leads.
    pub(super) fn ask_round<S: StateStore>(&mut self, cx: &mut Context<'_, S>) {
        if !self.leads() || self.reads.waiting.is_empty() {
            return;
        }
        if crate::mutant!("B1") {
            let index = self.handed_out;
            let waiting = std::mem::take(&mut self.reads.waiting);
            self.reads.proven.extend(waiting.into_iter().map(|waiter| Proven { index, as_of: cx.now, waiter }));
            return;
        }
        if crate::mutant!("B3") && !self.raft.raft.commit_to_current_term() {
            let waiting = std::mem::take(&mut self.reads.waiting);
            let proven = |waiter| Proven { index: LogIndex(0), as_of: cx.now, waiter };
            self.reads.proven.extend(waiting.into_iter().map(proven));
            return;
        }
        if !self.can_ask_round() {
            point!(ReadWaitedForARound if self.reads.rounds.len() >= ROUNDS_MAX);
            point!(ReadHeldUntilCommit if !self.raft.raft.commit_to_current_term());
            return;
        }
        let mut context = cx.unique.next_bytes();
        if crate::mutant!("B2") {
            context = vec![0; 16];
        }
        self.reads.term = self.term();
        let waiting = std::mem::take(&mut self.reads.waiting);
        let round = Round { began_at: cx.now, waiters: Vec::new() };
        self.reads.rounds.entry(context.clone()).or_insert(round).waiters.extend(waiting);
        self.raft.read_index(context);
    }

    /// Whether reads wait that a round may be begun for. Before its first commit in its term a leader does not know what is
    /// committed, and raft drops the question.
    pub(super) fn can_ask_round(&self) -> bool {
        self.leads()
            && !self.reads.waiting.is_empty()
            && self.reads.rounds.len() < ROUNDS_MAX
            && (self.raft.raft.commit_to_current_term() || crate::mutant!("B4"))
    }

    /// Moves the probe for reads of bounded age along: one under way, asked again if no answer came.
    pub(super) fn ask_probe<S: StateStore>(&mut self, cx: &mut Context<'_, S>, tick: bool) {
        let election_ticks = cx.settings.election_ticks;
        if let Some(probe) = &mut self.reads.follower.probe {
            probe.ticks += u64::from(tick);
            if probe.index.is_some() || probe.ticks < election_ticks {
                return;
            }
            point!(ProbeAskedAgain);
            self.reads.follower.probe = None;
        }
        if self.reads.follower.waiting.is_empty() || self.leads() {
            return;
        }
        let Some(leader) = self.leader() else { return };
        let number = cx.unique.next_number();
        self.reads.follower.probe = Some(Probe { number, asked_at: cx.now, ticks: 0, index: None });
        cx.send(leader, PeerMessage::ReadProbe { shard: self.shard, probe: number });
    }

    /// Another replica asks for a current index.
    pub(crate) fn probed<S: StateStore>(&mut self, from: NodeId, probe: u64, cx: &mut Context<'_, S>) {
        if !self.leads() || self.reads.len() >= cx.settings.waiting_requests_max {
            point!(ProbeRefused);
            cx.send(from, PeerMessage::ReadProbeAnswer { shard: self.shard, probe, index: None });
            return;
        }
        self.reads.waiting.push(Waiter::Probe { from, probe });
    }

    /// The leader's answer to this replica's probe.
    pub(crate) fn probe_answered(&mut self, number: u64, index: Option<LogIndex>) {
        let Some(probe) = self.reads.follower.probe.as_mut().filter(|probe| probe.number == number) else {
            point!(ProbeAnsweredLate);
            return;
        };
        match index {
            Some(index) => probe.index = Some(index),
            None => {
                point!(ProbeInVain);
                self.reads.follower.probe = None;
            }
        }
    }
}
