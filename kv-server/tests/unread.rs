//! Clients that ask for much and read nothing: what the node closes, whom it leaves alone, and that its memory is free again.
#![allow(clippy::unwrap_used, reason = "a test ends where it can't go on")]

use std::time::Duration;

use kv_client::Client;
use kv_proto::v1::{
    self, batch_request_message::Message, cluster_client::ClusterClient, kv_client::KvClient, op::Operation,
};
use kv_server::testing::TestCluster;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{sleep, timeout},
};
use tonic::{
    Code, Request, Status,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

/// Far more than anything takes, even on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);
const VALUE_BYTES: usize = 1024 * 1024;
const BOUND_BYTES: usize = 8 * 1024 * 1024;

async fn cluster() -> (TestCluster, Client) {
    let cluster = TestCluster::start_with(1, None, |config| {
        config.shards = 1;
        config.unread_bytes_max = BOUND_BYTES;
    });
    let cluster = cluster.await.unwrap();
    let client = cluster.client().await.unwrap();
    client.put("large", vec![7; VALUE_BYTES]).await.unwrap();
    (cluster, client)
}

/// A connection that grants 64 KiB at a time, and more only as answers are read.
async fn channel(cluster: &TestCluster) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{}", cluster.addresses(1).unwrap().client)).unwrap();
    let endpoint = endpoint.initial_stream_window_size(65_535).initial_connection_window_size(65_535);
    endpoint.connect().await.unwrap()
}

/// Waits until a line of the metrics says this.
async fn until(cluster: &TestCluster, what: &str, is_so: impl Fn(u64) -> bool) {
    let looks = async {
        loop {
            let mut stream = tokio::net::TcpStream::connect(cluster.addresses(1).unwrap().http.unwrap()).await.unwrap();
            stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: kv\r\nconnection: close\r\n\r\n").await.unwrap();
            let mut metrics = String::new();
            stream.read_to_string(&mut metrics).await.unwrap();
            let line = metrics.lines().find_map(|line| line.strip_prefix(what)).unwrap();
            if is_so(line.trim().parse().unwrap()) {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, looks).await.unwrap_or_else(|_| panic!("{what} never came to be right"));
}

#[tokio::test]
async fn a_stream_that_is_not_read_is_closed_and_others_go_on() {
    let (cluster, client) = cluster().await;
    let channel = channel(&cluster).await;
    let topology = ClusterClient::new(channel.clone()).topology(v1::TopologyRequest {}).await.unwrap().into_inner();
    let rows = topology.map.unwrap().shards;
    let row = rows.iter().find(|row| row.shard != 0).unwrap();

    let hello = v1::Hello { protocol: kv_proto::PROTOCOL, map_version: 0, cluster: topology.cluster };
    let get = || v1::GetRequest { key: "large".into(), ..Default::default() };
    let ops = (0..20).map(|id| v1::Op {
        id,
        shard: row.shard,
        epoch: row.epoch,
        deadline_ms: 0,
        operation: Some(Operation::Get(get())),
    });
    let batch = v1::BatchRequest { ops: ops.collect() };
    let messages = [Message::Hello(hello), Message::Batch(batch)];
    let messages = messages.map(|message| v1::BatchRequestMessage { message: Some(message) });
    // The stream is kept open: only the node ends it.
    let outgoing = tokio_stream::StreamExt::chain(tokio_stream::iter(messages), tokio_stream::pending());
    let mut unread =
        KvClient::new(channel).max_decoding_message_size(usize::MAX).batch(outgoing).await.unwrap().into_inner();

    until(&cluster, "kv_unread_closed_total{what=\"stream\"}", |closed| closed == 1).await;
    // What is left is what the connection was given before.
    until(&cluster, "kv_unread_bytes", |bytes| bytes < 4 * VALUE_BYTES as u64).await;
    assert_eq!(client.get("large").await.unwrap().unwrap().value.len(), VALUE_BYTES);

    let mut answers = 0;
    let end = loop {
        match unread.message().await {
            Ok(Some(_)) => answers += 1,
            Ok(None) => panic!("the stream ended well"),
            Err(status) => break status,
        }
    };
    assert_eq!((end.code(), end.message()), (Code::ResourceExhausted, "the client does not read its answers"));
    assert!(answers < 8, "{answers} answers were kept");
    until(&cluster, "kv_unread_bytes", |bytes| bytes == 0).await;
}

#[tokio::test]
async fn a_connection_whose_single_answers_are_not_read_is_cut_and_others_go_on() {
    let (cluster, client) = cluster().await;
    let channel = channel(&cluster).await;
    let path = PathAndQuery::from_static("/kv.v1.Kv/Get");
    // As streams of one answer, so that it is up to us when one is read.
    let mut unread = Vec::new();
    let mut refused: Option<Status> = None;
    for _ in 0..20 {
        let mut grpc = tonic::client::Grpc::new(channel.clone()).max_decoding_message_size(usize::MAX);
        grpc.ready().await.unwrap();
        let get = Request::new(v1::GetRequest { key: "large".into(), ..Default::default() });
        let codec = ProstCodec::<v1::GetRequest, v1::GetResponse>::default();
        match grpc.server_streaming(get, path.clone(), codec).await {
            Ok(answer) => unread.push(answer.into_inner()),
            Err(status) => refused = Some(status),
        }
        if refused.is_some() {
            break;
        }
    }
    until(&cluster, "kv_unread_closed_total{what=\"connection\"}", |closed| closed >= 1).await;
    assert!(unread.len() >= BOUND_BYTES / VALUE_BYTES - 2, "{} answers began", unread.len());
    let mut broken = 0;
    for mut answer in unread {
        broken += usize::from(answer.message().await.is_err());
    }
    assert!(broken >= BOUND_BYTES / VALUE_BYTES - 2, "{broken} answers ended with an error");
    until(&cluster, "kv_unread_bytes", |bytes| bytes == 0).await;
    assert_eq!(client.get("large").await.unwrap().unwrap().value.len(), VALUE_BYTES);
}
