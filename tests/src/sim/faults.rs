//! The faults of a run: what goes wrong, when, and for how long.
//!
//! Fault model. A *crash* is a loss of power: writes that were not synced are lost, kept or torn sector by sector, as the
//! simulated disk draws it, and a write under way is cut anywhere. A *kill* ends the process only. A *pause* stops a node's
//! threads, not its clock. Crashed nodes start again by themselves, as a supervisor would start them.
//!
//! What survives is bounded by an [`Atlas`]: disks are damaged so far only that every shard keeps a majority of whole replicas.
//! A node whose log is damaged may refuse to start, and stays down then. The read index may be lost or altered on any node at
//! any time, since nothing durable depends on it. More kinds of disk fault are in [`super::disk_faults`].
//!
//! *Never produced here*: a node that stays down for good though its log is whole; a pause of one of a node's threads alone, or in
//! the middle of a turn ([`super::stalls`] stops a node between a turn and what it puts out); a partition whose sides change while it
//! lasts ([`super::links`] has some that flap); damage that leaves a shard without a majority of whole replicas.

use fastrand::Rng;
use kv_core::{
    node::Role,
    types::{NodeId, ShardId},
};

use super::{atlas::Atlas, machine::Machine, plan::Plan, world::World};

/// Draws the faults.
#[derive(Debug)]
pub struct Injector {
    pub(super) rng: Rng,
    kinds: Vec<(Kind, f64)>,
    lasts_micros: u64,
    pub(super) atlas: Atlas,
    /// Faults that were drawn and whose time has come.
    drawn: u64,
}

/// The kinds of fault, in the order of [`super::plan::Faults::kinds`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// One node loses its power.
    Crash,
    /// All nodes lose their power at once.
    CrashAll,
    /// A node loses its power, and once more while it recovers.
    CrashInRecovery,
    /// A process is killed.
    Kill,
    /// A node stands still.
    Pause,
    /// The network falls in two.
    Partition,
    /// One side does not hear the other.
    PartitionOneWay,
    /// One link is dead in one direction.
    Link,
    /// A disk is slow.
    SlowDisk,
    /// The next sync of a disk fails.
    FailedSync,
    /// A disk runs full.
    DiskFull,
    /// A bit flips or a sector is lost in a log, while its node is down.
    RotLog,
    /// A bit flips in a checkpoint's file.
    RotFile,
    /// The read index is lost, while its node is down.
    StoreLost,
    /// A record of the read index is changed, while its node is down.
    StoreAltered,
    /// A leader is asked to hand over.
    Transfer,
    /// A leader stands still and is cut off.
    Zombie,
}

impl Kind {
    /// The node that it concerns, if it is one, and the one that was drawn.
    fn node(self, drawn: usize) -> Option<usize> {
        let others = [Self::CrashAll, Self::Partition, Self::PartitionOneWay, Self::Transfer, Self::Zombie];
        (!others.contains(&self)).then_some(drawn)
    }
}

const KINDS: [Kind; 17] = [
    Kind::Crash,
    Kind::CrashAll,
    Kind::CrashInRecovery,
    Kind::Kill,
    Kind::Pause,
    Kind::Partition,
    Kind::PartitionOneWay,
    Kind::Link,
    Kind::SlowDisk,
    Kind::FailedSync,
    Kind::DiskFull,
    Kind::RotLog,
    Kind::RotFile,
    Kind::StoreLost,
    Kind::StoreAltered,
    Kind::Transfer,
    Kind::Zombie,
];

/// What ends a fault that lasts.
#[derive(Clone, Debug)]
pub enum Mend {
    /// These links carry messages again.
    Links(Vec<(usize, usize)>),
    /// The node's disk is as fast as before.
    SlowDisk(usize),
    /// The node's disk has room again.
    DiskFull(usize),
    /// Not an end, but the second half of a beginning: the node stands still for this long, and is cut off for longer.
    BecomeZombie {
        /// The node.
        node: usize,
        /// For how long, in microseconds.
        pause: u64,
    },
}

impl Injector {
    /// The faults of a plan.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let often = plan.faults.kinds().map(|(_, often)| often);
        Self {
            rng: plan.stream("faults"),
            kinds: KINDS.into_iter().zip(often).filter(|(_, often)| *often > 0.0).collect(),
            lasts_micros: plan.faults.lasts_micros,
            atlas: Atlas::new(plan),
            drawn: 0,
        }
    }

    /// Draws the next fault and how long it is until then, in microseconds; none if the plan has none.
    pub fn draw(&mut self) -> Option<(u64, Kind)> {
        let often: f64 = self.kinds.iter().map(|(_, often)| often).sum();
        if self.kinds.is_empty() {
            return None;
        }
        let delay = -60_000_000.0 / often * (1.0 - self.rng.f64()).ln();
        let mut pick = self.rng.f64() * often;
        let kind = self.kinds.iter().find(|(_, often)| {
            pick -= often;
            pick <= 0.0
        });
        Some((delay as u64 + 1, kind.unwrap_or(&self.kinds[0]).0))
    }

    /// Whether a node's log may have been damaged.
    #[must_use]
    pub fn may_be_damaged(&self, node: usize) -> bool {
        self.atlas.has_damaged_log(node)
    }

    /// How long a fault lasts, in microseconds: exponential.
    fn lasts(&mut self) -> u64 {
        let mean = self.lasts_micros as f64;
        (-mean * (1.0 - self.rng.f64()).ln()).min(8.0 * mean) as u64 + 1_000
    }
}

impl World {
    /// Makes a fault happen, and draws the next.
    pub(super) fn inject(&mut self, kind: Kind) {
        self.injector.drawn += 1;
        if !self.plan.faults_kept.keeps(self.injector.drawn) {
            return self.schedule_fault();
        }
        let node = self.injector.rng.usize(..self.machines.len());
        self.strike(kind, node);
        self.schedule_fault();
    }

    /// Makes a fault happen to a node, as far as it is one of a node's.
    pub(super) fn strike(&mut self, kind: Kind, node: usize) {
        self.counts.faults[kind as usize] += 1;
        self.trace.tell(self.now, || format!("FAULT {kind:?} (node {})", node + 1));
        let number = self.injector.drawn;
        self.trace.mark(self.now, kind.node(node), || format!("fault {number}: {kind:?}"));
        match kind {
            Kind::Crash => self.crash_for_a_while(node, false),
            Kind::CrashInRecovery => self.crash_for_a_while(node, true),
            Kind::CrashAll => {
                for node in 0..self.machines.len() {
                    self.crash_for_a_while(node, false);
                }
            }
            Kind::Kill => {
                self.stop(node, false, "killed");
                let after = self.restart_delay();
                self.schedule_start(node, after);
            }
            Kind::Pause => {
                let lasts = self.injector.lasts();
                self.machines[node].paused_until = self.now + lasts;
            }
            Kind::Partition => self.partition(true),
            Kind::PartitionOneWay => self.partition(false),
            Kind::Link => {
                let other = self.injector.rng.usize(..self.machines.len());
                if other != node {
                    self.cut_for_a_while(vec![(node, other)]);
                }
            }
            Kind::SlowDisk => {
                let factor = [10, 100, 1_000][self.injector.rng.usize(..3)];
                self.machines[node].slow_factor = factor;
                self.mend_later(Mend::SlowDisk(node));
            }
            Kind::FailedSync => self.machines[node].disk.fail_next_sync(),
            Kind::DiskFull => {
                let wholly = self.injector.rng.bool();
                let free = if wholly { 0 } else { self.plan.settings.disk_reserve_bytes / 2 };
                self.machines[node].bound_free_bytes(Some(free));
                self.mend_later(Mend::DiskFull(node));
            }
            Kind::RotLog | Kind::RotFile => self.rot(node, kind),
            Kind::StoreLost | Kind::StoreAltered => self.damage_store(node, kind),
            Kind::Transfer => {
                let shard = ShardId(self.injector.rng.u64(..=self.plan.shards));
                let to = NodeId(self.injector.rng.u64(1..=self.plan.nodes));
                self.ask_for_transfer(node, shard, to);
            }
            Kind::Zombie => self.make_zombie(node),
        }
    }

    /// Ends a fault.
    pub(super) fn mend(&mut self, mend: &Mend) {
        match mend {
            Mend::Links(links) => links.iter().for_each(|(from, to)| self.network.mend(*from, *to)),
            Mend::SlowDisk(node) => self.machines[*node].slow_factor = 1,
            Mend::DiskFull(node) => self.machines[*node].bound_free_bytes(None),
            Mend::BecomeZombie { node, pause } => self.pause_and_cut_off(*node, *pause),
        }
    }

    fn crash_for_a_while(&mut self, node: usize, again_in_recovery: bool) {
        self.stop(node, true, "crashed");
        if again_in_recovery {
            let operations = self.injector.rng.u64(1..40);
            self.machines[node].crash_after_operations = Some(operations);
        }
        let after = self.restart_delay();
        self.schedule_start(node, after);
    }

    pub(super) fn restart_delay(&mut self) -> u64 {
        match self.injector.rng.u32(..3) {
            0 => self.injector.rng.u64(1_000..50_000),
            _ => self.injector.lasts(),
        }
    }

    /// Cuts the ends in two sides, clients among them.
    fn partition(&mut self, both_ways: bool) {
        let nodes = self.machines.len();
        let ends = nodes + self.clients.len();
        let mut side: Vec<bool> = (0..ends).map(|_| self.injector.rng.bool()).collect();
        if side[..nodes].iter().all(|here| *here == side[0]) {
            let alone = self.injector.rng.usize(..nodes);
            side[alone] = !side[alone];
        }
        let mut links = Vec::new();
        for from in 0..ends {
            for to in 0..ends {
                if side[from] != side[to] && (both_ways || side[from]) && (from < nodes || to < nodes) {
                    links.push((from, to));
                }
            }
        }
        self.cut_for_a_while(links);
    }

    fn cut_for_a_while(&mut self, links: Vec<(usize, usize)>) {
        links.iter().for_each(|(from, to)| self.network.cut(*from, *to));
        self.mend_later(Mend::Links(links));
    }

    fn mend_later(&mut self, mend: Mend) {
        let after = self.injector.lasts();
        self.schedule_mend(after, mend);
    }

    /// Has a leader stand still, and keeps it from the other nodes for longer than that, but not from clients: what it says
    /// then is worth nothing. Just before, the answers to its last questions are held back, to come when it goes on.
    fn make_zombie(&mut self, otherwise: usize) {
        let shard = ShardId(self.injector.rng.u64(..=self.plan.shards));
        let leads = |machine: &Machine| machine.shard_status(shard).is_some_and(|status| status.role == Role::Leader);
        let node = self.machines.iter().position(leads).unwrap_or(otherwise);
        let election_micros = self.plan.settings.tick_micros * self.plan.settings.election_ticks;
        let rng = &mut self.injector.rng;
        let (before, pause) = (rng.u64(..200_000), election_micros + rng.u64(..2_000_000));
        let held = before + pause + rng.u64(..election_micros);
        for other in (0..self.machines.len()).filter(|other| *other != node) {
            self.network.hold(other, node, self.now + held);
        }
        self.schedule_mend(before, Mend::BecomeZombie { node, pause });
    }

    fn pause_and_cut_off(&mut self, node: usize, pause: u64) {
        let election_micros = self.plan.settings.tick_micros * self.plan.settings.election_ticks;
        self.machines[node].paused_until = self.now + pause;
        let mut links = Vec::new();
        for other in (0..self.machines.len()).filter(|other| *other != node) {
            self.network.hold(other, node, 0);
            links.extend([(node, other), (other, node)]);
        }
        links.iter().for_each(|(from, to)| self.network.cut(*from, *to));
        self.schedule_mend(pause + 2 * election_micros, Mend::Links(links));
    }
}
