//! Where answers go: to a client's stream, gathered into one message a turn, or to the one call that waits.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, Weak,
    atomic::{AtomicUsize, Ordering},
};

use kv_core::{error::Error, io::Answer};
use kv_proto::v1::{self, batch_response_message::Message};
use prost::Message as _;
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use crate::convert::answer_to_result;

/// Operations of one stream that are not answered, or whose answers were not taken yet. Past it they are refused as
/// overloaded.
pub(crate) const OUTSTANDING_MAX: usize = 1_024;
/// Bytes of one message, unless it holds one result only.
pub(crate) const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of results that a client has not taken. Past it the stream is closed: the client does not read.
const UNREAD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Who asked.
pub(crate) enum Asker {
    /// A stream, by this operation.
    Stream(Arc<Sink>, u64),
    /// A call that waits.
    Call(oneshot::Sender<Result<Answer, Error>>),
}

/// A message on its way to a client, with what it counts for.
pub(crate) struct Outgoing {
    pub(crate) message: Result<v1::BatchResponseMessage, Status>,
    pub(crate) results: usize,
    pub(crate) bytes: usize,
}

/// The answering half of a client's stream. When the last of those who may still answer is gone, the stream ends.
pub(crate) struct Sink {
    waiting: Mutex<Waiting>,
    counts: Arc<Counts>,
}

/// What the client has not taken yet.
#[derive(Default)]
pub(crate) struct Counts {
    outstanding: AtomicUsize,
    unread_bytes: AtomicUsize,
}

impl Counts {
    /// The client's connection has taken a message.
    pub(crate) fn taken(&self, outgoing: &Outgoing) {
        self.outstanding.fetch_sub(outgoing.results, Ordering::Relaxed);
        self.unread_bytes.fetch_sub(outgoing.bytes, Ordering::Relaxed);
    }
}

struct Waiting {
    results: Vec<v1::Result>,
    /// `None` once the stream is closed.
    outgoing: Option<mpsc::UnboundedSender<Outgoing>>,
}

impl Sink {
    /// A sink and the messages that come out of it. Their number is bounded by [`OUTSTANDING_MAX`] and their size by
    /// [`UNREAD_BYTES_MAX`].
    pub(crate) fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<Outgoing>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let sink = Self {
            waiting: Mutex::new(Waiting { results: Vec::new(), outgoing: Some(sender) }),
            counts: Arc::default(),
        };
        (Arc::new(sink), receiver)
    }

    /// Counts one more operation. False if that is too many; it must be answered all the same.
    pub(crate) fn begin(&self) -> bool {
        self.counts.outstanding.fetch_add(1, Ordering::Relaxed) < OUTSTANDING_MAX
    }

    /// Keeps an answer for the next [`Sink::flush`]. True if it is the first since the last one.
    pub(crate) fn answer(&self, operation: u64, result: Result<Answer, Error>) -> bool {
        let result = answer_to_result(operation, result);
        let mut waiting = self.lock();
        waiting.results.push(result);
        waiting.results.len() == 1
    }

    /// Sends what waits, as few messages as fit.
    pub(crate) fn flush(&self) {
        let mut waiting = self.lock();
        let mut message = Vec::new();
        let mut bytes = 0;
        for result in std::mem::take(&mut waiting.results) {
            let more = result.encoded_len() + 8;
            if bytes + more > MESSAGE_BYTES_MAX && !message.is_empty() {
                self.send(&mut waiting, std::mem::take(&mut message), None, bytes);
                bytes = 0;
            }
            bytes += more;
            message.push(result);
        }
        if !message.is_empty() {
            self.send(&mut waiting, message, None, bytes);
        }
    }

    /// Sends a map that has changed.
    pub(crate) fn push_map(&self, map: v1::ShardMap) {
        let bytes = map.encoded_len();
        self.send(&mut self.lock(), Vec::new(), Some(map), bytes);
    }

    /// Sends the first message.
    pub(crate) fn welcome(&self, welcome: v1::Welcome) {
        let message = Ok(v1::BatchResponseMessage { message: Some(Message::Welcome(welcome)) });
        if let Some(outgoing) = &self.lock().outgoing {
            // A stream that is gone needs no welcome.
            let _gone = outgoing.send(Outgoing { message, results: 0, bytes: 0 });
        }
    }

    /// Ends the stream, with a reason if it is not a good one. What was flushed before still goes.
    pub(crate) fn close(&self, reason: Option<Status>) {
        if let Some(outgoing) = self.lock().outgoing.take()
            && let Some(status) = reason
        {
            let _gone = outgoing.send(Outgoing { message: Err(status), results: 0, bytes: 0 });
        }
    }

    /// Whether the stream is closed or its client gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().outgoing.as_ref().is_none_or(mpsc::UnboundedSender::is_closed)
    }

    /// The counts, for whoever hands the messages to the connection. It must not hold the sink: the stream would not end.
    pub(crate) fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    fn send(&self, waiting: &mut Waiting, results: Vec<v1::Result>, map: Option<v1::ShardMap>, bytes: usize) {
        let Some(outgoing) = &waiting.outgoing else { return };
        let unread = self.counts.unread_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if unread > UNREAD_BYTES_MAX {
            let status = Status::resource_exhausted("the client does not read its answers");
            let _gone = outgoing.send(Outgoing { message: Err(status), results: 0, bytes: 0 });
            waiting.outgoing = None;
            return;
        }
        let count = results.len();
        let batch = v1::BatchResponse { results, map };
        let message = Ok(v1::BatchResponseMessage { message: Some(Message::Batch(batch)) });
        let _gone = outgoing.send(Outgoing { message, results: count, bytes });
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
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
    pub(crate) fn each(&self, mut work: impl FnMut(&Sink)) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.iter().filter_map(Weak::upgrade).for_each(|sink| work(&sink));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_core::types::{Revision, Value};

    fn got(bytes: usize) -> Result<Answer, Error> {
        let value = Value::new(vec![0; bytes]).unwrap();
        let entry = kv_core::types::Entry { revision: Revision(1), value };
        Ok(Answer::Got { entry: Some(entry), revision: Revision(1), age_micros: Some(0) })
    }

    fn results(outgoing: &Outgoing) -> usize {
        match &outgoing.message.as_ref().unwrap().message {
            Some(Message::Batch(batch)) => batch.results.len(),
            _ => 0,
        }
    }

    #[test]
    fn the_answers_of_a_turn_go_in_one_message_of_bounded_size() {
        let (sink, mut messages) = Sink::new();
        for operation in 0..10 {
            assert!(sink.begin());
            assert_eq!(sink.answer(operation, got(1)), operation == 0);
        }
        sink.flush();
        assert_eq!(results(&messages.try_recv().unwrap()), 10);
        for operation in 0..3 {
            sink.answer(operation, got(700 * 1024));
        }
        sink.flush();
        assert_eq!(results(&messages.try_recv().unwrap()), 1);
        assert_eq!(results(&messages.try_recv().unwrap()), 1);
        assert_eq!(results(&messages.try_recv().unwrap()), 1);
    }

    #[test]
    fn operations_count_until_their_answers_are_taken() {
        let (sink, mut messages) = Sink::new();
        assert!((0..OUTSTANDING_MAX).all(|_| sink.begin()));
        assert!(!sink.begin());
        sink.answer(1, got(1));
        sink.flush();
        assert!(!sink.begin());
        let outgoing = messages.try_recv().unwrap();
        for _ in 0..3 {
            sink.counts().taken(&outgoing);
        }
        assert!(sink.begin());
    }

    #[test]
    fn a_client_that_does_not_read_is_closed() {
        let (sink, mut messages) = Sink::new();
        for operation in 0..70 {
            sink.answer(operation, got(1024 * 1024));
        }
        sink.flush();
        assert!(sink.is_closed());
        let last = std::iter::from_fn(|| messages.try_recv().ok()).last().unwrap();
        assert_eq!(last.message.unwrap_err().code(), tonic::Code::ResourceExhausted);
    }
}
