//! Revisions grow in real time (ours): a change that was called after another was answered has a higher revision in its shard, a
//! linearizable read says a shard revision no lower than any that was told before, and a revision stands for one entry.
//!
//! All of it follows from a log that is applied in one order. It is judged by itself because it sees over keys, which the order of each
//! key can't, and because it needs no search. Whatever an answer tells counts: of a refused condition the revision that it met instead,
//! and of one that was met the revision that it named.

use kv_core::{
    command::Condition,
    types::{Revision, ShardId},
};

use super::Violation;
use crate::history::{Answer, Call, Consistency, History, Name, Operation, Previous, index::Index};

/// Why revisions can't be as they were told, and which operations show it, by their places in the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// In words.
    pub why: String,
    /// None of them can be left out.
    pub places: Vec<usize>,
}

/// Judges the revisions of a run of which it is known where each key lies.
///
/// # Errors
/// If a revision goes back or stands for two entries.
pub fn check(history: &History, shard_of: impl Fn(&Name) -> ShardId) -> Result<(), Violation> {
    let operations = history.operations();
    let Some(broken) = judge(operations, &Index::with_shards(history, shard_of)) else { return Ok(()) };
    let shown: Vec<_> = broken.places.iter().map(|place| &operations[*place]).collect();
    let told = |operation: &&Operation| operation.completed.as_ref().map_or(operation.invoked, |(at, _)| *at);
    let at = shown.iter().map(told).max().unwrap_or_default();
    let shown: Vec<_> = shown.iter().map(ToString::to_string).collect();
    Err(Violation { property: "revisions", what: format!("{}: {}", broken.why, shown.join("; ")), at })
}

/// Judges the revisions of each shard, as far as the index knows which keys are of one.
#[must_use]
pub fn judge(operations: &[Operation], index: &Index) -> Option<Broken> {
    stands_for_two(operations, index).or_else(|| goes_back(operations, index))
}

/// Judges by the revisions of single keys what readers saw who asked for the latest, and gives how many of them there are.
///
/// # Errors
/// If one saw a key as it was before.
pub fn forward(operations: &[Operation], index: &Index) -> Result<usize, Broken> {
    let mut judged = 0;
    let is_forward = |operation: &Operation, floor: Revision, by: &Operation| {
        let Call::Get { consistency: Consistency::Linearizable, .. } = operation.call else { return true };
        let Some(Answer::Read { entry, .. }) = operation.answer() else { return true };
        judged += 1;
        // An absent key may have been deleted: the search for an order says whether it can have been.
        by.id == operation.id || entry.as_ref().is_none_or(|seen| seen.revision >= floor)
    };
    match before_each_call(operations, index.keys.len(), |place| index.key_of[place], entry_told, is_forward) {
        None => Ok(judged),
        Some((by, place)) => {
            let why = "the second was called after the first was answered, and saw the key as it was before".into();
            Err(Broken { why, places: vec![by, place] })
        }
    }
}

fn goes_back(operations: &[Operation], index: &Index) -> Option<Broken> {
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
    Some(Broken { why, places: vec![by, place] })
}

fn stands_for_two(operations: &[Operation], index: &Index) -> Option<Broken> {
    let mut entries: Vec<Entry<'_>> = Vec::with_capacity(operations.len());
    for (place, operation) in operations.iter().enumerate() {
        let (Some(key), Some(answer)) = (index.key_of[place], operation.answer()) else { continue };
        let mut seen = |revision: Revision, held| entries.push((index.group_of[key], revision, key, held, place));
        match (&operation.call, answer) {
            (_, Answer::Read { entry: Some(entry), at, .. }) => {
                if at.is_some_and(|at| entry.revision > at) {
                    let why = "it tells an entry that is newer than the state in which it found it".into();
                    return Some(Broken { why, places: vec![place] });
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
    Some(Broken { why, places: vec![one, other] })
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

/// The highest revision of the shard that an answer tells: the shard had it by then.
#[must_use]
pub fn highest_told(operation: &Operation) -> Option<Revision> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Moment;

    fn verdict(history: &str) -> Result<(), Violation> {
        check(&history.parse().unwrap(), |_| ShardId(1))
    }

    #[test]
    fn growing_revisions_are_good() {
        let history = "0 c1 1@1 put k a sync => 2@2 written 1\n\
                       1 c1 3@3 put j b sync => 6@6 written 3\n\
                       2 c2 4@4 put k c sync => 5@5 written 2\n\
                       3 c2 7@7 get k linearizable => 8@8 read 2:c at:3 age:0\n\
                       4 c2 9@9 get k stale => 10@10 read 1:a at:1 age:9\n\
                       5 c2 11@11 delete z sync => 12@12 written 0\n";
        assert_eq!(verdict(history), Ok(()));
    }

    #[test]
    fn revisions_that_go_back_over_two_keys_are_bad() {
        let history = "0 c1 1@1 put k a sync => 2@2 written 2\n1 c1 3@3 put j b sync => 4@4 written 1\n";
        assert!(verdict(history).is_err());
        let history =
            "0 c1 1@1 put k a sync => 2@2 written 2\n1 c1 3@3 get j linearizable => 4@4 read absent at:1 age:0\n";
        assert!(verdict(history).is_err());
    }

    #[test]
    fn a_revision_of_two_entries_is_bad() {
        let history = "0 c1 1@1 put k a sync => 3@3 written 2\n1 c2 2@2 put j b sync => 4@4 written 2\n";
        assert!(verdict(history).is_err());
        assert!(verdict("0 c1 1@1 get k stale => 2@2 read 5:a at:4 age:0\n").is_err());
    }

    #[test]
    fn what_a_condition_met_or_named_was_an_entry_of_its_key() {
        let put = "0 c1 1@1 put k a sync => 2@2 written 2\n";
        let then = |then: &str| verdict(&format!("{put}1 c1 3@3 {then}\n"));
        assert_eq!(then("put k b if=rev:9 sync => 4@4 failed Conflict NotApplied current:2"), Ok(()));
        assert_eq!(then("put k b if=rev:2 sync => 4@4 written 3"), Ok(()));
        // A revision of one key is none of another's in the shard.
        assert!(then("put j b if=rev:9 sync => 4@4 failed Conflict NotApplied current:2").is_err());
        assert!(then("put j b if=rev:2 sync => 4@4 written 3").is_err());
        // And none of what a delete left.
        let gone = put.replace("put k a", "delete k");
        assert!(verdict(&format!("{gone}1 c1 3@3 put k b if=rev:2 sync => 4@4 written 3\n")).is_err());
        let elsewhere = format!("{put}1 c1 3@3 put j b if=rev:2 sync => 4@4 written 3\n");
        let shard_of = |key: &Name| ShardId(1 + u64::from(key.as_str() == "j"));
        assert_eq!(check(&elsewhere.parse().unwrap(), shard_of), Ok(()));
    }

    #[test]
    fn a_violation_says_when_it_was_seen_and_by_whom() {
        let history = "0 c1 1@1 put k a sync => 2@2 written 2\n1 c1 3@3 put j b sync => 4@4 written 1\n";
        let violation = verdict(history).unwrap_err();
        assert_eq!(violation.at, Moment { event: 4, micros: 4 });
        assert!(violation.what.contains("put k a") && violation.what.contains("put j b"), "{violation}");
    }
}
