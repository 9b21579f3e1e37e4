//! Runs of real processes: a JSON object a line, which says what was run with which verdict.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Line {
    /// The day (UTC), as 2026-11-21.
    pub date: String,
    /// Of the server.
    pub version: String,
    /// What the faults were drawn from.
    pub seed: u64,
    /// How many nodes.
    pub nodes: usize,
    /// Whether each node had a network namespace.
    pub namespaces: bool,
    /// Which faults were made.
    pub nemeses: Vec<String>,
    /// What clients did.
    pub workload: String,
    /// Seconds in which faults were made.
    pub secs: u64,
    /// How many faults of each kind.
    pub faults: BTreeMap<String, u64>,
    /// Operations of clients.
    pub operations: u64,
    /// Milliseconds from each kill of the busiest node to the first write to each shard that it had led.
    pub failover_ms: Vec<u64>,
    /// Which promises were broken.
    pub violations: Vec<String>,
}

/// Reads a file.
///
/// # Errors
/// The first line that is none, and why.
pub fn read_all(text: &str) -> Result<Vec<Line>, String> {
    let lines = text.lines().enumerate();
    lines.map(|(at, line)| serde_json::from_str(line).map_err(|error| format!("line {}: {error}", at + 1))).collect()
}

/// What runs add up to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// How many.
    pub runs: u64,
    /// Seconds in which faults were made.
    pub secs: u64,
    /// Operations of clients.
    pub operations: u64,
    /// How many faults of each kind.
    pub faults: BTreeMap<String, u64>,
    /// How many runs broke a promise.
    pub violated: u64,
}

impl Sum {
    /// What these add up to.
    pub fn of<'a>(lines: impl IntoIterator<Item = &'a Line>) -> Self {
        let mut sum = Self::default();
        for line in lines {
            sum.runs += 1;
            sum.secs += line.secs;
            sum.operations += line.operations;
            sum.violated += u64::from(!line.violations.is_empty());
            for (name, count) in &line.faults {
                *sum.faults.entry(name.clone()).or_default() += count;
            }
        }
        sum
    }

    /// How many faults of all kinds.
    #[must_use]
    pub fn faults_of_all_kinds(&self) -> u64 {
        self.faults.values().sum()
    }
}
