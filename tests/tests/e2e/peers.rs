//! Who is not a peer is refused with the reason, and what a false peer says harms nobody.

use kv_proto::v1::{
    self, ConnectionKind, Envelope, PeerBatch, PeerHello, PeerMessage, RaftMessage, RaftMessageType, RefusalReason,
    envelope::Content, peer_client::PeerClient, peer_message::Body,
};
use kv_server::testing::TestCluster;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    raw,
    support::{PATIENCE, address, client, cluster, keys, until, whole},
};

/// A greeting of node 2 to node 1, as the real one would send it.
async fn hello(cluster: &TestCluster) -> PeerHello {
    let topology = raw::topology(&address(cluster, 1)).await;
    let nodes = topology.map.unwrap().nodes;
    PeerHello {
        protocol: kv_proto::PROTOCOL,
        cluster: topology.cluster,
        node: 2,
        incarnation: nodes.iter().find(|node| node.node == 2).unwrap().incarnation.clone(),
        kind: ConnectionKind::Main.into(),
        to: 1,
    }
}

/// Says hello to node 1 and tells what it answers, with the way to say more.
async fn greet(cluster: &TestCluster, hello: PeerHello) -> (Content, mpsc::Sender<Envelope>) {
    let (outgoing, requests) = mpsc::channel(16);
    outgoing.send(Envelope { content: Some(Content::Hello(hello)) }).await.unwrap();
    let channel = raw::channel(&cluster.addresses(1).unwrap().peer.to_string()).await;
    let mut client = PeerClient::new(channel);
    let mut answers = client.exchange(ReceiverStream::new(requests)).await.unwrap().into_inner();
    let answer = timeout(PATIENCE, answers.message()).await.unwrap().unwrap().unwrap();
    // The connection lives as long as somebody reads it.
    tokio::spawn(async move { while let Ok(Some(_)) = answers.message().await {} });
    (answer.content.unwrap(), outgoing)
}

#[tokio::test]
async fn callers_that_are_no_peers_are_told_why() {
    let cluster = cluster(3).await;
    let right = hello(&cluster).await;
    let (welcome, _) = greet(&cluster, right.clone()).await;
    assert!(matches!(welcome, Content::Welcome(_)), "{welcome:?}");
    for (hello, expected) in [
        (PeerHello { protocol: 99, ..right.clone() }, RefusalReason::Protocol),
        (PeerHello { cluster: vec![9; 16].into(), ..right.clone() }, RefusalReason::WrongCluster),
        (PeerHello { to: 3, ..right.clone() }, RefusalReason::WrongNode),
        (PeerHello { incarnation: vec![9; 16].into(), ..right.clone() }, RefusalReason::Wiped),
        (PeerHello { node: 77, ..right.clone() }, RefusalReason::NotAMember),
        (PeerHello { incarnation: vec![9; 5].into(), ..right.clone() }, RefusalReason::Protocol),
    ] {
        let (answer, _) = greet(&cluster, hello.clone()).await;
        let Content::Refusal(refusal) = answer else { panic!("{hello:?} was answered {answer:?}") };
        assert_eq!(refusal.reason(), expected, "{}", refusal.message);
        assert!(!refusal.message.is_empty());
        let http = cluster.addresses(1).unwrap().http.unwrap();
        assert!(raw::counted(http, "kv_peers_refused_total", expected.as_str_name()).await > 0, "{expected:?}");
    }
}

#[tokio::test]
async fn what_no_peer_would_say_is_not_believed() {
    let cluster = cluster(3).await;
    let client = client(&cluster).await;
    whole(&cluster, &client).await;
    for key in keys(20) {
        client.put(&key, "unharmed").await.unwrap();
    }
    let map = until("every node's address is on the map", || async {
        let map = raw::topology(&address(&cluster, 1)).await.map.unwrap();
        map.nodes.iter().all(|node| !node.client_address.is_empty()).then_some(map)
    })
    .await;
    let (welcome, outgoing) = greet(&cluster, hello(&cluster).await).await;
    assert!(matches!(welcome, Content::Welcome(_)), "{welcome:?}");
    for row in &map.shards {
        let replica_of = |node| row.replicas.iter().find(|place| place.node == node).unwrap().replica;
        let from_two = |kind: RaftMessageType| RaftMessage {
            message_type: kind.into(),
            to: replica_of(1),
            from: replica_of(2),
            term: 1,
            ..RaftMessage::default()
        };
        let entry =
            |index, term| v1::RaftEntry { index, term, data: vec![0xff; 40].into(), ..v1::RaftEntry::default() };
        let gap = vec![entry(9_000_001, 1), entry(9_000_003, 1)];
        let nonsense = [
            RaftMessage { message_type: 99, ..from_two(RaftMessageType::Append) },
            RaftMessage { to: 12_345, ..from_two(RaftMessageType::Append) },
            RaftMessage { from: 12_345, ..from_two(RaftMessageType::Append) },
            RaftMessage { index: 9_000_000, log_term: 1, entries: gap, ..from_two(RaftMessageType::Append) },
            RaftMessage { commit: u64::MAX, ..from_two(RaftMessageType::Heartbeat) },
            RaftMessage { index: u64::MAX, log_term: u64::MAX, ..from_two(RaftMessageType::AppendResponse) },
            RaftMessage { context: vec![0xff; 64].into(), ..from_two(RaftMessageType::HeartbeatResponse) },
            from_two(RaftMessageType::Snapshot),
            from_two(RaftMessageType::Unspecified),
        ];
        let mut messages: Vec<_> = nonsense.into_iter().map(|raft| said(row.shard, Body::Raft(raft))).collect();
        messages.push(PeerMessage { shard: row.shard, body: None });
        messages.push(said(row.shard, Body::SnapshotChunk(v1::SnapshotChunk { stream: 5, ..Default::default() })));
        messages.push(said(row.shard, Body::SnapshotOffer(v1::SnapshotOffer::default())));
        messages.push(said(row.shard, Body::MapTell(v1::ShardMap { version: u64::MAX, ..Default::default() })));
        messages.push(said(999, Body::ReadProbe(v1::ReadProbe { number: 1 })));
        messages.push(said(0, Body::Founding(vec![0xff; 50].into())));
        let batch = Content::Batch(PeerBatch { messages });
        outgoing.send(Envelope { content: Some(batch) }).await.unwrap();
    }
    // A second greeting ends the connection; bytes that are no message end that of who sends them.
    outgoing.send(Envelope { content: Some(Content::Hello(hello(&cluster).await)) }).await.unwrap();
    let peer = cluster.addresses(1).unwrap().peer.to_string();
    raw::call_with_bytes(&peer, "/kv.v1.Peer/Exchange", &[0xff; 50]).await;
    let http = cluster.addresses(1).unwrap().http.unwrap();
    for (reason, times) in [
        ("it is none that this version knows", map.shards.len()),
        ("it is for another replica", map.shards.len()),
        ("its sender is not the group's replica on that node", map.shards.len()),
        ("an index or a term that no log reaches", map.shards.len()),
        ("its entries are not contiguous", map.shards.len()),
        ("it is about a shard that does not stand here", map.shards.len()),
        ("it is no batch, and those are all that follows a greeting", 1),
    ] {
        until(reason, || async {
            let count = raw::counted(http, "kv_peer_messages_refused_total", reason).await;
            (count >= times as u64).then_some(())
        })
        .await;
    }
    assert!(raw::counted(http, "kv_peers_refused_total", RefusalReason::Protocol.as_str_name()).await > 0);
    for entry in client.get_many(keys(20)).await {
        assert_eq!(entry.unwrap().unwrap().value, "unharmed");
    }
    for key in keys(20) {
        client.put(&key, "written after").await.unwrap();
    }
    whole(&cluster, &client).await;
    assert_eq!(cluster.server(1).unwrap().ending(), None);
    assert_eq!(raw::topology(&address(&cluster, 1)).await.map.unwrap(), map);
}

fn said(shard: u64, body: Body) -> PeerMessage {
    PeerMessage { shard, body: Some(body) }
}
