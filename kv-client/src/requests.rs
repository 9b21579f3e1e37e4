//! The builders of single operations: options first, `.await` at the end.

use std::{
    future::{Future, IntoFuture},
    marker::PhantomData,
    pin::Pin,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use kv_core::{
    command::Condition,
    types::{Key, Value},
};

use crate::{
    Client,
    error::{Error, ErrorKind, Result},
    operation::{Answer, Operation, Write},
    types::{Consistency, Durability, Entry, Fate, Read, Receipt, Revision, Token},
};

/// What a builder becomes when it is awaited.
pub type Call<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Most gets of one [`GetMany`] that are under way at once; the next begins when one is answered.
pub const GET_MANY_AT_ONCE: usize = 1_024;

/// A read of one key; made by [`Client::get`].
#[derive(Debug)]
#[must_use = "nothing is read until it is awaited"]
pub struct Get {
    client: Client,
    key: Result<Key>,
    consistency: Option<Consistency>,
    deadline: Option<Duration>,
}

impl Get {
    pub(crate) fn new(client: Client, key: &[u8]) -> Self {
        Self { client, key: key_of(key), consistency: None, deadline: None }
    }

    /// How fresh the answer must be.
    pub fn consistency(mut self, consistency: Consistency) -> Self {
        self.consistency = Some(consistency);
        self
    }

    /// Time for the call.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Reads, and says too how fresh the answer is.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn read(self) -> Result<Read> {
        let consistency = self.consistency.unwrap_or(self.client.consistency());
        let operation = Operation::Get { key: self.key?, consistency };
        match self.client.run(operation, self.deadline).await? {
            Answer::Read(read) => Ok(read),
            other => Err(misfit(&other)),
        }
    }
}

impl IntoFuture for Get {
    type Output = Result<Option<Entry>>;
    type IntoFuture = Call<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async { Ok(self.read().await?.entry) })
    }
}

/// A write of one key, `What` being what is done to it: [`Put`] or [`Delete`].
#[derive(Debug)]
#[must_use = "nothing is written until it is awaited"]
pub struct Change<What> {
    client: Client,
    write: Result<Write>,
    deadline: Option<Duration>,
    what: PhantomData<fn() -> What>,
}

/// Of a [`Change`]: the key gets a value.
#[derive(Debug)]
pub enum Putting {}

/// Of a [`Change`]: the key is deleted.
#[derive(Debug)]
pub enum Deleting {}

/// A put of one key; made by [`Client::put`].
pub type Put = Change<Putting>;

/// A delete of one key; made by [`Client::delete`].
pub type Delete = Change<Deleting>;

impl<What> Change<What> {
    fn of(client: Client, key: &[u8], value: Option<Result<Value>>) -> Self {
        let write = key_of(key).and_then(|key| {
            let value = value.transpose()?;
            Ok(Write { key, value, condition: Condition::Always, return_previous: false, durability: None })
        });
        Self { client, write, deadline: None, what: PhantomData }
    }

    /// Only if the key's revision is this one, 0 for an absent key; otherwise it fails with `Conflict`.
    pub fn if_revision(self, revision: Revision) -> Self {
        self.with(|write| write.condition = Condition::RevisionIs(revision))
    }

    /// Answers what the key held before.
    pub fn return_previous(self) -> Self {
        self.with(|write| write.return_previous = true)
    }

    /// When the write is acknowledged.
    pub fn durability(self, durability: Durability) -> Self {
        self.with(|write| write.durability = Some(durability))
    }

    /// Time for the call.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    fn with(mut self, change: impl FnOnce(&mut Write)) -> Self {
        if let Ok(write) = &mut self.write {
            change(write);
        }
        self
    }
}

impl Put {
    pub(crate) fn new(client: Client, key: &[u8], value: Bytes) -> Self {
        Self::of(client, key, Some(Value::new(value).map_err(Error::from)))
    }

    /// Only if the key is absent; otherwise it fails with `Conflict`.
    pub fn if_absent(self) -> Self {
        self.with(|write| write.condition = Condition::Absent)
    }
}

impl Delete {
    pub(crate) fn new(client: Client, key: &[u8]) -> Self {
        Self::of(client, key, None)
    }
}

impl<What> IntoFuture for Change<What> {
    type Output = Result<Receipt>;
    type IntoFuture = Call<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(run_write(self.client, self.write, self.deadline))
    }
}

/// Reads of many keys, each by itself; made by [`Client::get_many`].
#[derive(Debug)]
#[must_use = "nothing is read until it is awaited"]
pub struct GetMany {
    client: Client,
    keys: Vec<Bytes>,
    consistency: Option<Consistency>,
    deadline: Option<Duration>,
}

impl GetMany {
    pub(crate) fn new(client: Client, keys: Vec<Bytes>) -> Self {
        Self { client, keys, consistency: None, deadline: None }
    }

    /// How fresh the answers must be.
    pub fn consistency(mut self, consistency: Consistency) -> Self {
        self.consistency = Some(consistency);
        self
    }

    /// Time for each get.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }
}

impl IntoFuture for GetMany {
    type Output = Vec<Result<Option<Entry>>>;
    type IntoFuture = Call<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { client, keys, consistency, deadline } = self;
        let gets = keys.into_iter().map(move |key| {
            let get = Get { consistency, deadline, ..Get::new(client.clone(), &key) };
            async { Ok(get.read().await?.entry) }
        });
        Box::pin(stream::iter(gets).buffered(GET_MANY_AT_ONCE).collect())
    }
}

/// A wait for the fate of an async write; made by [`Client::wait_durable`].
#[derive(Debug)]
#[must_use = "nothing is asked until it is awaited"]
pub struct WaitDurable {
    client: Client,
    token: Token,
    deadline: Option<Duration>,
}

impl WaitDurable {
    pub(crate) fn new(client: Client, token: Token) -> Self {
        Self { client, token, deadline: None }
    }

    /// Time for the call.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }
}

impl IntoFuture for WaitDurable {
    type Output = Result<Fate>;
    type IntoFuture = Call<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            match self.client.run(Operation::WaitDurable(self.token), self.deadline).await? {
                Answer::Fate(fate) => Ok(fate),
                other => Err(misfit(&other)),
            }
        })
    }
}

async fn run_write(client: Client, write: Result<Write>, deadline: Option<Duration>) -> Result<Receipt> {
    let mut write = write?;
    write.durability = write.durability.or(client.durability());
    let special = write.condition != Condition::Always || write.return_previous;
    if special && write.durability == Some(Durability::Async) {
        let message = "async is for unconditional writes that don't ask for the previous entry; use sync";
        return Err(Error::not_applied(ErrorKind::Invalid, message));
    }
    match client.run(Operation::Write(write), deadline).await? {
        Answer::Receipt(receipt) => Ok(receipt),
        other => Err(misfit(&other)),
    }
}

fn key_of(key: &[u8]) -> Result<Key> {
    Ok(Key::new(Bytes::copy_from_slice(key))?)
}

/// Both backends answer in kind; this is for the day on which one does not.
fn misfit(answer: &Answer) -> Error {
    Error::not_applied(ErrorKind::Internal, format!("the answer does not fit what was asked: {answer:?}"))
        .with_outcome(crate::Outcome::Unknown)
}
