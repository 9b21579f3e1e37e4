//! What may be lost of async writes, and what `wait_durable` says of it.
//!
//! A token names a place in the log of the leader that acknowledged the write. If the place is decided otherwise, so is every
//! later place of that leader's term: what it acknowledged is lost from some index on, and nothing of it before. And it never
//! has more acknowledged than the bound that is not decided yet. The other way round, a place that is kept keeps all of that leader's
//! before it: [`kept_early`] gives the writes of which that follows, for the search for an order.
//!
//! Of all terms together: a shard has one log, so a place is decided once, and terms never go back as the log goes on.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};

use kv_core::types::{LogIndex, ShardId, Term, Token};

use super::Status;
use crate::history::{Answer, Call, Durability, Name, Operation, Previous, index::token_of, run::Settings};

/// What is known of one leader's term.
#[derive(Default)]
struct Reign {
    /// The first place that is known to be lost, and who was told.
    first_lost: Option<(LogIndex, usize)>,
    /// The places that are known to be kept, and who was told.
    kept: Vec<(LogIndex, usize)>,
    /// Async writes that it acknowledged: their places, ascending later.
    accepted: Vec<(LogIndex, usize)>,
}

/// Judges the suffix, and `wait_durable`.
#[must_use]
pub fn judge(operations: &[Operation], settings: &Settings) -> (Status, Status) {
    let (said, contradiction) = said(operations);
    let truth = contradiction.map(|(by, place)| {
        let why = "wait_durable called one write durable and lost".into();
        Status::violated(why, &[&operations[by], &operations[place]], operations.len())
    });
    let answers =
        operations.iter().filter(|operation| matches!(operation.answer(), Some(Answer::Durability(_)))).count();
    let reigns = reigns(operations, &said);
    let lost_and_kept = || {
        operations.iter().find_map(|operation| {
            let (Durability::Lost, by) = *said.get(&token_of(operation)?)? else { return None };
            let why = "the write was acknowledged as decided, and wait_durable called it lost".into();
            let is_kept = matches!(operation.answer(), Some(Answer::Written { .. }));
            is_kept.then(|| Status::violated(why, &[operation, &operations[by]], operations.len()))
        })
    };
    let truth = truth.or_else(lost_and_kept).unwrap_or(match answers {
        0 => Status::NotAsked("wait_durable was not called"),
        _ => Status::Held(format!("{answers} answers")),
    });
    (suffix(operations, reigns, settings), truth)
}

/// What wait_durable said of each token first, and who was told; and two that were told otherwise of one token, if any were.
type Said = (HashMap<Token, (Durability, usize)>, Option<(usize, usize)>);

fn said(operations: &[Operation]) -> Said {
    let mut said: HashMap<Token, (Durability, usize)> = HashMap::new();
    let mut contradiction = None;
    for (place, operation) in operations.iter().enumerate() {
        let (Call::WaitDurable { token }, Some(Answer::Durability(told))) = (&operation.call, operation.answer())
        else {
            continue;
        };
        if *told == Durability::Unknown {
            continue;
        }
        let (first, by) = *said.entry(*token).or_insert((*told, place));
        if first != *told {
            contradiction.get_or_insert((by, place));
        }
    }
    (said, contradiction)
}

fn reigns(operations: &[Operation], said: &HashMap<Token, (Durability, usize)>) -> BTreeMap<(ShardId, Term), Reign> {
    let mut reigns: BTreeMap<(ShardId, Term), Reign> = BTreeMap::new();
    let mut by_value: HashMap<&Name, Token> = HashMap::new();
    for (place, operation) in operations.iter().enumerate() {
        let Some(token) = token_of(operation) else { continue };
        let reign = reigns.entry((token.shard, token.term)).or_default();
        if let Some(Answer::Accepted { .. }) = operation.answer() {
            reign.accepted.push((token.index, place));
            if let Call::Write { value: Some(value), .. } = &operation.call {
                by_value.insert(value, token);
            }
        } else {
            reign.kept.push((token.index, place));
        }
    }
    for (token, (told, place)) in said {
        let reign = reigns.entry((token.shard, token.term)).or_default();
        match told {
            Durability::Durable => reign.kept.push((token.index, *place)),
            _ if reign.first_lost.is_none_or(|(first, _)| token.index < first) => {
                reign.first_lost = Some((token.index, *place));
            }
            _ => {}
        }
    }
    for (place, operation) in operations.iter().enumerate() {
        let seen = match operation.answer() {
            Some(Answer::Read { entry: Some(seen), .. } | Answer::Written { previous: Previous::Entry(seen), .. }) => {
                seen
            }
            _ => continue,
        };
        if let Some(token) = by_value.get(&seen.value) {
            reigns.entry((token.shard, token.term)).or_default().kept.push((token.index, place));
        }
    }
    reigns
}

/// Writes that were acknowledged early and whose place is known to be kept: each with the first operation that was told so, if only of
/// a later place of the same leader.
#[must_use]
pub fn kept_early(operations: &[Operation]) -> HashMap<usize, usize> {
    let mut kept = HashMap::new();
    for mut reign in reigns(operations, &said(operations).0).into_values() {
        let event = |place: usize| operations[place].completed.as_ref().map_or(u64::MAX, |(at, _)| at.event);
        reign.kept.sort_unstable();
        reign.accepted.sort_unstable();
        let mut first: Option<usize> = None;
        for (index, accepted) in reign.accepted.into_iter().rev() {
            while let Some((_, place)) = reign.kept.pop_if(|(kept, _)| *kept >= index) {
                first = Some(first.map_or(place, |first| if event(first) <= event(place) { first } else { place }));
            }
            kept.extend(first.map(|first| (accepted, first)));
        }
    }
    kept
}

/// Two places of one shard that can't both be decided as was told.
fn two_logs(operations: &[Operation], reigns: &BTreeMap<(ShardId, Term), Reign>) -> Option<Status> {
    let kept = reigns.iter().flat_map(|((shard, term), reign)| {
        reign.kept.iter().map(move |(index, place)| (*shard, *index, *term, *place))
    });
    let mut kept: Vec<_> = kept.collect();
    kept.sort_unstable();
    let pair = kept.windows(2).find(|pair| {
        let ((shard, index, term, _), (other_shard, other_index, other_term, _)) = (pair[0], pair[1]);
        shard == other_shard && (other_term < term || (index == other_index && term != other_term))
    })?;
    let ((shard, index, term, by), (_, other_index, other_term, other)) = (pair[0], pair[1]);
    let why = format!(
        "of shard {shard} index {index} was decided in term {term}, and index {other_index} in term {other_term}: these are two logs"
    );
    Some(Status::violated(why, &[&operations[by], &operations[other]], operations.len()))
}

fn suffix(operations: &[Operation], reigns: BTreeMap<(ShardId, Term), Reign>, settings: &Settings) -> Status {
    if let Some(broken) = two_logs(operations, &reigns) {
        return broken;
    }
    let mut accepted = 0;
    let mut lost_most = 0;
    for ((shard, term), reign) in reigns {
        accepted += reign.accepted.len();
        let Some((first, lost)) = reign.first_lost else { continue };
        // Who was told first shows it.
        let last_kept = reign.kept.iter().copied().max_by_key(|(kept, by)| (*kept, Reverse(*by)));
        if let Some((kept, by)) = last_kept.filter(|(kept, _)| *kept > first) {
            let why = format!(
                "what shard {shard}'s leader of term {term} acknowledged at index {first} is lost, and what it acknowledged after, at \
                 index {kept}, is kept"
            );
            return Status::violated(why, &[&operations[lost], &operations[by]], operations.len());
        }
        let after: Vec<_> =
            reign.accepted.iter().filter(|(index, _)| *index >= first).map(|(_, place)| *place).collect();
        if after.len() as u64 > settings.async_commands_max {
            let why = format!(
                "shard {shard} lost {} writes that its leader of term {term} had acknowledged, from index {first} on, and may lose {} at \
                 most; the first and the last of them are shown",
                after.len(),
                settings.async_commands_max
            );
            let ends = [after.first(), after.last()].into_iter().flatten().map(|place| &operations[*place]);
            let shown: Vec<_> = ends.chain([&operations[lost]]).collect();
            return Status::violated(why, &shown, operations.len());
        }
        lost_most = lost_most.max(after.len());
    }
    match accepted {
        0 => Status::NotAsked("no write was acknowledged before it was decided"),
        _ => Status::Held(format!("{accepted} writes acknowledged early, {lost_most} lost at most with one leader")),
    }
}
