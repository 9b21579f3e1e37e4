//! Slots: pieces of a file of one length, and which of them are taken.
//!
//! A value goes to the smallest slot that it fits in, and there to the lowest that is free: what is written again and again stays where
//! the file already is, and neighbours come to stand side by side. Eight lengths between two powers of two, so that an eighth
//! at most is left over, and a little more, so that a value of a power of two fits with the revision before it.

use super::super::Problem;

/// Values of fewer bytes stay in the engine.
pub(super) const LONG_BYTES_MIN: usize = 512;
/// Up to 8 MiB: longer than any value may be.
const LENGTHS: usize = 8 * 14 + 1;
/// What a slot has beyond its step.
const SPARE_BYTES: u64 = 32;

/// A length of slots, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Length(u8);

impl Length {
    /// All of them, the shortest first.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..LENGTHS).map(|number| Self(u8::try_from(number).expect("there are 113")))
    }

    /// The shortest that so many bytes fit in; `None` if they fit in none.
    pub(super) fn of(bytes: usize) -> Option<Self> {
        Self::all().nth(Self::all().take_while(|length| length.bytes() < bytes as u64).count())
    }

    /// The length of this number, if there is one.
    pub(super) fn numbered(number: u8) -> Option<Self> {
        (usize::from(number) < LENGTHS).then_some(Self(number))
    }

    pub(super) fn number(self) -> u8 {
        self.0
    }

    pub(super) fn place(self) -> usize {
        usize::from(self.0)
    }

    /// Bytes of a slot.
    pub(super) fn bytes(self) -> u64 {
        ((8 + u64::from(self.0 % 8)) << (6 + self.0 / 8)) + SPARE_BYTES
    }
}

/// Which slots of one length are taken.
#[derive(Debug, Default)]
pub(super) struct Slots {
    /// A bit for each. The last word is not 0.
    taken: Vec<u64>,
    /// No word before this one has a free slot.
    first: usize,
}

impl Slots {
    /// Takes the lowest that is free.
    pub(super) fn take(&mut self) -> u64 {
        let full = self.taken.iter().skip(self.first).take_while(|word| **word == u64::MAX).count();
        self.first += full;
        if self.first == self.taken.len() {
            self.taken.push(0);
        }
        let word = &mut self.taken[self.first];
        let bit = word.trailing_ones();
        *word |= 1 << bit;
        self.first as u64 * 64 + u64::from(bit)
    }

    /// Takes one that a record names, in a file of so many slots.
    ///
    /// # Errors
    /// If another record has named it, or there is none.
    pub(super) fn claim(&mut self, slot: u64, in_file: u64) -> Result<(), Problem> {
        let at = usize::try_from(slot / 64)?;
        if slot >= in_file {
            return Err(Problem::Failed("a value lies beyond its file's end".to_owned()));
        }
        if self.taken.len() <= at {
            self.taken.resize(at + 1, 0);
        }
        let bit = 1 << (slot % 64);
        if self.taken[at] & bit != 0 {
            return Err(Problem::Failed("two values lie in one place".to_owned()));
        }
        self.taken[at] |= bit;
        Ok(())
    }

    /// Gives one back.
    ///
    /// # Errors
    /// If it was not taken.
    pub(super) fn give_back(&mut self, slot: u64) -> Result<(), Problem> {
        let at = usize::try_from(slot / 64)?;
        let bit = 1 << (slot % 64);
        let Some(word) = self.taken.get_mut(at).filter(|word| **word & bit != 0) else {
            return Err(Problem::Failed("a value lies where nothing should be".to_owned()));
        };
        *word &= !bit;
        while self.taken.last() == Some(&0) {
            self.taken.pop();
        }
        self.first = self.first.min(at).min(self.taken.len());
        Ok(())
    }

    /// How many slots the file needs for those that are taken.
    pub(super) fn end(&self) -> u64 {
        self.taken.last().map_or(0, |last| self.taken.len() as u64 * 64 - u64::from(last.leading_zeros()))
    }
}

#[cfg(test)]
impl Slots {
    /// How many are taken.
    pub(super) fn taken(&self) -> u64 {
        self.taken.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_value_goes_to_the_shortest_slot_that_it_fits_in() {
        let lengths: Vec<u64> = Length::all().map(Length::bytes).collect();
        assert!(lengths.is_sorted_by(|a, b| a < b && b - a <= (a - SPARE_BYTES) / 8), "{lengths:?}");
        assert_eq!((lengths[0], lengths[LENGTHS - 1]), (512 + 32, (8 << 20) + 32));
        for (bytes, slot) in [(1, 544), (544, 544), (545, 608), (1024 + 10, 1056), ((64 << 10) + 10, (64 << 10) + 32)] {
            assert_eq!(Length::of(bytes).map(Length::bytes), Some(slot), "{bytes}");
        }
        assert_eq!(Length::of((8 << 20) + 33), None);
        assert!(Length::all().all(|length| Length::numbered(length.number()) == Some(length)));
        assert_eq!(Length::numbered(113), None);
    }

    #[test]
    fn the_lowest_that_is_free_is_taken() {
        let mut random = fastrand::Rng::with_seed(1);
        let (mut slots, mut model) = (Slots::default(), BTreeSet::new());
        for round in 0..20_000 {
            // More and more, then fewer and fewer.
            if random.u32(0..20_000) > round {
                let lowest = (0..).find(|slot| !model.contains(slot)).unwrap();
                assert_eq!(slots.take(), lowest);
                model.insert(lowest);
            } else if let Some(slot) = random.choice(&model).copied() {
                slots.give_back(slot).unwrap();
                model.remove(&slot);
            }
            assert_eq!(slots.end(), model.last().map_or(0, |last| last + 1));
        }
        for slot in model {
            slots.give_back(slot).unwrap();
        }
        assert!(slots.taken.is_empty());
        assert!(slots.give_back(0).is_err());
        assert_eq!(slots.take(), 0);
    }

    #[test]
    fn one_is_claimed_once_and_only_within_the_file() {
        let mut slots = Slots::default();
        for slot in [70, 0, 64] {
            slots.claim(slot, 71).unwrap();
        }
        assert!(slots.claim(64, 71).is_err() && slots.claim(71, 71).is_err() && slots.claim(u64::MAX, 71).is_err());
        assert_eq!([slots.take(), slots.take()], [1, 2]);
        assert!(slots.give_back(3).is_err() && slots.give_back(u64::MAX).is_err());
    }
}
