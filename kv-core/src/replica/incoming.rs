//! Taking a checkpoint over from another replica.
//!
//! Files are fetched piece by piece into a staging directory and verified there; only then does raft see MsgSnapshot. What
//! raft makes of it decides: if a Ready brings the snapshot, one block holds the install and everything with it, and once
//! that is synced the files are switched; if none does, staging is thrown away. From the step until the block is synced the
//! replica must not campaign, since raft would look for entries that are gone.
//!
//! A stream that breaks off while files are fetched leaves staging as it is: whoever offers the same files next sends only what is
//! lacking, from the middle of a file too, so that files which take longer than one stream may take come over in several. Staging
//! that nobody has asked for again by the time that a stream may take is thrown away, at once if the disk gets full; files of another
//! checkpoint take its place, and have from it what they share. It does not outlive the process.
//!
//! A replica whose own checkpoint can't be read fetches one in the same way, without raft: its log goes on from there.

use std::collections::VecDeque;

use super::{
    Phase, Replica,
    context::Context,
    convert::message_to_raft,
    validate::{INDEX_MAX, OUT_OF_RANGE, Verdict},
};
use crate::{
    checkpoint::job::{CheckpointJob, MANIFEST_FILES_MAX, Manifest},
    configuration::Configuration,
    disk::StateStore,
    io::{Notice, Output},
    log::record::{Install, StagingId},
    message::{KEEP_STREAM, PeerMessage, RaftMessage, SnapshotMark},
    state::record::StateHeader,
    types::{Digest, LogIndex, NodeId},
};

/// Ticks without a piece after which it is asked for again.
const ASK_AGAIN_TICKS: u64 = 20;
/// Ticks without progress after which a stream is given up.
const QUIET_TICKS_MAX: u64 = 400;

/// A stream on its way in. At most one per replica.
#[derive(Debug)]
pub(super) struct Incoming {
    from: NodeId,
    stream: u64,
    manifest: Manifest,
    staging: StagingId,
    /// Raft's message; `None` for a replica that lost its own checkpoint.
    message: Option<Box<RaftMessage>>,
    step: Step,
    quiet_ticks: u64,
    ticks: u64,
}

#[derive(Debug)]
enum Step {
    /// The checkpoint thread makes the directory.
    Staging,
    /// Pieces are fetched, one at a time: of these files, from these offsets on.
    Fetching { lacking: VecDeque<(u32, u64)>, writing: bool },
    /// The checkpoint thread syncs and verifies.
    Verifying,
    /// Raft has seen the snapshot; the next Ready tells what it made of it.
    Stepped,
    /// The block with the install is on its way to the disk.
    Installing,
}

/// What a stream that broke off has left for the next one.
#[derive(Debug)]
pub(super) struct Left {
    staging: StagingId,
    ticks: u64,
}

impl Replica {
    /// Whether the replica is between the step of a snapshot and the sync of its install.
    pub(super) fn is_installing(&self) -> bool {
        self.incoming.as_ref().is_some_and(|incoming| matches!(incoming.step, Step::Stepped | Step::Installing))
    }

    /// Whether an install's block is on its way to the disk.
    pub(super) fn awaits_install(&self) -> bool {
        self.incoming.as_ref().is_some_and(|incoming| matches!(incoming.step, Step::Installing))
    }

    /// A peer offers a checkpoint.
    pub(crate) fn offered<S: StateStore>(
        &mut self,
        from: NodeId,
        stream: u64,
        manifest: Manifest,
        message: Option<Box<RaftMessage>>,
        cx: &mut Context<'_, S>,
    ) {
        if self.is_quarantined() {
            return;
        }
        match self.check_offer(from, &manifest, message.as_deref()) {
            Verdict::Step | Verdict::Drop => {}
            Verdict::Refuse(reason) => {
                point!(OfferRefused);
                cx.notice(Notice::Refused { from, shard: Some(self.shard), reason });
                return self.end_stream(from, stream, false, cx);
            }
            Verdict::Quarantine(reason) => {
                self.end_stream(from, stream, false, cx);
                return self.quarantine(reason, cx);
            }
        }
        if let Some(message) = &message
            && self.raft.raft.raft_log.match_term(manifest.index.0, manifest.term.0)
            && manifest.index <= self.commit()
        {
            point!(OfferOfWhatIsHere);
            // All of it is here already. Raft takes nothing from it, and tells the leader where this replica stands.
            let _ = self.raft.step(message_to_raft(message));
            return self.end_stream(from, stream, true, cx);
        }
        let staging = manifest.staging();
        // What is being switched to must not be touched by a second stream of the same files.
        if (self.is_installing() || self.checkpointing.is_switching_to(staging)) && !crate::mutant!("B23") {
            point!(OfferWhileInstalling);
            return self.end_stream(from, stream, false, cx);
        }
        if let Some(old) = &mut self.incoming {
            // Whoever offers one thing after another must not fill the checkpoint thread's queue: it is behind with the last.
            if old.staging != staging && matches!(old.step, Step::Staging) {
                point!(OfferWhileStaging);
                return self.end_stream(from, stream, false, cx);
            }
            if old.staging == staging {
                // The same files again, from the same sender or another: go on where we are.
                point!(StreamGoesOn);
                (old.from, old.stream, old.message) = (from, stream, message);
                old.quiet_ticks = 0;
                return self.want(cx);
            }
            point!(StreamReplaced);
            self.leave_incoming(cx);
        }
        point!(StreamResumed if self.left.as_ref().is_some_and(|left| left.staging == staging));
        // The checkpoint thread takes from it what these files share with it, and throws the rest away.
        self.left = None;
        cx.outputs
            .push(Output::Checkpoint(Box::new(CheckpointJob::Stage { replica: self.id, manifest: manifest.clone() })));
        let step = Step::Staging;
        self.incoming = Some(Incoming { from, stream, manifest, staging, message, step, quiet_ticks: 0, ticks: 0 });
    }

    fn check_offer(&self, from: NodeId, manifest: &Manifest, message: Option<&RaftMessage>) -> Verdict {
        if manifest.files.is_empty() || manifest.files.len() > MANIFEST_FILES_MAX {
            return Verdict::Refuse("an offer of no files, or of too many");
        }
        if manifest.index.0 > INDEX_MAX || manifest.term > self.term_max() || manifest.term.0 == 0 {
            return Verdict::Refuse(OUT_OF_RANGE);
        }
        let plain = |name: &str| {
            !name.is_empty()
                && name.len() <= 64
                && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        };
        if !manifest.files.iter().all(|file| plain(&file.name)) {
            return Verdict::Refuse("an offer of a file whose name is none of ours");
        }
        let Some(message) = message else {
            let wanted = matches!(self.phase, Phase::Stateless);
            if !wanted {
                return Verdict::Refuse("an offer that was not asked for");
            }
            // Any peer may answer, so this proves nothing of the group's log. It is of no use here.
            if self.has_parted(manifest.index, manifest.term) {
                return Verdict::Refuse("an offer of a state that is not of this log");
            }
            return Verdict::Step;
        };
        let mark = message.snapshot.as_ref();
        if !mark.is_some_and(|mark| mark.index == manifest.index && mark.term == manifest.term) {
            return Verdict::Refuse("an offer whose files and message differ");
        }
        if message.term < self.term() {
            return Verdict::Refuse("an offer of a leader of the past");
        }
        self.judge(from, message)
    }

    /// Staging is ready: these files are lacking.
    pub(crate) fn staged<S: StateStore>(
        &mut self,
        staging: StagingId,
        lacking: &[(u32, u64)],
        cx: &mut Context<'_, S>,
    ) {
        let Some(incoming) = self.incoming_at(staging) else { return };
        if matches!(incoming.step, Step::Staging) {
            incoming.quiet_ticks = 0;
            incoming.step = Step::Fetching { lacking: lacking.iter().copied().collect(), writing: false };
            self.want(cx);
        }
    }

    /// A piece came.
    pub(crate) fn chunk<S: StateStore>(
        &mut self,
        (from, stream): (NodeId, u64),
        file: u32,
        offset: u64,
        bytes: bytes::Bytes,
        cx: &mut Context<'_, S>,
    ) {
        let replica = self.id;
        let Some(incoming) = &mut self.incoming else { return };
        if (incoming.from, incoming.stream) != (from, stream) {
            return;
        }
        let staging = incoming.staging;
        let Step::Fetching { lacking, writing } = &mut incoming.step else { return };
        if *writing || lacking.front() != Some(&(file, offset)) {
            point!(PieceOutOfTurn);
            return;
        }
        if bytes.is_empty() {
            point!(PieceUnreadable);
            return self.leave_incoming(cx);
        }
        *writing = true;
        incoming.quiet_ticks = 0;
        cx.outputs.push(Output::Checkpoint(Box::new(CheckpointJob::WritePiece {
            replica,
            staging,
            file,
            offset,
            bytes,
        })));
    }

    /// A piece is in staging.
    pub(crate) fn piece_written<S: StateStore>(
        &mut self,
        staging: StagingId,
        file: u32,
        next_offset: u64,
        cx: &mut Context<'_, S>,
    ) {
        let Some(incoming) = self.incoming_at(staging) else { return };
        let bytes = incoming.manifest.files.get(file as usize).map_or(0, |file| file.bytes);
        let Step::Fetching { lacking, writing } = &mut incoming.step else { return };
        let Some((_, offset)) = lacking.front_mut().filter(|(first, _)| *first == file) else { return };
        *writing = false;
        *offset = next_offset;
        if next_offset >= bytes {
            lacking.pop_front();
        }
        self.want(cx);
    }

    /// Asks for the next piece, or has everything verified.
    fn want<S: StateStore>(&mut self, cx: &mut Context<'_, S>) {
        let Some(incoming) = &mut self.incoming else { return };
        let Step::Fetching { lacking, writing: false } = &incoming.step else { return };
        match lacking.front().copied() {
            Some((file, offset)) => {
                let stream = incoming.stream;
                cx.send(incoming.from, PeerMessage::SnapshotWant { shard: self.shard, stream, file, offset });
            }
            None => {
                incoming.step = Step::Verifying;
                let job = CheckpointJob::Verify { replica: self.id, staging: incoming.staging };
                cx.outputs.push(Output::Checkpoint(Box::new(job)));
            }
        }
    }

    /// Staging holds what the manifest says: now raft, or a replica without state, may have it.
    pub(crate) fn verified<S: StateStore>(
        &mut self,
        staging: StagingId,
        header: &StateHeader,
        cx: &mut Context<'_, S>,
    ) {
        let installing = self.is_installing();
        let Some(incoming) = self.incoming_at(staging) else { return };
        let configuration = header.configurations.last().map(|(_, configuration)| configuration.clone());
        let (Some(configuration), true) = (
            configuration.filter(|_| matches!(incoming.step, Step::Verifying) && !installing),
            header.index == incoming.manifest.index && header.term == incoming.manifest.term,
        ) else {
            return self.drop_incoming(false, cx);
        };
        match &mut incoming.message {
            Some(message) => {
                let (index, term) = (header.index, header.term);
                message.snapshot = Some(Box::new(SnapshotMark { index, term, configuration }));
                let (from, message) = (incoming.from, message.clone());
                incoming.step = Step::Stepped;
                // While the files came the log went on: what is decided now may be what the snapshot differs from.
                match self.judge(from, &message) {
                    Verdict::Quarantine(reason) => {
                        self.drop_incoming(false, cx);
                        self.quarantine(reason, cx);
                    }
                    Verdict::Step => drop(self.raft.step(message_to_raft(&message))),
                    Verdict::Drop | Verdict::Refuse(_) => self.drop_incoming(false, cx),
                }
            }
            None => self.take_state(configuration, cx),
        }
    }

    /// After the Readies of a turn: a snapshot that showed in none was not taken.
    pub(crate) fn settle_incoming<S: StateStore>(&mut self, cx: &mut Context<'_, S>) {
        if self.incoming.as_ref().is_some_and(|incoming| matches!(incoming.step, Step::Stepped)) {
            // Raft had no need of it: the log went on meanwhile. That is a success for the sender.
            point!(SnapshotOvertaken);
            self.drop_incoming(true, cx);
        }
    }

    /// Raft took the snapshot at this index: what its install names.
    pub(super) fn accept_staging(&mut self, index: LogIndex) -> (StagingId, Digest, Configuration) {
        let incoming = self.incoming.as_mut().expect("raft takes only the snapshot that was stepped from staging");
        assert_eq!(incoming.manifest.index, index, "the snapshot taken is the one that was staged");
        incoming.step = Step::Installing;
        let mark = incoming.message.as_ref().and_then(|message| message.snapshot.as_ref());
        let configuration = mark.map(|mark| mark.configuration.clone()).unwrap_or_default();
        (incoming.staging, incoming.manifest.digest, configuration)
    }

    /// The block with the install is synced: the files may be switched.
    pub(super) fn install_synced<S: StateStore>(&mut self, cx: &mut Context<'_, S>) {
        if let Some(incoming) = self.incoming.take() {
            self.end_stream(incoming.from, incoming.stream, true, cx);
        }
        self.load(cx);
    }

    /// A replica without state takes over a checkpoint that its own log goes on from.
    fn take_state<S: StateStore>(&mut self, configuration: Configuration, cx: &mut Context<'_, S>) {
        let Some(incoming) = &self.incoming else { return };
        let (index, term) = (incoming.manifest.index, incoming.manifest.term);
        let fits = matches!(self.phase, Phase::Stateless)
            && self.raft.store().boundary().index <= index
            && index <= self.handed_out
            && self.raft.store().term_at(index) == Some(term);
        if !fits {
            return self.drop_incoming(false, cx);
        }
        let install =
            Install { index, term, configuration, staging: incoming.staging, digest: incoming.manifest.digest };
        point!(StateTaken);
        self.end_stream(incoming.from, incoming.stream, true, cx);
        self.incoming = None;
        self.begin_install(install);
        self.load(cx);
    }

    /// Staging can't be made or is not what it should be.
    pub(crate) fn stage_failed<S: StateStore>(&mut self, staging: StagingId, cx: &mut Context<'_, S>) {
        if self.incoming_at(staging).is_some() && !self.is_installing() {
            point!(StagingFailed);
            self.drop_incoming(false, cx);
        }
    }

    /// Each tick: asks again for what does not come, and for a checkpoint if there is none.
    pub(super) fn tick_incoming<S: StateStore>(&mut self, cx: &mut Context<'_, S>) {
        let Some(incoming) = &mut self.incoming else {
            self.tick_left(cx);
            return self.ask_for_state(cx);
        };
        incoming.ticks += 1;
        if incoming.ticks > cx.settings.stream_ticks_max && !matches!(incoming.step, Step::Stepped | Step::Installing) {
            point!(StreamTooLong);
            return self.leave_incoming(cx);
        }
        match incoming.step {
            Step::Fetching { .. } => {
                incoming.quiet_ticks += 1;
                if incoming.quiet_ticks > QUIET_TICKS_MAX {
                    point!(StreamStalled);
                    self.leave_incoming(cx);
                } else if incoming.quiet_ticks.is_multiple_of(ASK_AGAIN_TICKS) {
                    point!(PieceAskedAgain);
                    self.want(cx);
                }
            }
            // The checkpoint thread is at work here: the sender must not take the silence for an end.
            Step::Staging | Step::Verifying if incoming.ticks.is_multiple_of(ASK_AGAIN_TICKS) => {
                let (stream, file) = (incoming.stream, KEEP_STREAM);
                cx.send(incoming.from, PeerMessage::SnapshotWant { shard: self.shard, stream, file, offset: 0 });
            }
            Step::Staging | Step::Verifying | Step::Stepped | Step::Installing => {}
        }
    }

    fn ask_for_state<S: StateStore>(&mut self, cx: &mut Context<'_, S>) {
        if !matches!(self.phase, Phase::Stateless) || !self.checkpointing.ask_now(ASK_AGAIN_TICKS) {
            return;
        }
        let others: Vec<NodeId> = self.configuration.nodes.values().copied().filter(|node| *node != cx.node).collect();
        // One after the other: the one asked last may be without state itself.
        let turn = usize::try_from(cx.unique.next_number() % others.len().max(1) as u64).unwrap_or(0);
        if let Some(to) = others.get(turn) {
            let (at_least, at_most) = (self.raft.store().boundary().index, self.handed_out);
            cx.send(*to, PeerMessage::StateAsk { shard: self.shard, at_least, at_most });
        }
    }

    fn incoming_at(&mut self, staging: StagingId) -> Option<&mut Incoming> {
        self.incoming.as_mut().filter(|incoming| incoming.staging == staging)
    }

    /// Ends the stream, and leaves what has come of it for the next one.
    fn leave_incoming<S: StateStore>(&mut self, cx: &mut Context<'_, S>) {
        // Files that are being proven may turn out to be what they should not be, or whole with nobody to take them.
        if !matches!(self.incoming.as_ref().map(|incoming| &incoming.step), Some(Step::Staging | Step::Fetching { .. }))
        {
            return self.drop_incoming(false, cx);
        }
        let Some(incoming) = self.incoming.take() else { return };
        self.left = Some(Left { staging: incoming.staging, ticks: 0 });
        self.end_stream(incoming.from, incoming.stream, false, cx);
    }

    /// Each tick: what nobody went on with takes up room.
    fn tick_left<S: StateStore>(&mut self, cx: &mut Context<'_, S>) {
        let Some(left) = &mut self.left else { return };
        left.ticks += 1;
        if left.ticks > cx.settings.stream_ticks_max || cx.disk_full {
            point!(StagingLeftTooLong);
            let job = CheckpointJob::Discard { replica: self.id, staging: left.staging };
            cx.outputs.push(Output::Checkpoint(Box::new(job)));
            self.left = None;
        }
    }

    fn drop_incoming<S: StateStore>(&mut self, complete: bool, cx: &mut Context<'_, S>) {
        let Some(incoming) = self.incoming.take() else { return };
        let job = CheckpointJob::Discard { replica: self.id, staging: incoming.staging };
        cx.outputs.push(Output::Checkpoint(Box::new(job)));
        self.end_stream(incoming.from, incoming.stream, complete, cx);
    }

    fn end_stream<S: StateStore>(&self, to: NodeId, stream: u64, complete: bool, cx: &mut Context<'_, S>) {
        cx.send(to, PeerMessage::SnapshotEnd { shard: self.shard, stream, complete });
    }
}
