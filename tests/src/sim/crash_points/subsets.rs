//! Which of the undecided things survive a loss of power: all subsets where there are few, chosen ones where there are many.
//!
//! The bound: all subsets if their number is within what is asked for. Else none, all, each alone, each missing, every first
//! so many and every last so many, and for the rest subsets drawn with a density drawn for each. If even these are too many,
//! a drawn choice of them. What that can't show: a fault that needs a particular set of many sectors, neither nearly all nor
//! nearly none of them, nor in one piece.

use fastrand::Rng;

/// A subset of the numbers below some bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Subset {
    /// Those whose bit is set.
    Bits(u64),
    /// Those below.
    First(usize),
    /// Those from here on.
    From(usize),
    /// This one.
    Only(usize),
    /// All but this one.
    Without(usize),
    /// Each with this chance in percent, drawn from a seed.
    Drawn(u64, u8),
}

impl Subset {
    pub(super) fn has(&self, number: usize) -> bool {
        match self {
            Self::Bits(bits) => bits >> number & 1 == 1,
            Self::First(count) => number < *count,
            Self::From(first) => number >= *first,
            Self::Only(only) => number == *only,
            Self::Without(missing) => number != *missing,
            Self::Drawn(seed, percent) => {
                Rng::with_seed(seed ^ (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)).u8(0..100) < *percent
            }
        }
    }
}

/// At most `most` subsets of `count` things; whether these are all that there are.
pub(super) fn subsets(count: usize, most: usize, rng: &mut Rng) -> (Vec<Subset>, bool) {
    if count < 32 && 1_usize << count <= most {
        return ((0..1_u64 << count).map(Subset::Bits).collect(), true);
    }
    let mut chosen = vec![Subset::First(0), Subset::From(0)];
    let mut others: Vec<Subset> = (0..count).flat_map(|at| [Subset::Only(at), Subset::Without(at)]).collect();
    others.extend((1..count).flat_map(|at| [Subset::First(at), Subset::From(at)]));
    rng.shuffle(&mut others);
    chosen.append(&mut others);
    chosen.truncate(most.max(1));
    while chosen.len() < most {
        chosen.push(Subset::Drawn(rng.u64(..), rng.u8(5..96)));
    }
    (chosen, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_things_are_taken_in_all_ways_and_many_in_the_telling_ones() {
        let mut rng = Rng::with_seed(1);
        let (all, complete) = subsets(4, 16, &mut rng);
        assert!(complete && all.len() == 16);
        let (some, complete) = subsets(10, 100, &mut rng);
        assert!(!complete && some.len() == 100);
        let shape = |subset: &Subset| (0..10).map(|at| u32::from(subset.has(at)) << at).sum::<u32>();
        let shapes: std::collections::BTreeSet<u32> = some.iter().map(shape).collect();
        assert!(shapes.len() > 60 && shapes.contains(&0) && shapes.contains(&0b11_1111_1111), "{}", shapes.len());
        assert!((0..10).all(|at| shapes.contains(&(1 << at)) && shapes.contains(&(0b11_1111_1111 ^ 1 << at))));
    }
}
