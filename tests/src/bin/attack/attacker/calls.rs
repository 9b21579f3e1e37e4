//! Calls that a server has to hold something for: messages too large, never finished, streams left open, answers never read.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};

use super::{
    Crowd, floods,
    frames::{
        ACK, DATA, END_HEADERS, END_STREAM, HEADER_BYTES, HEADERS, SETTINGS, WINDOW_UPDATE, call_headers, frame,
        greeting, header, single, streaming,
    },
};
use crate::{honest::LARGE_KEY, kinds::Port};

const MIB: usize = 1024 * 1024;
/// As many streams as the server grants a connection.
const STREAMS: u32 = 256;
/// Length of the frames in which messages are sent: what any server takes.
const FRAME_BYTES: usize = 16 * 1024;
/// A window that never closes for what a server sends.
const WINDOW_BYTES: u32 = 1 << 30;
/// How many answers that are not read are asked for on a connection.
const UNREAD_ASKED: u32 = 200;

/// The numbers of a client's streams.
fn streams(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|number| 2 * number + 1)
}

/// What comes before a message of this length.
fn prefix(length: u32) -> [u8; 5] {
    let length = length.to_be_bytes();
    [0, length[0], length[1], length[2], length[3]]
}

/// A call whose message never comes, for who sends it byte by byte.
pub(super) fn slow_call(port: Port) -> Vec<u8> {
    let headers = frame(HEADERS, END_HEADERS, 1, &call_headers(streaming(port)));
    [greeting(WINDOW_BYTES), headers, frame(DATA, 0, 1, &prefix(1_000))].concat()
}

/// As many calls as there may be, of which none has said anything yet.
pub(super) fn open_streams(port: Port) -> Vec<u8> {
    let block = call_headers(streaming(port));
    streams(STREAMS).flat_map(|stream| frame(HEADERS, END_HEADERS, stream, &block)).collect()
}

/// The longest message that a port takes.
fn message_bytes_max(port: Port) -> usize {
    if port == Port::Peer { 8 * MIB } else { 4 * MIB }
}

/// A handshake as it should be: the windows that a server grants count once its settings, the first that it says, are acknowledged.
async fn greet(mut stream: TcpStream) -> io::Result<TcpStream> {
    stream.write_all(&greeting(WINDOW_BYTES)).await?;
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header).await?;
    stream.write_all(&frame(SETTINGS, ACK, 0, &[])).await?;
    Ok(stream)
}

/// On every stream the longest message that is allowed, all but its last byte. The server's windows are not looked at: it gives room back
/// as it reads, and what it does not take waits here.
pub(super) async fn unfinished(crowd: &Crowd, stream: TcpStream) -> io::Result<()> {
    let (read, mut write) = greet(stream).await?.into_split();
    let length = message_bytes_max(crowd.port) - 1024;
    let send = async {
        for stream in streams(STREAMS) {
            write.write_all(&frame(HEADERS, END_HEADERS, stream, &call_headers(single(crowd.port)))).await?;
            write.write_all(&frame(DATA, 0, stream, &prefix(length as u32))).await?;
            let mut left = length - 1;
            while left > 0 {
                let piece = left.min(FRAME_BYTES);
                write.write_all(&header(piece, DATA, 0, stream)).await?;
                write.write_all(&vec![7; piece]).await?;
                crowd.sent(piece);
                left -= piece;
                // At about what a fast line brings, so that the server has time to give room back: 16 KiB every 100 us at most.
                tokio::task::yield_now().await;
            }
            sleep(Duration::from_millis(5)).await;
        }
        std::future::pending::<io::Result<()>>().await
    };
    tokio::select! {
        read = floods::discard(read) => read,
        sent = send => sent,
    }
}

/// Messages over the limit, and such as claim 4 GiB, on one stream after the other.
pub(super) async fn big_messages(crowd: &Crowd, stream: TcpStream, number: usize) -> io::Result<()> {
    let (read, mut write) = greet(stream).await?.into_split();
    let send = async {
        for stream in streams(100_000) {
            let claimed =
                if number.is_multiple_of(2) { u32::MAX as usize } else { message_bytes_max(crowd.port) + MIB };
            write.write_all(&frame(HEADERS, END_HEADERS, stream, &call_headers(single(crowd.port)))).await?;
            write.write_all(&frame(DATA, 0, stream, &prefix(claimed as u32))).await?;
            for _ in 0..8 {
                write.write_all(&frame(DATA, 0, stream, &[7; FRAME_BYTES])).await?;
                crowd.sent(FRAME_BYTES);
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    };
    tokio::select! {
        read = floods::discard(read) => read,
        sent = send => sent,
    }
}

/// Asks for large answers with all the window in the world, and reads none of them.
pub(super) async fn never_reads(crowd: &Crowd, stream: TcpStream) -> io::Result<()> {
    let mut get = vec![0x0a, u8::try_from(LARGE_KEY.len()).unwrap_or(0)];
    get.extend(LARGE_KEY.as_bytes());
    let message = [&prefix(get.len() as u32)[..], &get].concat();
    let mut bytes = greeting(WINDOW_BYTES);
    bytes.extend(frame(WINDOW_UPDATE, 0, 0, &WINDOW_BYTES.to_be_bytes()));
    for stream in streams(UNREAD_ASKED) {
        bytes.extend(frame(HEADERS, END_HEADERS, stream, &call_headers("/kv.v1.Kv/Get")));
        bytes.extend(frame(DATA, END_STREAM, stream, &message));
    }
    let (read, mut write) = stream.into_split();
    write.write_all(&bytes).await?;
    crowd.sent(bytes.len());
    // That the connection is over shows when nothing can be sent any more: an empty settings frame now and then.
    loop {
        sleep(Duration::from_secs(1)).await;
        write.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
        if read.is_closed_by_peer()? {
            return Ok(());
        }
    }
}

/// Whether the other side has ended a connection, without reading from it.
trait Ended {
    fn is_closed_by_peer(&self) -> io::Result<bool>;
}

impl Ended for tokio::net::tcp::OwnedReadHalf {
    fn is_closed_by_peer(&self) -> io::Result<bool> {
        Ok(self.as_ref().take_error()?.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_as_they_should_be() {
        assert_eq!(prefix(u32::MAX), [0, 255, 255, 255, 255]);
        assert_eq!(streams(3).collect::<Vec<_>>(), [1, 3, 5]);
        assert!(open_streams(Port::Client).len() < 64 * 1024, "it fits the buffers of a connection");
    }
}
