//! What a link's callers, its stream's sending side and its task share: the queue, and who waits for which answer.
//!
//! The queue is first in, first out, and operations are numbered as they enter, so that one number, the last taken out,
//! tells of every operation whether it may have been sent.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Waker},
};

use kv_core::types::{Epoch, ShardId};
use kv_proto::v1;
use tokio::{
    runtime::RuntimeFlavor,
    sync::{Notify, oneshot},
    time::Instant,
};

use super::{LinkError, MESSAGE_BYTES_MAX, QUEUE_OPERATIONS_MAX, pacing::Pacing, slab::Slab};

/// Where a caller waits.
pub(super) type Reply = oneshot::Sender<Result<Option<v1::result::Result>, LinkError>>;

/// An operation in the queue.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) shard: ShardId,
    pub(super) epoch: Epoch,
    pub(super) operation: v1::op::Operation,
    pub(super) deadline: Instant,
    pub(super) bytes: usize,
    /// Whether it holds no message up, and is held up by none.
    pub(super) hurries: bool,
    pub(super) reply: Reply,
}

/// What a stream's sending side is to do.
#[derive(Debug)]
pub(super) enum Next {
    /// To send this.
    Batch(v1::BatchRequest),
    /// To ask again at this time, unless it is woken before.
    At(Instant),
    /// To ask again when it is woken.
    Wait,
    /// To end: the stream is no longer the link's.
    End,
}

/// The shared part of a link.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Told when the queue is no longer empty and no stream is there to take from it.
    demand: Notify,
}

#[derive(Debug)]
struct State {
    /// The newest stream; an older one must take nothing.
    stream: u64,
    /// How many operations may be outstanding on it; `None` before Welcome.
    outstanding_max: Option<usize>,
    queue: VecDeque<Pending>,
    /// The number that the last operation got; the first gets 1.
    entered: u64,
    outstanding: Slab<Reply>,
    pacing: Pacing,
    /// The sending side of the stream, if it sleeps.
    sender: Option<Waker>,
    /// Set for good when the link is dropped.
    closed: bool,
}

impl Shared {
    /// That of a link on a runtime of this kind, before its first stream.
    pub(super) fn new(flavor: RuntimeFlavor) -> Self {
        let state = State {
            stream: 0,
            outstanding_max: None,
            queue: VecDeque::new(),
            entered: 0,
            outstanding: Slab::default(),
            pacing: Pacing::new(flavor),
            sender: None,
            closed: false,
        };
        Self { state: Mutex::new(state), demand: Notify::new() }
    }

    /// Puts an operation into the queue and gives its number.
    pub(super) fn push(&self, pending: Pending) -> Result<u64, LinkError> {
        let mut state = self.lock();
        if state.queue.len() >= QUEUE_OPERATIONS_MAX {
            return Err(LinkError::Full);
        }
        if pending.hurries {
            state.pacing.release();
        }
        state.queue.push_back(pending);
        state.entered += 1;
        let number = state.entered;
        let connected = state.outstanding_max.is_some();
        if state.pacing.is_holding() {
            drop(state);
        } else {
            wake(state);
        }
        if !connected {
            self.demand.notify_one();
        }
        Ok(number)
    }

    /// Whether the operation of this number has been taken out of the queue, and whether the link is connected.
    pub(super) fn was_sent(&self, number: u64) -> (bool, bool) {
        let state = self.lock();
        (number <= state.entered - state.queue.len() as u64, state.outstanding_max.is_some())
    }

    /// Waits until something is in the queue.
    pub(super) async fn demanded(&self) {
        while self.lock().queue.is_empty() {
            self.demand.notified().await;
        }
    }

    /// A new stream begins; the sending side of the one before ends.
    pub(super) fn begin(&self, stream: u64) {
        let mut state = self.lock();
        state.stream = stream;
        state.pacing.release();
        wake(state);
    }

    /// The node has welcomed the newest stream: operations may leave on it.
    pub(super) fn opened(&self, outstanding_max: usize) {
        let mut state = self.lock();
        state.outstanding_max = Some(outstanding_max);
        wake(state);
    }

    /// The next message of a stream: whatever is in the queue and fits, once it may leave.
    pub(super) fn next(&self, stream: u64, now: Instant, context: &Context<'_>) -> Next {
        let mut state = self.lock();
        if state.closed || stream < state.stream {
            return Next::End;
        }
        let outstanding = state.outstanding.len();
        if !state.queue.is_empty()
            && let Some(until) = state.pacing.hold(now, outstanding)
        {
            state.sender = Some(context.waker().clone());
            return Next::At(until);
        }
        let outstanding_max = state.outstanding_max.unwrap_or(0);
        let mut ops = Vec::new();
        let (mut bytes, mut is_full) = (0, false);
        while state.outstanding.len() < outstanding_max {
            let Some(next) = state.queue.front() else { break };
            if !ops.is_empty() && bytes + next.bytes > MESSAGE_BYTES_MAX {
                is_full = true;
                break;
            }
            let Some(next) = state.queue.pop_front() else { break };
            // A caller that has stopped waiting relies on the operation not leaving any more.
            if next.reply.is_closed() {
                continue;
            }
            bytes += next.bytes;
            let left_ms = next.deadline.saturating_duration_since(now).as_millis();
            ops.push(v1::Op {
                id: state.outstanding.insert(next.reply),
                shard: next.shard.0,
                epoch: next.epoch.0,
                deadline_ms: u32::try_from(left_ms).unwrap_or(u32::MAX).max(1),
                operation: Some(next.operation),
            });
        }
        if ops.is_empty() {
            state.sender = Some(context.waker().clone());
            return Next::Wait;
        }
        state.pacing.sent(is_full);
        Next::Batch(v1::BatchRequest { ops })
    }

    /// Completes the callers of these results. A result that nobody waits for is dropped.
    pub(super) fn complete(&self, results: Vec<v1::Result>) {
        let mut replies = Vec::with_capacity(results.len());
        let mut state = self.lock();
        for result in results {
            if let Some(reply) = state.outstanding.remove(result.id) {
                replies.push((reply, result.result));
            }
        }
        state.pacing.release();
        let is_something_held = !state.queue.is_empty();
        drop(state);
        for (reply, result) in replies {
            // A caller that has stopped waiting misses nothing.
            let _gone = reply.send(Ok(result));
        }
        if is_something_held {
            // After the callers: where one thread runs them all, what they ask next leaves with it.
            wake(self.lock());
        }
    }

    /// The stream is gone, or could not be made: nobody waits any longer.
    pub(super) fn broken(&self, reason: &str) {
        let reason: Arc<str> = reason.into();
        let mut state = self.lock();
        state.outstanding_max = None;
        state.pacing.release();
        let sent = state.outstanding.drain();
        let queued = std::mem::take(&mut state.queue);
        wake(state);
        for reply in sent {
            let _gone = reply.send(Err(LinkError::Broken(reason.clone())));
        }
        for pending in queued {
            let _gone = pending.reply.send(Err(LinkError::NotSent(reason.clone())));
        }
    }

    /// Ends the link for good.
    pub(super) fn close(&self, reason: &str) {
        self.lock().closed = true;
        self.broken(reason);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes the sending side, if it sleeps, after the lock is given back.
fn wake(mut state: MutexGuard<'_, State>) {
    let sender = state.sender.take();
    drop(state);
    if let Some(sender) = sender {
        sender.wake();
    }
}
