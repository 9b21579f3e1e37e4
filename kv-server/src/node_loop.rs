//! The loop of a node: takes what has happened, gives it to the core as one turn, and does what the core says.
//!
//! Everything of one turn leaves together: one envelope to a peer, one block to the log, one message to a client's stream.
//! The loop does no IO that could wait; the log and the checkpoints have threads of their own.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use kv_core::{
    founding::FoundingRecord,
    io::{Input, Operation, Output, Request},
    log::record::LogBatch,
    node::Node,
    shard_map::NodeDescription,
    types::{LogIndex, ShardId, Time},
};
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    clock,
    convert::FromPeer,
    disk::IndexStore,
    founding::Founding,
    inbox::{Event, overloaded},
    jobs::JobSender,
    notices::{self, SlowRequests, SlowSteps},
    peers::Peers,
    pending::{Pending, PendingRequests},
    shared::Shared,
    sink::{Asker, Sink},
    status::{Report, unready},
    stop::{Failure, Trouble},
};

/// What the loop begins with.
pub(crate) struct Beginning {
    pub(crate) shared: Arc<Shared>,
    pub(crate) founding: Founding,
    /// The node, if its cluster was founded before, with its first outputs.
    pub(crate) node: Option<(Node<IndexStore>, Vec<Output>)>,
    /// Makes the node when the cluster is founded.
    pub(crate) open: Option<Opener>,
    pub(crate) batches: mpsc::Sender<LogBatch>,
    pub(crate) jobs: JobSender,
    pub(crate) tick: Duration,
    pub(crate) description: NodeDescription,
    pub(crate) committed_at_start: BTreeMap<ShardId, LogIndex>,
}

/// A turn that takes longer is named: nothing else is done meanwhile, heartbeats included.
const SLOW_TURN: Duration = Duration::from_millis(200);
/// A node that is ready is looked at again after so many ticks; one that is not, at each.
const LOOK_TICKS: u32 = 10;

/// Makes the node from the founding record.
pub(crate) type Opener = Box<dyn FnOnce(FoundingRecord) -> Result<(Node<IndexStore>, Vec<Output>), Failure> + Send>;

/// The loop.
pub(crate) struct NodeLoop {
    shared: Arc<Shared>,
    peers: Peers,
    founding: Founding,
    node: Option<Node<IndexStore>>,
    open: Option<Opener>,
    batches: mpsc::Sender<LogBatch>,
    jobs: JobSender,
    tick: Duration,
    description: NodeDescription,
    committed_at_start: BTreeMap<ShardId, LogIndex>,
    /// Ticks for which the node has been ready.
    ticks_ready: u32,
    pending: PendingRequests,
    slow: SlowRequests,
    slow_turns: SlowSteps,
    log_bytes: u64,
    log_syncs: u64,
    log_written_bytes: u64,
    /// When the turn began, or what it said was done: one look at the clock serves all requests of a turn.
    now: Time,
    inputs: Vec<Input>,
    outputs: Vec<Output>,
    /// Streams with answers that were not flushed.
    answered: Vec<Arc<Sink>>,
}

impl NodeLoop {
    /// The loop before its first turn. Must be called inside its runtime.
    pub(crate) fn new(beginning: Beginning) -> Self {
        let Beginning { shared, founding, node, open, batches, jobs, tick, description, committed_at_start } =
            beginning;
        let peers = Peers::start(&shared);
        let mut this = Self {
            shared,
            peers,
            founding,
            node: None,
            open,
            batches,
            jobs,
            tick,
            description,
            committed_at_start,
            ticks_ready: 0,
            pending: PendingRequests::default(),
            slow: SlowRequests::default(),
            slow_turns: SlowSteps::new(SLOW_TURN),
            log_bytes: 0,
            log_syncs: 0,
            log_written_bytes: 0,
            now: clock::now(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            answered: Vec::new(),
        };
        match node {
            Some((node, outputs)) => this.begin_node(node, outputs),
            None => {
                let founded = this.founding.first(&this.peers);
                this.founded(founded);
            }
        }
        this
    }

    /// Runs until the node is to end without any further step.
    pub(crate) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut ticks = interval(self.tick);
        // After a stall one tick is given, not those that were missed.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut events = Vec::new();
        let mut is_leaving = false;
        let mut abrupt = std::pin::pin!(shared.stop.abrupt());
        let mut asked = std::pin::pin!(shared.stop.asked());
        loop {
            tokio::select! {
                biased;
                () = &mut abrupt => return,
                () = &mut asked, if !is_leaving => {
                    is_leaving = true;
                    shared.inbox.push(Event::Input(Input::HandOver));
                }
                _ = ticks.tick() => shared.inbox.push(Event::Input(Input::Tick)),
                () = shared.inbox.filled() => {}
            }
            // What other tasks have ready now belongs to the same turn.
            tokio::task::yield_now().await;
            if shared.stop.is_abrupt() {
                return;
            }
            // One turn, then the clock again: however much comes in, no tick is missed for it.
            let is_last = shared.inbox.take(clock::now(), &mut events);
            self.turn(&mut events);
            if !is_last || self.node.as_ref().is_some_and(Node::has_more) {
                shared.inbox.more();
            }
        }
    }

    /// One turn: what happened goes in, what is to be done is done.
    fn turn(&mut self, events: &mut Vec<Event>) {
        let began = Instant::now();
        let (count, requests) = (events.len(), self.pending.len());
        self.now = clock::now();
        for event in events.drain(..) {
            self.take(event);
        }
        let requests = self.pending.len().saturating_sub(requests);
        if let Some(node) = &mut self.node {
            let turned = catch_unwind(AssertUnwindSafe(|| {
                self.shared.faults.in_turn(|| self.shared.stop.is_abrupt());
                node.turn(clock::now(), &mut self.inputs, &mut self.outputs);
            }));
            if let Err(panic) = turned {
                // Nothing of what it was about to say has left or will.
                self.shared.stop.panicked("a turn", panic.as_ref());
                return;
            }
        }
        self.perform();
        self.shared.metrics.turn(count, requests, self.slow_turns.took("turn", began));
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Input(input) => {
                match &input {
                    Input::Tick => self.ticked(),
                    Input::Synced(report) => {
                        self.log_bytes = report.bytes;
                        self.log_syncs += 1;
                        self.log_written_bytes += report.block_bytes;
                    }
                    _ => {}
                }
                if self.node.is_some() {
                    self.inputs.push(input);
                }
            }
            Event::Ask(asker, request) => self.ask(asker, request),
            Event::Late(asker, request) => {
                let pending = self.pending(asker, &request);
                self.answer(pending, Err(overloaded()));
            }
            Event::Peer(from, FromPeer::Node(message)) => {
                if self.node.is_some() {
                    self.inputs.push(Input::Peer { from, message });
                }
            }
            Event::Peer(from, FromPeer::Founding(message)) => {
                let founded = self.founding.message(from, message, &self.peers);
                self.founded(founded);
            }
            Event::Status(asked) => {
                // Whoever asked may have given up waiting.
                let _gone = asked.send(self.report());
            }
        }
    }

    fn ask(&mut self, asker: Asker, mut request: Request) {
        let pending = self.pending(asker, &request);
        if self.node.is_none() {
            return self.answer(pending, Err(self.shared.not_founded()));
        }
        request.id = self.pending.add(pending);
        self.inputs.push(Input::Request(request));
    }

    fn ticked(&mut self) {
        match &self.node {
            None => {
                let founded = self.founding.tick(&self.peers);
                self.founded(founded);
                // It leads nothing, and has taken nothing that it would owe an answer.
                self.shared.is_idle.send_replace(self.node.is_none());
            }
            Some(node) => {
                let is_idle = node.is_idle() || (self.shared.members.len() == 1 && !node.has_undecided());
                // A look at a thousand replicas takes a while: the ready are looked at less often.
                self.ticks_ready =
                    if self.shared.unready.borrow().is_none() { self.ticks_ready.wrapping_add(1) } else { 0 };
                if self.ticks_ready.is_multiple_of(LOOK_TICKS) {
                    let is_on_map = node.map().nodes.iter().all(|known| !known.client_address.is_empty());
                    let no_addresses = || (!is_on_map).then(|| "the map lacks addresses of nodes".to_owned());
                    let shards = node.status().shards;
                    self.shared.set_unready(unready(&shards, &self.committed_at_start).or_else(no_addresses));
                }
                self.shared.is_idle.send_replace(is_idle && self.pending.len() == 0);
            }
        }
    }

    /// The cluster is founded: the node begins.
    fn founded(&mut self, record: Option<FoundingRecord>) {
        let Some(record) = record else { return };
        let Some(open) = self.open.take() else { return };
        match open(record) {
            Ok((node, outputs)) => self.begin_node(node, outputs),
            Err(failure) => self.shared.stop.fail(failure.trouble, failure.message),
        }
    }

    fn begin_node(&mut self, node: Node<IndexStore>, outputs: Vec<Output>) {
        let Some(record) = self.founding.record() else { return };
        self.open = None;
        tracing::info!(cluster = %record.cluster_id(), "the node begins");
        self.shared.found(record);
        self.shared.publish_map(node.map().clone());
        self.shared.set_unready(Some("the replicas load their state".to_owned()));
        self.node = Some(node);
        self.outputs.extend(outputs);
        let description = NodeDescription { incarnation: self.shared.incarnation(), ..self.description.clone() };
        self.inputs.push(Input::Describe(description));
        // The first look at the disk came before there was a node to hear of it.
        if let bytes @ 1.. = self.shared.disk_free() {
            self.inputs.push(Input::DiskFree { bytes });
        }
        self.perform();
    }

    /// Does what the turn said, in its order.
    fn perform(&mut self) {
        self.now = clock::now();
        let mut outputs = std::mem::take(&mut self.outputs);
        for output in outputs.drain(..) {
            match output {
                Output::Send { to, message } => self.peers.send(to, message),
                Output::LogBatch(batch) => {
                    if self.batches.send(batch).is_err() {
                        self.shared.stop.fail(Trouble::Internal, "the log thread is gone");
                    }
                }
                Output::Checkpoint(job) => {
                    if self.jobs.send(*job).is_err() {
                        self.shared.stop.fail(Trouble::Internal, "the checkpoint thread is gone");
                    }
                }
                Output::Reply { request, result } => match self.pending.take(request) {
                    Some(pending) => self.answer(pending, result),
                    None => tracing::error!(%request, ?result, "a request was answered that nobody waits for"),
                },
                Output::MapChanged(map) => self.shared.publish_map(map),
                Output::Notice(notice) => notices::tell(&notice, &self.shared),
            }
        }
        self.outputs = outputs;
        for sink in self.answered.drain(..) {
            sink.flush();
        }
    }

    fn answer(&mut self, pending: Pending, result: Result<kv_core::io::Answer, kv_core::error::Error>) {
        if let Err(error) = &result {
            self.shared.metrics.refused(error.kind());
        }
        self.slow.answered(&pending, self.now, result.is_ok());
        match pending.asker {
            Asker::Stream(sink, operation) => {
                if sink.answer(operation, result) {
                    self.answered.push(sink);
                }
            }
            Asker::Call(answer) => {
                // Whoever asked may have given up waiting.
                let _gone = answer.send(result);
            }
        }
    }

    /// A request that waits from now on.
    fn pending(&self, asker: Asker, request: &Request) -> Pending {
        Pending { asker, what: what(&request.operation), shard: request.shard, since: self.now }
    }

    fn report(&self) -> Report {
        Report {
            node: self.node.as_ref().map(Node::status),
            ready: self.shared.unready.borrow().is_none(),
            inbox_events: self.shared.inbox.len(),
            requests_outstanding: self.pending.len(),
            unread_bytes: self.shared.unread.bytes(),
            asking_bytes: self.shared.unread.asking_bytes(),
            peer_queue_messages: self.peers.queued(),
            disk_free_bytes: self.shared.disk_free(),
            log_bytes: self.log_bytes,
            log_syncs: self.log_syncs,
            log_written_bytes: self.log_written_bytes,
        }
    }
}

fn what(operation: &Operation) -> &'static str {
    match operation {
        Operation::Get { .. } => "get",
        Operation::Write { .. } => "write",
        Operation::OpenSession => "open session",
        Operation::WaitDurable { .. } => "wait durable",
        Operation::TransferLeader { .. } => "transfer leader",
    }
}
