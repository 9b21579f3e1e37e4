//! The limit of the wire: servers that speak kv's protocol and answer at once, with no node behind them.
//!
//! What kv-client, tonic, HTTP/2 and this machine's sockets can do at most with the same messages over the same streams, on one
//! thread a process as kv's loop is. A server of kv can't be faster than this; what it takes more is the price of its promises.
//!
//! *Caveats*: it keeps nothing but the last value of another size, with which it answers every get; and what kv gathers into one
//! message a turn it answers message by message.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use kv_core::{
    founding::{FoundingRecord, Member},
    ring::RING_VERSION,
    types::{Durability, Incarnation, NodeId},
};
use kv_proto::v1::{
    self,
    batch_request_message::Message as Asked,
    batch_response_message::Message as Said,
    cluster_server::{Cluster, ClusterServer},
    kv_server::{Kv, KvServer},
    op::Operation,
    result,
};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming, transport::Server};

use crate::measure;

/// As many as a cluster of kv has.
const SHARDS: u32 = 12;
/// The limits of kv's own servers, so that the connections are alike.
const STREAM_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
const FRAME_BYTES: u32 = 256 * 1024;
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Serves as one of these nodes, numbered from 1, until the process is ended.
///
/// # Errors
/// If there is no such node, or its address can't be listened on.
pub(crate) async fn serve(node: usize, addresses: &[String]) -> Result<(), String> {
    let address = addresses.get(node.wrapping_sub(1)).ok_or("there is no address for this node")?;
    let listen: SocketAddr = address.parse().map_err(|error| format!("{address}: {error}"))?;
    let (cluster, map) = layout(addresses);
    let echo = Echo { node: node as u64, cluster, map, value: Arc::default() };
    let kv = KvServer::new(echo.clone())
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let server = Server::builder()
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .add_service(kv)
        .add_service(ClusterServer::new(echo));
    server.serve(listen).await.map_err(|error| format!("{address}: {error}"))
}

/// The map that a cluster of kv with these nodes would have.
fn layout(addresses: &[String]) -> (Bytes, v1::ShardMap) {
    let members = (1..).zip(addresses).map(|(id, address)| Member {
        node: NodeId(id),
        incarnation: Incarnation(u128::from(id)),
        peer_address: address.clone(),
        zone: String::new(),
        weight: 1,
    });
    let replication = addresses.len().min(3) as u32;
    let record =
        FoundingRecord { members: members.collect(), shards: SHARDS, replication, durability: Durability::Sync };
    let map = record.layout();
    let node = |node: &kv_core::shard_map::NodeDescription| v1::Node {
        node: node.node.0,
        incarnation: node.incarnation.0.to_be_bytes().to_vec().into(),
        client_address: node.peer_address.clone(),
        peer_address: node.peer_address.clone(),
        zone: String::new(),
        weight: 1,
    };
    let row = |row: &kv_core::shard_map::ShardRow| v1::ShardRow {
        shard: row.shard.0,
        arc: row.arc.map(|arc| v1::Arc { first: arc.first.0, last: arc.last.0 }),
        epoch: row.epoch.0,
        replicas: row
            .replicas
            .iter()
            .map(|place| v1::ReplicaPlace { replica: place.replica.0, node: place.node.0 })
            .collect(),
    };
    let wire = v1::ShardMap {
        version: map.version.0,
        nodes: map.nodes.iter().map(node).collect(),
        shards: map.shards.iter().map(row).collect(),
        ring_version: RING_VERSION,
    };
    (record.cluster_id().0.to_be_bytes().to_vec().into(), wire)
}

#[derive(Clone)]
struct Echo {
    node: u64,
    cluster: Bytes,
    map: v1::ShardMap,
    /// What gets are answered with.
    value: Arc<Mutex<Bytes>>,
}

impl Echo {
    fn answer(&self, message: v1::BatchRequestMessage) -> Result<v1::BatchResponseMessage, Status> {
        let said = match message.message {
            Some(Asked::Hello(_)) => Said::Welcome(v1::Welcome {
                cluster: self.cluster.clone(),
                node: self.node,
                limits: Some(v1::Limits { outstanding_max: 1_024, message_bytes_max: 1024 * 1024 }),
                map: Some(self.map.clone()),
            }),
            Some(Asked::Batch(batch)) => {
                let mut value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
                let results = batch.ops.into_iter().map(|op| result_of(op, &mut value)).collect();
                Said::Batch(v1::BatchResponse { results, map: None })
            }
            None => return Err(Status::invalid_argument("an empty message")),
        };
        Ok(v1::BatchResponseMessage { message: Some(said) })
    }
}

fn result_of(op: v1::Op, value: &mut Bytes) -> v1::Result {
    let written = || {
        result::Result::Write(v1::WriteResponse {
            revision: Some(1),
            previous: None,
            token: Some(v1::Token { shard: op.shard, term: 1, index: 1 }),
            durability: v1::Durability::Sync.into(),
        })
    };
    let result = match op.operation {
        Some(Operation::Put(put)) => {
            if put.value.len() != value.len() {
                *value = Bytes::copy_from_slice(&put.value);
            }
            written()
        }
        Some(Operation::Get(_)) => result::Result::Get(v1::GetResponse {
            entry: Some(v1::Entry { revision: 1, value: value.clone() }),
            revision: 1,
            age_ms: Some(0),
        }),
        Some(Operation::OpenSession(_)) => result::Result::OpenSession(v1::OpenSessionResponse { session: 1 }),
        Some(Operation::WaitDurable(_)) => {
            result::Result::WaitDurable(v1::WaitDurableResponse { fate: v1::Fate::Durable.into() })
        }
        Some(Operation::Delete(_)) | None => written(),
    };
    v1::Result { id: op.id, result: Some(result) }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn not_here<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("this server only echoes what clients of kv send on their streams"))
}

#[tonic::async_trait]
impl Kv for Echo {
    type BatchStream = Answers<v1::BatchResponseMessage>;

    async fn batch(
        &self,
        request: Request<Streaming<v1::BatchRequestMessage>>,
    ) -> Result<Response<Self::BatchStream>, Status> {
        let echo = self.clone();
        let answers = request.into_inner().map(move |message| echo.answer(message?));
        Ok(Response::new(Box::pin(answers)))
    }

    async fn get(&self, _: Request<v1::GetRequest>) -> Result<Response<v1::GetResponse>, Status> {
        not_here()
    }

    async fn put(&self, _: Request<v1::PutRequest>) -> Result<Response<v1::WriteResponse>, Status> {
        not_here()
    }

    async fn delete(&self, _: Request<v1::DeleteRequest>) -> Result<Response<v1::WriteResponse>, Status> {
        not_here()
    }
}

#[tonic::async_trait]
impl Cluster for Echo {
    type WatchTopologyStream = Answers<v1::TopologyResponse>;

    async fn topology(&self, _: Request<v1::TopologyRequest>) -> Result<Response<v1::TopologyResponse>, Status> {
        Ok(Response::new(v1::TopologyResponse {
            cluster: self.cluster.clone(),
            node: self.node,
            map: Some(self.map.clone()),
            durability: v1::Durability::Sync.into(),
        }))
    }

    /// What `kv bench` counts CPU by.
    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        let process = measure::this_process().map_err(Status::internal)?;
        let usage = v1::Usage { process: Some(process), ..Default::default() };
        Ok(Response::new(v1::StatusResponse {
            cluster: self.cluster.clone(),
            node: self.node,
            map_version: self.map.version,
            ready: true,
            usage: Some(usage),
            ..Default::default()
        }))
    }

    async fn watch_topology(
        &self,
        _: Request<v1::WatchTopologyRequest>,
    ) -> Result<Response<Self::WatchTopologyStream>, Status> {
        not_here()
    }

    async fn transfer_leader(
        &self,
        _: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        not_here()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_client::Client;

    #[tokio::test]
    async fn a_client_takes_it_for_a_cluster() {
        let ports = crate::ports::free::<2>().unwrap();
        let addresses = ports.map(|port| format!("127.0.0.1:{port}")).to_vec();
        let served = |node| {
            let addresses = addresses.clone();
            async move { serve(node, &addresses).await }
        };
        let asked = async {
            let client = loop {
                if let Ok(client) = Client::builder().endpoints(addresses.clone()).connect().await {
                    break client;
                }
            };
            // Enough keys for both nodes to be asked.
            for key in 0..20 {
                client.put(key.to_string(), "12345").await.unwrap();
                assert_eq!(client.get(key.to_string()).await.unwrap().unwrap().value, "12345");
            }
            let status = client.status().await.unwrap();
            assert_eq!(status.nodes.len(), 2);
        };
        tokio::select! {
            ended = served(1) => panic!("{ended:?}"),
            ended = served(2) => panic!("{ended:?}"),
            () = asked => {}
        }
    }
}
