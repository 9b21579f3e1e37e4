//! The threads beside a node's: one writes and syncs the log, one does the checkpoints, each in simulated time of its own.

use kv_core::{checkpoint::job::CheckpointEvent, io::Input, log::record::Record};

use super::{
    crash_points::tape::Note,
    world::{Event, World},
};

impl World {
    pub(super) fn schedule_log(&mut self, node: usize) {
        let costs = self.plan.costs;
        let machine = &mut self.machines[node];
        let sync = machine.rng.u64(costs.sync_micros_min..=costs.sync_micros_max) * machine.slow_factor;
        let writing = machine.process.as_ref().and_then(|process| process.writing.as_ref());
        let installs = writing.is_some_and(|batch| batch.records.iter().any(is_install));
        let slow = if installs && !self.quiet { self.installs_rng.u64(..=costs.install_micros_max) } else { 0 };
        self.queue.push(self.now + sync + slow, Event::LogWritten { node, start: machine.start });
    }

    pub(super) fn log_written(&mut self, node: usize, start: u64) {
        if !self.is_current(node, start) || self.put_off(node, Event::LogWritten { node, start }) {
            return;
        }
        if self.machines[node].stalled_until > self.now {
            return self.queue.push(self.machines[node].stalled_until, Event::LogWritten { node, start });
        }
        self.note_writing(node);
        let process = self.machines[node].process.as_mut().expect("the process is current");
        match process.write_log() {
            Ok((batch, report)) => {
                self.note(node, || Note::Synced);
                self.judge_synced(node, &batch);
                self.trace.note([self.now, report.number.0, report.bytes]);
                self.counts.syncs += 1;
                self.pause_after_sync(node);
                self.give(node, Input::Synced(report));
            }
            Err(reason) => self.fail_stop(node, &reason),
        }
    }

    pub(super) fn schedule_step(&mut self, node: usize) {
        let machine = &mut self.machines[node];
        let start = machine.start;
        let cost = self.plan.costs.step_micros * machine.slow_factor.min(10);
        let Some(process) = &mut machine.process else { return };
        if !process.step_scheduled {
            process.step_scheduled = true;
            self.queue.push(self.now + cost, Event::Step { node, start });
        }
    }

    pub(super) fn step(&mut self, node: usize, start: u64) {
        if !self.is_current(node, start) || self.put_off(node, Event::Step { node, start }) {
            return;
        }
        if self.machines[node].stalled_until > self.now {
            return self.queue.push(self.machines[node].stalled_until, Event::Step { node, start });
        }
        let process = self.machines[node].process.as_mut().expect("the process is current");
        process.step_scheduled = false;
        let (events, idle) = process.step();
        let tree = self.tape.is_some().then(|| self.machines[node].store.fork());
        tree.into_iter().for_each(|tree| self.note(node, || Note::Tree(tree)));
        for event in events {
            if let CheckpointEvent::Durable { replica, footer, .. } = &event {
                self.note(node, || Note::Durable(*replica, footer.header.index));
            }
            if let CheckpointEvent::DiskFailed { reason } = event {
                return self.fail_stop(node, &reason);
            }
            self.judge_checkpoint(node, &event);
            self.give(node, Input::Checkpoint(Box::new(event)));
        }
        if !idle {
            self.fill_under_a_merge(node);
            self.schedule_step(node);
        }
    }

    /// Takes a note, if what this machine does to its disk is recorded.
    pub(super) fn note(&mut self, node: usize, note: impl FnOnce() -> Note) {
        if let Some(tape) = &mut self.tape {
            tape.note(node, note);
        }
    }

    /// Notes what the log is about to write.
    pub(super) fn note_writing(&mut self, node: usize) {
        if let Some(tape) = &mut self.tape
            && let Some(batch) = self.machines[node].process.as_ref().and_then(|process| process.writing.as_ref())
        {
            tape.note(node, || Note::Begun(batch.clone()));
        }
    }
}

fn is_install(record: &Record) -> bool {
    matches!(record, Record::Install { .. })
}
