//! Calls without kv-client: what any other language sees, and what no client of ours would ever send.

use std::{net::SocketAddr, time::Duration};

use bytes::{Buf, BufMut, Bytes};
use kv_proto::v1::{
    self, BatchRequest, BatchRequestMessage, BatchResponseMessage, ErrorDetail, GetRequest, Hello, Op, PutRequest,
    Welcome, batch_request_message, batch_response_message, cluster_client::ClusterClient, kv_client::KvClient, op,
    result,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Status, Streaming,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::{Channel, Endpoint},
};

use crate::support::PATIENCE;

/// A connection to an address.
pub(crate) async fn channel(address: &str) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    endpoint.timeout(PATIENCE).connect().await.unwrap()
}

/// The unary calls of a node.
pub(crate) async fn unary(address: &str) -> KvClient<Channel> {
    KvClient::new(channel(address).await).max_encoding_message_size(16 * 1024 * 1024)
}

/// The map, with the cluster's id, as a node knows it.
pub(crate) async fn topology(address: &str) -> v1::TopologyResponse {
    let mut client = ClusterClient::new(channel(address).await);
    client.topology(v1::TopologyRequest {}).await.unwrap().into_inner()
}

/// What a node has counted under this name for this reason.
pub(crate) async fn counted(http: SocketAddr, name: &str, reason: &str) -> u64 {
    let mut connection = TcpStream::connect(http).await.unwrap();
    connection.write_all(b"GET /metrics HTTP/1.1\r\nhost: kv\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut page = String::new();
    timeout(PATIENCE, connection.read_to_string(&mut page)).await.unwrap().unwrap();
    let start = format!("{name}{{reason=\"{reason}\"}} ");
    page.lines().find_map(|line| line.strip_prefix(&start)).map_or(0, |count| count.trim().parse().unwrap())
}

/// What the status of a failed call carries.
pub(crate) fn detail(status: &Status) -> ErrorDetail {
    kv_proto::status::from_details(status.details()).unwrap_or_else(|| panic!("no detail in {status:?}"))
}

/// A put, unconditional.
pub(crate) fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> PutRequest {
    PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() }
}

/// A linearizable get.
pub(crate) fn get(key: impl Into<Bytes>) -> GetRequest {
    GetRequest { key: key.into(), ..GetRequest::default() }
}

/// A batch stream after its greeting.
pub(crate) struct Stream {
    outgoing: mpsc::Sender<BatchRequestMessage>,
    incoming: Streaming<BatchResponseMessage>,
    pub(crate) welcome: Welcome,
}

impl Stream {
    /// Opens a stream with this greeting.
    pub(crate) async fn open(address: &str, hello: Hello) -> Result<Self, Status> {
        let (outgoing, requests) = mpsc::channel(16);
        let first = BatchRequestMessage { message: Some(batch_request_message::Message::Hello(hello)) };
        outgoing.send(first).await.unwrap();
        let mut client = KvClient::new(channel(address).await);
        let mut incoming = client.batch(ReceiverStream::new(requests)).await?.into_inner();
        match next(&mut incoming).await? {
            batch_response_message::Message::Welcome(welcome) => Ok(Self { outgoing, incoming, welcome }),
            other => panic!("no welcome but {other:?}"),
        }
    }

    /// Opens a stream to a node of an unknown cluster.
    pub(crate) async fn to(address: &str) -> Self {
        Self::open(address, Hello { protocol: kv_proto::PROTOCOL, ..Hello::default() }).await.unwrap()
    }

    /// Sends one operation and waits for its result.
    pub(crate) async fn ask(&mut self, shard: u64, epoch: u64, operation: op::Operation) -> result::Result {
        let deadline_ms = PATIENCE.as_millis() as u32;
        let op = Op { id: 7, shard, epoch, deadline_ms, operation: Some(operation) };
        let batch = batch_request_message::Message::Batch(BatchRequest { ops: vec![op] });
        self.outgoing.send(BatchRequestMessage { message: Some(batch) }).await.unwrap();
        loop {
            match next(&mut self.incoming).await.unwrap() {
                batch_response_message::Message::Batch(batch) => {
                    if let Some(result) = batch.results.into_iter().next() {
                        assert_eq!(result.id, 7);
                        return result.result.unwrap();
                    }
                }
                other => panic!("no batch but {other:?}"),
            }
        }
    }

    /// The same, for an operation that must be refused.
    pub(crate) async fn refused(&mut self, shard: u64, epoch: u64, operation: op::Operation) -> ErrorDetail {
        match self.ask(shard, epoch, operation).await {
            result::Result::Error(error) => error,
            other => panic!("not refused: {other:?}"),
        }
    }
}

async fn next(incoming: &mut Streaming<BatchResponseMessage>) -> Result<batch_response_message::Message, Status> {
    let message = timeout(PATIENCE, incoming.message()).await.expect("an answer comes")?;
    message.and_then(|message| message.message).ok_or_else(|| Status::internal("the stream ended"))
}

/// A unary call whose message is any bytes.
pub(crate) async fn call_with_bytes(address: &str, path: &'static str, message: &[u8]) -> Status {
    let mut client = tonic::client::Grpc::new(channel(address).await);
    client.ready().await.unwrap();
    let mut request = tonic::Request::new(Bytes::copy_from_slice(message));
    request.set_timeout(Duration::from_secs(20));
    let requests = tokio_stream::once(request.into_inner());
    let streaming = client.streaming(tonic::Request::new(requests), path.parse().unwrap(), BytesCodec).await;
    match streaming {
        Err(status) => status,
        Ok(response) => match timeout(PATIENCE, response.into_inner().message()).await.expect("an answer comes") {
            Err(status) => status,
            Ok(message) => panic!("{path} took garbage and answered {message:?}"),
        },
    }
}

/// Messages as the bytes that they are.
struct BytesCodec;

impl Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = buffer.remaining();
        Ok(Some(buffer.copy_to_bytes(length)))
    }
}
