//! How a cluster comes to be.

use kv_client::Client;
use kv_server::{Config, Server, testing::TestCluster};

use crate::{
    raw,
    support::{PATIENCE, address, client, cluster, keys, until},
};

#[tokio::test]
async fn three_nodes_found_one_cluster_with_a_leader_for_every_shard() {
    let cluster = cluster(3).await;
    let client = client(&cluster).await;
    let status = until("the cluster is whole", || async {
        let status = client.status().await.unwrap();
        status.is_whole().then_some(status)
    })
    .await;
    assert_eq!(status.nodes.len(), 3);
    // The twelve of the default, and the one that describes the cluster.
    assert_eq!(status.shards.len(), 13);
    assert!(status.shards.iter().all(|shard| shard.replicas.len() == 3));
    let mut clusters = Vec::new();
    for node in 1..=3 {
        let topology = raw::topology(&address(&cluster, node)).await;
        assert_eq!(topology.node, node);
        clusters.push(topology.cluster);
    }
    clusters.dedup();
    assert_eq!(clusters.len(), 1);
}

#[tokio::test]
async fn one_node_is_a_cluster() {
    let cluster = cluster(1).await;
    let client = client(&cluster).await;
    client.put("hello", "world").await.unwrap();
    assert_eq!(client.get("hello").await.unwrap().unwrap().value, "world");
}

#[tokio::test]
async fn a_cluster_of_five_spreads_its_leaders() {
    let cluster = TestCluster::start_with(5, None, |config| config.shards = 5).await.unwrap();
    let client = client(&cluster).await;
    for key in keys(50) {
        client.put(&key, key.clone()).await.unwrap();
    }
    let status = client.status().await.unwrap();
    let mut owners: Vec<_> = status.shards.iter().filter_map(|shard| shard.owner).collect();
    owners.sort();
    owners.dedup();
    assert!(owners.len() > 1, "{owners:?}");
}

#[tokio::test]
async fn a_member_that_waits_for_the_others_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let free: Vec<_> = (0..2).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let members =
        free.iter().zip(1..).map(|(port, id)| (kv_core::types::NodeId(id), port.local_addr().unwrap().to_string()));
    let mut config = Config::new(kv_core::types::NodeId(1), members.collect(), directory.path());
    config.peer_listen = Some("127.0.0.1:0".to_owned());
    let server = Server::start(config).unwrap();
    until("it says whom it waits for", || async {
        server.unready().filter(|reason| reason.contains("waiting for") && reason.contains('2'))
    })
    .await;
    // What it can't serve it refuses with that reason.
    let status = raw::unary(&server.addresses().client.to_string()).await.get(raw::get("a")).await.unwrap_err();
    assert!(status.message().contains("waiting for"), "{status:?}");
    let client = Client::builder().endpoints([server.addresses().client.to_string()]);
    let refused = client.deadline(std::time::Duration::from_secs(1)).connect();
    assert!(tokio::time::timeout(PATIENCE, refused).await.unwrap().is_err());
}
