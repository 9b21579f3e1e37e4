//! The world of one run: machines, network, clients and faults under one clock, one event at a time.
//!
//! An event happens at a microsecond; what it causes is scheduled, never done on the side, so that a run is one sequence. A
//! turn takes its inputs when it begins and its outputs take effect at once, with the node busy for what the turn costs; a log
//! batch is written and synced when its simulated time is over, so that a crash before that finds it unwritten or half
//! written; the checkpoint thread does one step at a time in the same way.

use kv_core::{
    checkpoint::job::CheckpointEvent,
    error::Error,
    io::{Answer, Input, Notice, Operation, Output, Request},
    message::PeerMessage,
    router::Last,
    types::{NodeId, RequestId, ShardId, Time},
};

use super::{
    client::Client,
    clock::Clock,
    faults::{Injector, Kind, Mend},
    judge::Judge,
    machine::{LANES, Machine, StartError},
    network::{Fate, Network},
    plan::Plan,
    queue::Queue,
    report::Counts,
    trace::Trace,
    workload::Keys,
};
use crate::check::view::{Fact, Violation};

/// Most inputs that one turn takes; more wait for the next.
const TURN_INPUTS_MAX: usize = 4_096;

/// Inputs that wait for a turn on one node; messages past it are lost, as on a connection that nobody reads.
const INBOX_MAX: usize = 65_536;

/// What is free on a disk without a bound, in bytes.
const DISK_BYTES: u64 = 1 << 40;

/// Numbers of requests that the simulator makes itself begin here.
const OWN_REQUESTS: u64 = 1 << 60;

/// Something that will happen. `start` names the process it is for: what was meant for an earlier one is ignored.
#[derive(Debug)]
pub(super) enum Event {
    /// A tick of a node's clock.
    Tick { node: usize, start: u64 },
    /// A node begins a turn.
    Turn { node: usize, start: u64 },
    /// The time that the log write needs is over.
    LogWritten { node: usize, start: u64 },
    /// The time that a step of the checkpoint thread needs is over.
    Step { node: usize, start: u64 },
    /// The node is told how much room its disk has.
    DiskFree { node: usize, start: u64 },
    /// Messages of one lane arrive.
    Envelope { from: usize, to: usize, messages: Vec<PeerMessage> },
    /// A node hears that an envelope was lost.
    Undelivered { node: usize, start: u64, to: usize },
    /// A node's process starts.
    Start { node: usize, start: u64 },
    /// A client's request arrives at a node.
    Request { client: usize, node: usize, request: Box<Request>, remaining_micros: u64 },
    /// An answer arrives at its client.
    Reply { client: usize, request: RequestId, result: Box<Result<Answer, Error>> },
    /// A client sees the connection break on which it sent a request, or finds that it can't be made.
    Broken { client: usize, request: RequestId, sent: bool },
    /// A client begins its next operation.
    Work { client: usize },
    /// A client goes on with an operation.
    Wake { client: usize, operation: u64, wake: u64 },
    /// A client has waited long enough for the answer to a request.
    NoAnswer { client: usize, request: RequestId },
    /// A fault.
    Fault { kind: Kind },
    /// The end of one.
    Mend { mend: Mend },
}

/// Everything of one run.
pub struct World {
    pub(super) plan: Plan,
    pub(super) now: u64,
    pub(super) queue: Queue<Event>,
    pub(super) network: Network,
    pub(super) machines: Vec<Machine>,
    pub(super) clients: Vec<Client>,
    pub(super) keys: Keys,
    pub(super) injector: Injector,
    pub(super) judge: Judge,
    pub(super) trace: Trace,
    pub(super) counts: Counts,
    /// The property that was seen not to hold: the run ends.
    pub(super) failure: Option<Violation>,
    /// Whether the phase with faults is over.
    pub(super) quiet: bool,
    /// Whether clients take up no more work of their own.
    pub(super) closing: bool,
    /// Requests of the simulator itself, whose answers nobody records.
    pub(super) own_requests: u64,
    pub(super) facts: Vec<Fact>,
    outputs: Vec<Output>,
    inputs: Vec<Input>,
    envelopes: Vec<Vec<PeerMessage>>,
}

impl World {
    /// The world at time 0: all machines start.
    #[must_use]
    pub fn new(plan: Plan, trace: Trace) -> Self {
        let mut rng = plan.stream("machines");
        let machines: Vec<_> = (1..=plan.nodes)
            .map(|id| {
                let drift = plan.drift_ppm_max as i64;
                let clock = Clock { offset_micros: rng.u64(..1 << 40), drift_ppm: rng.i64(-drift..=drift) };
                Machine::new(NodeId(id), clock, &plan)
            })
            .collect();
        let record = super::machine::founding_record(&plan);
        let clients = (0..plan.workload.clients as usize).map(|index| Client::new(index, &plan, &record)).collect();
        let mut world = Self {
            now: 0,
            queue: Queue::default(),
            network: Network::new(&plan),
            clients,
            keys: Keys::new(&plan, record.layout()),
            injector: Injector::new(&plan),
            judge: Judge::new(&plan),
            trace,
            counts: Counts::default(),
            failure: None,
            quiet: false,
            closing: false,
            own_requests: 0,
            facts: Vec::new(),
            outputs: Vec::new(),
            inputs: Vec::new(),
            envelopes: (0..machines.len() * LANES).map(|_| Vec::new()).collect(),
            machines,
            plan,
        };
        for node in 0..world.machines.len() {
            world.schedule_start(node, 0);
        }
        for client in 0..world.clients.len() {
            world.schedule_work(client);
        }
        world.schedule_fault();
        world
    }

    /// Makes everything happen up to a time, or until a property does not hold.
    pub fn run_until(&mut self, until: u64) {
        while self.failure.is_none() && self.queue.next_at().is_some_and(|at| at <= until) {
            let (at, event) = self.queue.pop().expect("there is a next event");
            self.now = at;
            self.judge.advance(at);
            self.counts.events += 1;
            self.happen(event);
        }
        if self.failure.is_none() {
            self.now = until;
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tick { node, start } => self.tick(node, start),
            Event::Turn { node, start } => self.turn(node, start),
            Event::LogWritten { node, start } => self.log_written(node, start),
            Event::Step { node, start } => self.step(node, start),
            Event::DiskFree { node, start } => self.disk_free(node, start),
            Event::Envelope { from, to, messages } => self.arrive(from, to, messages),
            Event::Undelivered { node, start, to } => {
                if self.is_current(node, start) {
                    self.give(node, Input::Undelivered { to: NodeId(to as u64 + 1), shard: None });
                }
            }
            Event::Start { node, start } => self.start(node, start),
            Event::Request { client, node, request, remaining_micros } => {
                self.request(client, node, *request, remaining_micros);
            }
            Event::Reply { client, request, result } => self.client_answer(client, request, *result),
            Event::Broken { client, request, sent } => {
                let last = if sent { Last::ConnectionLost } else { Last::NodeDown };
                self.client_unanswered(client, request, last);
            }
            Event::NoAnswer { client, request } => self.client_unanswered(client, request, Last::NoAnswer),
            Event::Work { client } => self.client_work(client),
            Event::Wake { client, operation, wake } => self.client_wake(client, operation, wake),
            Event::Fault { kind } => {
                if !self.quiet {
                    self.inject(kind);
                }
            }
            Event::Mend { mend } => {
                if !self.quiet {
                    self.mend(&mend);
                }
            }
        }
    }

    fn is_current(&self, node: usize, start: u64) -> bool {
        let machine = &self.machines[node];
        machine.start == start && machine.process.is_some()
    }

    /// Puts an event that needs the node's threads off until its pause is over; true if it did.
    fn put_off(&mut self, node: usize, event: Event) -> bool {
        let until = self.machines[node].paused_until;
        let paused = until > self.now;
        if paused {
            self.queue.push(until, event);
        }
        paused
    }

    fn tick(&mut self, node: usize, start: u64) {
        if !self.is_current(node, start) || self.put_off(node, Event::Tick { node, start }) {
            return;
        }
        self.give(node, Input::Tick);
        let after = self.machines[node].clock.to_simulated(self.plan.settings.tick_micros);
        self.queue.push(self.now + after, Event::Tick { node, start });
    }

    fn disk_free(&mut self, node: usize, start: u64) {
        if !self.is_current(node, start) {
            return;
        }
        let bytes = self.machines[node].disk.bytes_free().unwrap_or(DISK_BYTES);
        self.give(node, Input::DiskFree { bytes });
        self.queue.push(self.now + 500_000, Event::DiskFree { node, start });
    }

    /// Gives a node's next turn an input.
    pub(super) fn give(&mut self, node: usize, input: Input) {
        let machine = &mut self.machines[node];
        let start = machine.start;
        let Some(process) = &mut machine.process else { return };
        if process.inbox.len() >= INBOX_MAX {
            return;
        }
        process.inbox.push(input);
        if !process.turn_scheduled {
            process.turn_scheduled = true;
            let at = self.now.max(process.busy_until);
            self.queue.push(at, Event::Turn { node, start });
        }
    }

    fn turn(&mut self, node: usize, start: u64) {
        if !self.is_current(node, start) || self.put_off(node, Event::Turn { node, start }) {
            return;
        }
        let local = self.machines[node].clock.at(self.now);
        let process = self.machines[node].process.as_mut().expect("the process is current");
        let count = process.inbox.len().min(TURN_INPUTS_MAX);
        let mut inputs = std::mem::take(&mut self.inputs);
        inputs.extend(process.inbox.drain(..count));
        let mut outputs = std::mem::take(&mut self.outputs);
        let panicked = process.turn(local, &mut inputs, &mut outputs).err();
        inputs.clear();
        self.inputs = inputs;
        process.busy_until = self.now + self.plan.costs.turn_micros + count as u64 * self.plan.costs.input_micros;
        process.turn_scheduled = !process.inbox.is_empty();
        if process.turn_scheduled {
            let at = process.busy_until;
            self.queue.push(at, Event::Turn { node, start });
        }
        self.counts.turns += 1;
        self.trace.note([self.now, node as u64, count as u64, outputs.len() as u64]);
        if let Some(message) = panicked {
            self.fail("no node panics", format!("node {} panicked in a turn: {message}", node + 1));
        }
        self.judge_turn(node, &outputs);
        self.perform(node, &mut outputs);
        self.outputs = outputs;
    }

    fn perform(&mut self, node: usize, outputs: &mut Vec<Output>) {
        for output in outputs.drain(..) {
            match output {
                Output::Send { to, message } => {
                    let slot = (to.0 as usize - 1) * LANES + message.lane() as usize;
                    self.envelopes[slot].push(message);
                }
                Output::LogBatch(batch) => {
                    self.machines[node].process.as_mut().expect("it just took a turn").writing = Some(batch);
                    self.schedule_log(node);
                }
                Output::Checkpoint(job) => {
                    self.machines[node].process.as_mut().expect("it just took a turn").submit(job);
                    self.schedule_step(node);
                }
                Output::Reply { request, result } => self.reply(node, request, result),
                Output::MapChanged(map) => self
                    .trace
                    .tell(self.now, || format!("n{} has map {} of {} shards", node + 1, map.version, map.shards.len())),
                Output::Notice(notice) => self.notice(node, &notice),
            }
        }
        for to in 0..self.machines.len() {
            for lane in 0..LANES {
                if !self.envelopes[to * LANES + lane].is_empty() {
                    let messages = std::mem::take(&mut self.envelopes[to * LANES + lane]);
                    self.send(node, to, lane, messages);
                }
            }
        }
    }

    fn notice(&mut self, node: usize, notice: &Notice) {
        self.trace.tell(self.now, || format!("n{} {notice:?}", node + 1));
        match notice {
            Notice::StateLost { .. } => self.counts.states_lost += 1,
            Notice::Quarantined { shard, reason } => {
                self.counts.quarantines += 1;
                let what = format!("node {} took shard {shard} out of service: {reason}", node + 1);
                self.fail("no replica has to leave its group", what);
            }
            _ => {}
        }
    }

    fn send(&mut self, from: usize, to: usize, lane: usize, messages: Vec<PeerMessage>) {
        if self.trace.tells() {
            for message in &messages {
                self.trace.tell(self.now, || format!("n{} -> n{} {}", from + 1, to + 1, super::report::short(message)));
            }
        }
        self.counts.messages += messages.len() as u64;
        let fate = self.network.send(self.now, from, to, lane);
        match fate {
            Fate::Arrives(at, again) => {
                self.trace.note([at, messages.len() as u64]);
                if let Some(again) = again {
                    self.queue.push(again, Event::Envelope { from, to, messages: messages.clone() });
                }
                self.queue.push(at, Event::Envelope { from, to, messages });
            }
            Fate::Lost(Some(at)) => {
                let start = self.machines[from].start;
                self.queue.push(at, Event::Undelivered { node: from, start, to });
            }
            Fate::Lost(None) => {}
        }
    }

    fn arrive(&mut self, from: usize, to: usize, messages: Vec<PeerMessage>) {
        if self.machines[to].process.is_none() {
            let start = self.machines[from].start;
            let at = self.now + self.plan.links.delay_micros_min;
            self.queue.push(at, Event::Undelivered { node: from, start, to });
            return;
        }
        for message in messages {
            self.give(to, Input::Peer { from: NodeId(from as u64 + 1), message });
        }
    }

    fn schedule_log(&mut self, node: usize) {
        let costs = self.plan.costs;
        let machine = &mut self.machines[node];
        let sync = machine.rng.u64(costs.sync_micros_min..=costs.sync_micros_max) * machine.slow_factor;
        self.queue.push(self.now + sync, Event::LogWritten { node, start: machine.start });
    }

    fn log_written(&mut self, node: usize, start: u64) {
        if !self.is_current(node, start) || self.put_off(node, Event::LogWritten { node, start }) {
            return;
        }
        let process = self.machines[node].process.as_mut().expect("the process is current");
        match process.write_log() {
            Ok((batch, report)) => {
                self.judge_synced(node, &batch);
                self.trace.note([self.now, report.number.0, report.bytes]);
                self.counts.syncs += 1;
                self.give(node, Input::Synced(report));
            }
            Err(reason) => self.fail_stop(node, &reason),
        }
    }

    fn schedule_step(&mut self, node: usize) {
        let machine = &mut self.machines[node];
        let start = machine.start;
        let cost = self.plan.costs.step_micros * machine.slow_factor.min(10);
        let Some(process) = &mut machine.process else { return };
        if !process.step_scheduled {
            process.step_scheduled = true;
            self.queue.push(self.now + cost, Event::Step { node, start });
        }
    }

    fn step(&mut self, node: usize, start: u64) {
        if !self.is_current(node, start) || self.put_off(node, Event::Step { node, start }) {
            return;
        }
        let process = self.machines[node].process.as_mut().expect("the process is current");
        process.step_scheduled = false;
        let (events, idle) = process.step();
        for event in events {
            if let CheckpointEvent::DiskFailed { reason } = event {
                return self.fail_stop(node, &reason);
            }
            self.judge_checkpoint(node, &event);
            self.give(node, Input::Checkpoint(event));
        }
        if !idle {
            self.schedule_step(node);
        }
    }

    /// A process that can't trust its disk any more stops at once; it is started again like any that ended.
    fn fail_stop(&mut self, node: usize, reason: &str) {
        self.counts.fail_stops += 1;
        self.trace.tell(self.now, || format!("n{} stops: {reason}", node + 1));
        self.stop(node, false, "failed");
        self.schedule_start(node, 200_000);
    }

    /// Ends a node's process; with the power, its disk loses what was not synced.
    pub(super) fn stop(&mut self, node: usize, power: bool, why: &str) {
        self.trace.tell(self.now, || format!("n{} {why}", node + 1));
        let was_up = self.machines[node].process.is_some();
        self.machines[node].stop(power);
        self.machines[node].paused_until = 0;
        self.trace.note([self.now, node as u64, u64::from(power), u64::from(was_up)]);
        if was_up {
            self.break_connections(node);
        }
    }

    /// Clients that wait for an answer of this node see their connections break, if the network lets them.
    fn break_connections(&mut self, node: usize) {
        let after = self.plan.links.delay_micros_min;
        for client in 0..self.clients.len() {
            if self.network.is_open(node, self.machines.len() + client) {
                for request in self.clients[client].requests_at(node) {
                    self.queue.push(self.now + after, Event::Broken { client, request, sent: true });
                }
            }
        }
    }

    /// Starts a node's process after a while, if nothing stops it again before.
    pub(super) fn schedule_start(&mut self, node: usize, after: u64) {
        self.machines[node].start += 1;
        let start = self.machines[node].start;
        self.queue.push(self.now + after + self.plan.costs.start_micros, Event::Start { node, start });
    }

    fn start(&mut self, node: usize, start: u64) {
        if self.machines[node].start != start || self.machines[node].process.is_some() {
            return;
        }
        let mut outputs = std::mem::take(&mut self.outputs);
        match self.machines[node].open(&self.plan, self.now, &mut outputs) {
            Ok(recovered) => {
                self.counts.starts += 1;
                self.judge_start(node, &recovered);
                self.judge_turn(node, &outputs);
                self.perform(node, &mut outputs);
                self.trace.tell(self.now, || format!("n{} is up", node + 1));
                self.trace.note([self.now, node as u64, start]);
                self.give(node, Input::Describe(self.machines[node].description()));
                self.queue.push(self.now, Event::Tick { node, start });
                self.queue.push(self.now, Event::DiskFree { node, start });
            }
            Err(StartError::Corrupt(reason)) => {
                self.counts.refused_starts += 1;
                self.trace.tell(self.now, || format!("n{} refuses to start: {reason}", node + 1));
                if !self.injector.may_be_damaged(node) {
                    self.fail("a whole log is never refused", format!("node {} refused to start: {reason}", node + 1));
                }
            }
            Err(StartError::Disk(reason)) => {
                self.trace.tell(self.now, || format!("n{} could not start: {reason}", node + 1));
                self.schedule_start(node, 100_000);
            }
        }
        outputs.clear();
        self.outputs = outputs;
    }

    fn request(&mut self, client: usize, node: usize, mut request: Request, remaining_micros: u64) {
        let machine = &mut self.machines[node];
        let Some(process) = &mut machine.process else {
            // Connecting fails; it takes a while until the client knows.
            let after = self.plan.links.delay_micros_min;
            self.queue.push(self.now + after, Event::Broken { client, request: request.id, sent: false });
            return;
        };
        request.deadline = Time(machine.clock.at(self.now).0 + remaining_micros);
        process.serving.insert(request.id, (client, request.shard, request.operation.clone()));
        self.trace.note([self.now, request.id.0, request.shard.0]);
        self.give(node, Input::Request(request));
    }

    fn reply(&mut self, node: usize, request: RequestId, result: Result<Answer, Error>) {
        let process = self.machines[node].process.as_mut().expect("it just took a turn");
        if request.0 >= OWN_REQUESTS {
            return;
        }
        let Some((client, _, _)) = process.serving.remove(&request) else {
            let what = format!("node {} answered request {request} twice, or without being asked", node + 1);
            self.fail("each request is answered once", what);
            return;
        };
        self.trace.note([self.now, request.0, u64::from(result.is_ok())]);
        self.trace.tell(self.now, || format!("n{} answers {request}: {result:?}", node + 1));
        if let Fate::Arrives(at, _) = self.network.send(self.now, node, self.machines.len() + client, 0) {
            self.queue.push(at, Event::Reply { client, request, result: Box::new(result) });
        }
    }

    /// Asks a leader to hand a shard over, as an operator would.
    pub(super) fn ask_for_transfer(&mut self, node: usize, shard: ShardId, to: NodeId) {
        self.own_requests += 1;
        let request = Request {
            id: RequestId(OWN_REQUESTS + self.own_requests),
            shard,
            epoch: None,
            deadline: Time(self.machines[node].clock.at(self.now).0 + 1_000_000),
            operation: Operation::TransferLeader { to },
        };
        self.give(node, Input::Request(request));
    }

    /// Schedules the next fault, if the plan has any.
    pub(super) fn schedule_fault(&mut self) {
        if let Some((after, kind)) = self.injector.draw() {
            self.queue.push(self.now + after, Event::Fault { kind });
        }
    }

    /// Schedules the end of a fault.
    pub(super) fn schedule_mend(&mut self, after: u64, mend: Mend) {
        self.queue.push(self.now + after, Event::Mend { mend });
    }

    /// Ends the run: a property does not hold. The first one counts.
    pub(super) fn fail(&mut self, property: &'static str, what: String) {
        if self.failure.is_none() {
            self.failure = Some(Violation { property, what, at: self.judge.moment() });
        }
    }
}
