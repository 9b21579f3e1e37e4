//! The only place where the wire's messages become the client's types, and the other way round.
//!
//! What a node sends is not trusted: a message that lacks a part becomes an error, never a panic.

use std::time::Duration;

use bytes::Bytes;
use kv_core::{
    command::Condition,
    error::{Error as CoreError, ErrorKind as CoreKind},
    shard_map::{Arc, NodeDescription, ReplicaPlace, ShardMap, ShardRow},
    types::{
        ClusterId, Epoch, Incarnation, LogIndex, MapVersion, NodeId, Position, ReplicaId, Revision, ShardId, Term,
        Token,
    },
};
use kv_proto::v1;

use crate::{
    operation::{Answer, Operation, Write},
    types::{Consistency, Durability, Entry, Fate, Previous, Read, Receipt},
};

/// The wire's form of an operation; a write carries its stamp.
pub(crate) fn operation(operation: &Operation, stamp: Option<v1::SessionStamp>) -> v1::op::Operation {
    match operation {
        Operation::Get { key, consistency } => {
            let (consistency, age_ms_max) = match consistency {
                Consistency::Linearizable => (v1::Consistency::Linearizable, 0),
                Consistency::Bounded(age) => {
                    (v1::Consistency::Bounded, u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
                }
                Consistency::Stale => (v1::Consistency::Stale, 0),
            };
            v1::op::Operation::Get(v1::GetRequest {
                key: key.as_bytes().clone(),
                consistency: consistency.into(),
                age_ms_max,
            })
        }
        Operation::Write(write) => write_operation(write, stamp),
        Operation::WaitDurable(token) => {
            v1::op::Operation::WaitDurable(v1::WaitDurableRequest { token: Some(token_to_wire(*token)) })
        }
    }
}

fn write_operation(write: &Write, session: Option<v1::SessionStamp>) -> v1::op::Operation {
    let key = write.key.as_bytes().clone();
    let return_previous = write.return_previous;
    let durability = match write.durability {
        None => v1::Durability::Unspecified,
        Some(Durability::Sync) => v1::Durability::Sync,
        Some(Durability::Async) => v1::Durability::Async,
    }
    .into();
    match &write.value {
        Some(value) => {
            use v1::put_request::Condition as Wire;
            let condition = match write.condition {
                Condition::Always => None,
                Condition::Absent => Some(Wire::IfAbsent(true)),
                Condition::RevisionIs(revision) => Some(Wire::IfRevision(revision.0)),
            };
            let value = value.as_bytes().clone();
            v1::op::Operation::Put(v1::PutRequest { key, value, return_previous, durability, session, condition })
        }
        None => {
            use v1::delete_request::Condition as Wire;
            let condition = match write.condition {
                Condition::Always => None,
                Condition::Absent => Some(Wire::IfAbsent(true)),
                Condition::RevisionIs(revision) => Some(Wire::IfRevision(revision.0)),
            };
            v1::op::Operation::Delete(v1::DeleteRequest { key, return_previous, durability, session, condition })
        }
    }
}

/// What a node answered, as an answer to `asked`.
///
/// # Errors
/// The node's own error; `Internal` with an unknown outcome if the answer is none to what was asked.
pub(crate) fn answer(asked: &Operation, result: Option<v1::result::Result>) -> Result<Answer, CoreError> {
    use v1::result::Result as Wire;
    match (asked, result) {
        (_, Some(Wire::Error(detail))) => Err(error(detail)),
        (Operation::Get { .. }, Some(Wire::Get(response))) => Ok(Answer::Read(Read {
            entry: response.entry.map(entry),
            revision: Revision(response.revision),
            age: response.age_ms.map(Duration::from_millis),
        })),
        (Operation::Write(_), Some(Wire::Write(response))) => Ok(Answer::Receipt(receipt(response))),
        (Operation::WaitDurable(_), Some(Wire::WaitDurable(response))) => Ok(Answer::Fate(match response.fate() {
            v1::Fate::Durable => Fate::Durable,
            v1::Fate::Lost => Fate::Lost,
            v1::Fate::Unknown | v1::Fate::Unspecified => Fate::Unknown,
        })),
        _ => Err(mismatch()),
    }
}

/// The number of an opened session.
///
/// # Errors
/// As [`answer`].
pub(crate) fn session(result: Option<v1::result::Result>) -> Result<u64, CoreError> {
    match result {
        Some(v1::result::Result::OpenSession(response)) => Ok(response.session),
        Some(v1::result::Result::Error(detail)) => Err(error(detail)),
        _ => Err(mismatch()),
    }
}

/// What came is no answer to what was asked.
pub(crate) fn mismatch() -> CoreError {
    CoreError::unknown(
        CoreKind::Internal,
        "the node's answer does not fit what was asked; client and node may differ in version",
    )
}

fn entry(entry: v1::Entry) -> Entry {
    Entry { value: entry.value, revision: Revision(entry.revision) }
}

fn receipt(response: v1::WriteResponse) -> Receipt {
    use v1::previous::State;
    let durability = match response.durability() {
        v1::Durability::Async => Durability::Async,
        v1::Durability::Sync | v1::Durability::Unspecified => Durability::Sync,
    };
    let previous = match response.previous.map(|previous| previous.state) {
        None => Previous::NotAsked,
        Some(Some(State::Entry(held))) => Previous::Entry(entry(held)),
        Some(Some(State::Absent(true))) => Previous::Absent,
        Some(_) => Previous::Unavailable,
    };
    let token = response.token.map(|token| Token {
        shard: ShardId(token.shard),
        term: Term(token.term),
        index: LogIndex(token.index),
    });
    Receipt { revision: response.revision.map(Revision), previous, token, durability }
}

fn token_to_wire(token: Token) -> v1::Token {
    v1::Token { shard: token.shard.0, term: token.term.0, index: token.index.0 }
}

/// A node's error. What it does not say is taken as the worst: an unknown outcome.
pub(crate) fn error(detail: v1::ErrorDetail) -> CoreError {
    let kind = match detail.kind() {
        v1::ErrorKind::NotOwner => CoreKind::NotOwner,
        v1::ErrorKind::StaleEpoch => CoreKind::StaleEpoch,
        v1::ErrorKind::NoQuorum => CoreKind::NoQuorum,
        v1::ErrorKind::Overloaded => CoreKind::Overloaded,
        v1::ErrorKind::DiskFull => CoreKind::DiskFull,
        v1::ErrorKind::Timeout => CoreKind::Timeout,
        v1::ErrorKind::SessionExpired => CoreKind::SessionExpired,
        v1::ErrorKind::Conflict => CoreKind::Conflict,
        v1::ErrorKind::Invalid => CoreKind::Invalid,
        v1::ErrorKind::WrongCluster => CoreKind::WrongCluster,
        v1::ErrorKind::Corrupt => CoreKind::Corrupt,
        v1::ErrorKind::Internal | v1::ErrorKind::Unspecified => CoreKind::Internal,
    };
    let made = match detail.outcome() {
        v1::Outcome::NotApplied => CoreError::not_applied(kind, detail.message),
        v1::Outcome::Unknown | v1::Outcome::Unspecified => CoreError::unknown(kind, detail.message),
    };
    made.with(|into| {
        into.row = detail.row.map(row);
        into.leader = (detail.leader != 0).then_some(NodeId(detail.leader));
        into.retry_after_ms = detail.retry_after_ms;
        into.current = detail.current.map(Revision);
    })
}

/// A failed unary call: the detail that came with it, or what the transport says.
pub(crate) fn status(status: &tonic::Status) -> CoreError {
    if let Some(detail) = kv_proto::status::from_details(status.details()) {
        return error(detail);
    }
    let kind = match status.code() {
        tonic::Code::DeadlineExceeded | tonic::Code::Cancelled => CoreKind::Timeout,
        tonic::Code::InvalidArgument => CoreKind::Invalid,
        tonic::Code::ResourceExhausted => CoreKind::Overloaded,
        tonic::Code::Unimplemented | tonic::Code::Internal => CoreKind::Internal,
        _ => CoreKind::NoQuorum,
    };
    CoreError::unknown(kind, status.message().to_owned())
}

/// The map; what it says is checked where it is taken in.
pub(crate) fn map(map: v1::ShardMap) -> ShardMap {
    ShardMap {
        version: MapVersion(map.version),
        nodes: map.nodes.into_iter().map(node).collect(),
        shards: map.shards.into_iter().map(row).collect(),
    }
}

fn node(node: v1::Node) -> NodeDescription {
    NodeDescription {
        node: NodeId(node.node),
        incarnation: Incarnation(wide(&node.incarnation)),
        peer_address: node.peer_address,
        client_address: node.client_address,
        zone: node.zone,
        weight: node.weight,
    }
}

fn row(row: v1::ShardRow) -> ShardRow {
    ShardRow {
        shard: ShardId(row.shard),
        arc: row.arc.map(|arc| Arc { first: Position(arc.first), last: Position(arc.last) }),
        epoch: Epoch(row.epoch),
        replicas: row
            .replicas
            .iter()
            .map(|place| ReplicaPlace { replica: ReplicaId(place.replica), node: NodeId(place.node) })
            .collect(),
    }
}

/// The cluster's id; `None` if the bytes are none.
pub(crate) fn cluster(bytes: &Bytes) -> Option<ClusterId> {
    (bytes.len() == 16).then(|| ClusterId(wide(bytes)))
}

fn wide(bytes: &Bytes) -> u128 {
    bytes.as_ref().try_into().map(u128::from_be_bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_core::error::Outcome;

    fn detail(kind: v1::ErrorKind, outcome: v1::Outcome) -> v1::ErrorDetail {
        v1::ErrorDetail { kind: kind.into(), outcome: outcome.into(), ..v1::ErrorDetail::default() }
    }

    #[test]
    fn every_kind_of_error_keeps_its_name_and_what_is_not_said_is_unknown() {
        // The wire's numbers have no gap: the list ends at the first that stands for nothing.
        let kinds: Vec<_> = (0..).map_while(|number| v1::ErrorKind::try_from(number).ok()).collect();
        assert!(kinds.len() > 10, "{kinds:?}");
        for kind in kinds {
            let expected = match kind {
                v1::ErrorKind::Unspecified => "Internal".to_owned(),
                kind => format!("{kind:?}"),
            };
            let told = error(detail(kind, v1::Outcome::NotApplied));
            assert_eq!((format!("{:?}", told.kind()), told.outcome()), (expected, Outcome::NotApplied));
            assert_eq!(error(detail(kind, v1::Outcome::Unspecified)).outcome(), Outcome::Unknown);
            assert_eq!(error(detail(kind, v1::Outcome::Unknown)).outcome(), Outcome::Unknown);
        }
        // Of a later version.
        let strange = v1::ErrorDetail { kind: 77, outcome: 9, ..v1::ErrorDetail::default() };
        assert_eq!((error(strange.clone()).kind(), error(strange).outcome()), (CoreKind::Internal, Outcome::Unknown));
    }

    #[test]
    fn an_error_carries_whom_to_ask_and_when() {
        let told = error(v1::ErrorDetail {
            message: "moved".to_owned(),
            row: Some(v1::ShardRow { shard: 3, epoch: 7, ..v1::ShardRow::default() }),
            leader: 2,
            retry_after_ms: Some(30),
            current: Some(11),
            ..detail(v1::ErrorKind::NotOwner, v1::Outcome::NotApplied)
        });
        assert_eq!((told.message(), told.leader(), told.retry_after_ms()), ("moved", Some(NodeId(2)), Some(30)));
        assert_eq!(told.row().map(|row| (row.shard, row.epoch)), Some((ShardId(3), Epoch(7))));
        assert_eq!(told.current(), Some(Revision(11)));
        assert_eq!(error(detail(v1::ErrorKind::NotOwner, v1::Outcome::NotApplied)).leader(), None);
    }
}
