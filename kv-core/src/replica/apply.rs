//! Applying what is decided, and answering those who waited for it.

use super::{
    Phase, Replica,
    context::Context,
    proposals::Waiting,
    reads::{Proven, Read, Waiter},
};
use crate::{
    command::{Command, CommandOutcome, decode_batch},
    disk::{StateStore, StoreError},
    error::{Error, ErrorKind},
    io::{Answer, Consistency},
    log::record::EntryKind,
    message::PeerMessage,
    node::AppliedEntry,
    state::{TokenState, Tree},
    types::{LogIndex, Term, Token},
};

/// What an entry counts for beside its data, in bytes, where the entries that a turn applies are bounded.
const ENTRY_BYTES: usize = 64;

/// Why applying stopped.
enum Stop {
    /// The read index failed: the state is loaded again.
    Store(StoreError),
    /// The entry is not what an entry must be.
    Entry(&'static str),
}

impl Replica {
    /// Applies what was handed out, then answers whoever waited for it.
    pub(crate) fn serve<S: StateStore>(&mut self, cx: &mut Context<'_, S>) {
        // Before anything is applied: what comes of it may be wrong here.
        if self.is_disputed() {
            self.refuse_all_who_wait(cx);
        }
        // At its bound a replica stops applying until a checkpoint has taken a table over; its log goes on.
        point!(TablesFull if cx.tables_bytes >= cx.settings.tables_bytes_max);
        if cx.tables_bytes < cx.settings.tables_bytes_max {
            match self.apply_handed_out(cx) {
                Ok(()) => {}
                Err(Stop::Store(error)) => return self.reload(error.0, cx),
                Err(Stop::Entry(what)) => return self.quarantine(what, cx),
            }
        }
        let Some(applied) = self.state().map(|state| state.applied().0) else { return };
        self.reads.settle_probe(applied);
        if self.is_disputed() {
            return;
        }
        if let Err(error) = self.answer_reads(applied, cx) {
            return self.reload(error.0, cx);
        }
        self.answer_durable_waits(cx);
    }

    /// Whether more is handed out than was applied, and nothing but the bound of a turn keeps it from being applied.
    pub(crate) fn has_more_to_apply(&self, cx: &Context<'_, impl StateStore>) -> bool {
        let applied = self.state().map(|state| state.applied().0);
        applied.is_some_and(|applied| applied < self.handed_out) && cx.tables_bytes < cx.settings.tables_bytes_max
    }

    fn apply_handed_out<S: StateStore>(&mut self, cx: &mut Context<'_, S>) -> Result<(), Stop> {
        // One entry however little is left: a shard does not wait for others to be through.
        for count in 0_u64.. {
            let Phase::Live(state) = &mut self.phase else { return Ok(()) };
            let index = state.applied().0.next();
            if index > self.handed_out {
                return Ok(());
            }
            if count > 0 && *cx.apply_bytes_left == 0 {
                point!(ApplyCut);
                return Ok(());
            }
            let entry = self.raft.store().entry(index).ok_or(Stop::Entry("an entry to apply is not in the log"))?;
            let term = Term(entry.term);
            if super::convert::entry_from_raft(entry).kind != EntryKind::Commands {
                return Err(Stop::Entry("an entry changes the configuration, which nothing does yet"));
            }
            let commands = decode_batch(&entry.data).map_err(|error| Stop::Entry(error.0))?;
            let mut outcomes = Vec::with_capacity(commands.len());
            let tree = Tree::new(cx.store, self.id);
            state.apply(&tree, index, term, &commands, &mut outcomes).map_err(Stop::Store)?;
            self.checkpointing.applied_bytes(entry.data.len());
            *cx.apply_bytes_left = cx.apply_bytes_left.saturating_sub(ENTRY_BYTES + entry.data.len());
            if let Some(watched) = cx.watched {
                let (shard, data, outcomes) = (self.shard, entry.data.clone(), outcomes.clone());
                watched.push(AppliedEntry { shard, index, term, kind: EntryKind::Commands, data, outcomes });
            }
            self.answer_proposed(index, term, outcomes, cx);
            if commands.contains(&Command::Mark) {
                self.pass_mark(index, cx);
            }
        }
        Ok(())
    }

    fn answer_proposed<S: StateStore>(
        &mut self,
        index: LogIndex,
        term: Term,
        outcomes: Vec<CommandOutcome>,
        cx: &mut Context<'_, S>,
    ) {
        let Some(proposed) = self.proposals.take(index) else { return };
        if proposed.term != term {
            for Waiting { request, answered, .. } in proposed.waiting {
                if !answered {
                    let error =
                        Error::not_applied(ErrorKind::NotOwner, "another leader's entry was decided in its place");
                    let (row, leader) = self.hint(cx);
                    cx.reply(request, Err(error.with(|detail| (detail.row, detail.leader) = (row, leader))));
                }
            }
            return;
        }
        let token = Token { shard: self.shard, term, index };
        for (waiting, outcome) in proposed.waiting.into_iter().zip(outcomes) {
            if !waiting.answered {
                let result = self.answer_of(outcome, token, cx);
                cx.reply(waiting.request, result);
            }
        }
    }

    fn answer_of<S: StateStore>(
        &self,
        outcome: CommandOutcome,
        token: Token,
        cx: &Context<'_, S>,
    ) -> Result<Answer, Error> {
        match outcome {
            CommandOutcome::Written { revision, previous } => {
                Ok(Answer::Written { revision, previous, token: Some(token) })
            }
            CommandOutcome::Conflict { current } => Err(Error::conflict(current)),
            CommandOutcome::SessionOpened(session) => Ok(Answer::SessionOpened(session)),
            CommandOutcome::NodeDescribed | CommandOutcome::Marked => Ok(Answer::Durable),
            // Whether an earlier sending of the write took effect is not known here; this one did not.
            CommandOutcome::SessionExpired => Err(Error::not_applied(
                ErrorKind::SessionExpired,
                "the session is no longer known: an earlier sending of the write may have taken effect, this one did not",
            )),
            CommandOutcome::Finished => {
                Err(Error::invalid("the write's sequence is below its session's floor: it was answered before"))
            }
            CommandOutcome::SessionFull => {
                Err(Error::overloaded("the session has 1,024 writes open; wait for one to end", 20))
            }
            CommandOutcome::NotInArc => {
                let (row, leader) = self.hint(cx);
                Err(Error::not_applied(ErrorKind::NotOwner, "the key is not in this shard's arc")
                    .with(|detail| (detail.row, detail.leader) = (row, leader)))
            }
            CommandOutcome::Misplaced => Err(Error::invalid("the command does not belong to this shard")),
        }
    }

    fn answer_reads<S: StateStore>(&mut self, applied: LogIndex, cx: &mut Context<'_, S>) -> Result<(), StoreError> {
        // After a failure those that are left keep waiting: they are answered from the state that is loaded then.
        let mut failed = Ok(());
        for proven in std::mem::take(&mut self.reads.proven) {
            if proven.index > applied || failed.is_err() {
                self.reads.proven.push(proven);
                continue;
            }
            let is_too_late = match &proven.waiter {
                Waiter::Probe { from, probe } => {
                    let index = Some(proven.index);
                    cx.send(*from, PeerMessage::ReadProbeAnswer { shard: self.shard, probe: *probe, index });
                    false
                }
                Waiter::Read(read) => match age_if_within(read.consistency, cx.now.micros_since(proven.as_of)) {
                    Some(age) => {
                        failed = self.answer_read(read, Some(age), cx);
                        false
                    }
                    // The round took too long for it.
                    None => true,
                },
            };
            match proven.waiter {
                Waiter::Read(read) if is_too_late => {
                    point!(ReadTookTooLongToProve);
                    self.reads.too_late.push(read);
                }
                waiter if failed.is_err() => self.reads.proven.push(Proven { waiter, ..proven }),
                _ => {}
            }
        }
        let is_probing = self.reads.is_probing();
        for read in std::mem::take(&mut self.reads.follower.waiting) {
            let age = self.age_if_fresh(read.consistency, cx).filter(|_| failed.is_ok());
            if let Some(age) = age {
                failed = self.answer_read(&read, age, cx);
            }
            if failed.is_err() {
                self.reads.follower.waiting.push(read);
            } else if age.is_none() {
                // The probe that was sent for it took too long.
                let too_late = read.asked && !is_probing;
                point!(ProbeTookTooLong if too_late);
                let waiting = if too_late { &mut self.reads.too_late } else { &mut self.reads.follower.waiting };
                waiting.push(read);
            }
        }
        failed
    }

    /// The state's age if a read of this consistency may be answered from it now.
    pub(super) fn age_if_fresh<S: StateStore>(&self, wanted: Consistency, cx: &Context<'_, S>) -> Option<Option<u64>> {
        let age = self.reads.follower.fresh_as_of.map(|since| cx.now.micros_since(since));
        match wanted {
            Consistency::Linearizable => None,
            Consistency::Stale => Some(age),
            Consistency::Bounded { age_micros_max } => age.filter(|age| *age <= age_micros_max).map(Some),
        }
    }

    /// Answers a read from the state as it is. Arc and epoch are checked here, against the replicated state.
    pub(super) fn answer_read<S: StateStore>(
        &self,
        read: &Read,
        age_micros: Option<u64>,
        cx: &mut Context<'_, S>,
    ) -> Result<(), StoreError> {
        let Some(state) = self.state() else {
            let error = self.not_serving();
            cx.reply(read.request, Err(error));
            return Ok(());
        };
        let result = match self.check_row(state, read.epoch, &read.key, cx) {
            Err(error) => Err(error),
            Ok(()) if *cx.answer_bytes_left == 0 => Err(Error::overloaded(
                "more was asked for at once than the node may hold; ask again a little later",
                20,
            )),
            Ok(()) => {
                let entry = state.get(&Tree::new(cx.store, self.id), &read.key)?;
                let bytes = entry.as_ref().map_or(0, |entry| entry.value.as_bytes().len());
                *cx.answer_bytes_left = cx.answer_bytes_left.saturating_sub(bytes);
                Ok(Answer::Got { entry, revision: state.revision(), age_micros })
            }
        };
        cx.reply(read.request, result);
        Ok(())
    }

    pub(super) fn answer_durable_waits<S: StateStore>(&mut self, cx: &mut Context<'_, S>) {
        let Phase::Live(state) = &self.phase else { return };
        self.durable_waits.retain(|wait| {
            let result = match state.durability(wait.token) {
                TokenState::Undecided => return true,
                TokenState::Durable => Ok(Answer::Durable),
                TokenState::Lost => {
                    point!(TokenLost);
                    Ok(Answer::Lost)
                }
                TokenState::Forgotten => Ok(Answer::Forgotten),
            };
            cx.reply(wait.request, result);
            false
        });
    }
}

/// The age to tell for a state that was current so long ago, if it is fresh enough. A linearizable read is as of its call,
/// however long its proof took.
fn age_if_within(wanted: Consistency, age_micros: u64) -> Option<u64> {
    match wanted {
        Consistency::Linearizable => Some(0),
        Consistency::Stale => Some(age_micros),
        Consistency::Bounded { age_micros_max } => (age_micros <= age_micros_max).then_some(age_micros),
    }
}
