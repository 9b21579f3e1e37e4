//! Requests that can't be right: each is refused with a sentence that says why, and nothing is lost or changed by it.

use std::time::Duration;

use kv_client::{Client, ErrorKind, Outcome};
use kv_proto::v1::{self, Durability, Hello, Outcome as WireOutcome, op::Operation, put_request::Condition};
use kv_server::testing::TestCluster;
use tonic::Code;

use crate::{
    raw::{self, Stream, detail},
    support::{address, client, cluster, until, whole},
};

/// A cluster with a key that must still be there at the end.
async fn with_a_witness() -> (TestCluster, Client) {
    let cluster = cluster(3).await;
    let client = client(&cluster).await;
    whole(&cluster, &client).await;
    client.put("witness", "unharmed").await.unwrap();
    (cluster, client)
}

async fn is_unharmed(cluster: &TestCluster, client: &Client) {
    assert_eq!(client.get("witness").await.unwrap().unwrap().value, "unharmed");
    client.put("after", "works").await.unwrap();
    for node in cluster.nodes() {
        assert_eq!(cluster.server(node).unwrap().ending(), None, "node {node}");
    }
}

/// The row of a shard with its leader's address.
async fn led(cluster: &TestCluster, client: &Client, key: &str) -> (v1::ShardRow, String) {
    let map = raw::topology(&address(cluster, 1)).await.map.unwrap();
    let position = kv_core::ring::position(key.as_bytes()).0;
    let holds = |row: &&v1::ShardRow| row.arc.as_ref().is_some_and(|arc| (arc.first..=arc.last).contains(&position));
    let row = map.shards.iter().find(holds).unwrap().clone();
    let status = client.status().await.unwrap();
    let leader = status.shards.iter().find(|shard| shard.shard.0 == row.shard).unwrap().leader.unwrap();
    (row, address(cluster, leader.0))
}

#[tokio::test]
async fn keys_and_values_out_of_bounds() {
    let (cluster, client) = with_a_witness().await;
    let long_key = vec![b'k'; kv_client::KEY_BYTES_MAX + 1];
    let long_value = vec![b'v'; kv_client::VALUE_BYTES_MAX + 1];
    // By our client, before anything is sent.
    for error in [
        client.put("", "x").await.unwrap_err(),
        client.get("").await.unwrap_err(),
        client.put(&long_key, "x").await.unwrap_err(),
        client.put("x", long_value.clone()).await.unwrap_err(),
    ] {
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Invalid, Outcome::NotApplied), "{error}");
    }
    // By every node, for all other clients.
    for node in cluster.nodes() {
        let mut unary = raw::unary(&address(&cluster, node)).await;
        for (request, says) in [
            (raw::put("", "x"), "empty"),
            (raw::put(long_key.clone(), "x"), "4097 bytes"),
            (raw::put("x", long_value.clone()), "1048577 bytes"),
        ] {
            let status = unary.put(request).await.unwrap_err();
            assert_eq!((status.code(), detail(&status).kind()), (Code::InvalidArgument, v1::ErrorKind::Invalid));
            assert_eq!(detail(&status).outcome(), WireOutcome::NotApplied);
            assert!(status.message().contains(says), "{status:?}");
        }
        let status = unary.get(raw::get("")).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        // Past the limit of a message it is not even read.
        let status = unary.put(raw::put("x", vec![0; 5 * 1024 * 1024])).await.unwrap_err();
        assert!(matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted), "{status:?}");
    }
    assert_eq!(client.get("x").await.unwrap(), None);
    is_unharmed(&cluster, &client).await;
}

#[tokio::test]
async fn shards_epochs_and_options_that_can_not_be() {
    let (cluster, client) = with_a_witness().await;
    let (row, leader) = led(&cluster, &client, "witness").await;
    let mut stream = Stream::to(&leader).await;
    let overwrite = raw::put("witness", "overwritten");

    let refused = stream.refused(999, 1, Operation::Put(overwrite.clone())).await;
    assert_eq!((refused.kind(), refused.outcome()), (v1::ErrorKind::Invalid, WireOutcome::NotApplied));
    assert!(refused.message.contains("no shard 999"), "{refused:?}");

    let refused = stream.refused(row.shard, row.epoch + 1, Operation::Put(overwrite.clone())).await;
    assert_eq!((refused.kind(), refused.outcome()), (v1::ErrorKind::StaleEpoch, WireOutcome::NotApplied));
    assert_eq!(refused.row.unwrap().epoch, row.epoch, "it carries the right row");

    let other = row.shard % 12 + 1;
    let refused = stream.refused(other, 0, Operation::Put(overwrite.clone())).await;
    assert_eq!((refused.kind(), refused.outcome()), (v1::ErrorKind::NotOwner, WireOutcome::NotApplied));

    let conditional = v1::PutRequest {
        condition: Some(Condition::IfAbsent(true)),
        durability: Durability::Async.into(),
        ..overwrite.clone()
    };
    let returning = v1::PutRequest { return_previous: true, durability: Durability::Async.into(), ..overwrite.clone() };
    for request in [conditional, returning] {
        let refused = stream.refused(row.shard, row.epoch, Operation::Put(request.clone())).await;
        assert_eq!((refused.kind(), refused.outcome()), (v1::ErrorKind::Invalid, WireOutcome::NotApplied));
        assert!(refused.message.contains("async"), "{refused:?}");
        let status = raw::unary(&leader).await.put(request).await.unwrap_err();
        assert_eq!((status.code(), detail(&status).kind()), (Code::InvalidArgument, v1::ErrorKind::Invalid));
    }

    let stamp = v1::SessionStamp { session: 1 << 60, sequence: 1, floor: 1 };
    let unknown_session = v1::PutRequest { session: Some(stamp), ..overwrite };
    let refused = stream.refused(row.shard, row.epoch, Operation::Put(unknown_session)).await;
    assert_eq!((refused.kind(), refused.outcome()), (v1::ErrorKind::SessionExpired, WireOutcome::NotApplied));
    is_unharmed(&cluster, &client).await;
}

#[tokio::test]
async fn a_cluster_that_is_not_ours() {
    let (cluster, client) = with_a_witness().await;
    let at = address(&cluster, 1);
    let ours = Stream::to(&at).await.welcome.cluster;
    assert_eq!(ours, raw::topology(&at).await.cluster);
    let protocol = kv_proto::PROTOCOL;

    let hello = Hello { protocol, map_version: 0, cluster: vec![7; 16].into() };
    let status = Stream::open(&at, hello).await.err().unwrap();
    assert_eq!(detail(&status).kind(), v1::ErrorKind::WrongCluster);
    assert!(status.message().contains("check the addresses"), "{status:?}");

    let hello = Hello { protocol, map_version: 0, cluster: vec![7; 3].into() };
    assert_eq!(detail(&Stream::open(&at, hello).await.err().unwrap()).kind(), v1::ErrorKind::Invalid);

    let hello = Hello { protocol: protocol + 1, ..Hello::default() };
    let status = Stream::open(&at, hello).await.err().unwrap();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("version"), "{status:?}");

    let mut request = tonic::Request::new(raw::put("witness", "overwritten"));
    request.metadata_mut().insert(kv_proto::CLUSTER, "0".repeat(32).parse().unwrap());
    let status = raw::unary(&at).await.put(request).await.unwrap_err();
    assert_eq!(detail(&status).kind(), v1::ErrorKind::WrongCluster);
    is_unharmed(&cluster, &client).await;
}

#[tokio::test]
async fn a_client_with_addresses_of_two_clusters() {
    let (one, client) = with_a_witness().await;
    let other = cluster(1).await;
    let error = Client::builder().endpoints([address(&one, 1), address(&other, 1)]).connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongCluster, "{error}");
    is_unharmed(&one, &client).await;
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_serves_reads() {
    // No disk has so much to spare.
    let full = |config: &mut kv_server::Config| config.settings.disk_reserve_bytes = u64::MAX;
    let cluster = TestCluster::start_with(3, None, full).await.unwrap();
    let client = client(&cluster).await;
    // A node looks at its disk every second: the first writes may still have come through.
    let error = until("a write is refused", || async {
        client.put("hello", "world").deadline(Duration::from_secs(2)).await.err()
    })
    .await;
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::DiskFull, Outcome::NotApplied), "{error}");
    let before = client.get("hello").await.unwrap();
    for node in cluster.nodes() {
        let mut unary = raw::unary(&address(&cluster, node)).await;
        let mut request = tonic::Request::new(raw::put("hello", "world"));
        request.set_timeout(Duration::from_secs(2));
        let status = unary.put(request).await.unwrap_err();
        assert_eq!((status.code(), detail(&status).kind()), (Code::ResourceExhausted, v1::ErrorKind::DiskFull));
        assert_eq!(cluster.server(node).unwrap().ending(), None);
    }
    assert_eq!(client.get("hello").await.unwrap(), before);
}
