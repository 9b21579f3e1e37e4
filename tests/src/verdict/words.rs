//! Operations in words, for people: what was asked, and what was told.

use kv_core::{command::Condition, error::Outcome};

use crate::history::{Answer, Call, Consistency, Durability, Mode, Operation, Previous};

/// What was asked.
#[must_use]
pub fn call(call: &Call) -> String {
    match call {
        Call::Get { key, consistency } => match consistency {
            Consistency::Linearizable => format!("get {key}"),
            Consistency::Bounded(micros) => format!("get {key}, at most {} old", span(*micros)),
            Consistency::Stale => format!("get {key}, stale"),
        },
        Call::Write { key, value, condition, mode, .. } => {
            let what = match value {
                Some(value) => format!("put {key} = {value}"),
                None => format!("delete {key}"),
            };
            let condition = match condition {
                Condition::Always => String::new(),
                Condition::Absent => " if absent".into(),
                Condition::RevisionIs(revision) => format!(" if at revision {revision}"),
            };
            let mode = if *mode == Mode::Async { ", async" } else { "" };
            what + &condition + mode
        }
        Call::WaitDurable { token } => {
            format!("wait_durable of index {} in term {} of shard {}", token.index, token.term, token.shard)
        }
    }
}

/// What was told.
#[must_use]
pub fn answer(operation: &Operation) -> String {
    match operation.answer() {
        None => "no answer".into(),
        Some(Answer::Read { entry, at, age_micros }) => {
            let found = match entry {
                Some(seen) => format!("{} (revision {})", seen.value, seen.revision),
                None => "absent".into(),
            };
            let at = at.map(|at| format!(", shard at revision {at}")).unwrap_or_default();
            let age = match age_micros {
                0 => String::new(),
                &u64::MAX => ", of unknown age".into(),
                &micros => format!(", at most {} old", span(micros)),
            };
            found + &at + &age
        }
        Some(Answer::Written { revision, previous, .. }) => {
            let previous = match previous {
                Previous::Untold => String::new(),
                Previous::Absent => ", before it: absent".into(),
                Previous::Entry(seen) => format!(", before it: {} (revision {})", seen.value, seen.revision),
            };
            format!("done at revision {revision}{previous}")
        }
        Some(Answer::Accepted { token }) => {
            format!("accepted at index {} in term {} of shard {}", token.index, token.term, token.shard)
        }
        Some(Answer::Durability(Durability::Durable)) => "durable".into(),
        Some(Answer::Durability(Durability::Lost)) => "lost".into(),
        Some(Answer::Durability(Durability::Unknown)) => "too old to tell".into(),
        Some(Answer::Failed { kind, outcome, current }) => {
            let outcome = if *outcome == Outcome::NotApplied { "no effect" } else { "outcome unknown" };
            let current = current.map(|current| format!(", the key is at revision {current}")).unwrap_or_default();
            format!("{kind:?}: {outcome}{current}")
        }
    }
}

/// A span of time as people write it.
#[must_use]
pub fn span(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} us"),
        1_000..1_000_000 => format!("{:.1} ms", micros as f64 / 1e3),
        _ => format!("{:.2} s", micros as f64 / 1e6),
    }
}

/// A number with its thousands apart.
#[must_use]
pub fn number(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
