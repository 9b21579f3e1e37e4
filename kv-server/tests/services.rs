//! What a real server offers beside reads and writes: health checks, reflection, the watch of the map, handing a leadership
//! over; and the start on what belongs to another cluster.
#![allow(clippy::unwrap_used, reason = "a test ends where it can't go on")]

use std::{collections::BTreeMap, future::Future, time::Duration};

use kv_core::types::NodeId;
use kv_proto::v1::{self, cluster_client::ClusterClient};
use kv_server::{Config, Ending, Listeners, Server, Trouble, testing::TestCluster};
use tokio::time::{sleep, timeout};
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

/// Far more than anything takes, even on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);

async fn cluster(nodes: u64) -> TestCluster {
    TestCluster::start_with(nodes, None, |config| config.shards = 4).await.unwrap()
}

async fn channel(address: impl std::fmt::Display) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

async fn admin(cluster: &TestCluster, node: u64) -> ClusterClient<Channel> {
    ClusterClient::new(channel(cluster.addresses(node).unwrap().client).await)
}

/// Looks again and again until there is something.
async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let looks = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, looks).await.unwrap_or_else(|_| panic!("it never came to be that {what}"))
}

/// A configuration for a node in place of one of a cluster's, with this data.
fn in_place_of(cluster: &TestCluster, node: u64, data: std::path::PathBuf) -> Config {
    let members: BTreeMap<_, _> =
        cluster.nodes().map(|id| (NodeId(id), cluster.addresses(id).unwrap().peer.to_string())).collect();
    Config { shards: 4, ..Config::new(NodeId(node), members, data) }
}

/// Starts a server on ports that were just given up.
async fn start(config: Config) -> Server {
    until("the ports are free", || async {
        match Server::start(config.clone()) {
            Err(failure) if failure.trouble == Trouble::Address => None,
            started => Some(started.unwrap()),
        }
    })
    .await
}

#[tokio::test]
async fn health_is_told_by_service() {
    let cluster = cluster(1).await;
    let mut health = HealthClient::new(channel(cluster.addresses(1).unwrap().client).await);
    let ask = |service: &str| HealthCheckRequest { service: service.to_owned() };
    for service in ["", "kv.v1.Kv", "kv.v1.Cluster"] {
        // The health service hears of readiness a moment later than whoever waits for it.
        until("it serves", || {
            let mut health = health.clone();
            async move {
                let answer = health.check(ask(service)).await.unwrap().into_inner();
                (answer.status() == ServingStatus::Serving).then_some(())
            }
        })
        .await;
    }
    assert_eq!(health.check(ask("kv.v1.Nothing")).await.unwrap_err().code(), Code::NotFound);

    let directory = tempfile::tempdir().unwrap();
    let members = [(1, "127.0.0.1:1"), (2, "127.0.0.1:2")].map(|(id, address)| (NodeId(id), address.to_owned()));
    let mut config = Config::new(NodeId(1), members.into(), directory.path());
    config.peer_listen = Some("127.0.0.1:0".to_owned());
    let alone = Server::start(config).unwrap();
    let mut health = HealthClient::new(channel(alone.addresses().client).await);
    until("a node whose cluster is not founded says that it does not serve", || {
        let mut health = health.clone();
        async move {
            let answer = health.check(ask("")).await.ok()?.into_inner();
            (answer.status() == ServingStatus::NotServing).then_some(())
        }
    })
    .await;
    assert_eq!(health.check(ask("kv.v1.Kv")).await.unwrap().into_inner().status(), ServingStatus::NotServing);
}

#[tokio::test]
async fn reflection_names_the_services_and_knows_their_messages() {
    let cluster = cluster(1).await;
    let mut client = ServerReflectionClient::new(channel(cluster.addresses(1).unwrap().client).await);
    let ask = |request| ServerReflectionRequest { host: String::new(), message_request: Some(request) };
    let requests = [
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol("kv.v1.PutRequest".to_owned())),
    ];
    let mut answers = client.server_reflection_info(tokio_stream::iter(requests)).await.unwrap().into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) = answers.message().await.unwrap().unwrap().message_response
    else {
        panic!("no list of services");
    };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    for service in ["kv.v1.Kv", "kv.v1.Cluster", "grpc.health.v1.Health"] {
        assert!(names.iter().any(|name| name == service), "{service} is not in {names:?}");
    }
    let Some(MessageResponse::FileDescriptorResponse(files)) =
        answers.message().await.unwrap().unwrap().message_response
    else {
        panic!("no description");
    };
    assert!(files.file_descriptor_proto.iter().any(|file| String::from_utf8_lossy(file).contains("PutRequest")));
}

#[tokio::test]
async fn a_watch_of_the_map_tells_what_is_and_then_what_changes() {
    let mut cluster = cluster(3).await;
    let mut watch = admin(&cluster, 1)
        .await
        .watch_topology(v1::WatchTopologyRequest { map_version: 0 })
        .await
        .unwrap()
        .into_inner();
    let first = timeout(PATIENCE, watch.message()).await.unwrap().unwrap().unwrap();
    let map = first.map.unwrap();
    assert_eq!((first.node, map.nodes.len(), map.shards.len()), (1, 3, 5));

    // A node that comes back at another address for clients.
    cluster.kill(3).unwrap();
    let moved = start(in_place_of(&cluster, 3, cluster.data(3))).await;
    let address = moved.addresses().client.to_string();
    assert_ne!(address, cluster.addresses(3).unwrap().client.to_string());
    loop {
        let change = timeout(PATIENCE, watch.message()).await.unwrap().unwrap().unwrap().map.unwrap();
        assert!(change.version > map.version);
        if change.nodes.iter().any(|node| node.node == 3 && node.client_address == address) {
            break;
        }
    }
    // Who has the map already hears of the next change only.
    let have =
        admin(&cluster, 1).await.topology(v1::TopologyRequest {}).await.unwrap().into_inner().map.unwrap().version;
    let mut watch = admin(&cluster, 1)
        .await
        .watch_topology(v1::WatchTopologyRequest { map_version: have })
        .await
        .unwrap()
        .into_inner();
    drop(moved);
    let moved = start(in_place_of(&cluster, 3, cluster.data(3))).await;
    let next = timeout(PATIENCE, watch.message()).await.unwrap().unwrap().unwrap().map.unwrap();
    assert!(next.version > have);
    drop(moved);
}

#[tokio::test]
async fn a_leadership_goes_where_it_is_told_to() {
    let cluster = cluster(3).await;
    let client = cluster.client().await.unwrap();
    client.put("hello", "world").await.unwrap();
    let status = client.status().await.unwrap();
    let shard = status.shards.iter().find(|shard| shard.shard.0 == 1).unwrap();
    let leader = shard.leader.unwrap();
    let to = shard.replicas.iter().map(|replica| replica.node).find(|node| *node != leader).unwrap();
    let ask = |to: u64| v1::TransferLeaderRequest { shard: 1, to };
    let refused = admin(&cluster, to.0).await.transfer_leader(ask(to.0)).await;
    assert!(refused.is_err(), "only the node that leads can: {refused:?}");
    let refused = admin(&cluster, leader.0).await.transfer_leader(ask(9)).await;
    assert!(refused.is_err(), "there is no node 9: {refused:?}");
    admin(&cluster, leader.0).await.transfer_leader(ask(to.0)).await.unwrap();
    until("it leads", || async {
        let status = client.status().await.unwrap();
        status.shards.iter().any(|shard| shard.shard.0 == 1 && shard.leader == Some(to)).then_some(())
    })
    .await;
    assert_eq!(client.get("hello").await.unwrap().unwrap().value, "world");
}

#[tokio::test]
async fn the_data_of_another_cluster_is_refused_by_the_members() {
    let (mut one, mut other) = (cluster(3).await, cluster(3).await);
    one.kill(3).unwrap();
    other.kill(3).unwrap();
    let stranger = start(in_place_of(&one, 3, other.data(3))).await;
    let ending = timeout(PATIENCE, stranger.ended()).await.unwrap();
    let Ending::Failed(failure) = ending else { panic!("{ending:?}") };
    assert_eq!((failure.trouble, failure.trouble.exit_code()), (Trouble::DataDirectory, 3), "{failure}");
    assert!(failure.message.contains("the data directory belongs to another cluster"), "{failure}");
    one.client().await.unwrap().put("hello", "world").await.unwrap();
}

#[tokio::test]
async fn a_member_with_another_configuration_is_told_that_it_is_a_mistake_in_the_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let ports: Vec<_> = (0..2).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let members: BTreeMap<_, _> =
        ports.iter().zip(1..).map(|(port, id)| (NodeId(id), port.local_addr().unwrap().to_string())).collect();
    let mut servers = ports.into_iter().zip(1..).map(|(peer, id)| {
        let data = directory.path().join(id.to_string());
        let config = Config { shards: 3 + id, ..Config::new(NodeId(id.into()), members.clone(), data) };
        let client = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        Server::start_with(config, Listeners { peer, client, http: None }).unwrap()
    });
    let (_first, second) = (servers.next().unwrap(), servers.next().unwrap());
    let ending = timeout(PATIENCE, second.ended()).await.unwrap();
    let Ending::Failed(failure) = ending else { panic!("{ending:?}") };
    assert_eq!((failure.trouble, failure.trouble.exit_code()), (Trouble::Configuration, 2), "{failure}");
    assert!(failure.message.contains("start both alike"), "{failure}");
}

#[tokio::test]
async fn a_client_that_was_given_another_port_of_a_node_is_told_so() {
    let cluster = cluster(1).await;
    let addresses = cluster.addresses(1).unwrap();
    for address in [addresses.peer, addresses.http.unwrap()] {
        let client = kv_client::Client::builder().endpoints([address.to_string()]).deadline(Duration::from_millis(200));
        let error = client.connect().await.unwrap_err();
        assert!(error.to_string().contains("is this its address for clients?"), "{error}");
    }
}
