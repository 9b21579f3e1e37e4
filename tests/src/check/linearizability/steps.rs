//! From the operations of one key to the steps of a search: what must take effect, what may, and what must not.
//!
//! All that can be refuted without a search is refuted here: a value that nobody wrote, a value of a write that was not applied,
//! one entry at two revisions, one revision given twice.

use std::collections::BTreeMap;

use kv_core::{
    command::Condition,
    error::{ErrorKind, Outcome},
    types::{Revision, Token},
};

use crate::history::{Answer, Call, Consistency, Durability, Moment, Name, Operation, Previous, Seen};

/// The operations of one key, ready for the search.
#[derive(Debug)]
pub struct Steps<E = Effect> {
    /// What must take effect, in no order.
    pub must: Vec<Step<E>>,
    /// What may: writes of unknown outcome whose effect nobody is known to have seen.
    pub may: Vec<Step<E>>,
}

impl<E> Default for Steps<E> {
    fn default() -> Self {
        Self { must: Vec::new(), may: Vec::new() }
    }
}

/// One operation that takes effect at one moment.
#[derive(Clone, Debug)]
pub struct Step<E = Effect> {
    /// The operation's number.
    pub id: u64,
    /// It takes effect at or after this event.
    pub from: u64,
    /// It takes effect before this event; `u64::MAX` if there is no end to it.
    pub until: u64,
    /// What it does.
    pub effect: E,
}

/// What a step asks of the register and does to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// The register must hold this: the number of the write that put it, and its revision.
    Read(Option<(u64, Revision)>),
    /// The condition must fail because the register is at this revision; 0 if it is empty.
    Conflict {
        /// The condition.
        condition: Required,
        /// The revision.
        current: Revision,
    },
    /// The register changes.
    Write(Change),
}

/// A change of the register.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// The write's number if its value is put with a known revision, and can thus be seen; `None` for a put of which nobody saw
    /// anything.
    pub named: Option<u64>,
    /// Whether it empties the register.
    pub delete: bool,
    /// What must hold.
    pub condition: Required,
    /// What the register must hold before; the outer `None` if nothing is known of it.
    pub previous: Told,
    /// Its revision if it is known; 0 for a delete of an empty register.
    pub revision: Option<Revision>,
}

/// What a write was told that the register held before; the outer `None` if it was told nothing.
type Told = Option<Option<(u64, Revision)>>;

/// A condition on the register's revision, 0 standing for an empty one; `None` if there is no condition.
pub type Required = Option<Revision>;

/// What is known of one write.
struct Write<'a> {
    operation: &'a Operation,
    fate: Fate,
    revision: Option<Revision>,
    until: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Must,
    May,
    MustNot,
}

/// Turns the operations of one key into steps.
///
/// # Errors
/// In words, what can't be explained by any order.
pub fn prepare(operations: &[Operation]) -> Result<Steps, String> {
    let clock = Clock::of(operations);
    let mut writes = writes_of(operations)?;
    settle_durability(operations, &mut writes)?;
    let by_value = by_value(&writes)?;
    let mut observed = |seen: &Seen, at: Moment| -> Result<(u64, Revision), String> {
        let id =
            *by_value.get(&seen.value).ok_or_else(|| format!("value {} was seen but never written", seen.value))?;
        let write = writes.get_mut(&id).expect("values are indexed from these writes");
        if write.fate == Fate::MustNot {
            return Err(format!("value {} was seen, though operation {id} that wrote it took no effect", seen.value));
        }
        if let Some(revision) = write.revision.filter(|revision| *revision != seen.revision) {
            return Err(format!("value {} was seen at revisions {revision} and {}", seen.value, seen.revision));
        }
        write.revision = Some(seen.revision);
        write.fate = Fate::Must;
        write.until = write.until.min(at.event);
        Ok((id, seen.revision))
    };

    let mut steps = Steps::default();
    let mut previous_of = BTreeMap::new();
    for operation in operations {
        let Some((at, answer)) = &operation.completed else { continue };
        match (&operation.call, answer) {
            (Call::Get { consistency, .. }, Answer::Read { entry, age_micros, .. }) => {
                let from = match consistency {
                    Consistency::Linearizable => operation.invoked.event,
                    Consistency::Bounded(_) | Consistency::Stale => clock.back(operation.invoked, *age_micros),
                };
                let entry = entry.as_ref().map(|seen| observed(seen, *at)).transpose()?;
                steps.must.push(Step { id: operation.id, from, until: at.event, effect: Effect::Read(entry) });
            }
            (
                Call::Write { condition, .. },
                Answer::Failed { kind: ErrorKind::Conflict, current: Some(current), .. },
            ) => {
                let effect = Effect::Conflict { condition: required(*condition), current: *current };
                steps.must.push(Step { id: operation.id, from: operation.invoked.event, until: at.event, effect });
            }
            (Call::Write { .. }, Answer::Written { previous, .. }) => {
                let previous = match previous {
                    Previous::Untold => None,
                    Previous::Absent => Some(None),
                    Previous::Entry(seen) => Some(Some(observed(seen, *at)?)),
                };
                previous_of.insert(operation.id, previous);
            }
            _ => {}
        }
    }
    add_writes(&mut steps, &writes, &previous_of);
    refuse_equal_revisions(&steps.must)?;
    Ok(steps)
}

/// The steps of the writes, once all is known of them.
fn add_writes(steps: &mut Steps, writes: &BTreeMap<u64, Write<'_>>, previous_of: &BTreeMap<u64, Told>) {
    for (id, write) in writes {
        let Call::Write { value, condition, .. } = &write.operation.call else { continue };
        let change = Change {
            named: write.revision.filter(|_| value.is_some()).map(|_| *id),
            delete: value.is_none(),
            condition: required(*condition),
            previous: previous_of.get(id).cloned().flatten(),
            revision: write.revision,
        };
        let step =
            Step { id: *id, from: write.operation.invoked.event, until: write.until, effect: Effect::Write(change) };
        match write.fate {
            Fate::Must => steps.must.push(step),
            Fate::May => steps.may.push(step),
            Fate::MustNot => {}
        }
    }
}

fn required(condition: Condition) -> Required {
    match condition {
        Condition::Always => None,
        Condition::Absent => Some(Revision(0)),
        Condition::RevisionIs(revision) => Some(revision),
    }
}

/// What the answers to the writes themselves tell.
fn writes_of(operations: &[Operation]) -> Result<BTreeMap<u64, Write<'_>>, String> {
    let mut writes = BTreeMap::new();
    for operation in operations {
        let Call::Write { value, .. } = &operation.call else { continue };
        let (fate, revision, until) = match &operation.completed {
            Some((at, Answer::Written { revision, .. })) => {
                if value.is_some() && *revision == Revision(0) {
                    return Err(format!("operation {} put a value and was told revision 0", operation.id));
                }
                (Fate::Must, Some(*revision), at.event)
            }
            Some((_, Answer::Failed { outcome: Outcome::NotApplied, .. })) => (Fate::MustNot, None, u64::MAX),
            None | Some((_, Answer::Accepted { .. } | Answer::Failed { outcome: Outcome::Unknown, .. })) => {
                (Fate::May, None, u64::MAX)
            }
            Some((_, answer)) => return Err(format!("operation {} is a write and was told: {answer}", operation.id)),
        };
        writes.insert(operation.id, Write { operation, fate, revision, until });
    }
    Ok(writes)
}

/// What `wait_durable` told of accepted writes: durable ones must have taken effect before, lost ones never.
fn settle_durability(operations: &[Operation], writes: &mut BTreeMap<u64, Write<'_>>) -> Result<(), String> {
    let mut accepted: BTreeMap<Token, Vec<u64>> = BTreeMap::new();
    for (id, write) in writes.iter() {
        if let Some(Answer::Accepted { token }) = write.operation.answer() {
            accepted.entry(*token).or_default().push(*id);
        }
    }
    for operation in operations {
        let Call::WaitDurable { token: asked } = operation.call else { continue };
        let Some((at, Answer::Durability(told))) = operation.completed.clone() else { continue };
        for id in accepted.get(&asked).into_iter().flatten() {
            let write = writes.get_mut(id).expect("tokens are indexed from these writes");
            let fate = match told {
                Durability::Durable => Fate::Must,
                Durability::Lost => Fate::MustNot,
                Durability::Unknown => continue,
            };
            if write.fate != Fate::May && write.fate != fate {
                return Err(format!("operation {id} was called both durable and lost"));
            }
            write.fate = fate;
            if fate == Fate::Must {
                write.until = write.until.min(at.event);
            }
        }
    }
    Ok(())
}

fn by_value(writes: &BTreeMap<u64, Write<'_>>) -> Result<BTreeMap<Name, u64>, String> {
    let mut by_value = BTreeMap::new();
    for (id, write) in writes {
        if let Call::Write { value: Some(value), .. } = &write.operation.call
            && let Some(other) = by_value.insert(value.clone(), *id)
        {
            return Err(format!("operations {other} and {id} write the same value {value}: the workload is at fault"));
        }
    }
    Ok(by_value)
}

fn refuse_equal_revisions(must: &[Step]) -> Result<(), String> {
    let mut given = BTreeMap::new();
    for step in must {
        if let Effect::Write(Change { revision: Some(revision), .. }) = step.effect
            && revision != Revision(0)
            && let Some(other) = given.insert(revision, step.id)
        {
            return Err(format!("operations {other} and {} were both given revision {revision}", step.id));
        }
    }
    Ok(())
}

/// Turns simulated time into event numbers.
struct Clock {
    moments: Vec<Moment>,
}

impl Clock {
    fn of(operations: &[Operation]) -> Self {
        let answered = operations.iter().filter_map(|operation| operation.completed.as_ref()).map(|(at, _)| *at);
        let mut moments: Vec<_> = operations.iter().map(|operation| operation.invoked).chain(answered).collect();
        moments.sort_unstable();
        Self { moments }
    }

    /// The first event that is not earlier than `micros` before `now`.
    fn back(&self, now: Moment, micros: u64) -> u64 {
        let earliest = now.micros.saturating_sub(micros);
        let first = self.moments.partition_point(|moment| moment.micros < earliest);
        self.moments.get(first).map_or(now.event, |moment| moment.event.min(now.event))
    }
}
