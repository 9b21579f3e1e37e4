//! Reading one checkpoint file: record by record, and proving it whole at its end.
//!
//! A record that is handed out passed its block's CRC; that nothing is lacking or exchanged is known only at the end, when
//! the hash of the whole file and the count of records are right. Whatever the bytes are, nothing here panics.

use bytes::{Bytes, BytesMut};
use xxhash_rust::xxh3::Xxh3;

use crate::{
    checkpoint::{
        format::{
            BLOCK_HEAD_BYTES, FileFooter, HASH_BYTES, HEAD_BYTES, Kind, TAIL_BYTES, check_head, checksum,
            decode_file_footer, decode_tail, read_block_head, read_record,
        },
        job::FileDescription,
    },
    codec::{CodecError, Reader},
    disk::{DiskError, FileDisk},
};

/// A file can't be read or does not hold what it should: what and where, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Damaged(pub(super) String);

/// Bytes read at a time.
const READ_BYTES: usize = 256 * 1024;
/// Most bytes of a footer: 4,096 terms take up to 80 KiB, and configurations little. A larger one is refused.
const FOOTER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What a file's end says; the rest was not looked at.
#[derive(Clone, Debug)]
pub(super) struct FileEnd {
    pub(super) description: FileDescription,
    pub(super) footer: FileFooter,
    footer_offset: u64,
}

/// Reads the end of a file.
pub(super) fn read_end<F: FileDisk>(files: &mut F, directory: &str, name: &str) -> Result<FileEnd, Damaged> {
    let path = format!("{directory}/{name}");
    let damaged = |what: CodecError| Damaged(format!("{path}: {what}"));
    let size = files.size(&path).map_err(|error| unreadable(&path, &error))?;
    let size = size.ok_or_else(|| Damaged(format!("{path} is missing")))?;
    let Some(tail_offset) = size.checked_sub(TAIL_BYTES as u64) else {
        return Err(damaged(CodecError("a tail")));
    };
    let tail = read_exactly(files, &path, tail_offset, TAIL_BYTES)?;
    let tail = decode_tail(tail, size).map_err(damaged)?;
    if tail.footer_bytes > FOOTER_BYTES_MAX {
        return Err(damaged(CodecError("a footer of at most 16 MiB")));
    }
    let footer = read_exactly(files, &path, tail.footer_offset, tail.footer_bytes)?;
    if checksum(tail.footer_offset, &footer) != tail.footer_crc {
        return Err(damaged(CodecError("the checksum of the footer")));
    }
    let footer = decode_file_footer(footer).map_err(damaged)?;
    let description = FileDescription { name: name.to_owned(), bytes: size, hash: tail.hash };
    Ok(FileEnd { description, footer, footer_offset: tail.footer_offset })
}

/// A file being read from its start to its end.
pub(super) struct FileReader {
    path: String,
    end: FileEnd,
    /// Where the next bytes are to be read.
    offset: u64,
    hasher: Xxh3,
    buffer: Bytes,
    block: Reader,
    head: Option<(Bytes, Option<Bytes>)>,
    records: u64,
    proven: bool,
}

impl FileReader {
    /// Reads the end and the first record.
    pub(super) fn open<F: FileDisk>(files: &mut F, directory: &str, name: &str) -> Result<Self, Damaged> {
        let end = read_end(files, directory, name)?;
        let mut reader = Self {
            path: format!("{directory}/{name}"),
            end,
            offset: 0,
            hasher: Xxh3::new(),
            buffer: Bytes::new(),
            block: Reader::new(Bytes::new()),
            head: None,
            records: 0,
            proven: false,
        };
        let head = reader.take(files, HEAD_BYTES)?;
        let kind = reader.end.footer.kind();
        check_head(&head, kind).map_err(|what| reader.damaged(what))?;
        reader.advance(files)?;
        Ok(reader)
    }

    pub(super) fn end(&self) -> &FileEnd {
        &self.end
    }

    /// The record that is next; `None` at the end, which is then proven.
    pub(super) fn head(&self) -> Option<&(Bytes, Option<Bytes>)> {
        self.head.as_ref()
    }

    /// Hands out the record that is next and reads the one after it.
    pub(super) fn advance<F: FileDisk>(&mut self, files: &mut F) -> Result<Option<(Bytes, Option<Bytes>)>, Damaged> {
        if self.proven {
            return Ok(None);
        }
        if self.block.remaining() == 0 {
            if self.at() == self.end.footer_offset {
                self.prove(files)?;
                return Ok(self.head.take());
            }
            self.next_block(files)?;
        }
        let record = read_record(&mut self.block).map_err(|what| self.damaged(what))?;
        self.records += 1;
        if self.head.as_ref().is_some_and(|(last, _)| *last >= record.0) {
            return Err(self.damaged(CodecError("keys that rise")));
        }
        if record.1.is_none() && self.end.footer.kind() == Kind::Base {
            return Err(self.damaged(CodecError("a base without tombstones")));
        }
        Ok(self.head.replace(record))
    }

    fn next_block<F: FileDisk>(&mut self, files: &mut F) -> Result<(), Damaged> {
        let at = self.at();
        if at > self.end.footer_offset {
            return Err(self.damaged(CodecError("blocks that end at the footer")));
        }
        let head = self.take(files, BLOCK_HEAD_BYTES)?;
        let (length, crc) = read_block_head(&mut Reader::new(head)).map_err(|what| self.damaged(what))?;
        let payload = self.take(files, length)?;
        if checksum(at, &payload) != crc {
            return Err(self.damaged(CodecError("the checksum of a block")));
        }
        self.block = Reader::new(payload);
        Ok(())
    }

    /// At the footer: the rest, the hash of all, and the count.
    fn prove<F: FileDisk>(&mut self, files: &mut F) -> Result<(), Damaged> {
        let rest = self.end.description.bytes - HASH_BYTES as u64 - self.at();
        let rest = usize::try_from(rest).map_err(|_| self.damaged(CodecError("a footer")))?;
        self.take(files, rest)?;
        if self.hasher.digest128() != self.end.description.hash {
            return Err(self.damaged(CodecError("the hash of the file")));
        }
        if self.records != self.end.footer.records {
            return Err(self.damaged(CodecError("the number of records")));
        }
        self.proven = true;
        Ok(())
    }

    /// The offset of the first byte not yet taken.
    fn at(&self) -> u64 {
        self.offset - self.buffer.len() as u64
    }

    /// Takes the next bytes of the file into the hash.
    fn take<F: FileDisk>(&mut self, files: &mut F, count: usize) -> Result<Bytes, Damaged> {
        if self.buffer.len() < count {
            let more = (count - self.buffer.len()).max(READ_BYTES);
            let left = self.end.description.bytes.saturating_sub(self.offset);
            let more = more.min(usize::try_from(left).unwrap_or(usize::MAX));
            if self.buffer.len() + more < count {
                return Err(self.damaged(CodecError("more bytes")));
            }
            let read = read_exactly(files, &self.path, self.offset, more)?;
            self.offset += more as u64;
            self.buffer = if self.buffer.is_empty() {
                read
            } else {
                let mut joined = BytesMut::with_capacity(self.buffer.len() + more);
                joined.extend_from_slice(&self.buffer);
                joined.extend_from_slice(&read);
                joined.freeze()
            };
        }
        let taken = self.buffer.split_to(count);
        self.hasher.update(&taken);
        Ok(taken)
    }

    fn damaged(&self, what: CodecError) -> Damaged {
        Damaged(format!("{} near byte {}: {what}", self.path, self.at()))
    }
}

fn read_exactly<F: FileDisk>(files: &mut F, path: &str, offset: u64, count: usize) -> Result<Bytes, Damaged> {
    let bytes = files.read(path, offset, count).map_err(|error| unreadable(path, &error))?;
    if bytes.len() == count { Ok(bytes) } else { Err(Damaged(format!("{path} is shorter than it was"))) }
}

fn unreadable(path: &str, error: &DiskError) -> Damaged {
    Damaged(format!("{path}: {error}"))
}
