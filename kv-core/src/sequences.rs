//! A map whose keys are writes' numbers: they mostly come in order, and mostly go in the order in which they came.
//!
//! It is a sorted queue. What comes last is put at the end and what goes first is taken from the front, both without a search; a
//! number that comes late moves those above or below it, whichever are fewer. Room is given back when most of it is unused: there are
//! many sessions, and each may have had many writes open once.

use std::collections::VecDeque;

use crate::types::Sequence;

/// Room for so many rows is kept however few there are.
const ROWS_KEPT: usize = 16;

/// A map from sequences, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SequenceMap<V> {
    rows: VecDeque<(Sequence, V)>,
}

impl<V> Default for SequenceMap<V> {
    fn default() -> Self {
        Self { rows: VecDeque::new() }
    }
}

impl<V> SequenceMap<V> {
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(crate) fn get(&self, sequence: Sequence) -> Option<&V> {
        self.find(sequence).ok().map(|at| &self.rows[at].1)
    }

    pub(crate) fn get_mut(&mut self, sequence: Sequence) -> Option<&mut V> {
        self.find(sequence).ok().map(|at| &mut self.rows[at].1)
    }

    pub(crate) fn contains(&self, sequence: Sequence) -> bool {
        self.find(sequence).is_ok()
    }

    /// Sets what is said of a number; what was said before is returned.
    pub(crate) fn insert(&mut self, sequence: Sequence, value: V) -> Option<V> {
        match self.find(sequence) {
            Ok(at) => Some(std::mem::replace(&mut self.rows[at].1, value)),
            Err(at) if at == self.rows.len() => {
                self.rows.push_back((sequence, value));
                None
            }
            Err(at) => {
                self.rows.insert(at, (sequence, value));
                None
            }
        }
    }

    pub(crate) fn remove(&mut self, sequence: Sequence) -> Option<V> {
        let at = self.find(sequence).ok()?;
        let removed = self.rows.remove(at);
        self.give_room_back();
        removed.map(|(_, value)| value)
    }

    /// Takes the lowest number out, if it is below this one.
    pub(crate) fn pop_below(&mut self, floor: Sequence) -> Option<V> {
        self.rows.front().filter(|(first, _)| *first < floor)?;
        let popped = self.rows.pop_front();
        self.give_room_back();
        popped.map(|(_, value)| value)
    }

    pub(crate) fn last(&self) -> Option<Sequence> {
        self.rows.back().map(|(last, _)| *last)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Sequence, &V)> {
        self.rows.iter().map(|(sequence, value)| (*sequence, value))
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.rows.iter_mut().map(|(_, value)| value)
    }

    fn give_room_back(&mut self) {
        if self.rows.capacity() > ROWS_KEPT && self.rows.len() * 8 < self.rows.capacity() {
            self.rows.shrink_to(self.rows.len() * 4);
        }
    }

    /// Where a number stands, or where it would.
    fn find(&self, sequence: Sequence) -> Result<usize, usize> {
        // The two ends first: nearly all come there.
        match (self.rows.front(), self.rows.back()) {
            (_, Some((last, _))) if *last < sequence => Err(self.rows.len()),
            (Some((first, _)), _) if *first == sequence => Ok(0),
            _ => self.rows.binary_search_by_key(&sequence, |(sequence, _)| *sequence),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_holds_what_an_ordered_map_holds(steps in prop::collection::vec((0_u8..6, 0_u64..40), 0..200)) {
            let (mut map, mut model) = (SequenceMap::default(), BTreeMap::new());
            for (position, (what, number)) in steps.into_iter().enumerate() {
                let sequence = Sequence(number);
                match what {
                    0..=2 => prop_assert_eq!(map.insert(sequence, position), model.insert(sequence, position)),
                    3 => prop_assert_eq!(map.remove(sequence), model.remove(&sequence)),
                    4 => {
                        let below = model.first_entry().filter(|first| *first.key() < sequence).map(|first| first.remove());
                        prop_assert_eq!(map.pop_below(sequence), below);
                    }
                    _ => {
                        prop_assert_eq!(map.get_mut(sequence), model.get_mut(&sequence));
                        map.values_mut().for_each(|value| *value += 1);
                        model.values_mut().for_each(|value| *value += 1);
                    }
                }
                prop_assert!(map.iter().eq(model.iter().map(|(sequence, value)| (*sequence, value))));
                prop_assert_eq!((map.len(), map.is_empty()), (model.len(), model.is_empty()));
                prop_assert_eq!(map.last(), model.last_key_value().map(|(last, _)| *last));
                prop_assert_eq!(map.get(sequence), model.get(&sequence));
                prop_assert_eq!(map.contains(sequence), model.contains_key(&sequence));
            }
        }
    }

    #[test]
    fn room_that_is_not_used_is_given_back() {
        let mut map = SequenceMap::default();
        (0..1_024).for_each(|number| assert_eq!(map.insert(Sequence(number), ()), None));
        (0..1_023).for_each(|number| assert_eq!(map.pop_below(Sequence(number + 1)), Some(())));
        assert!(map.rows.capacity() <= ROWS_KEPT, "there is room for {}", map.rows.capacity());
        assert_eq!(map.last(), Some(Sequence(1_023)));
    }
}
