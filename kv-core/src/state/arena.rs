//! Where a table keeps its records: keys and values side by side, in a few large pieces of memory.
//!
//! A record with an allocation of its own costs one for every write, another to free what it replaces, and, when a table is done
//! with, a hundred thousand of them at once. Here a value takes the place of the one before where it fits, and a table is freed
//! piece by piece. What does not fit is written anew at the end, its key too; the place it had is lost until the table goes. A value
//! gets at least twice its room then, so that a record moves a dozen times at most, and what its values had before is at most twice
//! what they have.
//!
//! A long value has memory of its own all the same, which who reads it shares: to copy it would cost more than to count.
//!
//! Left out: finding a record by its key ([`Table`](super::table::Table)).

use bytes::Bytes;

/// A record's head: bytes of the key and of the room for its value, then what is said of the key. Room is in whole heads, so that
/// every record begins at a multiple of this.
const HEAD_BYTES: usize = 8;
/// Size of a chunk once there are many; every record fits into one, and a place in it into [`OFFSET_BITS`].
const CHUNK_BYTES: usize = 64 * 1024;
/// Size of the first chunk: most tables hold little. Each after it is as large as all before.
const CHUNK_BYTES_MIN: usize = 512;
/// Longest value that is kept in a chunk.
const SHORT_BYTES_MAX: usize = 4096;
/// Bits of a place that say which of a chunk's multiples of 8 it is.
const OFFSET_BITS: u32 = (CHUNK_BYTES / HEAD_BYTES).trailing_zeros();

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(pub(super) u32);

#[derive(Clone, Debug, Default)]
pub(super) struct Arena {
    /// Only the last one grows, within what it was made for.
    chunks: Vec<Vec<u8>>,
    chunk_bytes: usize,
    longs: Vec<Bytes>,
    /// Numbers of long values that nothing names any more.
    free_longs: Vec<u32>,
    bytes: usize,
}

#[derive(Clone, Copy)]
struct Head {
    key_bytes: u16,
    room: u16,
    said: Said,
}

/// What is said of a key.
#[derive(Clone, Copy)]
enum Said {
    Removed,
    /// The value has so many bytes and stands behind the key.
    Short(u16),
    /// The value is the long one of this number.
    Long(u32),
}

impl Arena {
    /// Bytes of the records, of what was lost between them, and of the long values. Not counted: the end of a chunk for which the next
    /// record was too long.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a record. Its value is given in two parts; with `None` it is a tombstone.
    pub(super) fn add(&mut self, key: &[u8], value: Option<[&[u8]; 2]>) -> Place {
        let short = value.map_or(0, bytes_of);
        self.add_with_room(key, if short > SHORT_BYTES_MAX { 0 } else { short }, value)
    }

    /// Gives a record another value: tells where it is from now on.
    pub(super) fn replace(&mut self, place: Place, key: &[u8], value: Option<[&[u8]; 2]>) -> Place {
        let head = self.head(place);
        let room = usize::from(head.room);
        if let Said::Long(number) = head.said {
            let old = std::mem::take(&mut self.longs[number as usize]);
            self.bytes -= old.len();
            self.free_longs.push(number);
        }
        let short = value.map_or(0, bytes_of);
        if short <= SHORT_BYTES_MAX && short > room {
            return self.add_with_room(key, short.max(2 * room).min(SHORT_BYTES_MAX), value);
        }
        let said = self.say(value);
        let record = self.record_mut(place);
        record[..HEAD_BYTES].copy_from_slice(&Head { said, ..head }.to_bytes());
        if let (Said::Short(_), Some([first, rest])) = (said, value) {
            let into = &mut record[HEAD_BYTES + usize::from(head.key_bytes)..][..short];
            let (into_first, into_rest) = into.split_at_mut(first.len());
            into_first.copy_from_slice(first);
            into_rest.copy_from_slice(rest);
        }
        place
    }

    /// A record's key.
    pub(super) fn key(&self, place: Place) -> &[u8] {
        let record = self.record(place);
        &record[HEAD_BYTES..][..usize::from(Head::of(record).key_bytes)]
    }

    /// A record's key and value; `None` if it is a tombstone.
    pub(super) fn get(&self, place: Place) -> (&[u8], Option<&[u8]>) {
        let record = self.record(place);
        let head = Head::of(record);
        let (key, room) = record[HEAD_BYTES..].split_at(usize::from(head.key_bytes));
        let value = match head.said {
            Said::Removed => None,
            Said::Short(bytes) => Some(&room[..usize::from(bytes)]),
            Said::Long(number) => Some(&self.longs[number as usize][..]),
        };
        (key, value)
    }

    /// A record's value to be kept: a copy of a short one, a share of a long one.
    pub(super) fn share(&self, place: Place) -> Option<Bytes> {
        match self.head(place).said {
            Said::Long(number) => Some(self.longs[number as usize].clone()),
            _ => self.get(place).1.map(Bytes::copy_from_slice),
        }
    }

    fn add_with_room(&mut self, key: &[u8], room: usize, value: Option<[&[u8]; 2]>) -> Place {
        let bytes = (HEAD_BYTES + key.len() + room).next_multiple_of(HEAD_BYTES);
        let said = self.say(value);
        let head = Head {
            key_bytes: u16::try_from(key.len()).expect("a record's key has little more than a key may have, 4 KiB"),
            room: u16::try_from(bytes - HEAD_BYTES - key.len()).expect("a short value has at most 4 KiB"),
            said,
        };
        self.bytes += bytes;
        let number = self.chunk_with_room(bytes);
        let chunk = &mut self.chunks[number];
        let at = chunk.len();
        chunk.extend_from_slice(&head.to_bytes());
        chunk.extend_from_slice(key);
        if let (Said::Short(_), Some(parts)) = (said, value) {
            parts.iter().for_each(|part| chunk.extend_from_slice(part));
        }
        chunk.resize(at + bytes, 0);
        let place = (number << OFFSET_BITS) | (at / HEAD_BYTES);
        Place(u32::try_from(place).expect("what has 32 GiB is not in memory"))
    }

    /// Keeps a value that is long; what a record then says.
    fn say(&mut self, value: Option<[&[u8]; 2]>) -> Said {
        let Some(parts) = value else { return Said::Removed };
        let bytes = bytes_of(parts);
        if bytes <= SHORT_BYTES_MAX {
            return Said::Short(u16::try_from(bytes).expect("4 KiB are less than 64"));
        }
        self.bytes += bytes;
        let long = Bytes::from(parts.concat());
        let number = match self.free_longs.pop() {
            Some(number) => {
                self.longs[number as usize] = long;
                number
            }
            None => {
                self.longs.push(long);
                u32::try_from(self.longs.len() - 1).expect("what has 2 billion long values is not in memory")
            }
        };
        Said::Long(number)
    }

    /// The number of a chunk to which so many bytes can be added.
    fn chunk_with_room(&mut self, bytes: usize) -> usize {
        let held = self.chunks.last().map_or(0, Vec::len);
        if self.chunks.is_empty() || held + bytes > self.chunk_bytes {
            let before: usize = self.chunks.iter().map(Vec::len).sum();
            self.chunk_bytes = before.clamp(CHUNK_BYTES_MIN, CHUNK_BYTES).max(bytes);
            self.chunks.push(Vec::with_capacity(self.chunk_bytes));
        }
        self.chunks.len() - 1
    }

    fn head(&self, place: Place) -> Head {
        Head::of(self.record(place))
    }

    /// A record, and whatever is behind it.
    fn record(&self, place: Place) -> &[u8] {
        let (chunk, at) = split(place);
        &self.chunks[chunk][at..]
    }

    fn record_mut(&mut self, place: Place) -> &mut [u8] {
        let (chunk, at) = split(place);
        &mut self.chunks[chunk][at..]
    }
}

impl Head {
    fn of(record: &[u8]) -> Self {
        let head = u64::from_le_bytes(*record.first_chunk().expect("a record begins with its head"));
        let [key_bytes, room] = [head as u16, (head >> 16) as u16];
        let said = (head >> 32) as u32;
        let said = match said {
            u32::MAX => Said::Removed,
            long if long & Self::LONG != 0 => Said::Long(long & !Self::LONG),
            bytes => Said::Short(bytes as u16),
        };
        Self { key_bytes, room, said }
    }

    fn to_bytes(self) -> [u8; HEAD_BYTES] {
        let said = match self.said {
            Said::Removed => u32::MAX,
            Said::Short(bytes) => u32::from(bytes),
            Said::Long(number) => number | Self::LONG,
        };
        (u64::from(self.key_bytes) | (u64::from(self.room) << 16) | (u64::from(said) << 32)).to_le_bytes()
    }

    /// Set in the number of a long value.
    const LONG: u32 = 1 << 31;
}

fn split(place: Place) -> (usize, usize) {
    let place = place.0 as usize;
    (place >> OFFSET_BITS, (place & ((1 << OFFSET_BITS) - 1)) * HEAD_BYTES)
}

fn bytes_of(parts: [&[u8]; 2]) -> usize {
    parts[0].len() + parts[1].len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|at| at as u8).collect()
    }

    #[test]
    fn a_value_takes_the_place_of_one_that_was_as_long_and_moves_when_it_outgrows_it() {
        let mut arena = Arena::default();
        let place = arena.add(b"key", Some([b"12", b"3"]));
        let next = arena.add(b"next", Some([b"", b"unharmed"]));
        let bytes = arena.bytes();
        for parts in [[&b"4"[..], b"56"], [b"", b"7"], [b"12345", b""]] {
            assert_eq!(arena.replace(place, b"key", Some(parts)), place, "8 bytes with its key");
            assert_eq!(arena.get(place), (&b"key"[..], Some(&parts.concat()[..])));
        }
        assert_eq!(arena.replace(place, b"key", None), place);
        assert_eq!((arena.get(place), arena.bytes()), ((&b"key"[..], None), bytes));
        let moved = arena.replace(place, b"key", Some([b"123456", b""]));
        assert_ne!(moved, place);
        assert_eq!(arena.get(moved), (&b"key"[..], Some(&b"123456"[..])));
        assert_eq!(arena.get(next), (&b"next"[..], Some(&b"unharmed"[..])));
        // Twice the room it had, and what a whole head leaves over.
        assert_eq!(arena.replace(moved, b"key", Some([b"1234567890", b""])), moved);
    }

    #[test]
    fn a_record_that_grows_bit_by_bit_moves_a_few_times() {
        let mut arena = Arena::default();
        let mut places = vec![arena.add(b"key", None)];
        for bytes in 0..=SHORT_BYTES_MAX {
            let last = places[places.len() - 1];
            let place = arena.replace(last, b"key", Some([&value(bytes), b""]));
            assert_eq!(arena.get(place).1, Some(&value(bytes)[..]));
            if place != last {
                places.push(place);
            }
        }
        assert!(places.len() <= 11, "from 5 bytes to 4,096: {}", places.len());
        assert!(arena.bytes() < 3 * SHORT_BYTES_MAX + 11 * (HEAD_BYTES + 8), "{}", arena.bytes());
    }

    #[test]
    fn long_values_are_shared_and_what_is_replaced_is_freed() {
        let mut arena = Arena::default();
        let place = arena.add(b"key", Some([b"head", &value(SHORT_BYTES_MAX)]));
        let shared = arena.share(place).unwrap();
        assert_eq!(shared, [b"head", &value(SHORT_BYTES_MAX)[..]].concat());
        assert!(!shared.is_unique());
        let other = arena.add(b"other", Some([&value(5000), b""]));
        assert_eq!(arena.replace(place, b"key", None), place);
        assert!(shared.is_unique());
        assert_eq!(arena.share(place), None);
        // The number of the one that went is used again.
        assert_eq!(arena.replace(place, b"key", Some([&value(6000), b""])), place);
        assert_eq!((arena.longs.len(), arena.free_longs.len()), (2, 0));
        assert_eq!(arena.get(other).1, Some(&value(5000)[..]));
        let short = arena.replace(place, b"key", Some([&value(10), b""]));
        assert_eq!(arena.get(short), (&b"key"[..], Some(&value(10)[..])));
        assert!(arena.share(short).unwrap().is_unique());
        assert_eq!(arena.bytes(), 16 + (8 + 5 + 3) + (8 + 3 + 13) + 5000);
    }

    #[test]
    fn a_large_table_is_a_few_large_pieces() {
        let mut arena = Arena::default();
        let places: Vec<_> = (0..10_000_u32)
            .map(|number| arena.add(&number.to_be_bytes(), Some([&value(number as usize % 300), b""])))
            .collect();
        for (number, place) in (0..).zip(&places) {
            let number: u32 = number;
            assert_eq!(arena.get(*place), (&number.to_be_bytes()[..], Some(&value(number as usize % 300)[..])));
        }
        assert!(arena.chunks.len() <= 10 + arena.bytes() / (CHUNK_BYTES * 15 / 16), "{} chunks", arena.chunks.len());
        let longest = arena.add(&value(4097), Some([&value(SHORT_BYTES_MAX), b""]));
        assert_eq!(arena.get(longest), (&value(4097)[..], Some(&value(SHORT_BYTES_MAX)[..])));
    }
}
