//! Attacks on the HTTP port.

use std::io;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::Crowd;

/// How a request begins whose headers never end.
pub(super) const HEADERS_BEGIN: &[u8] = b"GET /metrics HTTP/1.1\r\nhost: kv\r\n";

/// Some of its headers.
pub(super) fn headers() -> Vec<u8> {
    format!("x-header: {}\r\n", "v".repeat(100)).into_bytes()
}

/// A request that is not over after an hour, at a byte a second.
pub(super) fn slow_request() -> Vec<u8> {
    [HEADERS_BEGIN, &headers().repeat(36)].concat()
}

/// Asks for the metrics again and again, on one connection as long as it lasts.
pub(super) async fn scrapes(crowd: &Crowd, mut stream: TcpStream) -> io::Result<()> {
    let request = b"GET /metrics HTTP/1.1\r\nhost: kv\r\n\r\n";
    let mut buffer = vec![0; 256 * 1024];
    loop {
        stream.write_all(request).await?;
        crowd.sent(request.len());
        // What comes is the answer, or a part of it: the next question does not wait for the rest.
        if stream.read(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}
