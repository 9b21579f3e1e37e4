//! Where everything that happens to a node waits for its next turn.
//!
//! One queue, filled by the tasks of the loop and by the log and checkpoint threads, emptied turn by turn. What the node
//! itself has asked for (a synced batch, a finished job) is always taken; what comes from outside is bounded: clients are
//! refused past [`REQUESTS_MAX`], and a peer's connection is not read while [`PEER_BYTES_MAX`] wait, so that the peer feels
//! it.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use kv_core::{
    error::Error,
    io::{Answer, Input, Operation, Request},
    types::NodeId,
};
use tokio::sync::{Notify, oneshot};

use crate::{convert::FromPeer, sink::Asker, status::Report};

/// Requests that wait for a turn. Past it a request is refused as overloaded.
const REQUESTS_MAX: usize = 65_536;
/// Bytes of peers' messages that wait for a turn. Past it no connection is read.
const PEER_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Most inputs of one turn.
const TURN_INPUTS_MAX: usize = 4_096;
/// Bytes of inputs after which a turn takes no more.
const TURN_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Something that happened.
pub(crate) enum Event {
    /// For the node as it is.
    Input(Input),
    /// A client asks. The request's id is given when it is taken.
    Ask(Asker, Request),
    /// A message of a peer whose handshake was accepted.
    Peer(NodeId, FromPeer),
    /// Somebody wants to know how the node is doing.
    Status(oneshot::Sender<Report>),
}

impl Event {
    fn is_request(&self) -> bool {
        matches!(self, Self::Ask(..))
    }

    fn peer_bytes(&self) -> usize {
        match self {
            Self::Peer(_, FromPeer::Node(message)) => message.bytes_about(),
            Self::Peer(_, FromPeer::Founding(_)) => 1_024,
            _ => 0,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Ask(_, request) => match &request.operation {
                Operation::Write { write, .. } => {
                    let value = match &write.action {
                        kv_core::command::Action::Put(value) => value.as_bytes().len(),
                        kv_core::command::Action::Delete => 0,
                    };
                    64 + write.key.as_bytes().len() + value
                }
                _ => 64,
            },
            other => other.peer_bytes(),
        }
    }
}

/// The queue.
#[derive(Default)]
pub(crate) struct Inbox {
    queue: Mutex<Queue>,
    /// Something was put in.
    filled: Notify,
    /// Peers' messages were taken out.
    room: Notify,
}

#[derive(Default)]
struct Queue {
    events: VecDeque<Event>,
    requests: usize,
    peer_bytes: usize,
}

impl Inbox {
    /// Puts in what the node itself has asked for, or what is rare.
    pub(crate) fn push(&self, event: Event) {
        self.lock().put(event);
        self.filled.notify_one();
    }

    /// Puts in what a client asks, all or none of it.
    ///
    /// # Errors
    /// Gives it back if the queue is full.
    pub(crate) fn ask(&self, asked: Vec<(Asker, Request)>) -> Result<(), Vec<(Asker, Request)>> {
        if asked.is_empty() {
            return Ok(());
        }
        let mut queue = self.lock();
        if queue.requests + asked.len() > REQUESTS_MAX {
            return Err(asked);
        }
        for (asker, request) in asked {
            queue.put(Event::Ask(asker, request));
        }
        drop(queue);
        self.filled.notify_one();
        Ok(())
    }

    /// Puts in one request and waits for its answer. Dropping the wait leaves the request to run.
    pub(crate) async fn call(&self, request: Request) -> Result<Answer, Error> {
        let (answer, answered) = oneshot::channel();
        if self.ask(vec![(Asker::Call(answer), request)]).is_err() {
            return Err(overloaded());
        }
        answered.await.unwrap_or_else(|_| {
            Err(Error::unknown(kv_core::error::ErrorKind::NoQuorum, "the node stopped before it answered"))
        })
    }

    /// Puts in a peer's message, waiting for room.
    pub(crate) async fn push_peer(&self, from: NodeId, message: FromPeer) {
        loop {
            let room = self.room.notified();
            {
                let mut queue = self.lock();
                if queue.peer_bytes < PEER_BYTES_MAX {
                    queue.put(Event::Peer(from, message));
                    break;
                }
            }
            room.await;
        }
        self.filled.notify_one();
    }

    /// Says that something is left in it.
    pub(crate) fn more(&self) {
        self.filled.notify_one();
    }

    /// Waits until something may be in it.
    pub(crate) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Takes out at most what one turn takes. True if nothing is left.
    pub(crate) fn take(&self, into: &mut Vec<Event>) -> bool {
        let mut queue = self.lock();
        let (mut bytes, mut peer_bytes) = (0, 0);
        while into.len() < TURN_INPUTS_MAX && bytes < TURN_BYTES_MAX {
            let Some(event) = queue.events.pop_front() else { break };
            bytes += event.bytes();
            peer_bytes += event.peer_bytes();
            queue.requests -= usize::from(event.is_request());
            into.push(event);
        }
        queue.peer_bytes -= peer_bytes;
        let is_empty = queue.events.is_empty();
        drop(queue);
        if peer_bytes > 0 {
            self.room.notify_waiters();
        }
        is_empty
    }

    /// How many events wait.
    pub(crate) fn len(&self) -> usize {
        self.lock().events.len()
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn put(&mut self, event: Event) {
        self.requests += usize::from(event.is_request());
        self.peer_bytes += event.peer_bytes();
        self.events.push_back(event);
    }
}

/// What a request gets that finds the queue full.
pub(crate) fn overloaded() -> Error {
    Error::overloaded("the node has too many requests waiting; ask again a little later", 50)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_core::{
        message::PeerMessage,
        types::{MapVersion, RequestId, ShardId, Time},
    };

    fn request() -> (Asker, Request) {
        let (sender, _) = oneshot::channel();
        let request = Request {
            id: RequestId(0),
            shard: ShardId(1),
            epoch: None,
            deadline: Time(0),
            operation: Operation::OpenSession,
        };
        (Asker::Call(sender), request)
    }

    #[test]
    fn requests_past_the_bound_are_given_back_and_reports_are_not() {
        let inbox = Inbox::default();
        assert!(inbox.ask((0..REQUESTS_MAX).map(|_| request()).collect()).is_ok());
        assert_eq!(inbox.ask(vec![request()]).unwrap_err().len(), 1);
        inbox.push(Event::Input(Input::Tick));
        let mut taken = Vec::new();
        assert!(!inbox.take(&mut taken));
        assert_eq!(taken.len(), TURN_INPUTS_MAX);
        assert!(inbox.ask(vec![request()]).is_ok(), "a turn makes room");
    }

    #[tokio::test]
    async fn a_peer_waits_for_room() {
        let inbox = std::sync::Arc::new(Inbox::default());
        inbox.lock().peer_bytes = PEER_BYTES_MAX;
        let message = FromPeer::Node(PeerMessage::MapAsk { have: MapVersion(0) });
        let pushing = tokio::spawn({
            let inbox = std::sync::Arc::clone(&inbox);
            async move { inbox.push_peer(NodeId(2), message).await }
        });
        tokio::task::yield_now().await;
        assert_eq!(inbox.len(), 0);
        inbox.lock().peer_bytes = 0;
        inbox.room.notify_waiters();
        pushing.await.unwrap();
        assert_eq!(inbox.len(), 1);
    }
}
