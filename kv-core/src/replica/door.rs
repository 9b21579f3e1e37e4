//! A client's request at the door of its shard: refused at once with the reason, or queued.

use std::borrow::Cow;

use super::{
    Phase, Replica,
    context::Context,
    proposals::{Queued, Waiting, check_async},
    reads::{Read, Waiter},
};
use crate::{
    command::{Command, Write},
    disk::StateStore,
    error::{Error, ErrorKind, Outcome},
    io::{Consistency, Durability, Operation, Request},
    shard_map::ShardRow,
    state::ShardState,
    types::{Epoch, Key, NodeId, RequestId, Time},
};

/// Bytes of the sessions of all shards of a node; past it no session is opened.
const SESSIONS_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Commands that wait for a shard past which a node queues none of its own; it asks again later. While the meta shard's leader
/// reaches nobody, all nodes tell it again and again how they are reached.
pub const OWN_COMMANDS_MAX: usize = 16;
/// How long a client should wait before it asks a shard without a leader again, in milliseconds.
const NO_LEADER_RETRY_MS: u64 = 50;

impl Replica {
    /// Takes a request; answers it now, or later, exactly once.
    pub(crate) fn request<S: StateStore>(&mut self, request: Request, default: Durability, cx: &mut Context<'_, S>) {
        let waiting = self.proposals.len() + self.reads.len() + self.durable_waits.len();
        if waiting >= cx.settings.waiting_requests_max && !crate::mutant!("B41") {
            point!(TooManyWaited);
            let error = Error::overloaded("too many requests wait for this shard", 50);
            return cx.reply(request.id, Err(error));
        }
        if request.deadline <= cx.now {
            point!(CameTooLate);
            let error = Error::not_applied(ErrorKind::Timeout, "the deadline passed before the request was looked at");
            return cx.reply(request.id, Err(error));
        }
        let refusal = match &request.operation {
            Operation::TransferLeader { .. } => None,
            Operation::Get { consistency: Consistency::Linearizable, .. } => self.check_leading(cx).err(),
            Operation::WaitDurable { token } if token.shard != self.shard => {
                Some(Error::invalid(format!("the token is of shard {}, not of shard {}", token.shard, self.shard)))
            }
            Operation::Get { .. } | Operation::WaitDurable { .. } => {
                // One that is being proven will soon answer; these may not for long.
                let waits_in_vain =
                    matches!(self.phase, Phase::Quarantined(_) | Phase::Stateless) || self.is_disputed();
                waits_in_vain.then(|| self.not_serving())
            }
            Operation::Write { write, durability } => {
                self.check_write(write, durability.unwrap_or(default), request.epoch, cx).err()
            }
            Operation::OpenSession => self.check_open_session(cx).err(),
        };
        if let Some(error) = refusal {
            return cx.reply(request.id, Err(error));
        }
        let waiting = Waiting { request: request.id, deadline: request.deadline, answered: false };
        match request.operation {
            Operation::Get { key, consistency } => {
                let Request { id, epoch, deadline, .. } = request;
                self.queue_read(Read { request: id, key, epoch, consistency, deadline, asked: false }, cx);
            }
            Operation::Write { write, durability } => {
                let durability = durability.unwrap_or(default);
                self.proposals.queue(Queued { waiting, command: Command::Write(write), durability });
            }
            Operation::OpenSession => {
                let command = Command::OpenSession;
                self.proposals.queue(Queued { waiting, command, durability: Durability::Sync });
            }
            Operation::WaitDurable { token } => {
                let wait = super::DurableWait { request: request.id, token, deadline: request.deadline };
                self.durable_waits.push(wait);
                self.answer_durable_waits(cx);
                point!(TokenWaited if self.durable_waits.last().is_some_and(|wait| wait.request == request.id));
            }
            Operation::TransferLeader { to } => self.hand_to(request.id, to, cx),
        }
    }

    /// Queues a command of the node's own; nobody waits for it.
    pub(crate) fn queue_own(&mut self, command: Command) {
        if self.proposals.len() >= OWN_COMMANDS_MAX {
            return;
        }
        let waiting = Waiting { request: RequestId(0), deadline: Time(0), answered: true };
        self.proposals.queue(Queued { waiting, command, durability: Durability::Sync });
    }

    fn queue_read<S: StateStore>(&mut self, read: Read, cx: &mut Context<'_, S>) {
        if let Some(age) = self.age_if_fresh(read.consistency, cx) {
            if let Err(error) = self.answer_read(&read, age, cx) {
                let refusal = self.not_serving();
                cx.reply(read.request, Err(refusal));
                self.reload(error.0, cx);
            }
            return;
        }
        // A leader proves itself for a bounded read as for a linearizable one: it has nobody else to ask.
        if self.leads() || read.consistency == Consistency::Linearizable {
            self.reads.waiting.push(Waiter::Read(read));
        } else {
            self.reads.follower.waiting.push(read);
        }
    }

    /// Proposes and asks for all that was queued in this turn.
    pub(crate) fn flush<S: StateStore>(&mut self, cx: &mut Context<'_, S>) {
        if self.is_quarantined() {
            return;
        }
        self.propose_queued(cx);
        self.ask_round(cx);
        self.ask_probe(cx, false);
    }

    fn check_write<S: StateStore>(
        &self,
        write: &Write,
        durability: Durability,
        epoch: Option<Epoch>,
        cx: &Context<'_, S>,
    ) -> Result<(), Error> {
        if durability == Durability::Async {
            check_async(write)?;
        }
        self.check_leading(cx)?;
        if mutant!("S5") && self.raft.raft.prs().iter().any(|(_, progress)| !progress.recent_active) {
            // Writes wait for all replicas.
            return Err(self.not_serving());
        }
        self.check_room(cx)?;
        match self.state() {
            Some(state) => self.check_row(state, epoch, &write.key, cx),
            None => Err(self.not_serving()),
        }
    }

    /// Sessions are in memory whole: their number is bounded per shard by replicated state, and here for the node.
    fn check_open_session<S: StateStore>(&self, cx: &Context<'_, S>) -> Result<(), Error> {
        self.check_leading(cx)?;
        self.check_room(cx)?;
        if cx.sessions_bytes >= SESSIONS_BYTES_MAX {
            return Err(Error::overloaded("the node holds as many sessions as it may", 1_000));
        }
        Ok(())
    }

    fn check_room<S: StateStore>(&self, cx: &Context<'_, S>) -> Result<(), Error> {
        if cx.disk_full {
            point!(RefusedForDisk);
            return Err(Error::not_applied(
                ErrorKind::DiskFull,
                "the node's disk is nearly full: it takes no writes until space is freed",
            )
            .with(|detail| detail.retry_after_ms = Some(1_000)));
        }
        let (tables_full, log_full) = (cx.tables_bytes >= cx.settings.tables_bytes_max, self.log_is_full(cx));
        let unconfirmed_full = cx.kept_full || self.checkpointing.is_unconfirmed_full;
        if tables_full || cx.log_full || log_full || unconfirmed_full {
            point!(RefusedForTables if tables_full);
            point!(RefusedForLogFiles if cx.log_full);
            point!(RefusedForLog if log_full);
            point!(RefusedUnconfirmed if unconfirmed_full);
            return Err(Error::overloaded("the node waits for checkpoints to free its tables and its log", 100));
        }
        if !self.proposals.has_room() {
            return Err(Error::overloaded(
                "the shard's leadership is being handed over, and enough waits for its end",
                50,
            ));
        }
        if cx.leaving {
            point!(RefusedForLeaving);
            return Err(Error::not_applied(ErrorKind::NoQuorum, "the node is handing its leaderships over")
                .with(|detail| detail.retry_after_ms = Some(NO_LEADER_RETRY_MS)));
        }
        Ok(())
    }

    fn check_leading<S: StateStore>(&self, cx: &Context<'_, S>) -> Result<(), Error> {
        point!(RefusedUnproven if self.leads() && self.state().is_none());
        point!(RefusedInDispute if self.leads() && self.state().is_some() && self.is_disputed());
        if self.is_quarantined() || (self.leads() && (self.state().is_none() || self.is_disputed())) {
            return Err(self.not_serving());
        }
        if self.leads() { Ok(()) } else { Err(self.not_leading(cx)) }
    }

    /// Arc and epoch against the replicated state.
    pub(super) fn check_row<S: StateStore>(
        &self,
        state: &ShardState,
        epoch: Option<Epoch>,
        key: &Key,
        cx: &Context<'_, S>,
    ) -> Result<(), Error> {
        let (kind, why) = if epoch.is_some_and(|epoch| epoch != state.epoch()) {
            point!(RefusedForEpoch);
            (ErrorKind::StaleEpoch, "the shard's row has changed since the map was made")
        } else if !state.owns(key) {
            point!(RefusedForArc);
            (ErrorKind::NotOwner, "the key is not in this shard's arc")
        } else {
            return Ok(());
        };
        let (row, leader) = self.hint(cx);
        Err(Error::not_applied(kind, why).with(|detail| (detail.row, detail.leader) = (row, leader)))
    }

    /// The row and the leader that a refusal carries.
    pub(super) fn hint<S: StateStore>(&self, cx: &Context<'_, S>) -> (Option<ShardRow>, Option<NodeId>) {
        (cx.map.row(self.shard).cloned(), self.leader())
    }

    pub(super) fn not_leading<S: StateStore>(&self, cx: &Context<'_, S>) -> Error {
        let (row, leader) = self.hint(cx);
        let error = match leader.filter(|leader| *leader != cx.node) {
            Some(leader) => {
                Error::not_applied(ErrorKind::NotOwner, format!("node {leader} leads shard {}", self.shard))
            }
            None => Error::not_applied(ErrorKind::NoQuorum, format!("shard {} has no leader now", self.shard))
                .with(|detail| detail.retry_after_ms = Some(NO_LEADER_RETRY_MS)),
        };
        error.with(|detail| (detail.row, detail.leader) = (row, leader))
    }

    /// Answers all who wait for the state, which may not come soon or is not to be shown: what was never proposed as not applied,
    /// what was as unknown. The books on what was stay: it may still be decided, and reads must wait for what was acknowledged.
    pub(super) fn refuse_all_who_wait<S: StateStore>(&mut self, cx: &mut Context<'_, S>) {
        let mut in_vain: Vec<RequestId> = Vec::new();
        self.proposals.retain_queued(|queued| {
            in_vain.extend(queued.waiting.unanswered());
            queued.waiting.answered
        });
        self.reads.retain(|read| {
            in_vain.push(read.request);
            false
        });
        for request in in_vain {
            let error = self.not_serving();
            cx.reply(request, Err(error));
        }
        let mut unknown = self.proposals.end_waits();
        unknown.extend(std::mem::take(&mut self.durable_waits).into_iter().map(|wait| wait.request));
        for request in unknown {
            let error = self.not_serving().with_outcome(Outcome::Unknown);
            cx.reply(request, Err(error));
        }
    }

    /// Why the replica does not serve although it stands here.
    pub(super) fn not_serving(&self) -> Error {
        let (kind, message) = match &self.phase {
            _ if self.is_disputed() => (
                ErrorKind::Corrupt,
                Cow::Borrowed(
                    "the shard's replicas hold different states and no majority agrees on one; see the log of its nodes",
                ),
            ),
            Phase::Quarantined(reason) => {
                (ErrorKind::Corrupt, Cow::Owned(format!("the replica here is out of service: {reason}")))
            }
            Phase::Stateless => (ErrorKind::NoQuorum, Cow::Borrowed("the replica waits for its state from a peer")),
            Phase::Loading | Phase::Live(_) => (ErrorKind::NoQuorum, Cow::Borrowed("the replica is proving its state")),
        };
        Error::not_applied(kind, message).with(|detail| detail.retry_after_ms = Some(NO_LEADER_RETRY_MS))
    }
}
