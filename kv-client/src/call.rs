//! One call over the wire, from the first sending to the last: the router decides, this carries it out.
//!
//! A write takes a place in its shard's session before it is sent and keeps it through all sendings, so that it runs at most
//! once. What an uncertain write is sent as, and whether one whose session has expired may go on under a new one, the router
//! decides.

use std::{sync::Arc, time::Duration};

use kv_core::{
    error::{Error as CoreError, ErrorKind as CoreKind},
    router::{Attempt, Decision, Destination, Last, OperationKind, WINDOW_MAX},
    types::{Epoch, NodeId, ShardId},
};
use kv_proto::v1;
use tokio::time::{Instant, timeout_at};

use crate::{
    convert,
    error::{Error, ErrorKind, Outcome, Result},
    link::{CONGESTED_RETRY_MS, LinkError},
    operation::{Answer, Operation, Write},
    remote::Remote,
    sessions::{Stamp, Window},
    types::{Consistency, Durability},
};

impl Remote {
    /// Runs one operation to its end, within `timeout`.
    ///
    /// # Errors
    /// What the last sending failed with; the outcome is that of the operation.
    pub(crate) async fn run(&self, operation: &Operation, timeout: Duration) -> Result<Answer> {
        let (kind, destination) = match operation {
            Operation::Get { key, consistency: Consistency::Linearizable } => (OperationKind::Read, key.into()),
            Operation::Get { key, .. } => (OperationKind::ReadAnywhere, key.into()),
            Operation::Write(write) => (OperationKind::SessionWrite, (&write.key).into()),
            Operation::WaitDurable(token) => (OperationKind::Read, Destination::Shard(token.shard)),
        };
        let mut way = Way::new(self, kind, destination, self.routing.deadline(timeout));
        let mut place: Option<(ShardId, Stamp)> = None;
        loop {
            if let (None, Operation::Write(write)) = (&place, operation) {
                // Before the node is chosen: opening a session tells who leads the shard.
                let shard = self.routing.router().route(&write.key).map(|target| target.shard);
                if let Some(shard) = shard {
                    place = Some((shard, self.place(shard, &way).await?));
                }
            }
            let sending = match way.next().await? {
                Next::Send(sending) => sending,
                Next::Renew => {
                    if let Some((shard, stamp)) = place.take() {
                        self.sessions.of(shard).expired(stamp.session());
                    }
                    continue;
                }
            };
            // A write that may have been applied keeps its place, whichever shard its key belongs to by now.
            let elsewhere = place.as_ref().is_none_or(|(shard, _)| *shard != sending.shard);
            if kind == OperationKind::SessionWrite && elsewhere && !way.attempt.is_uncertain() {
                place = Some((sending.shard, self.place(sending.shard, &way).await?));
            }
            let stamp = place.as_ref().map(|(_, stamp)| stamp.to_wire());
            let safe = match operation {
                Operation::Write(write) if way.attempt.must_be_sync() => {
                    Some(Operation::Write(Write { durability: Some(Durability::Sync), ..write.clone() }))
                }
                _ => None,
            };
            let operation = safe.as_ref().unwrap_or(operation);
            let Some(result) = way.send(&sending, convert::operation(operation, stamp)).await else { continue };
            match convert::answer(operation, result) {
                Ok(answer) => {
                    way.succeeded();
                    return Ok(answer);
                }
                Err(error) => {
                    if let (CoreKind::SessionExpired, Some((shard, stamp))) = (error.kind(), &place) {
                        self.sessions.of(*shard).expired(stamp.session());
                    }
                    way.refused(error);
                }
            }
        }
    }

    /// A place in the shard's session, which is opened if there is none.
    async fn place(&self, shard: ShardId, way: &Way<'_>) -> Result<Stamp> {
        let session = self.sessions.of(shard);
        let window = match session.current() {
            Some(window) => window,
            None => {
                let Ok(_opening) = timeout_at(way.deadline, session.opening.lock()).await else {
                    return Err(way.failure(ErrorKind::Timeout, "no session could be opened before the deadline"));
                };
                match session.current() {
                    Some(window) => window,
                    None => self.open_session(shard, way).await?,
                }
            }
        };
        if let Some(stamp) = window.take() {
            return Ok(stamp);
        }
        timeout_at(way.deadline, window.take_when_there_is_room()).await.map_err(|_| {
            let message = format!("{WINDOW_MAX} writes to shard {shard} are under way and the oldest is not done");
            way.failure(ErrorKind::Overloaded, message)
        })
    }

    async fn open_session(&self, shard: ShardId, of: &Way<'_>) -> Result<Arc<Window>> {
        let mut way = Way::new(self, OperationKind::SessionWrite, Destination::Shard(shard), of.deadline);
        loop {
            // The write itself has not been sent, or is as uncertain as it was: the session's fate is nothing to the caller.
            let next = way.next().await.map_err(|error| error.with_outcome(of.outcome()))?;
            // The opening of a session is in none that could expire.
            let Next::Send(sending) = next else { continue };
            let open = v1::op::Operation::OpenSession(v1::OpenSessionRequest {});
            let Some(result) = way.send(&sending, open).await else { continue };
            match convert::session(result) {
                Ok(session) => {
                    way.succeeded();
                    return Ok(self.sessions.of(shard).opened(session));
                }
                Err(error) => way.refused(error),
            }
        }
    }
}

/// Where to send.
struct Sending {
    node: NodeId,
    shard: ShardId,
    epoch: Epoch,
    answer_max: Duration,
}

/// What to do next.
enum Next {
    Send(Sending),
    /// Take a place in a new session first.
    Renew,
}

/// What came of the last sending.
enum Failure {
    Refused(CoreError),
    NodeDown,
    ConnectionLost,
    NoAnswer,
}

/// An operation on its way through the cluster.
struct Way<'a> {
    remote: &'a Remote,
    kind: OperationKind,
    deadline: Instant,
    attempt: Attempt,
    last: Option<Failure>,
    /// Whether the last sending failed for want of a node or of a leader, and what was said.
    unreachable: Option<Arc<str>>,
}

impl<'a> Way<'a> {
    fn new(remote: &'a Remote, kind: OperationKind, destination: Destination, deadline: Instant) -> Self {
        let attempt = Attempt::new(kind, destination, remote.routing.time(deadline));
        Self { remote, kind, deadline, attempt, last: None, unreachable: None }
    }

    /// Waits until there is a node to send to, or a session to be opened.
    async fn next(&mut self) -> Result<Next> {
        let routing = &self.remote.routing;
        loop {
            let mut map_changed = std::pin::pin!(routing.map_changed.notified());
            let decision = {
                let mut router = routing.router();
                let last = match &self.last {
                    None => Last::Nothing,
                    Some(Failure::Refused(error)) => Last::Refused(error),
                    Some(Failure::NodeDown) => Last::NodeDown,
                    Some(Failure::ConnectionLost) => Last::ConnectionLost,
                    Some(Failure::NoAnswer) => Last::NoAnswer,
                };
                let decision = self.attempt.next(&mut router, last, routing.time(Instant::now()), fastrand::u64(..));
                if router.map_wanted() {
                    routing.map_wanted.notify_one();
                }
                decision
            };
            self.last = None;
            match decision {
                Decision::Send { node, shard, epoch, answer_micros_max } => {
                    let answer_max = Duration::from_micros(answer_micros_max);
                    return Ok(Next::Send(Sending { node, shard, epoch, answer_max }));
                }
                Decision::Wait { micros } => {
                    map_changed.as_mut().enable();
                    tokio::select! {
                        () = tokio::time::sleep(Duration::from_micros(micros)) => {}
                        () = map_changed => {}
                    }
                }
                Decision::Renew => return Ok(Next::Renew),
                Decision::GiveUp(error) => return Err(self.give_up(error)),
            }
        }
    }

    /// Sends once. `None` if there is no result: then ask for what is next.
    async fn send(&mut self, sending: &Sending, operation: v1::op::Operation) -> Option<Option<v1::result::Result>> {
        let until = (Instant::now() + sending.answer_max).min(self.deadline);
        let failure = match self.remote.link(sending.node) {
            None => LinkError::NotSent(format!("node {} has not said where clients reach it", sending.node).into()),
            Some(link) => match link.call(sending.shard, sending.epoch, operation, self.deadline, until).await {
                Ok(result) => return Some(result),
                Err(failure) => failure,
            },
        };
        if matches!(failure, LinkError::NotSent(_) | LinkError::Broken(_)) {
            // It may have come up again somewhere else.
            self.remote.routing.map_wanted.notify_one();
        }
        self.unreachable = None;
        self.last = Some(match failure {
            LinkError::NotSent(reason) => {
                self.unreachable = Some(reason);
                Failure::NodeDown
            }
            LinkError::Broken(reason) => {
                self.unreachable = Some(reason);
                Failure::ConnectionLost
            }
            LinkError::TimedOut => Failure::NoAnswer,
            LinkError::Full => Failure::Refused(congested("too many operations wait for one node")),
            LinkError::Congested => Failure::Refused(congested("the operation had to wait too long for its turn")),
        });
        None
    }

    /// The node answered with an error.
    fn refused(&mut self, error: CoreError) {
        let no_leader = matches!(error.kind(), CoreKind::NoQuorum | CoreKind::NotOwner | CoreKind::StaleEpoch);
        self.unreachable = no_leader.then(|| error.message().into());
        self.last = Some(Failure::Refused(error));
    }

    /// The node answered.
    fn succeeded(&mut self) {
        let routing = &self.remote.routing;
        let now = routing.time(Instant::now());
        self.attempt.succeeded(&mut routing.router(), now);
    }

    fn outcome(&self) -> Outcome {
        let is_write = self.kind == OperationKind::SessionWrite;
        if is_write && self.attempt.is_uncertain() { Outcome::Unknown } else { Outcome::NotApplied }
    }

    /// An error that is not the router's.
    fn failure(&self, kind: ErrorKind, message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
        Error::not_applied(kind, message).with_outcome(self.outcome())
    }

    /// The router's last word, with what it can't know: why a node was not reached.
    fn give_up(&self, error: CoreError) -> Error {
        let error = Error::from(error);
        match &self.unreachable {
            Some(reason) if error.kind() == ErrorKind::Timeout => {
                Error::not_applied(ErrorKind::Unavailable, format!("{} ({reason})", error.message()))
                    .with_outcome(error.outcome())
            }
            _ => error,
        }
    }
}

fn congested(message: &'static str) -> CoreError {
    CoreError::overloaded(message, CONGESTED_RETRY_MS)
}
