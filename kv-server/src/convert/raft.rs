//! Messages between replicas on the wire. Whether raft may take them, the core decides.

use std::collections::BTreeMap;

use kv_core::{
    configuration::Configuration,
    error::Error,
    log::record::{EntryKind, LogEntry},
    message::{RaftMessage, RaftMessageKind, SnapshotMark},
    shard_map::ReplicaPlace,
    types::{LogIndex, ReplicaId, Term},
};
use kv_proto::v1;

use super::{
    cluster::{place_from_wire, place_to_wire},
    compact,
};

pub(super) fn raft_to_wire(message: RaftMessage) -> v1::RaftMessage {
    v1::RaftMessage {
        message_type: kind_to_wire(message.kind).into(),
        to: message.to.0,
        from: message.from.0,
        term: message.term.0,
        log_term: message.log_term.0,
        index: message.index.0,
        entries: message.entries.into_iter().map(entry_to_wire).collect(),
        commit: message.commit.0,
        commit_term: message.commit_term.0,
        snapshot: message.snapshot.map(|mark| v1::SnapshotMark {
            index: mark.index.0,
            term: mark.term.0,
            configuration: Some(configuration_to_wire(&mark.configuration)),
        }),
        request_snapshot: message.request_snapshot.0,
        reject: message.reject,
        reject_hint: message.reject_hint.0,
        context: message.context,
        priority: message.priority,
    }
}

pub(super) fn raft_from_wire(message: v1::RaftMessage) -> Result<RaftMessage, Error> {
    let snapshot = match message.snapshot {
        Some(mark) => Some(Box::new(SnapshotMark {
            index: LogIndex(mark.index),
            term: Term(mark.term),
            configuration: configuration_from_wire(
                mark.configuration.ok_or_else(|| Error::invalid("a snapshot without a configuration"))?,
            ),
        })),
        None => None,
    };
    Ok(RaftMessage {
        kind: kind_from_wire(message.message_type)?,
        to: ReplicaId(message.to),
        from: ReplicaId(message.from),
        term: Term(message.term),
        log_term: Term(message.log_term),
        index: LogIndex(message.index),
        entries: message.entries.into_iter().map(entry_from_wire).collect::<Result<_, _>>()?,
        commit: LogIndex(message.commit),
        commit_term: Term(message.commit_term),
        snapshot,
        request_snapshot: LogIndex(message.request_snapshot),
        reject: message.reject,
        reject_hint: LogIndex(message.reject_hint),
        context: compact(message.context),
        priority: message.priority,
    })
}

fn entry_to_wire(entry: LogEntry) -> v1::RaftEntry {
    let entry_type = match entry.kind {
        EntryKind::Commands => v1::RaftEntryType::Normal,
        EntryKind::Configuration => v1::RaftEntryType::ConfChange,
        EntryKind::ConfigurationV2 => v1::RaftEntryType::ConfChangeV2,
    };
    v1::RaftEntry {
        entry_type: entry_type.into(),
        term: entry.term.0,
        index: entry.index.0,
        data: entry.data,
        context: entry.context,
    }
}

fn entry_from_wire(entry: v1::RaftEntry) -> Result<LogEntry, Error> {
    let kind = match v1::RaftEntryType::try_from(entry.entry_type) {
        Ok(v1::RaftEntryType::Normal) => EntryKind::Commands,
        Ok(v1::RaftEntryType::ConfChange) => EntryKind::Configuration,
        Ok(v1::RaftEntryType::ConfChangeV2) => EntryKind::ConfigurationV2,
        Err(_) => return Err(Error::invalid(format!("an entry of unknown type {}", entry.entry_type))),
    };
    Ok(LogEntry {
        index: LogIndex(entry.index),
        term: Term(entry.term),
        kind,
        context: compact(entry.context),
        data: compact(entry.data),
    })
}

fn configuration_to_wire(configuration: &Configuration) -> v1::Configuration {
    let ids = |group: &[ReplicaId]| group.iter().map(|replica| replica.0).collect();
    v1::Configuration {
        voters: ids(&configuration.voters),
        learners: ids(&configuration.learners),
        voters_outgoing: ids(&configuration.voters_outgoing),
        learners_next: ids(&configuration.learners_next),
        auto_leave: configuration.auto_leave,
        places: configuration
            .nodes
            .iter()
            .map(|(replica, node)| place_to_wire(ReplicaPlace { replica: *replica, node: *node }))
            .collect(),
    }
}

fn configuration_from_wire(configuration: v1::Configuration) -> Configuration {
    let ids = |group: Vec<u64>| group.into_iter().map(ReplicaId).collect();
    let places = configuration.places.into_iter().map(place_from_wire);
    Configuration {
        voters: ids(configuration.voters),
        learners: ids(configuration.learners),
        voters_outgoing: ids(configuration.voters_outgoing),
        learners_next: ids(configuration.learners_next),
        auto_leave: configuration.auto_leave,
        nodes: places.map(|place| (place.replica, place.node)).collect::<BTreeMap<_, _>>(),
    }
}

fn kind_to_wire(kind: RaftMessageKind) -> v1::RaftMessageType {
    match kind {
        RaftMessageKind::Append => v1::RaftMessageType::Append,
        RaftMessageKind::AppendResponse => v1::RaftMessageType::AppendResponse,
        RaftMessageKind::RequestVote => v1::RaftMessageType::RequestVote,
        RaftMessageKind::RequestVoteResponse => v1::RaftMessageType::RequestVoteResponse,
        RaftMessageKind::RequestPreVote => v1::RaftMessageType::RequestPreVote,
        RaftMessageKind::RequestPreVoteResponse => v1::RaftMessageType::RequestPreVoteResponse,
        RaftMessageKind::Snapshot => v1::RaftMessageType::Snapshot,
        RaftMessageKind::Heartbeat => v1::RaftMessageType::Heartbeat,
        RaftMessageKind::HeartbeatResponse => v1::RaftMessageType::HeartbeatResponse,
        RaftMessageKind::TimeoutNow => v1::RaftMessageType::TimeoutNow,
    }
}

fn kind_from_wire(kind: i32) -> Result<RaftMessageKind, Error> {
    Ok(match v1::RaftMessageType::try_from(kind) {
        Ok(v1::RaftMessageType::Append) => RaftMessageKind::Append,
        Ok(v1::RaftMessageType::AppendResponse) => RaftMessageKind::AppendResponse,
        Ok(v1::RaftMessageType::RequestVote) => RaftMessageKind::RequestVote,
        Ok(v1::RaftMessageType::RequestVoteResponse) => RaftMessageKind::RequestVoteResponse,
        Ok(v1::RaftMessageType::RequestPreVote) => RaftMessageKind::RequestPreVote,
        Ok(v1::RaftMessageType::RequestPreVoteResponse) => RaftMessageKind::RequestPreVoteResponse,
        Ok(v1::RaftMessageType::Snapshot) => RaftMessageKind::Snapshot,
        Ok(v1::RaftMessageType::Heartbeat) => RaftMessageKind::Heartbeat,
        Ok(v1::RaftMessageType::HeartbeatResponse) => RaftMessageKind::HeartbeatResponse,
        Ok(v1::RaftMessageType::TimeoutNow) => RaftMessageKind::TimeoutNow,
        Ok(v1::RaftMessageType::Unspecified) | Err(_) => {
            return Err(Error::invalid(format!("a raft message of type {kind}, which no peer sends")));
        }
    })
}
