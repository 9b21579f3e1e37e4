//! The service `Cluster`: the map and its changes, how this node is doing, and handing a leadership over.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt};
use kv_core::{
    io::{Operation, Request as CoreRequest},
    node::{Role, ShardStatus},
    shard_map::CheckedMap,
    types::{NodeId, RequestId, ShardId},
};
use kv_proto::v1::{self, cluster_server::Cluster};
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};

use crate::{
    clock,
    convert::{durability_to_wire, error_to_status, id_to_wire, map_to_wire},
    shared::Shared,
    usage,
};

/// How long a hand-over may take to begin.
const TRANSFER_WAIT: Duration = Duration::from_secs(5);

/// The service.
pub(super) struct ClusterService {
    pub(super) shared: Arc<Shared>,
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    type WatchTopologyStream = Pin<Box<dyn Stream<Item = Result<v1::TopologyResponse, Status>> + Send>>;

    async fn topology(&self, _: Request<v1::TopologyRequest>) -> Result<Response<v1::TopologyResponse>, Status> {
        let map = self.shared.known_map().map_err(|error| error_to_status(&error))?;
        Ok(Response::new(topology(&self.shared, &map)))
    }

    async fn watch_topology(
        &self,
        request: Request<v1::WatchTopologyRequest>,
    ) -> Result<Response<Self::WatchTopologyStream>, Status> {
        let have = request.get_ref().map_version;
        let shared = Arc::clone(&self.shared);
        let closing = shared.closing.clone().cancelled_owned();
        let maps = WatchStream::new(shared.map.subscribe()).filter_map(move |map| {
            let answer =
                map.filter(|map| have == 0 || map.map().version.0 > have).map(|map| Ok(topology(&shared, &map)));
            std::future::ready(answer)
        });
        Ok(Response::new(Box::pin(maps.take_until(closing))))
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        let shared = &self.shared;
        let report = shared.report().await.map_err(|error| error_to_status(&error))?;
        let map_version = shared.map.borrow().as_ref().map_or(0, |map| map.map().version.0);
        Ok(Response::new(v1::StatusResponse {
            cluster: shared.cluster.get().map(|cluster| id_to_wire(cluster.id.0)).unwrap_or_default(),
            node: shared.node.0,
            incarnation: id_to_wire(shared.incarnation().0),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            map_version,
            uptime_ms: clock::now().micros_since(shared.started) / 1_000,
            ready: report.ready,
            shards: report.shards().iter().map(shard_status).collect(),
            log_bytes: report.log_bytes,
            disk_free_bytes: report.disk_free_bytes,
            requests_outstanding: report.requests_outstanding as u64,
            usage: Some(v1::Usage {
                log_syncs: report.log_syncs,
                log_written_bytes: report.log_written_bytes,
                process: usage::of_this_process().map(|usage| v1::ProcessUsage {
                    process: usage.process,
                    started: usage.started,
                    cpu_micros: usage.cpu_micros,
                    voluntary_switches: usage.voluntary_switches,
                    resident_bytes: usage.resident_bytes,
                }),
            }),
        }))
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        let request = request.into_inner();
        let asked = CoreRequest {
            id: RequestId(0),
            shard: ShardId(request.shard),
            epoch: None,
            deadline: clock::now().plus_micros(TRANSFER_WAIT.as_micros() as u64),
            operation: Operation::TransferLeader { to: NodeId(request.to) },
        };
        self.shared.inbox.call(asked).await.map_err(|error| error_to_status(&error))?;
        Ok(Response::new(v1::TransferLeaderResponse {}))
    }
}

fn topology(shared: &Shared, map: &CheckedMap) -> v1::TopologyResponse {
    let durability = shared.cluster.get().map(|cluster| cluster.record.durability).unwrap_or_default();
    v1::TopologyResponse {
        cluster: id_to_wire(shared.cluster_id().0),
        node: shared.node.0,
        map: Some(map_to_wire(map.map())),
        durability: durability_to_wire(durability).into(),
    }
}

fn trouble(shard: &ShardStatus) -> String {
    if shard.quarantined {
        format!("out of service: {}", shard.quarantine_reason)
    } else if shard.disputed {
        "replicas hold different states and no majority agrees on one; it answers nobody until one does".to_owned()
    } else {
        String::new()
    }
}

fn shard_status(shard: &ShardStatus) -> v1::ShardStatus {
    let role = match shard.role {
        _ if shard.quarantined => v1::ReplicaRole::Quarantined,
        Role::Leader => v1::ReplicaRole::Leader,
        Role::Follower => v1::ReplicaRole::Follower,
        Role::Candidate | Role::PreCandidate => v1::ReplicaRole::Candidate,
    };
    v1::ShardStatus {
        shard: shard.shard.0,
        replica: shard.replica.0,
        role: role.into(),
        term: shard.term.0,
        leader: shard.leader.map_or(0, |node| node.0),
        commit: shard.commit.0,
        applied: shard.applied.0,
        last: shard.last_index.0,
        checkpoint: shard.checkpoint.map_or(0, |index| index.0),
        log_bytes: shard.log_bytes as u64,
        table_bytes: shard.table_bytes as u64,
        revision: shard.revision.0,
        verified: shard.live,
        followers: shard
            .followers
            .iter()
            .map(|follower| v1::FollowerStatus {
                replica: follower.replica.0,
                node: follower.node.0,
                matched: follower.matched.0,
                active: follower.active,
                snapshot: follower.snapshot,
            })
            .collect(),
        trouble: trouble(shard),
    }
}
