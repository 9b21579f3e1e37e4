//! A stream of files that breaks off for good: whoever takes one is cut off, with a nearly full disk, for so long
//! that it gives the stream up and throws away what has come of it.
//!
//! What a stream leaves is kept for the next one, which comes as soon as there is a leader; that nobody goes on with it takes a
//! silence that no other fault is long enough for.
//!
//! *Never here*: a run whose faults end before such a silence would.

use super::{
    faults::Mend,
    world::{Event, World},
};

/// How often it is looked for a stream, in microseconds.
const LOOK_MICROS: u64 = 100_000;
/// Ticks in which it is given up, with some more for clocks that are slow.
const SILENCE_TICKS: u64 = 480;

impl World {
    /// Schedules the next look for a stream, if the plan has one more cut.
    pub(super) fn schedule_stream_cut(&mut self) {
        if self.counts.streams_cut < self.plan.streams_cut {
            self.queue.push(self.now + LOOK_MICROS, Event::StreamCut);
        }
    }

    pub(super) fn cut_a_stream(&mut self) {
        let silence_micros = SILENCE_TICKS * self.plan.settings.tick_micros;
        if self.quiet || self.now + silence_micros > self.plan.faults_micros {
            return;
        }
        let Some(node) = self.takes_a_stream() else { return self.schedule_stream_cut() };
        let others = (0..self.machines.len()).filter(|other| *other != node);
        let links: Vec<_> = others.flat_map(|other| [(node, other), (other, node)]).collect();
        links.iter().for_each(|(from, to)| self.network.cut(*from, *to));
        self.machines[node].bound_free_bytes(Some(self.plan.settings.disk_reserve_bytes / 2));
        self.counts.streams_cut += 1;
        self.trace.mark(self.now, Some(node), || "its stream is cut, and its disk nearly full".to_owned());
        self.schedule_mend(silence_micros, Mend::Links(links));
        self.schedule_mend(silence_micros, Mend::DiskFull(node));
        self.schedule_stream_cut();
    }

    /// A node that answers, and to which some leader has a snapshot under way.
    fn takes_a_stream(&self) -> Option<usize> {
        let processes = self.machines.iter().filter_map(|machine| machine.process.as_ref());
        let mut followers =
            processes.flat_map(|process| process.node.status().shards).flat_map(|status| status.followers);
        let takes = followers.find(|follower| follower.active && follower.snapshot)?;
        Some(takes.node.0 as usize - 1)
    }
}
