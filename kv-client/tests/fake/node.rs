//! A node of the fake cluster: the generated services on a runtime and a thread of its own, so that dropping it closes its
//! sockets as the death of a process does.

use std::{net::TcpListener, pin::Pin, thread::JoinHandle};

use futures_util::{Stream, StreamExt};
use kv_proto::v1::{
    self,
    batch_request_message::Message as Asked,
    batch_response_message::Message as Said,
    cluster_server::{Cluster, ClusterServer},
    kv_server::{Kv, KvServer},
};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};

use super::{Shared, store::Verdict};

pub struct Node {
    pub id: u64,
    pub address: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Node {
    pub fn start(id: u64, store: Shared) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("bound").to_string();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let incoming = TcpListenerStream::new(tokio::net::TcpListener::from_std(listener).expect("a socket"));
                let service = Service { id, store };
                let server = Server::builder()
                    .add_service(KvServer::new(service.clone()))
                    .add_service(ClusterServer::new(service))
                    .serve_with_incoming(incoming);
                tokio::select! {
                    served = server => served.expect("it serves until it is stopped"),
                    _stopped = stopped => {}
                }
            });
        });
        Self { id, address, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _its_panic_was_printed = thread.join();
        }
    }
}

#[derive(Clone)]
struct Service {
    id: u64,
    store: Shared,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Kv for Service {
    type BatchStream = ReceiverStream<Result<v1::BatchResponseMessage, Status>>;

    async fn batch(
        &self,
        request: Request<Streaming<v1::BatchRequestMessage>>,
    ) -> Result<Response<Self::BatchStream>, Status> {
        let (answers, stream) = mpsc::channel(16);
        tokio::spawn(self.clone().converse(request.into_inner(), answers));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn get(&self, _: Request<v1::GetRequest>) -> Result<Response<v1::GetResponse>, Status> {
        Err(Status::unimplemented("the client uses the stream"))
    }

    async fn put(&self, _: Request<v1::PutRequest>) -> Result<Response<v1::WriteResponse>, Status> {
        Err(Status::unimplemented("the client uses the stream"))
    }

    async fn delete(&self, _: Request<v1::DeleteRequest>) -> Result<Response<v1::WriteResponse>, Status> {
        Err(Status::unimplemented("the client uses the stream"))
    }
}

impl Service {
    async fn converse(
        self,
        mut asked: Streaming<v1::BatchRequestMessage>,
        answers: mpsc::Sender<Result<v1::BatchResponseMessage, Status>>,
    ) {
        let mut told = 0;
        while let Some(Ok(message)) = asked.next().await {
            let said = match message.message.expect("a message") {
                Asked::Hello(hello) => {
                    told = hello.map_version;
                    let limits = v1::Limits { outstanding_max: 1_024, message_bytes_max: 1 << 20 };
                    let cluster = self.store.lock().cluster();
                    assert_eq!(hello.cluster, cluster, "the client names the cluster that it found");
                    Said::Welcome(v1::Welcome { cluster, node: self.id, limits: Some(limits), map: None })
                }
                Asked::Batch(batch) => {
                    let mut store = self.store.lock();
                    assert!(batch.ops.len() <= 1_024, "{} operations in one message", batch.ops.len());
                    store.messages.push(batch.ops.len());
                    let mut results = Vec::new();
                    let mut breaks = false;
                    for op in batch.ops {
                        let id = op.id;
                        match store.take(self.id, op) {
                            Verdict::Answer(result) => results.push(v1::Result { id, result: Some(result) }),
                            Verdict::Silence => {}
                            Verdict::Break => breaks = true,
                        }
                    }
                    if breaks {
                        return;
                    }
                    let map = (store.map.version > told).then(|| store.map.clone());
                    told = store.map.version;
                    Said::Batch(v1::BatchResponse { results, map })
                }
            };
            if answers.send(Ok(v1::BatchResponseMessage { message: Some(said) })).await.is_err() {
                return;
            }
        }
    }
}

#[tonic::async_trait]
impl Cluster for Service {
    type WatchTopologyStream = Answers<v1::TopologyResponse>;

    async fn topology(&self, _: Request<v1::TopologyRequest>) -> Result<Response<v1::TopologyResponse>, Status> {
        let store = self.store.lock();
        Ok(Response::new(v1::TopologyResponse {
            cluster: store.cluster(),
            node: self.id,
            map: Some(store.map.clone()),
            durability: v1::Durability::Sync.into(),
        }))
    }

    async fn watch_topology(
        &self,
        _: Request<v1::WatchTopologyRequest>,
    ) -> Result<Response<Self::WatchTopologyStream>, Status> {
        Err(Status::unimplemented("the client hears of changes on its streams"))
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        let shards = (0..4)
            .map(|shard| {
                let leader = *self.store.lock().leaders.get(&shard).unwrap_or(&1);
                let role = if leader == self.id { v1::ReplicaRole::Leader } else { v1::ReplicaRole::Follower };
                let applied = 10 - self.id;
                v1::ShardStatus {
                    shard,
                    role: role.into(),
                    term: 2,
                    leader,
                    commit: 9,
                    applied,
                    verified: true,
                    ..Default::default()
                }
            })
            .collect();
        let map_version = self.store.lock().map.version;
        Ok(Response::new(v1::StatusResponse { node: self.id, ready: true, shards, map_version, ..Default::default() }))
    }

    async fn transfer_leader(
        &self,
        _: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        Err(Status::unimplemented("nothing is handed over here"))
    }
}
