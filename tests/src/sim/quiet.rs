//! The end of a run: faults stop, and within a bounded time the cluster must be healthy and hold what it promised.
//!
//! In this order: every shard has one leader that has committed in its term; every key that was ever in use is read
//! linearizably, then takes a write and is read back (these operations feed the history, so what was promised before is judged
//! by them too); every replica that may run has applied all that its shard has committed, and holds the state of the model, by
//! a digest computed from scratch. Then the checkers judge the history.

use kv_core::{
    node::Role,
    types::{LogIndex, ShardId, Term},
};

use super::{machine::Machine, report::Report, world::World};
use crate::history::History;

/// How often the state of things is looked at, in simulated microseconds.
const LOOK_MICROS: u64 = 100_000;

/// How long clients go on with their work after the faults, in microseconds: what was pent up is worked off under load.
const WORK_ON_MICROS: u64 = 2_000_000;

/// What a session takes with the outcomes of a few writes, for the sake of [`World::writers_at_last`].
const SESSION_BYTES_ABOUT: usize = 300;

impl World {
    /// Ends all faults, and starts all nodes that may start.
    pub fn quieten(&mut self) {
        self.quiet = true;
        self.network.heal();
        self.trace.tell(self.now, || "QUIET".to_owned());
        self.trace.mark(self.now, None, || "faults end".to_owned());
        for node in 0..self.machines.len() {
            let machine = &mut self.machines[node];
            machine.paused_until = 0;
            machine.slow_factor = 1;
            machine.starved = None;
            machine.pause_in_turn = None;
            machine.pause_after_sync = None;
            machine.clock.settle(self.now);
            machine.stalled_until = 0;
            machine.crash_after_operations = None;
            machine.heal_disk();
            self.put_right(node);
            let machine = &self.machines[node];
            if !machine.runs() && machine.refused.is_none() {
                self.schedule_start(node, 0);
            }
        }
        self.send_away();
    }

    /// Waits for health, step by step; what does not come in time is a failure.
    pub fn settle(&mut self) {
        let mut limit = self.now + self.plan.quiet_micros_max;
        self.run_until(self.now + WORK_ON_MICROS);
        self.closing = true;
        self.wait_for(limit, "in quiet, every shard gets one leader", Self::leaderless);
        self.wait_until_right(limit);
        self.wait_for(limit, "in quiet, every shard gets one leader", Self::leaderless);
        // Read before anything is written anew: what was lost in all replicas alike would not be missed afterwards.
        self.read_all(limit);
        let writers = self.writers_at_last();
        for (number, key) in self.keys.in_use().to_vec().into_iter().enumerate() {
            self.put_at_last(number % writers, key, limit);
        }
        self.wait_for(limit, "in quiet, every operation ends", Self::still_open);
        self.judge.final_reads_from = self.judge.moment().event;
        self.read_all(limit);
        if !self.away.is_empty() && self.failure.is_none() {
            limit = self.now + self.plan.quiet_micros_max;
            self.bring_back();
            self.wait_until_right(limit);
            self.wait_for(limit, "in quiet, every shard gets one leader", Self::leaderless);
        }
        self.wait_for(limit, "in quiet, every replica catches up", Self::lagging);
        if self.failure.is_none() {
            self.compare_states();
        }
    }

    /// Judges the history, and says what happened.
    #[must_use]
    pub fn finish(mut self) -> (Report, History) {
        if self.failure.is_none() {
            self.failure = self.judge.finish(&self.keys.shards()).err();
        }
        self.counts.recycled = self.machines.iter().map(Machine::segments_recycled).sum();
        let report = Report {
            counts: self.counts,
            simulated_micros: self.now,
            trace_hash: self.trace.hash(),
            failure: self.failure,
            points: kv_core::points::take(),
            timeline: self.trace.take_timeline(),
            plan: self.plan,
        };
        (report, self.judge.history)
    }

    /// How many clients write at last: as many as a shard surely remembers sessions of. More would go on evicting each other,
    /// each be told so, and begin again: that one of them comes through is promised to nobody.
    fn writers_at_last(&self) -> usize {
        let bounds = self.plan.settings.session_bounds;
        let remembered = bounds.sessions_max.min(bounds.bytes_max / SESSION_BYTES_ABOUT);
        remembered.clamp(1, self.clients.len())
    }

    /// Reads every key that was ever in use, linearizably.
    fn read_all(&mut self, limit: u64) {
        for (number, key) in self.keys.all().into_iter().enumerate() {
            let client = number % self.clients.len();
            self.get_at_last(client, key, limit);
        }
        self.wait_for(limit, "in quiet, every operation ends", Self::still_open);
    }

    fn wait_for(&mut self, limit: u64, property: &'static str, lacking: fn(&Self) -> Option<String>) {
        while self.failure.is_none() {
            let Some(what) = lacking(self) else { return };
            if self.now >= limit {
                return self.fail(
                    property,
                    format!("{} s after the last fault: {what}", self.plan.quiet_micros_max / 1_000_000),
                );
            }
            self.run_until((self.now + LOOK_MICROS).min(limit));
        }
    }

    /// Before the last operations: what replicas say while they are known to be wrong is lost on the way. A session opened now
    /// and then makes a mark due, and changes no key.
    fn wait_until_right(&mut self, limit: u64) {
        while self.failure.is_none() {
            let Some(what) = self.still_diverged() else { return };
            if self.now >= limit {
                return self.fail("in quiet, a state that was made to differ is found and replaced", what);
            }
            self.change_where_somebody_differs();
            self.run_until((self.now + LOOK_MICROS).min(limit));
        }
    }

    fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..=self.plan.shards).map(ShardId)
    }

    /// A shard without exactly one leader that has applied an entry of its term.
    fn leaderless(&self) -> Option<String> {
        for shard in self.shards() {
            let mut leaders: Vec<(Term, usize, bool)> = Vec::new();
            for (node, machine) in self.machines.iter().enumerate() {
                let Some(status) = machine.shard_status(shard) else { continue };
                // Who is cut off may lead for a while, and not know that it serves nobody.
                if status.role == Role::Leader && !self.is_away(node) {
                    let proven = status.live && status.applied >= status.last_index && status.last_term == status.term;
                    leaders.push((status.term, node, proven));
                }
            }
            if leaders.len() != 1 || !leaders[0].2 {
                return Some(format!(
                    "shard {shard} has the leaders (term, node from 0, serving) {leaders:?}; {}",
                    self.looks_of(shard)
                ));
            }
        }
        None
    }

    fn still_open(&self) -> Option<String> {
        let client = self.clients.iter().position(|client| !client.is_idle())?;
        Some(format!("client {client} still waits: {}", self.clients[client].first_open()))
    }

    /// A replica that has not applied what another has committed, or does not serve.
    fn lagging(&self) -> Option<String> {
        for shard in self.shards() {
            let statuses = || self.machines.iter().filter_map(move |machine| machine.shard_status(shard));
            let newest = statuses().map(|status| status.last_index).max().unwrap_or_default();
            if statuses().any(|status| !status.live || status.applied < newest) {
                return Some(format!("shard {shard} at {newest}; {}", self.looks_of(shard)));
            }
        }
        let down = self.machines.iter().position(|machine| machine.process.is_none() && machine.refused.is_none())?;
        let waits_for = self.machines[down].member.as_ref().and_then(|member| member.waits_for.clone());
        Some(format!("node {} is not up{}", down + 1, waits_for.map_or_else(String::new, |whom| format!(": {whom}"))))
    }

    fn compare_states(&mut self) {
        for shard in self.shards() {
            for node in 0..self.machines.len() {
                let told = self.machines[node].state_digest(shard);
                if let Some((index, digest)) = told {
                    self.judge_digest(node, shard, index, digest);
                }
            }
        }
    }

    /// What each node says of a shard, for people.
    fn looks_of(&self, shard: ShardId) -> String {
        let mut out = String::new();
        for (node, machine) in self.machines.iter().enumerate() {
            match machine.shard_status(shard) {
                None if machine.refused.is_some() => out += &format!("n{} refuses to start; ", node + 1),
                None if machine.process.is_none() => out += &format!("n{} is down; ", node + 1),
                None => {}
                Some(status) => {
                    let LogIndex(applied) = status.applied;
                    out += &format!(
                        "n{} {:?} term {} commit {} applied {applied} log {}..{} live {} quarantined {}; ",
                        node + 1,
                        status.role,
                        status.term,
                        status.commit,
                        status.first_index,
                        status.last_index,
                        status.live,
                        status.quarantined
                    );
                }
            }
        }
        out
    }
}
