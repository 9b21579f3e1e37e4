//! Long runs that add up: a file that is committed says how much was ever simulated, with which faults, and what failed.
//!
//! A campaign is one line: the seeds from its first to its last, simulated hours, runs that failed, faults by kind. Lines are
//! added at the end and never change once their campaign is over, so that two branches merge. A campaign that is interrupted
//! has its line as of its last full hundred runs; the next one begins after the last seed of all. Two processes must not write
//! to one file at once: `--jobs 2` uses two cores.

use std::{
    collections::BTreeMap,
    fmt::Write,
    path::{Path, PathBuf},
};

use kv_tests::{books::simulated, sim::report::Report};

/// First seed of the first campaign: far from those that people try by hand.
const SEED_FIRST: u64 = 1_000_000;

/// Runs after which the file is brought up to date.
const RUNS_BETWEEN_WRITES: u64 = 100;

/// A campaign that is going on.
pub(crate) struct Campaign {
    path: PathBuf,
    /// The lines of the file without this campaign's.
    before: Vec<String>,
    /// What they tell of, simulated.
    hours_before: f64,
    first: u64,
    last: u64,
    micros: u64,
    failed: Vec<u64>,
    faults: BTreeMap<&'static str, u64>,
}

impl Campaign {
    /// Begins a campaign after those that the file tells of.
    ///
    /// # Errors
    /// In words, if the file can't be read or a line in it tells of no campaign.
    pub(crate) fn begin(path: &Path) -> Result<Self, String> {
        let text = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => HEAD.to_owned(),
            other => other.map_err(|error| format!("{}: {error}", path.display()))?,
        };
        let earlier = simulated::Campaign::read_all(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        let first = earlier.iter().map(|campaign| campaign.last + 1).fold(SEED_FIRST, u64::max);
        let before: Vec<String> = text.lines().map(str::to_owned).collect();
        let hours_before = earlier.iter().map(|campaign| campaign.hours).sum();
        let path = path.to_owned();
        Ok(Self {
            path,
            before,
            hours_before,
            first,
            last: first,
            micros: 0,
            failed: Vec::new(),
            faults: BTreeMap::new(),
        })
    }

    /// The seed that comes next.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// Adds a run.
    ///
    /// # Errors
    /// In words, if the file can't be written.
    pub(crate) fn add(&mut self, report: &Report) -> Result<(), String> {
        self.last = report.plan.seed;
        self.micros += report.simulated_micros;
        if report.failure.is_some() {
            self.failed.push(report.plan.seed);
        }
        for (name, count) in report.counts.faults() {
            *self.faults.entry(name).or_default() += count;
        }
        if (self.last + 1 - self.first).is_multiple_of(RUNS_BETWEEN_WRITES) { self.write() } else { Ok(()) }
    }

    /// Brings the file up to date.
    ///
    /// # Errors
    /// In words, if it can't be written.
    pub(crate) fn write(&self) -> Result<(), String> {
        let mut text = self.before.join("\n") + "\n";
        if self.micros > 0 {
            let _ = writeln!(text, "{}", self.line());
        }
        let aside = self.path.with_extension("new");
        let written = std::fs::write(&aside, text).and_then(|()| std::fs::rename(&aside, &self.path));
        written.map_err(|error| format!("{}: {error}", self.path.display()))
    }

    /// All that the file tells of, this campaign included, in a sentence.
    pub(crate) fn total(&self) -> String {
        let hours = self.hours_before + self.micros as f64 / 3_600e6;
        format!("{} tells of {:.1} simulated days", self.path.display(), hours / 24.0)
    }

    fn line(&self) -> String {
        let mut line = format!("seeds {}..{} hours {:.2}", self.first, self.last, self.micros as f64 / 3_600e6);
        let _ = write!(line, " failed {}", self.failed.len());
        for seed in &self.failed {
            let _ = write!(line, " ({seed})");
        }
        for (name, count) in &self.faults {
            let _ = write!(line, " {name} {count}");
        }
        line
    }
}

/// What a new file begins with.
const HEAD: &str = "# What was simulated: a line a campaign, written by `sim --campaign`. Seeds of different lines mean what the simulator \
                    was then.";
