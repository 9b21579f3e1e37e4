//! A checker too simple to be wrong: every order of every choice of the open writes, each played on a register.
//!
//! It shares nothing with the real one but the history. Only for a handful of operations.

use std::collections::{BTreeMap, BTreeSet};

use kv_core::{
    command::Condition,
    error::{ErrorKind, Outcome},
};

use crate::history::{Answer, Call, Durability, Name, Operation, Previous, Seen};

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
    let mut register = Register::default();
    order.iter().all(|operation| register.takes(operation)) && register.has_revisions()
}

/// A register as one order has left it.
#[derive(Default)]
struct Register {
    /// The change that put what it holds, and the value.
    held: Option<(usize, Name)>,
    /// For each change: the revision that was told for it.
    told: Vec<Option<u64>>,
}

impl Register {
    /// Whether the operation may come next; if so, it has.
    fn takes(&mut self, operation: &Operation) -> bool {
        match (&operation.call, operation.answer()) {
            (Call::Get { .. }, Some(Answer::Read { entry, .. })) => self.is(entry.as_ref()),
            (Call::Write { condition, .. }, Some(Answer::Failed { current: Some(current), .. })) => {
                let fails = match condition {
                    Condition::Always => false,
                    Condition::Absent => current.0 != 0,
                    Condition::RevisionIs(revision) => revision != current,
                };
                fails && self.is_at(current.0)
            }
            (Call::Write { value, condition, .. }, answer) => self.changes(value.as_ref(), *condition, answer),
            _ => false,
        }
    }

    fn changes(&mut self, value: Option<&Name>, condition: Condition, answer: Option<&Answer>) -> bool {
        let condition_holds = match condition {
            Condition::Always => true,
            Condition::Absent => self.held.is_none(),
            Condition::RevisionIs(revision) => self.is_at(revision.0),
        };
        let (revision, previous) = match answer {
            Some(Answer::Written { revision, previous, .. }) => (Some(revision.0), previous.clone()),
            _ => (None, Previous::Untold),
        };
        let previous_fits = match &previous {
            Previous::Untold => true,
            Previous::Absent => self.held.is_none(),
            Previous::Entry(seen) => self.is(Some(seen)),
        };
        let changes = value.is_some() || self.held.is_some();
        if changes {
            self.told.push(revision);
        }
        self.held = value.map(|value| (self.told.len() - 1, value.clone()));
        let revision_fits = revision.is_none_or(|revision| (revision != 0) == changes);
        condition_holds && previous_fits && revision_fits
    }

    /// Whether it can hold just this.
    fn is(&mut self, seen: Option<&Seen>) -> bool {
        match (seen, &self.held) {
            (None, None) => true,
            (Some(seen), Some((_, name))) => seen.value == *name && self.is_told(seen.revision.0),
            _ => false,
        }
    }

    /// Whether it can be at this revision; 0 if it is empty.
    fn is_at(&mut self, revision: u64) -> bool {
        match self.held {
            None => revision == 0,
            Some(_) => revision != 0 && self.is_told(revision),
        }
    }

    /// Whether what it holds can have this revision: then it has.
    fn is_told(&mut self, revision: u64) -> bool {
        self.held.as_ref().is_some_and(|(change, _)| *self.told[*change].get_or_insert(revision) == revision)
    }

    fn has_revisions(&self) -> bool {
        let mut last = 0;
        self.told.iter().all(|revision| {
            let fits = revision.is_none_or(|revision| revision > last);
            last = revision.unwrap_or(last + 1);
            fits
        })
    }
}
