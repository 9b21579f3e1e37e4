//! HTTP/2 by hand, as rude as one likes: frames of any kind, and headers that need no state.

use crate::kinds::Port;

/// What every HTTP/2 connection of a client begins with.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

/// The flag of settings and pings that answer one.
pub(super) const ACK: u8 = 1;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
/// Length of a frame's header.
pub(super) const HEADER_BYTES: usize = 9;

/// A frame.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(payload.len(), kind, flags, stream).to_vec();
    frame.extend(payload);
    frame
}

/// A frame's header alone, whatever follows it.
pub(super) fn header(length: usize, kind: u8, flags: u8, stream: u32) -> [u8; HEADER_BYTES] {
    let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    let stream = stream.to_be_bytes();
    [length[1], length[2], length[3], kind, flags, stream[0], stream[1], stream[2], stream[3]]
}

/// The preface with settings: the window of each stream, for what the server sends.
pub(super) fn greeting(window_bytes: u32) -> Vec<u8> {
    let window = window_bytes.to_be_bytes();
    let settings = [0, 4, window[0], window[1], window[2], window[3]];
    [PREFACE, &frame(SETTINGS, 0, 0, &settings)].concat()
}

/// The headers of a call of a method that streams, by literals that nobody has to remember.
pub(super) fn call_headers(path: &str) -> Vec<u8> {
    // POST and http by their numbers in the static table.
    let mut block = vec![0x83, 0x86];
    literal(&mut block, b":path", path.as_bytes());
    literal(&mut block, b":authority", b"kv");
    literal(&mut block, b"content-type", b"application/grpc");
    literal(&mut block, b"te", b"trailers");
    block
}

/// A header field that is not indexed. Names and values are shorter than 127 bytes.
pub(super) fn literal(block: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    block.push(0);
    for text in [name, value] {
        block.push(u8::try_from(text.len()).unwrap_or(0) & 0x7f);
        block.extend(text);
    }
}

/// A method that streams and then waits for what the caller has to say.
pub(super) fn streaming(port: Port) -> &'static str {
    if port == Port::Peer { "/kv.v1.Peer/Exchange" } else { "/kv.v1.Kv/Batch" }
}

/// A method that waits for one whole message, if the port has one.
pub(super) fn single(port: Port) -> &'static str {
    if port == Port::Peer { "/kv.v1.Peer/Exchange" } else { "/kv.v1.Kv/Put" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_as_the_standard_has_them() {
        assert_eq!(frame(PING, ACK, 0, &[7; 8]), [0, 0, 8, 6, 1, 0, 0, 0, 0, 7, 7, 7, 7, 7, 7, 7, 7]);
        assert_eq!(header(0x00ff_ffff, DATA, 0, 0x0102), [0xff, 0xff, 0xff, 0, 0, 0, 0, 1, 2]);
        let mut block = Vec::new();
        literal(&mut block, b"te", b"trailers");
        assert_eq!(block, b"\0\x02te\x08trailers");
    }
}
