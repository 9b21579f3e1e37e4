//! Nodes die and come back, links break and heal; nothing that was acknowledged is lost, and callers see latency only.

use std::time::Duration;

use kv_client::{ErrorKind, Outcome};

use crate::support::{address, client, client_of, cluster, keys, until, whole};

#[tokio::test]
async fn each_node_may_be_killed_and_started_again_while_writes_go_on() {
    let mut cluster = cluster(3).await;
    let client = client(&cluster).await;
    for round in 1..=3 {
        for key in keys(20) {
            client.put(&key, format!("before {round}")).await.unwrap();
        }
        cluster.kill(round).unwrap();
        for entry in client.get_many(keys(20)).await {
            assert_eq!(entry.unwrap().unwrap().value, format!("before {round}"));
        }
        for key in keys(20) {
            client.put(&key, format!("without {round}")).await.unwrap();
        }
        cluster.restart(round).unwrap();
        whole(&cluster, &client).await;
        for entry in client.get_many(keys(20)).await {
            assert_eq!(entry.unwrap().unwrap().value, format!("without {round}"));
        }
    }
}

#[tokio::test]
async fn all_nodes_may_be_killed_at_once() {
    let mut cluster = cluster(3).await;
    let client = client(&cluster).await;
    for key in keys(40) {
        client.put(&key, key.clone()).await.unwrap();
    }
    for node in 1..=3 {
        cluster.kill(node).unwrap();
    }
    for node in 1..=3 {
        cluster.restart(node).unwrap();
    }
    for (key, entry) in keys(40).zip(client.get_many(keys(40)).await) {
        assert_eq!(entry.unwrap().unwrap().value, key);
    }
}

#[tokio::test]
async fn the_majority_serves_through_a_partition_and_the_minority_does_not() {
    let cluster = cluster(3).await;
    let client = client(&cluster).await;
    for key in keys(20) {
        client.put(&key, "before").await.unwrap();
    }
    cluster.partition(&[1], &[2, 3]).unwrap();
    // The client reaches all nodes: it must find the side that serves.
    for key in keys(20) {
        client.put(&key, "during").await.unwrap();
    }
    let mut alone = crate::raw::unary(&address(&cluster, 1)).await;
    for key in keys(20) {
        let mut request = tonic::Request::new(crate::raw::get(key.clone()));
        // It alone is asked.
        request.metadata_mut().insert(kv_proto::HERE_ONLY, 1.into());
        request.set_timeout(Duration::from_millis(300));
        let answer = alone.get(request).await;
        assert!(answer.is_err(), "the side without majority answered {answer:?}");
    }
    cluster.heal();
    whole(&cluster, &client).await;
    for entry in client.get_many(keys(20)).await {
        assert_eq!(entry.unwrap().unwrap().value, "during");
    }
    // The one that was cut off catches up.
    until("no replica lags", || async {
        let status = client.status().await.unwrap();
        let lags = |replica: &kv_client::ReplicaStatus| replica.report.as_ref().is_none_or(|report| report.lag > 0);
        (!status.shards.iter().flat_map(|shard| &shard.replicas).any(lags)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn without_a_majority_calls_end_by_their_deadline_and_say_whether_they_took_effect() {
    let mut cluster = cluster(3).await;
    let patient = client(&cluster).await;
    patient.put("hello", "world").await.unwrap();
    let hasty = client_of(&cluster, Duration::from_secs(1)).await;
    cluster.kill(2).unwrap();
    cluster.kill(3).unwrap();
    let error = hasty.get("hello").await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Unavailable), "{error:?}");
    assert_eq!(error.outcome(), Outcome::NotApplied);
    let error = hasty.put("hello", "nobody").await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Unavailable), "{error:?}");
    let refused = error.outcome() == Outcome::NotApplied;
    cluster.restart(2).unwrap();
    cluster.restart(3).unwrap();
    let value = patient.get("hello").await.unwrap().unwrap().value;
    assert!(value == "world" || (!refused && value == "nobody"), "{value:?} after {error}");
}

#[tokio::test]
async fn an_orderly_stop_is_no_failure_for_anybody() {
    let cluster = cluster(3).await;
    let client = client(&cluster).await;
    for key in keys(20) {
        client.put(&key, "before").await.unwrap();
    }
    let leaving = cluster.server(2).unwrap();
    leaving.shutdown();
    for key in keys(20) {
        client.put(&key, "after").await.unwrap();
    }
    let ending = tokio::time::timeout(crate::support::PATIENCE, leaving.ended()).await.unwrap();
    assert_eq!(ending, kv_server::Ending::Shutdown);
    for entry in client.get_many(keys(20)).await {
        assert_eq!(entry.unwrap().unwrap().value, "after");
    }
}
