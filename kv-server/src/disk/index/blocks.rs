//! Records in blocks: what an engine holds under one key, where to hold each record under its own costs too much.
//!
//! A block is some records whose keys follow one another. It stands under its *bound*: a key not below its last, and below the
//! first of the block after. The block of a key is the first whose bound is not below it, whether or not there is such a record.
//! Blocks are cut, never joined: where most records go, small ones stay.
//!
//! A record is the length of its key (2 bytes, little-endian) and of its value (4 bytes), then both. Damaged bytes are an error.

use std::{cmp::Ordering, ops::Range};

use kv_core::disk::Change;

use super::Problem;

/// Longest block of more than one record. Those that grow beyond it are cut to a half to two thirds of it.
///
/// The best of 1, 2 and 4 KiB in `just engines`: the longer, the less a record costs where a checkpoint changes a quarter of a tree. Where
/// it changes one record in thirty all cost alike, a third more than records by themselves. Longer ones were not tried.
const BLOCK_BYTES_MAX: usize = 4096;
/// The bound of the block that a key gets above all others: all keys of records are below it.
pub(super) const LAST: &[u8] = &[0xff];

const HEAD_BYTES: usize = 6;

/// What a block says of a key.
pub(super) fn find<'a>(block: &'a [u8], key: &[u8]) -> Result<Option<&'a [u8]>, Problem> {
    for record in records(block) {
        let (found, value) = record?;
        match found.cmp(key) {
            Ordering::Less => {}
            Ordering::Equal => return Ok(Some(value)),
            Ordering::Greater => break,
        }
    }
    Ok(None)
}

/// A block's records, ascending by key.
pub(super) fn records(block: &[u8]) -> impl Iterator<Item = Result<(&[u8], &[u8]), Problem>> {
    let mut left = block;
    std::iter::from_fn(move || {
        if left.is_empty() {
            return None;
        }
        let Some((key, value, rest)) = split(left) else {
            left = &[];
            return Some(Err(Problem::Failed("a block is cut short".to_owned())));
        };
        left = rest;
        Some(Ok((key, value)))
    })
}

/// The first record of a block, and the rest.
fn split(block: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let ([a, b, c, d, e, f], rest) = block.split_first_chunk::<HEAD_BYTES>()?;
    let (key, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes([*a, *b])))?;
    let (value, rest) = rest.split_at_checked(u32::from_le_bytes([*c, *d, *e, *f]) as usize)?;
    Some((key, value, rest))
}

/// A block with its changes, to be cut.
#[derive(Default)]
pub(super) struct Merged {
    bytes: Vec<u8>,
    /// Where its records begin.
    begins: Vec<usize>,
}

impl Merged {
    /// A block with changes, which must ascend by key.
    pub(super) fn new(block: &[u8], changes: &[Change<'_>]) -> Result<Self, Problem> {
        let mut merged = Self::default();
        let added = changes.iter().map(|(key, value)| HEAD_BYTES + key.len() + value.map_or(0, <[u8]>::len));
        merged.bytes.reserve(block.len() + added.sum::<usize>());
        let mut changes = changes.iter().peekable();
        for record in records(block) {
            let (key, value) = record?;
            while let Some((new, value)) = changes.next_if(|(new, _)| *new < key) {
                merged.push(new, *value)?;
            }
            let changed = changes.next_if(|(new, _)| *new == key);
            merged.push(key, changed.map_or(Some(value), |(_, value)| *value))?;
        }
        for (key, value) in changes {
            merged.push(key, *value)?;
        }
        Ok(merged)
    }

    fn push(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), Problem> {
        let Some(value) = value else { return Ok(()) };
        self.begins.push(self.bytes.len());
        self.bytes.extend(u16::try_from(key.len())?.to_le_bytes());
        self.bytes.extend(u32::try_from(value.len())?.to_le_bytes());
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        Ok(())
    }

    /// Its blocks, the first first, each with the key of its last record. None if there are no records.
    pub(super) fn blocks(&self) -> Vec<(&[u8], &[u8])> {
        let block = |records: Range<usize>| {
            let end = self.begins.get(records.end).copied().unwrap_or(self.bytes.len());
            let last = split(&self.bytes[self.begins[records.end - 1]..end]);
            let (key, ..) = last.expect("push wrote it whole");
            (key, &self.bytes[self.begins[records.start]..end])
        };
        self.cuts().into_iter().map(block).collect()
    }

    /// Pieces of about the same length, of at least one record each, by the numbers of their records.
    fn cuts(&self) -> Vec<Range<usize>> {
        let bytes = self.bytes.len();
        let piece_bytes = match bytes {
            ..=BLOCK_BYTES_MAX => bytes,
            _ => bytes.div_ceil(bytes.div_ceil(BLOCK_BYTES_MAX * 2 / 3)),
        };
        let mut cuts = Vec::new();
        let mut first = 0;
        for record in 1..=self.begins.len() {
            let end = self.begins.get(record).copied().unwrap_or(bytes);
            let next_end = self.begins.get(record + 1).copied().unwrap_or(bytes);
            let (now, with_next) = (end - self.begins[first], next_end - self.begins[first]);
            // With the next record it would be longer than it should, and by more than it is too short now.
            let is_enough = now + with_next > 2 * piece_bytes || with_next > BLOCK_BYTES_MAX;
            if is_enough || record == self.begins.len() {
                cuts.push(first..record);
                first = record;
            }
        }
        cuts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(records: &[(&[u8], &[u8])]) -> Vec<u8> {
        let changes: Vec<_> = records.iter().map(|(key, value)| (*key, Some(*value))).collect();
        Merged::new(&[], &changes).unwrap().bytes
    }

    #[test]
    fn changes_come_into_a_block_in_the_order_of_keys() {
        let before = block(&[(b"b", b"1"), (b"d", b"2"), (b"f", b"3")]);
        let changes: [Change<'_>; 5] =
            [(b"a", Some(b"x")), (b"b", None), (b"c", None), (b"d", Some(b"")), (b"g", Some(b"y"))];
        let merged = Merged::new(&before, &changes).unwrap();
        let expected = block(&[(b"a", b"x"), (b"d", b""), (b"f", b"3"), (b"g", b"y")]);
        assert_eq!(merged.blocks(), [(&b"g"[..], &expected[..])]);
        assert_eq!(find(&expected, b"f").unwrap(), Some(&b"3"[..]));
        assert_eq!(find(&expected, b"b").unwrap(), None);
        let all: [Change<'_>; 4] = [(b"a", None), (b"d", None), (b"f", None), (b"g", None)];
        assert_eq!(Merged::new(&expected, &all).unwrap().blocks(), []);
    }

    #[test]
    fn what_is_too_long_is_cut_to_pieces_of_about_one_length() {
        let long = vec![7; BLOCK_BYTES_MAX + 1];
        for (values, pieces) in [(vec![100; 37], 1), (vec![100; 38], 2), (vec![100; 1000], 40), (vec![1500; 3], 2)] {
            let keys: Vec<_> = (0..values.len() as u16).map(u16::to_be_bytes).collect();
            let changes: Vec<_> =
                keys.iter().zip(&values).map(|(key, value)| (&key[..], Some(&long[..*value]))).collect();
            let merged = Merged::new(&[], &changes).unwrap();
            let blocks = merged.blocks();
            assert_eq!(blocks.len(), pieces, "{} of {} bytes", values.len(), values[0]);
            let longest = blocks.iter().map(|(_, block)| block.len()).max().unwrap();
            let shortest = blocks.iter().map(|(_, block)| block.len()).min().unwrap();
            assert!(longest <= BLOCK_BYTES_MAX && longest - shortest <= 2 * (values[0] + 8), "{longest} {shortest}");
            assert_eq!(blocks.concat_blocks(), merged.bytes);
        }
        // One that is longer than a block may be stands alone.
        let merged = Merged::new(&[], &[(b"a", Some(b"1")), (b"b", Some(&long)), (b"c", Some(b"2"))]).unwrap();
        let keys: Vec<_> = merged.blocks().iter().map(|(key, _)| key.to_vec()).collect();
        assert_eq!(keys, [b"a", b"b", b"c"]);
    }

    trait Concat {
        fn concat_blocks(&self) -> Vec<u8>;
    }

    impl Concat for Vec<(&[u8], &[u8])> {
        fn concat_blocks(&self) -> Vec<u8> {
            self.iter().flat_map(|(_, block)| block.to_vec()).collect()
        }
    }

    #[test]
    fn a_block_that_is_cut_short_is_an_error() {
        let whole = block(&[(b"a", b"1"), (b"b", b"22")]);
        for end in 1..whole.len() {
            let is_between = end == whole.len() - (HEAD_BYTES + 3);
            assert_eq!(find(&whole[..end], b"c").is_ok(), is_between, "{end}");
            assert_eq!(Merged::new(&whole[..end], &[]).is_ok(), is_between, "{end}");
        }
    }
}
