//! The client itself: what an application holds.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    ClientBuilder,
    error::{Error, ErrorKind, Result},
    operation::{Answer, Operation},
    remote::Remote,
    requests::{Delete, Get, GetMany, Put, WaitDurable},
    status::{self, ClusterStatus},
    testing::MemoryKv,
    types::{Consistency, Durability, Token},
};

/// A client of one cluster: cheap to clone, usable from many tasks at once, closed when its last clone is dropped.
///
/// Each operation goes to the node that leads its key's shard, on one connection a node; what concurrent callers ask is
/// joined into batches by itself, so many callers at once are faster than one after the other. Every call has a deadline and
/// is tried again within it: a caller sees the failure of a node as latency.
///
/// # Dropping a future
/// A call ends when its future is dropped. A read is then simply over. A write may have been sent: it happens once or not at
/// all, and nobody will tell which.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    backend: Backend,
    settings: ClientBuilder,
}

#[derive(Debug)]
enum Backend {
    Remote(Remote),
    Memory(MemoryKv),
}

impl Client {
    /// Connects to a cluster with the defaults: see [`ClientBuilder`] for others.
    ///
    /// ```no_run
    /// # async fn example() -> kv_client::Result<()> {
    /// let client = kv_client::Client::connect("kv://127.0.0.1:7101,127.0.0.1:7102").await?;
    /// client.put("hello", "world").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`ClientBuilder::url`] and [`ClientBuilder::connect`].
    pub async fn connect(url: impl AsRef<str>) -> Result<Self> {
        Self::builder().url(url.as_ref())?.connect().await
    }

    /// A client with settings of one's own.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::new()
    }

    /// Reads a key: `Ok(None)` if it is absent.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> kv_client::Result<()> {
    /// # let client = kv_client::testing::MemoryKv::new().client();
    /// # client.put("hello", "world").await?;
    /// use kv_client::Consistency;
    /// use std::time::Duration;
    ///
    /// let entry = client.get("hello").await?.expect("it is there");
    /// assert_eq!(entry.value, "world");
    /// // Any replica may answer, if the answer is at most a second old.
    /// let entry = client.get("hello").consistency(Consistency::Bounded(Duration::from_secs(1))).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `Invalid` if the key is empty or too long; else as [`ErrorKind`] says. The outcome of a read is always `NotApplied`.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Get {
        Get::new(self.clone(), key.as_ref())
    }

    /// Writes a key.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> kv_client::Result<()> {
    /// # let client = kv_client::testing::MemoryKv::new().client();
    /// use kv_client::{ErrorKind, Previous};
    ///
    /// let receipt = client.put("lock", "me").if_absent().await?;
    /// let error = client.put("lock", "you").if_absent().await.unwrap_err();
    /// assert_eq!((error.kind(), error.current()), (ErrorKind::Conflict, receipt.revision));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `Invalid` if key or value is out of bounds, or the options exclude each other; `Conflict` if a condition did not
    /// hold; else as [`ErrorKind`] says. [`Error::outcome`] tells whether it may have happened; it happens at most once.
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Put {
        Put::new(self.clone(), key.as_ref(), value.into())
    }

    /// Deletes a key. Deleting an absent key changes nothing and succeeds, with revision 0.
    ///
    /// # Errors
    /// As [`Client::put`].
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Delete {
        Delete::new(self.clone(), key.as_ref())
    }

    /// Reads many keys at once, each by itself: the answers are in the order of the keys, and together they are no snapshot.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> kv_client::Result<()> {
    /// # let client = kv_client::testing::MemoryKv::new().client();
    /// let entries: Vec<_> = client.get_many(["a", "b"]).await.into_iter().collect::<kv_client::Result<_>>()?;
    /// assert_eq!(entries, [None, None]);
    /// # Ok(()) }
    /// ```
    pub fn get_many<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> GetMany {
        let keys = keys.into_iter().map(|key| Bytes::copy_from_slice(key.as_ref())).collect();
        GetMany::new(self.clone(), keys)
    }

    /// Waits until it is decided what became of an async write.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> kv_client::Result<()> {
    /// # let client = kv_client::testing::MemoryKv::new().client();
    /// use kv_client::{Durability, Fate};
    ///
    /// let receipt = client.put("hello", "world").durability(Durability::Async).await?;
    /// if let Some(token) = receipt.token {
    ///     assert_eq!(client.wait_durable(token).await?, Fate::Durable);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn wait_durable(&self, token: Token) -> WaitDurable {
        WaitDurable::new(self.clone(), token)
    }

    /// How the nodes and shards of the cluster are doing: every node is asked, those that don't answer are listed as such.
    ///
    /// # Errors
    /// `Invalid` for a client in memory.
    pub async fn status(&self) -> Result<ClusterStatus> {
        match &self.inner.backend {
            Backend::Remote(remote) => Ok(status::ask_all(remote).await),
            Backend::Memory(_) => Err(Error::not_applied(ErrorKind::Invalid, "a client in memory has no cluster")),
        }
    }

    pub(crate) fn remote(settings: ClientBuilder, remote: Remote) -> Self {
        Self { inner: Arc::new(Inner { backend: Backend::Remote(remote), settings }) }
    }

    pub(crate) fn memory(memory: MemoryKv) -> Self {
        Self { inner: Arc::new(Inner { backend: Backend::Memory(memory), settings: ClientBuilder::new() }) }
    }

    pub(crate) fn consistency(&self) -> Consistency {
        self.inner.settings.consistency
    }

    pub(crate) fn durability(&self) -> Option<Durability> {
        self.inner.settings.durability
    }

    pub(crate) async fn run(&self, operation: Operation, deadline: Option<Duration>) -> Result<Answer> {
        let deadline = deadline.unwrap_or(self.inner.settings.deadline);
        match &self.inner.backend {
            Backend::Remote(remote) => remote.run(&operation, deadline).await,
            Backend::Memory(memory) => memory.run(operation),
        }
    }
}
