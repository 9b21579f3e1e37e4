//! The protocol step by step, then many random worlds with losses, repetitions, crashes and wiped disks.

use std::collections::VecDeque;

use super::*;
use crate::types::Durability;

fn settings(count: u64) -> FoundingSettings {
    FoundingSettings::new((1..=count).map(|id| (NodeId(id), format!("host-{id}:7201"))).collect())
}

fn start(node: NodeId, count: u64, on_disk: Option<IdentityFile>, entropy: u128) -> FounderStart {
    FounderStart { node, settings: settings(count), zone: String::new(), weight: 1, on_disk, entropy }
}

/// A small generator, so that a seed means the same for ever.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        xxhash_rust::xxh3::xxh3_64(&self.0.to_le_bytes()) % bound
    }
}

struct Machine {
    disk: Option<IdentityFile>,
    founder: Option<Founder>,
    writing: Option<IdentityFile>,
    stopped: Option<String>,
}

struct World {
    count: u64,
    machines: BTreeMap<NodeId, Machine>,
    /// Messages under way. They outlive crashes and wipes, and come in any order.
    network: VecDeque<(NodeId, NodeId, FoundingMessage)>,
    random: Random,
    starts: u128,
}

impl World {
    fn new(count: u64, seed: u64) -> Self {
        let machine = |_| Machine { disk: None, founder: None, writing: None, stopped: None };
        let machines = (1..=count).map(|id| (NodeId(id), machine(id))).collect();
        Self { count, machines, network: VecDeque::new(), random: Random(seed), starts: 0 }
    }

    fn take(&mut self, node: NodeId, outputs: Vec<FounderOutput>) {
        let machine = self.machines.get_mut(&node).unwrap();
        for output in outputs {
            match output {
                FounderOutput::Send { to, message } => self.network.push_back((node, to, message)),
                FounderOutput::Persist(file) => {
                    assert_eq!(machine.writing, None, "one write at a time");
                    machine.writing = Some(file);
                }
                FounderOutput::Founded(record) => {
                    assert_eq!(machine.disk.as_ref().unwrap().record.as_ref(), Some(&record), "founded before synced");
                }
                FounderOutput::Waiting(sentence) => assert!(sentence.starts_with("waiting for ")),
                FounderOutput::Stop(sentence) => machine.stopped = Some(sentence),
            }
        }
        self.check();
    }

    fn start(&mut self, node: NodeId) {
        self.starts += 1;
        let disk = self.machines[&node].disk.clone();
        // What is on disk is what its bytes say.
        let disk = disk.map(|file| IdentityFile::decode(&file.encode()).unwrap());
        let (founder, outputs) = Founder::new(start(node, self.count, disk, self.starts)).unwrap();
        self.machines.get_mut(&node).unwrap().founder = Some(founder);
        self.take(node, outputs);
    }

    /// The process ends; what it was writing is on disk or not.
    fn crash(&mut self, node: NodeId) {
        let written = self.random.below(2) == 0;
        let machine = self.machines.get_mut(&node).unwrap();
        machine.founder = None;
        if let Some(file) = machine.writing.take().filter(|_| written) {
            machine.disk = Some(file);
        }
        self.check();
    }

    fn wipe(&mut self, node: NodeId) {
        self.crash(node);
        let machine = self.machines.get_mut(&node).unwrap();
        (machine.disk, machine.stopped) = (None, None);
    }

    fn persisted(&mut self, node: NodeId) {
        let machine = self.machines.get_mut(&node).unwrap();
        if let (Some(founder), Some(file)) = (&mut machine.founder, machine.writing.take()) {
            machine.disk = Some(file);
            let outputs = founder.persisted();
            self.take(node, outputs);
        }
    }

    fn tick(&mut self, node: NodeId) {
        if let Some(founder) = &mut self.machines.get_mut(&node).unwrap().founder {
            let outputs = founder.tick();
            self.take(node, outputs);
        }
    }

    fn deliver(&mut self, index: usize, keep: bool) {
        let Some((from, to, message)) = self.network.get(index).cloned() else { return };
        if !keep {
            self.network.remove(index);
        }
        let message = FoundingMessage::decode(message.encode()).unwrap();
        let machine = self.machines.get_mut(&to).unwrap();
        if let Some(founder) = machine.founder.as_mut().filter(|_| machine.stopped.is_none()) {
            let outputs = founder.message(from, message);
            self.take(to, outputs);
        }
    }

    fn records(&self) -> Vec<&FoundingRecord> {
        let mut records: Vec<&FoundingRecord> = Vec::new();
        for file in self.machines.values().filter_map(|machine| machine.disk.as_ref()) {
            if let Some(record) = file.record.as_ref().filter(|record| !records.contains(record)) {
                records.push(record);
            }
        }
        records
    }

    fn check(&self) {
        assert!(self.records().len() <= 1, "two records: {:#?}", self.records());
        for (node, machine) in &self.machines {
            if let Some(IdentityFile { record: Some(record), incarnation, .. }) = &machine.disk {
                assert_eq!(record.member(*node).unwrap().incarnation, *incarnation);
            }
        }
    }

    /// One random step; `faults` are the chances in 1,000 of a crash and of a wipe.
    fn step(&mut self, crashes: u64, wipes: u64) {
        let node = NodeId(1 + self.random.below(self.count));
        let running = self.machines[&node].founder.is_some();
        match self.random.below(1_000) {
            draw if draw < wipes => self.wipe(node),
            draw if draw < wipes + crashes => self.crash(node),
            draw if draw < 500 && !self.network.is_empty() => {
                let index = self.random.below(self.network.len() as u64) as usize;
                match self.random.below(8) {
                    0 => drop(self.network.remove(index)),
                    fate => self.deliver(index, fate == 1),
                }
            }
            draw if draw < 750 => self.persisted(node),
            _ if !running && self.machines[&node].stopped.is_none() => self.start(node),
            _ => self.tick(node),
        }
        // Old messages stay, but not without end.
        while self.network.len() > 60 {
            let index = self.random.below(self.network.len() as u64) as usize;
            self.network.remove(index);
        }
    }

    /// Everything runs, what had stopped is started again, and nothing is lost.
    fn calm(&mut self) {
        for machine in self.machines.values_mut() {
            if machine.stopped.take().is_some() {
                (machine.founder, machine.writing) = (None, None);
            }
        }
        for _ in 0..8 {
            for id in 1..=self.count {
                let node = NodeId(id);
                if self.machines[&node].founder.is_none() && self.machines[&node].stopped.is_none() {
                    self.start(node);
                }
                self.persisted(node);
                self.tick(node);
            }
            while !self.network.is_empty() {
                self.deliver(0, false);
                for id in 1..=self.count {
                    self.persisted(NodeId(id));
                }
            }
        }
    }

    /// Delivers everything but offers, which it returns.
    fn run_without_offers(&mut self) -> Vec<(NodeId, NodeId, FoundingMessage)> {
        let mut offers = Vec::new();
        loop {
            (1..=self.count).for_each(|id| self.persisted(NodeId(id)));
            let Some(message) = self.network.pop_front() else { return offers };
            if matches!(message.2, FoundingMessage::Offer(_)) {
                offers.push(message);
            } else {
                self.network.push_front(message);
                self.deliver(0, false);
            }
        }
    }

    fn founded(&self) -> usize {
        self.machines.values().filter(|machine| machine.disk.as_ref().is_some_and(|file| file.record.is_some())).count()
    }
}

#[test]
fn three_members_found_a_cluster_in_one_exchange() {
    let mut world = World::new(3, 0);
    for id in [3, 1, 2] {
        world.start(NodeId(id));
        world.persisted(NodeId(id));
        while !world.network.is_empty() {
            world.deliver(0, false);
            (1..=3).for_each(|id| world.persisted(NodeId(id)));
        }
        assert_eq!(world.founded(), if id == 2 { 3 } else { 0 });
    }
    let record = world.records()[0].clone();
    assert_eq!(record.configuration_digest(), settings(3).digest());
    assert_eq!(record.members[2].peer_address, "host-3:7201");
    assert_eq!(record.durability, Durability::Sync);
}

#[test]
fn one_node_is_a_cluster() {
    let mut world = World::new(1, 0);
    world.start(NodeId(1));
    world.persisted(NodeId(1));
    world.persisted(NodeId(1));
    assert_eq!(world.founded(), 1);
    let (_, outputs) = Founder::new(start(NodeId(1), 1, world.machines[&NodeId(1)].disk.clone(), 9)).unwrap();
    assert!(matches!(&outputs[..], [FounderOutput::Founded(record)] if Some(&record) == world.records().first()));
}

#[test]
fn people_are_told_whom_it_waits_for() {
    let (mut founder, outputs) = Founder::new(start(NodeId(1), 3, None, 1)).unwrap();
    assert!(matches!(&outputs[..], [FounderOutput::Persist(_)]), "nothing is said before the incarnation is synced");
    assert_eq!(founder.tick(), []);
    let waiting = |outputs: Vec<FounderOutput>| {
        outputs.into_iter().find_map(|output| match output {
            FounderOutput::Waiting(sentence) => Some(sentence),
            _ => None,
        })
    };
    assert_eq!(
        waiting(founder.persisted()).unwrap(),
        "waiting for node 2 at host-2:7201, node 3 at host-3:7201: a cluster's first start needs all members"
    );
    assert_eq!(waiting(founder.tick()), None, "said once");
    let (mut other, _) = Founder::new(start(NodeId(2), 3, None, 2)).unwrap();
    assert_eq!(waiting(other.persisted()).unwrap(), "waiting for node 1 at host-1:7201 to found the cluster");
    let FounderOutput::Send { message, .. } = &other.tick()[0] else { panic!() };
    let outputs = founder.message(NodeId(2), message.clone());
    assert!(waiting(outputs).unwrap().starts_with("waiting for node 3 at"));
}

#[test]
fn another_configuration_stops_the_higher_id() {
    let (mut one, _) = Founder::new(start(NodeId(1), 2, None, 1)).unwrap();
    let mut different = start(NodeId(2), 2, None, 2);
    different.settings.shards = 24;
    let (mut two, _) = Founder::new(different).unwrap();
    let (_, _) = (one.persisted(), two.persisted());
    let FounderOutput::Send { message, .. } = &two.tick()[0] else { panic!() };
    let outputs = one.message(NodeId(2), message.clone());
    assert!(
        matches!(&outputs[..], [FounderOutput::Waiting(why)] if why.contains("started with another configuration"))
    );
    let FounderOutput::Send { message, .. } = &one.tick()[0] else { panic!() };
    let outputs = two.message(NodeId(1), message.clone());
    assert!(matches!(&outputs[..], [FounderOutput::Stop(why)] if why.contains("start both alike")));
    assert!(two.is_misconfigured());
    assert_eq!(two.tick(), []);
}

/// A founded node 1 of three, and its answer to what another says.
fn answer_of_founded(from: NodeId, change: impl Fn(&mut Unfounded)) -> (FoundingMessage, Unfounded) {
    let mut world = World::new(3, 0);
    world.calm();
    let third = world.machines[&NodeId(3)].disk.clone().unwrap();
    let digest = settings(3).digest();
    let mut unfounded = Unfounded {
        incarnation: third.incarnation,
        digest,
        lowest: third.lowest,
        bind: false,
        zone: String::new(),
        weight: 1,
    };
    change(&mut unfounded);
    let founder = world.machines.get_mut(&NodeId(1)).unwrap().founder.as_mut().unwrap();
    let mut outputs = founder.message(from, FoundingMessage::Unfounded(unfounded.clone()));
    assert_eq!(outputs.len(), 1);
    let Some(FounderOutput::Send { to, message }) = outputs.pop() else { panic!() };
    assert_eq!(to, from);
    (message, unfounded)
}

#[test]
fn a_founded_member_offers_the_record_or_says_why_not() {
    assert!(matches!(answer_of_founded(NodeId(3), |_| ()).0, FoundingMessage::Offer(_)));
    let (message, said) = answer_of_founded(NodeId(3), |other| other.incarnation.0 += 1);
    assert!(matches!(&message, FoundingMessage::Refusal { incarnation, reason: FoundingRefusal::Wiped { .. } }
        if *incarnation == said.incarnation));
    let (message, _) = answer_of_founded(NodeId(4), |_| ());
    assert!(matches!(message, FoundingMessage::Refusal { reason: FoundingRefusal::NotNamed { .. }, .. }));
    let (message, _) = answer_of_founded(NodeId(3), |other| other.digest.0 += 1);
    assert!(matches!(message, FoundingMessage::Refusal { reason: FoundingRefusal::OtherConfiguration { .. }, .. }));
}

#[test]
fn a_refusal_stops_only_the_incarnation_that_it_names() {
    let (mut founder, _) = Founder::new(start(NodeId(3), 3, None, 1)).unwrap();
    let _ = founder.persisted();
    let own = founder.identity().incarnation;
    let refusal = |incarnation| FoundingMessage::Refusal {
        incarnation,
        reason: FoundingRefusal::Wiped { known: Incarnation(5) },
    };
    assert_eq!(founder.message(NodeId(1), refusal(Incarnation(6))), []);
    let outputs = founder.message(NodeId(1), refusal(own));
    assert!(matches!(&outputs[..], [FounderOutput::Stop(why)] if why.contains("wiped")));
}

#[test]
fn settings_that_are_not_those_of_the_directory_are_refused() {
    let mut world = World::new(3, 0);
    world.calm();
    let disk = world.machines[&NodeId(2)].disk.clone();
    let refused = |start| Founder::new(start).unwrap_err().message().to_owned();
    assert!(refused(start(NodeId(3), 3, disk.clone(), 1)).contains("belongs to node 2"));
    assert!(refused(start(NodeId(2), 4, disk.clone(), 1)).contains("was founded with members 1, 2, 3, 12 shards"));
    assert!(refused(start(NodeId(4), 3, None, 1)).contains("not among the members"));
    let mut moved = start(NodeId(2), 3, disk, 1);
    moved.settings.members.insert(NodeId(3), "elsewhere:1".into());
    assert!(Founder::new(moved).is_ok(), "addresses may change");
}

/// A node that was first started with settings in which it was not the lowest, and then as the lowest.
fn begun_as_another(lowest: Option<Incarnation>) -> Result<(Founder, Vec<FounderOutput>), Error> {
    let file = IdentityFile { node: NodeId(1), incarnation: Incarnation(7), lowest, record: None };
    Founder::new(start(NodeId(1), 3, Some(file), 1))
}

#[test]
fn a_node_that_becomes_the_lowest_binds_the_others_to_itself() {
    let mut world = World::new(3, 0);
    let (founder, outputs) = begun_as_another(None).unwrap();
    world.machines.get_mut(&NodeId(1)).unwrap().founder = Some(founder);
    world.take(NodeId(1), outputs);
    (2..=3).for_each(|id| world.start(NodeId(id)));
    world.calm();
    assert_eq!((world.founded(), world.records().len()), (3, 1), "a record without binding would be adopted by nobody");
}

#[test]
fn a_node_that_another_counts_on_founds_no_cluster_of_its_own() {
    let error = begun_as_another(Some(Incarnation(5))).unwrap_err();
    assert!(error.message().contains("another member than node 1 had the lowest id"), "{error}");
    assert!(begun_as_another(Some(Incarnation(7))).is_ok());
}

#[test]
fn crashes_and_a_bad_network_only_delay_the_founding() {
    for seed in 0..600 {
        let mut world = World::new(3, seed);
        (0..120).for_each(|_| world.step(30, 0));
        world.calm();
        assert_eq!(world.founded(), 3, "seed {seed}");
    }
}

#[test]
fn with_wiped_disks_too_there_is_at_most_one_record() {
    let (mut founded, mut stopped) = (0, 0);
    for seed in 0..3_000 {
        let mut world = World::new(3, seed);
        (0..250).for_each(|_| world.step(20, 25));
        // Twice, because the first may deliver refusals by what has been wiped since.
        world.calm();
        world.calm();
        founded += world.founded();
        stopped += world.machines.values().filter(|machine| machine.stopped.is_some()).count();
        for machine in world.machines.values() {
            // Whoever is neither founded nor stopped waits for the lowest member, which was told that it was wiped.
            let waits = machine.disk.as_ref().is_some_and(|file| file.record.is_none()) && machine.stopped.is_none();
            assert!(!waits || world.machines[&NodeId(1)].stopped.is_some(), "seed {seed}");
        }
    }
    assert!(founded > 1_000 && stopped > 1_000, "{founded} founded, {stopped} stopped: the worlds are too tame");
}

/// The lowest member is wiped while its record is under way: without binding to an incarnation, two records would stand.
#[test]
fn a_record_of_a_wiped_lowest_member_names_nobody() {
    let mut world = World::new(3, 0);
    (1..=3).for_each(|id| world.start(NodeId(id)));
    let offers = world.run_without_offers();
    assert_eq!(world.founded(), 1);
    let first = world.records()[0].clone();
    world.wipe(NodeId(1));
    world.start(NodeId(1));
    let _ = world.run_without_offers();
    assert_eq!(world.founded(), 1);
    let second = world.records()[0].clone();
    assert_ne!(first, second);
    world.network.extend(offers);
    world.calm();
    assert_eq!((world.founded(), world.records()), (3, vec![&second]));

    // And once one has adopted it, a wiped lowest member can't found another, nor does the third give it up.
    let mut world = World::new(3, 0);
    world.calm();
    world.wipe(NodeId(1));
    let third = world.machines.get_mut(&NodeId(3)).unwrap();
    third.founder = None;
    third.disk.as_mut().unwrap().record = None;
    world.calm();
    assert_eq!(world.founded(), 2);
    assert!(world.machines[&NodeId(1)].stopped.as_ref().unwrap().contains("wiped"));
}
