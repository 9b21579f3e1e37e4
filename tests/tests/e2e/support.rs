//! Clusters and clients with deadlines that only something broken reaches, and waiting for what must come to be.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use kv_client::Client;
use kv_server::testing::TestCluster;
use tokio::time::{sleep, timeout};

/// Far more than anything takes, even on a machine that is busy with other tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// A cluster that takes traffic.
pub(crate) async fn cluster(nodes: u64) -> TestCluster {
    timeout(PATIENCE, TestCluster::start(nodes)).await.expect("the cluster becomes ready").unwrap()
}

/// A client of all nodes, with patience.
pub(crate) async fn client(cluster: &TestCluster) -> Client {
    client_of(cluster, PATIENCE).await
}

/// A client of all nodes, with this deadline.
pub(crate) async fn client_of(cluster: &TestCluster, deadline: Duration) -> Client {
    let addresses = cluster.nodes().map(|node| address(cluster, node)).collect::<Vec<_>>();
    Client::builder().endpoints(addresses).deadline(deadline).connect().await.unwrap()
}

/// Where a node's clients connect.
pub(crate) fn address(cluster: &TestCluster, node: u64) -> String {
    cluster.addresses(node).unwrap().client.to_string()
}

/// Looks again and again until there is something.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "it never came to be that {what}");
        sleep(PAUSE).await;
    }
}

/// Waits until all nodes that run are ready and every shard has a leader.
pub(crate) async fn whole(cluster: &TestCluster, client: &Client) {
    timeout(PATIENCE, cluster.ready()).await.expect("the nodes become ready").unwrap();
    let running = cluster.nodes().filter(|node| cluster.server(*node).is_some()).count();
    until("every shard has a leader", || async {
        let status = client.status().await.unwrap();
        let ready = status.nodes.iter().filter(|node| node.report.as_ref().is_ok_and(|report| report.ready)).count();
        (ready >= running && status.shards.iter().all(|shard| shard.leader.is_some())).then_some(())
    })
    .await;
}

/// Keys that fall on many shards.
pub(crate) fn keys(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|number| format!("key-{number}"))
}
