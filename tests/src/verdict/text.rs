//! A verdict as text, for a terminal.

use std::fmt::Write;

use super::{Judged, Status, Verdict, Violated, words};
use crate::history::{
    Answer, Call, Operation,
    run::{Run, What},
};

/// How operations ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All.
    pub operations: usize,
    /// Done, or accepted.
    pub ok: usize,
    /// Refused without effect.
    pub fail: usize,
    /// Of unknown outcome, those without an answer included.
    pub unknown: usize,
    /// Different clients.
    pub clients: usize,
    /// Different keys.
    pub keys: usize,
    /// Reads.
    pub gets: usize,
}

impl Counts {
    /// Of these operations.
    #[must_use]
    pub fn of(operations: &[Operation]) -> Self {
        let mut counts = Self { operations: operations.len(), ..Self::default() };
        let mut clients = std::collections::HashSet::new();
        let mut keys = std::collections::HashSet::new();
        for operation in operations {
            match how(operation) {
                How::Ok => counts.ok += 1,
                How::Fail => counts.fail += 1,
                How::Unknown => counts.unknown += 1,
            }
            counts.gets += usize::from(matches!(operation.call, Call::Get { .. }));
            clients.insert(operation.client);
            keys.extend(operation.call.key());
        }
        (counts.clients, counts.keys) = (clients.len(), keys.len());
        counts
    }
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Done, or accepted.
    Ok,
    /// Refused without effect.
    Fail,
    /// Of unknown outcome.
    Unknown,
}

/// How an operation ended.
#[must_use]
pub fn how(operation: &Operation) -> How {
    match operation.answer() {
        None => How::Unknown,
        Some(Answer::Failed { outcome: kv_core::error::Outcome::Unknown, .. }) => How::Unknown,
        Some(Answer::Failed { .. }) => How::Fail,
        Some(_) => How::Ok,
    }
}

/// The verdict in a line.
#[must_use]
pub fn headline(judged: &Judged) -> String {
    let held = judged.findings.iter().filter(|finding| matches!(finding.status, Status::Held(_))).count();
    match judged.verdict() {
        Verdict::Ok => format!("ok: all {held} promises that this history asks for were held"),
        Verdict::Violated => "VIOLATED: what was promised was not held".into(),
        Verdict::Undecided => "UNDECIDED, which is no pass: not everything can be told".into(),
    }
}

/// What the run was, in lines of label and text.
#[must_use]
pub fn about(run: &Run) -> Vec<(&'static str, String)> {
    let about = &run.about;
    let counts = Counts::of(run.history.operations());
    let number = words::number;
    let mut what =
        vec![if about.workload.is_empty() { "a history".to_owned() } else { format!("workload {}", about.workload) }];
    if !about.program.is_empty() {
        what.push(format!("by {} {}", about.program, about.version).trim_end().to_owned());
    }
    what.push(format!("seed {}", about.seed));
    if !about.nodes.is_empty() {
        what.push(format!("{} nodes", about.nodes.len()));
    }
    if about.shards > 0 {
        what.push(format!("{} shards", about.shards));
    }
    what.extend(Some(about.started.clone()).filter(|started| !started.is_empty()));
    let mut lines = vec![("run", what.join(", "))];
    lines.push((
        "history",
        format!(
            "{} operations of {} clients on {} keys in {}: {} ok, {} failed, {} unknown",
            number(counts.operations),
            number(counts.clients),
            number(counts.keys),
            words::span(run.until_micros()),
            number(counts.ok),
            number(counts.fail),
            number(counts.unknown)
        ),
    ));
    let mut faults: std::collections::BTreeMap<&str, usize> = std::collections::BTreeMap::new();
    for event in &run.events {
        if let What::Fault { name, .. } = &event.what {
            *faults.entry(name).or_default() += 1;
        }
    }
    if !faults.is_empty() {
        let faults: Vec<_> = faults.iter().map(|(name, count)| format!("{name} {count}")).collect();
        lines.push(("faults", faults.join(", ")));
    }
    lines
}

/// The whole report.
#[must_use]
pub fn report(run: &Run, judged: &Judged) -> String {
    let mut out = String::new();
    for (label, text) in about(run) {
        let _ = writeln!(out, "{label:<9}{text}");
    }
    let _ = writeln!(out, "verdict  {}\n", headline(judged));
    for finding in &judged.findings {
        let (status, detail) = match &finding.status {
            Status::Held(judged) => ("held", judged.as_str()),
            Status::NotAsked(why) => ("-", *why),
            Status::Undecided(why) => ("UNDECIDED", why.as_str()),
            Status::Violated(_) => ("VIOLATED", "see below"),
        };
        let _ = writeln!(out, "  {status:<10} {}\n  {:<10}   {detail}", finding.promise.words(), "");
    }
    for (promise, violated) in judged.violations() {
        let _ = writeln!(out, "\nVIOLATED: {}\n{}", promise.words(), violation(violated));
    }
    out
}

/// A violation in words, with its operations.
#[must_use]
pub fn violation(violated: &Violated) -> String {
    let mut out = String::new();
    if let Some(key) = &violated.key {
        let _ = write!(out, "key {key}: ");
    }
    let _ = writeln!(out, "{}.", violated.why);
    let (few, all) = (words::number(violated.operations.len()), words::number(violated.among));
    let _ = writeln!(out, "These {few} of {all} operations are enough to see it:\n");
    let rows: Vec<_> = violated.operations.iter().map(row).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; 4] = [0, 1, 2, 3].map(width);
    for row in &rows {
        let [called, answered, client, asked, told] = row;
        let [first, second, third, fourth] = widths;
        let _ =
            writeln!(out, "  {called:>first$} - {answered:<second$}  {client:<third$}  {asked:<fourth$}  -> {told}");
    }
    out
}

fn row(operation: &Operation) -> [String; 5] {
    let seconds = |micros: u64| format!("{}.{:06} s", micros / 1_000_000, micros % 1_000_000);
    let answered = operation.completed.as_ref().map_or("never".into(), |(at, _)| seconds(at.micros));
    [
        seconds(operation.invoked.micros),
        answered,
        format!("client {}", operation.client),
        words::call(&operation.call),
        words::answer(operation),
    ]
}
