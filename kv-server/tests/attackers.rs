//! Clients that hold what they don't use: what the node takes from them, and that whoever is honest is served all the while.
//!
//! *Leaves out*: times and floods, which the program `attack` of kv-tests measures on real processes.
#![allow(clippy::unwrap_used, reason = "a test ends where it can't go on")]

use std::{net::SocketAddr, time::Duration};

use kv_client::Client;
use kv_server::testing::TestCluster;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, tcp::OwnedReadHalf},
    sync::Semaphore,
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

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const PIECE: usize = 16 * 1024;
const MIB: usize = 1024 * 1024;

/// Reads frames until the connection ends, and adds up the window that is granted to all of it.
async fn read_grants(mut read: OwnedReadHalf, window: &Semaphore) -> std::io::Result<()> {
    loop {
        let mut header = [0; 9];
        read.read_exact(&mut header).await?;
        let [high, middle, low, kind, _, stream @ ..] = header;
        let mut payload = vec![0; u32::from_be_bytes([0, high, middle, low]) as usize];
        read.read_exact(&mut payload).await?;
        if kind == WINDOW_UPDATE && stream == [0; 4] {
            window.add_permits(u32::from_be_bytes(payload.try_into().unwrap()) as usize);
        }
    }
}

/// Connects, and says what comes of this list: for each message how long it claims to be, and how much of it comes, each on a stream
/// of its own. HTTP/2's rules are kept: whoever breaks them is closed for that. Ends when it can't send any more.
async fn say(address: SocketAddr, messages: &[(usize, usize)]) {
    let (read, mut write) = TcpStream::connect(address).await.unwrap().into_split();
    let window = Semaphore::new(65_535);
    let sends = async {
        let settings = [frame(SETTINGS, 0, 0, &[]), frame(SETTINGS, 1, 0, &[])].concat();
        write.write_all(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &settings[..]].concat()).await?;
        for (number, (claimed, sent)) in (1..).step_by(2).zip(messages) {
            write.write_all(&frame(HEADERS, 4, number, &headers("/kv.v1.Kv/Put"))).await?;
            write.write_all(&frame(DATA, 0, number, &[&[0], &(*claimed as u32).to_be_bytes()[..]].concat())).await?;
            for _ in 0..sent / PIECE {
                window.acquire_many(PIECE as u32).await.unwrap().forget();
                write.write_all(&frame(DATA, 0, number, &[7; PIECE])).await?;
            }
        }
        std::future::pending::<std::io::Result<()>>().await
    };
    tokio::select! {
        // That it can't send any more is an end, as one by a reset is.
        _sent = sends => {}
        _read = read_grants(read, &window) => {}
    }
}

#[tokio::test]
async fn messages_that_never_end_cost_their_connection() {
    let cluster = cluster().await;
    let client = cluster.client().await.unwrap();
    client.put("witness", "unharmed").await.unwrap();
    // Whole messages first, though they mean nothing, and then such as never end: more than the bound from the third on.
    let messages = [[(2 * MIB, 2 * MIB); 4].as_slice(), &[(4 * MIB, 3 * MIB); 5]].concat();
    let address = cluster.addresses(1).unwrap().client;
    timeout(PATIENCE, say(address, &messages)).await.expect("the connection is ended");
    until(&cluster, "kv_unread_closed_total{what=\"connection\"}", |closed| closed == 1).await;
    until(&cluster, "kv_asking_bytes", |bytes| bytes < 1024 * 1024).await;
    assert_eq!(client.get("witness").await.unwrap().unwrap().value, "unharmed");
}

#[tokio::test]
async fn who_sends_what_no_message_needs_is_read_slowly_and_nobody_else() {
    let cluster = cluster().await;
    let client = cluster.client().await.unwrap();
    let address = cluster.addresses(1).unwrap().client;
    // Refused for its length when it begins: what comes after belongs to no message.
    let stray = vec![(5 * MIB, 5 * MIB); 20];
    let speaker = tokio::spawn(async move { say(address, &stray).await });
    until(&cluster, "kv_connections_slowed_total{port=\"clients\"}", |waits| waits > 0).await;
    client.put("large", vec![7; MIB]).await.unwrap();
    assert_eq!(client.get("large").await.unwrap().unwrap().value.len(), MIB);
    assert!(!speaker.is_finished(), "it is slow, and not closed");
    speaker.abort();
}
