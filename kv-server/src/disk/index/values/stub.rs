//! What the engine holds in the place of a long value.
//!
//! | bytes | |
//! |---|---|
//! | 8 | `MAGIC` |
//! | 1 | the number of the slot's length |
//! | 8 | the slot |
//! | 4 | the value's length |
//! | 4 | the value's CRC32 |
//!
//! All little-endian. A value of this length that begins so is taken for a long one, whatever its length: so there is no value that
//! looks like a stub and is none.

use super::{
    super::Problem,
    slots::{LONG_BYTES_MIN, Length},
};

const MAGIC: [u8; 8] = *b"\xf5\x00slot\x00\xf5";
const STUB_BYTES: usize = 25;

/// Where a long value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stub {
    pub(super) length: Length,
    pub(super) slot: u64,
    pub(super) bytes: u32,
    crc: u32,
}

/// Whether a value has a slot of its own.
pub(super) fn is_long(value: &[u8]) -> bool {
    value.len() >= LONG_BYTES_MIN || (value.len() == STUB_BYTES && value.starts_with(&MAGIC))
}

impl Stub {
    /// A value's, in a slot of this length.
    pub(super) fn new(length: Length, slot: u64, value: &[u8]) -> Result<Self, Problem> {
        Ok(Self { length, slot, bytes: u32::try_from(value.len())?, crc: crc32fast::hash(value) })
    }

    pub(super) fn encode(&self) -> [u8; STUB_BYTES] {
        let mut out = [0; STUB_BYTES];
        out[..8].copy_from_slice(&MAGIC);
        out[8] = self.length.number();
        out[9..17].copy_from_slice(&self.slot.to_le_bytes());
        out[17..21].copy_from_slice(&self.bytes.to_le_bytes());
        out[21..].copy_from_slice(&self.crc.to_le_bytes());
        out
    }

    /// The stub that an engine's value is; `None` if it is a value.
    ///
    /// # Errors
    /// If no value can be where it says.
    pub(super) fn decode(value: &[u8]) -> Result<Option<Self>, Problem> {
        let Ok(stub) = <[u8; STUB_BYTES]>::try_from(value) else { return Ok(None) };
        let ([magic @ .., _], rest) = stub.split_first_chunk::<9>().expect("it has 25 bytes");
        if *magic != MAGIC {
            return Ok(None);
        }
        let (slot, rest) = rest.split_first_chunk().expect("8 of 16 bytes");
        let (bytes, crc) = rest.split_first_chunk().expect("4 of 8 bytes");
        let stub = Length::numbered(stub[8]).map(|length| Self {
            length,
            slot: u64::from_le_bytes(*slot),
            bytes: u32::from_le_bytes(*bytes),
            crc: u32::from_le_bytes(crc.try_into().expect("the last 4 bytes")),
        });
        let fits = |stub: &Self| {
            let end = stub.slot.checked_add(1).and_then(|slots| slots.checked_mul(stub.length.bytes()));
            u64::from(stub.bytes) <= stub.length.bytes() && end.is_some_and(|end| i64::try_from(end).is_ok())
        };
        stub.filter(fits).map(Some).ok_or_else(|| Problem::Damaged("a long value is said to be nowhere".to_owned()))
    }

    /// Where in its file the slot begins.
    pub(super) fn offset(&self) -> u64 {
        self.slot * self.length.bytes()
    }

    /// Whether this is its value.
    pub(super) fn is_of(&self, value: &[u8]) -> bool {
        value.len() == self.bytes as usize && crc32fast::hash(value) == self.crc
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stub_is_read_as_it_was_written_and_nothing_else_is_one() {
        let value = [7; 1000];
        let stub = Stub::new(Length::of(1000).unwrap(), 0x0102_0304, &value).unwrap();
        let bytes = stub.encode();
        assert_eq!(Stub::decode(&bytes).unwrap(), Some(stub));
        assert!(stub.is_of(&value) && !stub.is_of(&[8; 1000]) && !stub.is_of(&value[1..]));
        assert!(is_long(&bytes), "it would be taken for one");
        for other in [&bytes[1..], &[&bytes[..], b"x"].concat(), &value[..25], b""] {
            assert_eq!(Stub::decode(other).unwrap(), None);
            assert!(!is_long(other));
        }
        let damaged = |at: usize, byte| {
            let mut damaged = bytes;
            damaged[at] = byte;
            Stub::decode(&damaged)
        };
        assert!(damaged(8, 113).is_err() && damaged(16, 0xff).is_err() && damaged(20, 1).is_err());
    }
}
