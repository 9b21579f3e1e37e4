//! The world of one run: machines, network, clients and faults under one clock, one event at a time.
//!
//! An event happens at a microsecond; what it causes is scheduled, never done on the side, so that a run is one sequence. A
//! turn takes its inputs when it begins and its outputs take effect at once, with the node busy for what the turn costs; a log
//! batch is written and synced when its simulated time is over, so that a crash before that finds it unwritten or half
//! written; the checkpoint thread does one step at a time in the same way.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use kv_core::{
    error::Error,
    io::{Answer, Input, Operation, Output, Request},
    message::PeerMessage,
    node::ShardStatus,
    router::Last,
    types::{ClusterId, MapVersion, NodeId, RequestId, ShardId, Time},
};

use super::{
    bystanders::{BYSTANDERS, Bystanders},
    client::Client,
    clock::Clock,
    crash_points::tape::Tape,
    disk_faults::{DiskFault, DiskInjector},
    divergence::Divergence,
    faults::{Injector, Kind, Mend},
    founding::FoundingEvent,
    founding_greetings::Connection,
    founding_places::Place,
    full_merges::FullMerges,
    judge::Judge,
    losses::{Loss, LossMaker},
    machine::{LANES, Machine},
    maps::MapEvent,
    name_faults::NameFaults,
    network::{Fate, Network},
    operators::{Operating, Operator},
    plan::Plan,
    queue::Queue,
    report::Counts,
    storms::{Next, StormMaker},
    trace::Trace,
    unaware::{Unaware, UnawareMaker},
    workload::Keys,
};
use crate::check::view::{Fact, Violation};

/// What is free on a disk without a bound, in bytes.
const DISK_BYTES: u64 = 1 << 40;

/// Numbers of requests that the simulator makes itself begin here.
const OWN_REQUESTS: u64 = 1 << 60;

/// Marks the number of a request that came twice: nobody takes the second answer.
pub(super) const TWICE: u64 = 1 << 59;

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
    Envelope { from: usize, to: usize, messages: Vec<PeerMessage>, connection: Option<Connection> },
    /// A node hears that an envelope was lost.
    Undelivered { node: usize, start: u64, to: usize },
    /// A node goes on that stood still with what its last turn put out.
    Release { node: usize, start: u64 },
    /// A storm begins, goes on or ends.
    Storm { next: Next },
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
    /// A replica's state is made to differ.
    Diverge,
    /// A replica's whole state is looked at.
    Look,
    /// Something is done to a node on purpose.
    Operating(Operating),
    /// A leader is lost with what it has acknowledged.
    Loss(Loss),
    /// A leader is kept from hearing that it is deposed.
    Unaware(Unaware),
    /// Changes of names fail.
    NameFault,
    /// Somebody may take a stream of files, which is then cut.
    StreamCut,
    /// A fault.
    Fault { kind: Kind },
    /// The end of one.
    Mend { mend: Mend },
    /// A fault of a disk.
    DiskFault { kind: DiskFault, name: &'static str },
    /// Something of the founding.
    Founding(FoundingEvent),
    /// A map on its way to a client.
    Map(MapEvent),
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
    pub(super) storms: StormMaker,
    pub(super) disk_injector: DiskInjector,
    pub(super) divergence: Divergence,
    pub(super) losses: LossMaker,
    pub(super) unaware: UnawareMaker,
    pub(super) bystanders: Bystanders,
    pub(super) full_merges: FullMerges,
    pub(super) name_faults: NameFaults,
    pub(super) operator: Operator,
    /// Nodes that stay away until all that is owed was served.
    pub(super) away: BTreeSet<usize>,
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
    /// What a machine does to its disk, if that is recorded.
    pub(super) tape: Option<Tape>,
    /// How slow disks are with installs.
    pub(super) installs_rng: Rng,
    /// When each shard last acknowledged a write.
    pub(super) written_at: BTreeMap<ShardId, u64>,
    pub(super) facts: Vec<Fact>,
    pub(super) statuses: Vec<ShardStatus>,
    pub(super) outputs: Vec<Output>,
    pub(super) inputs: Vec<Input>,
    pub(super) envelopes: Vec<Vec<PeerMessage>>,
    /// Empty envelopes, to be used again.
    pub(super) spare: Vec<Vec<PeerMessage>>,
    /// The newest map that each client was sent by a node's process, where nodes push them.
    pub(super) maps_told: BTreeMap<(usize, usize, u64), MapVersion>,
    /// For what is random about the founding.
    pub(super) founding_rng: Rng,
    /// The cluster whose record a member has adopted that did not make it.
    pub(super) adopted: Option<ClusterId>,
    /// Files of checkpoints that were damaged, by node; each explains one stop.
    pub(super) damaged_paths: BTreeSet<(usize, String)>,
    /// When a node that was started with settings which were not the others' was put right the last time.
    pub(super) put_right_at: Option<u64>,
    /// Where a fault is to be put while the cluster is founded.
    pub(super) place: Option<Place>,
}

impl World {
    /// The world at time 0: all machines start.
    #[must_use]
    pub fn new(plan: Plan, trace: Trace) -> Self {
        // What was counted before in this thread is of another run.
        let _before = kv_core::points::take();
        let mut rng = plan.stream("machines");
        let machines: Vec<_> = (1..=plan.nodes)
            .map(|id| {
                let drift = plan.drift_ppm_max as i64;
                let clock = Clock::new(rng.u64(..1 << 40), rng.i64(-drift..=drift));
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
            storms: StormMaker::new(&plan),
            disk_injector: DiskInjector::new(&plan),
            divergence: Divergence::new(&plan),
            losses: LossMaker::new(&plan),
            unaware: UnawareMaker::new(&plan),
            bystanders: Bystanders::default(),
            full_merges: FullMerges::new(&plan),
            name_faults: NameFaults::new(&plan),
            operator: Operator::new(&plan),
            away: BTreeSet::new(),
            judge: Judge::new(&plan),
            trace,
            counts: Counts::default(),
            failure: None,
            quiet: false,
            closing: false,
            own_requests: 0,
            tape: None,
            installs_rng: plan.stream("slow installs"),
            written_at: BTreeMap::new(),
            facts: Vec::new(),
            statuses: Vec::new(),
            outputs: Vec::new(),
            inputs: Vec::new(),
            envelopes: (0..machines.len() * LANES).map(|_| Vec::new()).collect(),
            spare: Vec::new(),
            machines,
            founding_rng: plan.stream("founding faults"),
            adopted: None,
            maps_told: BTreeMap::new(),
            damaged_paths: BTreeSet::new(),
            put_right_at: None,
            place: None,
            plan,
        };
        for node in 0..world.machines.len() {
            let founding = world.plan.founding;
            let after = if founding.from_empty { world.founding_rng.u64(..=founding.starts_within_micros) } else { 0 };
            world.schedule_start(node, after);
        }
        world.schedule_founding_fault();
        for client in 0..world.clients.len() {
            world.schedule_work(client);
        }
        world.schedule_fault();
        world.schedule_storm();
        world.schedule_disk_fault();
        world.schedule_divergence();
        world.schedule_loss();
        world.schedule_unaware();
        world.schedule_operator();
        world.schedule_look();
        world.schedule_name_fault();
        world.schedule_stream_cut();
        if world.plan.names.trees_go_back {
            world.machines.iter().for_each(|machine| machine.store.keep_journal());
        }
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
            Event::Envelope { from, to, messages, connection } => self.arrive(from, to, messages, connection),
            Event::Undelivered { node, start, to } => {
                if self.is_current(node, start) {
                    self.give(node, Input::Undelivered { to: NodeId(to as u64 + 1), shard: None });
                }
            }
            Event::Release { node, start } => self.release(node, start),
            Event::Storm { next } => self.next_of_storm(next),
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
            Event::Diverge => self.diverge(),
            Event::Look => self.look(),
            Event::Operating(operating) => self.operate(&operating),
            Event::Loss(loss) => self.loss_event(&loss),
            Event::Unaware(unaware) => self.unaware_event(&unaware),
            Event::NameFault => self.inject_name_fault(),
            Event::StreamCut => self.cut_a_stream(),
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
            Event::DiskFault { kind, name } => {
                if !self.quiet {
                    self.inject_disk_fault(kind, name);
                }
            }
            Event::Founding(event) => self.founding_event(event),
            Event::Map(event) => self.map_event(event),
        }
    }

    pub(super) fn is_current(&self, node: usize, start: u64) -> bool {
        let machine = &self.machines[node];
        machine.start == start && machine.process.is_some()
    }

    /// Puts an event that needs the node's threads off until its pause is over; true if it did.
    pub(super) fn put_off(&mut self, node: usize, event: Event) -> bool {
        let until = self.machines[node].stands_until(self.now);
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
        // After a stall one tick is given, not those that were missed.
        let process = self.machines[node].process.as_ref().expect("the process is current");
        if !process.inbox.own().any(|input| matches!(input, Input::Tick)) {
            self.give(node, Input::Tick);
        }
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

    pub(super) fn reply(&mut self, node: usize, request: RequestId, mut result: Result<Answer, Error>) {
        let process = self.machines[node].process.as_mut().expect("it just took a turn");
        if request.0 >= OWN_REQUESTS {
            return;
        }
        let Some((client, shard, _)) = process.serving.remove(&request) else {
            let what = format!("node {} answered request {request} twice, or without being asked", node + 1);
            self.fail("each request is answered once", what);
            return;
        };
        if self.divergence.is_altered(node, shard) {
            // Nobody may know yet that this replica answers wrongly: what it says is lost on the way.
            return;
        }
        if matches!(result, Ok(Answer::Written { .. })) {
            self.written_at.insert(shard, self.now);
        }
        self.trace.note([self.now, request.0, u64::from(result.is_ok())]);
        self.trace.tell(self.now, || format!("n{} answers {request}: {result:?}", node + 1));
        if request.0 & TWICE != 0 {
            return;
        }
        if let Ok(Answer::Got { age_micros: Some(age), .. }) = &mut result {
            // From the node's clock to simulated time.
            let machine = &self.machines[node];
            *age = if *age == 0 { 0 } else { machine.last_turn.0 - machine.micros_before_turn(*age) };
        }
        if request.0 & BYSTANDERS != 0 {
            return self.answered_beside(request, result);
        }
        self.push_map(client, node);
        if let Fate::Arrives(at, _) = self.network.send(self.now, node, self.machines.len() + client, 0) {
            if let Some(later) = self.network.again() {
                self.queue.push(at + later, Event::Reply { client, request, result: Box::new(result.clone()) });
            }
            self.queue.push(at, Event::Reply { client, request, result: Box::new(result) });
        }
    }

    /// Asks a leader to hand a shard over, as an operator would.
    pub(super) fn ask_for_transfer(&mut self, node: usize, shard: ShardId, to: NodeId) {
        self.ask_for(node, shard, Operation::TransferLeader { to });
    }

    /// Asks a node for something of our own, which no history knows.
    pub(super) fn ask_for(&mut self, node: usize, shard: ShardId, operation: Operation) {
        self.own_requests += 1;
        let request = Request {
            id: RequestId(OWN_REQUESTS + self.own_requests),
            shard,
            epoch: None,
            deadline: Time(self.machines[node].clock.at(self.now).0 + 1_000_000),
            operation,
        };
        self.give(node, Input::Request(request));
    }

    /// When a shard last acknowledged a write.
    pub(super) fn written_at(&self, shard: ShardId) -> Option<u64> {
        self.written_at.get(&shard).copied()
    }

    /// Schedules the next fault, if the plan has any.
    pub(super) fn schedule_fault(&mut self) {
        if let Some((after, kind)) = self.injector.draw() {
            self.queue.push(self.now + after, Event::Fault { kind });
        }
    }

    /// Schedules what a storm does next.
    pub(super) fn schedule_next(&mut self, after: u64, next: Next) {
        self.queue.push(self.now + after, Event::Storm { next });
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
