//! A store in memory, for the tests of applications: [`MemoryKv::client`] gives an ordinary [`Client`] on it.
//!
//! It behaves as a cluster of one shard that never fails by itself; [`MemoryKv::fail_next`] makes calls fail as a real one
//! may, so that an application's own handling of conflicts, overload and unknown outcomes can be tested. Every write is at
//! once durable, every read linearizable; deadlines never pass.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use kv_core::{
    command::Condition,
    types::{Key, LogIndex, Term},
};

use crate::{
    Client,
    error::{Error, ErrorKind, Outcome, Result},
    operation::{Answer, Operation, Write},
    types::{Durability, Entry, Fate, Previous, Read, Receipt, Revision, ShardId, Token},
};

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is refused, and nothing happens.
    Refuse(ErrorKind),
    /// It never arrives: the deadline passes with an unknown outcome, and nothing happens.
    LoseRequest,
    /// It happens, but the answer is lost: the deadline passes with an unknown outcome.
    LoseAnswer,
}

/// A store in memory.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> kv_client::Result<()> {
/// use kv_client::{Outcome, testing::{Fault, MemoryKv}};
///
/// let kv = MemoryKv::new();
/// let client = kv.client();
/// kv.fail_next(Fault::LoseAnswer);
/// let error = client.put("hello", "world").await.unwrap_err();
/// assert_eq!(error.outcome(), Outcome::Unknown);
/// assert!(client.get("hello").await?.is_some(), "this time it had happened");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
pub struct MemoryKv {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    entries: BTreeMap<Key, (Revision, Bytes)>,
    revision: Revision,
    faults: VecDeque<Fault>,
}

impl MemoryKv {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A client of this store. All its clients see the same entries.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::memory(self.clone())
    }

    /// Makes a call to come fail: the next, if none is waiting to fail yet.
    pub fn fail_next(&self, fault: Fault) {
        self.lock().faults.push_back(fault);
    }

    pub(crate) fn run(&self, operation: Operation) -> Result<Answer> {
        let mut state = self.lock();
        let is_write = matches!(operation, Operation::Write(_));
        let lost = |message: &'static str| {
            let outcome = if is_write { Outcome::Unknown } else { Outcome::NotApplied };
            Error::not_applied(ErrorKind::Timeout, message).with_outcome(outcome)
        };
        match state.faults.pop_front() {
            None => state.apply(operation),
            Some(Fault::Refuse(kind)) => Err(Error::not_applied(kind, "refused by a planned fault")),
            Some(Fault::LoseRequest) => Err(lost("the request was lost by a planned fault")),
            Some(Fault::LoseAnswer) => {
                // Whatever it answers is what is lost.
                let _answer = state.apply(operation);
                Err(lost("the answer was lost by a planned fault"))
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A test that panics elsewhere may still look at what was stored.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn apply(&mut self, operation: Operation) -> Result<Answer> {
        match operation {
            Operation::Get { key, .. } => {
                Ok(Answer::Read(Read { entry: self.entry(&key), revision: self.revision, age: Some(Duration::ZERO) }))
            }
            Operation::Write(write) => self.write(write).map(Answer::Receipt),
            Operation::WaitDurable(token) if token.index.0 <= self.revision.0 => Ok(Answer::Fate(Fate::Durable)),
            Operation::WaitDurable(_) => Ok(Answer::Fate(Fate::Unknown)),
        }
    }

    fn write(&mut self, write: Write) -> Result<Receipt> {
        let held = self.entry(&write.key);
        let current = held.as_ref().map(|entry| entry.revision);
        let holds = match write.condition {
            Condition::Always => true,
            Condition::Absent => held.is_none(),
            // Revision 0 is that of an absent key.
            Condition::RevisionIs(revision) => current.unwrap_or_default() == revision,
        };
        if !holds {
            return Err(kv_core::error::Error::conflict(current.unwrap_or_default()).into());
        }
        let revision = match (write.value, &held) {
            (Some(value), _) => {
                self.revision = self.revision.next();
                self.entries.insert(write.key, (self.revision, value.as_bytes().clone()));
                self.revision
            }
            (None, Some(_)) => {
                self.revision = self.revision.next();
                self.entries.remove(&write.key);
                self.revision
            }
            (None, None) => Revision(0),
        };
        let previous = match (write.return_previous, held) {
            (false, _) => Previous::NotAsked,
            (true, None) => Previous::Absent,
            (true, Some(entry)) => Previous::Entry(entry),
        };
        let token = Token { shard: ShardId(1), term: Term(1), index: LogIndex(self.revision.0) };
        Ok(Receipt { revision: Some(revision), previous, token: Some(token), durability: Durability::Sync })
    }

    fn entry(&self, key: &Key) -> Option<Entry> {
        self.entries.get(key).map(|(revision, value)| Entry { value: value.clone(), revision: *revision })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn writes_are_conditional_and_versioned() {
        let client = MemoryKv::new().client();
        let born = client.put("b", "1").if_revision(Revision(0)).await.unwrap().revision.unwrap();
        let error = client.put("b", "2").if_revision(Revision(0)).await.unwrap_err();
        assert_eq!((error.kind(), error.current()), (ErrorKind::Conflict, Some(born)), "0 stands for an absent key");
        let client = MemoryKv::new().client();
        let first = client.put("a", "1").if_absent().return_previous().await.unwrap();
        assert_eq!((first.revision, first.previous), (Some(Revision(1)), Previous::Absent));
        let error = client.put("a", "2").if_revision(Revision(9)).await.unwrap_err();
        assert_eq!((error.kind(), error.current()), (ErrorKind::Conflict, Some(Revision(1))));
        let second = client.put("a", "2").if_revision(Revision(1)).await.unwrap();
        assert_eq!(second.revision, Some(Revision(2)));
        let gone = client.delete("a").return_previous().await.unwrap();
        let previous = Previous::Entry(Entry { value: "2".into(), revision: Revision(2) });
        assert_eq!((gone.revision, gone.previous), (Some(Revision(3)), previous));
        assert_eq!(client.delete("a").await.unwrap().revision, Some(Revision(0)));
        assert_eq!(client.get("a").await.unwrap(), None);
    }

    #[tokio::test]
    async fn planned_faults_come_in_order_and_then_no_more() {
        let kv = MemoryKv::new();
        let client = kv.client();
        kv.fail_next(Fault::Refuse(ErrorKind::Overloaded));
        kv.fail_next(Fault::LoseRequest);
        let refused = client.put("a", "1").await.unwrap_err();
        assert_eq!((refused.kind(), refused.is_retryable()), (ErrorKind::Overloaded, true));
        let lost = client.put("a", "1").await.unwrap_err();
        assert_eq!((lost.kind(), lost.outcome()), (ErrorKind::Timeout, Outcome::Unknown));
        assert_eq!(client.get("a").await.unwrap(), None);
        client.put("a", "1").await.unwrap();
    }

    #[tokio::test]
    async fn bounds_and_options_are_checked_before_anything_is_sent() {
        let client = MemoryKv::new().client();
        let kind = |error: Error| error.kind();
        assert_eq!(client.get("").await.map_err(kind), Err(ErrorKind::Invalid));
        assert_eq!(client.put("a", vec![0; 1024 * 1024 + 1]).await.map_err(kind), Err(ErrorKind::Invalid));
        let both = client.put("a", "1").if_absent().durability(Durability::Async).await;
        assert_eq!(both.map_err(kind), Err(ErrorKind::Invalid));
        let many = client.get_many(["a", ""]).await;
        assert!(many[0].is_ok() && many[1].is_err());
    }
}
