//! The sending side of a batch stream. The transport pulls: each time it can take a message, and one may leave, it gets all that
//! has queued since the last, so that under load messages grow by themselves, and without load nothing waits.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_util::Stream;
use kv_proto::v1::{self, batch_request_message::Message};
use tokio::time::{Instant, Sleep, sleep_until};

use super::shared::{Next, Shared};

/// The messages of one stream: Hello, and then batches. It ends when the stream is no longer the link's.
#[derive(Debug)]
pub(super) struct Outgoing {
    hello: Option<v1::Hello>,
    stream: u64,
    shared: Arc<Shared>,
    /// Rings when a message has been held for long enough.
    alarm: Pin<Box<Sleep>>,
}

impl Outgoing {
    /// The messages of the stream of this number. Must be called inside a tokio runtime.
    pub(super) fn new(hello: v1::Hello, stream: u64, shared: Arc<Shared>) -> Self {
        Self { hello: Some(hello), stream, shared, alarm: Box::pin(sleep_until(Instant::now())) }
    }
}

impl Stream for Outgoing {
    type Item = v1::BatchRequestMessage;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(hello) = self.hello.take() {
            return Poll::Ready(Some(v1::BatchRequestMessage { message: Some(Message::Hello(hello)) }));
        }
        let this = &mut *self;
        loop {
            match this.shared.next(this.stream, Instant::now(), context) {
                Next::Batch(batch) => {
                    return Poll::Ready(Some(v1::BatchRequestMessage { message: Some(Message::Batch(batch)) }));
                }
                Next::At(until) => {
                    if this.alarm.deadline() != until {
                        this.alarm.as_mut().reset(until);
                    }
                    ready!(this.alarm.as_mut().poll(context));
                }
                Next::Wait => return Poll::Pending,
                Next::End => return Poll::Ready(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, Ordering},
        task::Wake,
        time::Duration,
    };

    use futures_util::{FutureExt, StreamExt};
    use kv_core::types::{Epoch, ShardId};
    use tokio::{runtime::RuntimeFlavor, sync::oneshot};

    use super::{
        super::{pacing::OUTSTANDING_HELD_MIN, shared::Pending},
        *,
    };

    /// A stream that was welcomed, after its Hello.
    async fn welcomed() -> (Arc<Shared>, Outgoing) {
        let shared = Arc::new(Shared::new(RuntimeFlavor::CurrentThread));
        shared.begin(1);
        let mut outgoing = Outgoing::new(v1::Hello::default(), 1, Arc::clone(&shared));
        assert!(matches!(outgoing.next().await.unwrap().message, Some(Message::Hello(_))));
        shared.opened(100);
        (shared, outgoing)
    }

    type Caller = oneshot::Receiver<Result<Option<v1::result::Result>, super::super::LinkError>>;

    /// Asks for so much that what is asked next is held.
    async fn ask_much(shared: &Shared, outgoing: &mut Outgoing) -> (Vec<Caller>, Vec<v1::Op>) {
        let callers = (0..=OUTSTANDING_HELD_MIN as u64).map(|shard| ask(shared, shard)).collect();
        (callers, ops(outgoing.next().await))
    }

    fn ask(shared: &Shared, shard: u64) -> Caller {
        put(shared, shard, false)
    }

    fn put(shared: &Shared, shard: u64, hurries: bool) -> Caller {
        let (reply, caller) = oneshot::channel();
        let operation = v1::op::Operation::Put(v1::PutRequest::default());
        let deadline = Instant::now() + Duration::from_secs(60);
        let pending =
            Pending { shard: ShardId(shard), epoch: Epoch(1), operation, deadline, bytes: 100, hurries, reply };
        shared.push(pending).unwrap();
        caller
    }

    fn ops(message: Option<v1::BatchRequestMessage>) -> Vec<v1::Op> {
        let Some(Message::Batch(batch)) = message.unwrap().message else { panic!("only Hello is no batch") };
        batch.ops
    }

    fn shards(ops: &[v1::Op]) -> Vec<u64> {
        ops.iter().map(|op| op.shard).collect()
    }

    #[tokio::test]
    async fn what_is_asked_while_an_answer_is_awaited_leaves_together_when_it_comes() {
        let (shared, mut outgoing) = welcomed().await;
        let (mut callers, first) = ask_much(&shared, &mut outgoing).await;
        assert_eq!(first.len(), callers.len(), "nothing was outstanding: nothing waited");
        callers.push(ask(&shared, 13));
        assert!(outgoing.next().now_or_never().is_none());
        callers.push(ask(&shared, 14));
        shared.complete(vec![v1::Result { id: first[0].id, result: None }]);
        assert_eq!(callers[0].try_recv().unwrap(), Ok(None));
        callers.push(ask(&shared, 15));
        assert_eq!(shards(&ops(outgoing.next().await)), [13, 14, 15]);
    }

    #[tokio::test]
    async fn a_few_callers_wait_for_nobody() {
        let (shared, mut outgoing) = welcomed().await;
        for shard in 0..OUTSTANDING_HELD_MIN as u64 {
            let _caller = ask(&shared, shard);
            assert_eq!(shards(&ops(outgoing.next().now_or_never().unwrap())), [shard]);
        }
        let _caller = ask(&shared, 9);
        assert!(outgoing.next().now_or_never().is_none());
    }

    #[tokio::test]
    async fn what_is_held_leaves_without_an_answer_before_long() {
        let (shared, mut outgoing) = welcomed().await;
        let _asked = ask_much(&shared, &mut outgoing).await;
        for shard in 2..5 {
            let _caller = ask(&shared, shard);
            assert_eq!(shards(&ops(outgoing.next().await)), [shard]);
        }
    }

    #[tokio::test]
    async fn what_hurries_takes_along_what_is_held() {
        let (shared, mut outgoing) = welcomed().await;
        let _asked = ask_much(&shared, &mut outgoing).await;
        let _held = ask(&shared, 13);
        assert!(outgoing.next().now_or_never().is_none());
        let _hurried = put(&shared, 14, true);
        assert_eq!(shards(&ops(outgoing.next().now_or_never().unwrap())), [13, 14]);
    }

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn callers_that_gave_up_while_they_were_held_hold_nobody_up() {
        let (shared, mut outgoing) = welcomed().await;
        let _asked = ask_much(&shared, &mut outgoing).await;
        let woken = Arc::new(Woken::default());
        let waker = Arc::clone(&woken).into();
        let context = Context::from_waker(&waker);
        drop(ask(&shared, 2));
        let Next::At(until) = shared.next(1, Instant::now(), &context) else { panic!("it is held") };
        drop(ask(&shared, 3));
        assert!(!woken.0.load(Ordering::SeqCst), "the alarm is set already");
        assert!(matches!(shared.next(1, until, &context), Next::Wait), "there was nothing to send");
        let _fourth = ask(&shared, 4);
        assert!(woken.0.load(Ordering::SeqCst));
        assert_eq!(shards(&ops(outgoing.next().await)), [4]);
    }
}
