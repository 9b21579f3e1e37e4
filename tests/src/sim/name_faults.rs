//! Changes of names and syncs of directories that fail, segments of the log that are made by half, and read indexes that go back,
//! from streams of their own.
//!
//! A failed one makes its process stop, as any failed call that changes a disk does; whether it happened is then not known, and the
//! next start has to be right either way. A read index that is found as it was some writes before its process ended is what one
//! looks like of which nothing is ever synced: it costs time, and must cost nothing else.
//!
//! *Never here*: a founding whose directories fail (the cuts of [`super::founding_faults`] stop those), and a directory that fails
//! for longer than one call, which would be a node that does not start.

use fastrand::Rng;

use super::{
    plan::Plan,
    world::{Event, World},
};

/// By this name a failing change of names is counted.
pub(super) const FAILED_NAMES: &str = "failed-names";
/// By this name a read index that goes back is counted.
pub(super) const TREE_WENT_BACK: &str = "tree-went-back";
/// By this name a read index whose long values are lost is counted.
pub(super) const VALUES_WERE_LOST: &str = "values-were-lost";
/// Most changes of names that go well before the one that fails.
const NAMES_BEFORE_MAX: u64 = 12;
/// Most writes that a read index goes back by.
const WRITES_BACK_MAX: usize = 40;

/// Draws them.
#[derive(Debug)]
pub(super) struct NameFaults {
    rng: Rng,
    segments: Rng,
    trees: Option<Rng>,
    often: f64,
}

impl NameFaults {
    pub(super) fn new(plan: &Plan) -> Self {
        let trees = plan.names.trees_go_back.then(|| plan.stream("trees that go back"));
        Self {
            rng: plan.stream("failing names"),
            segments: plan.stream("half-made segments"),
            trees,
            often: plan.names.often,
        }
    }
}

impl World {
    /// Schedules the next of these faults, if the plan has any.
    pub(super) fn schedule_name_fault(&mut self) {
        let NameFaults { rng, often, .. } = &mut self.name_faults;
        self.queue.push_by_chance(self.now, rng, *often, Event::NameFault);
    }

    /// One of the next changes of names on a node fails.
    pub(super) fn inject_name_fault(&mut self) {
        if self.quiet {
            return;
        }
        let rng = &mut self.name_faults.rng;
        let (node, before) = (rng.usize(..self.machines.len()), rng.u64(..=NAMES_BEFORE_MAX));
        if self.all_are_founded() {
            *self.counts.disk_faults.entry(FAILED_NAMES).or_default() += 1;
            self.trace
                .tell(self.now, || format!("FAULT after {before} changes of names one fails (node {})", node + 1));
            self.machines[node].disk.fail_names_after(before);
            // Of all writes few make a segment, so that one which is drawn at random is hardly ever that.
            if self.name_faults.segments.bool() {
                let node = self.name_faults.segments.usize(..self.machines.len());
                self.trace.tell(self.now, || format!("FAULT the next segment is made by half (node {})", node + 1));
                self.machines[node].disk.fail_next_segment();
            }
        }
        self.schedule_name_fault();
    }

    /// What was written of a node's read index may be gone when its process ends, the last of it first; and without power long values
    /// of all that is there.
    pub(super) fn let_tree_go_back(&mut self, node: usize, power: bool) {
        let Some(rng) = &mut self.name_faults.trees else { return };
        if power && rng.u8(..4) == 0 {
            self.machines[node].store.lose_values();
            *self.counts.disk_faults.entry(VALUES_WERE_LOST).or_default() += 1;
        }
        let writes = if rng.bool() { rng.usize(1..=WRITES_BACK_MAX) } else { return };
        self.machines[node].store.go_back(writes);
        *self.counts.disk_faults.entry(TREE_WENT_BACK).or_default() += 1;
    }
}
