//! Greetings between nodes of a run that founds its cluster, and what goes over a connection once they have greeted.
//!
//! What arrives was sent by one process, on a connection to one process, greeted with what the sender was then; the core judges
//! the greeting, and says what follows for one that is refused. A message for an earlier process is lost with its connection; one
//! *from* an earlier process may still arrive, since the bytes may wait in the receiver's socket.

use kv_core::{
    founding::FoundingMessage,
    identity::{self, Admission, Hello, Identity, PEER_PROTOCOL, Refusal, Standing},
    types::NodeId,
};

use super::{
    founding::FoundingEvent,
    machine::Machine,
    network::Fate,
    world::{Event, World},
};

/// Connections for founding messages are those of this lane.
const LANE: usize = 0;

/// A connection as its receiver knows it: which process it leads to, and the greeting.
#[derive(Clone, Copy, Debug)]
pub(super) struct Connection {
    to_start: u64,
    from_start: u64,
    hello: Hello,
}

impl Machine {
    /// As what it takes a greeting.
    fn standing(&self) -> Option<Standing<'_>> {
        let member = self.member.as_ref()?;
        let record = self.record();
        match &self.process {
            Some(_) => {
                let own = Identity { cluster: record.cluster_id(), node: self.id(), incarnation: member.incarnation() };
                Some(Standing::Founded { own, record })
            }
            None => member.founder.as_ref().map(|_| Standing::Unfounded(self.id())),
        }
    }

    /// How it introduces itself.
    fn hello(&self) -> Option<Hello> {
        let member = self.member.as_ref()?;
        let cluster = self.process.as_ref().map(|_| self.record().cluster_id());
        Some(Hello { protocol: PEER_PROTOCOL, cluster, node: self.id(), incarnation: member.incarnation() })
    }
}

impl World {
    pub(super) fn founding_message(
        &mut self,
        from: usize,
        to: usize,
        connection: Connection,
        message: FoundingMessage,
    ) {
        let until = self.machines[to].stands_until(self.now);
        if until > self.now {
            let event = FoundingEvent::Message { from, to, connection, message };
            return self.queue.push(until, Event::Founding(event));
        }
        self.counts.founding_messages += 1;
        self.founding_place_reached();
        if self.admit(from, to, &connection).is_none() {
            return;
        }
        self.trace.note([self.now, from as u64, to as u64, message.encode().len() as u64]);
        self.trace.tell(self.now, || format!("n{} hears of n{}: {}", to + 1, from + 1, short(&message)));
        let message = FoundingMessage::decode(message.encode());
        let Ok(message) = message else {
            return self.fail("what is sent decodes", format!("{message:?}"));
        };
        self.with_founder(to, |founder| founder.message(NodeId(from as u64 + 1), message));
    }

    /// A connection of now from one node to another, in runs that have any.
    pub(super) fn connection(&self, from: usize, to: usize) -> Option<Connection> {
        let hello = self.machines[from].hello()?;
        Some(Connection { to_start: self.machines[to].start, from_start: self.machines[from].start, hello })
    }

    /// To what of a connection its receiver listens: nothing, if the process that it led to is gone or refuses it.
    pub(super) fn admit(&mut self, from: usize, to: usize, connection: &Connection) -> Option<Admission> {
        let receiver = &self.machines[to];
        if receiver.start != connection.to_start {
            return None;
        }
        match identity::greet(receiver.standing()?, NodeId(to as u64 + 1), &connection.hello) {
            Ok(admission) => {
                if let Some(member) = &mut self.machines[from].member {
                    member.refusals.accepted(NodeId(to as u64 + 1));
                }
                Some(admission)
            }
            Err(refusal) => {
                self.trace.tell(self.now, || format!("n{} refuses n{}: {refusal}", to + 1, from + 1));
                let at = self.now + self.plan.links.delay_micros_min;
                let event = FoundingEvent::Refused { node: from, start: connection.from_start, by: to, refusal };
                self.queue.push(at, Event::Founding(event));
                None
            }
        }
    }

    pub(super) fn founding_refused(&mut self, node: usize, start: u64, by: usize, refusal: Refusal) {
        let nodes = self.machines.len();
        let machine = &mut self.machines[node];
        let runs = machine.process.is_some() || machine.is_unfounded();
        let Some(member) = machine.member.as_mut().filter(|_| runs && machine.start == start) else { return };
        let words = refusal.to_string();
        if let Some(sentence) = member.refusals.refused(NodeId(by as u64 + 1), refusal.kind(), &words, nodes) {
            self.end_by_itself(node, sentence);
        }
    }

    pub(super) fn send_founding(&mut self, from: usize, to: NodeId, message: FoundingMessage) {
        let to = to.0 as usize - 1;
        // Settings that somebody got wrong may name whom there is not.
        if to >= self.machines.len() || !self.machines[to].runs() {
            return;
        }
        let connection = self.connection(from, to).expect("who sends it is a member");
        let event = || Event::Founding(FoundingEvent::Message { from, to, connection, message: message.clone() });
        if let Fate::Arrives(at, again) = self.network.send(self.now, from, to, LANE) {
            if let Some(again) = again {
                self.queue.push(again, event());
            }
            self.queue.push(at, event());
        }
    }
}

fn short(message: &FoundingMessage) -> String {
    match message {
        FoundingMessage::Unfounded(other) => format!(
            "unfounded {:08x}, bound to {:08x?}{}",
            other.incarnation.0 as u32,
            other.lowest.map(|lowest| lowest.0 as u32),
            if other.bind { ", bind" } else { "" }
        ),
        FoundingMessage::Offer(record) => format!("the record of {}", record.cluster_id()),
        FoundingMessage::Refusal { reason, .. } => format!("{reason:?}"),
    }
}
