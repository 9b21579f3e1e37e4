//! Clients that hold what they don't use: what the node takes from them, and that whoever is honest is served all the while.
//!
//! *Leaves out*: times and floods, which the program `attack` of kv-tests measures on real processes.
#![allow(clippy::unwrap_used, reason = "a test ends where it can't go on")]

use std::{net::SocketAddr, time::Duration};

use kv_client::Client;
use kv_server::testing::TestCluster;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

/// Far more than anything takes, even on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);
const CONNECTIONS_MAX: usize = 20;
const UNREAD_BYTES_MAX: usize = 8 * 1024 * 1024;
/// As many as the HTTP port takes.
const HTTP_CONNECTIONS_MAX: usize = 256;

async fn cluster() -> TestCluster {
    let cluster = TestCluster::start_with(1, None, |config| {
        config.shards = 1;
        config.connections_max = CONNECTIONS_MAX;
        config.unread_bytes_max = UNREAD_BYTES_MAX;
    });
    cluster.await.unwrap()
}

async fn get_page(cluster: &TestCluster, path: &str) -> String {
    let mut stream = TcpStream::connect(cluster.addresses(1).unwrap().http.unwrap()).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: kv\r\n\r\n").as_bytes()).await.unwrap();
    let mut page = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut page)).await.expect("it is closed after its answer").unwrap();
    page
}

/// Waits until a line of the metrics says this.
async fn until(cluster: &TestCluster, what: &str, is_so: impl Fn(u64) -> bool) {
    let looks = async {
        loop {
            let metrics = get_page(cluster, "/metrics").await;
            let line = metrics.lines().find_map(|line| line.strip_prefix(what)).unwrap();
            if is_so(line.trim().parse().unwrap()) {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, looks).await.unwrap_or_else(|_| panic!("{what} never came to be right"));
}

async fn silent(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut streams = Vec::new();
    for _ in 0..count {
        streams.push(TcpStream::connect(address).await.unwrap());
    }
    streams
}

#[tokio::test]
async fn who_asks_nothing_makes_room_for_who_does() {
    let cluster = cluster().await;
    let address = cluster.addresses(1).unwrap().client;
    let early = cluster.client().await.unwrap();
    early.put("early", "1").await.unwrap();
    let _silent = silent(address, 2 * CONNECTIONS_MAX).await;
    // One that comes when all places are taken, and one that was there before: both go on.
    let late = Client::builder().endpoints([address.to_string()]).deadline(PATIENCE).connect().await.unwrap();
    late.put("late", "2").await.unwrap();
    assert_eq!(late.get("early").await.unwrap().unwrap().value, "1");
    assert_eq!(early.get("late").await.unwrap().unwrap().value, "2");
    until(&cluster, "kv_connections_left_total{port=\"clients\"}", |left| left > 0).await;
}

#[tokio::test]
async fn nobody_keeps_the_http_port() {
    let cluster = cluster().await;
    let _silent = silent(cluster.addresses(1).unwrap().http.unwrap(), HTTP_CONNECTIONS_MAX + 20).await;
    assert!(get_page(&cluster, "/health").await.contains("alive"));
    until(&cluster, "kv_connections_left_total{port=\"http\"}", |left| left > 0).await;
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A POST over http whose headers are all literal.
fn headers(path: &str) -> Vec<u8> {
    let mut block = vec![0x83, 0x86];
    for (name, value) in
        [(":path", path), (":authority", "kv"), ("content-type", "application/grpc"), ("te", "trailers")]
    {
        block.push(0);
        for text in [name, value] {
            block.push(text.len() as u8);
            block.extend(text.as_bytes());
        }
    }
    block
}

/// Reads a frame, and tells its kind.
async fn next_kind(stream: &mut TcpStream) -> std::io::Result<u8> {
    let mut header = [0; 9];
    stream.read_exact(&mut header).await?;
    let [high, middle, low, kind, ..] = header;
    let mut payload = vec![0; u32::from_be_bytes([0, high, middle, low]) as usize];
    stream.read_exact(&mut payload).await?;
    Ok(kind)
}

#[tokio::test]
async fn messages_that_never_end_cost_their_connection() {
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const SETTINGS: u8 = 4;
    const WINDOW_UPDATE: u8 = 8;
    let cluster = cluster().await;
    let client = cluster.client().await.unwrap();
    client.put("witness", "unharmed").await.unwrap();
    let mut stream = TcpStream::connect(cluster.addresses(1).unwrap().client).await.unwrap();
    let settings = frame(SETTINGS, 0, 0, &[]);
    stream.write_all(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &settings[..]].concat()).await.unwrap();
    // The windows that the server grants count once its settings are acknowledged, and it has said how wide the connection's is: whoever
    // sends more before that has broken HTTP/2's own rules, and is closed for that.
    stream.write_all(&frame(SETTINGS, 1, 0, &[])).await.unwrap();
    while timeout(PATIENCE, next_kind(&mut stream)).await.unwrap().unwrap() != WINDOW_UPDATE {}
    let (mut read, mut write) = stream.into_split();
    let sends = async {
        // 3 MiB of a message of 4 MiB on each stream, which is more than the bound from the third on.
        for stream in [1, 3, 5, 7, 9] {
            write.write_all(&frame(HEADERS, 4, stream, &headers("/kv.v1.Kv/Put"))).await?;
            write.write_all(&frame(DATA, 0, stream, &[0, 0, 0x40, 0, 0])).await?;
            for _ in 0..3 * 64 {
                write.write_all(&frame(DATA, 0, stream, &[7; 16 * 1024])).await?;
            }
        }
        std::future::pending::<std::io::Result<()>>().await
    };
    let ends = async {
        let mut all = Vec::new();
        // An end by a reset is an end too.
        let _end = read.read_to_end(&mut all).await;
    };
    let over = async {
        tokio::select! {
            // That it can't send any more is an end as well.
            _sent = sends => {}
            () = ends => {}
        }
    };
    timeout(PATIENCE, over).await.expect("the connection is ended");
    until(&cluster, "kv_unread_closed_total{what=\"connection\"}", |closed| closed == 1).await;
    until(&cluster, "kv_asking_bytes", |bytes| bytes < 1024 * 1024).await;
    assert_eq!(client.get("witness").await.unwrap().unwrap().value, "unharmed");
}
