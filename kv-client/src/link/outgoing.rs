//! The sending side of a batch stream. The transport pulls: each time it can take a message it gets all that has queued
//! since the last, so that under load messages grow by themselves, and without load nothing waits.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::Stream;
use kv_proto::v1::{self, batch_request_message::Message};

use super::shared::Shared;

/// The messages of one stream: Hello, and then batches. It ends when the stream is no longer the link's.
#[derive(Debug)]
pub(super) struct Outgoing {
    hello: Option<v1::Hello>,
    stream: u64,
    shared: Arc<Shared>,
}

impl Outgoing {
    /// The messages of the stream of this number.
    pub(super) fn new(hello: v1::Hello, stream: u64, shared: Arc<Shared>) -> Self {
        Self { hello: Some(hello), stream, shared }
    }
}

impl Stream for Outgoing {
    type Item = v1::BatchRequestMessage;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(hello) = self.hello.take() {
            return Poll::Ready(Some(v1::BatchRequestMessage { message: Some(Message::Hello(hello)) }));
        }
        self.shared
            .poll_batch(self.stream, context)
            .map(|batch| batch.map(|batch| v1::BatchRequestMessage { message: Some(Message::Batch(batch)) }))
    }
}
