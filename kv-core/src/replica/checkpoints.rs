//! When a checkpoint is made, what it allows to give up, and how the state is loaded.
//!
//! Log at or below a checkpoint is given up only after the checkpoint is synced and was read back. Behind it entries are
//! kept, up to a bound of bytes, for followers that lag; nothing is given up that a replica being sent a snapshot needs next,
//! and nothing above the newest *confirmed* checkpoint ([`super::marks`]), the only kind that others are ever given.
//!
//! Marks are what starts checkpoints: the leader proposes one when something asks for it, and every replica freezes its table
//! right there. A replica at its own bounds makes a checkpoint without one rather than to stop; nobody may agree with it at
//! that index, so that it serves the replica's own recovery alone.

use super::{Phase, Replica, context::Context};
use crate::{
    checkpoint::job::CheckpointJob,
    configuration::Configuration,
    disk::StateStore,
    io::{Notice, Output},
    log::record::{Boundary, Install, Record, StagingId},
    state::{
        ShardState,
        record::{Footer, FrozenTable, StateHeader},
    },
    types::{Digest, LogIndex, ReplicaId, SessionId},
};

/// The log above an index is kept for a replica that is being sent a snapshot, for at most so many ticks more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Floor {
    index: LogIndex,
    ticks_left: u64,
}

/// A checkpoint for which there was no room is tried again after so many ticks.
const NO_ROOM_TICKS: u64 = 20;

/// Where a replica stands with checkpoints.
#[derive(Debug, Default)]
pub(super) struct Checkpointing {
    install: Option<Install>,
    /// Loads that have not ended; only the last one counts.
    loads: u32,
    /// A checkpoint is being written.
    pub(super) writing: bool,
    /// The one that is, while it waits for room on the disk, and for how many ticks more.
    waiting: Option<(FrozenTable, StateHeader, u64)>,
    /// The newest durable one.
    newest: Option<LogIndex>,
    /// Ticks since the last one.
    ticks: u64,
    /// Log bytes applied since the last one.
    log_bytes: usize,
    /// Somebody waits for one: a follower, a peer without state, or a segment that the shard pins.
    wanted: bool,
    /// When it was last looked, something asked for one: it is looked again at whatever happens.
    due: bool,
    /// The segment that the shard pins is to be freed: entries behind the checkpoint are not kept.
    pinned: bool,
    ask_ticks: u64,
    digest: Option<Digest>,
    /// What is decided and not confirmed has too many bytes: the leader takes no writes until a mark is confirmed.
    pub(super) is_unconfirmed_full: bool,
}

impl Checkpointing {
    pub(super) fn new(install: Option<Install>) -> Self {
        Self { install, ..Self::default() }
    }

    pub(super) fn applied_bytes(&mut self, bytes: usize) {
        self.log_bytes += bytes;
    }

    /// Whether the files of this staging directory are on their way to be the replica's own.
    pub(super) fn is_switching_to(&self, staging: StagingId) -> bool {
        self.loads > 0 && self.install.as_ref().is_some_and(|install| install.staging == staging)
    }

    /// Log bytes applied since the last checkpoint began.
    pub(super) fn log_bytes(&self) -> usize {
        self.log_bytes
    }

    /// Whether a visit would do no more than to count.
    pub(super) fn rests(&self) -> bool {
        !self.is_due() && self.waiting.is_none() && self.loads == 0 && !self.is_unconfirmed_full
    }

    /// In how many visits a changed state has one due for its age.
    pub(super) fn visits_left(&self, checkpoint_ticks: u64) -> u64 {
        checkpoint_ticks.saturating_sub(self.ticks)
    }

    /// So many visits have passed.
    pub(super) fn pass(&mut self, visits: u64) {
        self.ticks += visits;
    }

    /// Whether a checkpoint is asked for, and it may soon be time for it.
    pub(super) fn is_due(&self) -> bool {
        self.due || self.wanted
    }

    /// Whether it is time to ask a peer for state: at once, then every `ticks`.
    pub(super) fn ask_now(&mut self, ticks: u64) -> bool {
        self.ask_ticks += 1;
        self.ask_ticks % ticks == 1
    }

    pub(super) fn digest(&self) -> Option<Digest> {
        self.digest
    }
}

/// What the checkpoint thread says of a replica's whole state.
#[derive(Debug)]
pub(crate) struct LoadedState {
    pub(crate) footer: Footer,
    pub(crate) checkpoints: Vec<(LogIndex, Digest)>,
    pub(crate) confirmed: Option<LogIndex>,
    pub(crate) sessions: Vec<(SessionId, bytes::Bytes)>,
    pub(crate) nodes: Vec<(bytes::Bytes, bytes::Bytes)>,
}

impl Replica {
    /// Has the state loaded and proven.
    pub(crate) fn load<S: StateStore>(&mut self, cx: &mut Context<'_, S>) {
        self.phase = Phase::Loading;
        self.checkpointing.loads += 1;
        let boundary = self.raft.store().boundary().index;
        // The initial state stands for the log's beginning: it is of use while all of the log is here.
        let mut initial = self.initial.clone().filter(|header| header.index >= boundary);
        if crate::mutant!("B13" | "B14") && boundary > LogIndex(0) {
            // Who does not know that a checkpoint may be gone takes the state that is left for the whole.
            let term = self.raft.store().boundary().term;
            initial = self.initial.clone().map(|header| StateHeader { index: boundary, term, ..header });
        }
        cx.outputs.push(Output::Checkpoint(Box::new(CheckpointJob::Load {
            shard: self.shard,
            replica: self.id,
            at_least: boundary,
            install: self.checkpointing.install.clone(),
            initial,
        })));
    }

    /// The state can't be trusted any more: it is loaded again, and the log replayed on it.
    pub(crate) fn reload<S: StateStore>(&mut self, reason: String, cx: &mut Context<'_, S>) {
        if self.is_quarantined() {
            return;
        }
        point!(StateDistrusted);
        cx.notice(Notice::StateLost { shard: self.shard, reason });
        self.lose_state();
        // An install's files are switched only after its block is synced: that is when the state is loaded.
        if !self.awaits_install() {
            self.load(cx);
        }
    }

    fn lose_state(&mut self) {
        self.phase = Phase::Loading;
        // What is loaded next may be an older checkpoint, if this one's files turn out damaged.
        self.raft.mut_store().forget_checkpoint();
        self.checkpointing.writing = false;
        self.checkpointing.waiting = None;
        self.checkpointing.newest = None;
        self.marks.lose_state();
        self.lose_eagerness();
        // The state to come may be older than the one that was this fresh.
        self.reads.follower.fresh_as_of = None;
    }

    /// A snapshot takes the state's place: until its files are switched and proven there is none.
    pub(super) fn begin_install(&mut self, install: Install) {
        self.lose_state();
        self.checkpointing.install = Some(install);
    }

    /// The state is loaded and proven.
    pub(crate) fn loaded<S: StateStore>(&mut self, loaded: LoadedState, cx: &mut Context<'_, S>) {
        self.checkpointing.loads = self.checkpointing.loads.saturating_sub(1);
        point!(LoadOvertaken if self.checkpointing.loads > 0);
        if self.checkpointing.loads > 0 || self.is_quarantined() {
            return;
        }
        let LoadedState { footer, checkpoints, confirmed, sessions, nodes } = loaded;
        #[cfg(kv_mutants)]
        let footer = self.taken_for_whole(footer);
        let index = footer.header.index;
        if index > self.last_index() {
            return self.quarantine("the checkpoint is ahead of the log: the log has lost entries", cx);
        }
        if index < self.raft.store().boundary().index {
            return self.load_failed("the checkpoint is behind the log's beginning".to_owned(), cx);
        }
        let mut header = footer.header.clone();
        if crate::mutant!("B21") {
            // The state claims all that was committed, as if it had been applied.
            header.index = header.index.max(self.commit());
        }
        match ShardState::from_header(header, sessions, nodes) {
            Err(error) => self.load_failed(error.to_string(), cx),
            Ok(state) => {
                self.note_checkpoint(&footer);
                self.checkpointing.log_bytes = 0;
                let state = state.with_session_bounds(cx.settings.session_bounds).with_table_seed(self.table_seed);
                self.phase = Phase::Live(Box::new(state));
                if crate::mutant!("B7") {
                    // What was loaded is taken for the newest, before the log is replayed on it.
                    self.reads.follower.fresh_as_of = Some(cx.now);
                }
                cx.notice(Notice::Verified { shard: self.shard, index });
                self.give_up_proposals_up_to(index, cx);
                self.hold_checkpoints(&checkpoints, confirmed, &footer.header, cx);
                self.campaign_when_proven(cx);
            }
        }
    }

    /// B9 and B12: the state is ahead of a log that has lost its end, and nobody looks.
    #[cfg(kv_mutants)]
    fn taken_for_whole(&self, mut footer: Footer) -> Footer {
        if crate::mutant!("B9" | "B12") && footer.header.index > self.last_index() {
            footer.header.index = self.last_index();
            footer.header.term = crate::types::Term(self.raft.raft.raft_log.last_term());
        }
        footer
    }

    /// No checkpoint of use is readable here: the state must come from a peer.
    pub(crate) fn load_failed<S: StateStore>(&mut self, reason: String, cx: &mut Context<'_, S>) {
        self.checkpointing.loads = self.checkpointing.loads.saturating_sub(1);
        if self.checkpointing.loads > 0 || self.is_quarantined() {
            return;
        }
        point!(StateLost);
        self.phase = Phase::Stateless;
        self.checkpointing.ask_ticks = 0;
        cx.notice(Notice::StateLost { shard: self.shard, reason });
        self.refuse_all_who_wait(cx);
    }

    /// A checkpoint is synced and was read back: log may be given up.
    pub(crate) fn checkpoint_durable<S: StateStore>(&mut self, footer: &Footer, cx: &mut Context<'_, S>) {
        // Without a state this is of one that was given up; what is loaded will tell what there is.
        if self.state().is_none() || footer.header.index < self.raft.store().boundary().index {
            point!(CheckpointOfALostState);
            return;
        }
        self.note_checkpoint(footer);
        self.hold_checkpoint(footer, cx);
    }

    fn note_checkpoint(&mut self, footer: &Footer) {
        self.checkpointing.digest = Some(footer.digest);
        // Without entries there is nothing that a snapshot could stand for: the initial state has no files.
        if self.initial.as_ref().is_none_or(|initial| footer.header.index > initial.index) {
            self.checkpointing.newest = Some(footer.header.index);
        }
    }

    /// The place of a checkpoint of this replica's, as a boundary.
    pub(super) fn place_of(&self, index: LogIndex, header: &StateHeader) -> Option<Boundary> {
        let term = if index == header.index { Some(header.term) } else { self.raft.store().term_at(index) }?;
        let configuration = configuration_at(header, index).unwrap_or(&self.configuration).clone();
        Some(Boundary { index, term, configuration })
    }

    /// A checkpoint's records are in the tree.
    pub(crate) fn checkpoint_inserted<S: StateStore>(&mut self, index: LogIndex, cx: &mut Context<'_, S>) {
        self.checkpointing.writing = false;
        if let Phase::Live(state) = &mut self.phase
            && let Some(table) = state.drop_frozen(index)
        {
            cx.outputs.push(Output::Checkpoint(Box::new(CheckpointJob::Free { table })));
        }
    }

    /// The disk is too full for the checkpoint that was being written. Nothing else changes: its table stays frozen, and its log
    /// is kept, until a later attempt succeeds.
    pub(crate) fn checkpoint_has_no_room(&mut self, table: FrozenTable, header: StateHeader) {
        // Without a state this is of one that was given up.
        if self.checkpointing.writing && self.state().is_some() {
            point!(CheckpointHadNoRoom);
            self.checkpointing.waiting = Some((table, header, NO_ROOM_TICKS));
        }
    }

    fn try_again_for_room<S: StateStore>(&mut self, cx: &mut Context<'_, S>) {
        let Some((table, header, ticks)) = self.checkpointing.waiting.take() else { return };
        if ticks > 1 {
            self.checkpointing.waiting = Some((table, header, ticks - 1));
            return;
        }
        let (shard, replica) = (self.shard, self.id);
        cx.outputs.push(Output::Checkpoint(Box::new(CheckpointJob::Write { shard, replica, table, header })));
    }

    /// Each tick, and when something asks for it: sees to a mark if a checkpoint is due, and begins one without a mark if the
    /// replica is at its bounds and none came.
    pub(crate) fn checkpoint_if_due<S: StateStore>(&mut self, tick: bool, cx: &mut Context<'_, S>) {
        self.checkpointing.ticks += u64::from(tick);
        if tick {
            self.try_again_for_room(cx);
            self.tick_marks(cx);
            self.floors.retain(|_, floor| {
                floor.ticks_left = floor.ticks_left.saturating_sub(1);
                point!(LogKeptLongEnough if floor.ticks_left == 0);
                floor.ticks_left > 0
            });
        }
        self.checkpointing.wanted |= self.raft.store().take_snapshot_wanted();
        let settings = cx.settings;
        let holds_up_writes = self.holds_up_writes();
        let Phase::Live(state) = &mut self.phase else { return };
        let (active, log_bytes) = (state.active_bytes(), self.checkpointing.log_bytes);
        let share = |bytes_max: usize| bytes_max * settings.checkpoint_percent / 100;
        let due = active >= share(settings.active_bytes_max)
            || cx.tables_bytes >= settings.tables_bytes_max / 2
            || log_bytes >= share(settings.kept_bytes_max)
            || self.checkpointing.ticks >= settings.checkpoint_ticks;
        let due = (due && state.is_changed()) || self.checkpointing.wanted || holds_up_writes;
        let is_full = active >= settings.active_bytes_max || log_bytes >= settings.kept_bytes_max;
        // What is not applied any more can bring no mark.
        let is_stopped = cx.tables_bytes >= settings.tables_bytes_max;
        let is_changed = state.is_changed();
        let is_overdue = self.is_mark_overdue(is_full, tick);
        self.checkpointing.due = due || is_full;
        if self.is_busy() {
            point!(CheckpointWaited if due && is_changed);
            return;
        }
        if is_changed && (is_stopped || is_overdue) {
            self.begin_checkpoint(cx);
        } else if due {
            self.seek_mark(is_full, cx);
        }
    }

    /// Whether a checkpoint is under way: a further one can't be begun.
    pub(super) fn is_busy(&self) -> bool {
        self.checkpointing.writing || self.state().is_none_or(ShardState::has_frozen)
    }

    /// Freezes the state as it is and has it written.
    pub(super) fn begin_checkpoint<S: StateStore>(&mut self, cx: &mut Context<'_, S>) {
        let Phase::Live(state) = &mut self.phase else { return };
        let (table, header) = state.freeze();
        let checkpointing = &mut self.checkpointing;
        (checkpointing.writing, checkpointing.wanted) = (true, false);
        (checkpointing.ticks, checkpointing.log_bytes) = (0, 0);
        let (shard, replica) = (self.shard, self.id);
        cx.outputs.push(Output::Checkpoint(Box::new(CheckpointJob::Write { shard, replica, table, header })));
    }

    /// Somebody needs a checkpoint that is newer.
    pub(crate) fn want_checkpoint(&mut self) {
        self.checkpointing.wanted = true;
    }

    /// The shard keeps the log's oldest segment: nothing behind the checkpoint is kept, and a newer one is made.
    pub(crate) fn unpin<S: StateStore>(&mut self, cx: &mut Context<'_, S>) {
        self.checkpointing.pinned = true;
        self.checkpointing.wanted = true;
        self.give_up_log(cx);
    }

    /// The node holds too much log: not even that is kept which a replica being sent a snapshot needs next. It will need
    /// another snapshot.
    pub(crate) fn relieve<S: StateStore>(&mut self, cx: &mut Context<'_, S>) {
        point!(LogRelieved if !self.floors.is_empty());
        self.floors.clear();
        self.unpin(cx);
    }

    /// Gives up entries behind the newest confirmed checkpoint, as far as bounds ask for it and followers allow it.
    pub(crate) fn give_up_log<S: StateStore>(&mut self, cx: &mut Context<'_, S>) {
        let Some(checkpoint) = self.raft.store().checkpoint().map(|checkpoint| checkpoint.index) else { return };
        if self.state().is_none() {
            return;
        }
        let kept = cx.settings.kept_bytes_max;
        let target = if self.checkpointing.pinned {
            checkpoint
        } else {
            self.raft.store().index_with_bytes_above(kept, checkpoint)
        };
        let floor = self.floors.values().map(|floor| floor.index).min();
        point!(LogKeptForASnapshot if floor.is_some_and(|floor| floor < target));
        let target = floor.map_or(target, |floor| target.min(floor));
        let current = &self.configuration;
        let header = match &self.phase {
            Phase::Live(state) => Some(state.header()),
            _ => None,
        };
        let configuration = header.and_then(|header| configuration_at(header, target)).unwrap_or(current).clone();
        if let Some(boundary) = self.raft.mut_store().compact(target, || configuration) {
            point!(LogPinned if self.checkpointing.pinned);
            self.checkpointing.pinned = false;
            if let Phase::Live(state) = &mut self.phase {
                state.forget_configurations_before(boundary.index);
            }
            cx.batcher.push(vec![Record::Boundary { shard: self.shard, boundary }]);
        }
    }

    /// Keeps the log above an index for a replica that is being sent a snapshot.
    pub(crate) fn keep_log_for(&mut self, replica: ReplicaId, index: LogIndex, ticks: u64) {
        self.floors.insert(replica, Floor { index, ticks_left: ticks });
    }

    /// Tells raft what became of a snapshot that it wanted sent.
    pub(crate) fn snapshot_sent(&mut self, to: ReplicaId, complete: bool) {
        if self.is_quarantined() {
            return;
        }
        if !complete {
            self.floors.remove(&to);
        }
        let status = if complete { raft::SnapshotStatus::Finish } else { raft::SnapshotStatus::Failure };
        self.raft.report_snapshot(to.0, status);
    }

    /// Drops the floors of replicas that have caught up.
    pub(crate) fn drop_floors(&mut self) {
        let prs = self.raft.raft.prs();
        let leads = self.raft.raft.state == raft::StateRole::Leader;
        self.floors.retain(|replica, floor| {
            leads && prs.get(replica.0).is_some_and(|progress| progress.matched < floor.index.0)
        });
    }

    /// The place of the newest durable checkpoint.
    pub(crate) fn checkpoint_index(&self) -> Option<LogIndex> {
        self.checkpointing.newest
    }

    /// The place of the newest confirmed checkpoint.
    pub(crate) fn confirmed_index(&self) -> Option<LogIndex> {
        self.raft.store().checkpoint().map(|checkpoint| checkpoint.index)
    }

    /// The state is another than a majority's: all of it goes, and comes from a peer.
    pub(super) fn discard_state<S: StateStore>(&mut self, cx: &mut Context<'_, S>) {
        self.lose_state();
        self.phase = Phase::Stateless;
        self.checkpointing.ask_ticks = 0;
        self.refuse_all_who_wait(cx);
        cx.outputs.push(Output::Checkpoint(Box::new(CheckpointJob::Forget { replica: self.id })));
    }

    /// Takes the replica out of service: it answers nobody and acknowledges nothing until the node is started again.
    pub(crate) fn quarantine<S: StateStore>(&mut self, reason: &str, cx: &mut Context<'_, S>) {
        if self.is_quarantined() {
            return;
        }
        self.phase = Phase::Quarantined(reason.to_owned());
        self.incoming = None;
        self.flights.clear();
        self.give_up_proposals(cx);
        self.refuse_all_who_wait(cx);
        cx.notice(Notice::Quarantined { shard: self.shard, reason: reason.to_owned() });
    }
}

fn configuration_at(header: &StateHeader, index: LogIndex) -> Option<&Configuration> {
    header.configurations.iter().rev().find(|(from, _)| *from <= index).map(|(_, configuration)| configuration)
}
