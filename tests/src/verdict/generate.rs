//! Makes a run up: clients in a closed loop on a store that keeps every promise, faults among them, for measuring the judges and for
//! showing what a page looks like.
//!
//! A share of the writes has an unknown outcome; half of those take effect, some of them after their caller was told.

use std::{cmp::Reverse, collections::BinaryHeap};

use kv_core::{
    command::Condition,
    error::{ErrorKind, Outcome},
    types::{LogIndex, Revision, Sequence, SessionId, ShardId, Term, Token},
};

use crate::history::{
    Answer, Call, Consistency, Durability, History, Mode, Moment, Name, Previous, Seen, Stamp,
    run::{About, Run, RunEvent, What},
};

/// What a made-up run looks like.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Operations.
    pub operations: u64,
    /// Clients, each with one operation open.
    pub clients: u64,
    /// Keys, written and read alike often.
    pub keys: u64,
    /// How many of 100 writes have an unknown outcome.
    pub unknown_percent: u64,
    /// The seed.
    pub seed: u64,
}

const SHARDS: u64 = 12;
const LATENCY_MICROS: std::ops::Range<u64> = 400..4_000;
/// For how long a caller waits for an answer that never comes.
const DEADLINE_MICROS: u64 = 50_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Effect(usize),
    Answer(usize),
    Call(u64),
}

struct Open {
    id: u64,
    client: u64,
    call: Call,
    shard: u64,
    answer: Option<Answer>,
    takes_effect: bool,
    is_unknown: bool,
}

struct Store {
    rng: fastrand::Rng,
    held: Vec<Option<Seen>>,
    revisions: Vec<u64>,
    /// The last index of each shard's log: places are in the order of effects.
    indexes: Vec<u64>,
}

/// Makes a run up.
#[must_use]
pub fn run(shape: Shape) -> Run {
    let mut store = Store {
        rng: fastrand::Rng::with_seed(shape.seed),
        held: vec![None; shape.keys.max(1) as usize],
        revisions: vec![0; SHARDS as usize],
        indexes: vec![0; SHARDS as usize],
    };
    let keys: Vec<Name> = (0..shape.keys.max(1)).map(|key| Name::of(format!("k{key}").as_bytes())).collect();
    let mut history = History::default();
    let mut queue: BinaryHeap<Reverse<(u64, Due)>> = BinaryHeap::new();
    queue.extend((0..shape.clients.max(1)).map(|client| Reverse((client * 7, Due::Call(client)))));
    let mut opens: Vec<Open> = Vec::new();
    let mut event = 0;
    let mut last_micros = 0;
    while let Some(Reverse((micros, due))) = queue.pop() {
        last_micros = micros;
        match due {
            Due::Call(_) if opens.len() as u64 >= shape.operations => {}
            Due::Call(client) => {
                event += 1;
                let key = store.rng.usize(0..keys.len());
                let call = store.call(opens.len(), &keys[key], key);
                let id = history.invoke(client, call.clone(), Moment { event, micros });
                let is_unknown = matches!(call, Call::Write { .. }) && store.rng.u64(0..100) < shape.unknown_percent;
                let takes_effect = !is_unknown || store.rng.bool();
                let until = if is_unknown { DEADLINE_MICROS } else { store.rng.u64(LATENCY_MICROS) };
                // What nobody knows of may happen after its caller gave up.
                let effect = if is_unknown { store.rng.u64(0..2 * until) } else { store.rng.u64(0..until) };
                queue.push(Reverse((micros + effect, Due::Effect(opens.len()))));
                queue.push(Reverse((micros + until, Due::Answer(opens.len()))));
                let shard = key as u64 % SHARDS;
                opens.push(Open { id, client, call, shard, answer: None, takes_effect, is_unknown });
            }
            Due::Effect(open) => {
                if opens[open].takes_effect {
                    let answer = store.take_effect(&opens[open], key_number(&opens[open].call));
                    opens[open].answer = Some(answer);
                }
            }
            Due::Answer(open) => {
                let open = &mut opens[open];
                let unknown = Answer::Failed { kind: ErrorKind::Timeout, outcome: Outcome::Unknown, current: None };
                let answer = if open.is_unknown { unknown } else { open.answer.take().unwrap_or(unknown) };
                event += 1;
                if let Call::Write { .. } = open.call {
                    let (session, sequence) = (SessionId(open.client), Sequence(open.id));
                    history.stamp(open.id, Stamp { shard: ShardId(open.shard + 1), session, sequence });
                }
                history.complete(open.id, answer, Moment { event, micros });
                queue.push(Reverse((micros + store.rng.u64(1..200), Due::Call(open.client))));
            }
        }
    }
    let about = About {
        program: "check --generate".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        seed: shape.seed,
        workload: "made-up".into(),
        nodes: ["n1", "n2", "n3"].map(Into::into).to_vec(),
        shards: SHARDS,
        ..About::default()
    };
    Run { about, history, events: events(last_micros, &mut store.rng) }
}

fn key_number(call: &Call) -> usize {
    call.key().and_then(|key| key.as_str()[1..].parse().ok()).unwrap_or_default()
}

/// Faults and changes of leaders, for the page's sake: they do nothing to the store.
fn events(until_micros: u64, rng: &mut fastrand::Rng) -> Vec<RunEvent> {
    let mut events = Vec::new();
    for shard in 1..=SHARDS {
        let (mut at, mut term) = (0, 2);
        while at < until_micros {
            let what = What::Leader { shard, node: rng.u64(1..=3), term };
            events.push(RunEvent { from_micros: at, until_micros: None, what });
            at += rng.u64(until_micros / 6..=until_micros / 2 + 1).max(1);
            term += 1;
        }
    }
    let names = ["kill", "partition", "pause", "power cut", "slow disk"];
    for (turn, name) in (0..).zip(names) {
        let from_micros = until_micros / 6 * turn + until_micros / 15;
        let what = What::Fault { name: name.into(), nodes: vec![rng.u64(1..=3)], detail: String::new() };
        events.push(RunEvent { from_micros, until_micros: Some(from_micros + until_micros / 12), what });
    }
    events
}

impl Store {
    fn call(&mut self, number: usize, key: &Name, place: usize) -> Call {
        let key = key.clone();
        let (condition, mode) = (Condition::Always, Mode::Sync);
        let value = || Some(Name::of(format!("v{number}").as_bytes()));
        match self.rng.u8(0..20) {
            0..9 => Call::Get { key, consistency: Consistency::Linearizable },
            9 => Call::Get { key, consistency: Consistency::Stale },
            10 => Call::Get { key, consistency: Consistency::Bounded(10_000) },
            11..15 => Call::Write { key, value: value(), condition, return_previous: false, mode },
            15..17 => Call::Write { key, value: value(), condition, return_previous: false, mode: Mode::Async },
            17 => Call::Write { key, value: value(), condition, return_previous: true, mode },
            18 => {
                // As it was when the caller last looked: that it still is so is not sure.
                let held = self.held[place].as_ref().map_or(Revision(0), |seen| seen.revision);
                let condition = if self.rng.bool() { Condition::RevisionIs(held) } else { Condition::Absent };
                Call::Write { key, value: value(), condition, return_previous: false, mode }
            }
            _ => Call::Write { key, value: None, condition, return_previous: false, mode },
        }
    }

    fn take_effect(&mut self, open: &Open, key: usize) -> Answer {
        let held = self.held[key].clone();
        let last = &mut self.revisions[open.shard as usize];
        let current = held.as_ref().map_or(Revision(0), |seen| seen.revision);
        match &open.call {
            Call::Get { consistency, .. } => {
                let age_micros = if *consistency == Consistency::Linearizable { 0 } else { 500 };
                Answer::Read { entry: held, at: Some(Revision(*last)), age_micros }
            }
            Call::Write { value, condition, return_previous, mode, .. } => {
                let holds = match condition {
                    Condition::Always => true,
                    Condition::Absent => current == Revision(0),
                    Condition::RevisionIs(revision) => *revision == current,
                };
                if !holds {
                    let (kind, outcome) = (ErrorKind::Conflict, Outcome::NotApplied);
                    return Answer::Failed { kind, outcome, current: Some(current) };
                }
                let previous = match held {
                    _ if !return_previous => Previous::Untold,
                    None => Previous::Absent,
                    Some(seen) => Previous::Entry(seen),
                };
                let changes = value.is_some() || current != Revision(0);
                *last += u64::from(changes);
                let revision = if changes { Revision(*last) } else { Revision(0) };
                self.held[key] = value.clone().map(|value| Seen { revision, value });
                let index = &mut self.indexes[open.shard as usize];
                *index += 1;
                let token = Token { shard: ShardId(open.shard + 1), term: Term(2), index: LogIndex(*index) };
                match mode {
                    Mode::Sync => Answer::Written { revision, previous, token: Some(token) },
                    Mode::Async => Answer::Accepted { token },
                }
            }
            Call::WaitDurable { .. } => Answer::Durability(Durability::Unknown),
        }
    }
}
