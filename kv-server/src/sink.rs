//! Where answers go: to a client's stream, gathered into one message a turn, or to the one call that waits.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use futures_util::Stream;
use kv_core::{error::Error, io::Answer};
use kv_proto::v1::{self, batch_response_message::Message};
use prost::Message as _;
use tokio::sync::oneshot;
use tonic::Status;

use crate::{convert::answer_to_result, unread::Reader};

/// Operations of one stream that are not answered, or whose answers were not taken yet. Past it they are refused as
/// overloaded.
pub(crate) const OUTSTANDING_MAX: usize = 1_024;
/// Bytes of one message, unless it holds one result only.
pub(crate) const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of results that wait for the connection of one stream. Past it the stream is closed, and they are dropped: the
/// client does not read. All streams of a node together have a bound too, in `unread.rs`.
const STREAM_UNREAD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Who asked.
pub(crate) enum Asker {
    /// A stream, by this operation.
    Stream(Arc<Sink>, u64),
    /// A call that waits.
    Call(oneshot::Sender<Result<Answer, Error>>),
}

/// A message on its way to a client, with what it counts for.
struct Outgoing {
    message: Result<v1::BatchResponseMessage, Status>,
    results: usize,
    bytes: usize,
}

/// The answering half of a client's stream. When the last of those who may still answer is gone, the stream ends.
pub(crate) struct Sink {
    queue: Arc<Queue>,
}

impl Sink {
    /// A sink for a client of this connection, and the messages that come out of it.
    pub(crate) fn new(reader: &Arc<Reader>) -> (Arc<Self>, Messages) {
        let queue =
            Arc::new(Queue { reader: Arc::clone(reader), outstanding: AtomicUsize::new(0), waiting: Mutex::default() });
        reader.begin(&queue);
        (Arc::new(Self { queue: Arc::clone(&queue) }), Messages { queue })
    }

    /// Counts one more operation. False if that is too many; it must be answered all the same.
    pub(crate) fn begin(&self) -> bool {
        self.queue.outstanding.fetch_add(1, Ordering::Relaxed) < OUTSTANDING_MAX
    }

    /// Keeps an answer for the next [`Sink::flush`]. True if it is the first since the last one.
    pub(crate) fn answer(&self, operation: u64, result: Result<Answer, Error>) -> bool {
        let result = answer_to_result(operation, result);
        let mut waiting = self.queue.lock();
        waiting.results.push(result);
        waiting.results.len() == 1
    }

    /// Sends what waits, as few messages as fit.
    pub(crate) fn flush(&self) {
        let mut waiting = self.queue.lock();
        let mut message = std::mem::take(&mut waiting.results);
        // Nearly always all fits into one, and nothing is moved.
        while !message.is_empty() {
            let mut bytes = 0;
            let is_too_much = |result: &v1::Result| {
                let more = result.encoded_len() + 8;
                let is_too_much = bytes > 0 && bytes + more > MESSAGE_BYTES_MAX;
                bytes += if is_too_much { 0 } else { more };
                is_too_much
            };
            let count = message.iter().position(is_too_much).unwrap_or(message.len());
            let rest = message.split_off(count);
            self.queue.send(&mut waiting, message, None, bytes);
            message = rest;
        }
        drop(waiting);
        self.queue.reader.node().relieve();
    }

    /// Sends a map that has changed.
    pub(crate) fn push_map(&self, map: v1::ShardMap) {
        let bytes = map.encoded_len();
        self.queue.send(&mut self.queue.lock(), Vec::new(), Some(map), bytes);
        self.queue.reader.node().relieve();
    }

    /// Sends the first message.
    pub(crate) fn welcome(&self, welcome: v1::Welcome) {
        let message = Ok(v1::BatchResponseMessage { message: Some(Message::Welcome(welcome)) });
        self.queue.lock().push(Outgoing { message, results: 0, bytes: 0 });
    }

    /// Ends the stream, with a reason if it is not a good one. What was flushed before still goes.
    pub(crate) fn close(&self, reason: Option<Status>) {
        self.queue.lock().end(reason);
    }

    /// Whether the stream is closed or its client gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.queue.lock().has_ended
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.queue.lock().end(None);
    }
}

/// What waits for a stream's connection, between those who answer and the connection.
pub(crate) struct Queue {
    reader: Arc<Reader>,
    outstanding: AtomicUsize,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// Not flushed yet.
    results: Vec<v1::Result>,
    messages: VecDeque<Outgoing>,
    /// Of these messages.
    bytes: usize,
    /// Nothing more is taken in.
    has_ended: bool,
    connection: Option<Waker>,
}

impl Waiting {
    fn push(&mut self, outgoing: Outgoing) {
        if self.has_ended {
            return;
        }
        self.bytes += outgoing.bytes;
        self.messages.push_back(outgoing);
        self.wake();
    }

    fn end(&mut self, reason: Option<Status>) {
        if let Some(status) = reason {
            self.push(Outgoing { message: Err(status), results: 0, bytes: 0 });
        }
        self.has_ended = true;
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.wake();
        }
    }
}

impl Queue {
    /// Bytes that wait for the connection.
    pub(crate) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Ends the stream because its client does not read: what waits is dropped, and only the reason is left.
    pub(crate) fn close_unread(&self) {
        self.clear(&mut self.lock(), Some(Status::resource_exhausted("the client does not read its answers")));
    }

    fn clear(&self, waiting: &mut Waiting, reason: Option<Status>) {
        self.reader.unqueued(waiting.bytes);
        waiting.bytes = 0;
        waiting.messages = VecDeque::new();
        waiting.results = Vec::new();
        waiting.end(reason);
    }

    fn send(&self, waiting: &mut Waiting, results: Vec<v1::Result>, map: Option<v1::ShardMap>, bytes: usize) {
        if waiting.has_ended {
            return;
        }
        if waiting.bytes + bytes > STREAM_UNREAD_BYTES_MAX {
            return self.clear(waiting, Some(Status::resource_exhausted("the client does not read its answers")));
        }
        self.reader.queued(bytes);
        let count = results.len();
        let batch = v1::BatchResponse { results, map };
        let message = Ok(v1::BatchResponseMessage { message: Some(Message::Batch(batch)) });
        waiting.push(Outgoing { message, results: count, bytes });
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The messages of a stream, as its connection takes them. When it drops them, the stream has ended.
pub(crate) struct Messages {
    queue: Arc<Queue>,
}

impl Stream for Messages {
    type Item = Result<v1::BatchResponseMessage, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut waiting = self.queue.lock();
        let Some(outgoing) = waiting.messages.pop_front() else {
            if waiting.has_ended {
                return Poll::Ready(None);
            }
            waiting.connection = Some(context.waker().clone());
            return Poll::Pending;
        };
        waiting.bytes -= outgoing.bytes;
        drop(waiting);
        self.queue.outstanding.fetch_sub(outgoing.results, Ordering::Relaxed);
        self.queue.reader.unqueued(outgoing.bytes);
        Poll::Ready(Some(outgoing.message))
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        self.queue.clear(&mut self.queue.lock(), None);
    }
}

/// All open streams of a node, for what concerns each of them.
#[derive(Default)]
pub(crate) struct Sinks {
    open: Mutex<Vec<Weak<Sink>>>,
}

impl Sinks {
    /// Adds a stream, and forgets those that are gone.
    pub(crate) fn add(&self, sink: &Arc<Sink>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|sink| sink.strong_count() > 0);
        open.push(Arc::downgrade(sink));
    }

    /// Does something to each open stream.
    pub(crate) fn each(&self, work: impl FnMut(Arc<Sink>)) {
        let open: Vec<_> = {
            let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.iter().filter_map(Weak::upgrade).collect()
        };
        open.into_iter().for_each(work);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::unread::{UNREAD_BYTES_MAX, Unread};
    use kv_core::types::{Revision, Value};
    use metrics::Counter;

    /// An answer with a value of this size.
    pub(crate) fn got(bytes: usize) -> Result<Answer, Error> {
        let value = Value::new(vec![0; bytes]).unwrap();
        let entry = kv_core::types::Entry { revision: Revision(1), value };
        Ok(Answer::Got { entry: Some(entry), revision: Revision(1), age_micros: Some(0) })
    }

    impl Messages {
        /// The next message, if there is one now.
        pub(crate) fn try_next(&mut self) -> Option<Result<v1::BatchResponseMessage, Status>> {
            match Pin::new(self).poll_next(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(next) => next,
                Poll::Pending => None,
            }
        }
    }

    fn open() -> (Arc<Sink>, Messages) {
        Sink::new(&Unread::new(UNREAD_BYTES_MAX, Counter::noop(), Counter::noop()).reader(None))
    }

    fn results(message: Option<Result<v1::BatchResponseMessage, Status>>) -> usize {
        match message.unwrap().unwrap().message {
            Some(Message::Batch(batch)) => batch.results.len(),
            _ => 0,
        }
    }

    #[test]
    fn the_answers_of_a_turn_go_in_one_message_of_bounded_size() {
        let (sink, mut messages) = open();
        for operation in 0..10 {
            assert!(sink.begin());
            assert_eq!(sink.answer(operation, got(1)), operation == 0);
        }
        sink.flush();
        assert_eq!(results(messages.try_next()), 10);
        for operation in 0..3 {
            sink.answer(operation, got(700 * 1024));
        }
        sink.flush();
        assert_eq!(results(messages.try_next()), 1);
        assert_eq!(results(messages.try_next()), 1);
        assert_eq!(results(messages.try_next()), 1);
    }

    #[test]
    fn operations_count_until_their_answers_are_taken() {
        let (sink, mut messages) = open();
        assert!((0..OUTSTANDING_MAX).all(|_| sink.begin()));
        assert!(!sink.begin());
        sink.answer(1, got(1));
        sink.answer(2, got(1));
        sink.flush();
        assert!(!sink.begin());
        assert_eq!(results(messages.try_next()), 2);
        assert!(!sink.begin(), "two more were refused meanwhile, and are to be answered too");
        sink.answer(3, got(1));
        sink.flush();
        assert_eq!(results(messages.try_next()), 1);
        assert!(!sink.begin());
    }

    #[test]
    fn a_client_that_does_not_read_is_closed_and_what_it_did_not_read_is_free() {
        let (sink, mut messages) = open();
        for operation in 0..70 {
            sink.answer(operation, got(1024 * 1024));
        }
        sink.flush();
        assert!(sink.is_closed());
        assert_eq!(sink.queue.bytes(), 0);
        assert_eq!(sink.queue.reader.node().bytes(), 0);
        let only = messages.try_next().unwrap();
        assert_eq!(only.unwrap_err().code(), tonic::Code::ResourceExhausted);
        assert!(messages.try_next().is_none());
    }

    #[test]
    fn a_stream_ends_when_nobody_can_answer_it_or_take_answers() {
        let (sink, mut messages) = open();
        sink.answer(1, got(1));
        sink.flush();
        drop(sink);
        assert_eq!(results(messages.try_next()), 1, "what was flushed still goes");
        let end = Pin::new(&mut messages).poll_next(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(end, Poll::Ready(None)));

        let (other, messages) = open();
        drop(messages);
        assert!(other.is_closed());
        other.answer(1, got(1));
        other.flush();
        assert_eq!(other.queue.reader.node().bytes(), 0);
    }
}
