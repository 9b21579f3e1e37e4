//! The hard places of a founding, one after the other: a crash, a kill, a lost disk or other settings at each step.
//!
//! A run without faults counts the steps: founding messages as they are taken, and changing steps of each node's disk until
//! its node begins. Then one run for each step, each node and each kind of fault puts the fault exactly there, and goes on as
//! any run: what was struck starts again, the cluster must be founded once, elect, serve, and hold what it promised; whoever
//! does not take part in the end must have been told that its disk was wiped.
//!
//! *Left out*: two faults in one founding (random runs have many), losses and delays of messages (likewise), and the loss of
//! the only disk of a cluster of one once it serves.

use std::collections::BTreeSet;

use super::{
    founding::Cut,
    plan::{Founding, Options, Plan},
    trace::Trace,
    world::World,
};
use crate::check::Violation;

/// How long what was struck stays down, in microseconds.
const DOWN_MICROS: u64 = 50_000;

/// A fault at one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which node is struck.
    pub node: usize,
    /// When.
    pub step: Step,
    /// By what.
    pub what: What,
}

/// A step of a founding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Before the founding message of this number is taken, by whichever node.
    Message(u64),
    /// When the node's disk has done this many changing steps.
    Disk(u64),
}

/// What happens there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The process or its power goes, or its disk.
    Cut(Cut),
    /// The process is started again with other settings, and put right later.
    Otherwise,
}

/// What came of one place.
#[derive(Debug)]
pub struct Outcome {
    /// The place.
    pub place: Place,
    /// Whether the fault happened.
    pub was_reached: bool,
    /// Nodes that ended for good, from 0.
    pub away: BTreeSet<usize>,
    /// The property that did not hold.
    pub failure: Option<Violation>,
}

/// Everything that can be put at each step of a founding by so many nodes, and what comes of it.
#[must_use]
pub fn enumerate(nodes: u64) -> Vec<Outcome> {
    let undisturbed = run(nodes, None);
    let messages = undisturbed.counts.founding_messages;
    let steps: Vec<_> = undisturbed.machines.iter().map(|machine| steps(machine.member.as_ref())).collect();
    let mut outcomes = Vec::new();
    for (node, steps) in steps.into_iter().enumerate() {
        let by_message = [What::Cut(Cut::Power), What::Cut(Cut::Kill), What::Cut(Cut::Disk), What::Otherwise];
        for (number, what) in (1..=messages).flat_map(|number| by_message.map(|what| (number, what))) {
            outcomes.push(place(nodes, Place { node, step: Step::Message(number), what }));
        }
        let by_step = [Cut::Power, Cut::PowerAndAll, Cut::Kill, Cut::Disk];
        for (number, cut) in (1..=steps).flat_map(|number| by_step.map(|cut| (number, cut))) {
            outcomes.push(place(nodes, Place { node, step: Step::Disk(number), what: What::Cut(cut) }));
        }
    }
    outcomes
}

/// One place of a founding.
#[must_use]
pub fn place(nodes: u64, place: Place) -> Outcome {
    let mut world = run(nodes, Some(place));
    let was_reached = world.place.is_none()
        && world.machines.iter().all(|machine| machine.member.as_ref().is_none_or(|member| member.countdown.is_none()));
    let away = world.machines.iter().enumerate().filter(|(_, machine)| machine.refused.is_some());
    let away = away.map(|(node, _)| node).collect();
    let failure = world.failure.take();
    let failure = failure.or_else(|| world.finish().0.failure);
    Outcome { place, was_reached, away, failure }
}

fn steps(member: Option<&super::founding::Member>) -> u64 {
    member.map_or(0, |member| member.steps)
}

fn run(nodes: u64, place: Option<Place>) -> World {
    let mut plan = Plan::draw(1, Options { light: true, sim_secs: Some(1) });
    plan.nodes = nodes;
    plan.replication = nodes;
    plan.shards = 1;
    plan.workload.keys = 1;
    plan.workload.clients = 1;
    plan.founding = Founding::calm();
    let mut world = World::new(plan, Trace::new(None));
    match place {
        Some(Place { node, step: Step::Disk(number), what: What::Cut(cut) }) => {
            let member = world.machines[node].member.as_mut().expect("all are members");
            (member.countdown, member.cut) = (Some(number), cut);
        }
        other => world.place = other,
    }
    world.run_until(world.plan.faults_micros);
    world.quieten();
    world.settle();
    world
}

impl World {
    /// A founding message is about to be taken: perhaps something happens first.
    pub(super) fn founding_place_reached(&mut self) {
        let Some(place) = self.place else { return };
        if place.step != Step::Message(self.counts.founding_messages) {
            return;
        }
        self.place = None;
        let node = place.node;
        self.trace.tell(self.now, || format!("PLACE {place:?}"));
        match place.what {
            What::Otherwise => self.start_otherwise(node),
            What::Cut(cut) => {
                self.stop(node, matches!(cut, Cut::Power | Cut::PowerAndAll), "is struck");
                if cut == Cut::Disk {
                    self.machines[node].wipe();
                }
                self.schedule_start(node, DOWN_MICROS);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_hold(nodes: u64) -> Vec<Outcome> {
        let outcomes = enumerate(nodes);
        println!("{} places in a founding of {nodes}", outcomes.len());
        for outcome in &outcomes {
            assert!(outcome.failure.is_none(), "{:?}: {}", outcome.place, outcome.failure.as_ref().unwrap());
            let is_wipe = outcome.place.what == What::Cut(Cut::Disk);
            let may_be_away = |node: &usize| is_wipe && *node == outcome.place.node;
            assert!(outcome.away.iter().all(may_be_away), "{:?}: {:?} are away", outcome.place, outcome.away);
        }
        outcomes
    }

    #[test]
    fn a_cluster_of_one_is_founded_whatever_happens_at_each_step() {
        let outcomes = all_hold(1);
        assert!(outcomes.len() > 30 && outcomes.iter().all(|outcome| outcome.was_reached), "{}", outcomes.len());
    }

    #[test]
    fn a_cluster_of_three_is_founded_whatever_happens_at_each_step() {
        let outcomes = all_hold(3);
        let reached = outcomes.iter().filter(|outcome| outcome.was_reached).count();
        assert!(outcomes.len() > 300 && reached == outcomes.len(), "{reached} of {} reached", outcomes.len());
        // A disk lost before the record names it is of no consequence; later its node can't come back, except the lowest whose
        // record nobody had adopted.
        let wiped = || outcomes.iter().filter(|outcome| outcome.place.what == What::Cut(Cut::Disk));
        let away = wiped().filter(|outcome| !outcome.away.is_empty()).count();
        assert!(
            away > 5 && wiped().count() - away > 5,
            "{away} of {} nodes with a lost disk are away",
            wiped().count()
        );
    }
}
