//! What a data directory says of its node: one small file, written whole and synced before anything follows from it.
//!
//! Record and incarnation are in one file, so that a directory can't lose the one and pass for unfounded with the other. The
//! file is written beside its place and renamed into it: it is whole or not there.

use std::fmt;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    codec::{CodecError, Reader, put_bytes, put_u8, put_u32, put_u64, put_u128, put_varint},
    disk::{DiskError, FileDisk},
    founding::FoundingRecord,
    types::{Incarnation, NodeId},
};

/// The format of data directories that this version reads and writes. It grows when what is on disk changes.
pub const DATA_FORMAT: u32 = 1;
/// Where the file stands in a data directory.
pub const IDENTITY_PATH: &str = "identity";
/// First bytes of the file.
const MAGIC: u64 = u64::from_le_bytes(*b"kv-data\0");
/// What is still being written.
const UNFINISHED_PATH: &str = "identity.new";

/// Who a data directory belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityFile {
    /// The node.
    pub node: NodeId,
    /// The directory's incarnation.
    pub incarnation: Incarnation,
    /// The incarnation of the lowest member from which alone a record will be taken; `None` until it has asked for that.
    pub lowest: Option<Incarnation>,
    /// What founded the cluster; `None` until then.
    pub record: Option<FoundingRecord>,
}

impl IdentityFile {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        put_u8(&mut out, FORMAT);
        put_varint(&mut out, self.node.0);
        put_u128(&mut out, self.incarnation.0);
        put_u8(&mut out, u8::from(self.lowest.is_some()));
        if let Some(lowest) = self.lowest {
            put_u128(&mut out, lowest.0);
        }
        put_u8(&mut out, u8::from(self.record.is_some()));
        if let Some(record) = &self.record {
            put_bytes(&mut out, &record.encode());
        }
        let hash = xxh3_64(&out);
        put_u64(&mut out, hash);
        out.into()
    }

    /// Reads what [`IdentityFile::encode`] wrote.
    ///
    /// # Errors
    /// If the bytes are damaged or of another format.
    pub fn decode(bytes: &Bytes) -> Result<Self, CodecError> {
        let Some(length) = bytes.len().checked_sub(HASH_BYTES) else { return Err(CodecError("an identity file")) };
        if Reader::new(bytes.slice(length..)).u64()? != xxh3_64(&bytes[..length]) {
            return Err(CodecError("an identity file whose hash is right"));
        }
        let mut reader = Reader::new(bytes.slice(..length));
        if reader.u8()? != FORMAT {
            return Err(CodecError("an identity file of format 1"));
        }
        let node = NodeId(reader.varint()?);
        let incarnation = Incarnation(reader.u128()?);
        let lowest = if reader.bool()? { Some(Incarnation(reader.u128()?)) } else { None };
        let record = if reader.bool()? { Some(FoundingRecord::decode(&reader.bytes()?)?) } else { None };
        reader.finish()?;
        let named = |record: &FoundingRecord| record.member(node).is_some_and(|own| own.incarnation == incarnation);
        if !record.as_ref().is_none_or(named) && !crate::mutant!("B34") {
            return Err(CodecError("a founding record that names this node"));
        }
        Ok(Self { node, incarnation, lowest, record })
    }
}

impl IdentityFile {
    /// Reads the file of this node's data directory; `None` if there is none. What was read is synced, name and all: after a kill
    /// the system may show what the disk does not have, and all that the node says from now on stands on it.
    ///
    /// # Errors
    /// If it can't be used.
    pub fn load(disk: &mut impl FileDisk, node: NodeId) -> Result<Option<Self>, IdentityError> {
        let Some(size) = disk.size(IDENTITY_PATH)? else { return Ok(None) };
        let bytes = disk.read(IDENTITY_PATH, 0, usize::try_from(size).unwrap_or(usize::MAX).min(FILE_BYTES_MAX))?;
        let mut reader = Reader::new(bytes.clone());
        if reader.u64() != Ok(MAGIC) {
            return Err(IdentityError::Damaged);
        }
        // The format comes before the checksum, which another format may do otherwise.
        let format = reader.u32().map_err(|_| IdentityError::Damaged)?;
        if format != DATA_FORMAT {
            return Err(IdentityError::UnknownFormat { format });
        }
        let content = reader.bytes().map_err(|_| IdentityError::Damaged)?;
        let stored = reader.u64().map_err(|_| IdentityError::Damaged)?;
        if stored != xxh3_64(&bytes[..bytes.len() - HASH_BYTES]) || reader.finish().is_err() {
            return Err(IdentityError::Damaged);
        }
        let file = Self::decode(&content).map_err(|_| IdentityError::Damaged)?;
        if file.node != node {
            return Err(IdentityError::OtherNode { owner: file.node });
        }
        disk.sync(IDENTITY_PATH)?;
        disk.sync_directory("")?;
        Ok(Some(file))
    }

    /// Writes and syncs the file in place of the one before.
    ///
    /// # Errors
    /// If it can't; then either of the two may be there, and the process must stop.
    pub fn store(&self, disk: &mut impl FileDisk) -> Result<(), DiskError> {
        let mut bytes = Vec::new();
        put_u64(&mut bytes, MAGIC);
        put_u32(&mut bytes, DATA_FORMAT);
        put_bytes(&mut bytes, &self.encode());
        let hash = xxh3_64(&bytes);
        put_u64(&mut bytes, hash);
        disk.remove(UNFINISHED_PATH)?;
        disk.write(UNFINISHED_PATH, 0, &bytes)?;
        disk.sync(UNFINISHED_PATH)?;
        disk.rename(UNFINISHED_PATH, IDENTITY_PATH)?;
        disk.sync_directory("")
    }
}

/// Why an identity file can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityError {
    /// The disk failed.
    Disk(DiskError),
    /// Its bytes are not those that were written.
    Damaged,
    /// Another version wrote it.
    UnknownFormat {
        /// Its format.
        format: u32,
    },
    /// It is another node's.
    OtherNode {
        /// That node.
        owner: NodeId,
    },
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(error) => error.fmt(f),
            Self::Damaged => f.write_str("the file `identity` is damaged"),
            Self::UnknownFormat { format } => {
                write!(f, "the data format is {format}, and this version knows only format {DATA_FORMAT}")
            }
            Self::OtherNode { owner } => write!(f, "it is the data directory of node {owner}"),
        }
    }
}

impl std::error::Error for IdentityError {}

impl From<DiskError> for IdentityError {
    fn from(error: DiskError) -> Self {
        Self::Disk(error)
    }
}

const FORMAT: u8 = 1;
const HASH_BYTES: usize = 8;
/// Far above what a record of [`super::MEMBERS_MAX`] members with the longest addresses and zones takes.
const FILE_BYTES_MAX: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::founding::record::tests::record;

    #[test]
    fn it_is_read_back_and_damage_is_refused() {
        let record = record(3, 12, 3);
        let incarnation = record.members[1].incarnation;
        let fresh = IdentityFile { node: NodeId(2), incarnation, lowest: None, record: None };
        let bound = IdentityFile { lowest: Some(Incarnation(5)), ..fresh.clone() };
        let founded = IdentityFile { record: Some(record), ..bound.clone() };
        for file in [fresh, bound, founded.clone()] {
            let bytes = file.encode();
            assert_eq!(IdentityFile::decode(&bytes), Ok(file));
            for index in 0..bytes.len() {
                let mut damaged = bytes.to_vec();
                damaged[index] ^= 0x10;
                assert!(IdentityFile::decode(&damaged.into()).is_err());
                assert!(IdentityFile::decode(&bytes.slice(..index)).is_err());
            }
        }
        let wiped = IdentityFile { incarnation: Incarnation(99), ..founded };
        assert!(IdentityFile::decode(&wiped.encode()).is_err());
    }
}
