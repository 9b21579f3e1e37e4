//! Single calls, for every language: any node takes them and finds the one that leads.
//!
//! A call is answered here if a replica of its shard here leads; else it goes on to the node that does, in the batch stream to
//! it together with what others ask at the time. Whom to ask, and whether to ask another, the core's relay decides.

use std::{sync::Arc, time::Duration};

use kv_client::forward::Forwarder;
use kv_core::{
    error::{Error, ErrorKind},
    io::{Answer, Consistency, Operation},
    router::{Further, RELAY_PAUSE_MICROS, Relay},
    shard_map::{CheckedMap, ShardRow},
    types::{NodeId, Position, RequestId, Time},
};
use kv_proto::{CLUSTER, HERE_ONLY, v1};
use tokio::time::sleep;
use tonic::{Status, metadata::MetadataMap};

use super::kv_stream::DEADLINE_MS_MAX;
use crate::{
    clock,
    convert::{answer_to_get, answer_to_write, error_to_status, operation_from_wire},
    shared::Shared,
};

/// How long a call may take that names no deadline.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);

/// A call under way.
pub(super) struct Unary<'a> {
    shared: &'a Arc<Shared>,
    others: &'a Forwarder,
    deadline: Time,
    is_here_only: bool,
}

impl<'a> Unary<'a> {
    /// A call with what its metadata say.
    pub(super) fn new(shared: &'a Arc<Shared>, others: &'a Forwarder, metadata: &MetadataMap) -> Result<Self, Status> {
        if let Some(theirs) = metadata.get(CLUSTER)
            && theirs.as_bytes() != shared.cluster_id().to_string().as_bytes()
        {
            let message = format!("this node belongs to cluster {}; check the addresses", shared.cluster_id());
            return Err(error_to_status(&Error::not_applied(ErrorKind::WrongCluster, message)));
        }
        let timeout = metadata.get("grpc-timeout").and_then(|text| parse_timeout(text.to_str().ok()?));
        let timeout = timeout.unwrap_or(TIMEOUT_DEFAULT).min(Duration::from_millis(DEADLINE_MS_MAX));
        let micros = u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX);
        let deadline = clock::now().plus_micros(micros);
        Ok(Self { shared, others, deadline, is_here_only: metadata.get(HERE_ONLY).is_some() })
    }

    /// Runs it to its end. The result is that of a get for a get, and else that of a write.
    pub(super) async fn run(&self, key: Position, call: v1::op::Operation) -> Result<v1::result::Result, Status> {
        let result = match operation_from_wire(Some(call.clone())) {
            Ok(operation) => self.search(key, &call, &operation).await,
            Err(error) => Err(error),
        };
        result.map_err(|error| {
            self.shared.metrics.refused(error.kind());
            error_to_status(&error)
        })
    }

    async fn search(
        &self,
        key: Position,
        call: &v1::op::Operation,
        operation: &Operation,
    ) -> Result<v1::result::Result, Error> {
        let (is_read, wants_leader) = match operation {
            Operation::Get { consistency, .. } => (true, *consistency == Consistency::Linearizable),
            _ => (false, true),
        };
        let leader = match self.shared.known_map()?.row_at(key) {
            Some(row) if wants_leader => self.shared.leaders.of(row.shard),
            _ => None,
        };
        let mut relay = Relay::new(self.shared.node, self.deadline, is_read, self.is_here_only).toward(leader);
        loop {
            let map = self.shared.known_map()?;
            let row =
                map.row_at(key).ok_or_else(|| Error::not_applied(ErrorKind::StaleEpoch, "the map is changing"))?;
            let node = relay.node(row);
            let tried = if node == self.shared.node {
                self.ask_here(row, operation.clone()).await
            } else {
                self.forward(&map, row, node, call.clone()).await
            };
            // An own replica knows better.
            if wants_leader && row.replica_on(self.shared.node).is_none() {
                let knows = [ErrorKind::Conflict, ErrorKind::SessionExpired, ErrorKind::Overloaded];
                let leads = tried.as_ref().map_or_else(|error| knows.contains(&error.kind()), |_| true);
                self.shared.leaders.asked(row.shard, node, leads);
            }
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

    async fn ask_here(&self, row: &ShardRow, operation: Operation) -> Result<v1::result::Result, Error> {
        let request = kv_core::io::Request {
            id: RequestId(0),
            shard: row.shard,
            epoch: Some(row.epoch),
            deadline: self.deadline,
            operation,
        };
        match self.shared.inbox.call(request).await? {
            answer @ Answer::Got { .. } => answer_to_get(answer).map(v1::result::Result::Get),
            answer => answer_to_write(answer).map(v1::result::Result::Write),
        }
    }

    async fn forward(
        &self,
        map: &CheckedMap,
        row: &ShardRow,
        node: NodeId,
        call: v1::op::Operation,
    ) -> Result<v1::result::Result, Error> {
        let address = map.node(node).map(|node| node.client_address.as_str()).unwrap_or_default();
        if address.is_empty() {
            let message = "the node that leads has not told its address yet";
            return Err(Error::not_applied(ErrorKind::NoQuorum, message));
        }
        let left = Duration::from_micros(self.deadline.micros_since(clock::now()));
        let cluster = self.shared.cluster_id();
        self.others.call(cluster, (node, address), (row.shard, row.epoch), call, left).await
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
