//! Between our own types and raft's. Raft's types appear in this folder only.

use raft::eraftpb;

use crate::{
    configuration::Configuration,
    log::record::{Boundary, EntryKind, HardState, LogEntry},
    message::{RaftMessage, RaftMessageKind, SnapshotMark},
    types::{LogIndex, ReplicaId, Term},
};

/// An entry in raft's type. The data is shared, not copied.
pub(super) fn entry_to_raft(entry: &LogEntry) -> eraftpb::Entry {
    eraftpb::Entry {
        entry_type: match entry.kind {
            EntryKind::Commands => eraftpb::EntryType::EntryNormal,
            EntryKind::Configuration => eraftpb::EntryType::EntryConfChange,
            EntryKind::ConfigurationV2 => eraftpb::EntryType::EntryConfChangeV2,
        },
        term: entry.term.0,
        index: entry.index.0,
        data: entry.data.clone(),
        context: entry.context.clone(),
        ..Default::default()
    }
}

/// An entry in our type. The data is shared, not copied.
pub(super) fn entry_from_raft(entry: &eraftpb::Entry) -> LogEntry {
    LogEntry {
        index: LogIndex(entry.index),
        term: Term(entry.term),
        kind: match entry.entry_type {
            eraftpb::EntryType::EntryNormal => EntryKind::Commands,
            eraftpb::EntryType::EntryConfChange => EntryKind::Configuration,
            eraftpb::EntryType::EntryConfChangeV2 => EntryKind::ConfigurationV2,
        },
        context: entry.context.clone(),
        data: entry.data.clone(),
    }
}

/// A hard state in raft's type.
pub(super) fn hard_state_to_raft(hard_state: HardState) -> eraftpb::HardState {
    eraftpb::HardState {
        term: hard_state.term.0,
        vote: hard_state.vote.0,
        commit: hard_state.commit.0,
        ..Default::default()
    }
}

/// A hard state in our type.
pub(super) fn hard_state_from_raft(hard_state: &eraftpb::HardState) -> HardState {
    HardState { term: Term(hard_state.term), vote: ReplicaId(hard_state.vote), commit: LogIndex(hard_state.commit) }
}

/// A configuration in raft's type, which knows no nodes.
pub(super) fn configuration_to_raft(configuration: &Configuration) -> eraftpb::ConfState {
    let ids = |replicas: &[ReplicaId]| replicas.iter().map(|replica| replica.0).collect();
    eraftpb::ConfState {
        voters: ids(&configuration.voters),
        learners: ids(&configuration.learners),
        voters_outgoing: ids(&configuration.voters_outgoing),
        learners_next: ids(&configuration.learners_next),
        auto_leave: configuration.auto_leave,
        ..Default::default()
    }
}

/// A boundary as the snapshot that raft sends for it: metadata alone, the files travel by themselves.
pub(super) fn snapshot_to_raft(boundary: &Boundary) -> eraftpb::Snapshot {
    let mut snapshot = eraftpb::Snapshot::default();
    let metadata = snapshot.mut_metadata();
    metadata.index = boundary.index.0;
    metadata.term = boundary.term.0;
    metadata.set_conf_state(configuration_to_raft(&boundary.configuration));
    snapshot
}

/// A message in raft's type.
pub(super) fn message_to_raft(message: &RaftMessage) -> eraftpb::Message {
    let mut out = eraftpb::Message {
        msg_type: kind_to_raft(message.kind),
        to: message.to.0,
        from: message.from.0,
        term: message.term.0,
        log_term: message.log_term.0,
        index: message.index.0,
        entries: message.entries.iter().map(entry_to_raft).collect::<Vec<_>>().into(),
        commit: message.commit.0,
        commit_term: message.commit_term.0,
        request_snapshot: message.request_snapshot.0,
        reject: message.reject,
        reject_hint: message.reject_hint.0,
        context: message.context.clone(),
        priority: message.priority,
        ..Default::default()
    };
    if let Some(mark) = &message.snapshot {
        out.set_snapshot(snapshot_to_raft(&Boundary {
            index: mark.index,
            term: mark.term,
            configuration: mark.configuration.clone(),
        }));
    }
    out
}

/// A message in our type; `None` for the kinds that never leave a process. `checkpoint` is
/// where a snapshot sent was taken, with the table of nodes that raft does not know.
pub(super) fn message_from_raft(message: eraftpb::Message, checkpoint: Option<&Boundary>) -> Option<RaftMessage> {
    let kind = kind_from_raft(message.msg_type)?;
    let snapshot = (kind == RaftMessageKind::Snapshot).then(|| {
        let metadata = message.get_snapshot().get_metadata();
        Box::new(SnapshotMark {
            index: LogIndex(metadata.index),
            term: Term(metadata.term),
            configuration: checkpoint.map(|checkpoint| checkpoint.configuration.clone()).unwrap_or_default(),
        })
    });
    Some(RaftMessage {
        kind,
        to: ReplicaId(message.to),
        from: ReplicaId(message.from),
        term: Term(message.term),
        log_term: Term(message.log_term),
        index: LogIndex(message.index),
        entries: message.entries.iter().map(entry_from_raft).collect(),
        commit: LogIndex(message.commit),
        commit_term: Term(message.commit_term),
        snapshot,
        request_snapshot: LogIndex(message.request_snapshot),
        reject: message.reject,
        reject_hint: LogIndex(message.reject_hint),
        context: message.context,
        priority: message.priority,
    })
}

fn kind_to_raft(kind: RaftMessageKind) -> eraftpb::MessageType {
    use eraftpb::MessageType as Raft;
    match kind {
        RaftMessageKind::Append => Raft::MsgAppend,
        RaftMessageKind::AppendResponse => Raft::MsgAppendResponse,
        RaftMessageKind::RequestVote => Raft::MsgRequestVote,
        RaftMessageKind::RequestVoteResponse => Raft::MsgRequestVoteResponse,
        RaftMessageKind::RequestPreVote => Raft::MsgRequestPreVote,
        RaftMessageKind::RequestPreVoteResponse => Raft::MsgRequestPreVoteResponse,
        RaftMessageKind::Snapshot => Raft::MsgSnapshot,
        RaftMessageKind::Heartbeat => Raft::MsgHeartbeat,
        RaftMessageKind::HeartbeatResponse => Raft::MsgHeartbeatResponse,
        RaftMessageKind::TimeoutNow => Raft::MsgTimeoutNow,
    }
}

fn kind_from_raft(kind: eraftpb::MessageType) -> Option<RaftMessageKind> {
    use eraftpb::MessageType as Raft;
    Some(match kind {
        Raft::MsgAppend => RaftMessageKind::Append,
        Raft::MsgAppendResponse => RaftMessageKind::AppendResponse,
        Raft::MsgRequestVote => RaftMessageKind::RequestVote,
        Raft::MsgRequestVoteResponse => RaftMessageKind::RequestVoteResponse,
        Raft::MsgRequestPreVote => RaftMessageKind::RequestPreVote,
        Raft::MsgRequestPreVoteResponse => RaftMessageKind::RequestPreVoteResponse,
        Raft::MsgSnapshot => RaftMessageKind::Snapshot,
        Raft::MsgHeartbeat => RaftMessageKind::Heartbeat,
        Raft::MsgHeartbeatResponse => RaftMessageKind::HeartbeatResponse,
        Raft::MsgTimeoutNow => RaftMessageKind::TimeoutNow,
        Raft::MsgHup
        | Raft::MsgBeat
        | Raft::MsgPropose
        | Raft::MsgTransferLeader
        | Raft::MsgReadIndex
        | Raft::MsgReadIndexResp
        | Raft::MsgUnreachable
        | Raft::MsgSnapStatus
        | Raft::MsgCheckQuorum => return None,
    })
}
