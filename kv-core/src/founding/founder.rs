//! The protocol by which members come to one founding record, without IO.
//!
//! 1. Every unfounded member says at each tick what it is: its incarnation, and a digest of what it was started with.
//! 2. When the lowest member has heard all others say that they are unfounded, with the same digest as its own, it asks them to
//!    *bind* to its incarnation: to take a record from this incarnation alone. A member that binds stores that, synced,
//!    before it says so.
//! 3. When all are bound to it, the lowest member stores the record, synced, and offers it. A member adopts it, synced, iff it
//!    names the member's own incarnation and digest and comes from the incarnation to which the member is bound.
//! 4. Every founded member offers the record to unfounded ones that it names, and tells others why they can't join.
//!
//! **At most one record is in force.** A record names one incarnation of the lowest member, which made no other. A member that
//! is asked to bind to another incarnation than before (the lowest member was wiped) draws a new incarnation for itself, so
//! that a record of the wiped one, still under way in the network, names nobody any more. All must bind before a record is
//! made, and a founded member binds to nobody: so no second record is made while one has an adopter. And since the lowest
//! member asks for binding only after all have said that they are unfounded, a member does not give up the record that others
//! have adopted.
//!
//! *Caveats.* The first start needs all members. A member that is wiped after the record names it and before it adopted it is
//! refused, which leaves the cluster one node short until it is replaced. Two processes under the lowest id found two
//! clusters, of which at most one finds followers.

use std::collections::{BTreeMap, BTreeSet};

use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::{
    FoundingMessage, FoundingRecord, FoundingRefusal, FoundingSettings, IdentityFile, Member, Unfounded, WEIGHT_MAX,
};
use crate::{
    error::Error,
    shard_map::ADDRESS_BYTES_MAX,
    types::{Incarnation, NodeId},
};

/// What the shell does for a [`Founder`], in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FounderOutput {
    /// Send a message; it may be lost.
    Send {
        /// To this member.
        to: NodeId,
        /// The message.
        message: FoundingMessage,
    },
    /// Write and sync the identity file in place of the one before, then call [`Founder::persisted`].
    Persist(IdentityFile),
    /// The cluster is founded and the record is on disk: the node may begin. Said once.
    Founded(FoundingRecord),
    /// What it waits for has changed; for people.
    Waiting(String),
    /// This node can't take part: end the process with this sentence. Nothing follows.
    Stop(String),
}

/// What a node is started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FounderStart {
    /// The node.
    pub node: NodeId,
    /// What all members are started with.
    pub settings: FoundingSettings,
    /// The failure domain that the node stands in; empty means one of its own.
    pub zone: String,
    /// Its share of the load against the others'; at least 1.
    pub weight: u32,
    /// What the data directory says; `None` if it is empty.
    pub on_disk: Option<IdentityFile>,
    /// 128 random bits, drawn at this start: what incarnations are made of.
    pub entropy: u128,
}

/// The protocol's state at one member.
#[derive(Clone, Debug)]
pub struct Founder {
    start: FounderStart,
    /// What is on disk, or on its way there.
    file: IdentityFile,
    phase: Phase,
    incarnations_drawn: u64,
    /// At the lowest member: what each other said last. At most one entry for a member.
    heard: BTreeMap<NodeId, Unfounded>,
    /// Members that were started with another configuration.
    otherwise: BTreeSet<NodeId>,
    is_misconfigured: bool,
    waiting: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The file is being written; messages are not listened to, they come again.
    Persisting,
    Unfounded,
    Founded,
    Stopped,
}

impl Founder {
    /// Begins, with the first outputs.
    ///
    /// # Errors
    /// `Invalid`, with a sentence that says what to do, if the settings are out of bounds, don't name the node, or are not
    /// those of the data directory.
    pub fn new(start: FounderStart) -> Result<(Self, Vec<FounderOutput>), Error> {
        check(&start)?;
        let mut founder = Self {
            file: IdentityFile { node: start.node, incarnation: Incarnation(0), lowest: None, record: None },
            start,
            phase: Phase::Unfounded,
            incarnations_drawn: 0,
            heard: BTreeMap::new(),
            otherwise: BTreeSet::new(),
            is_misconfigured: false,
            waiting: String::new(),
        };
        let mut outputs = Vec::new();
        match founder.start.on_disk.take() {
            Some(file) => {
                founder.file = file;
                let own = founder.file.incarnation;
                if founder.file.record.is_none() && founder.file.lowest.is_none() && founder.is_lowest() {
                    // It was started before with settings in which another was the lowest.
                    founder.persist(IdentityFile { lowest: Some(own), ..founder.file.clone() }, &mut outputs);
                } else {
                    founder.proceed(&mut outputs);
                }
            }
            None => {
                let incarnation = founder.draw_incarnation();
                let lowest = founder.is_lowest().then_some(incarnation);
                founder.persist(IdentityFile { incarnation, lowest, ..founder.file.clone() }, &mut outputs);
            }
        }
        Ok((founder, outputs))
    }

    /// Time has passed; call it every 100 ms or so.
    #[must_use]
    pub fn tick(&mut self) -> Vec<FounderOutput> {
        let mut outputs = Vec::new();
        if self.phase == Phase::Unfounded {
            for to in self.others() {
                self.send(to, self.announcement(), &mut outputs);
            }
            self.tell_waiting(&mut outputs);
        }
        outputs
    }

    /// A message has come from a member, or from a node that thinks that it is one.
    #[must_use]
    pub fn message(&mut self, from: NodeId, message: FoundingMessage) -> Vec<FounderOutput> {
        let mut outputs = Vec::new();
        match (self.phase, message) {
            (Phase::Founded, FoundingMessage::Unfounded(other)) => self.answer_founded(from, &other, &mut outputs),
            (Phase::Unfounded, FoundingMessage::Unfounded(other)) => self.heard_unfounded(from, other, &mut outputs),
            (Phase::Unfounded, FoundingMessage::Offer(record)) => self.offered(record, &mut outputs),
            (Phase::Unfounded, FoundingMessage::Refusal { incarnation, reason })
                if incarnation == self.file.incarnation =>
            {
                self.is_misconfigured = !matches!(reason, FoundingRefusal::Wiped { .. });
                let sentence = refusal_sentence(self.start.node, from, reason);
                self.stop(sentence, &mut outputs);
            }
            (Phase::Persisting | Phase::Stopped | Phase::Founded | Phase::Unfounded, _) => {}
        }
        outputs
    }

    /// The file of the last [`FounderOutput::Persist`] is written and synced.
    #[must_use]
    pub fn persisted(&mut self) -> Vec<FounderOutput> {
        let mut outputs = Vec::new();
        if self.phase == Phase::Persisting {
            self.phase = Phase::Unfounded;
            self.proceed(&mut outputs);
        }
        outputs
    }

    /// What the data directory says. Valid once persisted.
    #[must_use]
    pub fn identity(&self) -> &IdentityFile {
        &self.file
    }

    /// After [`FounderOutput::Stop`]: whether what the node was started with is the reason, and not its data directory.
    #[must_use]
    pub fn is_misconfigured(&self) -> bool {
        self.is_misconfigured
    }

    /// Follows from what is on disk now.
    fn proceed(&mut self, outputs: &mut Vec<FounderOutput>) {
        match self.file.record.clone() {
            None => {
                for to in self.others() {
                    self.send(to, self.announcement(), outputs);
                }
                self.record_if_all_are_bound(outputs);
                self.tell_waiting(outputs);
            }
            Some(record) => {
                self.phase = Phase::Founded;
                if self.is_lowest() {
                    for to in self.others() {
                        self.send(to, FoundingMessage::Offer(record.clone()), outputs);
                    }
                }
                outputs.push(FounderOutput::Founded(record));
            }
        }
    }

    fn heard_unfounded(&mut self, from: NodeId, other: Unfounded, outputs: &mut Vec<FounderOutput>) {
        if from == self.start.node {
            return;
        }
        // The digest covers the ids; but it came from outside.
        let is_member = self.start.settings.members.contains_key(&from);
        if !is_member || other.digest != self.start.settings.digest() {
            return self.heard_otherwise(from, outputs);
        }
        self.otherwise.remove(&from);
        if self.is_lowest() {
            let was_complete = self.all_are_unfounded();
            let bound = other.lowest == self.file.lowest;
            self.heard.insert(from, other);
            if !was_complete && self.all_are_unfounded() {
                for to in self.others() {
                    self.send(to, self.announcement(), outputs);
                }
            } else if was_complete && !bound {
                self.send(from, self.announcement(), outputs);
            }
            self.record_if_all_are_bound(outputs);
        } else if Some(from) == self.lowest() {
            let wanted = Some(other.incarnation);
            if other.bind && self.file.lowest != wanted {
                // Bound to another incarnation before, this node must not answer to the name that it used then.
                point!(BoundAnew if self.file.lowest.is_some());
                let incarnation =
                    if self.file.lowest.is_some() { self.draw_incarnation() } else { self.file.incarnation };
                self.persist(IdentityFile { incarnation, lowest: wanted, ..self.file.clone() }, outputs);
            } else {
                self.send(from, self.announcement(), outputs);
            }
        }
        self.tell_waiting(outputs);
    }

    /// Of two that differ the higher id gives way, so that of all members the one that founds stays.
    fn heard_otherwise(&mut self, from: NodeId, outputs: &mut Vec<FounderOutput>) {
        if from < self.start.node {
            point!(FoundedOtherwise);
            let sentence = format!(
                "node {} was started with another configuration than node {from}: member ids, number of shards, \
                 replication, durability and ring version must be the same; start both alike",
                self.start.node
            );
            self.is_misconfigured = true;
            return self.stop(sentence, outputs);
        }
        self.heard.remove(&from);
        if self.start.settings.members.contains_key(&from) {
            self.otherwise.insert(from);
        }
        self.tell_waiting(outputs);
    }

    fn offered(&mut self, record: FoundingRecord, outputs: &mut Vec<FounderOutput>) {
        let names_me = record.member(self.start.node).is_some_and(|own| own.incarnation == self.file.incarnation);
        let from_whom_i_am_bound_to =
            record.members.first().is_some_and(|lowest| Some(lowest.incarnation) == self.file.lowest);
        let same_settings = record.configuration_digest() == self.start.settings.digest();
        if (names_me && from_whom_i_am_bound_to || crate::mutant!("B34")) && same_settings {
            self.persist(IdentityFile { record: Some(record), ..self.file.clone() }, outputs);
        } else {
            point!(RecordNotAdopted);
        }
    }

    /// A founded member helps those that the record names, and tells the others why it can't.
    fn answer_founded(&self, from: NodeId, other: &Unfounded, outputs: &mut Vec<FounderOutput>) {
        let Some(record) = &self.file.record else { return };
        let cluster = record.cluster_id();
        let reason = match record.member(from) {
            None => FoundingRefusal::NotNamed { cluster },
            Some(known) if known.incarnation != other.incarnation && !crate::mutant!("B34") => {
                point!(WipedMemberRefused);
                FoundingRefusal::Wiped { known: known.incarnation }
            }
            Some(_) if other.digest != record.configuration_digest() => FoundingRefusal::OtherConfiguration { cluster },
            Some(_) => return self.send(from, FoundingMessage::Offer(record.clone()), outputs),
        };
        self.send(from, FoundingMessage::Refusal { incarnation: other.incarnation, reason }, outputs);
    }

    fn record_if_all_are_bound(&mut self, outputs: &mut Vec<FounderOutput>) {
        let all_are_bound = self.heard.values().all(|other| other.lowest == self.file.lowest);
        if self.phase != Phase::Unfounded || !self.is_lowest() || !self.all_are_unfounded() || !all_are_bound {
            return;
        }
        let settings = &self.start.settings;
        let member = |(node, address): (&NodeId, &String)| {
            let (incarnation, zone, weight) = match self.heard.get(node) {
                Some(other) => (other.incarnation, &other.zone, other.weight),
                None => (self.file.incarnation, &self.start.zone, self.start.weight),
            };
            let weight = weight.clamp(1, WEIGHT_MAX);
            Member { node: *node, incarnation, peer_address: address.clone(), zone: zone.clone(), weight }
        };
        let record = FoundingRecord {
            members: settings.members.iter().map(member).collect(),
            shards: settings.shards,
            replication: settings.replication,
            durability: settings.durability,
        };
        self.persist(IdentityFile { record: Some(record), ..self.file.clone() }, outputs);
    }

    fn persist(&mut self, file: IdentityFile, outputs: &mut Vec<FounderOutput>) {
        self.file = file.clone();
        self.phase = Phase::Persisting;
        outputs.push(FounderOutput::Persist(file));
    }

    fn stop(&mut self, sentence: String, outputs: &mut Vec<FounderOutput>) {
        self.phase = Phase::Stopped;
        outputs.push(FounderOutput::Stop(sentence));
    }

    fn send(&self, to: NodeId, message: FoundingMessage, outputs: &mut Vec<FounderOutput>) {
        outputs.push(FounderOutput::Send { to, message });
    }

    fn announcement(&self) -> FoundingMessage {
        FoundingMessage::Unfounded(Unfounded {
            incarnation: self.file.incarnation,
            digest: self.start.settings.digest(),
            lowest: self.file.lowest,
            bind: self.is_lowest() && self.all_are_unfounded(),
            zone: self.start.zone.clone(),
            weight: self.start.weight,
        })
    }

    fn tell_waiting(&mut self, outputs: &mut Vec<FounderOutput>) {
        if self.phase != Phase::Unfounded {
            return;
        }
        let awaited = self.others().into_iter().filter(|node| {
            if self.is_lowest() { !self.heard.contains_key(node) } else { Some(*node) == self.lowest() }
        });
        let names: Vec<_> = awaited
            .map(|node| {
                let how =
                    if self.otherwise.contains(&node) { ", which was started with another configuration" } else { "" };
                format!("node {node} at {}{how}", self.start.settings.members[&node])
            })
            .collect();
        let sentence = match (self.is_lowest(), names.is_empty()) {
            (true, true) => "waiting for all members to confirm".to_owned(),
            (true, false) => format!("waiting for {}: a cluster's first start needs all members", names.join(", ")),
            (false, _) => format!("waiting for {} to found the cluster", names.join(", ")),
        };
        if self.waiting != sentence {
            self.waiting.clone_from(&sentence);
            outputs.push(FounderOutput::Waiting(sentence));
        }
    }

    fn draw_incarnation(&mut self) -> Incarnation {
        let drawn = self.incarnations_drawn;
        self.incarnations_drawn += 1;
        Incarnation(xxh3_128_with_seed(&self.start.entropy.to_le_bytes(), drawn))
    }

    fn lowest(&self) -> Option<NodeId> {
        self.start.settings.members.keys().next().copied()
    }

    fn is_lowest(&self) -> bool {
        self.lowest() == Some(self.start.node)
    }

    fn others(&self) -> Vec<NodeId> {
        self.start.settings.members.keys().copied().filter(|node| *node != self.start.node).collect()
    }

    fn all_are_unfounded(&self) -> bool {
        self.heard.len() + 1 == self.start.settings.members.len()
    }
}

fn check(start: &FounderStart) -> Result<(), Error> {
    let (node, settings) = (start.node, &start.settings);
    settings.check()?;
    if !settings.members.contains_key(&node) {
        return Err(Error::invalid(format!("node {node} is not among the members; add it, or correct its id")));
    }
    if start.weight == 0 || start.weight > WEIGHT_MAX {
        return Err(Error::invalid(format!("the weight is {}; it can be 1 to {WEIGHT_MAX}", start.weight)));
    }
    if start.zone.len() > ADDRESS_BYTES_MAX {
        return Err(Error::invalid(format!("the zone's name is longer than {ADDRESS_BYTES_MAX} bytes")));
    }
    let Some(file) = &start.on_disk else { return Ok(()) };
    if file.node != node {
        return Err(Error::invalid(format!(
            "the data directory belongs to node {}, not to node {node}; correct the id or the directory",
            file.node
        )));
    }
    let Some(record) = &file.record else {
        // Bound to another, it may be named by that one's record: it must not answer to the same name in a second.
        let is_lowest = settings.members.keys().next() == Some(&node);
        if is_lowest && file.lowest.is_some_and(|lowest| lowest != file.incarnation) {
            return Err(Error::invalid(format!(
                "the data directory has taken part in the founding of a cluster in which another member than node {node} had \
                 the lowest id; start the node with that cluster's members, or with an empty directory"
            )));
        }
        return Ok(());
    };
    if record.configuration_digest() != settings.digest() {
        let ids: Vec<_> = record.members.iter().map(|member| member.node.to_string()).collect();
        return Err(Error::invalid(format!(
            "cluster {} was founded with members {}, {} shards, replication {} and durability {:?}; start the node with \
             the same settings, or with the directory of the cluster that you mean",
            record.cluster_id(),
            ids.join(", "),
            record.shards,
            record.replication,
            record.durability,
        )));
    }
    Ok(())
}

fn refusal_sentence(own: NodeId, from: NodeId, reason: FoundingRefusal) -> String {
    match reason {
        FoundingRefusal::Wiped { .. } => format!(
            "the cluster knows node {own} with another data directory (says node {from}): the disk was wiped or replaced. \
             Put that very directory back; if it is lost, the node stays out, since this version can't replace a node yet. \
             The other nodes serve on as long as they are a majority"
        ),
        FoundingRefusal::NotNamed { cluster } => format!(
            "node {from} belongs to cluster {cluster}, which was founded without node {own}; correct the addresses of the \
             members"
        ),
        FoundingRefusal::OtherConfiguration { cluster } => format!(
            "node {from} belongs to cluster {cluster}, which was founded with other settings than node {own} was started \
             with: member ids, shards, replication, durability; start the node with the cluster's"
        ),
    }
}

#[cfg(test)]
mod tests;
