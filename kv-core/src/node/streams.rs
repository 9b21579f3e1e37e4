//! Checkpoints on their way out to other replicas.
//!
//! The receiver asks for one piece at a time, so nothing queues here. At most [`STREAMS_MAX`] streams leave a node, and one
//! a shard; raft always hears how a snapshot that it wanted sent has ended, or it would wait for ever.

use std::collections::BTreeMap;

use super::Node;
use crate::{
    checkpoint::job::{CheckpointJob, Manifest},
    disk::StateStore,
    io::Output,
    message::{KEEP_STREAM, PeerMessage, RaftMessage, SnapshotMark},
    state::record::StateHeader,
    types::{LogIndex, NodeId, ReplicaId, ShardId, Time},
};

/// Streams out of a node at a time; a further one is refused, and raft asks again.
const STREAMS_MAX: usize = 2;
/// Ticks without a question of the receiver's after which a stream is given up.
const QUIET_TICKS_MAX: u64 = 400;

#[derive(Debug, Default)]
pub(super) struct Streams {
    outgoing: BTreeMap<u64, Outgoing>,
}

#[derive(Debug)]
struct Outgoing {
    shard: ShardId,
    to: NodeId,
    purpose: Purpose,
    quiet_ticks: u64,
    ticks: u64,
    /// A piece is being read: what is asked for meanwhile is not, or a receiver could ask without end.
    reading: bool,
}

#[derive(Debug)]
enum Purpose {
    /// Raft wants a follower to have it.
    Snapshot { replica: ReplicaId, message: Box<RaftMessage> },
    /// A replica lost its own checkpoint; one between these indexes is of use to it.
    State { at_least: LogIndex, at_most: LogIndex },
}

impl<S: StateStore> Node<S> {
    /// Raft wants a snapshot sent.
    pub(super) fn begin_stream(&mut self, shard: ShardId, message: RaftMessage, now: Time, outputs: &mut Vec<Output>) {
        let replica = message.to;
        let index = message.snapshot.as_ref().map_or(LogIndex(0), |mark| mark.index);
        let ticks = self.settings.stream_ticks_max;
        let to = self.with_replica(shard, now, outputs, |own, _| own.node_of(replica)).flatten();
        let begun = to.is_some_and(|to| {
            self.forget_streams(shard, to, outputs);
            self.open_stream(shard, to, Purpose::Snapshot { replica, message: Box::new(message) }, outputs)
        });
        self.with_replica(shard, now, outputs, |own, _| {
            if begun { own.keep_log_for(replica, index, ticks) } else { own.snapshot_sent(replica, false) }
        });
        self.dirty(shard);
    }

    /// A peer without a readable checkpoint asks for one.
    pub(super) fn state_asked(
        &mut self,
        from: NodeId,
        shard: ShardId,
        (at_least, at_most): (LogIndex, LogIndex),
        now: Time,
        outputs: &mut Vec<Output>,
    ) {
        // What is wanted here is seen to in this turn, whether the replica rested or not.
        self.dirty(shard);
        let Some(replica) = self.replicas.get_mut(shard) else { return };
        let serves = replica.state().is_some();
        match replica.confirmed_index() {
            Some(index) if serves && at_least <= index && index <= at_most => {
                self.open_stream(shard, from, Purpose::State { at_least, at_most }, outputs);
            }
            // The asker's log goes on from where this one's checkpoint does not reach yet.
            index if index.is_none_or(|index| index < at_least) => {
                point!(StateTooOldToGive);
                replica.want_checkpoint();
            }
            // Nor does the asker's log reach this checkpoint. The leader gives up its log up to there, so that raft has no
            // choice but a snapshot.
            Some(_) if serves && replica.leads() => {
                point!(StateTooNewToGive);
                self.with_replica(shard, now, outputs, |replica, cx| replica.unpin(cx));
            }
            _ => {}
        }
    }

    fn open_stream(&mut self, shard: ShardId, to: NodeId, purpose: Purpose, outputs: &mut Vec<Output>) -> bool {
        let outgoing = &self.streams.outgoing;
        if outgoing.len() >= STREAMS_MAX || outgoing.values().any(|other| other.shard == shard) {
            point!(StreamRefused);
            return false;
        }
        let Some(replica) = self.replicas.get(shard).map(|replica| replica.id()) else { return false };
        let stream = self.unique.next_number();
        outputs.push(Output::Checkpoint(Box::new(CheckpointJob::Offer { shard, replica, stream })));
        self.streams.outgoing.insert(stream, Outgoing { shard, to, purpose, quiet_ticks: 0, ticks: 0, reading: false });
        true
    }

    /// The checkpoint to send is known.
    pub(super) fn stream_offered(
        &mut self,
        stream: u64,
        manifest: Manifest,
        header: &StateHeader,
        now: Time,
        outputs: &mut Vec<Output>,
    ) {
        let Some(outgoing) = self.streams.outgoing.get_mut(&stream) else {
            return outputs.push(Output::Checkpoint(Box::new(CheckpointJob::Release { stream })));
        };
        let configuration = header.configurations.iter().rev().find(|(from, _)| *from <= header.index);
        let message = match &mut outgoing.purpose {
            Purpose::State { at_least, at_most } => {
                if !(*at_least <= manifest.index && manifest.index <= *at_most) {
                    return self.end(stream, false, now, outputs);
                }
                None
            }
            Purpose::Snapshot { message, .. } => {
                let wanted = message.snapshot.as_ref().map_or(LogIndex(0), |mark| mark.index);
                let Some((_, configuration)) = configuration.filter(|_| manifest.index >= wanted) else {
                    let shard = outgoing.shard;
                    self.end(stream, false, now, outputs);
                    if let Some(replica) = self.replicas.get_mut(shard) {
                        replica.want_checkpoint();
                    }
                    return;
                };
                let (index, term) = (manifest.index, manifest.term);
                message.snapshot = Some(Box::new(SnapshotMark { index, term, configuration: configuration.clone() }));
                Some(message.clone())
            }
        };
        let (to, shard) = (outgoing.to, outgoing.shard);
        outputs.push(Output::Send { to, message: PeerMessage::SnapshotOffer { shard, stream, manifest, message } });
    }

    /// The receiver asks for a piece.
    pub(super) fn piece_wanted(
        &mut self,
        from: NodeId,
        stream: u64,
        file: u32,
        offset: u64,
        outputs: &mut Vec<Output>,
    ) {
        if let Some(outgoing) = self.streams.outgoing.get_mut(&stream).filter(|outgoing| outgoing.to == from) {
            outgoing.quiet_ticks = 0;
            point!(PieceAskedTwice if outgoing.reading && file != KEEP_STREAM);
            if file != KEEP_STREAM && !outgoing.reading {
                outgoing.reading = true;
                outputs.push(Output::Checkpoint(Box::new(CheckpointJob::ReadPiece { stream, file, offset })));
            }
        }
    }

    /// A piece was read.
    pub(super) fn piece_read(
        &mut self,
        stream: u64,
        file: u32,
        offset: u64,
        bytes: bytes::Bytes,
        outputs: &mut Vec<Output>,
    ) {
        if let Some(Outgoing { shard, to, reading, .. }) = self.streams.outgoing.get_mut(&stream) {
            *reading = false;
            let message = PeerMessage::SnapshotChunk { shard: *shard, stream, file, offset, bytes };
            outputs.push(Output::Send { to: *to, message });
        }
    }

    /// The receiver is done.
    pub(super) fn stream_ended(
        &mut self,
        from: NodeId,
        stream: u64,
        complete: bool,
        now: Time,
        outputs: &mut Vec<Output>,
    ) {
        if self.streams.outgoing.get(&stream).is_some_and(|outgoing| outgoing.to == from) {
            self.end(stream, complete, now, outputs);
        }
    }

    /// Gives a stream up, or ends it well; tells raft.
    pub(super) fn end(&mut self, stream: u64, complete: bool, now: Time, outputs: &mut Vec<Output>) {
        let Some(outgoing) = self.streams.outgoing.remove(&stream) else { return };
        outputs.push(Output::Checkpoint(Box::new(CheckpointJob::Release { stream })));
        if let Purpose::Snapshot { replica, .. } = outgoing.purpose {
            self.with_replica(outgoing.shard, now, outputs, |own, _| own.snapshot_sent(replica, complete));
            self.dirty(outgoing.shard);
        }
    }

    /// Lets go of streams to a replica without a word to raft: they are of an earlier wish of its, and what became of them
    /// must not be taken for the outcome of the new one.
    fn forget_streams(&mut self, shard: ShardId, to: NodeId, outputs: &mut Vec<Output>) {
        self.streams.outgoing.retain(|stream, outgoing| {
            let is_old = outgoing.shard == shard && outgoing.to == to;
            if is_old {
                point!(StreamForgotten);
                outputs.push(Output::Checkpoint(Box::new(CheckpointJob::Release { stream: *stream })));
            }
            !is_old
        });
    }

    /// Each tick: streams that nobody asks about, that take too long, or whose replica no longer leads are given up.
    pub(super) fn tick_streams(&mut self, now: Time, outputs: &mut Vec<Output>) {
        let ticks_max = self.settings.stream_ticks_max;
        let mut over = Vec::new();
        for (stream, outgoing) in &mut self.streams.outgoing {
            outgoing.ticks += 1;
            outgoing.quiet_ticks += 1;
            let deposed = matches!(outgoing.purpose, Purpose::Snapshot { .. })
                && !self.replicas.get(outgoing.shard).is_some_and(|replica| replica.leads());
            point!(StreamOfTheDeposed if deposed);
            point!(StreamUnasked if outgoing.quiet_ticks > QUIET_TICKS_MAX);
            if outgoing.quiet_ticks > QUIET_TICKS_MAX || outgoing.ticks > ticks_max || deposed {
                over.push(*stream);
            }
        }
        for stream in over {
            self.end(stream, false, now, outputs);
        }
    }
}
