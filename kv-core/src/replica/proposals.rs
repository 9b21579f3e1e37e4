//! Writes on their way into the log, and the books that say which of them may be acknowledged early.
//!
//! All commands of a turn go as one message of entries of at most 1 MiB or one command. Those who wait are kept by the
//! entry's index and answered when it is applied: with the outcome if the term is the one in which it was proposed, as not
//! applied if an entry of another term was decided in its place. When the leadership is lost what is not applied is unknown:
//! it may have reached another replica, and even an entry that is overwritten here may be decided elsewhere.
//!
//! An async write is acknowledged early only if it is certain to take effect once its entry commits; otherwise it waits as a
//! sync write does.

use std::collections::{BTreeMap, VecDeque};

use raft::eraftpb;

use super::{Replica, context::Context};
use crate::{
    command::{Command, Condition, SessionStamp, Write, encode_commands, encoded_bytes_about},
    disk::StateStore,
    error::{Error, ErrorKind},
    io::{Answer, Durability},
    sequences::SequenceMap,
    state::{ShardState, sessions},
    types::{LogIndex, RequestId, Sequence, SessionId, Term, Time, Token},
};

/// Most bytes of commands in one entry, unless a single command is larger.
const ENTRY_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of commands that wait to be proposed, about. One turn brings far fewer; they gather while a hand-over is under way. Past
/// it writes are refused as overloaded. Half of what raft by default holds uncommitted, so that it takes them all when the
/// hand-over comes to nothing.
const QUEUED_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A command that waits to be proposed, or for its entry to be applied.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) request: RequestId,
    pub(super) deadline: Time,
    /// Already answered: as async, or because its deadline passed.
    pub(super) answered: bool,
}

impl Waiting {
    /// Who is still to be answered. Nobody is for a command of the node's own, whose request stands for nothing: another
    /// request may have its number.
    pub(super) fn unanswered(&self) -> Option<RequestId> {
        (!self.answered).then_some(self.request)
    }
}

/// A command of this turn.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) waiting: Waiting,
    pub(super) command: Command,
    pub(super) durability: Durability,
}

/// An entry of this leader's that is not applied yet.
#[derive(Debug)]
pub(super) struct Proposed {
    pub(super) term: Term,
    pub(super) waiting: Vec<Waiting>,
    /// What it holds for the books.
    notes: Notes,
}

#[derive(Debug, Default)]
struct Notes {
    stamps: Vec<SessionStamp>,
    session_bytes: usize,
    sessions: usize,
    /// Of the writes in it that were acknowledged early.
    early_commands: usize,
    early_bytes: usize,
}

/// The writes of one replica that are not applied yet.
#[derive(Debug, Default)]
pub(super) struct Proposals {
    /// Of this turn, or waiting for a hand-over to end.
    queued: Vec<Queued>,
    /// About their bytes.
    queued_bytes: usize,
    /// By the index of their entry.
    pub(super) proposed: BTreeMap<LogIndex, Proposed>,
    /// How many commands are in both.
    count: usize,
    /// Entries with writes acknowledged early, and when the first of each was; `None` if the clock has gone back since.
    early: VecDeque<(LogIndex, Option<Time>)>,
    /// The last index with a write that this leader acknowledged early.
    acknowledged: LogIndex,
    early_commands: usize,
    early_bytes: usize,
    session_bytes: usize,
    sessions: usize,
    /// Unapplied sequences and the highest floor of each session.
    open: BTreeMap<SessionId, (SequenceMap<u32>, Sequence)>,
}

impl Proposals {
    /// How many clients wait.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Puts a command in, to be proposed at the end of the turn.
    pub(super) fn queue(&mut self, queued: Queued) {
        self.count += 1;
        self.queued_bytes += encoded_bytes_about(&queued.command);
        self.queued.push(queued);
    }

    /// Whether another command may be queued.
    pub(super) fn has_room(&self) -> bool {
        self.queued_bytes < QUEUED_BYTES_MAX
    }

    /// Takes out all that is not proposed yet.
    pub(super) fn take_queued(&mut self) -> Vec<Queued> {
        self.count -= self.queued.len();
        self.queued_bytes = 0;
        std::mem::take(&mut self.queued)
    }

    /// Keeps of what is not proposed yet only that for which `keep` says so.
    pub(super) fn retain_queued(&mut self, keep: impl FnMut(&Queued) -> bool) {
        let before = self.queued.len();
        self.queued.retain(keep);
        self.count -= before - self.queued.len();
        if self.queued.len() < before {
            self.queued_bytes = self.queued.iter().map(|queued| encoded_bytes_about(&queued.command)).sum();
        }
    }

    /// The last index that holds a write acknowledged early: reads wait for it, so that callers read their own.
    pub(super) fn acknowledged_up_to(&self) -> LogIndex {
        self.acknowledged
    }

    /// Whether writes acknowledged early are still undecided.
    pub(super) fn has_undecided(&self) -> bool {
        self.early_commands > 0
    }

    /// Takes a command of the entry at `index` into the books.
    fn add(&mut self, index: LogIndex, command: &Command, early: Option<Time>, notes: &mut Notes) {
        let session_bytes = sessions::session_bytes_added_max(command);
        let sessions = usize::from(*command == Command::OpenSession);
        self.session_bytes += session_bytes;
        self.sessions += sessions;
        notes.session_bytes += session_bytes;
        notes.sessions += sessions;
        if let Command::Write(Write { session: Some(stamp), .. }) = command {
            let (open, floor) = self.open.entry(stamp.session).or_default();
            // The same sequence may stand in two entries.
            match open.get_mut(stamp.sequence) {
                Some(count) => *count += 1,
                None => _ = open.insert(stamp.sequence, 1),
            }
            notes.stamps.push(*stamp);
            *floor = (*floor).max(stamp.floor);
        }
        if let Some(now) = early {
            let bytes = encoded_bytes_about(command);
            self.early_commands += 1;
            self.early_bytes += bytes;
            notes.early_commands += 1;
            notes.early_bytes += bytes;
            if self.early.back().is_none_or(|(last, _)| *last < index) {
                self.early.push_back((index, Some(now)));
            }
            self.acknowledged = index;
        }
    }

    /// Takes the entry at an index out of the books.
    pub(super) fn take(&mut self, index: LogIndex) -> Option<Proposed> {
        let proposed = self.proposed.remove(&index)?;
        let notes = &proposed.notes;
        self.count -= proposed.waiting.len();
        while self.early.front().is_some_and(|(early, _)| *early <= index) {
            self.early.pop_front();
        }
        self.early_commands -= notes.early_commands;
        self.early_bytes -= notes.early_bytes;
        self.session_bytes -= notes.session_bytes;
        self.sessions -= notes.sessions;
        for stamp in &notes.stamps {
            if let Some((open, _)) = self.open.get_mut(&stamp.session) {
                if let Some(count) = open.get_mut(stamp.sequence) {
                    *count -= 1;
                    if *count == 0 {
                        open.remove(stamp.sequence);
                    }
                }
                if open.is_empty() {
                    self.open.remove(&stamp.session);
                }
            }
        }
        Some(proposed)
    }

    /// Ends the waits for what is proposed, and keeps the books on it.
    pub(super) fn end_waits(&mut self) -> Vec<RequestId> {
        let waiting = self.proposed.values_mut().flat_map(|proposed| &mut proposed.waiting);
        let ended = waiting.filter_map(|waiting| {
            let request = waiting.unanswered();
            waiting.answered = true;
            request
        });
        ended.collect()
    }

    /// Takes all entries out of the books: the leadership is lost.
    pub(super) fn take_all(&mut self) -> Vec<Waiting> {
        let proposed = std::mem::take(&mut self.proposed);
        let queued = std::mem::take(&mut self.queued);
        *self = Self { count: queued.len(), queued_bytes: self.queued_bytes, queued, ..Self::default() };
        proposed.into_values().flat_map(|proposed| proposed.waiting).collect()
    }

    /// The clock went back: those who wait do so no longer than before, and how long writes acknowledged early have been
    /// undecided is not known, so that no more are until these are decided.
    pub(super) fn clock_went_back(&mut self, micros: u64) {
        let proposed = self.proposed.values_mut().flat_map(|proposed| &mut proposed.waiting);
        for waiting in self.queued.iter_mut().map(|queued| &mut queued.waiting).chain(proposed) {
            waiting.deadline = waiting.deadline.minus_micros(micros);
        }
        for (_, at) in &mut self.early {
            // Not a time long ago: a clock may stand close to its zero now.
            *at = None;
        }
    }

    /// Whether the oldest write that was acknowledged early is known to be no older than this.
    fn is_oldest_early_within(&self, now: Time, micros_max: u64) -> bool {
        self.early.front().is_none_or(|(_, at)| at.is_some_and(|at| now.micros_since(at) <= micros_max))
    }

    /// Whether a write with this stamp is certain to be neither refused nor answered from memory once all before it are
    /// applied.
    fn stamp_is_certain(&self, state: &ShardState, stamp: SessionStamp) -> bool {
        let known = state.session(stamp.session).filter(|session| {
            !session.has_applied(stamp.sequence) && stamp.sequence >= session.floor() && stamp.sequence >= stamp.floor
        });
        let Some(session) = known else {
            point!(AsyncWaitedForItsSession);
            return false;
        };
        let unapplied = self.open.get(&stamp.session);
        let (open, floor) = unapplied.map_or((0, Sequence(0)), |(open, floor)| (open.len(), *floor));
        let twice = unapplied.is_some_and(|(open, _)| open.contains(stamp.sequence));
        point!(AsyncWaitedForTwo if twice || stamp.sequence < floor);
        let is_full = session.open() + open >= state.session_bounds().open_max;
        point!(AsyncWaitedForAFullSession if is_full);
        !twice && stamp.sequence >= floor && !is_full
    }
}

impl Replica {
    /// Proposes what was queued, unless a hand-over of the leadership is under way.
    pub(super) fn propose_queued<S: StateStore>(&mut self, cx: &mut Context<'_, S>) {
        if self.proposals.queued.is_empty() {
            return;
        }
        if self.raft.raft.lead_transferee.is_some() {
            point!(WriteWaitedForAHandOver);
            return;
        }
        let mut queued = self.proposals.take_queued();
        if !self.leads() {
            for request in queued.iter().filter_map(|queued| queued.waiting.unanswered()) {
                let error = self.not_leading(cx);
                cx.reply(request, Err(error));
            }
            return;
        }
        while !queued.is_empty() {
            let later = queued.split_off(entry_commands(&queued));
            point!(CommandsCut if !later.is_empty());
            self.propose_group(queued, cx);
            queued = later;
        }
    }

    fn propose_group<S: StateStore>(&mut self, group: Vec<Queued>, cx: &mut Context<'_, S>) {
        #[cfg(kv_mutants)]
        let group = self.evaluate_too_early(group, cx);
        let data = encode_commands(group.iter().map(|queued| &queued.command));
        let entry = eraftpb::Entry { data, ..Default::default() };
        let mut message = eraftpb::Message { from: self.id.0, ..Default::default() };
        message.set_msg_type(eraftpb::MessageType::MsgPropose);
        message.set_entries(vec![entry].into());
        let index = self.last_index().next();
        if self.raft.step(message).is_err() {
            point!(ProposedTooMuch);
            for request in group.iter().filter_map(|queued| queued.waiting.unanswered()) {
                let error = Error::overloaded("the shard has too much that is proposed but not yet committed", 20);
                cx.reply(request, Err(error));
            }
            return;
        }
        debug_assert_eq!(self.last_index(), index, "a leader appends what is proposed");
        let term = self.term();
        let mut notes = Notes::default();
        let mut kept = Vec::with_capacity(group.len());
        for Queued { mut waiting, command, durability } in group {
            let early = durability == Durability::Async && self.may_acknowledge_early(&command, cx);
            if early {
                waiting.answered = true;
                let token = Token { shard: self.shard, term, index };
                cx.reply(waiting.request, Ok(Answer::Accepted { token }));
            }
            self.proposals.add(index, &command, early.then_some(cx.now), &mut notes);
            kept.push(waiting);
        }
        self.proposals.count += kept.len();
        self.proposals.proposed.insert(index, Proposed { term, waiting: kept, notes });
    }

    /// B30: whether a condition holds is looked up when the write is proposed, not when it is applied.
    #[cfg(kv_mutants)]
    fn evaluate_too_early<S: StateStore>(&self, mut group: Vec<Queued>, cx: &Context<'_, S>) -> Vec<Queued> {
        let Some(state) = self.state().filter(|_| crate::mutant!("B30")) else { return group };
        for queued in &mut group {
            if let Command::Write(write) = &mut queued.command
                && let Ok(current) = state.get(&crate::state::Tree::new(cx.store, self.id), &write.key)
            {
                let holds = match write.condition {
                    Condition::Always => true,
                    Condition::Absent => current.is_none(),
                    Condition::RevisionIs(revision) => current.is_some_and(|entry| entry.revision == revision),
                };
                if holds {
                    write.condition = Condition::Always;
                }
            }
        }
        group
    }

    /// Whether a write may be acknowledged before its entry is decided: only if the entry's commit is all that it needs. The
    /// books hold everything of this leader's that is not applied, the commands before it in its own entry included.
    fn may_acknowledge_early<S: StateStore>(&self, command: &Command, cx: &Context<'_, S>) -> bool {
        let (Some(state), Command::Write(write)) = (self.state(), command) else { return false };
        // All that is unapplied is this leader's own, hence in the books.
        point!(AsyncWaitedForItsTerm if state.applied().1 != self.term());
        if state.applied().1 != self.term() || !state.owns(&write.key) {
            return false;
        }
        let (books, settings) = (&self.proposals, cx.settings);
        let few = books.early_commands < settings.async_commands_max;
        let small = books.early_bytes + encoded_bytes_about(command) <= settings.async_bytes_max;
        let young = books.is_oldest_early_within(cx.now, settings.async_micros_max);
        let within = few && small && young || crate::mutant!("A1");
        if !within {
            point!(AsyncWaitedForCommands if !few);
            point!(AsyncWaitedForBytes if !small);
            point!(AsyncWaitedForAge if !young);
            return false;
        }
        let Some(stamp) = write.session else { return true };
        // No session may be evicted by what is applied before this write, or it could find its own gone.
        let bytes = state.sessions_bytes() + books.session_bytes + sessions::session_bytes_added_max(command);
        let sessions = state.sessions_count() + books.sessions;
        let bounds = state.session_bounds();
        let is_kept = bytes <= bounds.bytes_max && sessions <= bounds.sessions_max;
        point!(AsyncWaitedForEviction if !is_kept);
        is_kept && (books.stamp_is_certain(state, stamp) || crate::mutant!("A5"))
    }

    /// The state that was loaded stands at an index that this replica has not applied: what became of the commands up to there
    /// will never be known here.
    pub(super) fn give_up_proposals_up_to<S: StateStore>(&mut self, index: LogIndex, cx: &mut Context<'_, S>) {
        while let Some(first) =
            self.proposals.proposed.first_key_value().map(|(first, _)| *first).filter(|first| *first <= index)
        {
            let waiting = self.proposals.take(first).map(|proposed| proposed.waiting).unwrap_or_default();
            for request in waiting.iter().filter_map(Waiting::unanswered) {
                let message = "the replica took its state over from another one that had applied the write already";
                cx.reply(request, Err(Error::unknown(ErrorKind::NoQuorum, message)));
            }
        }
    }

    /// The leadership is lost: what is not applied may still be decided.
    pub(super) fn give_up_proposals<S: StateStore>(&mut self, cx: &mut Context<'_, S>) {
        for waiting in self.proposals.take_all() {
            if !waiting.answered {
                point!(WritesUnknown);
                let message = "the leader lost its leadership before the write was decided";
                let error = if crate::mutant!("B29") {
                    Error::not_applied(ErrorKind::NotOwner, message)
                } else {
                    Error::unknown(ErrorKind::NotOwner, message)
                };
                let (row, leader) = self.hint(cx);
                cx.reply(waiting.request, Err(error.with(|detail| (detail.row, detail.leader) = (row, leader))));
            }
        }
    }
}

/// How many of these go into one entry: at least one.
fn entry_commands(queued: &[Queued]) -> usize {
    let mut bytes = 0;
    let cut = queued.iter().position(|one| {
        bytes += encoded_bytes_about(&one.command);
        bytes > ENTRY_BYTES_MAX
    });
    cut.map_or(queued.len(), |cut| cut.max(1))
}

/// Refuses what can't be async. Anything else is for the books to decide.
///
/// # Errors
/// `Invalid` if the write has a condition or asks for the previous entry.
pub(super) fn check_async(write: &Write) -> Result<(), Error> {
    if write.condition != Condition::Always {
        return Err(Error::invalid(
            "an async write can't have a condition: whether it holds is known only when it is decided",
        ));
    }
    if write.return_previous {
        return Err(Error::invalid(
            "an async write can't return the previous entry: it is known only when it is decided",
        ));
    }
    Ok(())
}
