//! Counts what connections of clients hold: every piece of an answer, from when it is given to HTTP/2 until it is sent.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tonic::codegen::{Service, http};
use tower::Layer;

use crate::unread::Reader;

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

impl<S, I, O> Service<http::Request<I>> for Holding<S>
where
    S: Service<http::Request<I>, Response = http::Response<O>>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Held<O>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<I>) -> Self::Future {
        let reader = request.extensions().get::<Arc<Reader>>().cloned();
        let answer = self.inner.call(request);
        Box::pin(async move { answer.await.map(|answer| answer.map(|body| Held { body: Box::pin(body), reader })) })
    }
}

/// An answer whose pieces count from when they leave it.
pub(super) struct Held<B> {
    body: Pin<Box<B>>,
    reader: Option<Arc<Reader>>,
}

impl<B: Body<Data = Bytes>> Body for Held<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let polled = self.body.as_mut().poll_frame(context);
        let Some(reader) = &self.reader else { return polled };
        polled.map_ok(|frame| frame.map_data(|piece| reader.hold(piece)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
