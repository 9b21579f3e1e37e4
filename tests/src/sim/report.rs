//! What a run did, in numbers, and messages in words for the trace.

use std::{collections::BTreeMap, fmt};

use kv_core::{
    message::{PeerMessage, RaftMessage},
    points,
};

use super::{
    disk_faults,
    plan::{Faults, Plan},
    storms,
    timeline::Entry,
};
use crate::check::view::Violation;

/// What happened in a run.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Events.
    pub events: u64,
    /// Turns of all nodes.
    pub turns: u64,
    /// Messages between nodes.
    pub messages: u64,
    /// Log batches synced.
    pub syncs: u64,
    /// Streams of files that were cut off.
    pub streams_cut: u64,
    /// Merges that found the disk full.
    pub full_merges: u64,
    /// Processes started.
    pub starts: u64,
    /// Starts refused for damage.
    pub refused_starts: u64,
    /// Processes that stopped by themselves, not trusting their disk.
    pub fail_stops: u64,
    /// Elections won.
    pub elections: u64,
    /// Entries applied, on all replicas.
    pub applied: u64,
    /// Checkpoints made.
    pub checkpoints: u64,
    /// States loaded and proven at start.
    pub loads: u64,
    /// States that had to come from a peer.
    pub states_lost: u64,
    /// Snapshots installed.
    pub installs: u64,
    /// Log segments given up.
    pub recycled: u64,
    /// Replicas taken out of service by themselves.
    pub quarantines: u64,
    /// Times that a leader was to be lost.
    pub losses_drawn: u64,
    /// Leaders lost with what they had just acknowledged.
    pub losses: u64,
    /// Times that a leader was to be kept from hearing that it is deposed.
    pub unaware_drawn: u64,
    /// Leaders that were.
    pub unaware: u64,
    /// Of these, how many still led in their term when another led in a newer one.
    pub unaware_deposed: u64,
    /// Nodes asked to stop, which hand over first.
    pub asked_to_stop: u64,
    /// Nodes that stayed away in quiet until all was served.
    pub away: u64,
    /// Times that a state was to be made to differ.
    pub divergences_drawn: u64,
    /// States that were made to differ.
    pub diverged: u64,
    /// States thrown away since a majority held another.
    pub discarded: u64,
    /// Disputes without a majority.
    pub disputes: u64,
    /// Sessions found expired by clients.
    pub expired: u64,
    /// Messages about the founding that arrived.
    pub founding_messages: u64,
    /// Disks lost as a whole.
    pub wiped: u64,
    /// Starts with settings that were not the others'.
    pub started_otherwise: u64,
    /// Nodes that ended with a sentence for people.
    pub ended_by_themselves: u64,
    /// Maps that clients got.
    pub maps: u64,
    /// Attempts of clients.
    pub attempts: u64,
    /// Faults by kind, in the order of [`super::plan::Faults::kinds`].
    pub faults: [u64; 17],
    /// Storms by kind, in the order of [`super::storms::Storm`].
    pub storms: [u64; storms::KINDS],
    /// Faults of [`super::disk_faults`] by name.
    pub disk_faults: BTreeMap<&'static str, u64>,
    /// Operations by what was asked and what was told.
    pub operations: BTreeMap<(&'static str, &'static str), u64>,
}

impl Counts {
    /// All faults by kind, also those that did not happen, with how many: those of every plan, storms, those of disks, and what
    /// has a module of its own.
    pub fn faults(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let drawn = Faults::default().kinds().map(|(name, _)| name).into_iter().zip(self.faults);
        let storms = storms::names().zip(self.storms);
        let of_disks = disk_faults::names().map(|name| (name, self.disk_faults.get(name).copied().unwrap_or(0)));
        let others = [
            ("asked-to-stop", self.asked_to_stop),
            ("disk-lost", self.wiped),
            ("leader-lost", self.losses),
            ("leader-unaware", self.unaware),
            ("merge-full", self.full_merges),
            ("started-otherwise", self.started_otherwise),
            ("state-differs", self.diverged),
            ("stays-away", self.away),
            ("stream-cut", self.streams_cut),
        ];
        drawn.chain(storms).chain(of_disks).chain(others)
    }
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Report {
    /// What it was.
    pub plan: Plan,
    /// What happened.
    pub counts: Counts,
    /// Simulated microseconds.
    pub simulated_micros: u64,
    /// The hash of all that happened.
    pub trace_hash: u64,
    /// The property that did not hold.
    pub failure: Option<Violation>,
    /// How often each point of the core was reached.
    pub points: points::Counts,
    /// What happened to the nodes, if a timeline was kept.
    pub timeline: Vec<Entry>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.counts;
        writeln!(
            f,
            "  {} s, {} events, {} turns, {} messages, {} syncs; trace {:016x}",
            self.simulated_micros / 1_000_000,
            counts.events,
            counts.turns,
            counts.messages,
            counts.syncs,
            self.trace_hash
        )?;
        writeln!(
            f,
            "  {} elections, {} applied, {} checkpoints, {} loads, {} snapshots installed, {} states lost, {} quarantined, \
             {} segments recycled; {} starts, {} refused, {} fail-stops",
            counts.elections,
            counts.applied,
            counts.checkpoints,
            counts.loads,
            counts.installs,
            counts.states_lost,
            counts.quarantines,
            counts.recycled,
            counts.starts,
            counts.refused_starts,
            counts.fail_stops
        )?;
        if counts.founding_messages > 0 {
            writeln!(
                f,
                "  founding: {} messages, {} disks lost, {} starts with other settings, {} nodes ended by themselves",
                counts.founding_messages, counts.wiped, counts.started_otherwise, counts.ended_by_themselves
            )?;
        }
        if counts.diverged > 0 {
            let (diverged, discarded, disputes) = (counts.diverged, counts.discarded, counts.disputes);
            writeln!(f, "  {diverged} states made to differ, {discarded} thrown away, {disputes} disputes")?;
        }
        if counts.streams_cut > 0 {
            writeln!(f, "  {} streams of files cut off", counts.streams_cut)?;
        }
        if counts.full_merges > 0 {
            writeln!(f, "  {} disks full under a merge", counts.full_merges)?;
        }
        if counts.losses > 0 {
            writeln!(f, "  {} leaders lost with what they had just acknowledged", counts.losses)?;
        }
        if counts.unaware > 0 {
            let (unaware, deposed) = (counts.unaware, counts.unaware_deposed);
            writeln!(f, "  {unaware} leaders kept from hearing of others, {deposed} of them deposed meanwhile")?;
        }
        if counts.asked_to_stop + counts.away > 0 {
            let (stopped, away) = (counts.asked_to_stop, counts.away);
            writeln!(f, "  {stopped} nodes asked to stop, {away} away in quiet until all was served")?;
        }
        write!(f, "  faults:")?;
        for ((name, _), count) in self.plan.faults.kinds().iter().zip(counts.faults).filter(|(_, count)| *count > 0) {
            write!(f, " {name} {count}")?;
        }
        for ((name, _), count) in self.plan.storms.kinds().zip(counts.storms).filter(|(_, count)| *count > 0) {
            write!(f, " {name} {count}")?;
        }
        for (name, count) in &counts.disk_faults {
            write!(f, " {name} {count}")?;
        }
        write!(
            f,
            "\n  operations ({} attempts, {} sessions expired, {} maps):",
            counts.attempts, counts.expired, counts.maps
        )?;
        for ((asked, told), count) in &counts.operations {
            write!(f, " {asked}/{told} {count}")?;
        }
        Ok(())
    }
}

/// A message in a few words.
#[must_use]
pub fn short(message: &PeerMessage) -> String {
    match message {
        PeerMessage::Raft { shard, message } => format!("s{shard} {}", short_raft(message)),
        PeerMessage::SnapshotChunk { shard, stream, file, offset, bytes } => {
            format!("s{shard} chunk of stream {stream}: file {file} from {offset}, {} B", bytes.len())
        }
        PeerMessage::SnapshotOffer { shard, stream, manifest, message } => format!(
            "s{shard} offer {stream}: {} files at {}, {}",
            manifest.files.len(),
            manifest.index,
            if message.is_some() { "snapshot" } else { "state" }
        ),
        PeerMessage::MapTell(map) => format!("map {}", map.version),
        other => format!("{other:?}"),
    }
}

fn short_raft(message: &RaftMessage) -> String {
    let mut out = format!("{:?} {}->{} t{}", message.kind, message.from, message.to, message.term);
    if message.index.0 > 0 {
        out += &format!(" i{}/t{}", message.index, message.log_term);
    }
    if let (Some(first), Some(last)) = (message.entries.first(), message.entries.last()) {
        out += &format!(" entries {}..{}", first.index, last.index);
    }
    if message.commit.0 > 0 {
        out += &format!(" c{}", message.commit);
    }
    if message.reject {
        out += &format!(" refused, hint {}", message.reject_hint);
    }
    if let Some(snapshot) = &message.snapshot {
        out += &format!(" snapshot {}/t{}", snapshot.index, snapshot.term);
    }
    if !message.context.is_empty() {
        out += &format!(" context {}", message.context.escape_ascii());
    }
    out
}
