//! Cuts a history that has no order down to a small one that has none either.
//!
//! Every cut is a weakening: had the whole history an order, so had what is left. Cutting off the end leaves the open calls
//! open; a step that only looks can always go; a write can go if nothing that is left depends on it; an answer can be
//! forgotten in part.

use kv_core::{command::Condition, types::Revision};

use super::{judge, search::Verdict};
use crate::history::{Answer, Call, Name, Operation, Previous, Seen};

/// Steps after which a trial of a smaller history is given up and the larger one kept.
const TRIAL_STEPS_MAX: u64 = 20_000;
/// Trials after which what is left is shown as it is.
const TRIALS_MAX: usize = 1_000;
/// Longest history, in operations, of which all pairs are tried as a core.
const PAIRS_OPERATIONS_MAX: usize = 600;

/// Cuts the operations of one key, which have no order, to fewer that have none.
#[must_use]
pub fn shrink(operations: Vec<Operation>) -> Vec<Operation> {
    let operations = shortest_beginning(operations);
    small_core(&operations).unwrap_or_else(|| drop_some(operations))
}

/// Most violations show in the last answer, the write that it names, and one or two more operations.
fn small_core(operations: &[Operation]) -> Option<Vec<Operation>> {
    let last = operations.iter().max_by_key(|operation| operation.completed.as_ref().map(|(at, _)| *at))?;
    let mut base = vec![last.clone()];
    if let Some(seen) = seen(last) {
        let writes = |operation: &&Operation| matches!(&operation.call, Call::Write { value: Some(value), .. } if *value == seen.value);
        base.extend(operations.iter().filter(writes).filter(|writer| writer.id != last.id).map(told_less));
    }
    let others: Vec<_> =
        operations.iter().filter(|other| base.iter().all(|known| known.id != other.id)).map(told_less).collect();
    let is_core = |core: &[Operation]| {
        let gone: Vec<_> =
            operations.iter().filter(|other| core.iter().all(|kept| kept.id != other.id)).cloned().collect();
        has_no_order(core) && may_all_go(&gone, core)
    };
    let with = |more: &[&Operation]| {
        let mut core = base.clone();
        core.extend(more.iter().map(|operation| (*operation).clone()));
        core.sort_by_key(|operation| operation.invoked);
        Some(core).filter(|core| is_core(core))
    };
    with(&[]).or_else(|| others.iter().find_map(|other| with(&[other]))).or_else(|| {
        if others.len() > PAIRS_OPERATIONS_MAX {
            return None;
        }
        (0..others.len()).find_map(|i| others[..i].iter().find_map(|other| with(&[other, &others[i]])))
    })
}

/// The operation without the previous entry that it was told.
fn told_less(operation: &Operation) -> Operation {
    let mut operation = operation.clone();
    if let Some((_, Answer::Written { previous, .. })) = &mut operation.completed {
        *previous = Previous::Untold;
    }
    operation
}

fn has_no_order(operations: &[Operation]) -> bool {
    matches!(judge(operations, TRIAL_STEPS_MAX), Verdict::NotLinearizable(_) | Verdict::Impossible(_))
}

/// What was known at an event: later calls did not happen, and later answers did not come.
fn until(operations: &[Operation], event: u64) -> Vec<Operation> {
    let mut kept: Vec<_> = operations.iter().filter(|operation| operation.invoked.event <= event).cloned().collect();
    for operation in &mut kept {
        operation.completed = operation.completed.take().filter(|(at, _)| at.event <= event);
    }
    kept
}

fn shortest_beginning(operations: Vec<Operation>) -> Vec<Operation> {
    let mut answers: Vec<_> =
        operations.iter().filter_map(|operation| operation.completed.as_ref()).map(|(at, _)| at.event).collect();
    answers.sort_unstable();
    // If a beginning has no order, no longer one has: search for the first.
    let first = answers.partition_point(|event| !has_no_order(&until(&operations, *event)));
    match answers.get(first) {
        Some(event) => until(&operations, *event),
        None => operations,
    }
}

fn drop_some(mut operations: Vec<Operation>) -> Vec<Operation> {
    // Open writes hold each other (each might have been what another's condition saw), so all are tried at once.
    let (open, rest): (Vec<_>, Vec<_>) = operations.iter().cloned().partition(Operation::is_open_write);
    if may_all_go(&open, &rest) {
        operations = rest;
    }
    let mut piece = operations.len().div_ceil(2).max(1);
    let mut trials = 0;
    loop {
        let mut dropped = false;
        let mut start = 0;
        while start < operations.len() {
            trials += 1;
            if trials > TRIALS_MAX {
                return operations;
            }
            let end = (start + piece).min(operations.len());
            let mut left = operations.clone();
            let gone: Vec<_> = left.drain(start..end).collect();
            if may_all_go(&gone, &left) {
                operations = left;
                dropped = true;
            } else {
                start = end;
            }
        }
        if piece > 1 {
            piece = piece.div_ceil(2);
        } else if !dropped {
            return operations;
        }
    }
}

/// Whether what is left still has no order, and would have one if the whole had.
fn may_all_go(gone: &[Operation], left: &[Operation]) -> bool {
    match judge(left, TRIAL_STEPS_MAX) {
        // What is refuted without a search depends on nothing but who wrote which value.
        Verdict::Impossible(_) => gone.iter().all(|operation| !is_named(operation, left)),
        Verdict::NotLinearizable(_) => gone.iter().all(|operation| may_go(operation, left)),
        Verdict::Linearizable | Verdict::Undecided => false,
    }
}

fn is_named(operation: &Operation, left: &[Operation]) -> bool {
    match &operation.call {
        Call::Write { value: Some(value), .. } => left.iter().any(|other| names_value(other, value)),
        _ => false,
    }
}

/// Whether an order of the whole stays an order without this operation.
fn may_go(operation: &Operation, left: &[Operation]) -> bool {
    let Call::Write { value, .. } = &operation.call else { return true };
    if matches!(operation.answer(), Some(Answer::Failed { .. })) && !operation.is_open_write() {
        return !is_named(operation, left);
    }
    match value {
        None => !left.iter().any(needs_absence),
        Some(value) => {
            let own = match operation.answer() {
                Some(Answer::Written { revision, .. }) => Some(*revision),
                _ => None,
            };
            !left.iter().any(|other| {
                names_value(other, value)
                    || needs_unnamed_presence(other)
                    // A revision of which it is not known who has it may be that of an open write.
                    || named_revision(other).is_some_and(|revision| own.is_none_or(|own| own == revision))
            })
        }
    }
}

fn seen(operation: &Operation) -> Option<&Seen> {
    match operation.answer()? {
        Answer::Read { entry, .. } => entry.as_ref(),
        Answer::Written { previous: Previous::Entry(seen), .. } => Some(seen),
        _ => None,
    }
}

fn names_value(operation: &Operation, value: &Name) -> bool {
    seen(operation).is_some_and(|seen| seen.value == *value)
}

fn named_revision(operation: &Operation) -> Option<Revision> {
    if let Some(Answer::Failed { current: Some(current), .. }) = operation.answer() {
        return Some(*current);
    }
    match operation.call {
        Call::Write { condition: Condition::RevisionIs(revision), .. } => Some(revision),
        _ => None,
    }
}

fn needs_absence(operation: &Operation) -> bool {
    let told = match operation.answer() {
        Some(Answer::Read { entry, .. }) => entry.is_none(),
        Some(Answer::Written { previous, revision, .. }) => *previous == Previous::Absent || *revision == Revision(0),
        Some(Answer::Failed { current, .. }) => *current == Some(Revision(0)),
        _ => false,
    };
    let asked = match operation.call {
        Call::Write { condition, .. } => {
            condition == Condition::Absent || condition == Condition::RevisionIs(Revision(0))
        }
        _ => false,
    };
    told || asked
}

/// A delete that found something without being told what.
fn needs_unnamed_presence(operation: &Operation) -> bool {
    match (&operation.call, operation.answer()) {
        (Call::Write { value: None, .. }, Some(Answer::Written { revision, previous, .. })) => {
            *revision != Revision(0) && !matches!(previous, Previous::Entry(_))
        }
        _ => false,
    }
}
