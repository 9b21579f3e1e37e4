//! Where each input goes.

use super::{Node, rounds::NOT_HERE};
use crate::{
    checkpoint::job::{CheckpointEvent, CheckpointJob},
    disk::StateStore,
    error::{Error, ErrorKind},
    io::{Input, LogReport, Notice, Output, Request},
    message::PeerMessage,
    replica::{LoadedState, NO_MEMBER, Replica, context::Context},
    types::{NodeId, ReplicaId, ShardId, Time},
};

/// An empty block is written so many ticks after the last one, while the log is past its bound.
const LOG_FULL_TICKS: u64 = 20;
/// A slice of the scrub is read so often: at most 1 MiB, or some hundred records.
const SCRUB_TICKS: u64 = 20;

impl<S: StateStore> Node<S> {
    pub(super) fn take(&mut self, now: Time, input: Input, outputs: &mut Vec<Output>) {
        match input {
            Input::Tick => self.tick(now, outputs),
            Input::Peer { from, message } => self.peer(from, message, now, outputs),
            Input::Undelivered { to, shard } => self.undelivered(to, shard, now, outputs),
            Input::Request(request) => self.request(request, now, outputs),
            Input::Synced(report) => self.synced(&report, now, outputs),
            Input::Checkpoint(event) => self.checkpoint_event(*event, now, outputs),
            Input::DiskFree { bytes } => {
                let full = bytes < self.settings.disk_reserve_bytes;
                match (self.disk_full, full) {
                    (false, true) => outputs.push(Output::Notice(Notice::DiskLow { free_bytes: bytes })),
                    (true, false) => outputs.push(Output::Notice(Notice::DiskEnough { free_bytes: bytes })),
                    _ => {}
                }
                self.disk_full = full;
            }
            Input::Describe(own) => self.keeper.describe(own),
            Input::HandOver => self.stopping = true,
        }
    }

    fn tick(&mut self, now: Time, outputs: &mut Vec<Output>) {
        let stalled = self.batcher.tick() >= self.settings.election_ticks;
        match (self.log_stalled, stalled) {
            (false, true) => outputs.push(Output::Notice(Notice::LogStalled)),
            (true, false) => outputs.push(Output::Notice(Notice::LogAnswers)),
            _ => {}
        }
        self.log_stalled = stalled;
        self.sessions_bytes = self.tick_replicas(now, outputs);
        self.tick_streams(now, outputs);
        self.tick_map(outputs);
        self.tick_full_log();
        self.tick_scrub(outputs);
    }

    /// Has the next replica's files and tree read again, a slice of them: slowly, so that nobody notices.
    fn tick_scrub(&mut self, outputs: &mut Vec<Output>) {
        let (last, ticks) = &mut self.scrubbed;
        *ticks += 1;
        if *ticks < SCRUB_TICKS {
            return;
        }
        *ticks = 0;
        let mut live = self.replicas.values().filter(|replica| replica.state().is_some());
        let next = live.clone().find(|replica| replica.shard() > *last).or_else(|| live.next());
        if let Some(replica) = next {
            *last = replica.shard();
            let (shard, replica) = (replica.shard(), replica.id());
            outputs.push(Output::Checkpoint(Box::new(CheckpointJob::Scrub { shard, replica })));
        }
    }

    /// A log past its bound must be written to in order to shrink: a segment goes when a later block has said so, and which shards
    /// pin the oldest is reported with a block. While writes are refused there may be nothing else to write.
    fn tick_full_log(&mut self) {
        self.log_full_ticks += u64::from(self.log_full);
        if self.log_full_ticks >= LOG_FULL_TICKS && self.batcher.is_idle() {
            point!(LogWrittenToShrink);
            self.log_full_ticks = 0;
            self.batcher.push(Vec::new());
        }
    }

    fn peer(&mut self, from: NodeId, message: PeerMessage, now: Time, outputs: &mut Vec<Output>) {
        match message {
            PeerMessage::MapAsk { have } => return self.map_asked(from, have, outputs),
            PeerMessage::MapTell(map) => return self.map_told(from, &map, outputs),
            PeerMessage::DescribeNode(description) => return self.described(from, &description, outputs),
            PeerMessage::LeadershipAsk { round, leaderships } => {
                return self.leadership_asked(from, round, &leaderships, outputs);
            }
            PeerMessage::LeadershipAnswer { round, shards } => {
                return self.leadership_answered(from, round, &shards, outputs);
            }
            _ => {}
        }
        if let PeerMessage::Raft { shard, message } = &message
            && self.hear_at_rest(from, *shard, message)
        {
            return;
        }
        let about = message.shard();
        let Some((shard, replica)) = about.and_then(|shard| Some((shard, self.replicas.get(shard)?))) else {
            return Self::refuse(from, about, NOT_HERE, outputs);
        };
        // Whoever does not hold a shard has nothing to ask of it and nothing to say.
        if replica.replica_on(from).is_none() {
            return Self::refuse(from, about, NO_MEMBER, outputs);
        }
        match message {
            PeerMessage::StateAsk { at_least, at_most, .. } => {
                return self.state_asked(from, shard, (at_least, at_most), now, outputs);
            }
            PeerMessage::SnapshotWant { stream, file, offset, .. } => {
                return self.piece_wanted(from, stream, file, offset, outputs);
            }
            PeerMessage::SnapshotEnd { stream, complete, .. } => {
                return self.stream_ended(from, stream, complete, now, outputs);
            }
            _ => {}
        }
        if matches!(&message, PeerMessage::Raft { message, .. } if message.snapshot.is_some()) {
            return Self::refuse(
                from,
                about,
                "a snapshot comes as an offer, so that its files are here first",
                outputs,
            );
        }
        if let PeerMessage::Raft { message, .. } = &message {
            return self.step(from, shard, message, now, outputs);
        }
        self.on(shard, now, outputs, |replica, cx| match message {
            PeerMessage::Marks { report, .. } => replica.marks_told(from, report, cx),
            PeerMessage::ReadProbe { probe, .. } => replica.probed(from, probe, cx),
            PeerMessage::ReadProbeAnswer { probe, index, .. } => replica.probe_answered(from, probe, index, cx),
            PeerMessage::SnapshotOffer { stream, manifest, message, .. } => {
                replica.offered(from, stream, manifest, message, cx);
            }
            PeerMessage::SnapshotChunk { stream, file, offset, bytes, .. } => {
                replica.chunk((from, stream), file, offset, bytes, cx);
            }
            _ => {}
        });
    }

    fn undelivered(&mut self, to: NodeId, shard: Option<ShardId>, now: Time, outputs: &mut Vec<Output>) {
        let shards: Vec<ShardId> = match shard {
            Some(shard) => vec![shard],
            None => self.replicas.shards().to_vec(),
        };
        for shard in shards {
            self.on(shard, now, outputs, |replica, _| {
                if let Some(peer) = replica.replica_on(to) {
                    replica.undelivered(peer);
                }
            });
        }
    }

    fn request(&mut self, request: Request, now: Time, outputs: &mut Vec<Output>) {
        let (id, shard, durability) = (request.id, request.shard, self.durability);
        if self.replicas.get(shard).is_some() {
            let taken = self.on(shard, now, outputs, |replica, cx| replica.request(request, durability, cx));
            if taken.is_none() {
                let error = Error::unknown(ErrorKind::Internal, "the replica failed on the request");
                outputs.push(Output::Reply { request: id, result: Err(error) });
            }
            return;
        }
        let row = self.keeper.checked().row(shard).cloned();
        let error = match row {
            Some(row) => {
                let leader = row.owner();
                Error::not_applied(ErrorKind::NotOwner, format!("shard {shard} does not stand on this node"))
                    .with(|detail| (detail.row, detail.leader) = (Some(row), leader))
            }
            None => Error::invalid(format!("there is no shard {shard}")),
        };
        outputs.push(Output::Reply { request: id, result: Err(error) });
    }

    fn synced(&mut self, report: &LogReport, now: Time, outputs: &mut Vec<Output>) {
        self.batcher.synced(report.number);
        self.log_full = report.bytes > self.settings.log_bytes_max;
        self.log_full_ticks = 0;
        let number = report.number;
        let waiting = self.replicas.values().filter(|replica| replica.waits_for_log());
        let shards: Vec<ShardId> = waiting.map(Replica::shard).collect();
        for shard in shards {
            let pumped = self.on(shard, now, outputs, |replica, cx| replica.synced(number, cx));
            for message in pumped.map(|pumped| pumped.snapshots).unwrap_or_default() {
                self.begin_stream(shard, message, now, outputs);
            }
        }
        for shard in &report.pinned_by {
            self.on(*shard, now, outputs, |replica, cx| replica.unpin(cx));
        }
    }

    fn checkpoint_event(&mut self, event: CheckpointEvent, now: Time, outputs: &mut Vec<Output>) {
        match event {
            CheckpointEvent::Loaded { shard, footer, checkpoints, confirmed, sessions, nodes, .. } => {
                let loaded = LoadedState { footer, checkpoints, confirmed, sessions, nodes };
                self.on(shard, now, outputs, |replica, cx| replica.loaded(loaded, cx));
            }
            CheckpointEvent::LoadFailed { shard, reason, .. } => {
                self.on(shard, now, outputs, |replica, cx| replica.load_failed(reason, cx));
            }
            CheckpointEvent::Durable { shard, footer, .. } => {
                self.on(shard, now, outputs, |replica, cx| replica.checkpoint_durable(&footer, cx));
            }
            CheckpointEvent::Inserted { shard, index, .. } => {
                self.on(shard, now, outputs, |replica, cx| replica.checkpoint_inserted(index, cx));
            }
            CheckpointEvent::NoRoom { shard, table, header, .. } => {
                self.on(shard, now, outputs, |replica, _| replica.checkpoint_has_no_room(table, header));
            }
            CheckpointEvent::Confirmed { shard, index, .. } => {
                self.on(shard, now, outputs, |replica, cx| replica.confirmation_noted(index, cx));
            }
            CheckpointEvent::TreeFailed { shard, reason, .. } => {
                self.on(shard, now, outputs, |replica, cx| replica.reload(reason, cx));
            }
            CheckpointEvent::Offered { stream, manifest, header } => {
                self.stream_offered(stream, manifest, &header, now, outputs);
            }
            CheckpointEvent::OfferFailed { stream } => self.end(stream, false, now, outputs),
            CheckpointEvent::PieceRead { stream, file, offset, bytes } => {
                self.piece_read(stream, file, offset, bytes, outputs);
            }
            CheckpointEvent::Staged { replica, staging, lacking } => {
                self.on_id(replica, now, outputs, |replica, cx| replica.staged(staging, &lacking, cx));
            }
            CheckpointEvent::StageFailed { replica, staging, .. } => {
                self.on_id(replica, now, outputs, |replica, cx| replica.stage_failed(staging, cx));
            }
            CheckpointEvent::PieceWritten { replica, staging, file, next_offset } => {
                self.on_id(replica, now, outputs, |replica, cx| replica.piece_written(staging, file, next_offset, cx));
            }
            CheckpointEvent::Verified { replica, staging, header } => {
                self.on_id(replica, now, outputs, |replica, cx| replica.verified(staging, &header, cx));
            }
            // The shell stops the process; nothing may be done on the strength of this disk any more.
            CheckpointEvent::DiskFailed { .. } => {}
        }
    }

    /// Runs `work` on a shard's replica and marks it as touched.
    #[inline]
    fn on<R>(
        &mut self,
        shard: ShardId,
        now: Time,
        outputs: &mut Vec<Output>,
        work: impl FnOnce(&mut Replica, &mut Context<'_, S>) -> R,
    ) -> Option<R> {
        self.dirty(shard);
        self.with_replica(shard, now, outputs, work)
    }

    fn on_id(
        &mut self,
        id: ReplicaId,
        now: Time,
        outputs: &mut Vec<Output>,
        work: impl FnOnce(&mut Replica, &mut Context<'_, S>),
    ) {
        let shard = self.replicas.values().find(|replica| replica.id() == id).map(|replica| replica.shard());
        if let Some(shard) = shard {
            self.on(shard, now, outputs, work);
        }
    }
}
