//! Revisions grow in real time, stand for one entry each, and nobody who asks for the latest sees a key go back.
//!
//! The first is of a whole shard: a change that was called after another was answered has the higher revision. All of it follows from
//! a log that is applied in one order; it is judged by itself because it sees over keys, which the order of each key can't, and
//! because it needs no search.

use kv_core::types::Revision;

use super::{Status, index::Index};
use crate::history::{Answer, Call, Consistency, Name, Operation, Previous};

/// Judges the revisions of shards, and what readers of single keys saw.
#[must_use]
pub fn judge(operations: &[Operation], index: &Index) -> (Status, Status) {
    let shards = stands_for_two(operations, index).or_else(|| goes_back(operations, index)).unwrap_or_else(|| {
        let told = operations.iter().filter(|operation| highest_told(operation).is_some()).count();
        Status::Held(format!("{told} answers, {} shards or single keys", index.groups))
    });
    (shards, forward(operations, index))
}

/// An answer that ends an interval: when, in which group, which revision was told, by which operation.
struct Told {
    event: u64,
    group: usize,
    revision: Revision,
    place: usize,
}

fn told_in_order(
    operations: &[Operation],
    group: impl Fn(usize) -> Option<usize>,
    of: fn(&Operation) -> Option<Revision>,
) -> Vec<Told> {
    let told = |(place, operation): (usize, &Operation)| {
        let (at, _) = operation.completed.as_ref()?;
        Some(Told { event: at.event, group: group(place)?, revision: of(operation)?, place })
    };
    let mut all: Vec<_> = operations.iter().enumerate().filter_map(told).collect();
    all.sort_unstable_by_key(|told| told.event);
    all
}

/// Goes through all calls in their order, each with the highest revision that was told in its group before it, and by whom.
fn before_each_call(
    operations: &[Operation],
    groups: usize,
    group: impl Fn(usize) -> Option<usize>,
    of: fn(&Operation) -> Option<Revision>,
    mut judge: impl FnMut(&Operation, Revision, &Operation) -> bool,
) -> Option<(usize, usize)> {
    let mut told = told_in_order(operations, &group, of).into_iter().peekable();
    let mut floors: Vec<Option<(Revision, usize)>> = vec![None; groups];
    for (place, operation) in operations.iter().enumerate() {
        while let Some(told) = told.next_if(|told| told.event < operation.invoked.event) {
            let floor = &mut floors[told.group];
            if floor.is_none_or(|(revision, _)| revision < told.revision) {
                *floor = Some((told.revision, told.place));
            }
        }
        let Some((floor, by)) = group(place).and_then(|group| floors[group]) else { continue };
        if !judge(operation, floor, &operations[by]) {
            return Some((by, place));
        }
    }
    None
}

fn goes_back(operations: &[Operation], index: &Index) -> Option<Status> {
    let group = |place: usize| index.key_of[place].map(|key| index.group_of[key]);
    let grows = |operation: &Operation, floor: Revision, _: &Operation| match (&operation.call, operation.answer()) {
        (Call::Write { .. }, Some(Answer::Written { revision, .. })) => *revision == Revision(0) || *revision > floor,
        (Call::Get { consistency: Consistency::Linearizable, .. }, Some(Answer::Read { at: Some(at), .. })) => {
            *at >= floor
        }
        _ => true,
    };
    let (by, place) = before_each_call(operations, index.groups, group, highest_told, grows)?;
    let why = "the second was called after the first was answered, in the same shard, and was given no higher revision"
        .into();
    Some(Status::violated(why, &[&operations[by], &operations[place]], operations.len()))
}

fn forward(operations: &[Operation], index: &Index) -> Status {
    let mut judged = 0;
    let is_forward = |operation: &Operation, floor: Revision, by: &Operation| {
        let Call::Get { consistency: Consistency::Linearizable, .. } = operation.call else { return true };
        let Some(Answer::Read { entry, .. }) = operation.answer() else { return true };
        judged += 1;
        // An absent key may have been deleted: the search for an order says whether it can have been.
        by.id == operation.id || entry.as_ref().is_none_or(|seen| seen.revision >= floor)
    };
    let found = before_each_call(operations, index.keys.len(), |place| index.key_of[place], entry_told, is_forward);
    match found {
        Some((by, place)) => {
            let why = "the second was called after the first was answered, and saw the key as it was before".into();
            Status::violated(why, &[&operations[by], &operations[place]], operations.len())
        }
        None if judged == 0 => Status::NotAsked("no key was read after something was known of it"),
        None => Status::Held(format!("{judged} reads")),
    }
}

/// The highest revision of the shard that an answer tells.
fn highest_told(operation: &Operation) -> Option<Revision> {
    match operation.answer()? {
        Answer::Read { entry, at, .. } => entry.as_ref().map(|seen| seen.revision).max(*at),
        Answer::Written { revision, .. } => Some(*revision),
        Answer::Failed { current, .. } => *current,
        Answer::Accepted { .. } | Answer::Durability(_) => None,
    }
}

/// The highest revision of the key's own entry that an answer tells.
fn entry_told(operation: &Operation) -> Option<Revision> {
    match operation.answer()? {
        Answer::Read { entry, .. } => entry.as_ref().map(|seen| seen.revision),
        other => match (other, &operation.call) {
            (Answer::Written { revision, .. }, Call::Write { value: Some(_), .. }) => Some(*revision),
            (Answer::Failed { current, .. }, _) => *current,
            _ => None,
        },
    }
}

/// An entry that an answer tells: group, revision, key, value, and the operation.
type Entry<'a> = (usize, Revision, usize, Option<&'a Name>, usize);

fn stands_for_two(operations: &[Operation], index: &Index) -> Option<Status> {
    let mut entries: Vec<Entry<'_>> = Vec::with_capacity(operations.len());
    for (place, operation) in operations.iter().enumerate() {
        let (Some(key), Some(answer)) = (index.key_of[place], operation.answer()) else { continue };
        let mut seen = |revision: Revision, value| entries.push((index.group_of[key], revision, key, value, place));
        match (&operation.call, answer) {
            (_, Answer::Read { entry: Some(entry), at, .. }) => {
                if at.is_some_and(|at| entry.revision > at) {
                    let why = "it tells an entry that is newer than the state in which it found it".into();
                    return Some(Status::violated(why, &[operation], operations.len()));
                }
                seen(entry.revision, Some(&entry.value));
            }
            (Call::Write { value, .. }, Answer::Written { revision, previous, .. }) => {
                seen(*revision, value.as_ref());
                if let Previous::Entry(entry) = previous {
                    seen(entry.revision, Some(&entry.value));
                }
            }
            _ => {}
        }
    }
    entries.retain(|(_, revision, ..)| *revision != Revision(0));
    entries.sort_unstable_by_key(|(group, revision, _, _, place)| (*group, *revision, *place));
    let differ = |pair: &&[Entry<'_>]| {
        let ((group, revision, key, value, _), (other_group, other_revision, other_key, other_value, _)) =
            (pair[0], pair[1]);
        (group, revision) == (other_group, other_revision) && (key, value) != (other_key, other_value)
    };
    let pair = entries.windows(2).find(differ)?;
    let why = format!("revision {} stands for two different entries of one shard", pair[0].1);
    Some(Status::violated(why, &[&operations[pair[0].4], &operations[pair[1].4]], operations.len()))
}
