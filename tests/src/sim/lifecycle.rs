//! Processes that start and end: by loss of power, killed, or of their own accord when they can't trust their disk.

use kv_core::{
    io::{Input, Output},
    log::record::Recovered,
};

use super::{
    crash_points::tape::Note,
    machine::{Opened, StartError},
    world::{Event, World},
};
use crate::disk::names_a_fault;

impl World {
    /// A process that can't trust its disk any more stops at once; it is started again like any that ended.
    pub(super) fn fail_stop(&mut self, node: usize, reason: &str) {
        self.counts.fail_stops += 1;
        self.judge_stop(node, reason);
        self.trace.tell(self.now, || format!("n{} stops: {reason}", node + 1));
        self.trace.mark(self.now, Some(node), || format!("stops: {reason}"));
        // What fails because the power went loses what was not synced.
        let power = self.machines[node].disk.is_off();
        self.stop(node, power, "failed");
        self.schedule_start(node, 200_000);
    }

    /// Each stop needs a fault of its own that the disk told of since the process began: a node never stops for nothing, nor again
    /// and again for what is over.
    fn judge_stop(&mut self, node: usize, reason: &str) {
        let names = |(at, path): &(usize, String)| *at == node && reason.contains(path.as_str());
        let damaged = self.damaged_paths.iter().find(|damaged| names(damaged)).cloned();
        let is_damaged = damaged.is_some_and(|damaged| self.damaged_paths.remove(&damaged));
        if !self.machines[node].disk.is_off() && !is_a_reason(reason) && !is_damaged {
            self.fail("a node ends only for a reason", format!("node {} stopped: {reason}", node + 1));
        }
    }

    /// Ends a node's process; with the power, its disk loses what was not synced.
    pub(super) fn stop(&mut self, node: usize, power: bool, why: &str) {
        self.trace.tell(self.now, || format!("n{} {why}", node + 1));
        self.trace.mark(self.now, Some(node), || why.to_owned());
        let was_up = self.machines[node].process.is_some();
        self.note_writing(node);
        self.machines[node].stop(power);
        self.let_tree_go_back(node, power);
        self.machines[node].paused_until = 0;
        self.machines[node].pause_in_turn = None;
        self.machines[node].pause_after_sync = None;
        self.trace.note([self.now, node as u64, u64::from(power), u64::from(was_up)]);
        if was_up {
            self.break_connections(node);
        }
    }

    /// Clients that wait for an answer of this node see their connections break, if the network lets them.
    pub(super) fn break_connections(&mut self, node: usize) {
        let after = self.plan.links.delay_micros_min;
        for client in 0..self.clients.len() {
            if self.network.is_open(node, self.machines.len() + client) {
                for request in self.clients[client].requests_at(node) {
                    self.queue.push(self.now + after, Event::Broken { client, request, sent: true });
                }
            }
        }
    }

    /// Starts a node's process after a while, if nothing stops it again before.
    pub(super) fn schedule_start(&mut self, node: usize, after: u64) {
        self.machines[node].start += 1;
        let start = self.machines[node].start;
        self.queue.push(self.now + after + self.plan.costs.start_micros, Event::Start { node, start });
    }

    pub(super) fn start(&mut self, node: usize, start: u64) {
        let machine = &self.machines[node];
        if machine.start != start || machine.runs() || machine.refused.is_some() {
            return;
        }
        let mut outputs = std::mem::take(&mut self.outputs);
        match self.machines[node].open(&self.plan, self.now, &mut outputs) {
            Ok(Opened::Node(recovered)) => self.up(node, start, &recovered, &mut outputs),
            Ok(Opened::Founding(first)) => self.begin_founding(node, start, first),
            Err(StartError::Corrupt(reason)) => {
                self.counts.refused_starts += 1;
                self.trace.tell(self.now, || format!("n{} refuses to start: {reason}", node + 1));
                self.trace.mark(self.now, Some(node), || "refuses to start".to_owned());
                if !self.injector.may_be_damaged(node) {
                    self.fail("a whole log is never refused", format!("node {} refused to start: {reason}", node + 1));
                }
            }
            Err(StartError::Otherwise(reason)) => {
                self.trace.tell(self.now, || format!("n{} may not start so: {reason}", node + 1));
                // Whether it is wrong now: what was put right is no reason any more.
                if self.machines[node].member.as_ref().is_none_or(|member| member.otherwise.is_none()) {
                    self.fail("a node ends only for a reason", format!("node {} did not start: {reason}", node + 1));
                }
            }
            Err(StartError::Disk(reason)) => {
                self.trace.tell(self.now, || format!("n{} could not start: {reason}", node + 1));
                if !is_a_reason(&reason) {
                    self.fail("a node ends only for a reason", format!("node {} did not start: {reason}", node + 1));
                }
                self.schedule_start(node, 100_000);
            }
        }
        outputs.clear();
        self.outputs = outputs;
    }

    /// A node has begun.
    pub(super) fn up(&mut self, node: usize, start: u64, recovered: &Recovered, outputs: &mut Vec<Output>) {
        self.counts.starts += 1;
        self.judge_start(node, recovered);
        self.note(node, || Note::Told(recovered.clone()));
        self.judge_turn(node, outputs);
        self.perform(node, outputs);
        self.trace.tell(self.now, || format!("n{} is up", node + 1));
        self.trace.mark(self.now, Some(node), || "is up".to_owned());
        self.trace.note([self.now, node as u64, start]);
        self.give(node, Input::Describe(self.machines[node].description()));
        self.queue.push(self.now, Event::Tick { node, start });
        self.queue.push(self.now, Event::DiskFree { node, start });
    }
}

/// Whether a process may end with these words.
fn is_a_reason(words: &str) -> bool {
    names_a_fault(words) || words.contains("the power was lost")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{
        plan::{Options, Plan},
        trace::Trace,
    };

    #[test]
    fn a_node_that_stops_for_nothing_is_noticed() {
        for (words, fails) in [
            ("the log's disk failed: log/1: the sync failed", false),
            ("a batch was refused by the log, which is a bug of this program: out of order", true),
        ] {
            let plan = Plan::draw(1, Options { light: true, ..Options::default() });
            let mut world = World::new(plan, Trace::new(None));
            world.run_until(2_000_000);
            world.fail_stop(0, words);
            assert_eq!(world.failure.is_some(), fails, "{words}");
        }
    }
}
