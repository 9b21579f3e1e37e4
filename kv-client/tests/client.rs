//! The client against a cluster of fake nodes: routing, retries, sessions, batches, and what callers are told.

mod fake;

use std::time::{Duration, Instant};

use fake::{Cluster, Plan};
use kv_client::{Client, Durability, ErrorKind, Fate, LogIndex, Outcome, Revision, ShardId, Term, Token};
use kv_proto::v1;

fn refusal(kind: v1::ErrorKind, outcome: v1::Outcome) -> v1::ErrorDetail {
    v1::ErrorDetail { kind: kind.into(), outcome: outcome.into(), message: "planned".into(), ..Default::default() }
}

#[tokio::test]
async fn a_refusal_that_names_the_leader_is_followed_and_remembered() {
    let cluster = Cluster::start(3);
    cluster.store.lock().leaders = (1..=3).map(|shard| (shard, 3)).collect();
    let client = cluster.client().await;
    client.put("a", "1").await.unwrap();
    let asked_first: Vec<_> = cluster.store.lock().seen.drain(..).map(|seen| seen.node).collect();
    assert_eq!(
        asked_first,
        [1, 3, 3],
        "the session is asked of the owner, then of the leader; the write goes to the leader"
    );
    client.put("a", "2").await.unwrap();
    assert_eq!(client.get("a").await.unwrap().unwrap().value, "2");
    assert!(cluster.store.lock().seen.iter().all(|seen| seen.node == 3));
}

#[tokio::test]
async fn a_shard_without_a_leader_is_latency() {
    let cluster = Cluster::start(1);
    let client = cluster.client().await;
    for _ in 0..5 {
        cluster.store.lock().plans.push_back(Plan::Refuse(refusal(v1::ErrorKind::NoQuorum, v1::Outcome::NotApplied)));
    }
    let receipt = client.put("a", "1").await.unwrap();
    assert_eq!(receipt.revision, Some(Revision(1)));
    let stamps = cluster.store.lock().stamps();
    assert_eq!(stamps.len(), 6);
    assert!(stamps.iter().all(|stamp| *stamp == (1, 1, 1)), "one place in the session for all sendings: {stamps:?}");
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_runs_once() {
    let cluster = Cluster::start(1);
    let client = cluster.client().await;
    cluster.store.lock().plans.push_back(Plan::ApplyThenBreak);
    let receipt = client.put("a", "1").if_absent().await.unwrap();
    assert_eq!(receipt.revision, Some(Revision(1)), "a second run would have been a conflict");
    let store = cluster.store.lock();
    assert_eq!((store.revision(), store.stamps()), (1, vec![(1, 1, 1), (1, 1, 1)]));
}

#[tokio::test]
async fn a_conflict_that_was_remembered_is_final() {
    let cluster = Cluster::start(1);
    let client = cluster.client().await;
    client.put("a", "1").await.unwrap();
    cluster.store.lock().plans.push_back(Plan::ApplyThenBreak);
    let error = client.put("a", "2").if_absent().await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Conflict, Outcome::NotApplied));
    assert_eq!(error.current(), Some(Revision(1)));
}

#[tokio::test]
async fn an_expired_session_is_replaced_if_nothing_can_have_come_of_the_write() {
    let cluster = Cluster::start(1);
    let client = cluster.client().await;
    client.put("a", "1").await.unwrap();
    cluster.store.lock().plans.push_back(Plan::ExpireSessions);
    client.put("a", "2").await.unwrap();
    let store = cluster.store.lock();
    assert_eq!((store.revision(), store.stamps()), (2, vec![(1, 1, 1), (1, 2, 2), (2, 1, 1)]));
}

#[tokio::test]
async fn an_expired_session_leaves_a_write_unknown_that_may_have_been_applied() {
    let cluster = Cluster::start(1);
    let client = cluster.client().await;
    cluster.store.lock().plans.extend([Plan::ApplyThenBreak, Plan::ExpireSessions]);
    let error = client.put("a", "1").await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::SessionExpired, Outcome::Unknown));
    assert_eq!(cluster.store.lock().revision(), 1, "it is not run again under another session");
    client.put("a", "2").await.unwrap();
}

#[tokio::test]
async fn a_deadline_ends_a_call_and_says_whether_it_may_have_happened() {
    let cluster = Cluster::start(1);
    let client = cluster.client().await;
    client.put("a", "1").await.unwrap();
    cluster.store.lock().plans.push_back(Plan::Silence);
    let began = Instant::now();
    let error = client.put("a", "2").deadline(Duration::from_millis(100)).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Timeout, Outcome::Unknown));
    assert!(began.elapsed() >= Duration::from_millis(100));

    // A shard that refuses to the end has certainly done nothing.
    let refused = Plan::Refuse(refusal(v1::ErrorKind::NoQuorum, v1::Outcome::NotApplied));
    cluster.store.lock().plans.extend(vec![refused; 1_000]);
    let error = client.put("a", "3").deadline(Duration::from_millis(100)).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unavailable, Outcome::NotApplied), "{error}");
}

#[tokio::test]
async fn refusals_that_time_does_not_mend_are_told_at_once() {
    let cluster = Cluster::start(1);
    let client = cluster.client().await;
    let invalid = refusal(v1::ErrorKind::Invalid, v1::Outcome::NotApplied);
    cluster.store.lock().plans.push_back(Plan::Refuse(invalid));
    let error = client.put("a", "1").await.unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome(), error.to_string().as_str()),
        (ErrorKind::Invalid, Outcome::NotApplied, "planned")
    );
    assert_eq!(cluster.store.lock().stamps().len(), 1);
}

#[tokio::test]
async fn the_death_of_a_node_is_latency() {
    let mut cluster = Cluster::start(3);
    let client = cluster.client().await;
    client.put("a", "1").await.unwrap();
    cluster.kill(1);
    cluster.store.lock().leaders = (0..=3).map(|shard| (shard, 2)).collect();
    client.put("a", "2").await.unwrap();
    assert_eq!(client.get("a").await.unwrap().unwrap().value, "2");
    assert_eq!(cluster.store.lock().revision(), 2);
}

#[tokio::test]
async fn a_node_that_comes_up_elsewhere_is_found() {
    let mut cluster = Cluster::start(2);
    let client = cluster.client().await;
    client.put("a", "1").await.unwrap();
    cluster.kill(1);
    cluster.start_elsewhere(1);
    client.put("a", "2").await.unwrap();
    assert_eq!(cluster.store.lock().seen.last().unwrap().node, 1);
}

#[tokio::test]
async fn concurrent_operations_join_into_messages_and_keep_their_places() {
    const WRITES: usize = 3_000;
    let cluster = Cluster::start(1);
    let client = cluster.client().await;
    client.put("warm", "up").await.unwrap();
    cluster.store.lock().messages.clear();
    let puts = (0..WRITES).map(|number| client.put(format!("key{number}"), "v").into_future());
    for result in futures_util::future::join_all(puts).await {
        result.unwrap();
    }
    let store = cluster.store.lock();
    let writes: usize = store.messages.iter().sum();
    assert!(writes >= WRITES, "{writes}");
    assert!(store.messages.len() < WRITES / 10, "{} messages for {writes} operations", store.messages.len());
    assert_eq!(store.revision(), WRITES as u64 + 1);
}

#[tokio::test]
async fn many_keys_are_answered_in_their_order() {
    let cluster = Cluster::start(1);
    let client = cluster.client().await;
    client.put("b", "2").await.unwrap();
    let answers = client.get_many(["a", "b", ""]).await;
    assert_eq!(answers[0].as_ref().unwrap(), &None);
    assert_eq!(answers[1].as_ref().unwrap().as_ref().unwrap().value, "2");
    assert_eq!(answers[2].as_ref().unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn a_dropped_write_gives_its_place_back() {
    let cluster = Cluster::start(1);
    let client = cluster.client().await;
    client.put("a", "1").await.unwrap();
    cluster.store.lock().plans.push_back(Plan::Silence);
    let mut silent = client.put("a", "2").into_future();
    while cluster.store.lock().stamps().len() < 2 {
        tokio::select! {
            _ = &mut silent => panic!("nothing answers it"),
            () = tokio::task::yield_now() => {}
        }
    }
    drop(silent);
    client.put("a", "3").await.unwrap();
    assert_eq!(cluster.store.lock().stamps().last(), Some(&(1, 3, 3)));
}

#[tokio::test]
async fn a_map_that_is_pushed_is_used() {
    let cluster = Cluster::start(2);
    let client = cluster.client().await;
    client.put("a", "1").await.unwrap();
    let mut newer = fake::map(2, &cluster.nodes);
    for row in &mut newer.shards {
        row.replicas.reverse();
        row.epoch = 2;
    }
    cluster.store.lock().map = newer;
    client.put("a", "2").await.unwrap();
    client.put("a", "3").await.unwrap();
    assert_eq!(cluster.store.lock().seen.last().unwrap().op.epoch, 2);
}

#[tokio::test]
async fn an_async_write_can_be_asked_about() {
    let cluster = Cluster::start(1);
    let client = cluster.client().await;
    let token = Token { shard: ShardId(2), term: Term(1), index: LogIndex(9) };
    assert_eq!(client.wait_durable(token).await.unwrap(), Fate::Durable);
    assert_eq!(cluster.store.lock().seen[0].op.shard, 2);
}

/// A token names one sending: that of the second would say nothing of what the first may have done.
#[tokio::test]
async fn an_async_write_whose_answer_was_lost_is_sent_again_as_sync() {
    let cluster = Cluster::start(1);
    let client = cluster.client().await;
    let nothing_came_of_it = refusal(v1::ErrorKind::Overloaded, v1::Outcome::NotApplied);
    cluster.store.lock().plans.extend([Plan::Refuse(nothing_came_of_it), Plan::ApplyThenBreak]);
    let receipt = client.put("a", "1").durability(Durability::Async).await.unwrap();
    assert_eq!((receipt.revision, receipt.token), (Some(Revision(1)), None), "what it is told is decided");

    assert!(client.put("a", "2").durability(Durability::Async).await.unwrap().token.is_some(), "else it is as asked");

    let store = cluster.store.lock();
    let (sync, asynchronous) = (v1::Durability::Sync, v1::Durability::Async);
    assert_eq!(store.durabilities(), [asynchronous, asynchronous, sync, asynchronous]);
    assert_eq!(store.stamps()[..3], [(1, 1, 1); 3], "one place in the session for all sendings");
    assert_eq!(store.revision(), 2);
}

#[tokio::test]
async fn status_lists_nodes_that_do_not_answer() {
    let mut cluster = Cluster::start(3);
    let client = cluster.client().await;
    assert!(client.status().await.unwrap().is_whole());
    cluster.kill(3);
    let status = client.status().await.unwrap();
    assert!(!status.is_whole());
    assert!(status.nodes[2].report.is_err());
    let shard = &status.shards[1];
    assert_eq!((shard.leader.unwrap().0, shard.term, shard.commit), (1, 2, 9));
    let lags: Vec<_> = shard.replicas.iter().map(|replica| replica.report.as_ref().map(|report| report.lag)).collect();
    assert_eq!(lags, [Some(0), Some(1), None]);
}

#[tokio::test]
async fn status_finds_a_node_whose_address_became_known_after_the_client_had_connected() {
    let cluster = Cluster::start(3);
    let whole = cluster.store.lock().map.clone();
    cluster.store.lock().map.nodes[2].client_address.clear();
    let first = format!("kv://{},{}", cluster.nodes[0].address, cluster.nodes[1].address);
    let client = Client::connect(first).await.unwrap();
    let early = client.status().await.unwrap();
    assert!(!early.is_whole() && early.nodes[2].address.is_empty(), "it has not said yet where clients reach it");

    cluster.store.lock().map = v1::ShardMap { version: whole.version + 1, ..whole };
    assert!(client.status().await.unwrap().is_whole());
}

#[tokio::test]
async fn addresses_that_lead_nowhere_or_apart_are_told() {
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let alone = Client::builder().endpoints([unused.to_string()]).deadline(Duration::from_millis(200));
    let error = alone.connect().await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unavailable, Outcome::NotApplied));
    assert!(error.to_string().contains(&unused.to_string()), "{error}");

    // A dead address beside a live one does no harm.
    let cluster = Cluster::start(1);
    let both = format!("kv://{unused},{}", cluster.nodes[0].address);
    Client::connect(both).await.unwrap().put("a", "1").await.unwrap();

    assert_eq!(Client::builder().connect().await.unwrap_err().kind(), ErrorKind::Invalid);
}
