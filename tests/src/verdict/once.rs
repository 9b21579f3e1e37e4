//! A write takes effect at most once, and not at all if it was refused; and what is read was written.
//!
//! Every value is written by one operation, so whoever sees a value names the write that took effect: at one revision, not at two,
//! and not if its caller was told that it did not. A value that nobody wrote at all is broken in the same way, for reads of any kind.

use std::collections::HashMap;

use kv_core::{error::Outcome, types::Revision};

use super::Status;
use crate::history::{Answer, Call, Durability, Name, Operation, Previous, Seen, Stamp, index::token_of};

/// A put, and the revision at which it was first seen, with the operation that saw it.
struct Put {
    place: usize,
    seen: Option<(Revision, usize)>,
}

/// All puts of a history by their values.
#[derive(Default)]
pub struct Puts<'a>(HashMap<&'a Name, Put>);

impl<'a> Puts<'a> {
    /// The puts of these operations.
    ///
    /// # Errors
    /// In words, which two write the same value: then what is read does not say what was seen.
    pub fn of(operations: &'a [Operation]) -> Result<Self, String> {
        let mut puts: HashMap<&Name, Put> = HashMap::with_capacity(operations.len() / 2);
        for (place, operation) in operations.iter().enumerate() {
            let Call::Write { value: Some(value), .. } = &operation.call else { continue };
            let seen = match operation.answer() {
                Some(Answer::Written { revision, .. }) => Some((*revision, place)),
                _ => None,
            };
            if let Some(other) = puts.insert(value, Put { place, seen }) {
                return Err(format!(
                    "operations {} and {} write the same value {value}, so that a read does not say which it saw: the workload is at fault",
                    operations[other.place].id, operation.id
                ));
            }
        }
        Ok(Self(puts))
    }
}

/// Judges all values that were seen, and the session numbers of writes.
#[must_use]
pub fn judge(operations: &[Operation], Puts(mut puts): Puts<'_>) -> Status {
    if let Some(broken) = session_number_twice(operations) {
        return broken;
    }
    let lost: HashMap<_, _> =
        operations.iter().filter_map(|operation| Some((lost_token(operation)?, operation))).collect();
    let mut judged = 0;
    for (place, operation) in operations.iter().enumerate() {
        let Some(seen) = seen_by(operation) else { continue };
        judged += 1;
        let Some(put) = puts.get_mut(&seen.value) else {
            return Status::violated("it saw a value that nobody wrote".into(), &[operation], operations.len());
        };
        let writer = &operations[put.place];
        if writer.call.key() != operation.call.key() {
            let why = "a value was seen at another key than it was written to".into();
            return Status::violated(why, &[writer, operation], operations.len());
        }
        if matches!(writer.answer(), Some(Answer::Failed { outcome: Outcome::NotApplied, .. })) {
            let why = "the write was said to have taken no effect, and its value was seen".into();
            return Status::violated(why, &[writer, operation], operations.len());
        }
        if let Some(asked) = token_of(writer).and_then(|token| lost.get(&token)).filter(|_| !is_written(writer)) {
            let why = "wait_durable called the write lost, and its value was seen".into();
            return Status::violated(why, &[writer, asked, operation], operations.len());
        }
        let (first, by) = *put.seen.get_or_insert((seen.revision, place));
        if first != seen.revision {
            let why =
                format!("the write took effect twice: its value was seen at revisions {first} and {}", seen.revision);
            return Status::violated(why, &[writer, &operations[by], operation], operations.len());
        }
    }
    match judged {
        0 => Status::NotAsked("no value was seen"),
        _ => Status::Held(format!("{} puts, {judged} sights of their values", puts.len())),
    }
}

fn is_written(operation: &Operation) -> bool {
    matches!(operation.answer(), Some(Answer::Written { .. }))
}

fn lost_token(operation: &Operation) -> Option<kv_core::types::Token> {
    match (&operation.call, operation.answer()) {
        (Call::WaitDurable { token }, Some(Answer::Durability(Durability::Lost))) => Some(*token),
        _ => None,
    }
}

/// The entry that an answer shows.
fn seen_by(operation: &Operation) -> Option<&Seen> {
    match operation.answer()? {
        Answer::Read { entry, .. } => entry.as_ref(),
        Answer::Written { previous: Previous::Entry(seen), .. } => Some(seen),
        _ => None,
    }
}

/// Two writes under one number: the second would be taken for the first, and be lost.
fn session_number_twice(operations: &[Operation]) -> Option<Status> {
    let mut stamps: Vec<(Stamp, usize)> = Vec::new();
    for (place, operation) in operations.iter().enumerate() {
        stamps.extend(operation.stamps.iter().map(|stamp| (*stamp, place)));
    }
    stamps.sort_unstable();
    let pair = stamps.windows(2).find(|pair| pair[0].0 == pair[1].0 && pair[0].1 != pair[1].1)?;
    let why = "two writes were sent under one session number".into();
    Some(Status::violated(why, &[&operations[pair[0].1], &operations[pair[1].1]], operations.len()))
}
