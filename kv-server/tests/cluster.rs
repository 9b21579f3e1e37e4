//! Real servers on loopback sockets and real files: what a cluster does when it is founded, used, broken and mended.
#![allow(clippy::unwrap_used, reason = "a test ends where it can't go on")]

use std::{
    cell::{Cell, RefCell},
    fs,
    time::Duration,
};

use kv_client::{Client, Durability, Followed, NodeId, ShardStatus};
use kv_proto::v1::{self, kv_client::KvClient};
use kv_server::{Ending, Trouble, disk::Engine, testing::TestCluster};
use tonic::{Code, Request, transport::Channel};

async fn cluster(nodes: u64) -> TestCluster {
    TestCluster::start_with(nodes, None, |config| config.shards = 4).await.unwrap()
}

async fn unary(cluster: &TestCluster, node: u64) -> KvClient<Channel> {
    let address = cluster.addresses(node).unwrap().client;
    KvClient::connect(format!("http://{address}")).await.unwrap()
}

async fn write_all(client: &Client, keys: std::ops::Range<u32>) {
    for key in keys {
        client.put(format!("key-{key}"), format!("value-{key}")).await.unwrap();
    }
}

async fn read_all(client: &Client, keys: std::ops::Range<u32>) {
    for key in keys {
        let entry = client.get(format!("key-{key}")).await.unwrap();
        assert_eq!(entry.unwrap().value, format!("value-{key}"));
    }
}

#[tokio::test]
async fn one_node_is_a_cluster() {
    let cluster = cluster(1).await;
    let client = cluster.client().await.unwrap();
    write_all(&client, 0..5).await;
    read_all(&client, 0..5).await;
}

#[tokio::test]
async fn three_nodes_found_a_cluster_that_any_of_them_serves() {
    let cluster = cluster(3).await;
    let client = cluster.client().await.unwrap();
    write_all(&client, 0..20).await;
    for node in cluster.nodes() {
        let mut unary = unary(&cluster, node).await;
        for key in 0..20 {
            let get = v1::GetRequest { key: format!("key-{key}").into(), ..Default::default() };
            let got = unary.get(get).await.unwrap().into_inner();
            assert_eq!(got.entry.unwrap().value, format!("value-{key}"));
        }
        let key = format!("unary-{node}");
        let put = v1::PutRequest { key: key.clone().into(), value: "u".into(), ..Default::default() };
        let written = unary.put(put).await.unwrap().into_inner();
        assert!(written.revision.unwrap() > 0 && written.token.is_some());
        assert_eq!(client.get(&key).await.unwrap().unwrap().value, "u");
        unary.delete(v1::DeleteRequest { key: key.clone().into(), ..Default::default() }).await.unwrap();
        assert_eq!(client.get(&key).await.unwrap(), None);
    }
}

#[tokio::test]
async fn bad_requests_are_refused_with_a_sentence_and_nothing_is_lost() {
    let cluster = cluster(1).await;
    let mut unary = unary(&cluster, 1).await;
    let put = |key: &'static str| v1::PutRequest { key: key.into(), value: "v".into(), ..Default::default() };
    let empty = unary.put(put("")).await.unwrap_err();
    assert_eq!(empty.code(), Code::InvalidArgument);
    assert!(empty.message().contains("key is empty"), "{empty}");
    let detail = kv_proto::status::from_details(empty.details()).unwrap();
    assert_eq!(detail.outcome(), v1::Outcome::NotApplied);

    let conditional = v1::PutRequest {
        durability: v1::Durability::Async.into(),
        condition: Some(v1::put_request::Condition::IfAbsent(true)),
        ..put("k")
    };
    assert_eq!(unary.put(conditional).await.unwrap_err().code(), Code::InvalidArgument);

    let mut elsewhere = Request::new(put("k"));
    elsewhere.metadata_mut().insert(kv_proto::CLUSTER, "00000000000000000000000000000000".parse().unwrap());
    let wrong = unary.put(elsewhere).await.unwrap_err();
    assert_eq!(kv_proto::status::from_details(wrong.details()).unwrap().kind(), v1::ErrorKind::WrongCluster);

    unary.put(put("k")).await.unwrap();
    let get = v1::GetRequest { key: "k".into(), ..Default::default() };
    assert_eq!(unary.get(get).await.unwrap().into_inner().entry.unwrap().value, "v");
}

#[tokio::test]
async fn a_stream_answers_every_operation_and_refuses_what_is_no_greeting() {
    let cluster = cluster(1).await;
    let mut unary = unary(&cluster, 1).await;
    let message = |message| v1::BatchRequestMessage { message: Some(message) };
    let batch = |ops| message(v1::batch_request_message::Message::Batch(v1::BatchRequest { ops }));
    let hello = message(v1::batch_request_message::Message::Hello(v1::Hello { protocol: 1, ..Default::default() }));
    let op = |id, shard, epoch, key: &'static str| v1::Op {
        id,
        shard,
        epoch,
        deadline_ms: 5_000,
        operation: Some(v1::op::Operation::Get(v1::GetRequest { key: key.into(), ..Default::default() })),
    };

    let no_greeting = tokio_stream::iter([batch(vec![op(1, 1, 1, "a")])]);
    let mut answers = unary.batch(no_greeting).await.unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap_err().code(), Code::InvalidArgument);

    let nothing = v1::Op { operation: None, ..op(4, 1, 1, "") };
    let ops = vec![op(1, 99, 1, "a"), op(2, 1, 77, "a"), op(3, 1, 1, ""), nothing];
    let mut answers = unary.batch(tokio_stream::iter([hello, batch(ops)])).await.unwrap().into_inner();
    let mut kinds = std::collections::BTreeMap::new();
    while let Some(answer) = answers.message().await.unwrap() {
        if let Some(v1::batch_response_message::Message::Batch(batch)) = answer.message {
            for result in batch.results {
                let Some(v1::result::Result::Error(error)) = &result.result else { panic!("{result:?}") };
                kinds.insert(result.id, error.kind());
            }
        }
    }
    assert_eq!(kinds.len(), 4, "{kinds:?}");
    assert_eq!(kinds[&2], v1::ErrorKind::StaleEpoch);
    assert_eq!((kinds[&3], kinds[&4]), (v1::ErrorKind::Invalid, v1::ErrorKind::Invalid));
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill_and_a_restart() {
    let mut cluster = cluster(3).await;
    let client = cluster.client().await.unwrap();
    write_all(&client, 0..30).await;
    cluster.kill(1).unwrap();
    write_all(&client, 30..60).await;
    read_all(&client, 0..60).await;
    cluster.restart(1).unwrap();
    cluster.ready().await.unwrap();
    cluster.kill(2).unwrap();
    read_all(&client, 0..60).await;
}

#[tokio::test]
async fn all_nodes_killed_at_once_come_back_with_everything() {
    let mut cluster = cluster(3).await;
    let client = cluster.client().await.unwrap();
    write_all(&client, 0..30).await;
    for node in 1..=3 {
        cluster.kill(node).unwrap();
    }
    for node in 1..=3 {
        cluster.restart(node).unwrap();
    }
    cluster.ready().await.unwrap();
    read_all(&client, 0..30).await;
}

#[tokio::test]
async fn a_minority_cut_off_is_outvoted_and_comes_back() {
    let cluster = cluster(3).await;
    let client = cluster.client().await.unwrap();
    write_all(&client, 0..10).await;
    cluster.partition(&[1], &[2, 3]).unwrap();
    write_all(&client, 10..30).await;
    // Once it is outvoted everywhere, the leaders of the others say that it is silent.
    until_seen(&client, NodeId(1), |followed| !followed.active).await;
    cluster.heal();
    cluster.ready().await.unwrap();
    read_all(&client, 0..30).await;
    until_seen(&client, NodeId(1), |followed| followed.active).await;
}

/// Waits until each shard's leader sees its follower on a node like this, or the node leads it itself.
async fn until_seen(client: &Client, node: NodeId, is_so: fn(&Followed) -> bool) {
    loop {
        let status = client.status().await.unwrap();
        let is_so = |shard: &ShardStatus| {
            let replica = shard.replicas.iter().find(|replica| replica.node == node).unwrap();
            shard.leader.is_some() && replica.followed.as_ref().map_or(shard.leader == Some(node), is_so)
        };
        if status.shards.iter().all(is_so) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_wiped_directory_is_refused_under_its_old_id() {
    let mut cluster = cluster(3).await;
    let client = cluster.client().await.unwrap();
    write_all(&client, 0..10).await;
    cluster.kill(3).unwrap();
    fs::remove_dir_all(cluster.data(3)).unwrap();
    cluster.restart(3).unwrap();
    let ending = cluster.server(3).unwrap().ended().await;
    let Ending::Failed(failure) = ending else { panic!("{ending:?}") };
    assert_eq!(failure.trouble, Trouble::DataDirectory);
    assert!(failure.message.contains("wiped"), "{failure}");
    read_all(&client, 0..10).await;
}

#[tokio::test]
async fn a_damaged_log_is_refused_and_the_cluster_goes_on() {
    let mut cluster = cluster(3).await;
    let client = cluster.client().await.unwrap();
    write_all(&client, 0..20).await;
    cluster.kill(2).unwrap();
    let segment = fs::read_dir(cluster.data(2).join("log")).unwrap().map(|entry| entry.unwrap().path()).min().unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    bytes[100] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let refused = cluster.restart(2).unwrap_err();
    assert_eq!((refused.trouble, refused.trouble.exit_code()), (Trouble::Damaged, 4), "{refused}");
    assert!(refused.message.contains("Nothing was changed"), "{refused}");
    read_all(&client, 0..20).await;
}

#[tokio::test]
async fn the_read_index_may_be_deleted_or_damaged() {
    let mut cluster = cluster(3).await;
    let client = cluster.client().await.unwrap();
    write_all(&client, 0..20).await;
    for node in 1..=3 {
        cluster.kill(node).unwrap();
    }
    fs::remove_dir_all(cluster.data(1).join("index")).unwrap();
    for entry in fs::read_dir(cluster.data(2).join("index")).unwrap() {
        let database = entry.unwrap().path().join("engine/db");
        let mut bytes = fs::read(&database).unwrap();
        bytes.iter_mut().step_by(7).for_each(|byte| *byte ^= 0x55);
        fs::write(&database, bytes).unwrap();
    }
    for node in 1..=3 {
        cluster.restart(node).unwrap();
    }
    cluster.ready().await.unwrap();
    read_all(&client, 0..20).await;
}

/// Each node comes back with an index that it does not know, then with one that it left, then with none again.
#[tokio::test]
async fn the_engine_of_the_read_index_may_be_changed_at_any_start() {
    let mut cluster = cluster(3).await;
    let client = cluster.client().await.unwrap();
    let mut keys = 0..20;
    for engine in [Engine::Redb, Engine::Redb, Engine::Sled] {
        write_all(&client, keys.clone()).await;
        for node in 1..=3 {
            cluster.kill(node).unwrap();
        }
        for node in 1..=3 {
            cluster.configure(node, |config| config.engine = engine).unwrap();
            cluster.restart(node).unwrap();
        }
        cluster.ready().await.unwrap();
        read_all(&client, 0..keys.end).await;
        keys = keys.end..keys.end + 20;
    }
}

#[tokio::test]
async fn a_shutdown_is_orderly() {
    let cluster = cluster(3).await;
    let client = cluster.client().await.unwrap();
    write_all(&client, 0..10).await;
    let server = cluster.server(1).unwrap();
    server.shutdown();
    let ended = tokio::time::timeout(Duration::from_secs(20), server.ended()).await.unwrap();
    assert_eq!(ended, Ending::Shutdown);
    write_all(&client, 10..20).await;
    read_all(&client, 0..20).await;
}

#[tokio::test]
async fn leaders_that_shut_down_under_async_load_lose_nothing_and_no_caller_hears_of_it() {
    let mut cluster = cluster(3).await;
    let client = cluster.client().await.unwrap();
    // Acknowledged before any disk and before any follower: some are undecided at every moment.
    let acknowledged = RefCell::new(Vec::new());
    let is_over = Cell::new(false);
    let write = |task: u64| {
        let (client, acknowledged, is_over) = (&client, &acknowledged, &is_over);
        async move {
            for number in 0.. {
                if is_over.get() {
                    break;
                }
                let key = format!("{task}-{number}");
                // Far longer than anything takes: whoever retries meanwhile must come through.
                let put = client.put(&key, "v").durability(Durability::Async).deadline(Duration::from_secs(60));
                put.await.unwrap_or_else(|error| panic!("{key}: {error}"));
                acknowledged.borrow_mut().push(key);
            }
        }
    };
    let more = |count: usize| {
        let (acknowledged, goal) = (&acknowledged, acknowledged.borrow().len() + count);
        async move {
            while acknowledged.borrow().len() < goal {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    };
    let stops = async {
        for node in 1..=3 {
            more(300).await;
            // At first every owner leads; later on, who leads what the stopped ones led is up to elections.
            if node == 1 {
                until_leads(&client, NodeId(node), |leads| leads > 0).await;
            }
            let server = cluster.server(node).unwrap();
            server.shutdown();
            assert_eq!(server.ended().await, Ending::Shutdown);
            more(300).await;
            cluster.kill(node).unwrap();
            cluster.restart(node).unwrap();
            cluster.ready().await.unwrap();
        }
        is_over.set(true);
    };
    tokio::join!(futures_util::future::join_all((0..16).map(write)), stops);
    let acknowledged = acknowledged.into_inner();
    for part in acknowledged.chunks(256) {
        for (key, entry) in part.iter().zip(client.get_many(part).await) {
            assert!(entry.unwrap().is_some(), "{key} was acknowledged and is lost");
        }
    }
}

#[tokio::test]
async fn a_panic_in_a_turn_stops_the_node_which_says_so_and_the_cluster_goes_on() {
    let mut cluster = cluster(3).await;
    let client = cluster.client().await.unwrap();
    write_all(&client, 0..20).await;
    cluster.faults(1).unwrap().panic_in_turn();
    let ending = cluster.server(1).unwrap().ended().await;
    let Ending::Failed(failure) = ending else { panic!("{ending:?}") };
    assert_eq!((failure.trouble, failure.trouble.exit_code()), (Trouble::Internal, 1));
    assert!(failure.message.starts_with("a turn panicked, which is a bug: "), "{failure}");
    write_all(&client, 20..40).await;
    cluster.kill(1).unwrap();
    cluster.restart(1).unwrap();
    cluster.ready().await.unwrap();
    read_all(&client, 0..40).await;
}

#[tokio::test]
async fn a_call_at_a_node_whose_replica_is_out_of_service_is_served_by_another() {
    let cluster = cluster(3).await;
    let client = cluster.client().await.unwrap();
    cluster.faults(2).unwrap().panic_in_lookup();
    // Whether the key is absent is looked up by every replica of its shard.
    client.put("key", "1").if_absent().await.unwrap();
    let address = format!("http://{}", cluster.addresses(2).unwrap().client);
    let mut admin = v1::cluster_client::ClusterClient::connect(address).await.unwrap();
    let trouble = loop {
        let status = admin.status(v1::StatusRequest {}).await.unwrap().into_inner();
        let out = status.shards.into_iter().find(|shard| shard.role() == v1::ReplicaRole::Quarantined);
        if let Some(shard) = out {
            break shard.trouble;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(trouble.contains("out of service") && trouble.contains("by request"), "{trouble}");
    let mut unary = unary(&cluster, 2).await;
    let get = v1::GetRequest { key: "key".into(), ..Default::default() };
    assert_eq!(unary.get(get).await.unwrap().into_inner().entry.unwrap().value, "1");
    let put = v1::PutRequest { key: "key".into(), value: "2".into(), ..Default::default() };
    unary.put(put).await.unwrap();
    unary.delete(v1::DeleteRequest { key: "key".into(), ..Default::default() }).await.unwrap();
    assert_eq!(client.get("key").await.unwrap(), None);
}

#[tokio::test]
async fn a_node_whose_log_is_silent_hands_its_leaderships_over() {
    let mut cluster = cluster(3).await;
    let client = cluster.client().await.unwrap();
    write_all(&client, 0..20).await;
    until_leads(&client, NodeId(1), |leads| leads > 0).await;
    cluster.faults(1).unwrap().stall_log();
    // Something has to be written for the silence to be heard.
    write_all(&client, 20..40).await;
    until_leads(&client, NodeId(1), |leads| leads == 0).await;
    write_all(&client, 40..60).await;
    read_all(&client, 0..60).await;
    cluster.faults(1).unwrap().resume_log();
    // From then on its acknowledgements are needed again.
    until_seen(&client, NodeId(1), |followed| followed.active).await;
    cluster.kill(2).unwrap();
    write_all(&client, 60..80).await;
    read_all(&client, 0..80).await;
}

#[tokio::test]
async fn a_failed_sync_stops_the_node_and_nothing_acknowledged_is_lost() {
    let mut cluster = cluster(3).await;
    let client = cluster.client().await.unwrap();
    write_all(&client, 0..20).await;
    cluster.faults(2).unwrap().fail_log();
    write_all(&client, 20..40).await;
    let ending = cluster.server(2).unwrap().ended().await;
    let Ending::Failed(failure) = ending else { panic!("{ending:?}") };
    assert_eq!((failure.trouble, failure.trouble.exit_code()), (Trouble::Disk, 6), "{failure}");
    write_all(&client, 40..60).await;
    cluster.kill(2).unwrap();
    cluster.restart(2).unwrap();
    cluster.ready().await.unwrap();
    cluster.kill(3).unwrap();
    read_all(&client, 0..60).await;
}

/// Waits until a node leads as many shards as is wanted.
async fn until_leads(client: &Client, node: NodeId, is_so: fn(usize) -> bool) {
    loop {
        let status = client.status().await.unwrap();
        let leads = status.shards.iter().filter(|shard| shard.leader == Some(node)).count();
        if is_so(leads) && status.shards.iter().all(|shard| shard.leader.is_some()) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn health_readiness_and_metrics_are_told_over_http() {
    let cluster = cluster(1).await;
    let client = cluster.client().await.unwrap();
    write_all(&client, 0..3).await;
    assert!(http_get(&cluster, "/health").await.starts_with("HTTP/1.1 200"));
    assert!(http_get(&cluster, "/ready").await.starts_with("HTTP/1.1 200"));
    let metrics = http_get(&cluster, "/metrics").await;
    for name in [
        "kv_turns_total",
        "kv_log_sync_seconds_bucket",
        "kv_shard_leads{shard=\"1\"} 1",
        "kv_ready 1",
        "kv_shard_followers_silent",
    ] {
        assert!(metrics.contains(name), "{name} is not in {metrics}");
    }
}

async fn http_get(cluster: &TestCluster, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let address = cluster.addresses(1).unwrap().http.unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: kv\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
