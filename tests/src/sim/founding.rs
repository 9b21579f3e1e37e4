//! Nodes that found their cluster: the core's protocol, driven as the shell drives it, on the simulated disk and network.
//!
//! A machine of such a run begins with an empty disk. A start reads the identity file, opens or makes the log, and asks the
//! core's `Founder` what to do: its messages travel the simulated network, its file is written and synced on the simulated
//! disk, and when it says that the cluster is founded the node begins. Between nodes there are handshakes: what arrives was
//! sent by one process, on a connection to one process, greeted with what the sender was then; the core judges the greeting,
//! and says what follows for one that is refused. A message for an earlier process is lost with its connection; one *from* an
//! earlier process may still arrive, since the bytes may wait in the receiver's socket.
//!
//! What is checked: one record is in force, whatever happens; whoever is told that its disk was wiped had it wiped, and
//! whoever is told of other settings was started with others; in the end every node takes part or has refused.
//!
//! *Never produced here*: two processes at once under one id, members that join later, a disk that is put back as it was
//! some time before, a record that is forged. Disks are wiped whole, never a part of one: a log or checkpoints without the
//! identity file have tests of their own.

use fastrand::Rng;
use kv_core::{
    checkpoint::newest_footers,
    disk::FileDisk,
    founding::{
        Founder, FounderOutput, FounderStart, FoundingMessage, FoundingRecord, FoundingSettings, IDENTITY_PATH,
        IdentityError, IdentityFile,
    },
    identity::{self, Admission, Hello, Identity, PEER_PROTOCOL, Refusal, Refusals, Standing},
    io::Output,
    log::LogSettings,
    types::{Incarnation, NodeId},
};

use super::{
    machine::{Directory, Machine, Opened, StartError, founding_record},
    network::Fate,
    plan::Plan,
    world::{Event, World},
};
use crate::disk::{SimDisk, SimFileDisk};

/// Connections for founding messages are those of this lane.
const LANE: usize = 0;
/// After this long a supervisor starts a node again that ended by itself, in microseconds.
const SUPERVISED_MICROS: u64 = 500_000;
/// Other settings that were put right are a reason to end for so long, in microseconds.
const LATELY_MICROS: u64 = 30_000_000;

/// What one machine has to do with the founding.
pub struct Member {
    settings: FoundingSettings,
    /// What it is started with instead, while somebody has got it wrong.
    pub(super) otherwise: Option<FoundingSettings>,
    /// Of the running process.
    founder: Option<Founder>,
    /// What waits until the cluster is founded.
    directory: Option<Directory>,
    refusals: Refusals,
    /// What the process says that it waits for.
    pub(super) waits_for: Option<String>,
    /// The sentence with which it ended by itself.
    pub(super) ended: Option<String>,
    /// Incarnations of disks that were lost.
    pub(super) wiped: Vec<Incarnation>,
    rng: Rng,
    cut_percent: u32,
    /// The power goes after this many of the disk's steps, over all starts until the node begins.
    pub(super) countdown: Option<u64>,
    /// What happens then.
    pub(super) cut: Cut,
    /// The disk's steps that were counted: of all starts, and of all writes of the identity.
    pub(super) steps: u64,
}

/// How a countdown of the disk's steps ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The power goes: any part of what is not synced is lost.
    Power,
    /// The power goes, and all that is not synced is lost.
    PowerAndAll,
    /// The process is killed.
    Kill,
    /// The disk is lost.
    Disk,
}

/// A connection as its receiver knows it: which process it leads to, and the greeting.
#[derive(Clone, Copy, Debug)]
pub(super) struct Connection {
    to_start: u64,
    from_start: u64,
    hello: Hello,
}

/// Something that will happen, of the founding.
#[derive(Debug)]
pub(super) enum FoundingEvent {
    /// Time passes for an unfounded node.
    Tick { node: usize, start: u64 },
    /// A message arrives.
    Message { from: usize, to: usize, connection: Connection, message: FoundingMessage },
    /// A node hears that a greeting of its was refused.
    Refused { node: usize, start: u64, by: usize, refusal: Refusal },
    /// A fault of the plan's founding.
    Fault,
    /// A node that was started otherwise is started as it should be.
    PutRight { node: usize },
}

impl Member {
    pub(super) fn new(id: NodeId, plan: &Plan, cut_percent: u32) -> Self {
        let record = founding_record(plan);
        let members = record.members.iter().map(|member| (member.node, member.peer_address.clone()));
        let settings = FoundingSettings {
            members: members.collect(),
            shards: record.shards,
            replication: record.replication,
            durability: record.durability,
        };
        Self {
            settings,
            otherwise: None,
            founder: None,
            directory: None,
            refusals: Refusals::default(),
            waits_for: None,
            ended: None,
            wiped: Vec::new(),
            rng: plan.stream(&format!("member {id}")),
            cut_percent,
            countdown: None,
            cut: Cut::Power,
            steps: 0,
        }
    }

    /// What its members are to be started with.
    pub(super) fn settings(&self) -> &FoundingSettings {
        &self.settings
    }

    /// The process has ended.
    pub(super) fn end(&mut self) {
        (self.founder, self.directory, self.waits_for) = (None, None, None);
        self.refusals = Refusals::default();
    }

    fn incarnation(&self) -> Incarnation {
        self.founder.as_ref().map_or(Incarnation(0), |founder| founder.identity().incarnation)
    }
}

impl Machine {
    /// Whether it runs and is not founded yet.
    pub(super) fn is_unfounded(&self) -> bool {
        self.process.is_none() && self.member.as_ref().is_some_and(|member| member.founder.is_some())
    }

    /// What its disk says of it, whether or not that is synced.
    pub(super) fn on_disk(&self) -> Option<IdentityFile> {
        // Looked at beside the disk, whose faults wait for the node.
        let bytes = self.disk.content(&SimFileDisk::path(IDENTITY_PATH))?;
        let copy = SimDisk::new();
        copy.files().write(IDENTITY_PATH, 0, &bytes).ok()?;
        IdentityFile::load(&mut copy.files(), self.id()).ok().flatten()
    }

    /// From now on the disk's steps are counted; gives how many are left.
    pub(super) fn begin_counting(&self) -> u64 {
        let countdown = self.member.as_ref().map(|member| member.countdown.unwrap_or(u64::MAX));
        if let (Some(countdown), None) = (countdown, self.disk.steps_left()) {
            self.disk.power_off_after(countdown);
        }
        self.disk.steps_left().unwrap_or(u64::MAX)
    }

    /// What was done since is taken off the countdown.
    pub(super) fn end_counting(&mut self, began_with: u64) {
        if let (Some(member), Some(left)) = (&mut self.member, self.disk.steps_left()) {
            member.steps += began_with - left;
            if let Some(countdown) = &mut member.countdown {
                *countdown -= began_with - left;
            }
        }
    }

    /// The power went inside a call; what that means was said with the countdown, if there was one.
    pub(super) fn lose_power(&mut self) {
        let member = self.member.as_mut();
        match member.and_then(|member| member.countdown.take().map(|_| member.cut)) {
            None | Some(Cut::Power) => self.disk.crash(&mut self.rng),
            Some(Cut::PowerAndAll) => self.disk.crash_keeping(|| false, |_, _| false),
            Some(Cut::Kill) => self.disk.kill(),
            Some(Cut::Disk) => self.wipe(),
        }
    }

    /// The disk is replaced by an empty one.
    pub(super) fn wipe(&mut self) {
        let lost = self.on_disk().map(|file| file.incarnation);
        if let Some(member) = &mut self.member {
            member.wiped.extend(lost);
        }
        self.disk = SimDisk::new();
        self.store.lose();
        self.refused = None;
    }

    /// Whether a process runs, founded or not.
    pub(super) fn runs(&self) -> bool {
        self.process.is_some() || self.is_unfounded()
    }

    pub(super) fn try_open_member(
        &mut self,
        plan: &Plan,
        now: u64,
        outputs: &mut Vec<Output>,
    ) -> Result<Opened, StartError> {
        let settings = LogSettings { segment_bytes: plan.segment_bytes as usize, log_bytes_max: plan.log_bytes_max };
        let mut files = self.disk.files();
        let on_disk = IdentityFile::load(&mut files, self.id()).map_err(|error| match error {
            IdentityError::Disk(error) => StartError::Disk(error.to_string()),
            damage => StartError::Corrupt(damage.to_string()),
        })?;
        let (log, recovered) = self.open_log(settings, on_disk.is_some())?;
        let footers = newest_footers(&mut files).map_err(|error| StartError::Disk(format!("{error:?}")))?;
        let record = on_disk.as_ref().and_then(|file| file.record.clone());
        let id = self.id();
        let member = self.member.as_mut().expect("a member is opened");
        let start = FounderStart {
            node: id,
            settings: member.otherwise.as_ref().unwrap_or(&member.settings).clone(),
            zone: String::new(),
            weight: 1,
            on_disk,
            entropy: member.rng.u128(..),
        };
        let (founder, first) =
            Founder::new(start).map_err(|error| StartError::Otherwise(error.message().to_owned()))?;
        member.founder = Some(founder);
        let directory = Directory { log, recovered, footers };
        match record {
            Some(record) => {
                self.found(record);
                self.begin(plan, now, directory, outputs).map(Opened::Node)
            }
            None => {
                member.directory = Some(directory);
                Ok(Opened::Founding(first))
            }
        }
    }

    /// Writes the identity file; perhaps the power goes while it does.
    fn store(&mut self, file: &IdentityFile) -> Result<(), String> {
        let member = self.member.as_mut().expect("only a member has an identity");
        if member.cut_percent > 0 && member.rng.u32(..100) < member.cut_percent {
            self.disk.power_off_after(member.rng.u64(..6));
        }
        let began_with = self.begin_counting();
        let stored = file.store(&mut self.disk.files());
        if self.disk.is_off() {
            self.lose_power();
            return Err("the power was lost while it wrote its identity".to_owned());
        }
        self.end_counting(began_with);
        self.disk.kill();
        stored.map_err(|error| error.to_string())
    }

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
    /// A node runs and is not founded: does what its protocol says, then lets it have its time.
    pub(super) fn begin_founding(&mut self, node: usize, start: u64, first: Vec<FounderOutput>) {
        self.perform_founding(node, first);
        self.queue.push(self.now, Event::Founding(FoundingEvent::Tick { node, start }));
    }

    pub(super) fn founding_event(&mut self, event: FoundingEvent) {
        match event {
            FoundingEvent::Tick { node, start } => self.founding_tick(node, start),
            FoundingEvent::Message { from, to, connection, message } => {
                self.founding_message(from, to, connection, message);
            }
            FoundingEvent::Refused { node, start, by, refusal } => self.founding_refused(node, start, by, refusal),
            FoundingEvent::Fault | FoundingEvent::PutRight { .. } if self.quiet => {}
            FoundingEvent::Fault => self.founding_fault(),
            FoundingEvent::PutRight { node } => self.put_right(node),
        }
    }

    fn founding_tick(&mut self, node: usize, start: u64) {
        let machine = &self.machines[node];
        if machine.start != start || !machine.is_unfounded() {
            return;
        }
        if self.put_off(node, Event::Founding(FoundingEvent::Tick { node, start })) {
            return;
        }
        let after = self.machines[node].clock.to_simulated(self.plan.settings.tick_micros);
        self.queue.push(self.now + after, Event::Founding(FoundingEvent::Tick { node, start }));
        self.with_founder(node, Founder::tick);
    }

    fn founding_message(&mut self, from: usize, to: usize, connection: Connection, message: FoundingMessage) {
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

    fn founding_refused(&mut self, node: usize, start: u64, by: usize, refusal: Refusal) {
        let nodes = self.machines.len();
        let machine = &mut self.machines[node];
        let runs = machine.process.is_some() || machine.is_unfounded();
        let Some(member) = machine.member.as_mut().filter(|_| runs && machine.start == start) else { return };
        let words = refusal.to_string();
        if let Some(sentence) = member.refusals.refused(NodeId(by as u64 + 1), refusal.kind(), &words, nodes) {
            self.end_by_itself(node, sentence);
        }
    }

    fn with_founder(&mut self, node: usize, call: impl FnOnce(&mut Founder) -> Vec<FounderOutput>) {
        let founder = self.machines[node].member.as_mut().and_then(|member| member.founder.as_mut());
        if let Some(founder) = founder {
            let outputs = call(founder);
            self.perform_founding(node, outputs);
        }
    }

    /// Does what the protocol says, in its order, as the shell does.
    fn perform_founding(&mut self, node: usize, mut outputs: Vec<FounderOutput>) {
        while !outputs.is_empty() {
            for output in std::mem::take(&mut outputs) {
                match output {
                    FounderOutput::Send { to, message } => self.send_founding(node, to, message),
                    FounderOutput::Persist(file) => {
                        if let Err(reason) = self.machines[node].store(&file) {
                            return self.fail_stop(node, &reason);
                        }
                        self.trace.note([self.now, node as u64, file.incarnation.0 as u64]);
                        self.trace.tell(self.now, || format!("n{} is {}", node + 1, told(&file)));
                        self.check_one_record();
                        let founder = self.machines[node].member.as_mut().and_then(|member| member.founder.as_mut());
                        outputs.extend(founder.map(Founder::persisted).unwrap_or_default());
                    }
                    FounderOutput::Founded(record) => self.founded(node, record),
                    FounderOutput::Waiting(reason) => {
                        self.trace.tell(self.now, || format!("n{} is {reason}", node + 1));
                        let member = self.machines[node].member.as_mut().expect("it has a founder");
                        member.waits_for = Some(reason);
                    }
                    FounderOutput::Stop(sentence) => return self.end_by_itself(node, sentence),
                }
            }
        }
    }

    fn send_founding(&mut self, from: usize, to: NodeId, message: FoundingMessage) {
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

    /// The record is on disk: the node begins.
    fn founded(&mut self, node: usize, record: FoundingRecord) {
        let start = self.machines[node].start;
        let Some(directory) = self.machines[node].member.as_mut().and_then(|member| member.directory.take()) else {
            return;
        };
        self.trace.tell(self.now, || format!("n{} is founded in cluster {}", node + 1, record.cluster_id()));
        self.check_record(node, &record);
        self.machines[node].found(record);
        let mut outputs = Vec::new();
        match self.machines[node].begin(&self.plan, self.now, directory, &mut outputs) {
            Ok(recovered) => self.up(node, start, &recovered, &mut outputs),
            Err(_) => self.fail("who is founded can begin", format!("node {} could not", node + 1)),
        }
    }

    /// A node ends with a sentence for people. Who has got its settings wrong is started again; a wiped one stays away.
    pub(super) fn end_by_itself(&mut self, node: usize, sentence: String) {
        self.check_sentence(node, &sentence);
        self.counts.ended_by_themselves += 1;
        self.stop(node, false, &format!("ends: {sentence}"));
        let member = self.machines[node].member.as_mut().expect("only a member ends so");
        member.ended = Some(sentence.clone());
        if is_about_a_wiped_disk(&sentence) {
            self.machines[node].refused = Some(sentence);
        } else {
            self.schedule_start(node, SUPERVISED_MICROS);
        }
    }

    /// No two disks hold two records.
    fn check_one_record(&mut self) {
        let mut records: Vec<FoundingRecord> = Vec::new();
        for machine in &self.machines {
            if let Some(record) = machine.on_disk().and_then(|file| file.record)
                && !records.contains(&record)
            {
                records.push(record);
            }
        }
        if records.len() > 1 {
            let ids: Vec<_> = records.iter().map(FoundingRecord::cluster_id).collect();
            self.fail("at most one founding record is in force", format!("there are {ids:?}"));
        }
    }

    /// Once any but the lowest member has adopted a record, no other is ever adopted; and it names who adopts it.
    fn check_record(&mut self, node: usize, record: &FoundingRecord) {
        let own = self.machines[node].member.as_ref().map(Member::incarnation);
        let named = record.member(NodeId(node as u64 + 1)).map(|member| member.incarnation);
        if named != own {
            let what = format!("node {} with {own:?} adopts a record that names {named:?}", node + 1);
            self.fail("a wiped disk takes no part", what);
        }
        if let Some(adopted) = self.adopted.filter(|adopted| *adopted != record.cluster_id()) {
            let what = format!("node {} adopts {} after {adopted} was adopted", node + 1, record.cluster_id());
            self.fail("at most one founding record is in force", what);
        }
        if node > 0 {
            self.adopted = Some(record.cluster_id());
        }
    }

    /// What a node ends for is true.
    fn check_sentence(&mut self, node: usize, sentence: &str) {
        let id = NodeId(node as u64 + 1);
        let current = self.machines[node].member.as_ref().map(Member::incarnation);
        let named_otherwise = |machine: &Machine| {
            let named = machine.on_disk().and_then(|file| Some(file.record?.member(id)?.incarnation));
            named.is_some() && named != current
        };
        let wiped = is_about_a_wiped_disk(sentence) && self.machines.iter().any(named_otherwise);
        // What was said meanwhile may still be under way.
        let lately = self.put_right_at.is_some_and(|at| self.now < at + LATELY_MICROS);
        let is_otherwise = |machine: &Machine| machine.member.as_ref().is_some_and(|member| member.otherwise.is_some());
        if !wiped && !lately && !self.machines.iter().any(is_otherwise) {
            self.fail("a node ends only for a reason", format!("node {} ended: {sentence}", node + 1));
        }
    }
}

fn is_about_a_wiped_disk(sentence: &str) -> bool {
    sentence.contains("the disk was wiped or replaced")
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

fn told(file: &IdentityFile) -> String {
    let record = file.record.as_ref().map(|record| record.cluster_id().to_string());
    format!(
        "{:08x}, bound to {:08x?}, of cluster {record:?}",
        file.incarnation.0 as u32,
        file.lowest.map(|lowest| lowest.0 as u32)
    )
}
