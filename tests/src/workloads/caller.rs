//! One client of a run: makes calls and records each with all that it was told.
//!
//! A call is recorded before it is made and its answer after it came, so that the recorded interval holds the real one. A future that
//! is dropped leaves a call without an answer, which the judges take for one that may yet take effect.

use std::time::Duration;

use kv_client::{Client, Durability as Asked, Entry, Error, ErrorKind as ClientKind, Fate, Receipt, Token};
use kv_core::{
    command::Condition,
    error::{ErrorKind, Outcome},
    types::Revision,
};

use crate::history::{Answer, Call, Consistency, Durability, Mode, Name, Previous, Seen, recorder::Recorder};

/// Bytes of a long value.
const LONG_BYTES: usize = 700;

/// A client with a number of its own, one call at a time.
#[derive(Debug)]
pub struct Caller {
    client: Client,
    recorder: Recorder,
    number: u64,
    values: u64,
    /// Time for each call.
    pub deadline: Duration,
}

/// A write that is to be made.
#[derive(Clone, Debug)]
pub struct Change {
    /// The key.
    pub key: String,
    /// The value, of which no other put of the run has the like; `None` deletes.
    pub value: Option<String>,
    /// What must hold for it.
    pub condition: Condition,
    /// Whether the entry before is asked for.
    pub return_previous: bool,
    /// When it may be acknowledged.
    pub mode: Mode,
}

/// What became of a write, as far as the workloads act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It was done.
    Done,
    /// It was acknowledged asynchronously.
    Accepted(Token),
    /// Its condition did not hold.
    Conflict,
    /// It failed otherwise: whether it took effect is in the history.
    Failed,
}

impl Caller {
    /// A client with this number, which no other of the run has.
    #[must_use]
    pub fn new(client: Client, recorder: Recorder, number: u64, deadline: Duration) -> Self {
        Self { client, recorder, number, values: 0, deadline }
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// A text that no other caller of the run makes, and this one never again.
    pub fn unique(&mut self) -> String {
        self.values += 1;
        format!("{}.{}", self.number, self.values)
    }

    /// The same, every third of them so long that a node's read index keeps it in a file of its own.
    pub fn unique_value(&mut self) -> String {
        let value = self.unique();
        let bytes = if self.values.is_multiple_of(3) { LONG_BYTES } else { 0 };
        format!("{value:-<bytes$}")
    }

    /// Reads a key: `None` if that failed.
    pub async fn get(&self, key: &str, consistency: Consistency) -> Option<Option<Entry>> {
        let call = Call::Get { key: Name::of(key.as_bytes()), consistency };
        let asked = match consistency {
            Consistency::Linearizable => kv_client::Consistency::Linearizable,
            Consistency::Bounded(micros) => kv_client::Consistency::Bounded(Duration::from_micros(micros)),
            Consistency::Stale => kv_client::Consistency::Stale,
        };
        let recorded = self.recorder.invoke(self.number, &call);
        let result = self.client.get(key).consistency(asked).deadline(self.deadline).read().await;
        match result {
            Ok(read) => {
                let answer = Answer::Read {
                    entry: read.entry.as_ref().map(seen),
                    at: Some(read.revision),
                    age_micros: read.age.map_or(u64::MAX, micros),
                };
                self.recorder.complete(recorded, &answer, &[]);
                Some(read.entry)
            }
            Err(error) => {
                self.recorder.complete(recorded, &failed(&error), &[]);
                None
            }
        }
    }

    /// Makes a write.
    pub async fn write(&self, change: &Change) -> Told {
        let call = Call::Write {
            key: Name::of(change.key.as_bytes()),
            value: change.value.as_deref().map(Name::whole),
            condition: change.condition,
            return_previous: change.return_previous,
            mode: change.mode,
        };
        let recorded = self.recorder.invoke(self.number, &call);
        let result = self.send(change).await;
        let (answer, told) = match &result {
            Ok(receipt) => written(receipt),
            Err(error) if error.kind() == ClientKind::Conflict => (failed(error), Told::Conflict),
            Err(error) => (failed(error), Told::Failed),
        };
        self.recorder.complete(recorded, &answer, &[]);
        told
    }

    async fn send(&self, change: &Change) -> kv_client::Result<Receipt> {
        let durability = match change.mode {
            Mode::Sync => Asked::Sync,
            Mode::Async => Asked::Async,
        };
        match &change.value {
            Some(value) => {
                let mut put =
                    self.client.put(&change.key, value.clone()).durability(durability).deadline(self.deadline);
                put = match change.condition {
                    Condition::Always => put,
                    Condition::Absent => put.if_absent(),
                    Condition::RevisionIs(revision) => put.if_revision(revision),
                };
                if change.return_previous { put.return_previous().await } else { put.await }
            }
            None => {
                let mut delete = self.client.delete(&change.key).durability(durability).deadline(self.deadline);
                delete = match change.condition {
                    Condition::Always => delete,
                    // A delete has no condition for an absent key of its own: revision 0 stands for one.
                    Condition::Absent => delete.if_revision(Revision(0)),
                    Condition::RevisionIs(revision) => delete.if_revision(revision),
                };
                if change.return_previous { delete.return_previous().await } else { delete.await }
            }
        }
    }

    /// Asks what became of an asynchronous write.
    pub async fn wait_durable(&self, token: Token) {
        let recorded = self.recorder.invoke(self.number, &Call::WaitDurable { token });
        let answer = match self.client.wait_durable(token).deadline(self.deadline).await {
            Ok(Fate::Durable) => Answer::Durability(Durability::Durable),
            Ok(Fate::Lost) => Answer::Durability(Durability::Lost),
            Ok(Fate::Unknown) => Answer::Durability(Durability::Unknown),
            Err(error) => failed(&error),
        };
        self.recorder.complete(recorded, &answer, &[]);
    }
}

fn written(receipt: &Receipt) -> (Answer, Told) {
    match (receipt.revision, receipt.token) {
        (Some(revision), token) => {
            let previous = match &receipt.previous {
                kv_client::Previous::NotAsked | kv_client::Previous::Unavailable => Previous::Untold,
                kv_client::Previous::Absent => Previous::Absent,
                kv_client::Previous::Entry(entry) => Previous::Entry(seen(entry)),
            };
            (Answer::Written { revision, previous, token }, Told::Done)
        }
        (None, Some(token)) => (Answer::Accepted { token }, Told::Accepted(token)),
        // Acknowledged without a place in the log or a revision: nothing that could be judged, so nothing is claimed.
        (None, None) => {
            (Answer::Failed { kind: ErrorKind::Internal, outcome: Outcome::Unknown, current: None }, Told::Failed)
        }
    }
}

fn seen(entry: &Entry) -> Seen {
    let value = match std::str::from_utf8(&entry.value) {
        Ok(text) => Name::whole(text),
        // Nobody wrote this: it will be refused as a value that was never written.
        Err(_) => Name::of(&entry.value),
    };
    Seen { revision: entry.revision, value }
}

fn micros(age: Duration) -> u64 {
    u64::try_from(age.as_micros()).unwrap_or(u64::MAX)
}

fn failed(error: &Error) -> Answer {
    let kind = match error.kind() {
        ClientKind::Unavailable => ErrorKind::NoQuorum,
        ClientKind::Overloaded => ErrorKind::Overloaded,
        ClientKind::DiskFull => ErrorKind::DiskFull,
        ClientKind::Timeout => ErrorKind::Timeout,
        ClientKind::SessionExpired => ErrorKind::SessionExpired,
        ClientKind::Conflict => ErrorKind::Conflict,
        ClientKind::Invalid => ErrorKind::Invalid,
        ClientKind::WrongCluster => ErrorKind::WrongCluster,
        ClientKind::Corrupt => ErrorKind::Corrupt,
        _ => ErrorKind::Internal,
    };
    let outcome = match error.outcome() {
        kv_client::Outcome::NotApplied => Outcome::NotApplied,
        kv_client::Outcome::Unknown => Outcome::Unknown,
    };
    // The client says nothing of the revision of an absent key, which is 0.
    let current = (kind == ErrorKind::Conflict).then(|| error.current().unwrap_or_default());
    Answer::Failed { kind, outcome, current }
}
