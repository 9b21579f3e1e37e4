//! Numbered places for what waits for an answer: taking and giving back is an index, not a hash.

/// Values under numbers that are not used again soon: a number names a place and how often the place was used before, so
/// that a late answer finds nothing instead of somebody else's.
#[derive(Debug)]
pub(super) struct Slab<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Place<T> {
    uses: u32,
    value: Option<T>,
}

impl<T> Slab<T> {
    /// Number of values.
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Keeps a value and gives its number.
    pub(super) fn insert(&mut self, value: T) -> u64 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place { uses: 0, value: None });
            u32::try_from(self.places.len() - 1).expect("bounded by the operations outstanding, far below 2^32")
        });
        let place = &mut self.places[index as usize];
        place.value = Some(value);
        u64::from(place.uses) << 32 | u64::from(index)
    }

    /// Takes the value of a number, if it has one. Any number may be asked.
    pub(super) fn remove(&mut self, number: u64) -> Option<T> {
        let (uses, index) = (number >> 32, (number & u64::from(u32::MAX)) as usize);
        let place = self.places.get_mut(index).filter(|place| u64::from(place.uses) == uses)?;
        let value = place.value.take()?;
        place.uses = place.uses.wrapping_add(1);
        self.free.push(index as u32);
        Some(value)
    }

    /// Takes all values.
    pub(super) fn drain(&mut self) -> Vec<T> {
        let mut values = Vec::with_capacity(self.len());
        for (index, place) in self.places.iter_mut().enumerate() {
            if let Some(value) = place.value.take() {
                place.uses = place.uses.wrapping_add(1);
                self.free.push(index as u32);
                values.push(value);
            }
        }
        values
    }
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_was_used_finds_nothing() {
        let mut slab = Slab::default();
        let first = slab.insert("a");
        assert_eq!((slab.remove(first), slab.len()), (Some("a"), 0));
        let second = slab.insert("b");
        assert_ne!(first, second);
        assert_eq!((slab.remove(first), slab.remove(u64::MAX)), (None, None));
        assert_eq!((slab.drain(), slab.len()), (vec!["b"], 0));
        assert_eq!(slab.remove(second), None);
        let third = slab.insert("c");
        assert_eq!(slab.remove(third), Some("c"));
    }
}
