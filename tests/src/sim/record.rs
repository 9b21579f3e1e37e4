//! From what the core's clients ask and hear to what the history holds.

use kv_core::{
    command::{Action, Previous},
    error::Error,
    io::{self, Answer, Operation},
    types::{Durability, Entry},
};

use crate::history::{self, Name, Seen};

/// A call as the history holds it. Ages are by clocks that may be too slow: what the caller can rely on is a little more.
#[must_use]
pub fn call(operation: &Operation, slow_ppm_max: u64, async_by_default: bool) -> history::Call {
    match operation {
        Operation::Get { key, consistency } => history::Call::Get {
            key: Name::of(key.as_bytes()),
            consistency: match consistency {
                io::Consistency::Linearizable => history::Consistency::Linearizable,
                io::Consistency::Bounded { age_micros_max } => {
                    let slow = 1_000_000 - slow_ppm_max;
                    history::Consistency::Bounded((age_micros_max * 1_000_000).div_ceil(slow) + 1)
                }
                io::Consistency::Stale => history::Consistency::Stale,
            },
        },
        Operation::Write { write, durability } => history::Call::Write {
            key: Name::of(write.key.as_bytes()),
            value: match &write.action {
                Action::Put(value) => Some(Name::of(value.as_bytes())),
                Action::Delete => None,
            },
            condition: write.condition,
            return_previous: write.return_previous,
            mode: match durability {
                Some(Durability::Async) => history::Mode::Async,
                None if async_by_default => history::Mode::Async,
                Some(Durability::Sync) | None => history::Mode::Sync,
            },
        },
        Operation::WaitDurable { token } => history::Call::WaitDurable { token: *token },
        Operation::OpenSession | Operation::TransferLeader { .. } => {
            unreachable!("clients record reads, writes and waits only")
        }
    }
}

/// An answer as the history holds it. Its age is in simulated time already.
#[must_use]
pub fn answer(answer: &Answer) -> history::Answer {
    match answer {
        Answer::Got { entry, revision, age_micros } => history::Answer::Read {
            entry: entry.as_ref().map(seen),
            at: Some(*revision),
            age_micros: age_micros.unwrap_or(u64::MAX),
        },
        Answer::Written { revision, previous, token } => history::Answer::Written {
            revision: *revision,
            previous: match previous {
                Previous::NotAsked | Previous::Unavailable => history::Previous::Untold,
                Previous::Absent => history::Previous::Absent,
                Previous::Entry(entry) => history::Previous::Entry(seen(entry)),
            },
            token: *token,
        },
        Answer::Accepted { token } => history::Answer::Accepted { token: *token },
        Answer::Durable => history::Answer::Durability(history::Durability::Durable),
        Answer::Lost => history::Answer::Durability(history::Durability::Lost),
        Answer::Forgotten => history::Answer::Durability(history::Durability::Unknown),
        Answer::SessionOpened(_) | Answer::TransferBegun => {
            unreachable!("answers to what is not recorded are not recorded")
        }
    }
}

/// A failure as the history holds it.
#[must_use]
pub fn failure(error: &Error) -> history::Answer {
    history::Answer::Failed { kind: error.kind(), outcome: error.outcome(), current: error.current() }
}

/// What was asked, in a word.
#[must_use]
pub fn asked(operation: &Operation) -> &'static str {
    match operation {
        Operation::Get { consistency: io::Consistency::Linearizable, .. } => "get",
        Operation::Get { consistency: io::Consistency::Bounded { .. }, .. } => "get-bounded",
        Operation::Get { consistency: io::Consistency::Stale, .. } => "get-stale",
        Operation::Write { durability: Some(Durability::Async), .. } => "write-async",
        Operation::Write { .. } => "write",
        Operation::WaitDurable { .. } => "wait-durable",
        Operation::OpenSession => "open-session",
        Operation::TransferLeader { .. } => "transfer",
    }
}

/// What was told, in a word.
#[must_use]
pub fn told(answer: &history::Answer) -> &'static str {
    use kv_core::error::{ErrorKind, Outcome};
    match answer {
        history::Answer::Failed { kind: ErrorKind::Conflict, .. } => "conflict",
        history::Answer::Failed { outcome: Outcome::Unknown, .. } => "unknown",
        history::Answer::Failed { .. } => "failed",
        history::Answer::Accepted { .. } => "accepted",
        history::Answer::Durability(history::Durability::Lost) => "lost",
        _ => "ok",
    }
}

fn seen(entry: &Entry) -> Seen {
    Seen { revision: entry.revision, value: Name::of(entry.value.as_bytes()) }
}
