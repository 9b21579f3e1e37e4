//! A set of changed records, found by a hash of their keys.
//!
//! Every write sets a record and most reads ask for one, so that this is where a node's memory is touched most. An ordered map
//! compares a key with a dozen others, each of them somewhere else in memory; here it is compared with the one that has its hash.
//! Order is wanted once, when the table is written to a checkpoint: [`Table::order`] makes it then.
//!
//! Records never leave, a removed one is a tombstone: that is all that makes the probing simple. What is told of
//! records does not depend on the order in which they came; how many bytes they take does, which is each replica's own affair.
//!
//! The hash has a seed, another one on each node and at each start: keys that somebody has found to collide elsewhere do not here.
//! *Caveat*: XXH3 is no keyed hash that cryptographers stand for. Who learns the seed can choose keys that make lookups slow.

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::arena::{Arena, Place};

/// Slots of the first index; a power of two, as all its sizes.
const SLOTS_MIN: usize = 16;

/// A set of changed records: of a key a value is said, or that it is removed (a tombstone).
#[derive(Clone, Debug, Default)]
pub struct Table {
    seed: u64,
    records: Arena,
    slots: Vec<Slot>,
    /// Number of records: of slots that are not free.
    count: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    hash: u32,
    /// One more than the record's place; 0 if the slot is free.
    record: u32,
}

impl Slot {
    fn new(hash: u32, place: Place) -> Self {
        Self { hash, record: place.0 + 1 }
    }

    fn place(self) -> Option<Place> {
        self.record.checked_sub(1).map(Place)
    }
}

impl Table {
    /// An empty one, whose hash has this seed.
    #[must_use]
    pub fn with_seed(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// Sets a record, or with `None` its tombstone.
    pub fn set(&mut self, key: &[u8], value: Option<&[u8]>) {
        self.set_joined(key, value.map(|value| [value, b""]));
    }

    /// The same, of a value in two parts.
    pub fn set_joined(&mut self, key: &[u8], value: Option<[&[u8]; 2]>) {
        // At three quarters walks begin to be long.
        if self.count * 4 >= self.slots.len() * 3 {
            self.grow();
        }
        let hash = self.hash_of(key);
        match self.find(hash, key) {
            Ok((slot, place)) => {
                let place = self.records.replace(place, key, value);
                self.slots[slot] = Slot::new(hash, place);
            }
            Err(slot) => {
                self.count += 1;
                self.slots[slot] = Slot::new(hash, self.records.add(key, value));
            }
        }
    }

    /// What is said of a key; `None` if nothing is, `Some(None)` if it is removed.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<Option<Bytes>> {
        if self.slots.is_empty() {
            return None;
        }
        let (_, place) = self.find(self.hash_of(key), key).ok()?;
        Some(self.records.share(place))
    }

    /// Number of bytes that its keys and values take, with what was lost when values outgrew their places.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.records.bytes()
    }

    /// Where its records are, ascending by key: for [`Table::record`].
    #[must_use]
    pub fn order(&self) -> Vec<Place> {
        let mut order: Vec<_> = self.slots.iter().filter_map(|slot| slot.place()).collect();
        order.sort_unstable_by(|a, b| self.records.key(*a).cmp(self.records.key(*b)));
        order
    }

    /// The key and the value of a record; without a value it is a tombstone.
    ///
    /// It must be a place in this table.
    ///
    /// # Panics
    /// Maybe, if it is not.
    #[must_use]
    pub fn record(&self, place: Place) -> (&[u8], Option<&[u8]>) {
        self.records.get(place)
    }

    /// Its records, ascending by key.
    pub fn sorted(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.order().into_iter().map(|place| self.record(place))
    }

    /// The slot and the place of the record with a key, or the free slot at which the search for it ends. There must be a free one.
    fn find(&self, hash: u32, key: &[u8]) -> Result<(usize, Place), usize> {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots[at];
            let Some(place) = slot.place() else { return Err(at) };
            if slot.hash == hash && self.records.key(place) == key {
                return Ok((at, place));
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
            for change in 0..4 * keys.max(50) {
                let key = match random() % keys {
                    0 => vec![b'k'; 4_097],
                    number => format!("key{number}").into_bytes(),
                };
                // Around the length from which on values are kept by themselves, and far from it.
                let length = [random() % 50, 4_090 + random() % 12, random() % 10_000][(random() % 3) as usize];
                let value = (random() % 10 > 2).then(|| (0..length).map(|_| random() as u8).collect::<Vec<u8>>());
                let head = value.as_ref().map_or(0, |value| random() as usize % (value.len() + 1));
                table.set_joined(&key, value.as_ref().map(|value| value.split_at(head).into()));
                model.insert(key, value);
                if change % 50 == 0 {
                    table = table.clone();
                }
            }
            let wanted = || model.iter().map(|(key, value)| (&key[..], value.as_deref()));
            assert!(table.sorted().eq(wanted()));
            assert!(table.bytes() >= wanted().map(|(key, value)| key.len() + value.map_or(0, <[u8]>::len)).sum());
            for (key, value) in &model {
                assert_eq!(table.get(key).unwrap().as_deref(), value.as_deref());
            }
            assert_eq!(table.get(b"another"), None);
        }
    }

    #[test]
    fn keys_of_one_hash_are_kept_apart() {
        let mut table = Table::default();
        (0..4).for_each(|number: u8| table.set(&[number], Some(&[number])));
        // As if they all had the hash of the first: each is at the end of a walk over those before.
        let hash = table.hash_of(&[0]);
        let places = table.order();
        table.slots.fill(Slot::default());
        for place in &places {
            let Err(slot) = table.find(hash, b"none of them") else { panic!("nothing has this key") };
            table.slots[slot] = Slot::new(hash, *place);
        }
        for (number, place) in (0..).zip(places) {
            let number: u8 = number;
            assert_eq!(table.find(hash, &[number]).map(|(_, found)| found), Ok(place));
        }
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
