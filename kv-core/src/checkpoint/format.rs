//! The bytes of a checkpoint file: a head, blocks of records, a footer, and a tail that finds and proves the rest.
//!
//! | part | bytes |
//! |---|---|
//! | head | `kvckpt`, format (1), kind: `b` base, `d` delta |
//! | block, many | payload length (4), CRC32 of the payload seeded with its offset (4), payload |
//! | footer | state header and digest; what it stands on: 0, or 1 with index (varint) and digest (16); count of records (varint) |
//! | tail, 32 bytes | offset of the footer (8), its length (4), its CRC32 seeded with its offset (4), xxh3-128 of all before (16) |
//!
//! A payload is records in ascending order of keys: key (length before it), 0 for a tombstone or 1 and the value (length
//! before it). A base has no tombstones. A delta stands on the state that its predecessor ends with, named by index and
//! digest, so that a base made of the same state can take the predecessor's place.

use bytes::Bytes;
use crc32fast::Hasher;

use crate::{
    codec::{CodecError, Reader, put_bytes, put_u8, put_u32, put_u64, put_u128, put_varint},
    state::{
        codec::{decode_footer, encode_footer},
        record::{Footer, SPACE_ENTRIES, SPACE_NODES, SPACE_SESSIONS},
    },
    types::{Digest, LogIndex},
};

const FORMAT: u8 = 1;
const MAGIC: &[u8] = b"kvckpt";

/// Bytes before the first block.
pub(super) const HEAD_BYTES: usize = 8;
/// Bytes before a block's payload.
pub(super) const BLOCK_HEAD_BYTES: usize = 8;
/// Bytes after the footer.
pub(super) const TAIL_BYTES: usize = 32;
/// Bytes of the tail that its hash does not cover: the hash itself.
pub(super) const HASH_BYTES: usize = 16;
/// A block takes records until it has this many bytes.
pub(super) const BLOCK_BYTES: usize = 64 * 1024;
/// Most bytes of a block, since a record comes in one piece: the largest is a session of about 4.2 MiB. A larger block is
/// refused.
pub(super) const BLOCK_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Changes since another file.
    Delta,
    /// A whole state.
    Base,
}

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Self::Base => b'b',
            Self::Delta => b'd',
        }
    }
}

/// What a file says at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileFooter {
    /// The state that one has with this file.
    pub(super) footer: Footer,
    /// The state that a delta changes; `None` for a base.
    pub(super) stands_on: Option<(LogIndex, Digest)>,
    /// Number of records.
    pub(super) records: u64,
}

impl FileFooter {
    pub(super) fn kind(&self) -> Kind {
        if self.stands_on.is_some() { Kind::Delta } else { Kind::Base }
    }

    pub(super) fn index(&self) -> LogIndex {
        self.footer.header.index
    }
}

pub(super) fn encode_head(kind: Kind) -> [u8; HEAD_BYTES] {
    let mut out = [0; HEAD_BYTES];
    out[..6].copy_from_slice(MAGIC);
    out[6] = FORMAT;
    out[7] = kind.byte();
    out
}

pub(super) fn check_head(bytes: &[u8], kind: Kind) -> Result<(), CodecError> {
    if bytes == encode_head(kind) { Ok(()) } else { Err(CodecError("the head of a checkpoint file")) }
}

pub(super) fn put_record(out: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>) {
    put_bytes(out, key);
    put_u8(out, u8::from(value.is_some()));
    if let Some(value) = value {
        put_bytes(out, value);
    }
}

pub(super) fn read_record(reader: &mut Reader) -> Result<(Bytes, Option<Bytes>), CodecError> {
    let key = reader.bytes()?;
    if !matches!(key.first(), Some(&(SPACE_ENTRIES | SPACE_NODES | SPACE_SESSIONS))) {
        return Err(CodecError("a key of a known space"));
    }
    let value = if reader.bool()? { Some(reader.bytes()?) } else { None };
    Ok((key, value))
}

/// Appends a block that begins at this offset of the file.
pub(super) fn put_block(out: &mut Vec<u8>, offset: u64, payload: &[u8]) {
    put_u32(out, u32::try_from(payload.len()).expect("a block has at most 8 MiB"));
    put_u32(out, checksum(offset, payload));
    out.extend_from_slice(payload);
}

/// The payload's length and CRC.
pub(super) fn read_block_head(reader: &mut Reader) -> Result<(usize, u32), CodecError> {
    let length = reader.u32()? as usize;
    if length == 0 || length > BLOCK_BYTES_MAX {
        return Err(CodecError("a block of 1 byte to 8 MiB"));
    }
    Ok((length, reader.u32()?))
}

pub(super) fn checksum(offset: u64, payload: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&offset.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

/// Footer and tail but for the hash, which the caller appends.
pub(super) fn encode_end(offset: u64, footer: &FileFooter) -> Vec<u8> {
    let mut out = Vec::new();
    encode_footer(&footer.footer, &mut out);
    put_u8(&mut out, u8::from(footer.stands_on.is_some()));
    if let Some((index, digest)) = footer.stands_on {
        put_varint(&mut out, index.0);
        put_u128(&mut out, digest.0);
    }
    put_varint(&mut out, footer.records);
    let (length, crc) = (out.len(), checksum(offset, &out));
    put_u64(&mut out, offset);
    put_u32(&mut out, u32::try_from(length).expect("a footer has some 100 KiB"));
    put_u32(&mut out, crc);
    out
}

/// What a tail says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tail {
    pub(super) footer_offset: u64,
    pub(super) footer_bytes: usize,
    pub(super) footer_crc: u32,
    pub(super) hash: u128,
}

/// Reads the tail of a file of this size, checking that the parts fill it exactly.
pub(super) fn decode_tail(bytes: Bytes, file_bytes: u64) -> Result<Tail, CodecError> {
    let mut reader = Reader::new(bytes);
    let footer_offset = reader.u64()?;
    let footer_bytes = reader.u32()?;
    let tail =
        Tail { footer_offset, footer_bytes: footer_bytes as usize, footer_crc: reader.u32()?, hash: reader.u128()? };
    reader.finish()?;
    let end = footer_offset.checked_add(u64::from(footer_bytes) + TAIL_BYTES as u64);
    if footer_offset < HEAD_BYTES as u64 || end != Some(file_bytes) {
        return Err(CodecError("a tail that fits the file"));
    }
    Ok(tail)
}

pub(super) fn decode_file_footer(bytes: Bytes) -> Result<FileFooter, CodecError> {
    let mut reader = Reader::new(bytes);
    let footer = decode_footer(&mut reader)?;
    let stands_on = if reader.bool()? { Some((LogIndex(reader.varint()?), Digest(reader.u128()?))) } else { None };
    let records = reader.varint()?;
    reader.finish()?;
    if stands_on.is_some_and(|(index, _)| index >= footer.header.index) {
        return Err(CodecError("a delta above what it stands on"));
    }
    Ok(FileFooter { footer, stands_on, records })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::record::StateHeader;

    #[test]
    fn the_bytes_of_each_part() {
        assert_eq!(&encode_head(Kind::Base), b"kvckpt\x01b");
        let mut block = Vec::new();
        put_record(&mut block, b"ka", Some(b"xy"));
        put_record(&mut block, b"kb", None);
        assert_eq!(block, b"\x02ka\x01\x02xy\x02kb\x00");
        let mut out = Vec::new();
        put_block(&mut out, 8, &block);
        assert_eq!(&out[..8], [11, 0, 0, 0, 0x81, 0xfe, 0x1c, 0x18]);
        let mut reader = Reader::new(block.into());
        assert_eq!(read_record(&mut reader).unwrap(), (Bytes::from("ka"), Some(Bytes::from("xy"))));
        assert_eq!(read_record(&mut reader).unwrap(), (Bytes::from("kb"), None));
    }

    #[test]
    fn an_end_is_found_and_read_again() {
        let header = StateHeader { index: LogIndex(5), ..StateHeader::default() };
        let footer = FileFooter {
            footer: Footer { header, digest: Digest(7) },
            stands_on: Some((LogIndex(4), Digest(6))),
            records: 3,
        };
        let mut end = encode_end(100, &footer);
        put_u128(&mut end, 99);
        let split = end.len() - TAIL_BYTES;
        let end = Bytes::from(end);
        let size = 100 + end.len() as u64;
        let tail = decode_tail(end.slice(split..), size).unwrap();
        assert_eq!((tail.footer_offset, tail.footer_bytes, tail.hash), (100, split, 99));
        assert_eq!(tail.footer_crc, checksum(100, &end[..split]));
        assert_eq!(decode_file_footer(end.slice(..split)), Ok(footer.clone()));
        assert!(decode_tail(end.slice(split..), size + 1).is_err());
        let itself = FileFooter { stands_on: Some((LogIndex(5), Digest(7))), ..footer };
        let end = Bytes::from(encode_end(100, &itself));
        assert!(decode_file_footer(end.slice(..end.len() - 16)).is_err(), "a file can't stand on itself");
    }
}
