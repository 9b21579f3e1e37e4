//! Where the data of a replica's entries is kept: side by side, in a few large pieces of memory.
//!
//! Entries come one after the other and are given up in that order, ten thousands at once, when a checkpoint has taken their place.
//! Each with memory of its own they were as many pieces to be freed, which the allocator puts in order for whoever asks it next: turns
//! took a tenth of a second. Here memory is freed a chunk at a time, when the last entry in it has gone.
//!
//! A chunk has the entries of one replica only, so that none that writes little keeps another's in memory.

use bytes::{Bytes, BytesMut};

/// Size of a chunk where a replica keeps much.
const CHUNK_BYTES: usize = 256 * 1024;
/// Size of a chunk where it keeps little.
const CHUNK_BYTES_MIN: usize = 128;
/// A chunk has at most so much of what a replica keeps when it is begun, and one is begun after entries were given up: what one entry
/// can keep in memory of others.
const CHUNK_SHARE: usize = 16;
/// Longest data in a chunk; longer data has memory of its own.
const COPIED_BYTES_MAX: usize = CHUNK_BYTES / 8;

/// The chunk that is being filled.
#[derive(Default)]
pub(crate) struct EntryData {
    chunk: BytesMut,
}

impl EntryData {
    /// The same data, to be kept among so many bytes of others. Long data stays where it is.
    pub(crate) fn keep(&mut self, data: Bytes, kept_bytes: usize) -> Bytes {
        if data.len() > COPIED_BYTES_MAX { data } else { self.copy(&data, kept_bytes) }
    }

    /// A copy of data, to be kept among so many bytes of others.
    pub(crate) fn copy(&mut self, data: &[u8], kept_bytes: usize) -> Bytes {
        if data.is_empty() || data.len() > COPIED_BYTES_MAX {
            return Bytes::copy_from_slice(data);
        }
        if self.chunk.capacity() < data.len() {
            let chunk_bytes = (kept_bytes / CHUNK_SHARE).clamp(CHUNK_BYTES_MIN, CHUNK_BYTES);
            self.chunk = BytesMut::with_capacity(chunk_bytes.max(data.len()));
        }
        self.chunk.extend_from_slice(data);
        self.chunk.split().freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_stands_side_by_side_and_is_freed_with_the_last_of_its_chunk() {
        let mut kept = EntryData::default();
        let mut held = 0;
        let mut entries = Vec::new();
        let mut chunks = 0;
        for number in 0..20_000_u32 {
            let data: Vec<u8> = number.to_le_bytes().repeat(1 + number as usize % 100);
            let entry = kept.keep(data.into(), held);
            held += entry.len();
            let follows = entries.last().is_some_and(|last: &Bytes| last.as_ptr_range().end == entry.as_ptr());
            chunks += u32::from(!follows);
            entries.push(entry);
        }
        assert!(chunks < 200, "{chunks} chunks of {held} bytes");
        for (number, entry) in (0..).zip(&entries) {
            let number: u32 = number;
            assert_eq!(**entry, number.to_le_bytes().repeat(1 + number as usize % 100));
        }
        // The last chunk is still being filled, and its last entry alone has it in memory then.
        drop(kept);
        let last = entries.pop().unwrap();
        assert!(!last.is_unique());
        drop(entries);
        assert!(last.is_unique());
    }

    #[test]
    fn long_data_stays_where_it_is_and_little_takes_little() {
        let mut kept = EntryData::default();
        let long = Bytes::from(vec![1; COPIED_BYTES_MAX + 1]);
        assert_eq!(kept.keep(long.clone(), 0).as_ptr(), long.as_ptr());
        let copy = kept.copy(&long, 0);
        assert!(copy == long && copy.as_ptr() != long.as_ptr());
        assert_eq!(kept.chunk.capacity(), 0);
        kept.keep(Bytes::from_static(b"first"), 0);
        assert!(kept.chunk.capacity() < CHUNK_BYTES_MIN);
        assert_eq!(kept.keep(Bytes::new(), 0), Bytes::new());
    }
}
