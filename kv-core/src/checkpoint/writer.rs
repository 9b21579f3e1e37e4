//! Writing one checkpoint file: under a temporary name, taking its own only when it is whole, synced and read back.

use xxhash_rust::xxh3::Xxh3;

use crate::{
    checkpoint::{
        format::{BLOCK_BYTES, FileFooter, HEAD_BYTES, Kind, encode_end, encode_head, put_block, put_record},
        job::FileDescription,
    },
    disk::{DiskError, FileDisk},
    state::record::Footer,
    types::{Digest, LogIndex},
};

/// What the name of a file that is not yet whole ends with.
pub(super) const UNFINISHED: &str = ".new";

/// A file being written.
pub(super) struct FileWriter {
    directory: String,
    name: String,
    stands_on: Option<(LogIndex, Digest)>,
    offset: u64,
    hasher: Xxh3,
    block: Vec<u8>,
    ready: Vec<u8>,
    records: u64,
}

impl FileWriter {
    pub(super) fn new(directory: String, index: LogIndex, stands_on: Option<(LogIndex, Digest)>) -> Self {
        let kind = if stands_on.is_some() { Kind::Delta } else { Kind::Base };
        let name = file_name(kind, index);
        let ready = encode_head(kind).to_vec();
        let hasher = Xxh3::new();
        Self { directory, name, stands_on, offset: 0, hasher, block: Vec::new(), ready, records: 0 }
    }

    pub(super) fn directory(&self) -> &str {
        &self.directory
    }

    pub(super) fn path(&self) -> String {
        format!("{}/{}", self.directory, self.name)
    }

    pub(super) fn unfinished_path(&self) -> String {
        format!("{}/{}{UNFINISHED}", self.directory, self.name)
    }

    /// Takes the next record, its key above the last.
    pub(super) fn push(&mut self, key: &[u8], value: Option<&[u8]>) {
        put_record(&mut self.block, key, value);
        self.records += 1;
        if self.block.len() >= BLOCK_BYTES {
            self.close_block();
        }
    }

    fn close_block(&mut self) {
        if !self.block.is_empty() {
            let offset = self.offset + self.ready.len() as u64;
            put_block(&mut self.ready, offset, &self.block);
            self.block.clear();
        }
    }

    /// Writes the blocks that are full.
    pub(super) fn flush<F: FileDisk>(&mut self, files: &mut F) -> Result<(), DiskError> {
        if self.ready.is_empty() {
            return Ok(());
        }
        let path = self.unfinished_path();
        if self.offset == 0 {
            // What an earlier attempt left would show beyond a shorter file's end.
            files.remove(&path)?;
        }
        files.write(&path, self.offset, &self.ready)?;
        self.hasher.update(&self.ready);
        self.offset += self.ready.len() as u64;
        self.ready.clear();
        Ok(())
    }

    /// Writes all that is left, the footer and the tail. Nothing is synced.
    pub(super) fn finish<F: FileDisk>(&mut self, files: &mut F, footer: Footer) -> Result<FileDescription, DiskError> {
        self.close_block();
        let offset = self.offset + self.ready.len() as u64;
        assert!(offset >= HEAD_BYTES as u64, "the head was written first");
        let footer = FileFooter { footer, stands_on: self.stands_on, records: self.records };
        self.ready.extend_from_slice(&encode_end(offset, &footer));
        self.flush(files)?;
        let hash = self.hasher.digest128();
        files.write(&self.unfinished_path(), self.offset, &hash.to_le_bytes())?;
        self.offset += 16;
        Ok(FileDescription { name: self.name.clone(), bytes: self.offset, hash })
    }
}

/// The name of a whole file.
pub(super) fn file_name(kind: Kind, index: LogIndex) -> String {
    match kind {
        Kind::Base => format!("base-{index}"),
        Kind::Delta => format!("delta-{index}"),
    }
}

/// What a name says, if it is a whole file's.
pub(super) fn parse_file_name(name: &str) -> Option<(Kind, LogIndex)> {
    let (kind, number) = name.split_once('-')?;
    let kind = match kind {
        "base" => Kind::Base,
        "delta" => Kind::Delta,
        _ => return None,
    };
    let index = LogIndex(number.parse().ok()?);
    (file_name(kind, index) == name).then_some((kind, index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_form() {
        assert_eq!(parse_file_name("base-7"), Some((Kind::Base, LogIndex(7))));
        assert_eq!(parse_file_name("delta-120"), Some((Kind::Delta, LogIndex(120))));
        for name in ["base-07", "base-", "base", "delta-7.new", "gamma-7", "base-+7", "base-99999999999999999999"] {
            assert_eq!(parse_file_name(name), None, "{name}");
        }
    }
}
