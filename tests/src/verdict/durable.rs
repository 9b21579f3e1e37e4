//! What may be lost of async writes, and what `wait_durable` says of it.
//!
//! A token names a place in the log of the leader that acknowledged the write. If the place is decided otherwise, so is every
//! later place of that leader's term: what it acknowledged is lost from some index on, and nothing of it before. And it never
//! has more acknowledged than the bound that is not decided yet.

use std::collections::{BTreeMap, HashMap};

use kv_core::types::{LogIndex, ShardId, Term, Token};

use super::{Status, index::token_of};
use crate::history::{Answer, Call, Durability, Name, Operation, Previous, run::Settings};

/// What is known of one leader's term.
#[derive(Default)]
struct Reign {
    /// The first place that is known to be lost, and who was told.
    first_lost: Option<(LogIndex, usize)>,
    /// The last place that is known to be kept, and who was told.
    last_kept: Option<(LogIndex, usize)>,
    /// Async writes that it acknowledged: their places, ascending later.
    accepted: Vec<(LogIndex, usize)>,
}

/// Judges the suffix, and `wait_durable`.
#[must_use]
pub fn judge(operations: &[Operation], settings: &Settings) -> (Status, Status) {
    let mut said: HashMap<Token, (Durability, usize)> = HashMap::new();
    let mut truth = None;
    let mut answers = 0;
    for (place, operation) in operations.iter().enumerate() {
        let (Call::WaitDurable { token }, Some(Answer::Durability(told))) = (&operation.call, operation.answer())
        else {
            continue;
        };
        answers += 1;
        if *told == Durability::Unknown {
            continue;
        }
        let (first, by) = *said.entry(*token).or_insert((*told, place));
        if first != *told && truth.is_none() {
            let why = "wait_durable called one write durable and lost".into();
            truth = Some(Status::violated(why, &[&operations[by], operation], operations.len()));
        }
    }
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
            reign.kept(token.index, place);
        }
    }
    for (token, (told, place)) in said {
        let reign = reigns.entry((token.shard, token.term)).or_default();
        match told {
            Durability::Durable => reign.kept(token.index, *place),
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
            reigns.entry((token.shard, token.term)).or_default().kept(token.index, place);
        }
    }
    reigns
}

impl Reign {
    fn kept(&mut self, index: LogIndex, place: usize) {
        if self.last_kept.is_none_or(|(last, _)| last < index) {
            self.last_kept = Some((index, place));
        }
    }
}

fn suffix(operations: &[Operation], reigns: BTreeMap<(ShardId, Term), Reign>, settings: &Settings) -> Status {
    let mut accepted = 0;
    let mut lost_most = 0;
    for ((shard, term), reign) in reigns {
        accepted += reign.accepted.len();
        let Some((first, lost)) = reign.first_lost else { continue };
        if let Some((kept, by)) = reign.last_kept.filter(|(kept, _)| *kept > first) {
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
