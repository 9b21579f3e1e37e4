//! A checker too simple to be wrong: every order of every choice of the open writes, each played on a register.
//!
//! It shares nothing with the real one but the history. Only for a handful of operations.

use std::collections::{BTreeMap, BTreeSet};

use kv_core::{
    command::Condition,
    error::{ErrorKind, Outcome},
};

use crate::history::{Answer, Call, Durability, Name, Operation, Previous};

/// Whether some order explains the operations of one key (without stale reads).
pub(super) fn has_order(operations: &[Operation]) -> bool {
    let lost = tokens(operations, Durability::Lost);
    let durable = tokens(operations, Durability::Durable);
    let values: Vec<_> = operations.iter().filter_map(value).collect();
    if values.iter().collect::<BTreeSet<_>>().len() != values.len() {
        return false;
    }
    let (mut must, mut may) = (Vec::new(), Vec::new());
    for operation in operations {
        let mut until = operation.completed.as_ref().map_or(u64::MAX, |(at, _)| at.event);
        match (&operation.call, operation.answer()) {
            (Call::WaitDurable { .. }, _) | (Call::Get { .. }, None) => continue,
            (_, Some(Answer::Failed { kind, outcome: Outcome::NotApplied, .. })) if *kind != ErrorKind::Conflict => {
                continue;
            }
            (_, None | Some(Answer::Failed { outcome: Outcome::Unknown, .. })) => may.push((operation, u64::MAX)),
            (_, Some(Answer::Accepted { token })) => {
                until = durable.get(token).copied().unwrap_or(u64::MAX);
                match (lost.contains_key(token), durable.contains_key(token)) {
                    (true, true) => return false,
                    (true, false) => {}
                    (false, true) => must.push((operation, until)),
                    (false, false) => may.push((operation, until)),
                }
            }
            _ => must.push((operation, until)),
        }
    }
    (0..1_u32 << may.len()).any(|choice| {
        let chosen = may.iter().enumerate().filter(|(i, _)| choice & (1 << i) != 0).map(|(_, step)| *step);
        let mut left: Vec<_> = must.iter().copied().chain(chosen).collect();
        extend(&mut left, &mut Vec::new())
    })
}

fn tokens(operations: &[Operation], told: Durability) -> BTreeMap<kv_core::types::Token, u64> {
    let mut tokens = BTreeMap::new();
    for operation in operations {
        if let (Call::WaitDurable { token }, Some((at, Answer::Durability(answer)))) =
            (&operation.call, &operation.completed)
            && *answer == told
        {
            let until = tokens.entry(*token).or_insert(at.event);
            *until = (*until).min(at.event);
        }
    }
    tokens
}

fn value(operation: &Operation) -> Option<&Name> {
    match &operation.call {
        Call::Write { value, .. } => value.as_ref(),
        _ => None,
    }
}

type Timed<'a> = (&'a Operation, u64);

fn extend<'a>(left: &mut Vec<Timed<'a>>, order: &mut Vec<&'a Operation>) -> bool {
    if left.is_empty() {
        return play(order);
    }
    for i in 0..left.len() {
        let (operation, _) = left[i];
        if left.iter().any(|(_, until)| *until < operation.invoked.event) {
            continue;
        }
        let step = left.remove(i);
        order.push(operation);
        if extend(left, order) {
            return true;
        }
        order.pop();
        left.insert(i, step);
    }
    false
}

/// Plays an order on a register whose changes get revisions that are unknown at first; in the end it asks whether revisions
/// exist that grow and agree with all that was told.
fn play(order: &[&Operation]) -> bool {
    let mut held: Option<(usize, Name)> = None;
    // For each change: the revision that was told for it.
    let mut told: Vec<Option<u64>> = Vec::new();
    let tell = |told: &mut Vec<Option<u64>>, change: usize, revision: u64| {
        let known = *told[change].get_or_insert(revision);
        known == revision
    };
    for operation in order {
        let entry_is = |told: &mut Vec<Option<u64>>, entry: Option<(u64, &Name)>, held: &Option<(usize, Name)>| match (
            entry, held,
        ) {
            (None, None) => true,
            (Some((revision, value)), Some((change, name))) => {
                value == name && *told[*change].get_or_insert(revision) == revision
            }
            _ => false,
        };
        let ok = match (&operation.call, operation.answer()) {
            (Call::Get { .. }, Some(Answer::Read { entry, .. })) => {
                entry_is(&mut told, entry.as_ref().map(|seen| (seen.revision.0, &seen.value)), &held)
            }
            (Call::Write { condition, .. }, Some(Answer::Failed { current: Some(current), .. })) => {
                let fails = match condition {
                    Condition::Always => false,
                    Condition::Absent => current.0 != 0,
                    Condition::RevisionIs(revision) => revision != current,
                };
                let there = match &held {
                    None => current.0 == 0,
                    Some((change, _)) => current.0 != 0 && tell(&mut told, *change, current.0),
                };
                fails && there
            }
            (Call::Write { value, condition, .. }, answer) => {
                let condition_holds = match (condition, &held) {
                    (Condition::Always, _) | (Condition::Absent, None) => true,
                    (Condition::Absent, Some(_)) => false,
                    (Condition::RevisionIs(revision), None) => revision.0 == 0,
                    (Condition::RevisionIs(revision), Some((change, _))) => {
                        revision.0 != 0 && tell(&mut told, *change, revision.0)
                    }
                };
                let (revision, previous) = match answer {
                    Some(Answer::Written { revision, previous, .. }) => (Some(revision.0), previous.clone()),
                    _ => (None, Previous::Untold),
                };
                let previous_fits = match &previous {
                    Previous::Untold => true,
                    Previous::Absent => held.is_none(),
                    Previous::Entry(seen) => {
                        held.is_some() && entry_is(&mut told, Some((seen.revision.0, &seen.value)), &held)
                    }
                };
                let changes = value.is_some() || held.is_some();
                if changes {
                    told.push(revision);
                }
                held = value.as_ref().map(|value| (told.len() - 1, value.clone()));
                let revision_fits = revision.is_none_or(|revision| (revision != 0) == changes);
                condition_holds && previous_fits && revision_fits
            }
            _ => false,
        };
        if !ok {
            return false;
        }
    }
    let mut last = 0;
    told.into_iter().all(|revision| {
        let fits = revision.is_none_or(|revision| revision > last);
        last = revision.unwrap_or(last + 1);
        fits
    })
}
