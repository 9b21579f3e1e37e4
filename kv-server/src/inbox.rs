//! Where everything that happens to a node waits for its next turn.
//!
//! Filled by the tasks of the loop and by the log and checkpoint threads, emptied turn by turn. What goes first, and what is
//! refused, the core's inbox decides, so that the simulator has the very same door; here are the lock, and the waiting: for
//! something to do, and of a peer's connection for room.

use std::sync::{Mutex, MutexGuard, PoisonError};

use kv_core::{
    error::Error,
    inbox,
    io::{Answer, Input, Operation, Request},
    types::{NodeId, Time},
};
use tokio::sync::{Notify, oneshot};

use crate::{clock, convert::FromPeer, sink::Asker, status::Report};

/// Something that happened.
pub(crate) enum Event {
    /// For the node as it is.
    Input(Input),
    /// A client asks. The request's id is given when it is taken.
    Ask(Asker, Request),
    /// A client asked, and the request has waited for too long: it is refused.
    Late(Asker, Request),
    /// A message of a peer whose handshake was accepted.
    Peer(NodeId, FromPeer),
    /// Somebody wants to know how the node is doing.
    Status(oneshot::Sender<Report>),
}

impl Event {
    /// About what it takes in memory: most messages are small, and are then hardly more than the event that carries them.
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.bytes_carried()
    }

    fn bytes_carried(&self) -> usize {
        match self {
            Self::Peer(_, FromPeer::Node(message)) => message.bytes_about(),
            Self::Peer(_, FromPeer::Founding(_)) => 1_024,
            Self::Ask(_, request) => match &request.operation {
                Operation::Write { write, .. } => {
                    let value = match &write.action {
                        kv_core::command::Action::Put(value) => value.as_bytes().len(),
                        kv_core::command::Action::Delete => 0,
                    };
                    write.key.as_bytes().len() + value
                }
                Operation::Get { key, .. } => key.as_bytes().len(),
                _ => 0,
            },
            _ => 0,
        }
    }
}

/// The queue.
#[derive(Default)]
pub(crate) struct Inbox {
    queue: Mutex<inbox::Inbox<Event>>,
    /// Something was put in.
    filled: Notify,
    /// Peers' messages were taken out.
    room: Notify,
}

impl Inbox {
    /// Puts in what the node itself has asked for, or what is rare.
    pub(crate) fn push(&self, event: Event) {
        self.lock().push(event);
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
        if !queue.has_room_for_requests(asked.len()) {
            return Err(asked);
        }
        let now = clock::now();
        for (asker, request) in asked {
            let deadline = request.deadline;
            let event = Event::Ask(asker, request);
            queue.push_request(now, deadline, event.bytes(), event);
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

    /// Puts in a peer's messages in their order, waiting for room.
    pub(crate) async fn push_peer(&self, from: NodeId, messages: Vec<FromPeer>) {
        let mut messages = messages.into_iter().peekable();
        while messages.peek().is_some() {
            let room = self.room.notified();
            {
                let mut queue = self.lock();
                while queue.has_room_for_peers()
                    && let Some(message) = messages.next()
                {
                    let event = Event::Peer(from, message);
                    queue.push_peer(event.bytes(), event);
                }
            }
            self.filled.notify_one();
            if messages.peek().is_some() {
                room.await;
            }
        }
    }

    /// Says that something is left in it.
    pub(crate) fn more(&self) {
        self.filled.notify_one();
    }

    /// Waits until something may be in it.
    pub(crate) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Takes out at most what one turn takes, and what has waited for too long. True if nothing is left.
    pub(crate) fn take(&self, now: Time, into: &mut Vec<Event>) -> bool {
        let mut late = Vec::new();
        let mut queue = self.lock();
        let had_room = queue.has_room_for_peers();
        let is_empty = queue.take(now, into, &mut late);
        let has_room = queue.has_room_for_peers();
        drop(queue);
        into.extend(late.into_iter().map(|event| match event {
            Event::Ask(asker, request) => Event::Late(asker, request),
            other => other,
        }));
        if has_room && !had_room {
            self.room.notify_waiters();
        }
        is_empty
    }

    /// How many events wait.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, inbox::Inbox<Event>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
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
        inbox::Limits,
        message::PeerMessage,
        types::{MapVersion, RequestId, ShardId},
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
        let Limits { requests_max, turn_inputs_max, .. } = Limits::default();
        assert!(inbox.ask((0..requests_max).map(|_| request()).collect()).is_ok());
        assert_eq!(inbox.ask(vec![request()]).unwrap_err().len(), 1);
        inbox.push(Event::Input(Input::Tick));
        let mut taken = Vec::new();
        assert!(!inbox.take(Time(0), &mut taken));
        assert!(taken.len() >= turn_inputs_max);
        assert!(matches!(taken[0], Event::Input(Input::Tick)), "load does not keep a tick waiting");
        assert!(inbox.ask(vec![request()]).is_ok(), "a turn makes room");
    }

    #[tokio::test]
    async fn a_peer_waits_for_room() {
        let inbox = std::sync::Arc::new(Inbox::default());
        let message = || FromPeer::Node(PeerMessage::MapAsk { have: MapVersion(0) });
        let full = Limits::default().peer_bytes_max;
        inbox.lock().push_peer(full, Event::Peer(NodeId(3), message()));
        let pushing = tokio::spawn({
            let (inbox, message) = (std::sync::Arc::clone(&inbox), message());
            async move { inbox.push_peer(NodeId(2), vec![message]).await }
        });
        tokio::task::yield_now().await;
        assert_eq!(inbox.len(), 1);
        inbox.take(Time(0), &mut Vec::new());
        pushing.await.unwrap();
        assert_eq!(inbox.len(), 1);
    }
}
