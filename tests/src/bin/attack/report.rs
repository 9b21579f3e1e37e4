//! What is said of a kind of attack: a line of a table, a line of JSON, and what did not hold.

use std::{collections::BTreeMap, fs::File, io::Write, path::Path};

use serde::Serialize;

use crate::attacker::Tally;

/// The honest p99 may be so many times what it is without the attack...
const P99_TIMES: f64 = 2.0;
/// ...or so many milliseconds more, if that is more. Attackers and honest clients share two cores with the cluster: a process that has just
/// been given one keeps it for a slice of the scheduler (about 3 ms), and the kernel's own work for the attackers' packets is done at the
/// cost of whoever runs. That is the machine's, and not the server's to mend.
const P99_FLOOR_MS: f64 = 2.0;
/// So much more memory than before may the attacked node hold: 256 MiB that it grants its clients for answers that they have
/// not read, and what 10,000 connections hold, at about 20 KiB each with their buffers.
const RESIDENT_GROWTH_MAX_BYTES: u64 = 512 * MIB;
/// So many more open files than before may be left: log segments and checkpoints come and go, and honest clients with them.
const FILES_LEFT_MAX: u64 = 24;
const MIB: u64 = 1024 * 1024;

/// A kind of attack, tried: a line of the file of `--out`, as one JSON object.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Line {
    /// Its name.
    pub(crate) kind: String,
    /// The version of kv.
    pub(crate) version: &'static str,
    /// Where all choices began.
    pub(crate) seed: u64,
    /// Windows of each sort, and seconds of each.
    pub(crate) rounds: u32,
    pub(crate) secs: u64,
    /// Operations a second that were offered.
    pub(crate) rate: u32,
    /// Without the attack.
    pub(crate) quiet: Half,
    /// Under it.
    pub(crate) attacked: Half,
    /// Memory of the attacked node before and at the most.
    pub(crate) resident_before_bytes: u64,
    pub(crate) resident_peak_bytes: u64,
    /// Its open files before, at the most, and after the last attack, and how long the slowest return to about the first took.
    pub(crate) files_before: u64,
    pub(crate) files_peak: u64,
    pub(crate) files_after: u64,
    pub(crate) files_back_secs: f64,
    /// By how much the terms of all shards rose together.
    pub(crate) elections: u64,
    /// Cores that the attackers used.
    pub(crate) attacker_cores: f64,
    /// What the attackers did, over all rounds.
    pub(crate) attackers: Tally,
    /// What did not hold; empty if all did.
    pub(crate) broken: Vec<String>,
}

/// Windows without an attack, or under it.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Half {
    /// Calls that succeeded, those that failed by name, gets that did not find their key, and calls that were due and had not begun.
    pub(crate) operations: u64,
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) not_found: u64,
    pub(crate) waiting: u64,
    /// From when they were due.
    pub(crate) put: Latency,
    pub(crate) get: Latency,
    /// The p99 of each window.
    pub(crate) rounds_p99_ms: Vec<f64>,
    /// Clients that came anew and were served, why others were not, and how long it took.
    pub(crate) newcomers: u64,
    pub(crate) newcomers_failed: Vec<String>,
    pub(crate) newcomer_p50_ms: f64,
    pub(crate) newcomer_worst_ms: f64,
    /// Cores that the attacked node used.
    pub(crate) node_cores: f64,
}

/// Of calls that succeeded.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) worst_ms: f64,
}

impl Line {
    /// Looks what does not hold, and keeps it. Without times nothing is judged that a machine which is busy otherwise may
    /// cause: who came anew and had no answer in time, elections, and the p99.
    pub(crate) fn judge(&mut self, judges_times: bool) {
        let mut broken = Vec::new();
        let attacked = &self.attacked;
        if !attacked.errors.is_empty() {
            broken.push(format!("honest calls failed: {:?}", attacked.errors));
        }
        if attacked.not_found > 0 {
            broken.push(format!("{} keys that exist were not found", attacked.not_found));
        }
        if judges_times && let Some(first) = attacked.newcomers_failed.first() {
            broken.push(format!("{} who came anew were not served, first: {first}", attacked.newcomers_failed.len()));
        }
        if attacked.operations == 0 || attacked.newcomers == 0 {
            broken.push("nobody was served".to_owned());
        }
        for (name, quiet, under) in [("put", self.quiet.put, attacked.put), ("get", self.quiet.get, attacked.get)] {
            let bound_ms = (quiet.p99_ms * P99_TIMES).max(quiet.p99_ms + P99_FLOOR_MS);
            if judges_times && under.p99_ms > bound_ms {
                broken.push(format!("{name} p99 {:.1} ms, {:.1} ms without the attack", under.p99_ms, quiet.p99_ms));
            }
        }
        let growth = self.resident_peak_bytes.saturating_sub(self.resident_before_bytes);
        if growth > RESIDENT_GROWTH_MAX_BYTES {
            broken.push(format!("the node's memory grew by {} MiB", growth / MIB));
        }
        if !files_are_back(self.files_before, self.files_after) {
            broken.push(format!("{} files stay open of {}", self.files_after, self.files_peak));
        }
        if judges_times && self.elections > 0 {
            broken.push(format!("{} elections", self.elections));
        }
        self.broken.extend(broken);
    }

    /// Adds it to a file.
    pub(crate) fn append(&self, path: &Path) -> Result<(), String> {
        let line = serde_json::to_string(self).map_err(|error| error.to_string())?;
        let written =
            File::options().create(true).append(true).open(path).and_then(|mut file| writeln!(file, "{line}"));
        written.map_err(|error| format!("{}: {error}", path.display()))
    }

    /// As a line of the table.
    pub(crate) fn print(&self) {
        let (quiet, attacked) = (&self.quiet, &self.attacked);
        println!(
            "{:<18} {:>5.1} {:>6.1}  {:>5.1} {:>6.1}  {:>5.0} {:>6.0}  {:>6}  {:>4} {:>5}  {:>5} {:>6} {:>5}  {:>4.2} {:>5.2} {:>5.2}  {:>6} {:>7}  {}",
            self.kind,
            quiet.put.p99_ms,
            attacked.put.p99_ms,
            quiet.get.p99_ms,
            attacked.get.p99_ms,
            quiet.newcomer_worst_ms,
            attacked.newcomer_worst_ms,
            attacked.errors.values().sum::<u64>() + attacked.newcomers_failed.len() as u64,
            self.resident_before_bytes / MIB,
            self.resident_peak_bytes / MIB,
            self.files_before,
            self.files_peak,
            self.files_after,
            quiet.node_cores,
            attacked.node_cores,
            self.attacker_cores,
            self.attackers.open_max,
            self.attackers.ended,
            if self.broken.is_empty() { "held" } else { "BROKEN" },
        );
        for broken in &self.broken {
            println!("  VIOLATION {broken}");
        }
    }
}

/// Whether all that attackers had open has been closed.
pub(crate) fn files_are_back(before: u64, now: u64) -> bool {
    now <= before + FILES_LEFT_MAX
}

/// What stands over the table.
pub(crate) fn print_head() {
    println!(
        "{:<18} {:>12}  {:>12}  {:>12}  {:>6}  {:>10}  {:>18}  {:>16}  {:>14}",
        "", "put p99 ms", "get p99 ms", "new, worst ms", "", "RSS MiB", "files", "cores", "connections"
    );
    println!(
        "{:<18} {:>5} {:>6}  {:>5} {:>6}  {:>5} {:>7} {:>6}  {:>4} {:>5}  {:>5} {:>6} {:>5}  {:>4} {:>5} {:>5}  {:>6} {:>7}",
        "attack",
        "quiet",
        "under",
        "quiet",
        "under",
        "quiet",
        "under",
        "errors",
        "from",
        "to",
        "from",
        "most",
        "end",
        "node",
        "under",
        "attkr",
        "open",
        "ended"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line {
        let half = |p99_ms| Half {
            operations: 100,
            newcomers: 5,
            put: Latency { p50_ms: 1.0, p99_ms, worst_ms: 9.0 },
            ..Half::default()
        };
        Line {
            kind: "idle".to_owned(),
            version: "",
            seed: 1,
            rounds: 1,
            secs: 1,
            rate: 1,
            quiet: half(3.0),
            attacked: half(6.0),
            resident_before_bytes: 0,
            resident_peak_bytes: 0,
            files_before: 50,
            files_peak: 10_000,
            files_after: 60,
            files_back_secs: 0.0,
            elections: 0,
            attacker_cores: 0.0,
            attackers: Tally::default(),
            broken: Vec::new(),
        }
    }

    #[test]
    fn what_does_not_hold_is_said() {
        let broken = |change: fn(&mut Line), judges_times| {
            let mut line = line();
            change(&mut line);
            line.judge(judges_times);
            line.broken.len()
        };
        assert_eq!(broken(|_| {}, true), 0);
        assert_eq!(broken(|line| line.attacked.put.p99_ms = 6.1, true), 1);
        assert_eq!(broken(|line| line.attacked.put.p99_ms = 6.1, false), 0);
        assert_eq!(broken(|line| line.quiet.put.p99_ms = 1.0, true), 1);
        assert_eq!(broken(|line| line.attacked.not_found = 1, true), 1);
        assert_eq!(broken(|line| line.attacked.newcomers = 0, true), 1);
        assert_eq!(broken(|line| line.attacked.newcomers_failed = vec!["x".to_owned()], true), 1);
        assert_eq!(broken(|line| line.attacked.errors = [("x".to_owned(), 1)].into(), true), 1);
        assert_eq!(broken(|line| line.resident_peak_bytes = 1 << 30, true), 1);
        assert_eq!(broken(|line| line.files_after = 100, true), 1);
        assert_eq!(broken(|line| line.elections = 1, true), 1);
        assert_eq!(broken(|line| line.elections = 1, false), 0);
    }
}
