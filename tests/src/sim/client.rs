//! The clients of a run: the real router, sessions, retries, and a record of all that they were told.
//!
//! A client keeps several operations open. Each goes on by itself: ask the router what to do, send or wait, take the answer or
//! the broken connection, until the router has an answer or gives up. A write keeps its session number over all sendings; if
//! its session has expired and nothing can have come of it, it begins anew under another. What is recorded as told to the
//! caller is the router's last word. How an uncertain write is sent, when a session is renewed, and which sequences are open is
//! decided by the same code as in the client of production; [`super::maps`] brings maps.
//!
//! *Never produced here*: a write that changes between its sendings, two clients in one session, an operation whose caller goes away, more than eight operations open at once.

use std::collections::BTreeMap;

use fastrand::Rng;
use kv_core::{
    command::SessionStamp,
    error::{Error, ErrorKind},
    founding::FoundingRecord,
    io::{Answer, Consistency, Operation, Request},
    router::{Attempt, Decision, Destination, Last, OperationKind, Router, Window},
    types::{Durability, Key, RequestId, SessionId, ShardId, Time, Token},
};

use super::{
    maps,
    network::Fate,
    plan::Plan,
    record,
    workload::Workload,
    world::{Event, TWICE, World},
};
use crate::history;

/// Writes of this many in a hundred carry no session: they are never sent twice unless nothing came of the first.
const SESSIONLESS_PERCENT: u32 = 8;
/// How long a client waits for a session to be opened, in microseconds.
const OPENING_MICROS_MAX: u64 = 5_000_000;
/// Of a hundred asynchronous writes, so many are asked about later.
const ASKED_PERCENT: u32 = 70;
/// How long a client waits for a map until it looks again, in microseconds.
const MAP_MICROS: u64 = 20_000;
/// Request numbers of one client lie within this range.
const REQUESTS_PER_CLIENT: u64 = 1 << 32;

/// One client.
#[derive(Debug)]
pub struct Client {
    pub(super) router: Router,
    /// The node whose address it was given, from 0.
    pub(super) endpoint: usize,
    /// Whether a question for a map is under way.
    pub(super) asks_for_map: bool,
    workload: Workload,
    pub(super) rng: Rng,
    sessions: BTreeMap<ShardId, Session>,
    open: BTreeMap<u64, Open>,
    /// Which operation a request under way belongs to, and where it went.
    requests: BTreeMap<RequestId, (u64, usize)>,
    operations: u64,
    last_request: u64,
    /// Tokens of asynchronous writes to ask about.
    tokens: Vec<Token>,
}

/// A client's session with one shard.
#[derive(Debug, Default)]
struct Session {
    id: Option<SessionId>,
    opening: bool,
    window: Window,
    /// Operations that wait for it to be opened.
    waiting: Vec<u64>,
}

/// An operation that has no answer yet.
#[derive(Debug)]
struct Open {
    operation: Operation,
    /// Its number in the history; none for the opening of a session.
    recorded: Option<u64>,
    deadline: u64,
    attempt: Attempt,
    request: Option<RequestId>,
    wakes: u64,
    shard: Option<ShardId>,
    /// Whether it goes in a session, as soon as its shard is known.
    in_session: bool,
    /// Whether it must succeed, since it is quiet.
    must_succeed: bool,
}

impl Client {
    /// A client that knows the first map, unless the plan has it begin with less.
    #[must_use]
    pub fn new(index: usize, plan: &Plan, founding: &FoundingRecord) -> Self {
        let mut router = Router::new();
        if plan.clients.old_map {
            router.take_map(&maps::of_long_ago(&founding.layout())).expect("an old map is a map");
        } else if !plan.clients.one_endpoint {
            router.take_map(&founding.layout()).expect("the layout of a founding record is a map");
        }
        Self {
            router,
            endpoint: index % plan.nodes as usize,
            asks_for_map: false,
            workload: Workload::new(index, plan),
            rng: plan.stream(&format!("client {index}")),
            sessions: BTreeMap::new(),
            open: BTreeMap::new(),
            requests: BTreeMap::new(),
            operations: 0,
            last_request: index as u64 * REQUESTS_PER_CLIENT,
            tokens: Vec::new(),
        }
    }

    /// Requests under way to a node.
    #[must_use]
    pub fn requests_at(&self, node: usize) -> Vec<RequestId> {
        self.requests.iter().filter(|(_, (_, at))| *at == node).map(|(request, _)| *request).collect()
    }

    /// Whether nothing is open.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.open.is_empty()
    }
}

impl World {
    /// Schedules a client's next operation.
    pub(super) fn schedule_work(&mut self, client: usize) {
        let work = self.plan.workload;
        let mean = 1e6 * work.clients as f64 / work.operations_per_second as f64;
        let after = -mean * (1.0 - self.clients[client].rng.f64()).ln();
        self.queue.push(self.now + 1 + after as u64, Event::Work { client });
    }

    pub(super) fn client_work(&mut self, client: usize) {
        if self.closing {
            return;
        }
        self.schedule_work(client);
        let work = self.plan.workload;
        let here = &mut self.clients[client];
        if here.open.len() >= work.open_max {
            return;
        }
        let token = if here.rng.bool() { here.tokens.pop() } else { None };
        let operation = match token {
            Some(token) => Operation::WaitDurable { token },
            None => here.workload.draw(&mut here.rng, self.keys.in_use()),
        };
        self.begin(client, operation, self.now + work.deadline_micros, false);
    }

    /// A put to a key that has to succeed.
    pub(super) fn put_at_last(&mut self, client: usize, key: Key, deadline: u64) {
        let here = &mut self.clients[client];
        let operation = here.workload.final_put(&mut here.rng, key);
        self.begin(client, operation, deadline, true);
    }

    /// A linearizable read of a key that has to succeed.
    pub(super) fn get_at_last(&mut self, client: usize, key: Key, deadline: u64) {
        self.begin(client, Operation::Get { key, consistency: Consistency::Linearizable }, deadline, true);
    }

    fn begin(&mut self, client: usize, operation: Operation, deadline: u64, must_succeed: bool) {
        let call = record::call(&operation, self.plan.slow_ppm_max());
        let moment = self.judge.own_moment();
        let recorded = self.judge.history.invoke(client as u64, call, moment);
        self.trace.note([self.now, client as u64, recorded]);
        self.trace.tell(self.now, || format!("c{client} asks {recorded}: {operation:?}"));
        let here = &mut self.clients[client];
        let (kind, destination) = routing(&operation);
        let wants_session = kind == OperationKind::SessionWrite && here.rng.u32(..100) >= SESSIONLESS_PERCENT;
        let kind = if wants_session || kind != OperationKind::SessionWrite { kind } else { OperationKind::Write };
        let wants_session = wants_session && matches!(operation, Operation::Write { .. });
        let shard = shard_of(&here.router, &operation).filter(|_| wants_session);
        let open = Open {
            attempt: Attempt::new(kind, destination, Time(deadline)),
            operation,
            recorded: Some(recorded),
            deadline,
            request: None,
            wakes: 0,
            shard,
            in_session: wants_session,
            must_succeed,
        };
        let number = here.add(open);
        match shard {
            Some(shard) => self.in_session(client, number, shard),
            None => self.go_on(client, number, Last::Nothing),
        }
    }

    /// Gives a write its session number and sends it, or has a session opened first.
    fn in_session(&mut self, client: usize, number: u64, shard: ShardId) {
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
                    must_succeed: false,
                };
                let opening = here.add(open);
                self.go_on(client, opening, Last::Nothing);
            }
            return;
        };
        let sequence = session.window.take().expect("a client opens fewer operations than a window holds");
        let open = here.open.get_mut(&number).expect("the caller has just seen it open");
        if let Operation::Write { write, .. } = &mut open.operation {
            write.session = Some(SessionStamp { session: id, sequence, floor: sequence });
        }
        let recorded = open.recorded.expect("a write is recorded");
        self.judge.history.stamp(recorded, history::Stamp { shard, session: id, sequence });
        self.go_on(client, number, Last::Nothing);
    }

    /// Asks the router what to do with an operation, and does it.
    fn go_on(&mut self, client: usize, number: u64, last: Last<'_>) {
        let now = Time(self.now);
        let here = &mut self.clients[client];
        let Some(open) = here.open.get_mut(&number) else { return };
        open.request = None;
        if open.in_session && open.shard.is_none() {
            return self.find_shard(client, number);
        }
        let random = here.rng.u64(..);
        match open.attempt.next(&mut here.router, last, now, random) {
            Decision::Send { node, shard, epoch, answer_micros_max } => {
                let mut operation = open.operation.clone();
                if let Operation::Write { write, durability } = &mut operation {
                    if open.attempt.must_be_sync() {
                        *durability = Some(Durability::Sync);
                    }
                    if let Some(stamp) = &mut write.session {
                        let session = here.sessions.get(&shard).filter(|session| session.id == Some(stamp.session));
                        stamp.floor = session.map_or(stamp.sequence, |session| session.window.floor());
                    }
                }
                let may_be_sent_again = open.in_session || !matches!(open.operation, Operation::Write { .. });
                here.last_request += 1;
                let id = RequestId(here.last_request);
                open.request = Some(id);
                let request = Request { id, shard, epoch: Some(epoch), deadline: Time(0), operation };
                let remaining_micros = open.deadline.saturating_sub(self.now);
                let node = node.0 as usize - 1;
                here.requests.insert(id, (number, node));
                self.counts.attempts += 1;
                // A write outside of a session is never sent again, so nobody would gain by not waiting for it.
                let is_impatient = self.plan.clients.answer_micros_max > 0 && may_be_sent_again && !self.quiet;
                let patience = if is_impatient { self.plan.clients.answer_micros_max } else { u64::MAX };
                let waits = answer_micros_max.min(patience);
                self.queue.push(self.now + waits, Event::NoAnswer { client, request: id });
                self.send_request(client, node, request, remaining_micros);
            }
            Decision::Wait { micros } => {
                open.wakes += 1;
                let wake = open.wakes;
                self.queue.push(self.now + micros, Event::Wake { client, operation: number, wake });
            }
            Decision::Renew => self.renew(client, number),
            Decision::GiveUp(error) => self.give_up(client, number, error),
        }
        self.ask_for_map_if_wanted(client);
    }

    fn send_request(&mut self, client: usize, node: usize, request: Request, remaining_micros: u64) {
        let id = request.id;
        self.trace.tell(self.now, || format!("c{client} -> n{} request {id} for shard {}", node + 1, request.shard));
        let end = self.machines.len() + client;
        match self.network.send(self.now, end, node, 0) {
            Fate::Arrives(at, _) => {
                let held = if self.quiet { 0 } else { self.plan.clients.held_micros_max };
                let at = at + if held > 0 { self.clients[client].rng.u64(..=held) } else { 0 };
                if Self::may_come_twice(&request.operation)
                    && let Some(later) = self.network.again()
                {
                    let request = Box::new(Request { id: RequestId(id.0 | TWICE), ..request.clone() });
                    self.queue.push(at + later, Event::Request { client, node, request, remaining_micros });
                }
                let request = Box::new(request);
                self.queue.push(at, Event::Request { client, node, request, remaining_micros });
            }
            Fate::Lost(Some(at)) => self.queue.push(at, Event::Broken { client, request: id, sent: true }),
            Fate::Lost(None) => {}
        }
    }

    pub(super) fn client_wake(&mut self, client: usize, operation: u64, wake: u64) {
        if self.clients[client].open.get(&operation).is_some_and(|open| open.wakes == wake) {
            self.go_on(client, operation, Last::Nothing);
        }
    }

    /// A connection broke, or nothing came in time. Nothing is done if the operation has gone on meanwhile.
    pub(super) fn client_unanswered(&mut self, client: usize, request: RequestId, last: Last<'_>) {
        let here = &mut self.clients[client];
        let Some((number, _)) = here.requests.remove(&request) else { return };
        if here.open.get(&number).is_some_and(|open| open.request == Some(request)) {
            self.go_on(client, number, last);
        }
    }

    pub(super) fn client_answer(&mut self, client: usize, request: RequestId, result: Result<Answer, Error>) {
        let now = Time(self.now);
        let here = &mut self.clients[client];
        let Some((number, _)) = here.requests.remove(&request) else { return };
        let Some(open) = here.open.get_mut(&number).filter(|open| open.request == Some(request)) else { return };
        match result {
            Ok(answer) => {
                open.attempt.succeeded(&mut here.router, now);
                let open = here.close(number);
                self.succeeded(client, open, answer);
            }
            Err(error) => self.go_on(client, number, Last::Refused(&error)),
        }
    }

    fn succeeded(&mut self, client: usize, open: Open, answer: Answer) {
        let here = &mut self.clients[client];
        if let (Answer::SessionOpened(id), Some(shard)) = (&answer, open.shard) {
            let session = here.sessions.entry(shard).or_default();
            *session = Session { id: Some(*id), waiting: std::mem::take(&mut session.waiting), ..Session::default() };
            let waiting = std::mem::take(&mut session.waiting);
            for number in waiting {
                self.in_session(client, number, shard);
            }
            return;
        }
        match (&answer, &open.operation) {
            (Answer::Got { entry, .. }, Operation::Get { key, .. }) => {
                let revision = entry.as_ref().map(|entry| entry.revision).unwrap_or_default();
                here.workload.saw(key, revision);
            }
            (Answer::Written { revision, .. }, Operation::Write { write, .. }) => {
                here.workload.saw(&write.key, *revision);
            }
            (Answer::Accepted { token }, _) if here.rng.u32(..100) < ASKED_PERCENT => {
                here.tokens.push(*token);
            }
            _ => {}
        }
        let told = record::answer(&answer);
        self.told(client, &open, told);
    }

    fn give_up(&mut self, client: usize, number: u64, error: Error) {
        let here = &mut self.clients[client];
        let open = here.close(number);
        match (open.shard, &open.operation) {
            (Some(shard), Operation::OpenSession) => {
                let waiting = {
                    let session = here.sessions.entry(shard).or_default();
                    session.opening = false;
                    std::mem::take(&mut session.waiting)
                };
                for number in waiting {
                    self.again(client, number, shard);
                }
            }
            (Some(shard), Operation::Write { write, .. }) if error.kind() == ErrorKind::SessionExpired => {
                self.expired(client, shard, write.session);
                self.failed(client, &open, &error);
            }
            _ => self.failed(client, &open, &error),
        }
    }

    /// A write goes in a session of its key's shard, which is not known without a map.
    fn find_shard(&mut self, client: usize, number: u64) {
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
    fn renew(&mut self, client: usize, number: u64) {
        let open = self.clients[client].close(number);
        let shard = open.shard.expect("only a write in a session finds it expired");
        if let Operation::Write { write, .. } = &open.operation {
            self.expired(client, shard, write.session);
        }
        let number = self.clients[client].add(open);
        self.again(client, number, shard);
    }

    /// A session is not known any more; it may have been replaced already.
    fn expired(&mut self, client: usize, shard: ShardId, stamp: Option<SessionStamp>) {
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

    fn failed(&mut self, client: usize, open: &Open, error: &Error) {
        if open.must_succeed && error.kind() == ErrorKind::SessionExpired {
            // Where few sessions are remembered an honest answer may be that nobody knows. The next write is known.
            self.told(client, open, record::failure(error));
            if let Operation::Write { write, .. } = &open.operation {
                self.put_at_last(client, write.key.clone(), open.deadline);
            }
            return;
        }
        if open.must_succeed {
            let what = format!("{:?} failed: {error}", open.operation);
            self.fail("in quiet, every shard takes writes and answers reads", what);
        }
        self.told(client, open, record::failure(error));
    }

    fn told(&mut self, client: usize, open: &Open, told: history::Answer) {
        let Some(recorded) = open.recorded else { return };
        let key = (record::asked(&open.operation), record::told(&told));
        if let Operation::Write { write, .. } = &open.operation {
            self.keys.written(&write.key, &told);
        }
        *self.counts.operations.entry(key).or_default() += 1;
        self.trace.note([self.now, client as u64, recorded]);
        self.trace.tell(self.now, || format!("c{client} is told {recorded}: {told:?}"));
        let moment = self.judge.own_moment();
        self.judge.history.complete(recorded, told, moment);
    }
}

impl Client {
    /// What waits the longest, for people.
    pub(super) fn first_open(&self) -> String {
        self.open.values().next().map_or_else(String::new, |open| format!("{:?}", open.operation))
    }

    fn add(&mut self, open: Open) -> u64 {
        self.operations += 1;
        self.open.insert(self.operations, open);
        self.operations
    }

    /// Takes an operation that has ended; its session number is then no longer open.
    fn close(&mut self, number: u64) -> Open {
        let open = self.open.remove(&number).expect("an operation ends once");
        if let (Some(shard), Operation::Write { write, .. }) = (open.shard, &open.operation)
            && let Some(stamp) = write.session
            && let Some(session) = self.sessions.get_mut(&shard).filter(|session| session.id == Some(stamp.session))
        {
            session.window.close(stamp.sequence);
        }
        open
    }
}

/// The shard of a write's key, if there is a map that says so.
fn shard_of(router: &Router, operation: &Operation) -> Option<ShardId> {
    match operation {
        Operation::Write { write, .. } => router.route(&write.key).map(|target| target.shard),
        _ => None,
    }
}

/// How an operation is routed, a write as one in a session.
fn routing(operation: &Operation) -> (OperationKind, Destination) {
    match operation {
        Operation::Get { key, consistency: Consistency::Linearizable } => (OperationKind::Read, key.into()),
        Operation::Get { key, .. } => (OperationKind::ReadAnywhere, key.into()),
        Operation::Write { write, .. } => (OperationKind::SessionWrite, (&write.key).into()),
        Operation::OpenSession => (OperationKind::SessionWrite, Destination::Shard(ShardId(0))),
        Operation::WaitDurable { token } => (OperationKind::Read, Destination::Shard(token.shard)),
        Operation::TransferLeader { .. } => (OperationKind::Write, Destination::Shard(ShardId(0))),
    }
}
