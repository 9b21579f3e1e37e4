//! Marks: log entries at which all replicas of a shard freeze their state, and compare what they froze.
//!
//! How it goes
//! -----------
//! The leader proposes a mark when a checkpoint is due. A replica that applies it freezes its table right there and has a
//! checkpoint written; one that is still busy with the last skips the mark, says so, and never waits. Each tells all others
//! the digests of its newest checkpoints ([`MarkReport`]), again and again until its newest is confirmed; who is asked
//! answers. Everybody judges by himself, so that no verdict hangs on a leader or has to be remembered over a start:
//!
//! - *confirmed*: a majority of the voters holds the same digest at one of this replica's checkpoints. Only such a checkpoint
//!   is given to others, and the log is kept from the newest of them on.
//! - *against*: a majority of the voters, this replica not counted, holds another digest. Its state goes, and comes from one
//!   of the majority.
//! - *split*: somebody holds another digest, and there is no majority either way. Then nobody can say which state is right:
//!   the replica answers no client until a mark at or above that one is confirmed. So does a replica that was too busy to
//!   hold anything there, when others contradict each other.
//!
//! Why it holds
//! ------------
//! - A report is a fact about the past: at this index that replica held this digest. Reports that are late, doubled or lost
//!   can delay a verdict, not turn it. A replica whose state was replaced tells what it holds now, under a higher number; an
//!   older report that comes later is dropped.
//! - A checkpoint is made of applied entries, which are decided: a mark that another leader overwrites froze nothing.
//! - What a replica took over from another was confirmed before, so that counting the copy adds no wrong voice. A wrong
//!   leader has only right checkpoints to give, and the log above them: whoever lags becomes right, and outvotes it.
//! - Two marks may be in flight; a replica busy with the first skips the second. The leader waits with the next until those
//!   that answer have answered, so that slow replicas don't take turns at different marks, none with a majority.
//!
//! *Left out*: which state is right where a majority is wrong; no replica can know that.
//!
//! Nor is a dispute ended that stands at an index which nobody has reached. Two voters must lie for that, each in its own name
//! and not the same (a single one contradicts nobody where no honest one holds anything), and stop a shard of five that their
//! three honest peers could otherwise run. It can't be told from an honest dispute by what a replica has: one that lags has
//! less than what others froze, and so has a leader that has committed in its term and was deposed since without knowing. Only
//! an index that a leader has proven after the accounts came, by a round of its own, lies above every honest mark. That proof
//! would have to reach the followers too, each of which judges by itself, and it would guard against voters that can do far
//! worse, as vote twice. Restarting the honest ones, with the liars gone, ends such a dispute.

mod accounts;

pub(super) use accounts::Marks;
use accounts::{Own, Said, Verdict};

use super::{Replica, context::Context};
use crate::{
    checkpoint::job::CheckpointJob,
    command::Command,
    disk::StateStore,
    io::{Notice, Output},
    message::{MARKS_TOLD_MAX, MarkReport, PeerMessage},
    state::record::{Footer, StateHeader},
    types::{Digest, LogIndex, NodeId, ReplicaId},
};

/// Ticks after which a replica whose newest checkpoint is not confirmed asks the others again, or the leader for a mark.
const REPEAT_TICKS: u64 = 20;
/// Ticks for which the leader waits with the next mark for those that answer but have not said anything of the last.
const PATIENCE_TICKS: u64 = 100;
/// Ticks after which a mark that was proposed and did not come is given up.
const LOST_TICKS: u64 = 40;
/// Least ticks between two marks.
const PAUSE_TICKS: u64 = 2;
/// Ticks at its bounds after which a replica makes a checkpoint without a mark.
const OVERDUE_TICKS: u64 = 4;
/// Ticks until the first further mark in a dispute; each next one takes twice as long, up to this many times. Without somebody
/// who is there and has not told yet a further mark would say nothing new.
const DISPUTE_TICKS: u64 = 40;
const DISPUTE_DOUBLINGS_MAX: u32 = 8;
/// What is decided and not confirmed may take so many times the bytes that are kept for followers; past it the leader takes
/// no writes.
const UNCONFIRMED_TIMES_MAX: usize = 4;

impl Replica {
    /// Whether replicas hold different states and no majority agrees on one: then this one answers no client.
    pub(super) fn is_disputed(&self) -> bool {
        self.marks.disputed.is_some() && self.state().is_some()
    }

    /// A mark is applied: the state is frozen here, if the last checkpoint is out of the way.
    pub(super) fn pass_mark<S: StateStore>(&mut self, index: LogIndex, cx: &mut Context<'_, S>) {
        self.marks.outstanding_ticks = None;
        self.marks.since_mark_ticks = 0;
        if self.is_busy() {
            point!(MarkSkipped);
            self.marks.skipped = index;
            cx.notice(Notice::MarkSkipped { shard: self.shard, index });
            self.tell_all(false, cx);
        } else {
            self.begin_checkpoint(cx);
        }
    }

    /// The state is loaded: these are the checkpoints that its files hold.
    pub(super) fn hold_checkpoints<S: StateStore>(
        &mut self,
        checkpoints: &[(LogIndex, Digest)],
        confirmed: Option<LogIndex>,
        header: &StateHeader,
        cx: &mut Context<'_, S>,
    ) {
        let boundary = self.raft.store().boundary().index;
        self.marks.noting = confirmed;
        for (index, digest) in checkpoints.iter().filter(|(index, _)| *index >= boundary) {
            self.hold(*index, *digest, header);
        }
        if let Some(index) = confirmed {
            self.confirmation_noted(index, cx);
        }
        self.tell_all(true, cx);
        self.judge_marks(cx);
    }

    /// A checkpoint of this replica's is durable.
    pub(super) fn hold_checkpoint<S: StateStore>(&mut self, footer: &Footer, cx: &mut Context<'_, S>) {
        self.hold(footer.header.index, footer.digest, &footer.header);
        self.judge_marks(cx);
        // Behind the verdict: with the last voice that was lacking there is nothing to ask any more.
        let asks = self.newest_is_open();
        self.tell_all(asks, cx);
    }

    fn hold(&mut self, index: LogIndex, digest: Digest, header: &StateHeader) {
        if let Some(place) = self.place_of(index, header) {
            let confirmed = self.confirmed_index();
            self.marks.own.push_back(Own { place, digest });
            self.marks.forget_oldest(confirmed);
        }
    }

    fn newest_is_open(&self) -> bool {
        let newest = self.marks.own.back().map(|own| own.place.index);
        newest.is_some_and(|newest| self.confirmed_index().is_none_or(|confirmed| confirmed < newest))
    }

    /// Another replica tells what it holds.
    pub(crate) fn marks_told<S: StateStore>(&mut self, from: NodeId, report: MarkReport, cx: &mut Context<'_, S>) {
        if self.is_quarantined() {
            return;
        }
        let MarkReport { number, checkpoints, skipped, wants_mark, wants_answer } = report;
        let rises = checkpoints.is_sorted_by(|one, next| one.index < next.index);
        let Some(sender) = self.replica_on(from).filter(|_| rises && checkpoints.len() <= MARKS_TOLD_MAX) else {
            let reason = "an account of marks that no replica gives";
            return cx.notice(Notice::Refused { from, shard: Some(self.shard), reason });
        };
        // Numbers count up from a random one at each start of a node: far away is another start, close behind is overtaken.
        let is_overtaken = |said: &Said| said.number.wrapping_sub(number) < 1 << 32;
        if self.marks.said.get(&sender).is_some_and(is_overtaken) {
            return;
        }
        let newest = self.marks.own.back().map(|own| own.place.index);
        let before = self.marks.said.insert(sender, Said { number, checkpoints, skipped });
        let news = |said: &Said| (said.skipped, said.checkpoints.last().map(|mark| mark.index));
        let said = &self.marks.said[&sender];
        if before.as_ref().map(news) != Some(news(said))
            && newest.is_some_and(|newest| said.digest_at(newest).is_none())
        {
            // Somebody new can be heard: a dispute may soon be over.
            self.marks.dispute_marks = 0;
        }
        // However often somebody asks, it is heeded little more often than an honest one asks.
        if wants_mark
            && self.leads()
            && self.marks.until_heeding_ticks == 0
            && (!self.is_disputed() || self.somebody_may_still_tell())
        {
            self.marks.until_heeding_ticks = REPEAT_TICKS / 2;
            self.want_checkpoint();
        }
        if wants_answer && !self.marks.own.is_empty() {
            let number = cx.unique.next_number();
            let report = self.marks.report(number, false, false);
            cx.send(from, PeerMessage::Marks { shard: self.shard, report });
        }
        self.judge_marks(cx);
    }

    /// Draws what follows from all that is known, the newest checkpoints first.
    fn judge_marks<S: StateStore>(&mut self, cx: &mut Context<'_, S>) {
        if self.state().is_none() {
            return;
        }
        let (mut confirmed, mut split) = (self.confirmed_index(), None);
        // Where a majority agreed once the state was right, whatever was said of earlier.
        let known = confirmed;
        let is_news = |own: &&Own| Some(own.place.index) > known;
        for own in self.marks.own.iter().rev().take_while(is_news) {
            match self.marks.verdict(own, self.id, &self.configuration.voters) {
                Verdict::Open => {}
                Verdict::Split => split = split.or(Some(own.place.index)),
                Verdict::Confirmed => {
                    confirmed = Some(own.place.index);
                    break;
                }
                Verdict::Against(majority) if !mutant!("M3") => {
                    point!(StateAgainstTheMajority);
                    let (shard, index, own) = (self.shard, own.place.index, own.digest);
                    let held_by = self.holders(index).into_iter().filter(|(_, digest)| *digest == majority);
                    let held_by = held_by.map(|(node, _)| node).collect();
                    cx.notice(Notice::Diverged { shard, index, own, majority, held_by });
                    return self.discard_state(cx);
                }
                Verdict::Against(_) => {}
            }
        }
        let contested = self.marks.contested_above(confirmed, self.id, &self.configuration.voters);
        // Who contradicted may since have taken another state over or be gone: that alone proves nobody right.
        let unsettled = self.marks.disputed.filter(|index| Some(*index) > confirmed);
        self.set_disputed(split.max(contested).max(unsettled), cx);
        if self.confirmed_index().max(self.marks.noting) < confirmed {
            self.marks.noting = confirmed;
            self.note(cx);
        }
    }

    fn set_disputed<S: StateStore>(&mut self, disputed: Option<LogIndex>, cx: &mut Context<'_, S>) {
        let shard = self.shard;
        match (self.marks.disputed, disputed) {
            (None, Some(index)) => {
                point!(StatesDisputed);
                self.marks.dispute_marks = 0;
                cx.notice(Notice::Disputed { shard, index, held: self.holders(index) });
            }
            (Some(_), None) => {
                point!(DisputeSettled);
                cx.notice(Notice::Settled { shard });
            }
            _ => {}
        }
        self.marks.disputed = disputed;
    }

    /// Which nodes are known to hold which digest at an index.
    fn holders(&self, index: LogIndex) -> Vec<(NodeId, Digest)> {
        let held = self.marks.held_at(index, self.id, &self.configuration.voters);
        held.into_iter().filter_map(|(voter, digest)| Some((self.node_of(voter)?, digest))).collect()
    }

    /// Has it noted on the disk what is confirmed.
    fn note<S: StateStore>(&self, cx: &mut Context<'_, S>) {
        if let Some(own) = self.marks.own.iter().find(|own| Some(own.place.index) == self.marks.noting) {
            let (shard, replica, index, digest) = (self.shard, self.id, own.place.index, own.digest);
            cx.outputs.push(Output::Checkpoint(Box::new(CheckpointJob::Confirmed { shard, replica, index, digest })));
        }
    }

    /// It is on the disk that a checkpoint is confirmed: now it may be given to others, and log be given up.
    pub(crate) fn confirmation_noted<S: StateStore>(&mut self, index: LogIndex, cx: &mut Context<'_, S>) {
        let Some(state) = self.state() else { return };
        let place = self.marks.own.iter().find(|own| own.place.index == index).map(|own| own.place.clone());
        // It may be older than those that are told to others.
        let place = place.or_else(|| self.place_of(index, state.header()));
        self.marks.noting = self.marks.noting.filter(|noting| *noting > index);
        if let Some(place) = place.filter(|place| self.confirmed_index() < Some(place.index)) {
            self.raft.mut_store().set_checkpoint(place);
            self.give_up_log(cx);
        }
    }

    fn tell_all<S: StateStore>(&mut self, wants_answer: bool, cx: &mut Context<'_, S>) {
        self.marks.since_told_ticks = 0;
        let others: Vec<NodeId> = self.configuration.nodes.values().copied().filter(|node| *node != cx.node).collect();
        for to in others {
            let report = self.marks.report(cx.unique.next_number(), false, wants_answer);
            cx.send(to, PeerMessage::Marks { shard: self.shard, report });
        }
    }

    /// Whether a tick would do no more than to count.
    pub(super) fn marks_rest(&self) -> bool {
        self.marks.disputed.is_none() && self.marks.outstanding_ticks.is_none() && !self.newest_is_open()
    }

    /// So many ticks have passed in which these rested.
    pub(super) fn marks_pass(&mut self, ticks: u64) {
        let marks = &mut self.marks;
        marks.since_mark_ticks += ticks;
        marks.since_told_ticks += ticks;
        marks.since_asked_ticks += ticks;
        marks.until_heeding_ticks = marks.until_heeding_ticks.saturating_sub(ticks);
    }

    /// Each tick: asks again for what was lost, and sees to it that a dispute comes to an end if it can.
    pub(super) fn tick_marks<S: StateStore>(&mut self, cx: &mut Context<'_, S>) {
        let marks = &mut self.marks;
        marks.since_mark_ticks += 1;
        marks.since_told_ticks += 1;
        marks.since_asked_ticks += 1;
        marks.until_heeding_ticks = marks.until_heeding_ticks.saturating_sub(1);
        marks.outstanding_ticks = marks.outstanding_ticks.map(|ticks| ticks + 1).filter(|ticks| *ticks < LOST_TICKS);
        if marks.since_told_ticks >= REPEAT_TICKS && self.newest_is_open() {
            // The disk may have had no room to note it.
            self.note(cx);
            self.tell_all(true, cx);
        }
        self.checkpointing.is_unconfirmed_full =
            self.has_unconfirmed_bytes(UNCONFIRMED_TIMES_MAX * cx.settings.kept_bytes_max);
        if self.is_disputed() && self.somebody_may_still_tell() {
            let pause = DISPUTE_TICKS << self.marks.dispute_marks.min(DISPUTE_DOUBLINGS_MAX);
            if self.marks.since_mark_ticks.min(self.marks.since_asked_ticks) >= pause {
                self.marks.dispute_marks += 1;
                self.want_checkpoint();
            }
        }
    }

    /// Whether a leader that takes no writes, since too much is decided and not confirmed, should try a further mark. Replicas may
    /// each have made a checkpoint of their own, without a mark and at another index: then nothing is left to confirm, and with no
    /// writes coming nothing else would be due for a mark until the next periodic one.
    pub(super) fn holds_up_writes(&self) -> bool {
        self.checkpointing.is_unconfirmed_full
            && self.leads()
            && !self.is_disputed()
            && self.marks.since_mark_ticks >= REPEAT_TICKS
    }

    /// Whether what is decided and not confirmed has so many bytes.
    fn has_unconfirmed_bytes(&self, bytes: usize) -> bool {
        let store = self.raft.store();
        // Most often all that is kept is less: then nothing has to be counted.
        store.bytes() >= bytes && {
            let confirmed = self.confirmed_index().map_or(0, |confirmed| store.bytes_up_to(confirmed));
            store.bytes_up_to(self.handed_out).saturating_sub(confirmed) >= bytes
        }
    }

    /// Whether a voter that has said nothing of the newest checkpoint here may yet do so, this replica included. Only the leader
    /// knows who is there.
    fn somebody_may_still_tell(&self) -> bool {
        let Some(newest) = self.marks.own.back().map(|own| own.place.index) else { return true };
        let progress = self.raft.raft.prs();
        let is_there =
            |voter: &ReplicaId| !self.leads() || progress.get(voter.0).is_some_and(|progress| progress.recent_active);
        let has_told =
            |voter: &ReplicaId| self.marks.said.get(voter).is_some_and(|said| said.digest_at(newest).is_some());
        let mut others = self.configuration.voters.iter().filter(|voter| **voter != self.id);
        self.marks.disputed > Some(newest) || others.any(|voter| is_there(voter) && !has_told(voter))
    }

    /// Sees to it that a mark comes: the leader proposes one, another asks the leader.
    pub(super) fn seek_mark<S: StateStore>(&mut self, is_full: bool, cx: &mut Context<'_, S>) {
        if self.leads() {
            let may = self.raft.raft.lead_transferee.is_none()
                && self.marks.outstanding_ticks.is_none()
                && self.marks.since_mark_ticks >= PAUSE_TICKS
                && (is_full || self.last_mark_is_settled());
            if may {
                self.marks.outstanding_ticks = Some(0);
                self.queue_own(Command::Mark);
            }
        } else if let Some(leader) = self.leader()
            && self.marks.since_asked_ticks >= REPEAT_TICKS
        {
            self.marks.since_asked_ticks = 0;
            let report = self.marks.report(cx.unique.next_number(), true, false);
            cx.send(leader, PeerMessage::Marks { shard: self.shard, report });
        }
    }

    /// Whether the replica was at its bounds for so long that it does not wait for a mark any more.
    pub(super) fn is_mark_overdue(&mut self, is_full: bool, tick: bool) -> bool {
        self.marks.full_ticks = if is_full { self.marks.full_ticks + u64::from(tick) } else { 0 };
        point!(MarkOverdue if tick && self.marks.full_ticks == OVERDUE_TICKS);
        self.marks.full_ticks >= OVERDUE_TICKS
    }

    fn last_mark_is_settled(&self) -> bool {
        let Some(newest) = self.marks.own.back().map(|own| own.place.index).filter(|_| self.newest_is_open()) else {
            return true;
        };
        let progress = self.raft.raft.prs();
        let is_awaited = |voter: &ReplicaId| {
            *voter != self.id
                && progress.get(voter.0).is_some_and(|progress| progress.recent_active)
                && !self.marks.said.get(voter).is_some_and(|said| said.has_answered(newest))
        };
        self.marks.since_mark_ticks >= PATIENCE_TICKS || !self.configuration.voters.iter().any(is_awaited)
    }
}
