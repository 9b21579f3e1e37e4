//! A link: one connection to one node, and the batch stream on it.
//!
//! Callers put operations into a queue ([`Link::call`]); the stream's sending side takes out whatever has queued (`outgoing`)
//! when the transport can take another message, and for sync writes of many callers when the node has sent something (`pacing`), so that the operations of
//! concurrent callers join into one message by themselves; the link's only task reads results and completes the callers (`task`). Nothing is spawned per operation.
//!
//! A link never sends an operation twice and never decides to ask elsewhere: it says whether the operation was handed to the
//! transport, and the caller decides. It connects when there is something to send, not before.

mod outgoing;
mod pacing;
mod shared;
mod slab;
pub(crate) mod task;

use std::{sync::Arc, time::Duration};

use kv_core::types::{ClusterId, Epoch, NodeId, ShardId};
use kv_proto::v1;
use tokio::{runtime::Handle, sync::oneshot, task::AbortHandle, time::Instant};

use shared::{Pending, Shared};

/// Most operations waiting in the queue of one link, those already sent not counted. One more is refused as overloaded.
pub(crate) const QUEUE_OPERATIONS_MAX: usize = 65_536;

/// Most operations sent and not yet answered on one stream, unless the node allows fewer. The rest waits in the queue.
pub(crate) const OUTSTANDING_MAX: usize = 1_024;

/// Milliseconds after which an operation that found too much before it in a link's queue is worth asking again.
pub(crate) const CONGESTED_RETRY_MS: u64 = 20;

/// Most bytes of operations in one message, unless it carries one only. The rest goes into the next message.
pub(crate) const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

/// Longest message taken from a node, in bytes; a longer one breaks the stream.
pub(crate) const RESPONSE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// An idle connection is tried after this time without a frame.
pub(crate) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// A connection that does not answer when it is tried is closed after this time.
pub(crate) const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a link must know and whom it tells.
pub(crate) trait Host: Send + Sync + 'static {
    /// The cluster that is meant, and the version of the map that is known.
    fn known(&self) -> (ClusterId, u64);
    /// A node sent its map.
    fn take_map(&self, map: v1::ShardMap);
}

/// Why there is no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LinkError {
    /// The operation never left.
    NotSent(Arc<str>),
    /// It may have reached the node; the stream broke before the result came.
    Broken(Arc<str>),
    /// It never left: the queue is full.
    Full,
    /// The time was up, and it may have reached the node.
    TimedOut,
    /// The time was up before it could leave: too much is before it in the queue.
    Congested,
}

/// One connection to one node.
#[derive(Debug)]
pub(crate) struct Link {
    address: String,
    shared: Arc<Shared>,
    task: AbortHandle,
}

impl Link {
    /// A link to the node at this address; it connects when there is something to send.
    ///
    /// Its task lives on `runtime` until the link is dropped.
    pub(crate) fn open(
        runtime: &Handle,
        node: NodeId,
        address: String,
        connect_timeout: Duration,
        host: Arc<dyn Host>,
    ) -> Self {
        let shared = Arc::new(Shared::new(runtime.runtime_flavor()));
        let task = task::Task { node, address: address.clone(), connect_timeout, shared: shared.clone(), host };
        let task = runtime.spawn(task.run()).abort_handle();
        Self { address, shared, task }
    }

    /// Where the link goes.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Sends one operation and waits for its result, at most until `until`. The node is told `deadline`.
    ///
    /// Dropping the future takes the operation out of the queue, if it is still there.
    ///
    /// # Errors
    /// If there is no result; the error says whether the operation may have reached the node.
    pub(crate) async fn call(
        &self,
        shard: ShardId,
        epoch: Epoch,
        operation: v1::op::Operation,
        deadline: Instant,
        until: Instant,
    ) -> Result<Option<v1::result::Result>, LinkError> {
        let (reply, mut result) = oneshot::channel();
        let (bytes, hurries) = (bytes_about(&operation), !is_sync_write(&operation));
        let number = self.shared.push(Pending { shard, epoch, operation, deadline, bytes, hurries, reply })?;
        if let Ok(received) = tokio::time::timeout_at(until, &mut result).await {
            return received.unwrap_or_else(|_| Err(LinkError::Broken("the client was closed".into())));
        }
        // Close first, ask then: from here on the operation is not taken out of the queue any more.
        result.close();
        match result.try_recv() {
            Ok(received) => received,
            Err(_) => Err(match self.shared.was_sent(number) {
                (true, _) => LinkError::TimedOut,
                (false, true) => LinkError::Congested,
                (false, false) => LinkError::NotSent(format!("{}: no connection in time", self.address).into()),
            }),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
        self.shared.close("the client was closed");
    }
}

/// Whether it waits for the disks of a majority: then it can as well wait for company.
fn is_sync_write(operation: &v1::op::Operation) -> bool {
    let durability = match operation {
        v1::op::Operation::Put(put) => put.durability,
        v1::op::Operation::Delete(delete) => delete.durability,
        _ => return false,
    };
    durability != i32::from(v1::Durability::Async)
}

/// About how many bytes an operation takes in a message; never fewer than it takes.
fn bytes_about(operation: &v1::op::Operation) -> usize {
    use v1::op::Operation;
    128 + match operation {
        Operation::Get(get) => get.key.len(),
        Operation::Put(put) => put.key.len() + put.value.len(),
        Operation::Delete(delete) => delete.key.len(),
        Operation::OpenSession(_) | Operation::WaitDurable(_) => 0,
    }
}
