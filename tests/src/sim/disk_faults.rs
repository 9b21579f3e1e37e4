//! Faults of disks that came later than those of [`super::faults`], from a stream of their own: calls that fail or stand still,
//! damage while a node runs, logs damaged in many places at once, files lost.
//!
//! Swarm: each seed leaves each kind out two times in three. What may be damaged is the atlas's to say. A stalled disk answers
//! nothing for 10 to 30 seconds, log and checkpoints alike.
//!
//! *Never here*: what [`super::rot`] says; a disk that stays slow or fails again and again for longer than a run.

use fastrand::Rng;

use super::{
    name_faults,
    plan::Plan,
    rot::damage_log_badly,
    world::{Event, World},
};
use crate::disk::SimDisk;

/// The kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    /// No call returns for 10 to 30 seconds.
    Stalled,
    /// The next write fails, half of it done.
    FailedWrite,
    /// The next read fails: the first of a start, or one of the checkpoint thread.
    FailedRead,
    /// The read index is lost under a running node.
    TreeLost,
    /// A read of the read index fails under a running node.
    TreeFails,
    /// A file of a checkpoint is damaged or lost under a running node.
    RotRunning,
    /// A log is damaged in many places.
    RotBadly,
    /// A file of a checkpoint is damaged or lost while its node is down.
    RotDown,
}

/// Each kind by name, with how many a simulated minute, cluster-wide, where it is used.
const KINDS: [(DiskFault, &str, f64); 8] = [
    (DiskFault::Stalled, "stalled-disk", 1.5),
    (DiskFault::FailedWrite, "failed-write", 3.0),
    (DiskFault::FailedRead, "failed-read", 4.0),
    (DiskFault::TreeLost, "tree-lost", 3.0),
    (DiskFault::TreeFails, "tree-fails", 4.0),
    (DiskFault::RotRunning, "rot-running", 4.0),
    (DiskFault::RotBadly, "rot-badly", 2.0),
    (DiskFault::RotDown, "rot-down", 4.0),
];

/// The names of all faults of disks that have no place in [`super::plan::Faults`].
pub fn names() -> impl Iterator<Item = &'static str> {
    KINDS.into_iter().map(|(_, name, _)| name).chain([
        name_faults::FAILED_NAMES,
        name_faults::TREE_WENT_BACK,
        name_faults::VALUES_WERE_LOST,
    ])
}

/// Draws them.
#[derive(Debug)]
pub struct DiskInjector {
    rng: Rng,
    kinds: Vec<(DiskFault, &'static str, f64)>,
    /// Disks as they once were, by node.
    older: Vec<Option<SimDisk>>,
}

impl DiskInjector {
    /// The faults of a plan; none if it has no others.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let mut rng = plan.stream("disk faults");
        let mut kinds = KINDS.to_vec();
        let has_faults = plan.faults.kinds().iter().any(|(_, often)| *often > 0.0);
        kinds.retain(|_| rng.u8(..3) == 0 && has_faults);
        for (_, _, often) in &mut kinds {
            *often *= 0.3 + 1.4 * rng.f64();
        }
        Self { rng, kinds, older: (0..plan.nodes).map(|_| None).collect() }
    }

    fn draw(&mut self) -> Option<(u64, DiskFault, &'static str)> {
        let often: f64 = self.kinds.iter().map(|(_, _, often)| often).sum();
        let first = *self.kinds.first()?;
        let delay = -60_000_000.0 / often * (1.0 - self.rng.f64()).ln();
        let mut pick = self.rng.f64() * often;
        let drawn = self.kinds.iter().find(|(_, _, often)| {
            pick -= often;
            pick <= 0.0
        });
        let (kind, name, _) = drawn.copied().unwrap_or(first);
        Some((delay as u64 + 1, kind, name))
    }
}

impl World {
    /// Schedules the next of these faults, if the plan has any.
    pub(super) fn schedule_disk_fault(&mut self) {
        if let Some((after, kind, name)) = self.disk_injector.draw() {
            self.queue.push(self.now + after, Event::DiskFault { kind, name });
        }
    }

    /// Makes a fault happen, and draws the next.
    pub(super) fn inject_disk_fault(&mut self, kind: DiskFault, name: &'static str) {
        let node = self.disk_injector.rng.usize(..self.machines.len());
        *self.counts.disk_faults.entry(name).or_default() += 1;
        self.trace.tell(self.now, || format!("FAULT {kind:?} (node {})", node + 1));
        // Before, it would count on members that have nothing yet.
        let is_founded = self.all_are_founded();
        let rng = &mut self.disk_injector.rng;
        let machine = &mut self.machines[node];
        let start = machine.start;
        match kind {
            DiskFault::Stalled => machine.stalled_until = self.now + rng.u64(10_000_000..=30_000_000),
            DiskFault::FailedWrite => machine.disk.fail_next_write(),
            DiskFault::FailedRead if rng.bool() => {
                self.stop(node, false, "killed before a read fails");
                self.machines[node].disk.fail_next_read();
                let after = self.restart_delay();
                self.schedule_start(node, after);
            }
            // What can't be read counts as damaged, and nobody knows what will be read next.
            DiskFault::FailedRead => {
                if is_founded && self.injector.atlas.admits_all_files(node, start) {
                    machine.disk.fail_next_read();
                }
            }
            DiskFault::TreeLost => machine.store.lose(),
            DiskFault::TreeFails => machine.store.fail_read_after(rng.u64(..20)),
            DiskFault::RotRunning => {
                let what = self.damage_file(node, true);
                self.trace.tell(self.now, || format!("rot on running node {}: {what:?}", node + 1));
            }
            DiskFault::RotDown => {
                self.stop(node, true, "crashed before its files rot");
                for _ in 0..self.disk_injector.rng.u8(1..4) {
                    let what = self.damage_file(node, true);
                    self.trace.tell(self.now, || format!("rot on node {}: {what:?}", node + 1));
                }
                let after = self.restart_delay();
                self.schedule_start(node, after);
            }
            DiskFault::RotBadly => self.rot_log_badly(node),
        }
        self.schedule_disk_fault();
    }

    fn rot_log_badly(&mut self, node: usize) {
        let older = self.disk_injector.older[node].replace(self.machines[node].disk.fork());
        if !self.all_are_founded() || !self.injector.atlas.admits_log(node) {
            return;
        }
        self.stop(node, true, "crashed before its log rots");
        self.rot_log(node, |disk, rng| damage_log_badly(disk, older.as_ref(), rng));
        let after = self.restart_delay();
        self.schedule_start(node, after);
    }
}
