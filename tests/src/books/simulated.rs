//! What was simulated: a line a campaign, the seeds from its first to its last, simulated hours, runs that failed, faults by kind.
//!
//! `seeds 1000000..1004299 hours 95.34 failed 1 (1001399) crash 17999 crash-all 4318`

use std::collections::BTreeMap;

/// One campaign, or several that were added up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Campaign {
    /// The first seed.
    pub first: u64,
    /// The last seed.
    pub last: u64,
    /// Simulated hours.
    pub hours: f64,
    /// The seeds that failed.
    pub failed: Vec<u64>,
    /// How many faults of each kind.
    pub faults: BTreeMap<String, u64>,
}

impl Campaign {
    /// Reads a line; `None` if it tells of no campaign.
    #[must_use]
    pub fn read(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix("seeds ")?.split_whitespace().peekable();
        let (first, last) = words.next()?.split_once("..")?;
        let mut campaign =
            Self { first: first.parse().ok()?, last: last.parse().ok()?, hours: f64::NAN, ..Self::default() };
        while let Some(name) = words.next() {
            let number = words.next()?;
            match name {
                "hours" => campaign.hours = number.parse().ok()?,
                "failed" => {
                    let count: usize = number.parse().ok()?;
                    for _ in 0..count {
                        let seed = words.next()?.strip_prefix('(')?.strip_suffix(')')?;
                        campaign.failed.push(seed.parse().ok()?);
                    }
                }
                kind => drop(campaign.faults.insert(kind.to_owned(), number.parse().ok()?)),
            }
        }
        (!campaign.hours.is_nan()).then_some(campaign)
    }

    /// Reads a file, in which lines that begin with `#` say something else.
    ///
    /// # Errors
    /// The first line that tells of no campaign.
    pub fn read_all(text: &str) -> Result<Vec<Self>, String> {
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        lines.map(|line| Self::read(line).ok_or_else(|| format!("not a campaign: {line}"))).collect()
    }

    /// What all of them come to.
    #[must_use]
    pub fn sum(campaigns: &[Self]) -> Self {
        let mut sum = campaigns.first().cloned().unwrap_or_default();
        for campaign in campaigns.iter().skip(1) {
            sum.first = sum.first.min(campaign.first);
            sum.last = sum.last.max(campaign.last);
            sum.hours += campaign.hours;
            sum.failed.extend(&campaign.failed);
            for (kind, count) in &campaign.faults {
                *sum.faults.entry(kind.clone()).or_default() += count;
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn campaigns_add_up() {
        let text = "# What was simulated\n\
                    seeds 10..19 hours 1.50 failed 2 (12) (13) crash 5 kill 1\n\
                    seeds 20..29 hours 2.25 failed 0 crash 7\n";
        let sum = Campaign::sum(&Campaign::read_all(text).unwrap());
        let faults = BTreeMap::from([("crash".to_owned(), 12), ("kill".to_owned(), 1)]);
        assert_eq!(sum, Campaign { first: 10, last: 29, hours: 3.75, failed: vec![12, 13], faults });
    }

    #[test]
    fn what_is_no_campaign_is_told() {
        for line in ["seeds 1 hours 2", "seeds 1..2", "seeds 1..2 hours 1 failed 1", "seeds 1..2 hours 1 crash", "seed"]
        {
            assert_eq!(Campaign::read_all(line), Err(format!("not a campaign: {line}")));
        }
    }
}
