//! What waits for one connection to a peer: bounded, and emptied an envelope at a time. Heartbeats that follow each other share a
//! message, however many turns they are of.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use kv_core::message::Lane;
use kv_proto::v1;
use tokio::sync::Notify;

use crate::convert::HeartbeatRow;

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
    /// How many they are, each heartbeat counted.
    count: usize,
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
        self.put(bytes, |messages| messages.push_back((message, bytes)))
    }

    /// Takes a heartbeat, or drops it. True if it was taken. It joins the last message if that is of heartbeats, so that order is kept.
    pub(super) fn push_heartbeat(&self, heartbeat: HeartbeatRow, bytes: usize) -> bool {
        self.put(bytes, |messages| {
            if let Some((last, last_bytes)) = messages.back_mut()
                && heartbeat.add_to(last)
            {
                *last_bytes += bytes;
            } else {
                messages.push_back((heartbeat.begin(), bytes));
            }
        })
    }

    fn put(&self, bytes: usize, put: impl FnOnce(&mut VecDeque<(v1::PeerMessage, usize)>)) -> bool {
        let mut waiting = self.lock();
        if waiting.down || waiting.count >= MESSAGES_MAX || waiting.bytes + bytes > self.bytes_max {
            return false;
        }
        // Whoever takes from the queue takes all that is there before it waits.
        let wakes = waiting.messages.is_empty();
        waiting.bytes += bytes;
        waiting.count += 1;
        put(&mut waiting.messages);
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
        self.lock().count
    }

    fn take(&self) -> Option<v1::PeerBatch> {
        let mut waiting = self.lock();
        let mut messages = Vec::new();
        let (mut bytes, mut count) = (0, 0);
        while let Some((_, more)) = waiting.messages.front() {
            if !messages.is_empty() && bytes + more > ENVELOPE_BYTES_MAX {
                break;
            }
            let (message, more) = waiting.messages.pop_front()?;
            bytes += more;
            count += HeartbeatRow::count(&message).unwrap_or(1);
            messages.push(message);
        }
        waiting.bytes -= bytes;
        waiting.count -= count;
        (!messages.is_empty()).then_some(v1::PeerBatch { messages })
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_core::{
        message::{Heartbeat, PeerMessage},
        types::{LogIndex, ReplicaId, ShardId, Term},
    };

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
    fn heartbeat(shard: u64, is_answer: bool) -> HeartbeatRow {
        let heartbeat =
            Heartbeat { is_answer, to: ReplicaId(1), from: ReplicaId(2), term: Term(3), commit: LogIndex(4) };
        HeartbeatRow::of(&PeerMessage::Raft { shard: ShardId(shard), message: heartbeat.into() })
            .expect("it says nothing else")
    }

    #[test]
    fn heartbeats_share_a_message_where_they_follow_each_other() {
        let queue = LaneQueue::new(Lane::Main);
        for (shard, is_answer) in [(1, false), (2, false), (3, true), (4, true)] {
            assert!(queue.push_heartbeat(heartbeat(shard, is_answer), 64));
        }
        assert!(queue.push(v1::PeerMessage { shard: 5, body: None }, 64));
        assert!(queue.push_heartbeat(heartbeat(6, true), 64));
        assert_eq!(queue.len(), 6);
        let batch = queue.take().expect("it holds some");
        let shards: Vec<Vec<u64>> = batch
            .messages
            .into_iter()
            .map(|message| match message.body {
                Some(v1::peer_message::Body::Heartbeats(rows)) => rows.shards,
                _ => vec![message.shard],
            })
            .collect();
        assert_eq!(shards, [vec![1, 2], vec![3, 4], vec![5], vec![6]]);
        assert_eq!((queue.len(), queue.lock().bytes), (0, 0));
    }

    #[test]
    fn heartbeats_are_bounded_one_by_one() {
        let queue = LaneQueue::new(Lane::Main);
        let one = heartbeat(1, false);
        assert!((0..MESSAGES_MAX).all(|_| queue.push_heartbeat(one, 64)));
        assert!(!queue.push_heartbeat(one, 64));
        let mut rows = 0;
        while let Some(batch) = queue.take() {
            let counts: Vec<_> = batch.messages.iter().filter_map(HeartbeatRow::count).collect();
            assert!(counts.iter().sum::<usize>() * 64 <= ENVELOPE_BYTES_MAX);
            rows += counts.iter().sum::<usize>();
        }
        assert_eq!(rows, MESSAGES_MAX);
        assert_eq!(queue.len(), 0);
    }
}
