//! One order explains the answers of each key: linearizability, by the search of [`crate::check::linearizability`].
//!
//! Each key is judged by itself, which is sound: linearizability is local. What other keys tell of it is brought along: a write
//! that was acknowledged early must have taken effect if its leader's log is known to be kept up to there. A search takes so
//! many steps at most; where many writes of unknown outcome hit one key, there may be more orders than anybody can try.

use super::{Status, Violated, durable};
use crate::{
    check::linearizability::{judge as judge_key, search::Verdict, shrink::shrink},
    history::{
        Answer, Call, Consistency, Durability, Operation,
        index::{Index, token_of},
        run::Settings,
    },
};

/// Steps after which the search for one key's order is given up. A step takes about 100 ns, and 50 bytes until the key is done.
pub const STEPS_MAX: u64 = 5_000_000;
/// The same once [`GIVEN_UP_MAX`] keys were given up: the run has not passed any more, and the others shall not take minutes.
pub const STEPS_LATER_MAX: u64 = 100_000;
/// How many keys are given up before the others are searched for a shorter time.
pub const GIVEN_UP_MAX: usize = 4;

/// Judges every key.
#[must_use]
pub fn judge(operations: &[Operation], index: &Index, settings: &Settings) -> Status {
    judge_within(operations, index, settings, STEPS_MAX)
}

/// The same with another number of steps for each key.
#[must_use]
pub fn judge_within(operations: &[Operation], index: &Index, settings: &Settings, steps_max: u64) -> Status {
    if !operations.iter().any(|operation| operation.call.key().is_some() && tells(operation)) {
        return Status::NotAsked("nobody was told anything of a key");
    }
    let kept_early = durable::kept_early(operations);
    let mut given_up: Vec<usize> = Vec::new();
    for (key, places) in index.by_key.iter().enumerate() {
        let mut own: Vec<_> = places.iter().map(|place| judged(&operations[*place], settings)).collect();
        own.extend(places.iter().filter_map(|place| kept(*place, &operations[*kept_early.get(place)?], operations)));
        let steps_max = if given_up.len() < GIVEN_UP_MAX { steps_max } else { steps_max.min(STEPS_LATER_MAX) };
        match judge_key(&own, steps_max) {
            Verdict::Linearizable => {}
            Verdict::Undecided => given_up.push(key),
            verdict => return explain(own, &verdict, operations),
        }
    }
    let Some(first) = given_up.first() else {
        let reads = operations.iter().filter(|operation| matches!(operation.call, Call::Get { .. })).count();
        return Status::Held(format!("{} keys, {reads} reads", index.keys.len()));
    };
    let open = index.by_key[*first].iter().filter(|place| operations[**place].is_open_write()).count();
    Status::Undecided(format!(
        "the search for an order was given up for {} of {} keys, the first being {} after {steps_max} steps over {} operations, \
         {open} of them writes of unknown outcome",
        given_up.len(),
        index.keys.len(),
        index.keys[*first],
        index.by_key[*first].len(),
    ))
}

/// An operation as the search takes it: ages as they may be on the history's clock, and nothing that it does not look at.
fn judged(operation: &Operation, settings: &Settings) -> Operation {
    let Operation { id, client, call, invoked, completed, .. } = operation;
    let (call, invoked, mut completed) = (call.clone(), *invoked, completed.clone());
    if let (Call::Get { consistency: Consistency::Bounded(_) | Consistency::Stale, .. }, Some((_, answer))) =
        (&call, &mut completed)
        && let Answer::Read { age_micros, .. } = answer
    {
        *age_micros = settings.age_micros(*age_micros);
    }
    Operation { id: *id, client: *client, call, invoked, stamps: Vec::new(), completed }
}

/// Whether an answer says something of the key: an error without effect does not.
fn tells(operation: &Operation) -> bool {
    match operation.answer() {
        Some(Answer::Failed { current, .. }) => current.is_some(),
        answer => answer.is_some(),
    }
}

/// That a write which was acknowledged early is kept, as another operation's answer says: as if `wait_durable` had said it then.
fn kept(place: usize, by: &Operation, operations: &[Operation]) -> Option<Operation> {
    let call = Call::WaitDurable { token: token_of(&operations[place])? };
    let (at, _) = by.completed.as_ref()?;
    // A number that no operation of a history has. Where it is called from is where the other is found again.
    let (id, completed) = (u64::MAX - place as u64, Some((*at, Answer::Durability(Durability::Durable))));
    Some(Operation { id, client: by.client, call, invoked: by.invoked, stamps: Vec::new(), completed })
}

fn explain(own: Vec<Operation>, verdict: &Verdict, operations: &[Operation]) -> Status {
    let among = own.len();
    let key = own.iter().find_map(|operation| operation.call.key().cloned());
    let mut core = shrink(own);
    let kept_by_another = core.iter().any(|operation| operations.iter().all(|told| told.id != operation.id));
    let mut why = match judge_key(&core, STEPS_LATER_MAX) {
        Verdict::Impossible(why) => why,
        Verdict::NotLinearizable(_) => "whatever order is tried, one of these answers is wrong".to_owned(),
        _ => verdict.describe(),
    };
    if kept_by_another {
        why += "; what a leader acknowledged is kept if something is that it acknowledged later";
    }
    // Shown as they were told: ages as the nodes said them. What the shrinker forgot of an answer was not needed, but was said.
    for operation in &mut core {
        let told = operations.binary_search_by_key(&operation.invoked, |told| told.invoked).ok();
        if let Some(told) = told.map(|place| &operations[place])
            && operation.completed.is_some()
        {
            *operation = told.clone();
        }
    }
    core.sort_by_key(|operation| operation.invoked);
    core.dedup_by_key(|operation| operation.id);
    Status::Violated(Violated { why, key, operations: core, among })
}
