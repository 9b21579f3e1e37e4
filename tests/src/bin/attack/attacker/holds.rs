//! Connections that are held, and cost their attackers next to nothing.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};

use super::{
    Crowd, floods,
    frames::{ACK, HEADER_BYTES, PING, PREFACE, SETTINGS, frame, greeting},
};

/// The window of held connections.
const WINDOW_BYTES: u32 = 65_535;
/// Pause between two bytes.
const BYTE_PAUSE: Duration = Duration::from_secs(1);
/// Longer frames than this no server may send us.
const FRAME_BYTES_MAX: usize = 16 * 1024;

/// Says nothing, until the server ends it.
pub(super) async fn silent(stream: TcpStream) -> io::Result<()> {
    let (read, _write) = stream.into_split();
    floods::discard(read).await
}

/// Half of the preface, and then nothing.
pub(super) async fn half_open(crowd: &Crowd, mut stream: TcpStream) -> io::Result<()> {
    let half = &PREFACE[..PREFACE.len() / 2];
    stream.write_all(half).await?;
    crowd.sent(half.len());
    silent(stream).await
}

/// A byte a second, again from the first after the last.
pub(super) async fn byte_by_byte(crowd: &Crowd, stream: TcpStream, bytes: &[u8]) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let drip = async {
        for byte in bytes.iter().cycle() {
            write.write_all(&[*byte]).await?;
            crowd.sent(1);
            sleep(BYTE_PAUSE).await;
        }
        Ok(())
    };
    tokio::select! {
        read = floods::discard(read) => read,
        dripped = drip => dripped,
    }
}

/// A whole handshake, these frames, and then only what keeps the connection alive: settings and pings are answered.
pub(super) async fn greeted(crowd: &Crowd, mut stream: TcpStream, frames: &[u8]) -> io::Result<()> {
    let begin = [greeting(WINDOW_BYTES), frames.to_vec()].concat();
    stream.write_all(&begin).await?;
    crowd.sent(begin.len());
    let mut header = [0; HEADER_BYTES];
    let mut payload = vec![0; FRAME_BYTES_MAX];
    loop {
        stream.read_exact(&mut header).await?;
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
        let payload = payload.get_mut(..length).ok_or_else(|| io::Error::other("the frame is too long"))?;
        stream.read_exact(payload).await?;
        let answer = match (header[3], header[4] & ACK) {
            (SETTINGS, 0) => frame(SETTINGS, ACK, 0, &[]),
            (PING, 0) => frame(PING, ACK, 0, payload),
            _ => continue,
        };
        stream.write_all(&answer).await?;
        crowd.sent(answer.len());
    }
}
