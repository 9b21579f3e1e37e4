//! Answers that clients have not read, counted for the whole node, and what happens when there are too many.
//!
//! An answer counts from the moment it is queued for a client's stream, or given to a connection as the answer to a single
//! call, until its last byte is on its way to the socket: what HTTP/2 holds back because a client grants no window counts too.
//! Past the bound, the connection with the most unread bytes loses: its fullest stream is closed and what was queued there
//! freed, or, if most of it is not in a queue of ours any more, the whole connection. So those who don't read pay for it, and
//! nobody else. What was asked there ends as unknown at the client, as on any broken stream.
//!
//! What clients have begun to ask counts too, while it is incomplete or unanswered: each call with its headers, and what has come of a
//! message that is not whole. It can't be freed but with its connection.
//!
//! *Leaves out*: answers of a turn that is under way (a turn is bounded), and those of the HTTP port (a text each).

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use metrics::Counter;
use tokio::time::Instant;

use crate::{seldom::Seldom, sink::Queue};

/// Bytes of answers that all clients of a node together have not read, and of what they have begun to ask, if nothing else is set.
pub(crate) const UNREAD_BYTES_MAX: usize = 256 * 1024 * 1024;
/// The least that can be set: one message of each of a few clients.
pub(crate) const UNREAD_BYTES_LEAST: usize = 8 * 1024 * 1024;

/// What a call that is open counts beside its headers: about what its task, its stream and its buffers take.
const CALL_BYTES: usize = 4 * 1024;

/// A node's account of what its clients have not read.
pub(crate) struct Unread {
    bytes: AtomicUsize,
    asking_bytes: AtomicUsize,
    bytes_max: usize,
    /// Connections that are read slowly at this moment.
    slow: AtomicUsize,
    readers: Mutex<Vec<Weak<Reader>>>,
    streams_closed: Counter,
    connections_closed: Counter,
    told: Seldom,
}

impl Unread {
    /// Nothing yet, and the most it may become.
    pub(crate) fn new(bytes_max: usize, streams_closed: Counter, connections_closed: Counter) -> Arc<Self> {
        Arc::new(Self {
            bytes: AtomicUsize::new(0),
            asking_bytes: AtomicUsize::new(0),
            bytes_max,
            slow: AtomicUsize::new(0),
            readers: Mutex::default(),
            streams_closed,
            connections_closed,
            told: Seldom::default(),
        })
    }

    /// Bytes that are not read.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Bytes of calls that are open, and of messages that are not whole.
    pub(crate) fn asking_bytes(&self) -> usize {
        self.asking_bytes.load(Ordering::Relaxed)
    }

    /// Most bytes of both together.
    pub(crate) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Connections that are read slowly at this moment.
    pub(crate) fn slow(&self) -> usize {
        self.slow.load(Ordering::Relaxed)
    }

    /// One more is, until what this gives is dropped.
    pub(crate) fn slows(self: &Arc<Self>) -> Slow {
        self.slow.fetch_add(1, Ordering::Relaxed);
        Slow { node: Arc::clone(self) }
    }

    /// The account of a connection. Those that are gone are forgotten.
    pub(crate) fn reader(self: &Arc<Self>, from: Option<SocketAddr>) -> Arc<Reader> {
        let reader = Arc::new(Reader {
            node: Arc::clone(self),
            from,
            held_bytes: AtomicUsize::new(0),
            asking_bytes: AtomicUsize::new(0),
            partial_bytes: AtomicUsize::new(0),
            whole_bytes: AtomicU64::new(0),
            opened: Instant::now(),
            calls: AtomicU64::new(0),
            calls_open: AtomicUsize::new(0),
            idle_micros: AtomicU64::new(0),
            queues: Mutex::default(),
            is_cut: AtomicBool::new(false),
            connection: AtomicWaker::new(),
        });
        let mut readers = lock(&self.readers);
        // Only when it would grow: else each newcomer would pay for all who are here.
        if readers.len() == readers.capacity() {
            readers.retain(|reader| reader.strong_count() > 0);
        }
        readers.push(Arc::downgrade(&reader));
        reader
    }

    /// Closes what has the most, until the rest is within the bound. No lock of a queue may be held.
    pub(crate) fn relieve(&self) {
        while self.bytes() + self.asking_bytes() > self.bytes_max {
            let readers: Vec<_> = lock(&self.readers).iter().filter_map(Weak::upgrade).collect();
            // What a connection that is cut still has is free in a moment.
            let readers = readers.iter().filter(|reader| !reader.is_cut.load(Ordering::Relaxed));
            let loads: Vec<_> = readers.map(|reader| (reader.load(), reader)).collect();
            let total: usize = loads.iter().map(|(load, _)| load.held_bytes + load.queued_bytes).sum();
            let most = loads.iter().max_by_key(|(load, _)| load.held_bytes + load.queued_bytes);
            match most {
                Some((load, reader)) if total > self.bytes_max => self.close_of(load, reader),
                _ => return,
            }
        }
    }

    fn close_of(&self, load: &Load, reader: &Reader) {
        let stream = load.fullest.as_ref().filter(|_| load.queued_bytes > load.held_bytes);
        let closed = if stream.is_some() { "stream" } else { "connection" };
        if let Some(unsaid) = self.told.now() {
            let bytes = load.queued_bytes + load.held_bytes;
            tracing::warn!(from = ?reader.from, bytes, closed, unsaid, "a client does not read its answers");
        }
        match stream {
            Some(queue) => {
                queue.close_unread();
                self.streams_closed.increment(1);
            }
            None => {
                reader.cut();
                self.connections_closed.increment(1);
            }
        }
    }
}

/// What a connection has, when it is looked at.
struct Load {
    /// What is freed only with the connection: what it was given and has not sent, and what it asks.
    held_bytes: usize,
    queued_bytes: usize,
    fullest: Option<Arc<Queue>>,
}

/// The account of one connection: who reads there, or does not.
pub(crate) struct Reader {
    node: Arc<Unread>,
    from: Option<SocketAddr>,
    /// Bytes that the connection was given and has not sent.
    held_bytes: AtomicUsize,
    /// Bytes of its open calls, and of messages that are not whole.
    asking_bytes: AtomicUsize,
    /// Those of messages alone.
    partial_bytes: AtomicUsize,
    /// Bytes of messages that have come whole.
    whole_bytes: AtomicU64,
    opened: Instant,
    /// Calls begun so far, and those that are open.
    calls: AtomicU64,
    calls_open: AtomicUsize,
    /// From its opening to the end of the last call.
    idle_micros: AtomicU64,
    /// The streams on it, each with a queue of its own.
    queues: Mutex<Vec<Weak<Queue>>>,
    is_cut: AtomicBool,
    connection: AtomicWaker,
}

impl Reader {
    /// The node's account.
    pub(crate) fn node(&self) -> &Arc<Unread> {
        &self.node
    }

    /// Whose it is, if that is known.
    pub(crate) fn from(&self) -> Option<SocketAddr> {
        self.from
    }

    /// When it was opened.
    pub(crate) fn opened(&self) -> Instant {
        self.opened
    }

    /// Whether a call was ever made on it.
    pub(crate) fn has_asked(&self) -> bool {
        self.calls.load(Ordering::Relaxed) > 0
    }

    /// Whether no call is open on it.
    pub(crate) fn is_idle(&self) -> bool {
        self.calls_open.load(Ordering::Relaxed) == 0
    }

    /// When its last call ended, or it was opened.
    pub(crate) fn idle_since(&self) -> Instant {
        self.opened + Duration::from_micros(self.idle_micros.load(Ordering::Relaxed))
    }

    /// A call has begun, with headers of this length.
    pub(crate) fn call(self: &Arc<Self>, header_bytes: usize) -> Call {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.calls_open.fetch_add(1, Ordering::Relaxed);
        let bytes = CALL_BYTES + header_bytes;
        self.asks(0, bytes);
        Call { reader: Arc::clone(self), bytes }
    }

    /// Bytes that have come of messages that are not whole.
    pub(crate) fn partial_bytes(&self) -> usize {
        self.partial_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of messages that have come whole so far.
    pub(crate) fn whole_bytes(&self) -> u64 {
        self.whole_bytes.load(Ordering::Relaxed)
    }

    /// Messages of so many bytes have come whole.
    pub(crate) fn took(&self, bytes: usize) {
        self.whole_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// What has come of a message that is not whole has grown or shrunk.
    pub(crate) fn comes(&self, before: usize, now: usize) {
        self.partial_bytes.fetch_add(now.saturating_sub(before), Ordering::Relaxed);
        self.partial_bytes.fetch_sub(before.saturating_sub(now), Ordering::Relaxed);
        self.asks(before, now);
    }

    /// What is asked has grown or shrunk.
    fn asks(&self, before: usize, now: usize) {
        let (more, less) = (now.saturating_sub(before), before.saturating_sub(now));
        for account in [&self.asking_bytes, &self.node.asking_bytes] {
            account.fetch_add(more, Ordering::Relaxed);
            account.fetch_sub(less, Ordering::Relaxed);
        }
        if more > 0 {
            self.node.relieve();
        }
    }

    /// A stream has begun on the connection.
    pub(crate) fn begin(&self, queue: &Arc<Queue>) {
        let mut queues = lock(&self.queues);
        queues.retain(|queue| queue.strong_count() > 0);
        queues.push(Arc::downgrade(queue));
    }

    /// Bytes were queued. Not closed here, since the queue's lock is held: see [`Unread::relieve`].
    pub(crate) fn queued(&self, bytes: usize) {
        self.node.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Queued bytes were given to the connection, or dropped.
    pub(crate) fn unqueued(&self, bytes: usize) {
        self.node.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// The same bytes, counted for as long as the connection holds them.
    pub(crate) fn hold(self: &Arc<Self>, bytes: Bytes) -> Bytes {
        self.held_bytes.fetch_add(bytes.len(), Ordering::Relaxed);
        self.node.bytes.fetch_add(bytes.len(), Ordering::Relaxed);
        let held = Bytes::from_owner(Held { bytes, reader: Arc::clone(self) });
        self.node.relieve();
        held
    }

    /// Whether the connection is to end. Wakes the asking task if it is later.
    pub(crate) fn poll_cut(&self, context: &Context<'_>) -> Poll<()> {
        self.connection.register(context.waker());
        if self.is_cut.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Whether it has been told to end.
    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::Acquire)
    }

    /// Ends the connection.
    pub(crate) fn cut(&self) {
        self.is_cut.store(true, Ordering::Release);
        self.connection.wake();
    }

    fn load(&self) -> Load {
        let queues: Vec<_> = lock(&self.queues).iter().filter_map(Weak::upgrade).collect();
        let queues: Vec<_> = queues.into_iter().map(|queue| (queue.bytes(), queue)).collect();
        Load {
            held_bytes: self.held_bytes.load(Ordering::Relaxed) + self.asking_bytes.load(Ordering::Relaxed),
            queued_bytes: queues.iter().map(|(bytes, _)| bytes).sum(),
            fullest: queues.into_iter().max_by_key(|(bytes, _)| *bytes).map(|(_, queue)| queue),
        }
    }
}

/// An open call of a connection. It is over when it is dropped.
pub(crate) struct Call {
    reader: Arc<Reader>,
    bytes: usize,
}

impl Call {
    /// The connection's account.
    pub(crate) fn reader(&self) -> &Arc<Reader> {
        &self.reader
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let reader = &self.reader;
        reader.asks(self.bytes, 0);
        let micros = u64::try_from(reader.opened.elapsed().as_micros()).unwrap_or(u64::MAX);
        reader.idle_micros.store(micros, Ordering::Relaxed);
        reader.calls_open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection that is read slowly.
pub(crate) struct Slow {
    node: Arc<Unread>,
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.node.slow.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes of an answer that a connection was given. They are dropped once they are sent, or the connection is gone.
struct Held {
    bytes: Bytes,
    reader: Arc<Reader>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.reader.held_bytes.fetch_sub(self.bytes.len(), Ordering::Relaxed);
        self.reader.node.bytes.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::{Sink, tests::got};

    const MIB: usize = 1024 * 1024;

    fn unread(mib: usize) -> Arc<Unread> {
        Unread::new(mib * MIB, Counter::noop(), Counter::noop())
    }

    fn fill(sink: &Sink, mib: u64) {
        for operation in 0..mib {
            sink.answer(operation, got(MIB));
        }
        sink.flush();
    }

    #[test]
    fn past_the_bound_the_fullest_stream_is_closed_and_its_memory_free() {
        let unread = unread(16);
        let (few, most) = (unread.reader(None), unread.reader(None));
        let (patient, mut messages) = Sink::new(&few);
        let (small, _small) = Sink::new(&most);
        let (large, _large) = Sink::new(&most);
        fill(&patient, 6);
        fill(&small, 2);
        fill(&large, 7);
        assert!(!large.is_closed(), "all is within the bound");
        fill(&patient, 1);
        fill(&small, 2);
        assert!(large.is_closed() && !small.is_closed() && !patient.is_closed());
        assert!(unread.bytes() < 12 * MIB, "{} bytes", unread.bytes());
        drop((large, _large, small, _small));
        while messages.try_next().is_some() {}
        assert_eq!(unread.bytes(), 0);
    }

    #[test]
    fn a_connection_that_holds_the_most_is_cut() {
        let unread = unread(16);
        let (calls, streams) = (unread.reader(None), unread.reader(None));
        let (sink, _messages) = Sink::new(&streams);
        fill(&sink, 5);
        let mut held: Vec<_> = (0..10).map(|_| calls.hold(Bytes::from(vec![7; MIB]))).collect();
        let context = Context::from_waker(std::task::Waker::noop());
        assert!(calls.poll_cut(&context).is_pending());
        // Twice over the bound, and only one connection is to blame.
        held.extend((0..20).map(|_| calls.hold(Bytes::from(vec![7; MIB]))));
        assert!(calls.poll_cut(&context).is_ready());
        assert!(streams.poll_cut(&context).is_pending() && !sink.is_closed());
        assert_eq!(held[0], vec![7; MIB]);
        drop(held);
        assert!(unread.bytes() < 6 * MIB);
    }
}
