//! What goes wrong while a cluster is founded, beside what goes wrong in any run: lost disks and wrong settings.
//!
//! Early faults strike in the first seconds, when they meet the founding; afterwards disks are lost and nodes are started
//! otherwise as often as the plan says. Lost disks are counted by the atlas as damaged for good, except those that no record
//! can name: their nodes begin anew.
//!
//! *Never produced here*: two nodes with the same wrong settings at one time, who would be right together; a node started
//! with itself as the only member, which founds a cluster of its own for good.

use kv_core::types::NodeId;

use super::{
    faults::Kind,
    founding::FoundingEvent,
    machine::Machine,
    world::{Event, World},
};

impl World {
    /// Schedules the plan's next fault of the founding.
    pub(super) fn schedule_founding_fault(&mut self) {
        let founding = self.plan.founding;
        if !founding.from_empty {
            return;
        }
        let is_early = self.now < founding.early_micros && founding.early_faults > 0;
        let mean = match is_early {
            true => founding.early_micros as f64 / f64::from(founding.early_faults),
            false => 60_000_000.0 / (founding.wipe + founding.otherwise),
        };
        if mean.is_finite() {
            let from = if is_early { self.now } else { self.now.max(founding.early_micros) };
            let after = -mean * (1.0 - self.founding_rng.f64()).ln();
            self.queue.push(from + 1 + after as u64, Event::Founding(FoundingEvent::Fault));
        }
    }

    pub(super) fn founding_fault(&mut self) {
        let founding = self.plan.founding;
        let node = self.founding_rng.usize(..self.machines.len());
        if self.now < founding.early_micros {
            let kinds = [Kind::Crash, Kind::CrashInRecovery, Kind::Kill, Kind::Pause, Kind::Partition, Kind::Link];
            match self.founding_rng.usize(..kinds.len() + 4) {
                number @ 0..6 => self.strike(kinds[number], node),
                number if number < kinds.len() + 2 => self.lose_disk(node),
                _ => self.start_otherwise(node),
            }
        } else if self.founding_rng.f64() * (founding.wipe + founding.otherwise) < founding.wipe {
            self.lose_disk(node);
        } else {
            self.start_otherwise(node);
        }
        self.schedule_founding_fault();
    }

    /// A disk is lost as a whole, if a majority of each shard keeps theirs: one that no record can name may be lost
    /// at any time.
    fn lose_disk(&mut self, node: usize) {
        let id = NodeId(node as u64 + 1);
        let on_disk = self.machines[node].on_disk();
        let own = on_disk.as_ref().map(|file| file.incarnation);
        let is_named = self.machines.iter().any(|machine| {
            let named = machine.on_disk().and_then(|file| Some(file.record?.member(id)?.incarnation));
            named.is_some() && named == own
        });
        // What it said when it was bound may still be under way, and get it named. The lowest is named by its own record only.
        let may_be_named = node > 0 && on_disk.is_some_and(|file| file.lowest.is_some());
        // Who was bound to the lowest as it was, and has no record yet, becomes another once it is asked to bind anew: the record
        // that others have names it no more.
        let is_left_out = |machine: &Machine| {
            machine.on_disk().is_some_and(|file| file.record.is_none() && file.lowest.is_some() && file.lowest == own)
        };
        let lowest_is_named = node == 0 && is_named;
        let left_out = (1..self.machines.len()).filter(|other| lowest_is_named && is_left_out(&self.machines[*other]));
        let mut atlas = self.injector.atlas.clone();
        if left_out.into_iter().any(|other| !atlas.admits_log(other))
            || ((is_named || may_be_named) && !atlas.admits_log(node))
        {
            return;
        }
        self.injector.atlas = atlas;
        self.counts.wiped += 1;
        self.stop(node, true, "loses its disk");
        self.machines[node].wipe();
        let after = self.restart_delay();
        self.schedule_start(node, after);
    }

    /// Somebody starts a node with settings that are not the others', and puts that right after a while.
    pub(super) fn start_otherwise(&mut self, node: usize) {
        let is_otherwise = |machine: &Machine| machine.member.as_ref().is_some_and(|member| member.otherwise.is_some());
        if self.machines.iter().any(is_otherwise) {
            // Two that are wrong in the same way would be right.
            return;
        }
        let Some(member) = &mut self.machines[node].member else { return };
        let mut settings = member.settings().clone();
        if self.founding_rng.bool() || settings.members.len() < 3 {
            settings.shards += 1;
        } else {
            let other = (1 + self.founding_rng.usize(1..settings.members.len())).min(settings.members.len());
            let other = if other == node + 1 { other - 1 } else { other };
            settings.members.remove(&NodeId(other as u64));
        }
        // Alone it would be founded with them, and keep to that.
        if settings.members.len() > 1 {
            member.otherwise = Some(settings);
            self.counts.started_otherwise += 1;
            self.stop(node, false, "is started with other settings");
            self.schedule_start(node, 1_000);
            let lasts = self.founding_rng.u64(100_000..3_000_000);
            self.queue.push(self.now + lasts, Event::Founding(FoundingEvent::PutRight { node }));
        }
    }

    /// Starts a node as it should be, if it is not.
    pub(super) fn put_right(&mut self, node: usize) {
        let was_otherwise = self.machines[node].member.as_mut().and_then(|member| member.otherwise.take()).is_some();
        if was_otherwise {
            self.put_right_at = Some(self.now);
            self.stop(node, false, "is put right");
            self.schedule_start(node, 1_000);
        }
    }

    /// Whether no node waits for the others any more.
    pub(super) fn all_are_founded(&self) -> bool {
        let waits = |(node, machine): (usize, &Machine)| {
            machine.member.is_some()
                && !self.injector.may_be_damaged(node)
                && machine.on_disk().is_none_or(|file| file.record.is_none())
        };
        !self.machines.iter().enumerate().any(waits)
    }
}
