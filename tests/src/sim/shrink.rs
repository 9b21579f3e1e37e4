//! Cuts a failing run down: the same property must still not hold, with fewer faults, a smaller cluster, less to do, less time.
//!
//! A trial is a whole run of a changed plan. Changes are tried from those that take most away to those that take one fault; what
//! still fails is kept, and all is tried again until nothing changes or the time is up. Which property fails is compared, not
//! in which words: the same bug shows at another moment and another key.
//!
//! *Left out*: the random choices of a run (delays, which node a fault meets) follow from the seed and are not searched. Where a
//! fault is left out, those after it draw other nodes, so that a trial may fail to fail although the fault had no part in it.

use super::{
    plan::{Kept, Plan},
    report::{Counts, Report},
    run,
    trace::Trace,
};
use crate::history::History;

/// A run that fails, as small as it could be made.
pub struct Shrunk {
    /// How it ends.
    pub report: Report,
    /// What its clients saw.
    pub history: History,
    /// Runs that were tried.
    pub trials: u64,
}

/// Cuts a failing run down for as long as `may_go_on` says; asked before each trial.
///
/// # Panics
/// If the run did not fail.
#[must_use]
pub fn shrink(report: Report, history: History, may_go_on: &mut dyn FnMut() -> bool) -> Shrunk {
    let property = report.failure.as_ref().expect("only what fails is shrunk").property;
    let mut search = Search { best: Shrunk { report, history, trials: 0 }, property, may_go_on };
    loop {
        let before = search.best.report.plan.to_text();
        search.shorten();
        search.leave_kinds_out();
        search.make_smaller();
        search.shorten();
        let plan = &search.best.report.plan;
        let (faults, divergences) = (plan.faults_kept.clone(), plan.divergences.kept.clone());
        let (losses, unaware) = (plan.losses.kept.clone(), plan.unaware.kept.clone());
        search.leave_some_out("faults_kept", faults, |counts| counts.faults.iter().sum());
        search.leave_some_out("divergences.kept", divergences, |counts| counts.divergences_drawn);
        search.leave_some_out("losses.kept", losses, |counts| counts.losses_drawn);
        search.leave_some_out("unaware.kept", unaware, |counts| counts.unaware_drawn);
        if search.best.report.plan.to_text() == before {
            return search.best;
        }
    }
}

/// Choices and what they are made, if that is less than they are.
const SMALLER: &[(&str, &[u64])] = &[
    ("nodes", &[3]),
    ("replication", &[3]),
    ("shards", &[1, 2, 4]),
    ("workload.clients", &[1, 2, 3]),
    ("workload.keys", &[1, 3, 12]),
    ("workload.open_max", &[1, 2]),
    ("workload.operations_per_second", &[2, 5, 20]),
    ("workload.async_percent", &[0]),
    ("workload.old_reads_percent", &[0]),
    ("workload.deletes_percent", &[0]),
    ("workload.conditions_percent", &[0]),
    ("workload.previous_percent", &[0]),
    ("workload.value_bytes_max", &[24]),
    ("links.drop_ppm", &[0]),
    ("links.duplicate_ppm", &[0]),
    ("links.late_ppm", &[0]),
    ("links.jitter_micros", &[100]),
    ("drift_ppm_max", &[0]),
    ("costs.install_micros_max", &[0]),
];

struct Search<'a> {
    best: Shrunk,
    property: &'static str,
    may_go_on: &'a mut dyn FnMut() -> bool,
}

impl Search<'_> {
    /// Runs the best plan with changes; if it fails in the same way it is the best.
    fn holds_not_with(&mut self, settings: &[String]) -> bool {
        let mut plan = self.best.report.plan.clone();
        for setting in settings {
            plan.set(setting).expect("the names of choices are right here");
        }
        if plan.to_text() == self.best.report.plan.to_text() || !(self.may_go_on)() {
            return false;
        }
        self.best.trials += 1;
        let (report, history) = run(plan, Trace::new(None));
        let same = report.failure.as_ref().is_some_and(|failure| failure.property == self.property);
        if same {
            self.best.report = report;
            self.best.history = history;
        }
        same
    }

    /// Ends the faults where the property failed, or earlier.
    fn shorten(&mut self) {
        let failed_at = self.best.report.failure.as_ref().map_or(0, |failure| failure.at.micros);
        if failed_at < self.best.report.plan.faults_micros {
            self.holds_not_with(&[format!("faults_micros={}", failed_at + 1)]);
        }
        while self.best.report.plan.faults_micros > 1_000_000
            && self.holds_not_with(&[format!("faults_micros={}", self.best.report.plan.faults_micros / 2)])
        {}
    }

    fn leave_kinds_out(&mut self) {
        let kinds = |plan: &Plan| -> Vec<String> {
            let text = plan.to_text();
            let kinds = text.lines().filter_map(|line| line.split_once(" = "));
            kinds
                .filter(|(name, often)| {
                    let is_kind = name.starts_with("faults.")
                        || name.starts_with("storms.")
                        || [
                            "divergences.often",
                            "losses.often",
                            "unaware.often",
                            "names.often",
                            "operated.stops",
                            "operated.away",
                            "streams_cut",
                            "full_merges",
                        ]
                        .contains(name);
                    is_kind && !name.ends_with(".lasts_micros") && *often != "0"
                })
                .map(|(name, _)| format!("{name}=0"))
                .collect()
        };
        // All at once, half of them, then each.
        let mut pieces = 1;
        loop {
            let all = kinds(&self.best.report.plan);
            let piece = all.len().div_ceil(pieces).max(1);
            for some in all.chunks(piece) {
                self.holds_not_with(some);
            }
            if piece == 1 {
                return;
            }
            pieces *= 2;
        }
    }

    fn make_smaller(&mut self) {
        for (name, values) in SMALLER {
            let prefix = format!("{name} = ");
            for value in *values {
                let text = self.best.report.plan.to_text();
                let now = text.lines().find_map(|line| line.strip_prefix(&prefix)?.parse::<u64>().ok());
                if now.is_none_or(|now| now <= *value) {
                    break;
                }
                let mut settings = vec![format!("{name}={value}")];
                if *name == "nodes" && self.best.report.plan.replication > *value {
                    settings.push(format!("replication={value}"));
                }
                if self.holds_not_with(&settings) {
                    break;
                }
            }
        }
    }

    /// Single faults or divergences, by their numbers, from the last: those before one are as they were.
    fn leave_some_out(&mut self, name: &str, kept: Kept, drawn: fn(&Counts) -> u64) {
        let mut kept: Vec<u64> = match kept {
            Kept::All => (1..=drawn(&self.best.report.counts)).collect(),
            Kept::Only(numbers) => numbers,
        };
        let mut piece = kept.len();
        while piece > 0 {
            let mut end = kept.len();
            while end > 0 {
                let start = end.saturating_sub(piece);
                let left: Vec<u64> = kept[..start].iter().chain(&kept[end..]).copied().collect();
                let numbers: Vec<_> = left.iter().map(u64::to_string).collect();
                let numbers = if left.is_empty() { "none".to_owned() } else { numbers.join(",") };
                if self.holds_not_with(&[format!("{name}={numbers}")]) {
                    kept = left;
                }
                end = start;
            }
            piece /= 2;
        }
    }
}
