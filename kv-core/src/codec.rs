//! The hand-written byte codec of everything that is stored: little-endian numbers, and lengths before bytes.
//!
//! Encoding appends to a `Vec<u8>`. Decoding is by [`Reader`], which never panics and never allocates more than the input
//! holds: a length is checked against what is left before anything is taken. Formats built on it begin with a version byte.

use std::fmt;

use bytes::{Buf, Bytes};

/// Bytes that don't decode: what was expected where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodecError(pub &'static str);

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bytes do not decode: {}", self.0)
    }
}

impl std::error::Error for CodecError {}

/// Appends one byte.
pub fn put_u8(out: &mut Vec<u8>, value: u8) {
    out.push(value);
}

/// Appends 4 bytes, little-endian.
pub fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends 8 bytes, little-endian.
pub fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends 16 bytes, little-endian.
pub fn put_u128(out: &mut Vec<u8>, value: u128) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a number in 1 to 10 bytes, 7 bits each, lowest first (LEB128).
pub fn put_varint(out: &mut impl Extend<u8>, mut value: u64) {
    while value >= 0x80 {
        out.extend([value as u8 | 0x80]);
        value >>= 7;
    }
    out.extend([value as u8]);
}

/// Appends a varint length and the bytes.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads what the `put_*` functions wrote, slicing (not copying) byte strings from the input.
#[derive(Clone, Debug)]
pub struct Reader {
    bytes: Bytes,
    /// How many of them are read.
    read: usize,
}

impl Reader {
    /// A reader at the start of these bytes.
    #[must_use]
    pub fn new(bytes: Bytes) -> Self {
        Self { bytes, read: 0 }
    }

    /// Number of bytes not yet read.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.read
    }

    /// Takes exactly `count` bytes.
    ///
    /// # Errors
    /// If fewer are left.
    pub fn take(&mut self, count: usize) -> Result<Bytes, CodecError> {
        if count > self.remaining() {
            return Err(CodecError("more bytes"));
        }
        let from = self.read;
        self.read += count;
        Ok(self.bytes.slice(from..self.read))
    }

    /// Takes all that is left, without making what is read already a part that has to be counted.
    #[must_use]
    pub fn rest(mut self) -> Bytes {
        self.bytes.advance(self.read);
        self.bytes
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let bytes = *self.bytes[self.read..].first_chunk::<N>().ok_or(CodecError("more bytes"))?;
        self.read += N;
        Ok(bytes)
    }

    /// Reads one byte.
    ///
    /// # Errors
    /// If none is left.
    pub fn u8(&mut self) -> Result<u8, CodecError> {
        Ok(self.array::<1>()?[0])
    }

    /// Reads a byte that is 0 or 1.
    ///
    /// # Errors
    /// If none is left, or it is another.
    pub fn bool(&mut self) -> Result<bool, CodecError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(CodecError("0 or 1")),
        }
    }

    /// Reads 4 bytes, little-endian.
    ///
    /// # Errors
    /// If fewer are left.
    pub fn u32(&mut self) -> Result<u32, CodecError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Reads 8 bytes, little-endian.
    ///
    /// # Errors
    /// If fewer are left.
    pub fn u64(&mut self) -> Result<u64, CodecError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Reads 16 bytes, little-endian.
    ///
    /// # Errors
    /// If fewer are left.
    pub fn u128(&mut self) -> Result<u128, CodecError> {
        Ok(u128::from_le_bytes(self.array()?))
    }

    /// Reads a varint. Only the shortest form is taken, so that every value has one encoding.
    ///
    /// # Errors
    /// If it is cut short, over 64 bits, or not the shortest form.
    pub fn varint(&mut self) -> Result<u64, CodecError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(CodecError("a varint of at most 64 bits"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(CodecError("the shortest varint"));
                }
                return Ok(value);
            }
        }
        Err(CodecError("a varint of at most 10 bytes"))
    }

    /// Reads a varint length and that many bytes.
    ///
    /// # Errors
    /// If the length is damaged or more than is left.
    pub fn bytes(&mut self) -> Result<Bytes, CodecError> {
        let count = self.varint()?;
        let count = usize::try_from(count).map_err(|_| CodecError("a length that fits"))?;
        self.take(count)
    }

    /// Reads a varint count of items of at least `item_bytes_min` bytes each, so that the count can be trusted for allocation.
    ///
    /// # Errors
    /// If it is damaged or claims more items than the rest can hold.
    pub fn count(&mut self, item_bytes_min: usize) -> Result<usize, CodecError> {
        let count = self.varint()?;
        let most = self.remaining() / item_bytes_min.max(1);
        match usize::try_from(count) {
            Ok(count) if count <= most => Ok(count),
            _ => Err(CodecError("a count that the rest can hold")),
        }
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// If bytes are left over.
    pub fn finish(self) -> Result<(), CodecError> {
        if self.remaining() == 0 { Ok(()) } else { Err(CodecError("the end")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(a: u8, b: u32, c: u64, d: u128, e: u64, f: Vec<u8>) {
            let mut out = Vec::new();
            put_u8(&mut out, a);
            put_u32(&mut out, b);
            put_u64(&mut out, c);
            put_u128(&mut out, d);
            put_varint(&mut out, e);
            put_bytes(&mut out, &f);
            let mut reader = Reader::new(out.into());
            prop_assert_eq!(reader.u8(), Ok(a));
            prop_assert_eq!(reader.u32(), Ok(b));
            prop_assert_eq!(reader.u64(), Ok(c));
            prop_assert_eq!(reader.u128(), Ok(d));
            prop_assert_eq!(reader.varint(), Ok(e));
            prop_assert_eq!(&reader.bytes().unwrap()[..], &f[..]);
            prop_assert_eq!(reader.finish(), Ok(()));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            let mut reader = Reader::new(bytes.into());
            let _ = reader.varint();
            let _ = reader.bytes();
            let _ = reader.count(3);
            let _ = reader.u128();
        }
    }

    #[test]
    fn a_longer_form_of_a_varint_is_refused() {
        assert!(Reader::new(Bytes::from_static(&[0x81, 0x00])).varint().is_err());
        assert!(Reader::new(Bytes::from_static(&[0xff; 10])).varint().is_err());
    }
}
