//! Errors on the wire: in a result of a stream, and in the status of a unary call.

use std::borrow::Cow;

use kv_core::{
    error::{Error, ErrorKind, Outcome},
    types::{NodeId, Revision},
};
use kv_proto::{status, v1};
use tonic::{Code, Status};

use super::cluster::{row_from_wire, row_to_wire};

/// An error as it travels.
pub(crate) fn error_to_wire(error: &Error) -> v1::ErrorDetail {
    v1::ErrorDetail {
        kind: kind_to_wire(error.kind()).into(),
        outcome: match error.outcome() {
            Outcome::NotApplied => v1::Outcome::NotApplied,
            Outcome::Unknown => v1::Outcome::Unknown,
        }
        .into(),
        message: error.message().to_owned(),
        row: error.row().map(row_to_wire),
        leader: error.leader().map_or(0, |node| node.0),
        retry_after_ms: error.retry_after_ms(),
        current: error.current().map(|revision| revision.0),
    }
}

/// An error as the status of a unary call, the detail in `grpc-status-details-bin`.
pub(crate) fn error_to_status(error: &Error) -> Status {
    let code = code(error.kind());
    Status::with_details(code, error.to_string(), status::to_details(code.into(), &error_to_wire(error)))
}

/// What another node answered a forwarded call with. A call that broke without a detail may have taken effect.
pub(crate) fn wire_error(status: &Status) -> Error {
    let Some(detail) = status::from_details(status.details()) else {
        let message = format!("the node that the call was forwarded to did not answer: {}", status.message());
        return Error::unknown(ErrorKind::NoQuorum, message);
    };
    let kind = kind_from_wire(detail.kind());
    let message = Cow::Owned(detail.message.clone());
    let error = match detail.outcome() {
        v1::Outcome::NotApplied => Error::not_applied(kind, message),
        v1::Outcome::Unknown | v1::Outcome::Unspecified => Error::unknown(kind, message),
    };
    error.with(|set| {
        set.row = detail.row.and_then(|row| row_from_wire(row).ok());
        set.leader = (detail.leader != 0).then_some(NodeId(detail.leader));
        set.retry_after_ms = detail.retry_after_ms;
        set.current = detail.current.map(Revision);
    })
}

fn kind_to_wire(kind: ErrorKind) -> v1::ErrorKind {
    match kind {
        ErrorKind::NotOwner => v1::ErrorKind::NotOwner,
        ErrorKind::StaleEpoch => v1::ErrorKind::StaleEpoch,
        ErrorKind::NoQuorum => v1::ErrorKind::NoQuorum,
        ErrorKind::Overloaded => v1::ErrorKind::Overloaded,
        ErrorKind::DiskFull => v1::ErrorKind::DiskFull,
        ErrorKind::Timeout => v1::ErrorKind::Timeout,
        ErrorKind::SessionExpired => v1::ErrorKind::SessionExpired,
        ErrorKind::Conflict => v1::ErrorKind::Conflict,
        ErrorKind::Invalid => v1::ErrorKind::Invalid,
        ErrorKind::WrongCluster => v1::ErrorKind::WrongCluster,
        ErrorKind::Corrupt => v1::ErrorKind::Corrupt,
        _ => v1::ErrorKind::Internal,
    }
}

fn kind_from_wire(kind: v1::ErrorKind) -> ErrorKind {
    match kind {
        v1::ErrorKind::NotOwner => ErrorKind::NotOwner,
        v1::ErrorKind::StaleEpoch => ErrorKind::StaleEpoch,
        v1::ErrorKind::NoQuorum => ErrorKind::NoQuorum,
        v1::ErrorKind::Overloaded => ErrorKind::Overloaded,
        v1::ErrorKind::DiskFull => ErrorKind::DiskFull,
        v1::ErrorKind::Timeout => ErrorKind::Timeout,
        v1::ErrorKind::SessionExpired => ErrorKind::SessionExpired,
        v1::ErrorKind::Conflict => ErrorKind::Conflict,
        v1::ErrorKind::Invalid => ErrorKind::Invalid,
        v1::ErrorKind::WrongCluster => ErrorKind::WrongCluster,
        v1::ErrorKind::Corrupt => ErrorKind::Corrupt,
        v1::ErrorKind::Internal | v1::ErrorKind::Unspecified => ErrorKind::Internal,
    }
}

/// The gRPC code that says most nearly the same, for languages that look no further.
fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::NotOwner | ErrorKind::StaleEpoch | ErrorKind::NoQuorum => Code::Unavailable,
        ErrorKind::Overloaded | ErrorKind::DiskFull => Code::ResourceExhausted,
        ErrorKind::Timeout => Code::DeadlineExceeded,
        ErrorKind::SessionExpired | ErrorKind::Conflict | ErrorKind::WrongCluster => Code::FailedPrecondition,
        ErrorKind::Invalid => Code::InvalidArgument,
        ErrorKind::Corrupt => Code::DataLoss,
        _ => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_core::{
        shard_map::{Arc, ReplicaPlace, ShardRow},
        types::{Epoch, Position, ReplicaId, ShardId},
    };

    #[test]
    fn an_error_comes_back_as_it_went() {
        let row = ShardRow {
            shard: ShardId(3),
            arc: Some(Arc { first: Position(5), last: Position(u64::MAX) }),
            epoch: Epoch(2),
            replicas: vec![ReplicaPlace { replica: ReplicaId(4), node: NodeId(2) }],
        };
        let errors = [
            Error::conflict(Revision(0)),
            Error::overloaded("full", 30).with(|detail| detail.current = None),
            Error::unknown(ErrorKind::Timeout, "late").with(|detail| detail.leader = Some(NodeId(2))),
            Error::not_applied(ErrorKind::NotOwner, "elsewhere").with(|detail| detail.row = Some(row)),
        ];
        for error in errors {
            assert_eq!(wire_error(&error_to_status(&error)), error);
        }
    }

    #[test]
    fn a_call_that_broke_is_unknown() {
        assert_eq!(wire_error(&Status::unavailable("gone")).outcome(), Outcome::Unknown);
    }
}
