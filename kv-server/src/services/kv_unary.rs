//! Single calls, for every language: any node takes them and finds the one that leads.
//!
//! A call is answered here if a replica of its shard here leads; else it is forwarded to the node that does, marked, so that
//! nobody forwards it again. Whom to ask, and whether to ask another, the core's relay decides.

use std::{sync::Arc, time::Duration};

use kv_core::{
    error::{Error, ErrorKind},
    io::Operation,
    router::{Further, RELAY_PAUSE_MICROS, Relay},
    shard_map::ShardRow,
    types::{Position, RequestId, Time},
};
use kv_proto::{CLUSTER, FORWARDED, v1};
use tokio::time::sleep;
use tonic::{Request, Response, Status, metadata::MetadataMap};

use super::{channels::Channels, kv_stream::DEADLINE_MS_MAX};
use crate::{
    clock,
    convert::{
        answer_to_get, answer_to_write, delete_from_wire, error_to_status, get_from_wire, put_from_wire, wire_error,
    },
    shared::Shared,
};

/// How long a call may take that names no deadline.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);

/// One of the calls.
#[derive(Clone)]
pub(super) enum Call {
    Get(v1::GetRequest),
    Put(v1::PutRequest),
    Delete(v1::DeleteRequest),
}

/// What came of it.
pub(super) enum Reply {
    Get(v1::GetResponse),
    Write(v1::WriteResponse),
}

impl Reply {
    pub(super) fn into_write(self) -> Result<Response<v1::WriteResponse>, Status> {
        match self {
            Self::Write(response) => Ok(Response::new(response)),
            Self::Get(_) => Err(Status::internal("a write was answered as a get")),
        }
    }
}

/// A call under way.
pub(super) struct Unary<'a> {
    shared: &'a Arc<Shared>,
    channels: &'a Channels,
    deadline: Time,
    was_forwarded: bool,
}

impl<'a> Unary<'a> {
    /// A call with what its metadata say.
    pub(super) fn new(shared: &'a Arc<Shared>, channels: &'a Channels, metadata: &MetadataMap) -> Result<Self, Status> {
        if let Some(theirs) = metadata.get(CLUSTER)
            && theirs.as_bytes() != shared.cluster_id().to_string().as_bytes()
        {
            let message = format!("this node belongs to cluster {}; check the addresses", shared.cluster_id());
            return Err(error_to_status(&Error::not_applied(ErrorKind::WrongCluster, message)));
        }
        let timeout = metadata.get("grpc-timeout").and_then(|text| parse_timeout(text.to_str().ok()?));
        let timeout = timeout.unwrap_or(TIMEOUT_DEFAULT).min(Duration::from_millis(DEADLINE_MS_MAX));
        let micros = u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX);
        Ok(Self {
            shared,
            channels,
            deadline: clock::now().plus_micros(micros),
            was_forwarded: metadata.get(FORWARDED).is_some(),
        })
    }

    /// Runs it to its end.
    pub(super) async fn run(&self, key: Position, call: Call) -> Result<Reply, Status> {
        let operation = match &call {
            Call::Get(get) => get_from_wire(get.clone()),
            Call::Put(put) => put_from_wire(put.clone()),
            Call::Delete(delete) => delete_from_wire(delete.clone()),
        };
        let result = match operation {
            Ok(operation) => self.search(key, &call, &operation).await,
            Err(error) => Err(error),
        };
        result.map_err(|error| {
            self.shared.metrics.refused(error.kind());
            error_to_status(&error)
        })
    }

    async fn search(&self, key: Position, call: &Call, operation: &Operation) -> Result<Reply, Error> {
        let is_read = matches!(operation, Operation::Get { .. });
        let mut relay = Relay::new(self.shared.node, self.deadline, is_read, self.was_forwarded);
        loop {
            let map = self.shared.known_map()?;
            let row =
                map.row_at(key).ok_or_else(|| Error::not_applied(ErrorKind::StaleEpoch, "the map is changing"))?;
            let node = relay.node(row);
            let tried = if node == self.shared.node {
                self.ask_here(row, operation.clone()).await
            } else {
                let address = map.node(node).map(|node| node.client_address.as_str()).unwrap_or_default();
                self.forward(address, call.clone()).await
            };
            let error = match tried {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            match relay.failed(node, &error, clock::now()) {
                Further::AtOnce => {}
                Further::AfterPause => sleep(Duration::from_micros(RELAY_PAUSE_MICROS)).await,
                Further::No => return Err(error),
            }
        }
    }

    async fn ask_here(&self, row: &ShardRow, operation: Operation) -> Result<Reply, Error> {
        let is_get = matches!(operation, Operation::Get { .. });
        let request = kv_core::io::Request {
            id: RequestId(0),
            shard: row.shard,
            epoch: Some(row.epoch),
            deadline: self.deadline,
            operation,
        };
        let answer = self.shared.inbox.call(request).await?;
        if is_get { answer_to_get(answer).map(Reply::Get) } else { answer_to_write(answer).map(Reply::Write) }
    }

    async fn forward(&self, address: &str, call: Call) -> Result<Reply, Error> {
        if address.is_empty() {
            let message = "the node that leads has not told its address yet";
            return Err(Error::not_applied(ErrorKind::NoQuorum, message));
        }
        let mut client = self.channels.client(address).await?;
        let replied = match call {
            Call::Get(get) => client.get(self.marked(get)).await.map(|reply| Reply::Get(reply.into_inner())),
            Call::Put(put) => client.put(self.marked(put)).await.map(|reply| Reply::Write(reply.into_inner())),
            Call::Delete(delete) => {
                client.delete(self.marked(delete)).await.map(|reply| Reply::Write(reply.into_inner()))
            }
        };
        replied.map_err(|status| {
            if kv_proto::status::from_details(status.details()).is_none() {
                self.channels.forget(address);
            }
            wire_error(&status)
        })
    }

    /// The same call for the node that leads, with the time that is left.
    fn marked<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert(FORWARDED, self.shared.node.0.into());
        request.set_timeout(Duration::from_micros(self.deadline.micros_since(clock::now())));
        request
    }
}

/// A duration as gRPC writes it: up to 8 digits and a unit.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3_600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        assert_eq!(parse_timeout("5S"), Some(Duration::from_secs(5)));
        assert_eq!(parse_timeout("250m"), Some(Duration::from_millis(250)));
        for bad in ["", "S", "5", "123456789S", "5x", "-1S", "5\u{e4}"] {
            assert_eq!(parse_timeout(bad), None, "{bad}");
        }
    }
}
