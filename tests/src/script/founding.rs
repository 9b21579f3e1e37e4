//! Scripts about how a cluster comes to be: members with nothing but an identity file, before there is any consensus.
//!
//! | command | what it does |
//! |---|---|
//! | `founders 3` | so many members, none of them up |
//! | `start 1`, `crash 1`, `wipe 1` | starts its process; ends it; ends it and empties its directory |
//! | `hold disk 1`, `release disk 1` | what it writes waits; is synced |
//! | `cut 1->2`, `heal` | loses what is sent by this link; none loses any more |
//! | `tick 3` | that many ticks of all that are up |
//! | `expect 1 founded`, `unfounded`, `stopped`, `down` | where a member stands |
//! | `expect one cluster` | all that are founded have the same record |
//! | `expect saw ...`, `not`, `order` | as in [`super::expect`] |

use std::collections::{BTreeMap, BTreeSet};

use kv_core::{
    founding::{
        Founder, FounderOutput, FounderStart, FoundingMessage, FoundingRecord, FoundingRefusal, FoundingSettings,
        IdentityFile,
    },
    types::{Incarnation, NodeId},
};

use super::{
    commands::{number, parsed},
    expect::check_trace,
};

/// Members of a cluster to be.
#[derive(Debug)]
pub struct Founders {
    members: BTreeMap<NodeId, Member>,
    under_way: Vec<(NodeId, NodeId, FoundingMessage)>,
    cut: BTreeSet<(NodeId, NodeId)>,
    held_disks: BTreeSet<NodeId>,
    incarnations: Vec<Incarnation>,
    starts: u128,
    trace: Vec<String>,
}

#[derive(Debug, Default)]
struct Member {
    disk: Option<IdentityFile>,
    writing: Option<IdentityFile>,
    founder: Option<Founder>,
    founded: Option<FoundingRecord>,
    is_stopped: bool,
}

impl Founders {
    /// So many members, none of them up, their directories empty.
    #[must_use]
    pub fn new(count: u64) -> Self {
        Self {
            members: (1..=count).map(|id| (NodeId(id), Member::default())).collect(),
            under_way: Vec::new(),
            cut: BTreeSet::new(),
            held_disks: BTreeSet::new(),
            incarnations: Vec::new(),
            starts: 0,
            trace: Vec::new(),
        }
    }

    /// Does one command.
    ///
    /// # Errors
    /// If it can't be understood.
    pub fn command(&mut self, words: &[&str]) -> Result<(), String> {
        match *words {
            ["start", node] => self.start(NodeId(parsed(node)?))?,
            ["crash" | "wipe", node] => {
                let node = NodeId(parsed(node)?);
                let is_wiped = words[0] == "wipe";
                let disk = self.member(node)?.disk.take().filter(|_| !is_wiped);
                *self.member(node)? = Member { disk, ..Member::default() };
                self.trace.push(format!("n{node} {}", if is_wiped { "is wiped" } else { "crashes" }));
            }
            ["hold", "disk", node] => drop(self.held_disks.insert(NodeId(parsed(node)?))),
            ["release", "disk", node] => drop(self.held_disks.remove(&NodeId(parsed(node)?))),
            ["cut", link] => {
                let (from, to) = link.split_once("->").ok_or("a link is 1->2")?;
                self.cut.insert((NodeId(parsed(from)?), NodeId(parsed(to)?)));
            }
            ["heal"] => self.cut.clear(),
            ["tick", _] => {
                for _ in 0..number(words, 1)? {
                    self.tick();
                }
            }
            _ => return Err("there is no such command".to_owned()),
        }
        Ok(())
    }

    fn member(&mut self, node: NodeId) -> Result<&mut Member, String> {
        self.members.get_mut(&node).ok_or_else(|| format!("there is no member {node}"))
    }

    fn start(&mut self, node: NodeId) -> Result<(), String> {
        self.starts += 1;
        let members = self.members.keys().map(|id| (*id, format!("n{id}:7201"))).collect();
        let start = FounderStart {
            node,
            settings: FoundingSettings::new(members),
            zone: String::new(),
            weight: 1,
            on_disk: self.member(node)?.disk.clone(),
            entropy: self.starts,
        };
        let (founder, outputs) = Founder::new(start).map_err(|error| error.to_string())?;
        self.member(node)?.founder = Some(founder);
        self.trace.push(format!("n{node} starts"));
        self.perform(node, outputs);
        Ok(())
    }

    fn tick(&mut self) {
        for node in self.members.keys().copied().collect::<Vec<_>>() {
            if let Some(founder) = self.members.get_mut(&node).and_then(|member| member.founder.as_mut()) {
                let outputs = founder.tick();
                self.perform(node, outputs);
            }
        }
        self.run();
    }

    /// Lets everything happen that is not held back, and tells it.
    pub fn settle(&mut self) -> Vec<String> {
        self.run();
        std::mem::take(&mut self.trace)
    }

    fn run(&mut self) {
        loop {
            let arriving = std::mem::take(&mut self.under_way);
            let mut has_moved = !arriving.is_empty();
            for (from, to, message) in arriving {
                let Some(founder) = self.members.get_mut(&to).and_then(|member| member.founder.as_mut()) else {
                    continue;
                };
                let outputs = founder.message(from, message);
                self.perform(to, outputs);
            }
            for node in self.members.keys().copied().collect::<Vec<_>>() {
                has_moved |= !self.held_disks.contains(&node) && self.sync(node);
            }
            if !has_moved {
                return;
            }
        }
    }

    fn sync(&mut self, node: NodeId) -> bool {
        let Some(member) = self.members.get_mut(&node) else { return false };
        let (Some(founder), Some(file)) = (&mut member.founder, member.writing.take()) else { return false };
        member.disk = Some(file.clone());
        let outputs = founder.persisted();
        let what = self.file(&file);
        self.trace.push(format!("n{node} syncs {what}"));
        self.perform(node, outputs);
        true
    }

    fn perform(&mut self, node: NodeId, outputs: Vec<FounderOutput>) {
        for output in outputs {
            match output {
                FounderOutput::Send { to, message } => {
                    let is_cut = self.cut.contains(&(node, to));
                    let words = self.message(&message);
                    self.trace.push(format!("n{node} -> n{to} {words}{}", if is_cut { " (lost)" } else { "" }));
                    if !is_cut {
                        self.under_way.push((node, to, message));
                    }
                }
                FounderOutput::Persist(file) => {
                    self.members.get_mut(&node).expect("it is a member").writing = Some(file);
                }
                FounderOutput::Founded(record) => {
                    self.trace.push(format!("n{node} is founded"));
                    self.members.get_mut(&node).expect("it is a member").founded = Some(record);
                }
                FounderOutput::Waiting(sentence) => self.trace.push(format!("n{node} is {sentence}")),
                FounderOutput::Stop(sentence) => {
                    self.trace.push(format!("n{node} stops: {sentence}"));
                    self.members.get_mut(&node).expect("it is a member").is_stopped = true;
                }
            }
        }
    }

    fn message(&mut self, message: &FoundingMessage) -> String {
        match message {
            FoundingMessage::Unfounded(unfounded) => {
                let bound = unfounded.lowest.map_or_else(String::new, |lowest| {
                    let lowest = self.incarnation(lowest);
                    format!(", bound to {lowest}")
                });
                let asks = if unfounded.bind { ", bind to me" } else { "" };
                format!("I am {}, unfounded{bound}{asks}", self.incarnation(unfounded.incarnation))
            }
            FoundingMessage::Offer(record) => format!("take {}", self.record(record)),
            FoundingMessage::Refusal { incarnation, reason } => {
                let why = match reason {
                    FoundingRefusal::Wiped { known } => format!("I know you as {}", self.incarnation(*known)),
                    FoundingRefusal::NotNamed { .. } => "you are no member".to_owned(),
                    FoundingRefusal::OtherConfiguration { .. } => "you were started otherwise".to_owned(),
                };
                format!("{} can't join: {why}", self.incarnation(*incarnation))
            }
        }
    }

    fn file(&mut self, file: &IdentityFile) -> String {
        let own = self.incarnation(file.incarnation);
        match (&file.record, file.lowest) {
            (Some(record), _) => self.record(record),
            (None, Some(lowest)) => {
                let lowest = self.incarnation(lowest);
                format!("incarnation {own}, bound to {lowest}")
            }
            (None, None) => format!("incarnation {own}"),
        }
    }

    fn record(&mut self, record: &FoundingRecord) -> String {
        let members: Vec<_> = record.members.iter().map(|member| self.incarnation(member.incarnation)).collect();
        format!("the record of {}", members.join(" "))
    }

    /// Incarnations by the order in which they first appear: A, B, ...
    fn incarnation(&mut self, incarnation: Incarnation) -> String {
        let known = &mut self.incarnations;
        let at = known.iter().position(|known| *known == incarnation).unwrap_or_else(|| {
            known.push(incarnation);
            known.len() - 1
        });
        char::from(b'A' + u8::try_from(at % 26).expect("below 26")).to_string()
    }

    /// Checks one line of a script, without its first word.
    ///
    /// # Errors
    /// If it does not hold.
    pub fn expect(&self, line: &str, output: &[String]) -> Result<(), String> {
        if let Some(verdict) = check_trace(line, output) {
            // "one cluster" and "1 founded" say nothing of the trace.
            return verdict;
        }
        if line == "one cluster" {
            let records: Vec<_> = self.members.values().filter_map(|member| member.founded.as_ref()).collect();
            let is_one = !records.is_empty() && records.windows(2).all(|two| two[0] == two[1]);
            return if is_one { Ok(()) } else { Err(format!("{} members are founded", records.len())) };
        }
        let (node, wanted) = line.split_once(' ').ok_or("this can't be expected")?;
        let member = self.members.get(&NodeId(parsed(node)?)).ok_or("there is no such member")?;
        let found = match member {
            Member { is_stopped: true, .. } => "stopped",
            Member { founder: None, .. } => "down",
            Member { founded: Some(_), .. } => "founded",
            _ => "unfounded",
        };
        if found == wanted { Ok(()) } else { Err(format!("it is {found}")) }
    }
}
