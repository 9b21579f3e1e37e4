//! Workloads whose values say how they came about: lists that only grow at their end, and counters.
//!
//! Both are made of conditional puts, so all of it follows from the order of each key; but a list that has lost an element in the middle
//! can be seen by anybody, without believing a search.

use kv_core::{error::Outcome, types::Revision};

use super::Status;
use crate::history::{Answer, Call, Operation, Previous, index::Index};

/// A value of a key that is known to have been there: its revision, itself, and by which operation.
type Sight<'a> = (Revision, &'a str, usize);

/// Judges a run of the workload `append` or `counter`.
#[must_use]
pub fn judge(operations: &[Operation], index: &Index, workload: &str) -> Status {
    let (mut keys, mut judged) = (0, 0);
    for (key, places) in index.keys.iter().zip(&index.by_key) {
        // In a run of several workloads a key says to which it belongs.
        let judge_key = match key.as_str().split_once('/').map_or(workload, |(own, _)| own) {
            "append" => list,
            "counter" => counter,
            _ => continue,
        };
        keys += 1;
        let mut sights: Vec<Sight<'_>> = Vec::new();
        for place in places {
            sights.extend(sights_of(&operations[*place], *place));
        }
        sights.sort_unstable();
        judged += sights.len();
        let possible = places.iter().filter(|place| may_have_put(&operations[**place])).count() as u64;
        if let Some((why, shown)) = judge_key(&sights, operations, possible) {
            let shown: Vec<_> = shown.into_iter().map(|place| &operations[place]).collect();
            return Status::violated(why, &shown, operations.len());
        }
    }
    match keys {
        0 => Status::NotAsked("values of this workload say nothing"),
        _ => Status::Held(format!("{keys} lists and counters, {judged} sights of their values")),
    }
}

fn may_have_put(operation: &Operation) -> bool {
    let is_refused = matches!(operation.answer(), Some(Answer::Failed { outcome: Outcome::NotApplied, .. }));
    matches!(operation.call, Call::Write { value: Some(_), .. }) && !is_refused
}

fn sights_of(operation: &Operation, place: usize) -> Vec<Sight<'_>> {
    let mut sights = Vec::new();
    match (&operation.call, operation.answer()) {
        (_, Some(Answer::Read { entry: Some(seen), .. })) => sights.push((seen.revision, seen.value.as_str(), place)),
        (Call::Write { value, .. }, Some(Answer::Written { revision, previous, .. })) => {
            sights.extend(value.as_ref().map(|value| (*revision, value.as_str(), place)));
            if let Previous::Entry(seen) = previous {
                sights.push((seen.revision, seen.value.as_str(), place));
            }
        }
        _ => {}
    }
    sights
}

type Broken = Option<(String, Vec<usize>)>;

fn list(sights: &[Sight<'_>], _: &[Operation], _: u64) -> Broken {
    for pair in sights.windows(2) {
        let ((_, shorter, by), (revision, longer, place)) = (pair[0], pair[1]);
        let goes_on = longer.strip_prefix(shorter).is_some_and(|rest| rest.is_empty() || rest.starts_with(','));
        if !goes_on {
            let lost = shorter.split(',').find(|element| !longer.split(',').any(|kept| kept == *element));
            let why = match lost {
                Some(lost) => format!("element {lost} of the list is gone at revision {revision}"),
                None => format!("the list at revision {revision} does not begin with what it was before"),
            };
            return Some((why, vec![by, place]));
        }
    }
    let (_, longest, place) = *sights.last()?;
    let mut elements: Vec<_> = longest.split(',').collect();
    elements.sort_unstable();
    let twice = elements.windows(2).find(|pair| pair[0] == pair[1])?;
    Some((format!("element {} stands in the list twice", twice[0]), vec![place]))
}

/// Each put of a counter adds one: so it is higher at each revision, and no higher than there were puts.
fn counter(sights: &[Sight<'_>], operations: &[Operation], possible: u64) -> Broken {
    let count = |value: &str| value.split('/').next().and_then(|count| count.parse::<u64>().ok());
    let mut increments = 0;
    for (i, (revision, value, place)) in sights.iter().enumerate() {
        let Some(counted) = count(value) else {
            return Some((format!("{value} is no COUNT/UNIQUE, as values of this workload are"), vec![*place]));
        };
        if let Some((earlier, before, by)) = i.checked_sub(1).map(|before| sights[before])
            && count(before).is_some_and(|before| before > counted || (before == counted && earlier < *revision))
        {
            return Some((
                format!("the counter was changed, and did not go on to more than {counted}"),
                vec![by, *place],
            ));
        }
        let operation = &operations[*place];
        let is_increment = matches!(&operation.call, Call::Write { value: Some(own), .. } if own.as_str() == *value);
        increments += u64::from(is_increment && matches!(operation.answer(), Some(Answer::Written { .. })));
        if increments > counted {
            let why = format!("{increments} increments were acknowledged up to here, and it counts {counted}");
            return Some((why, vec![*place]));
        }
        if counted > possible {
            let why = format!("it counts {counted}, and no more than {possible} increments can have happened");
            return Some((why, vec![*place]));
        }
    }
    None
}
