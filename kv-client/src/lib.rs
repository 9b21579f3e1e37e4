//! The client of kv: sends each operation to the node that leads its key, and asks again until it has an answer or its
//! time is up.
//!
//! ```no_run
//! # async fn example() -> kv_client::Result<()> {
//! use kv_client::Client;
//!
//! let client = Client::connect("kv://127.0.0.1:7101,127.0.0.1:7102,127.0.0.1:7103").await?;
//! client.put("hello", "world").await?;
//! if let Some(entry) = client.get("hello").await? {
//!     println!("{:?} at revision {}", entry.value, entry.revision);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What it promises
//! * **A write happens at most once**, however often it had to be sent: each carries a number in a session with its shard.
//! * **Every error says whether the operation may have taken effect** ([`Error::outcome`]): `NotApplied` is certain.
//! * **Every call ends** within its deadline, 5 s unless set otherwise, and retries are part of it. The failure of a node is
//!   latency, as long as a majority of each shard's replicas remains.
//! * Operations that are asked for at once share messages; there is one connection a node, opened when it is needed.
//!
//! # What it leaves out
//! There is no encryption yet: keep the connections within a network that is trusted. An application that stops and starts
//! again begins new sessions: a write with an unknown outcome from before can't be asked about.
//!
//! # Features
//! `cli`, on by default, is the command line `kv`, and brings `load`, a load on a store. An application that embeds the client
//! needs neither: `default-features = false`.
//!
//! # Tests of applications
//! [`testing::MemoryKv`] gives a [`Client`] on a store in memory, with faults on demand.

mod builder;
mod call;
mod client;
mod convert;
mod error;
pub mod forward;
mod link;
mod operation;
mod remote;
mod requests;
mod routing;
mod sessions;
mod status;
mod topology;
mod types;

#[cfg(feature = "load")]
pub mod load;
pub mod testing;

pub use builder::{CONNECT_TIMEOUT_DEFAULT, ClientBuilder, DEADLINE_DEFAULT, ENDPOINTS_MAX};
pub use client::Client;
pub use error::{Error, ErrorKind, Outcome, Result};
pub use kv_core::types::{ClusterId, KEY_BYTES_MAX, LogIndex, MapVersion, Term, VALUE_BYTES_MAX};
pub use requests::{Call, Change, Delete, Deleting, GET_MANY_AT_ONCE, Get, GetMany, Put, Putting, WaitDurable};
pub use status::{
    ClusterStatus, Followed, NodeReport, NodeStatus, ProcessUsage, ReplicaReport, ReplicaStatus, Role, ShardStatus,
};
pub use types::{Consistency, Durability, Entry, Fate, NodeId, Previous, Read, Receipt, Revision, ShardId, Token};
