//! The clients of a run: the real router, sessions, retries, and a record of all that they were told.
//!
//! A client keeps several operations open. Each goes on by itself: ask the router what to do, send or wait, take the answer or
//! the broken connection, until the router has an answer or gives up. A write keeps its session number over all sendings; if
//! its session has expired and nothing can have come of it, it begins anew under another. What is recorded as told to the
//! caller is the router's last word. How an uncertain write is sent, when a session is renewed, and which sequences are open is
//! decided by the same code as in the client of production; [`super::maps`] brings maps, [`super::client_sessions`] keeps the
//! sessions.
//!
//! Two things are judged here: a client that keeps to the rules is never told that its request is invalid, and in quiet every
//! key takes a write and answers a read.
//!
//! *Never produced here*: a write that changes between its sendings, an operation whose caller goes away, more than eight
//! operations open at once.

use std::collections::BTreeMap;

use fastrand::Rng;
use kv_core::{
    error::{Error, ErrorKind, Outcome},
    founding::FoundingRecord,
    io::{Answer, Consistency, Operation, Request},
    router::{Attempt, Decision, Destination, Last, OperationKind, Router, Window},
    types::{Durability, Key, RequestId, SessionId, ShardId, Time, Token},
};

use super::{
    client_sessions::{Session, shard_of},
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
/// Of a hundred asynchronous writes, so many are asked about later.
const ASKED_PERCENT: u32 = 70;
/// In quiet, so many writes of a key outside of a session may end with an unknown outcome before one must be answered.
const UNCERTAIN_MAX: u32 = 3;
/// How long one of these waits for its answer, in microseconds: a node that is cut off has none, and there must be time to write
/// again.
const ALONE_MICROS_MAX: u64 = 10_000_000;
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
    pub(super) sessions: BTreeMap<ShardId, Session>,
    /// The open sequences of each session, the current ones and those before: an operation keeps to the session in which it
    /// began, and what is open beside it there holds its floor, even when there is a newer session.
    pub(super) windows: BTreeMap<(ShardId, SessionId), Window>,
    pub(super) open: BTreeMap<u64, Open>,
    /// Which operation a request under way belongs to, and where it went.
    requests: BTreeMap<RequestId, (u64, usize)>,
    operations: u64,
    last_request: u64,
    /// Tokens of asynchronous writes to ask about.
    tokens: Vec<Token>,
}

/// An operation that has no answer yet.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) operation: Operation,
    /// Its number in the history; none for the opening of a session.
    pub(super) recorded: Option<u64>,
    pub(super) deadline: u64,
    pub(super) attempt: Attempt,
    pub(super) request: Option<RequestId>,
    pub(super) wakes: u64,
    pub(super) shard: Option<ShardId>,
    /// Whether it goes in a session, as soon as its shard is known.
    pub(super) in_session: bool,
    /// Whether it must succeed, since it is quiet; and after how many writes of its kind whose outcome is unknown.
    pub(super) must_succeed: Option<u32>,
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
            windows: BTreeMap::new(),
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
        self.begin(client, operation, self.now + work.deadline_micros, None);
    }

    /// A put to a key that has to succeed.
    pub(super) fn put_at_last(&mut self, client: usize, key: Key, deadline: u64) {
        self.put_again_at_last(client, key, deadline, UNCERTAIN_MAX);
    }

    fn put_again_at_last(&mut self, client: usize, key: Key, deadline: u64, uncertain_max: u32) {
        let here = &mut self.clients[client];
        let operation = here.workload.final_put(&mut here.rng, key);
        self.begin(client, operation, deadline, Some(uncertain_max));
    }

    /// A linearizable read of a key that has to succeed.
    pub(super) fn get_at_last(&mut self, client: usize, key: Key, deadline: u64) {
        self.begin(client, Operation::Get { key, consistency: Consistency::Linearizable }, deadline, Some(0));
    }

    fn begin(&mut self, client: usize, operation: Operation, deadline: u64, must_succeed: Option<u32>) {
        let call = record::call(&operation, self.plan.slow_ppm_max(), self.plan.operated.async_by_default);
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
        let is_alone = must_succeed.is_some() && kind == OperationKind::Write;
        let attempt_ends = if is_alone { deadline.min(self.now + ALONE_MICROS_MAX) } else { deadline };
        let open = Open {
            attempt: Attempt::new(kind, destination, Time(attempt_ends)),
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

    /// Asks the router what to do with an operation, and does it.
    pub(super) fn go_on(&mut self, client: usize, number: u64, last: Last<'_>) {
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
                        let window = here.windows.get(&(shard, stamp.session));
                        stamp.floor = window.expect("its sequence is open in its session's window").floor();
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
                let (rng, prompt) = (&mut self.clients[client].rng, self.plan.clients.prompt_percent);
                let held = if held > 0 && prompt > 0 && rng.u32(..100) < prompt { 0 } else { held };
                let at = at + if held > 0 { rng.u64(..=held) } else { 0 };
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
            return self.session_opened(client, shard, *id);
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
            (Some(shard), Operation::OpenSession) => self.session_not_opened(client, shard),
            (Some(shard), Operation::Write { write, .. }) if error.kind() == ErrorKind::SessionExpired => {
                self.expired(client, shard, write.session);
                self.failed(client, &open, &error);
            }
            _ => self.failed(client, &open, &error),
        }
    }

    pub(super) fn failed(&mut self, client: usize, open: &Open, error: &Error) {
        if error.kind() == ErrorKind::Invalid {
            let what = format!("{:?} failed: {error}", open.operation);
            self.fail("who keeps to the rules is not told otherwise", what);
        }
        if let (Some(uncertain_max), Some(key)) = (open.must_succeed, open.write_key()) {
            // Where few sessions are remembered an honest answer may be that nobody knows. The next write is known.
            let expired = error.kind() == ErrorKind::SessionExpired;
            // A leader that finds only now what the faults have done to its files gives its leadership away. A write outside of
            // a session is never sent twice, so an honest answer then is that its outcome is unknown; its caller may write again.
            let uncertain = uncertain_max > 0 && !open.in_session && error.outcome() == Outcome::Unknown;
            // Its own time is short, so that nothing was done in it says nothing against the shard.
            let short =
                !open.in_session && error.outcome() == Outcome::NotApplied && error.kind() != ErrorKind::Invalid;
            let short = short && self.now < open.deadline.saturating_sub(ALONE_MICROS_MAX);
            if expired || uncertain || short {
                let uncertain_max = uncertain_max - u32::from(uncertain);
                let (key, deadline) = (key.clone(), open.deadline);
                self.told(client, open, record::failure(error));
                return self.put_again_at_last(client, key, deadline, uncertain_max);
            }
        }
        if open.must_succeed.is_some() {
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

impl Open {
    /// The key that it writes.
    fn write_key(&self) -> Option<&Key> {
        match &self.operation {
            Operation::Write { write, .. } => Some(&write.key),
            _ => None,
        }
    }
}

impl Client {
    /// What waits the longest, for people.
    pub(super) fn first_open(&self) -> String {
        self.open.values().next().map_or_else(String::new, |open| format!("{:?}", open.operation))
    }

    pub(super) fn add(&mut self, open: Open) -> u64 {
        self.operations += 1;
        self.open.insert(self.operations, open);
        self.operations
    }

    /// Takes an operation that has ended; its session number is then no longer open.
    pub(super) fn close(&mut self, number: u64) -> Open {
        let open = self.open.remove(&number).expect("an operation ends once");
        if let (Some(shard), Operation::Write { write, .. }) = (open.shard, &open.operation)
            && let Some(stamp) = write.session
            && let Some(window) = self.windows.get_mut(&(shard, stamp.session))
        {
            window.close(stamp.sequence);
        }
        open
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
