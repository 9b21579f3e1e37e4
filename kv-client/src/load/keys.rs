//! Which key an operation is on: drawn from a seed, so that the same plan asks for the same keys.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::KEY_BYTES_MAX;

/// How keys are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Choice {
    /// Each as often as any other.
    Uniform,
    /// The key of rank r about r^-skew times as often as the first. The skew is above 0 and below 1; YCSB has 0.99.
    Zipf(f64),
    /// Each put on a key that has not been used, from number 0 on; gets are uniform among those used so far.
    New,
}

/// The keys of a load: a prefix and a number, padded with zeros to a length.
#[derive(Clone, Debug, PartialEq)]
pub struct Keys {
    /// What they begin with.
    pub prefix: String,
    /// Length of each in bytes.
    pub bytes: usize,
    /// How many different ones there are; not for [`Choice::New`], which has no end.
    pub count: u64,
    /// How they are chosen.
    pub choice: Choice,
}

impl Keys {
    /// The key of a number.
    #[must_use]
    pub fn key(&self, number: u64) -> String {
        let digits = self.bytes.saturating_sub(self.prefix.len());
        format!("{}{number:0digits$}", self.prefix)
    }

    /// Whether there are such keys.
    ///
    /// # Errors
    /// With a sentence, if a key would be longer than it should or may be, or the choice is no choice.
    pub fn check(&self) -> Result<(), String> {
        if self.bytes > KEY_BYTES_MAX {
            return Err(format!("keys of {} bytes: at most {KEY_BYTES_MAX} are possible", self.bytes));
        }
        if self.count == 0 {
            return Err("no keys to choose from".to_owned());
        }
        let longest = self.key(self.count - 1).len();
        if longest > self.bytes {
            return Err(format!(
                "{} keys that begin with {:?} need {longest} bytes, and {} are given",
                self.count, self.prefix, self.bytes
            ));
        }
        match self.choice {
            Choice::Zipf(skew) if !(skew > 0.0 && skew < 1.0) => Err("the skew must be above 0 and below 1".to_owned()),
            _ => Ok(()),
        }
    }
}

/// Draws numbers of keys.
#[derive(Debug)]
pub(super) enum Chooser {
    Uniform { count: u64 },
    Zipf(Zipf),
    New { used: AtomicU64 },
}

impl Chooser {
    pub(super) fn new(keys: &Keys) -> Self {
        match keys.choice {
            Choice::Uniform => Self::Uniform { count: keys.count },
            Choice::Zipf(skew) => Self::Zipf(Zipf::new(keys.count, skew)),
            Choice::New => Self::New { used: AtomicU64::new(0) },
        }
    }

    pub(super) fn choose(&self, random: &mut fastrand::Rng, is_put: bool) -> u64 {
        match self {
            Self::Uniform { count } => random.u64(..count),
            Self::Zipf(zipf) => zipf.rank(random.f64()),
            Self::New { used } if is_put => used.fetch_add(1, Ordering::Relaxed),
            Self::New { used } => random.u64(..used.load(Ordering::Relaxed).max(1)),
        }
    }
}

/// Gray et al., "Quickly Generating Billion-Record Synthetic Databases" (SIGMOD 1994), section 3.2, as YCSB has it: exact for
/// the first two ranks, close for the others. Neighbouring ranks need no scattering: the ring does that.
#[derive(Debug)]
pub(super) struct Zipf {
    count: f64,
    /// Sum of rank^-skew over all ranks.
    zeta: f64,
    second: f64,
    alpha: f64,
    eta: f64,
}

impl Zipf {
    fn new(count: u64, skew: f64) -> Self {
        let zeta = |count: u64| (1..=count).map(|rank| (rank as f64).powf(-skew)).sum::<f64>();
        let (all, two) = (zeta(count), zeta(2));
        Self {
            count: count as f64,
            zeta: all,
            second: 0.5_f64.powf(skew),
            alpha: 1.0 / (1.0 - skew),
            eta: (1.0 - (2.0 / count as f64).powf(1.0 - skew)) / (1.0 - two / all),
        }
    }

    /// The rank, from 0 on, for a number in [0, 1).
    fn rank(&self, uniform: f64) -> u64 {
        let scaled = uniform * self.zeta;
        if scaled < 1.0 {
            return 0;
        }
        if scaled < 1.0 + self.second {
            return 1.min(self.count as u64 - 1);
        }
        let rank = self.count * (self.eta * (uniform - 1.0) + 1.0).powf(self.alpha);
        (rank as u64).min(self.count as u64 - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(count: u64, choice: Choice) -> Keys {
        Keys { prefix: "bench/".to_owned(), bytes: 16, count, choice }
    }

    #[test]
    fn a_key_has_its_length() {
        assert_eq!(keys(10, Choice::Uniform).key(7), "bench/0000000007");
        assert!(keys(10_000_000_000, Choice::Uniform).check().is_ok());
        assert!(keys(10_000_000_001, Choice::Uniform).check().unwrap_err().contains("need 17 bytes"));
        for wrong in [keys(0, Choice::Uniform), keys(5, Choice::Zipf(1.0)), keys(5, Choice::Zipf(f64::NAN))] {
            assert!(wrong.check().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn zipf_is_as_skewed_as_it_says() {
        let zipf = Zipf::new(1_000, 0.99);
        let mut random = fastrand::Rng::with_seed(1);
        let mut counts = vec![0_u32; 1_000];
        for _ in 0..1_000_000 {
            counts[zipf.rank(random.f64()) as usize] += 1;
        }
        let share = |rank: usize| f64::from(counts[rank]) / 1e6;
        let exact = |rank: usize| ((rank + 1) as f64).powf(-0.99) / zipf.zeta;
        for rank in [0, 1] {
            assert!((share(rank) / exact(rank) - 1.0).abs() < 0.02, "rank {rank}: {} {}", share(rank), exact(rank));
        }
        let tail = |from: usize| (from..1_000).map(share).sum::<f64>() / (from..1_000).map(exact).sum::<f64>();
        assert!((tail(10) - 1.0).abs() < 0.05 && (tail(500) - 1.0).abs() < 0.05, "{} {}", tail(10), tail(500));
    }

    #[test]
    fn few_keys_stay_few() {
        for count in [1, 2, 3] {
            let zipf = Zipf::new(count, 0.5);
            assert!((0..=100).all(|step| zipf.rank(f64::from(step) / 100.0) < count), "{count}");
        }
    }

    #[test]
    fn new_keys_are_new() {
        let chooser = Chooser::new(&keys(1, Choice::New));
        let mut random = fastrand::Rng::with_seed(1);
        assert_eq!(chooser.choose(&mut random, false), 0);
        assert_eq!([true, true, true].map(|put| chooser.choose(&mut random, put)), [0, 1, 2]);
        assert!((0..50).all(|_| chooser.choose(&mut random, false) < 3));
    }
}
