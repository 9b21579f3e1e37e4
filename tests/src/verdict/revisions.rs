//! Revisions grow in real time, stand for one entry each, and nobody who asks for the latest sees a key go back.
//!
//! The first is of a whole shard: a change that was called after another was answered has the higher revision. All of it follows from
//! a log that is applied in one order; it is judged by itself because it sees over keys, which the order of each key can't, and
//! because it needs no search.

use kv_core::{command::Condition, types::Revision};

use super::{Status, index::Index};
use crate::history::{Answer, Call, Consistency, Name, Operation, Previous};

/// Judges the revisions of shards, and what readers of single keys saw.
#[must_use]
pub fn judge(operations: &[Operation], index: &Index) -> (Status, Status) {
    let shards =
        stands_for_two(operations, index).or_else(|| goes_back(operations, index)).unwrap_or_else(|| match operations
            .iter()
            .filter(|operation| highest_told(operation).is_some())
            .count()
        {
            0 => Status::NotAsked("nobody was told a revision"),
            told => Status::Held(format!("{told} answers, {} shards or single keys", index.groups)),
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

/// The highest revision of the shard that an answer tells: the shard had it by then.
pub(super) fn highest_told(operation: &Operation) -> Option<Revision> {
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

/// What an answer tells of an entry: group, revision, key, what it held, and the operation.
type Entry<'a> = (usize, Revision, usize, Held<'a>, usize);

/// What a key held at a revision, as far as an answer tells.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Held<'a> {
    /// Nothing: it was deleted then.
    Nothing,
    Value(&'a Name),
    /// Something: a condition met this revision.
    Something,
}

fn stands_for_two(operations: &[Operation], index: &Index) -> Option<Status> {
    let mut entries: Vec<Entry<'_>> = Vec::with_capacity(operations.len());
    for (place, operation) in operations.iter().enumerate() {
        let (Some(key), Some(answer)) = (index.key_of[place], operation.answer()) else { continue };
        let mut seen = |revision: Revision, held| entries.push((index.group_of[key], revision, key, held, place));
        match (&operation.call, answer) {
            (_, Answer::Read { entry: Some(entry), at, .. }) => {
                if at.is_some_and(|at| entry.revision > at) {
                    let why = "it tells an entry that is newer than the state in which it found it".into();
                    return Some(Status::violated(why, &[operation], operations.len()));
                }
                seen(entry.revision, Held::Value(&entry.value));
            }
            (Call::Write { value, condition, .. }, Answer::Written { revision, previous, .. }) => {
                seen(*revision, value.as_ref().map_or(Held::Nothing, Held::Value));
                if let Previous::Entry(entry) = previous {
                    seen(entry.revision, Held::Value(&entry.value));
                }
                if let Condition::RevisionIs(revision) = condition {
                    seen(*revision, Held::Something);
                }
            }
            (Call::Write { .. }, Answer::Failed { current: Some(current), .. }) => seen(*current, Held::Something),
            _ => {}
        }
    }
    entries.retain(|(_, revision, ..)| *revision != Revision(0));
    entries.sort_unstable_by_key(|(group, revision, _, held, place)| (*group, *revision, *held, *place));
    let is_same = |one: &Entry<'_>, other: &Entry<'_>| (one.0, one.1) == (other.0, other.1);
    // What says least stands last, and is held against what says most.
    let differ = entries.chunk_by(is_same).find_map(|same| {
        let other = same[1..].iter().find(|other| {
            let is_other_value = other.3 != same[0].3 && (other.3 != Held::Something || same[0].3 == Held::Nothing);
            other.2 != same[0].2 || is_other_value
        });
        Some((same[0], *other?))
    });
    let ((_, revision, .., one), (.., other)) = differ?;
    let why = format!("revision {revision} stands for two different entries of one shard");
    Some(Status::violated(why, &[&operations[one], &operations[other]], operations.len()))
}
