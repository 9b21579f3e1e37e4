//! What is done to nodes on purpose: they are stopped as a supervisor stops them.
//!
//! A node that is asked to stop hands its leaderships over; when it leads nothing and owes no decision, or after some seconds, its
//! process ends, and is started again later.
//!
//! *Never produced here*: a process that ends while its log is written and nobody asked for it (that is a kill).

use fastrand::Rng;
use kv_core::io::Input;

use super::{
    plan::Plan,
    world::{Event, World},
};

/// How often a node that is to stop is looked at, in microseconds.
const LOOK_MICROS: u64 = 20_000;
/// A node that can't hand over is stopped all the same after so long, in microseconds.
const STOP_MICROS_MAX: u64 = 5_000_000;

/// Something that an operator does.
#[derive(Debug)]
pub(super) enum Operating {
    /// Some node is asked to stop.
    Stops,
    /// A node was asked to: it is looked at whether it may.
    Looks {
        /// Which node.
        node: usize,
        /// Its process.
        start: u64,
        /// Until when it has time.
        until: u64,
    },
}

/// Draws what operators do.
#[derive(Debug)]
pub(super) struct Operator {
    rng: Rng,
    /// Stops a simulated minute; 0 for never.
    stops: f64,
}

impl Operator {
    pub(super) fn new(plan: &Plan) -> Self {
        Self { rng: plan.stream("operators"), stops: plan.operated.stops }
    }
}

impl World {
    /// Schedules the next stop, if the plan has any.
    pub(super) fn schedule_operator(&mut self) {
        let Operator { rng, stops } = &mut self.operator;
        self.queue.push_by_chance(self.now, rng, *stops, Event::Operating(Operating::Stops));
    }

    pub(super) fn operate(&mut self, operating: &Operating) {
        match operating {
            Operating::Stops if self.quiet => {}
            Operating::Stops => {
                let node = self.operator.rng.usize(..self.machines.len());
                let start = self.machines[node].start;
                if self.machines[node].process.is_some() {
                    self.counts.asked_to_stop += 1;
                    self.trace.mark(self.now, Some(node), || "is asked to stop".to_owned());
                    self.give(node, Input::HandOver);
                    let until = self.now + STOP_MICROS_MAX;
                    self.queue.push(self.now + LOOK_MICROS, Event::Operating(Operating::Looks { node, start, until }));
                }
                self.schedule_operator();
            }
            Operating::Looks { node, start, until } => self.look_at_leaving(*node, *start, *until),
        }
    }

    /// In quiet no node may be left that is about to stop: it would lead nothing any more.
    fn look_at_leaving(&mut self, node: usize, start: u64, until: u64) {
        if !self.is_current(node, start) {
            return;
        }
        let process = self.machines[node].process.as_ref().expect("the process is current");
        if !(process.node.is_idle() && process.writing.is_none()) && self.now < until && !self.quiet {
            let event = Operating::Looks { node, start, until };
            return self.queue.push(self.now + LOOK_MICROS, Event::Operating(event));
        }
        self.stop(node, false, "is stopped");
        let after = if self.quiet { 0 } else { self.operator.rng.u64(1_000..3_000_000) };
        self.schedule_start(node, after);
    }
}
