//! Bytes that are no message: the connection that carried them may end, the node and all other connections go on.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

use tonic::Code;

use crate::{
    raw,
    support::{PATIENCE, address, client, cluster, whole},
};

/// What every HTTP/2 connection of a client begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Sends bytes and reads until the other side ends the connection, which it must.
fn send_garbage(address: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // The other side may close while it is sent to, or reset the connection: both are an end.
    let _sent = stream.write_all(bytes);
    let _closed = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        let timed_out = matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
        assert!(!timed_out, "the connection was left open after {:?}", &bytes[..bytes.len().min(32)]);
    }
}

/// An HTTP/2 frame.
fn frame(length: u32, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

fn garbage() -> Vec<Vec<u8>> {
    let mut random = fastrand::Rng::with_seed(1);
    let noise: Vec<u8> = (0..10_000).map(|_| random.u8(..)).collect();
    let after_preface = |bytes: &[u8]| [PREFACE, bytes].concat();
    vec![
        Vec::new(),
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
        vec![0; 1_000],
        noise.clone(),
        PREFACE[..10].to_vec(),
        after_preface(&noise),
        // A frame longer than it is allowed to be, one of no kind, headers that are no headers, data on no stream.
        after_preface(&frame(0x00ff_ffff, 0, 0, 1, &[0; 100])),
        after_preface(&[frame(0, 4, 0, 0, &[]), frame(8, 0xee, 0xff, 1, &[1; 8])].concat()),
        after_preface(&[frame(0, 4, 0, 0, &[]), frame(16, 1, 4, 1, &[0xff; 16])].concat()),
        after_preface(&[frame(0, 4, 0, 0, &[]), frame(4, 0, 1, 77, &[1; 4])].concat()),
        // Settings that can't be.
        after_preface(&frame(6, 4, 0, 0, &[0, 5, 0, 0, 0, 1])),
    ]
}

#[tokio::test]
async fn garbage_on_all_ports() {
    let cluster = cluster(3).await;
    let client = client(&cluster).await;
    whole(&cluster, &client).await;
    client.put("witness", "unharmed").await.unwrap();
    let addresses = cluster.addresses(1).unwrap();
    for port in [addresses.client, addresses.peer, addresses.http.unwrap()] {
        for bytes in garbage() {
            tokio::task::spawn_blocking(move || send_garbage(port, &bytes)).await.unwrap();
        }
    }
    assert_eq!(cluster.server(1).unwrap().ending(), None);
    assert_eq!(client.get("witness").await.unwrap().unwrap().value, "unharmed");
    let mut unary = raw::unary(&address(&cluster, 1)).await;
    unary.put(raw::put("after", "works")).await.unwrap();
    whole(&cluster, &client).await;
}

#[tokio::test]
async fn frames_that_hold_no_message_of_ours() {
    let cluster = cluster(3).await;
    let client = client(&cluster).await;
    whole(&cluster, &client).await;
    client.put("witness", "unharmed").await.unwrap();
    let addresses = cluster.addresses(1).unwrap();
    let (clients, peers) = (addresses.client.to_string(), addresses.peer.to_string());
    let mut random = fastrand::Rng::with_seed(2);
    let noise: Vec<u8> = (0..1_000).map(|_| random.u8(..)).collect();
    // A field of no wire type, a length beyond the end, a varint without end, noise.
    let messages: [&[u8]; 4] =
        [&[0x0f], &[0x0a, 0x7f, 1], &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], &noise];
    for (at, path) in [
        (&clients, "/kv.v1.Kv/Get"),
        (&clients, "/kv.v1.Kv/Put"),
        (&clients, "/kv.v1.Kv/Delete"),
        (&clients, "/kv.v1.Kv/Batch"),
        (&clients, "/kv.v1.Cluster/TransferLeader"),
        (&peers, "/kv.v1.Peer/Exchange"),
    ] {
        for message in messages {
            let status = raw::call_with_bytes(at, path, message).await;
            assert_eq!(status.code(), Code::InvalidArgument, "{path} with {message:?}: {status:?}");
            assert!(!status.message().is_empty(), "{path} with {message:?}: {status:?}");
        }
    }
    // A path that is none, and the services of one port at the other.
    for (at, path) in
        [(&clients, "/kv.v1.Kv/Frobnicate"), (&clients, "/kv.v1.Peer/Exchange"), (&peers, "/kv.v1.Kv/Put")]
    {
        assert_eq!(raw::call_with_bytes(at, path, &[]).await.code(), Code::Unimplemented, "{path}");
    }
    assert_eq!(cluster.server(1).unwrap().ending(), None);
    assert_eq!(client.get("witness").await.unwrap().unwrap().value, "unharmed");
    client.put("after", "works").deadline(Duration::from_secs(30)).await.unwrap();
    whole(&cluster, &client).await;
}
