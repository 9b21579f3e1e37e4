//! Errors on the wire: in a result of a stream, and in the status of a unary call.

use kv_core::error::{Error, ErrorKind, Outcome};
use kv_proto::{status, v1};
use tonic::{Code, Status};

use super::cluster::row_to_wire;

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

    #[test]
    fn a_status_carries_what_a_result_of_a_stream_does() {
        for error in [Error::overloaded("full", 30), Error::unknown(ErrorKind::Timeout, "late")] {
            let status = error_to_status(&error);
            assert_eq!(status::from_details(status.details()), Some(error_to_wire(&error)));
            assert_eq!(status.code(), code(error.kind()));
        }
    }
}
