//! Raft's Readies: what leaves at once, what waits for a block, and in which order raft is told.
//!
//! Per replica, the persisted messages of Ready n leave, and raft hears that n is persisted, only when the blocks of all
//! Readies up to n are synced. A leader's messages leave before its own sync (Raft thesis 10.2.1). A Ready that needs no
//! sync starts no block: its hard state waits for the next one, its messages only for the Readies before it.
//!
//! Only MsgHeartbeatResponse may overtake: it grants nothing, and a slow disk must not look like a dead follower.

use raft::Ready;

use super::{
    Replica,
    context::Context,
    convert::{entry_from_raft, hard_state_from_raft, message_from_raft},
};
use crate::{
    disk::StateStore,
    log::record::{Boundary, Install, Record},
    message::{PeerMessage, RaftMessage, RaftMessageKind},
    types::{BatchNumber, LogIndex, ReplicaId, Term},
};

/// A Ready on its way to the disk.
#[derive(Debug)]
pub(super) struct Flight {
    ready: u64,
    /// The block that holds the last of its records; `None` if it has none.
    batch: Option<BatchNumber>,
    /// What may leave once it is synced.
    messages: Vec<RaftMessage>,
    /// The index of a snapshot that it brought.
    snapshot: Option<LogIndex>,
}

/// What a pass of [`Replica::pump`] leaves for the node to do.
#[derive(Debug, Default)]
pub(crate) struct Pumped {
    /// Snapshots that raft wants sent.
    pub(crate) snapshots: Vec<RaftMessage>,
}

impl Replica {
    /// Takes Readies until there is none.
    pub(crate) fn pump<S: StateStore>(&mut self, cx: &mut Context<'_, S>) -> Pumped {
        let mut pumped = Pumped::default();
        while !self.is_quarantined() && self.raft.has_ready() {
            let ready = self.raft.ready();
            self.take_ready(ready, cx, &mut pumped);
            self.land_flights(None, cx, &mut pumped);
        }
        pumped
    }

    /// The log has synced all blocks up to this one.
    pub(crate) fn synced<S: StateStore>(&mut self, batch: BatchNumber, cx: &mut Context<'_, S>) -> Pumped {
        let mut pumped = Pumped::default();
        self.land_flights(Some(batch), cx, &mut pumped);
        pumped
    }

    fn take_ready<S: StateStore>(&mut self, mut ready: Ready, cx: &mut Context<'_, S>, pumped: &mut Pumped) {
        for message in ready.take_messages() {
            if let Some(message) = self.own_message(message) {
                self.send_raft(message, cx, pumped);
            }
        }
        let (records, snapshot) = self.records_of(&mut ready);
        if crate::mutant!("B22") && snapshot.is_some() {
            // The files are switched although no log says yet that they should be.
            self.load(cx);
        }
        let committed = ready.committed_entries().last().map(|entry| LogIndex(entry.index));
        self.handed_out = committed.unwrap_or(self.handed_out);
        let early = |message: &RaftMessage| {
            message.kind == RaftMessageKind::HeartbeatResponse
                || (crate::mutant!("B10") && message.kind == RaftMessageKind::RequestVoteResponse)
                || (crate::mutant!("B11") && message.kind == RaftMessageKind::AppendResponse)
        };
        let mut messages = Vec::new();
        for message in ready.take_persisted_messages() {
            match self.own_message(message) {
                Some(message) if early(&message) => self.send_raft(message, cx, pumped),
                late => messages.extend(late),
            }
        }
        let batch = if records.is_empty() { None } else { Some(cx.batcher.push(records)) };
        point!(ReadyWaitedForEarlier if batch.is_none() && !self.flights.is_empty());
        self.flights.push_back(Flight { ready: ready.number(), batch, messages, snapshot });
        self.raft.advance_append_async(ready);
        // Not while a snapshot is on its way to the disk: raft may hear of it only once it is there.
        if let Some(index) = committed {
            self.raft.advance_apply_to(index.0);
        }
    }

    /// Puts what the Ready brings into the log in memory, and tells what the log on disk must hold. A hard state that needs
    /// no sync is kept for the next block.
    fn records_of(&mut self, ready: &mut Ready) -> (Vec<Record>, Option<LogIndex>) {
        let shard = self.shard;
        let must_sync = ready.must_sync();
        let mut records = Vec::new();
        let snapshot = if ready.snapshot().is_empty() {
            None
        } else {
            let install = self.install_of(ready);
            let index = install.index;
            records.push(Record::Install { shard, install });
            Some(index)
        };
        if let Some(hard_state) = ready.hs() {
            let hard_state = hard_state_from_raft(hard_state);
            self.raft.mut_store().set_hard_state(hard_state);
            self.unwritten = Some(hard_state);
        }
        let entries = ready.take_entries();
        records.extend(entries.iter().map(|entry| Record::Entry { shard, entry: entry_from_raft(entry) }));
        self.raft.mut_store().append(entries);
        if must_sync && let Some(hard_state) = self.unwritten.take() {
            // Behind the entries: a commit index must never be on disk before what it commits.
            records.push(Record::HardState { shard, hard_state });
        }
        (records, snapshot)
    }

    /// The snapshot that raft accepted takes the place of the log in memory.
    fn install_of(&mut self, ready: &Ready) -> Install {
        let metadata = ready.snapshot().get_metadata();
        let (index, term) = (LogIndex(metadata.index), Term(metadata.term));
        let (staging, digest, configuration) = self.accept_staging(index);
        let store = self.raft.store();
        point!(InstallOverConflict if store.last() >= index);
        point!(InstallOverUndecided if store.last() > store.commit());
        let boundary = Boundary { index, term, configuration: configuration.clone() };
        self.raft.mut_store().install(boundary);
        self.configuration = configuration.clone();
        self.handed_out = index;
        let install = Install { index, term, configuration, staging, digest };
        self.begin_install(install.clone());
        install
    }

    /// Lets go of the Readies whose blocks are synced, in order.
    fn land_flights<S: StateStore>(
        &mut self,
        synced: Option<BatchNumber>,
        cx: &mut Context<'_, S>,
        pumped: &mut Pumped,
    ) {
        while let Some(flight) = self.flights.front() {
            if flight.batch.is_some_and(|batch| synced.is_none_or(|synced| batch > synced)) {
                break;
            }
            let flight = self.flights.pop_front().expect("there is a front");
            for message in flight.messages {
                self.send_raft(message, cx, pumped);
            }
            self.raft.on_persist_ready(flight.ready);
            if let Some(index) = flight.snapshot {
                self.raft.advance_apply_to(index.0);
                self.install_synced(cx);
            }
        }
    }

    fn send_raft<S: StateStore>(&mut self, message: RaftMessage, cx: &mut Context<'_, S>, pumped: &mut Pumped) {
        if message.kind == RaftMessageKind::Snapshot {
            pumped.snapshots.push(message);
            return;
        }
        if let Some(to) = self.node_of(message.to) {
            cx.send(to, PeerMessage::Raft { shard: self.shard, message });
        }
    }

    /// A message of raft's in our type. One with a snapshot carries the configuration at the newest checkpoint.
    pub(super) fn own_message(&self, message: raft::eraftpb::Message) -> Option<RaftMessage> {
        message_from_raft(message, self.raft.store().checkpoint())
    }

    /// Tells raft that a message to this replica did not arrive.
    pub(crate) fn undelivered(&mut self, to: ReplicaId) {
        if !self.is_quarantined() {
            self.raft.report_unreachable(to.0);
        }
    }
}
