//! Counts what connections hold: every piece of an answer, from when it is given to HTTP/2 until it is sent; every call while it is
//! open; and what has come of a message that is not whole, which nobody but the connection can free.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use tonic::{
    Status,
    body::Body as TonicBody,
    codegen::{Service, http},
};
use tower::Layer;

use crate::unread::{Call, Reader};

/// What each header counts beside its name and value, as HTTP/2 has it.
const HEADER_BYTES: usize = 32;
/// What comes before each message of gRPC: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// Wraps a server's services.
#[derive(Clone, Copy)]
pub(super) struct HoldAnswers;

impl<S> Layer<S> for HoldAnswers {
    type Service = Holding<S>;

    fn layer(&self, inner: S) -> Holding<S> {
        Holding { inner }
    }
}

/// A service whose answers count.
#[derive(Clone)]
pub(super) struct Holding<S> {
    inner: S,
}

impl<S, O> Service<http::Request<TonicBody>> for Holding<S>
where
    S: Service<http::Request<TonicBody>, Response = http::Response<O>>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Held<O>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<TonicBody>) -> Self::Future {
        let reader = request.extensions().get::<Arc<Reader>>();
        let header_bytes =
            request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + HEADER_BYTES);
        let call = reader.map(|reader| Arc::new(reader.call(header_bytes.sum())));
        let request = match &call {
            Some(call) => request.map(|body| TonicBody::new(Asked::new(body, Arc::clone(call)))),
            None => request,
        };
        let answer = self.inner.call(request);
        Box::pin(async move { answer.await.map(|answer| answer.map(|body| Held { body: Box::pin(body), call })) })
    }
}

/// What a client says, of which the part counts that is not a whole message.
struct Asked {
    body: TonicBody,
    call: Arc<Call>,
    prefix: [u8; PREFIX_BYTES],
    prefix_bytes: usize,
    /// Bytes of the message that are to come, and those that have come.
    left: usize,
    come: usize,
    /// What is counted now.
    counted: usize,
}

impl Asked {
    fn new(body: TonicBody, call: Arc<Call>) -> Self {
        Self { body, call, prefix: [0; PREFIX_BYTES], prefix_bytes: 0, left: 0, come: 0, counted: 0 }
    }

    /// These bytes have come. Messages that are whole are taken at once, and not held.
    fn came(&mut self, mut piece: &[u8]) {
        let mut whole_bytes = 0;
        while !piece.is_empty() {
            if self.left == 0 {
                let taken = (PREFIX_BYTES - self.prefix_bytes).min(piece.len());
                self.prefix[self.prefix_bytes..self.prefix_bytes + taken].copy_from_slice(&piece[..taken]);
                self.prefix_bytes += taken;
                piece = &piece[taken..];
                if self.prefix_bytes == PREFIX_BYTES {
                    let [_, length @ ..] = self.prefix;
                    (self.left, self.come, self.prefix_bytes) = (u32::from_be_bytes(length) as usize, 0, 0);
                    whole_bytes += if self.left == 0 { PREFIX_BYTES } else { 0 };
                }
                continue;
            }
            let taken = self.left.min(piece.len());
            (self.left, self.come) = (self.left - taken, self.come + taken);
            piece = &piece[taken..];
            whole_bytes += if self.left == 0 { PREFIX_BYTES + self.come } else { 0 };
        }
        if whole_bytes > 0 {
            self.call.reader().took(whole_bytes);
        }
        let counts = if self.left == 0 { 0 } else { self.come };
        self.count(counts);
    }

    fn count(&mut self, bytes: usize) {
        let before = std::mem::replace(&mut self.counted, bytes);
        if before != bytes {
            self.call.reader().comes(before, bytes);
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.count(0);
    }
}

impl Body for Asked {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(piece) = frame.data_ref()
        {
            self.came(piece.chunk());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer whose pieces count from when they leave it.
pub(super) struct Held<B> {
    body: Pin<Box<B>>,
    /// The call is open until its answer is over.
    call: Option<Arc<Call>>,
}

impl<B: Body<Data = Bytes>> Body for Held<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        // Of a connection that is to end no more is made: its streams would go on until its own task runs, which then ends them too.
        if self.call.as_ref().is_some_and(|call| call.reader().is_cut()) {
            return Poll::Pending;
        }
        let polled = self.body.as_mut().poll_frame(context);
        let Some(call) = &self.call else { return polled };
        polled.map_ok(|frame| frame.map_data(|piece| call.reader().hold(piece)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use metrics::Counter;

    use super::*;
    use crate::unread::{UNREAD_BYTES_MAX, Unread};

    #[test]
    fn what_has_come_of_a_message_counts_until_it_is_whole() {
        let unread = Unread::new(UNREAD_BYTES_MAX, Counter::noop(), Counter::noop());
        let reader = unread.reader(None);
        let call = Arc::new(reader.call(100));
        let own = unread.asking_bytes();
        assert!(own > 100 && reader.has_asked() && !reader.is_idle());
        let mut asked = Asked::new(TonicBody::empty(), Arc::clone(&call));
        let counts = |asked: &mut Asked, piece: &[u8]| {
            asked.came(piece);
            unread.asking_bytes() - own
        };
        // A message of 3 bytes and the prefix of one of 1,000, in two pieces.
        assert_eq!(counts(&mut asked, &[0, 0, 0, 0, 3, 7, 7, 7, 0, 0]), 0);
        assert_eq!(counts(&mut asked, &[0, 3, 0xe8]), 0);
        assert_eq!(counts(&mut asked, &[7; 600]), 600);
        assert_eq!(counts(&mut asked, &[7; 399]), 999);
        assert_eq!(counts(&mut asked, &[7, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 7]), 1);
        assert_eq!((reader.partial_bytes(), reader.whole_bytes()), (1, 3 + 5 + 1_000 + 5 + 5));
        drop(asked);
        assert_eq!((unread.asking_bytes(), reader.partial_bytes()), (own, 0));
        drop(call);
        assert_eq!(unread.asking_bytes(), 0);
        assert!(reader.is_idle());
    }

    #[test]
    fn past_the_bound_who_asks_for_most_is_cut() {
        let unread = Unread::new(1_000_000, Counter::noop(), Counter::noop());
        let (greedy, modest) = (unread.reader(None), unread.reader(None));
        let small = modest.call(0);
        let call = Arc::new(greedy.call(0));
        let mut asked: Vec<_> = (0..10).map(|_| Asked::new(TonicBody::empty(), Arc::clone(&call))).collect();
        for asked in &mut asked {
            asked.came(&[0, 0xff, 0xff, 0xff, 0xff]);
            asked.came(&vec![7; 90_000]);
        }
        assert!(!greedy.is_cut());
        asked[0].came(&vec![7; 100_000]);
        assert!(greedy.is_cut() && !modest.is_cut());
        drop((asked, call, small));
        assert_eq!(unread.asking_bytes(), 0);
    }
}
