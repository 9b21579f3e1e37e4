//! Makes histories: of an atomic register, which have an order, and mutated ones, which may have none.

use std::collections::BTreeMap;

use kv_core::{
    command::Condition,
    error::{ErrorKind, Outcome},
    types::{LogIndex, Revision, ShardId, Term, Token},
};

use crate::history::{Answer, Call, Consistency, Durability, History, Mode, Moment, Name, Operation, Previous, Seen};

/// What a history looks like.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) operations: u64,
    pub(super) keys: u64,
    /// About how many operations are open at a time.
    pub(super) concurrency: u64,
    /// How many of 100 writes have an unknown outcome.
    pub(super) open_percent: u64,
}

struct Draft {
    call: Call,
    call_time: u64,
    effect_time: u64,
    answer_time: u64,
    answer: Option<Answer>,
}

/// A history of an atomic register per key, whose operations take effect at random moments between call and answer.
pub(super) fn linearizable(rng: &mut fastrand::Rng, shape: Shape) -> History {
    let mut drafts: Vec<_> = (0..shape.operations).map(|i| draft(rng, i, shape)).collect();
    drafts.sort_by_key(|draft| draft.effect_time);
    let mut registers: BTreeMap<Name, Seen> = BTreeMap::new();
    let mut revision = 0;
    let mut waits = Vec::new();
    for (number, draft) in drafts.iter_mut().enumerate() {
        let open = rng.u64(0..100) < shape.open_percent && matches!(draft.call, Call::Write { .. });
        if open && rng.bool() {
            // Never takes effect, and the client may or may not be told so.
            let told = Answer::Failed { kind: ErrorKind::Overloaded, outcome: Outcome::NotApplied, current: None };
            draft.answer = if rng.bool() { Some(told) } else { open_answer(rng, number) };
        } else {
            let answer = take_effect(rng, &draft.call, &mut registers, &mut revision);
            draft.answer = if open { open_answer(rng, number) } else { Some(answer) };
            if let Some(Answer::Accepted { token }) = draft.answer
                && rng.bool()
                && (matches!(draft.call, Call::Write { condition: Condition::Always, .. }))
            {
                let time = draft.answer_time.max(draft.effect_time);
                waits.push((token, time + rng.u64(0..200), time + rng.u64(200..400)));
            }
        }
    }
    for (token, call_time, answer_time) in waits {
        drafts.push(Draft {
            call: Call::WaitDurable { token },
            call_time,
            effect_time: 0,
            answer_time,
            answer: Some(Answer::Durability(Durability::Durable)),
        });
    }
    numbered(drafts)
}

fn draft(rng: &mut fastrand::Rng, number: u64, shape: Shape) -> Draft {
    let mut times = [0; 3].map(|_| number * 100 + rng.u64(0..100 * shape.concurrency));
    times.sort_unstable();
    let key = Name::of(format!("k{}", rng.u64(0..shape.keys)).as_bytes());
    let condition = match rng.u8(0..6) {
        0 => Condition::Absent,
        // Filled in where it takes effect, so that some hold.
        1 => Condition::RevisionIs(Revision(rng.u64(0..4))),
        _ => Condition::Always,
    };
    let call = match rng.u8(0..10) {
        0..5 => Call::Get { key, consistency: Consistency::Linearizable },
        5..9 => Call::Write {
            key,
            value: Some(Name::of(format!("v{number}").as_bytes())),
            condition,
            return_previous: rng.bool(),
            mode: Mode::Sync,
        },
        _ => Call::Write { key, value: None, condition, return_previous: rng.bool(), mode: Mode::Sync },
    };
    Draft { call, call_time: times[0], effect_time: times[1], answer_time: times[2], answer: None }
}

fn open_answer(rng: &mut fastrand::Rng, number: usize) -> Option<Answer> {
    let token = Token { shard: ShardId(1), term: Term(1), index: LogIndex(number as u64) };
    match rng.u8(0..3) {
        0 => None,
        1 => Some(Answer::Accepted { token }),
        _ => Some(Answer::Failed { kind: ErrorKind::Timeout, outcome: Outcome::Unknown, current: None }),
    }
}

fn take_effect(
    rng: &mut fastrand::Rng,
    call: &Call,
    registers: &mut BTreeMap<Name, Seen>,
    last_revision: &mut u64,
) -> Answer {
    let key = call.key().expect("gets and writes have keys");
    let held = registers.get(key).cloned();
    let Call::Write { value, condition, return_previous, .. } = call else {
        return Answer::Read { entry: held, at: None, age_micros: 0 };
    };
    let current = held.as_ref().map_or(Revision(0), |seen| seen.revision);
    let holds = match condition {
        Condition::Always => true,
        Condition::Absent => current == Revision(0),
        Condition::RevisionIs(revision) => *revision == current,
    };
    if !holds {
        let (kind, outcome) = (ErrorKind::Conflict, Outcome::NotApplied);
        return Answer::Failed { kind, outcome, current: Some(current) };
    }
    let mut revision = Revision(0);
    if value.is_some() || held.is_some() {
        // Other keys of the shard take revisions too.
        *last_revision += 1 + u64::from(rng.u8(0..4) == 0);
        revision = Revision(*last_revision);
    }
    match value {
        Some(value) => {
            registers.insert(key.clone(), Seen { revision, value: value.clone() });
        }
        None => {
            registers.remove(key);
        }
    }
    let previous = match held {
        _ if !return_previous => Previous::Untold,
        Some(seen) => Previous::Entry(seen),
        None => Previous::Absent,
    };
    Answer::Written { revision, previous, token: None }
}

/// Gives every call and answer an event number, in the order of their times.
fn numbered(drafts: Vec<Draft>) -> History {
    let mut times: Vec<_> = drafts
        .iter()
        .enumerate()
        .flat_map(|(i, draft)| [(draft.call_time, 0, i), (draft.answer_time.max(draft.call_time), 1, i)])
        .collect();
    times.sort_unstable();
    let mut moments = vec![[Moment::default(); 2]; drafts.len()];
    for (event, (micros, side, i)) in times.into_iter().enumerate() {
        moments[i][side] = Moment { event: event as u64, micros };
    }
    let mut operations: Vec<_> = drafts
        .into_iter()
        .zip(moments)
        .map(|(draft, [invoked, answered])| Operation {
            id: 0,
            client: 1,
            call: draft.call,
            invoked,
            stamps: Vec::new(),
            completed: draft.answer.map(|answer| (answered, answer)),
        })
        .collect();
    operations.sort_by_key(|operation| operation.invoked);
    for (id, operation) in operations.iter_mut().enumerate() {
        operation.id = id as u64;
    }
    History::from_operations(operations)
}

/// The history with one answer changed: by itself, or against that of another operation.
pub(super) fn mutated(rng: &mut fastrand::Rng, history: &History) -> History {
    let mut operations = history.operations().to_vec();
    let i = rng.usize(0..operations.len());
    let seen: Vec<_> = operations.iter().filter_map(seen_or_written).collect();
    let other = (!seen.is_empty()).then(|| seen[rng.usize(0..seen.len())].clone());
    match (&operations[i].call.clone(), &mut operations[i].completed) {
        (Call::Get { .. }, Some((_, Answer::Read { entry, .. }))) => *entry = other,
        (Call::Write { .. }, Some((_, answer @ Answer::Failed { .. }))) => {
            *answer = Answer::Written { revision: Revision(rng.u64(1..9)), previous: Previous::Untold, token: None };
        }
        (Call::Write { .. }, Some((_, Answer::Written { revision, previous, .. }))) => match rng.u8(0..3) {
            0 => *revision = Revision(revision.0 + 1),
            1 => *previous = other.map_or(Previous::Absent, Previous::Entry),
            _ => {
                operations[i].completed.as_mut().expect("matched above").1 =
                    Answer::Failed { kind: ErrorKind::Overloaded, outcome: Outcome::NotApplied, current: None };
            }
        },
        (Call::Write { .. }, Some((_, answer @ Answer::Accepted { .. }))) => {
            *answer = Answer::Failed { kind: ErrorKind::Overloaded, outcome: Outcome::NotApplied, current: None };
        }
        _ => {}
    }
    History::from_operations(operations)
}

fn seen_or_written(operation: &Operation) -> Option<Seen> {
    match (&operation.call, operation.answer()?) {
        (_, Answer::Read { entry, .. }) => entry.clone(),
        (Call::Write { value: Some(value), .. }, Answer::Written { revision, .. }) => {
            Some(Seen { revision: *revision, value: value.clone() })
        }
        _ => None,
    }
}
