//! The sessions of a simulated client: opened at the first write to a shard, replaced when they have expired, and now and then
//! for no reason.
//!
//! An operation keeps to the session in which it began, through all its sendings. That one may have been replaced meanwhile:
//! what is open in it holds its floor all the same, as it does in the client of production, where every write holds its place.
//!
//! *Never produced here*: two clients in one session, a sequence that is used twice, a floor above a sequence that is open.

use kv_core::{
    command::SessionStamp,
    error::{Error, ErrorKind},
    io::Operation,
    router::{Attempt, Destination, Last, OperationKind, Router, Window},
    types::{SessionId, ShardId, Time},
};

use super::{
    client::Open,
    world::{Event, World},
};
use crate::history;

/// How long a client waits for a session to be opened, in microseconds.
const OPENING_MICROS_MAX: u64 = 5_000_000;
/// How long a client waits for a map until it looks again, in microseconds.
const MAP_MICROS: u64 = 20_000;
/// How long a client waits for room in a session until it looks again, in microseconds.
const ROOM_MICROS: u64 = 5_000;

/// A client's session with one shard.
#[derive(Debug, Default)]
pub(super) struct Session {
    id: Option<SessionId>,
    opening: bool,
    /// Operations that wait for it to be opened.
    waiting: Vec<u64>,
}

impl World {
    /// Gives a write its session number and sends it, or has a session opened first.
    pub(super) fn in_session(&mut self, client: usize, number: u64, shard: ShardId) {
        let now = self.now;
        let churn_percent = self.plan.clients.churn_percent;
        let here = &mut self.clients[client];
        let session = here.sessions.entry(shard).or_default();
        if churn_percent > 0 && session.id.is_some() && here.rng.u32(..100) < churn_percent {
            // The old one is left as it is; what is open in it goes on there.
            *session = Session::default();
        }
        let Some(id) = session.id else {
            session.waiting.push(number);
            if !session.opening {
                session.opening = true;
                let deadline = now + OPENING_MICROS_MAX;
                let attempt = Attempt::new(OperationKind::SessionWrite, Destination::Shard(shard), Time(deadline));
                let open = Open {
                    operation: Operation::OpenSession,
                    recorded: None,
                    deadline,
                    attempt,
                    request: None,
                    wakes: 0,
                    shard: Some(shard),
                    in_session: false,
                    must_succeed: None,
                };
                let opening = here.add(open);
                self.go_on(client, opening, Last::Nothing);
            }
            return;
        };
        // Of as many as a shard remembers, as in production.
        let open_max = self.plan.settings.session_bounds.open_max;
        let window = here.windows.entry((shard, id)).or_insert_with(|| Window::of(open_max));
        let Some(sequence) = window.take() else { return self.await_room(client, number) };
        let open = here.open.get_mut(&number).expect("the caller has just seen it open");
        if let Operation::Write { write, .. } = &mut open.operation {
            write.session = Some(SessionStamp { session: id, sequence, floor: sequence });
        }
        let recorded = open.recorded.expect("a write is recorded");
        self.judge.history.stamp(recorded, history::Stamp { shard, session: id, sequence });
        self.go_on(client, number, Last::Nothing);
    }

    /// The oldest open write of the session holds its floor, and the shard remembers no more above that.
    fn await_room(&mut self, client: usize, number: u64) {
        let now = self.now;
        self.trace.tell(now, || format!("c{client} waits for room in a session"));
        let open = self.clients[client].open.get_mut(&number).expect("the caller has just seen it open");
        if now + ROOM_MICROS < open.deadline {
            // It is looked for a shard, and for a session there, from the beginning.
            open.shard = None;
            if let Operation::Write { write, .. } = &mut open.operation {
                write.session = None;
            }
            open.wakes += 1;
            let wake = open.wakes;
            return self.queue.push(now + ROOM_MICROS, Event::Wake { client, operation: number, wake });
        }
        let open = self.clients[client].close(number);
        let error =
            Error::not_applied(ErrorKind::Overloaded, "too many writes are under way and the oldest is not done");
        self.failed(client, &open, &error);
    }

    pub(super) fn session_opened(&mut self, client: usize, shard: ShardId, id: SessionId) {
        let session = self.clients[client].sessions.entry(shard).or_default();
        let waiting = std::mem::take(&mut session.waiting);
        *session = Session { id: Some(id), ..Session::default() };
        for number in waiting {
            self.in_session(client, number, shard);
        }
    }

    pub(super) fn session_not_opened(&mut self, client: usize, shard: ShardId) {
        let session = self.clients[client].sessions.entry(shard).or_default();
        session.opening = false;
        let waiting = std::mem::take(&mut session.waiting);
        for number in waiting {
            self.again(client, number, shard);
        }
    }

    /// A write goes in a session of its key's shard, which is not known without a map.
    pub(super) fn find_shard(&mut self, client: usize, number: u64) {
        let here = &mut self.clients[client];
        let open = here.open.get_mut(&number).expect("the caller has just seen it open");
        open.shard = shard_of(&here.router, &open.operation);
        if let Some(shard) = open.shard {
            return self.in_session(client, number, shard);
        }
        if self.now + MAP_MICROS < open.deadline {
            open.wakes += 1;
            let wake = open.wakes;
            self.queue.push(self.now + MAP_MICROS, Event::Wake { client, operation: number, wake });
            return self.ask_for_map_if_wanted(client);
        }
        let open = here.close(number);
        let error = Error::not_applied(ErrorKind::Timeout, "no map came before the deadline");
        self.failed(client, &open, &error);
    }

    /// A write's session has expired and nothing can have come of it: it begins anew under another.
    pub(super) fn renew(&mut self, client: usize, number: u64) {
        let open = self.clients[client].close(number);
        let shard = open.shard.expect("only a write in a session finds it expired");
        if let Operation::Write { write, .. } = &open.operation {
            self.expired(client, shard, write.session);
        }
        let number = self.clients[client].add(open);
        self.again(client, number, shard);
    }

    /// A session is not known any more; it may have been replaced already.
    pub(super) fn expired(&mut self, client: usize, shard: ShardId, stamp: Option<SessionStamp>) {
        self.counts.expired += 1;
        let session = self.clients[client].sessions.entry(shard).or_default();
        if session.id == stamp.map(|stamp| stamp.session) {
            *session = Session { waiting: std::mem::take(&mut session.waiting), ..Session::default() };
        }
    }

    /// Tries again to get a session for a write, if there is time.
    fn again(&mut self, client: usize, number: u64, shard: ShardId) {
        if self.clients[client].open.get(&number).is_some_and(|open| open.deadline > self.now) {
            return self.in_session(client, number, shard);
        }
        if self.clients[client].open.contains_key(&number) {
            let open = self.clients[client].close(number);
            let error = Error::not_applied(ErrorKind::Timeout, "no session could be opened before the deadline");
            self.failed(client, &open, &error);
        }
    }
}

/// The shard of a write's key, if there is a map that says so.
pub(super) fn shard_of(router: &Router, operation: &Operation) -> Option<ShardId> {
    match operation {
        Operation::Write { write, .. } => router.route(&write.key).map(|target| target.shard),
        _ => None,
    }
}
