//! What a data directory says of its node: one small file, written whole and synced before anything follows from it.
//!
//! Record and incarnation are in one file, so that a directory can't lose the one and pass for unfounded with the other.

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    codec::{CodecError, Reader, put_bytes, put_u8, put_u64, put_u128, put_varint},
    founding::FoundingRecord,
    types::{Incarnation, NodeId},
};

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
        if !record.as_ref().is_none_or(named) {
            return Err(CodecError("a founding record that names this node"));
        }
        Ok(Self { node, incarnation, lowest, record })
    }
}

const FORMAT: u8 = 1;
const HASH_BYTES: usize = 8;

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
