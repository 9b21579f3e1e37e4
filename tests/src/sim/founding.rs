//! Nodes that found their cluster: the core's protocol, driven as the shell drives it, on the simulated disk and network.
//!
//! A machine of such a run begins with an empty disk. A start reads the identity file, opens or makes the log, and asks the
//! core's `Founder` what to do: its messages travel the simulated network, its file is written and synced on the simulated
//! disk, and when it says that the cluster is founded the node begins. Between nodes there are greetings
//! (`founding_greetings.rs`).
//!
//! What is checked (`founding_checks.rs`): one record is in force, whatever happens; whoever is told that its disk was
//! wiped had it wiped, and whoever is told of other settings was started with others; in the end every node takes part or has
//! refused.
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
    identity::{Refusal, Refusals},
    io::Output,
    types::{Incarnation, NodeId},
};

use super::{
    founding_checks::is_about_a_wiped_disk,
    founding_greetings::Connection,
    machine::{Directory, Machine, Opened, StartError, founding_record},
    plan::Plan,
    world::{Event, World},
};
use crate::disk::{SimDisk, SimFileDisk};

/// After this long a supervisor starts a node again that ended by itself, in microseconds.
const SUPERVISED_MICROS: u64 = 500_000;

/// What one machine has to do with the founding.
pub struct Member {
    settings: FoundingSettings,
    /// What it is started with instead, while somebody has got it wrong.
    pub(super) otherwise: Option<FoundingSettings>,
    /// Of the running process.
    pub(super) founder: Option<Founder>,
    /// What waits until the cluster is founded.
    directory: Option<Directory>,
    pub(super) refusals: Refusals,
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

    /// Of the running process; 0 for none.
    pub(super) fn incarnation(&self) -> Incarnation {
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
        let settings = plan.log_settings();
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

    pub(super) fn with_founder(&mut self, node: usize, call: impl FnOnce(&mut Founder) -> Vec<FounderOutput>) {
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
}

fn told(file: &IdentityFile) -> String {
    let record = file.record.as_ref().map(|record| record.cluster_id().to_string());
    format!(
        "{:08x}, bound to {:08x?}, of cluster {record:?}",
        file.incarnation.0 as u32,
        file.lowest.map(|lowest| lowest.0 as u32)
    )
}
