//! A set of changed records, found by a hash of their keys.
//!
//! Every write sets a record and most reads ask for one, so that this is where a node's memory is touched most. An ordered map
//! compares a key with a dozen others, each of them somewhere else in memory; here it is compared with the one that has its hash.
//! Order is wanted once, when the table is written to a checkpoint: [`Table::order`] makes it then.
//!
//! Records never leave, a removed one is a tombstone: that is all that makes the probing simple. Nothing depends on the order in
//! which records came, so that replicas that met them in another order (after a load) hold equal tables.
//!
//! The hash has a seed, another one on each node and at each start: keys that somebody has found to collide elsewhere do not here.
//! *Caveat*: XXH3 is no keyed hash that cryptographers stand for. Who learns the seed can choose keys that make lookups slow.

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::record::RecordKey;

/// Slots of the first index; a power of two, as all its sizes.
const SLOTS_MIN: usize = 16;

/// A set of changed records: `None` is a tombstone.
#[derive(Clone, Debug, Default)]
pub struct Table {
    seed: u64,
    records: Vec<Record>,
    slots: Vec<Slot>,
    bytes: usize,
}

/// A key, and what is said of it: `None` is a tombstone.
pub(super) type Record = (RecordKey, Option<Bytes>);

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    hash: u32,
    /// One more than the record's number; 0 if the slot is free.
    record: u32,
}

impl Table {
    /// An empty one, whose hash has this seed.
    #[must_use]
    pub fn with_seed(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// Sets a record, or with `None` its tombstone.
    pub fn set(&mut self, key: RecordKey, value: Option<Bytes>) {
        // At three quarters walks begin to be long.
        if self.records.len() * 4 >= self.slots.len() * 3 {
            self.grow();
        }
        self.bytes += value.as_ref().map_or(0, Bytes::len);
        let hash = self.hash_of(&key);
        match self.find(hash, &key) {
            Ok(record) => {
                let old = std::mem::replace(&mut self.records[record].1, value);
                self.bytes -= old.map_or(0, |old| old.len());
            }
            Err(slot) => {
                self.bytes += key.len();
                self.records.push((key, value));
                let record = u32::try_from(self.records.len()).expect("what has 4 billion records is not in memory");
                self.slots[slot] = Slot { hash, record };
            }
        }
    }

    /// What is said of a key; `None` if nothing is, `Some(None)` if it is removed.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&Option<Bytes>> {
        if self.slots.is_empty() {
            return None;
        }
        let record = self.find(self.hash_of(key), key).ok()?;
        Some(&self.records[record].1)
    }

    /// Number of bytes of all keys and values in it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The numbers of its records, ascending by key: for [`Table::record`].
    #[must_use]
    pub fn order(&self) -> Vec<u32> {
        let mut order: Vec<u32> = (0..).take(self.records.len()).collect();
        order.sort_unstable_by(|a, b| self.record(*a).0.cmp(self.record(*b).0));
        order
    }

    /// A record by its number.
    ///
    /// # Panics
    /// If there is none of that number.
    #[must_use]
    pub fn record(&self, number: u32) -> (&[u8], &Option<Bytes>) {
        let (key, value) = &self.records[number as usize];
        (key, value)
    }

    /// Its records, ascending by key.
    pub fn sorted(&self) -> impl Iterator<Item = (&[u8], &Option<Bytes>)> {
        self.order().into_iter().map(|number| self.record(number))
    }

    /// Its values, with their keys, ascending by key. For the simulator, which damages them.
    pub(super) fn sorted_mut(&mut self) -> Vec<&mut Record> {
        let mut records: Vec<_> = self.records.iter_mut().collect();
        records.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        records
    }

    /// What is left to free of a table that nobody asks any more.
    #[must_use]
    pub fn remains(self) -> Remains {
        Remains { records: self.records }
    }

    /// The record with a key, or the free slot at which the search for it ends. There must be a free one.
    fn find(&self, hash: u32, key: &[u8]) -> Result<usize, usize> {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots[at];
            let Some(record) = (slot.record as usize).checked_sub(1) else { return Err(at) };
            if slot.hash == hash && *self.records[record].0 == *key {
                return Ok(record);
            }
            at = (at + 1) & mask;
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "half of the hash is enough to find a record")]
    fn hash_of(&self, key: &[u8]) -> u32 {
        xxh3_64_with_seed(key, self.seed) as u32
    }

    /// Doubles the index.
    fn grow(&mut self) {
        let slots = vec![Slot::default(); (self.slots.len() * 2).max(SLOTS_MIN)];
        let mask = slots.len() - 1;
        for slot in std::mem::replace(&mut self.slots, slots).into_iter().filter(|slot| slot.record > 0) {
            let mut at = slot.hash as usize & mask;
            while self.slots[at].record > 0 {
                at = (at + 1) & mask;
            }
            self.slots[at] = slot;
        }
    }
}

/// A table that is freed bit by bit: a hundred thousand records at once take milliseconds, and so does whoever next asks the allocator
/// for memory, on whatever thread.
#[derive(Debug)]
pub struct Remains {
    records: Vec<Record>,
}

impl Remains {
    /// Frees so many records at most. True if that were all that were left.
    pub fn free(&mut self, records_max: usize) -> bool {
        self.records.truncate(self.records.len().saturating_sub(records_max));
        self.records.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn keys_that_collide_under_one_seed_do_not_under_another() {
        let (one, other) = (Table::with_seed(1), Table::with_seed(2));
        // Of 2,000 keys a few hundred pairs have 16 bits of their hash in common.
        let mut met: BTreeMap<u16, String> = BTreeMap::new();
        let mut pairs = Vec::new();
        for key in (0..2_000).map(|number| format!("key{number}")) {
            if let Some(first) = met.insert(one.hash_of(key.as_bytes()) as u16, key.clone()) {
                pairs.push((first, key));
            }
        }
        let still =
            |(a, b): &&(String, String)| other.hash_of(a.as_bytes()) as u16 == other.hash_of(b.as_bytes()) as u16;
        assert!(pairs.len() > 10 && pairs.iter().filter(still).count() <= 1, "{} pairs", pairs.len());
    }

    #[test]
    fn it_holds_what_an_ordered_map_holds() {
        let mut random = numbers(7);
        for keys in [1, 3, 40, 2_000] {
            let (mut table, mut model) = (Table::with_seed(keys), BTreeMap::new());
            assert_eq!(table.get(b"k"), None);
            for _ in 0..3 * keys {
                let key = Bytes::from(format!("key{}", random() % keys));
                let value = (random() % 10 > 2).then(|| Bytes::from(vec![b'v'; (random() % 50) as usize]));
                table.set(key[..].into(), value.clone());
                model.insert(key, value);
            }
            assert!(table.sorted().eq(model.iter().map(|(key, value)| (&key[..], value))));
            let bytes: usize = model.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Bytes::len)).sum();
            assert_eq!(table.bytes(), bytes);
            for number in 0..2 * keys {
                let key = format!("key{number}");
                assert_eq!(table.get(key.as_bytes()), model.get(key.as_bytes()));
            }
        }
    }

    #[test]
    fn a_table_is_freed_bit_by_bit() {
        let mut table = Table::default();
        let value = Bytes::from(vec![1; 100]);
        (0..10).for_each(|number: u8| table.set([number][..].into(), Some(value.clone())));
        let mut remains = table.remains();
        assert!(!remains.free(4) && !remains.free(4));
        assert!(!value.is_unique(), "two are left");
        assert!(remains.free(4) && value.is_unique());
    }

    #[test]
    fn keys_of_one_hash_are_kept_apart() {
        let mut table = Table::default();
        (0..4).for_each(|number: u8| table.set([number][..].into(), Some(vec![number].into())));
        // As if they all had the hash of the first: each is at the end of a walk over those before.
        let hash = table.hash_of(&[0]);
        table.slots.fill(Slot::default());
        for record in 1..=4 {
            let Err(slot) = table.find(hash, b"none of them") else { panic!("nothing has this key") };
            table.slots[slot] = Slot { hash, record };
        }
        (0..4).for_each(|number: u8| assert_eq!(table.find(hash, &[number]), Ok(usize::from(number))));
        assert!(table.find(hash, &[9]).is_err());
    }

    /// Numbers that look random.
    fn numbers(mut seed: u64) -> impl FnMut() -> u64 {
        move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            seed >> 33
        }
    }
}
