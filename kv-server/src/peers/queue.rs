//! What waits for one connection to a peer: bounded, and emptied an envelope at a time.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use kv_core::message::Lane;
use kv_proto::v1;
use tokio::sync::Notify;

/// Messages that wait for one connection. Past it they are dropped, and the core is told.
const MESSAGES_MAX: usize = 16_384;
/// Bytes that wait for the main connection. Past it messages are dropped, and the core is told.
const MAIN_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes that wait for the bulk or the snapshot connection. Past it messages are dropped, and the core is told.
const BULK_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of one envelope, unless it carries one message only.
const ENVELOPE_BYTES_MAX: usize = 1024 * 1024;

/// The queue of one connection.
pub(super) struct LaneQueue {
    bytes_max: usize,
    waiting: Mutex<Waiting>,
    filled: Notify,
}

#[derive(Default)]
struct Waiting {
    messages: VecDeque<(v1::PeerMessage, usize)>,
    bytes: usize,
    /// The last attempt to connect failed and no new one has begun: nothing is taken.
    down: bool,
}

impl LaneQueue {
    pub(super) fn new(lane: Lane) -> Self {
        let bytes_max = if lane == Lane::Main { MAIN_BYTES_MAX } else { BULK_BYTES_MAX };
        Self { bytes_max, waiting: Mutex::default(), filled: Notify::new() }
    }

    /// Whether messages are taken at all.
    pub(super) fn is_up(&self) -> bool {
        !self.lock().down
    }

    /// Takes a message, or drops it. True if it was taken.
    pub(super) fn push(&self, message: v1::PeerMessage, bytes: usize) -> bool {
        let mut waiting = self.lock();
        if waiting.down || waiting.messages.len() >= MESSAGES_MAX || waiting.bytes + bytes > self.bytes_max {
            return false;
        }
        // Whoever takes from the queue takes all that is there before it waits.
        let wakes = waiting.messages.is_empty();
        waiting.bytes += bytes;
        waiting.messages.push_back((message, bytes));
        drop(waiting);
        if wakes {
            self.filled.notify_one();
        }
        true
    }

    /// Waits for the next envelope.
    pub(super) async fn next(&self) -> v1::PeerBatch {
        loop {
            if let Some(batch) = self.take() {
                return batch;
            }
            self.filled.notified().await;
        }
    }

    /// An attempt to connect begins: messages wait for it.
    pub(super) fn begin(&self) {
        self.lock().down = false;
    }

    /// The connection is gone or could not be made: what waits is dropped. True if that was anything.
    pub(super) fn fail(&self) -> bool {
        let mut waiting = self.lock();
        let lost = !waiting.messages.is_empty();
        *waiting = Waiting { down: true, ..Waiting::default() };
        lost
    }

    pub(super) fn len(&self) -> usize {
        self.lock().messages.len()
    }

    fn take(&self) -> Option<v1::PeerBatch> {
        let mut waiting = self.lock();
        let mut messages = Vec::new();
        let mut bytes = 0;
        while let Some((_, more)) = waiting.messages.front() {
            if !messages.is_empty() && bytes + more > ENVELOPE_BYTES_MAX {
                break;
            }
            let (message, more) = waiting.messages.pop_front()?;
            bytes += more;
            messages.push(message);
        }
        waiting.bytes -= bytes;
        (!messages.is_empty()).then_some(v1::PeerBatch { messages })
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn envelopes_are_cut_and_order_is_kept() {
        let queue = LaneQueue::new(Lane::Bulk);
        for shard in 0..3 {
            assert!(queue.push(v1::PeerMessage { shard, body: None }, 600 * 1024));
        }
        assert!(queue.push(v1::PeerMessage { shard: 3, body: None }, 3 * ENVELOPE_BYTES_MAX));
        let shards: Vec<Vec<u64>> = std::iter::from_fn(|| queue.take())
            .map(|batch| batch.messages.iter().map(|message| message.shard).collect())
            .collect();
        assert_eq!(shards, [[0], [1], [2], [3]]);
        assert_eq!(queue.lock().bytes, 0);
    }

    #[test]
    fn a_full_queue_drops_and_so_does_one_without_a_connection() {
        let queue = LaneQueue::new(Lane::Main);
        assert!((0..MESSAGES_MAX).all(|_| queue.push(v1::PeerMessage::default(), 1)));
        assert!(!queue.push(v1::PeerMessage::default(), 1));
        assert!(queue.fail());
        assert!(!queue.push(v1::PeerMessage::default(), 1));
        queue.begin();
        assert!(!queue.push(v1::PeerMessage::default(), MAIN_BYTES_MAX + 1));
        assert!(queue.push(v1::PeerMessage::default(), 1));
    }
}
