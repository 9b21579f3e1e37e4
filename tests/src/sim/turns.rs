//! Turns of nodes, what they put out, and the messages between them.

use kv_core::{
    command::Action,
    error::Error,
    identity::Admission,
    io::{Input, Notice, Operation, Output, Request},
    message::PeerMessage,
    types::NodeId,
};

use super::{
    crash_points::tape::Note,
    founding_greetings::Connection,
    machine::LANES,
    network::Fate,
    world::{Event, World},
};

impl World {
    /// Gives a node's next turn an input, if its door lets it in: past its bound a request is refused, and a message is lost as
    /// on a connection that nobody reads.
    pub(super) fn give(&mut self, node: usize, input: Input) {
        let machine = &mut self.machines[node];
        let (start, local) = (machine.start, machine.clock.at(self.now));
        let Some(process) = &mut machine.process else { return };
        match &input {
            Input::Peer { .. } if !process.inbox.has_room_for_peers() => return,
            Input::Peer { message, .. } => process.inbox.push_peer(message.bytes_about(), input),
            Input::Request(request) if !process.inbox.has_room_for_requests(1) => {
                process.busy_until = process.busy_until.max(self.now) + self.plan.refuse_micros;
                return self.reply(node, request.id, Err(overloaded()));
            }
            Input::Request(request) => {
                let (deadline, bytes) = (request.deadline, request_bytes(request));
                process.inbox.push_request(local, deadline, bytes, input);
            }
            _ => process.inbox.push(input),
        }
        if !process.turn_scheduled {
            process.turn_scheduled = true;
            let at = self.now.max(process.busy_until);
            self.queue.push(at, Event::Turn { node, start });
        }
    }

    pub(super) fn turn(&mut self, node: usize, start: u64) {
        if !self.is_current(node, start) || self.put_off(node, Event::Turn { node, start }) {
            return;
        }
        let local = self.machines[node].clock.at(self.now);
        let process = self.machines[node].process.as_mut().expect("the process is current");
        if process.holds {
            return;
        }
        if process.busy_until > self.now {
            let at = process.busy_until;
            return self.queue.push(at, Event::Turn { node, start });
        }
        self.machines[node].last_turn = (self.now, local);
        let process = self.machines[node].process.as_mut().expect("the process is current");
        let mut inputs = std::mem::take(&mut self.inputs);
        let mut outputs = std::mem::take(&mut self.outputs);
        let mut late = Vec::new();
        process.inbox.take(local, &mut inputs, &mut late);
        let count = inputs.len();
        let refused = late.len() as u64 * self.plan.refuse_micros;
        let panicked = process.turn(local, &mut inputs, &mut outputs).err();
        inputs.clear();
        self.inputs = inputs;
        outputs.extend(late.into_iter().filter_map(|input| match input {
            Input::Request(request) => Some(Output::Reply { request: request.id, result: Err(overloaded()) }),
            _ => None,
        }));
        let costs = self.plan.costs;
        process.busy_until = self.now + costs.turn_micros + count as u64 * costs.input_micros + refused;
        process.turn_scheduled = !process.inbox.is_empty() || process.node.has_more();
        if process.turn_scheduled {
            let at = process.busy_until;
            self.queue.push(at, Event::Turn { node, start });
        }
        self.counts.turns += 1;
        self.trace.note([self.now, node as u64, count as u64, outputs.len() as u64]);
        if let Some(message) = panicked {
            self.fail("no node panics", format!("node {} panicked in a turn: {message}", node + 1));
        }
        if self.pauses_in_turn(node, start) {
            let process = self.machines[node].process.as_mut().expect("it just took a turn");
            process.held = std::mem::take(&mut outputs);
            process.holds = true;
            return;
        }
        self.judge_turn(node, &outputs);
        if self.tape.is_some() {
            self.judge_digests(node);
        }
        self.perform(node, &mut outputs);
        self.outputs = outputs;
    }

    pub(super) fn perform(&mut self, node: usize, outputs: &mut Vec<Output>) {
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
                    self.machines[node].process.as_mut().expect("it just took a turn").submit(*job);
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
                    let empty = self.spare.pop().unwrap_or_default();
                    let messages = std::mem::replace(&mut self.envelopes[to * LANES + lane], empty);
                    self.send(node, to, lane, messages);
                }
            }
        }
    }

    pub(super) fn notice(&mut self, node: usize, notice: &Notice) {
        self.trace.tell(self.now, || format!("n{} {notice:?}", node + 1));
        match notice {
            Notice::StateLost { shard, .. } => {
                self.counts.states_lost += 1;
                self.trace.mark(self.now, Some(node), || format!("loses its state of s{shard}"));
                self.note(node, || Note::StateLost(*shard));
            }
            Notice::Verified { shard, .. } => {
                if !self.divergence.aftermath.has_spoiled(node, *shard) {
                    self.injector.atlas.proven(node, *shard, self.machines[node].start);
                }
                self.note(node, || Note::Verified(*shard));
            }
            Notice::Quarantined { shard, reason } => {
                self.counts.quarantines += 1;
                let what = format!("node {} took shard {shard} out of service: {reason}", node + 1);
                self.fail("no replica has to leave its group", what);
            }
            _ => {}
        }
    }

    pub(super) fn send(&mut self, from: usize, to: usize, lane: usize, mut messages: Vec<PeerMessage>) {
        self.keep_unaware(from, to, &mut messages);
        if messages.is_empty() {
            return self.spare.push(messages);
        }
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
                let connection = self.connection(from, to);
                if let Some(again) = again {
                    self.queue.push(again, Event::Envelope { from, to, messages: messages.clone(), connection });
                }
                self.queue.push(at, Event::Envelope { from, to, messages, connection });
            }
            Fate::Lost(Some(at)) => {
                let start = self.machines[from].start;
                self.queue.push(at, Event::Undelivered { node: from, start, to });
            }
            Fate::Lost(None) => {}
        }
    }

    pub(super) fn arrive(&mut self, from: usize, to: usize, mut messages: Vec<PeerMessage>, on: Option<Connection>) {
        let is_heard = on.is_none_or(|connection| self.admit(from, to, &connection) == Some(Admission::Member));
        if self.machines[to].process.is_none() || !is_heard {
            let start = self.machines[from].start;
            let at = self.now + self.plan.links.delay_micros_min;
            self.queue.push(at, Event::Undelivered { node: from, start, to });
            return;
        }
        for message in messages.drain(..) {
            self.give(to, Input::Peer { from: NodeId(from as u64 + 1), message });
        }
        self.spare.push(messages);
    }
}

/// What a request gets that finds the door shut, or waits too long behind it.
fn overloaded() -> Error {
    Error::overloaded("the node has too many requests waiting", 50)
}

/// About how many bytes a request takes, as the shell counts it.
fn request_bytes(request: &Request) -> usize {
    match &request.operation {
        Operation::Write { write, .. } => {
            let value = match &write.action {
                Action::Put(value) => value.as_bytes().len(),
                Action::Delete => 0,
            };
            64 + write.key.as_bytes().len() + value
        }
        _ => 64,
    }
}
