//! Linearizability per key (Herlihy and Wing 1990): every answer can be explained by one order of the operations in which each
//! takes effect at one moment between its call and its answer.
//!
//! The checker is Wing and Gong's search with Lowe's memo of configurations seen, made nearly free of branching by what our
//! answers tell. [`steps`] turns the operations of a key into what must, may and must not take effect; [`search`] looks for an
//! order; [`shrink`] cuts a history that has none down to its core.
//!
//! Which operation means what:
//! - a linearizable get, a conflict and a write that was done must take effect between call and answer;
//! - a bounded or stale get must have been true at some moment not longer before its call than the age that it told;
//! - a write whose outcome is unknown (an error that says so, no answer, or accepted asynchronously) may take effect at any
//!   moment after its call, or never. If its value was seen, it must have, before it was seen;
//! - a write that `wait_durable` called durable must have taken effect before that answer;
//! - a write that was not applied, or that `wait_durable` called lost, must not: nobody may ever see its value;
//! - revisions grow with every change of the key, and an entry has one revision for ever.
//!
//! A search that is given up after [`STEPS_MAX`] steps counts as a violation: what can't be proven is not claimed.

pub mod search;
pub mod shrink;
pub mod steps;

use std::collections::BTreeMap;

use super::Violation;
use crate::history::{Answer, Call, History, Moment, Name, Operation};
use search::Verdict;

/// The property's name.
pub const NAME: &str = "linearizability";

/// Steps after which the search for one key's order is given up and counted as a violation. A step takes about 100 ns.
pub const STEPS_MAX: u64 = 50_000_000;

/// Checks every key of a history.
///
/// # Errors
/// The first key (in the order of keys) whose operations have no order, shrunk to what is needed to see that.
pub fn check(history: &History) -> Result<(), Violation> {
    for (key, operations) in by_key(history) {
        let verdict = judge(&operations, STEPS_MAX);
        if verdict != Verdict::Linearizable {
            return Err(explain(&key, operations, verdict));
        }
    }
    Ok(())
}

/// Judges the operations of one key, with the `wait_durable`s that concern them.
#[must_use]
pub fn judge(operations: &[Operation], steps_max: u64) -> Verdict {
    match steps::prepare(operations) {
        Ok(steps) => search::search(&steps, steps_max),
        Err(impossible) => Verdict::Impossible(impossible),
    }
}

fn explain(key: &Name, operations: Vec<Operation>, verdict: Verdict) -> Violation {
    let at = operations.iter().filter_map(|operation| operation.completed.as_ref()).map(|(at, _)| *at).max();
    if verdict == Verdict::Undecided {
        let what = format!("key {key}: gave up after {STEPS_MAX} steps over {} operations", operations.len());
        return Violation { property: NAME, what, at: at.unwrap_or_default() };
    }
    let total = operations.len();
    let core = shrink::shrink(operations);
    let mut what = format!("key {key}: no order explains these {} of {total} operations:", core.len());
    for operation in &core {
        what.push_str(&format!("\n  {operation}"));
    }
    what.push_str(&format!("\n  {}", judge(&core, STEPS_MAX).describe()));
    let at = core.iter().filter_map(|operation| operation.completed.as_ref()).map(|(at, _)| *at).max();
    Violation { property: NAME, what, at: at.unwrap_or(Moment::default()) }
}

/// The operations of each key in the order of their calls; a `wait_durable` goes to every key with a write of its token.
fn by_key(history: &History) -> BTreeMap<Name, Vec<Operation>> {
    let mut keys: BTreeMap<Name, Vec<Operation>> = BTreeMap::new();
    let mut keys_of_token: BTreeMap<_, Vec<Name>> = BTreeMap::new();
    for operation in history.operations() {
        let Some(key) = operation.call.key() else { continue };
        keys.entry(key.clone()).or_default().push(operation.clone());
        if let Some(Answer::Accepted { token } | Answer::Written { token: Some(token), .. }) = operation.answer() {
            let holders = keys_of_token.entry(*token).or_default();
            if !holders.contains(key) {
                holders.push(key.clone());
            }
        }
    }
    for operation in history.operations() {
        let Call::WaitDurable { token } = operation.call else { continue };
        for key in keys_of_token.get(&token).into_iter().flatten() {
            keys.entry(key.clone()).or_default().push(operation.clone());
        }
    }
    keys
}

#[cfg(test)]
mod tests;
