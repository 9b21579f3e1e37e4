//! Everything that one run chooses, drawn from its seed before anything happens.
//!
//! A [`Plan`] is the whole difference between two runs: how large the cluster is, how fast its machines are, what clients ask
//! for, and which faults there are and how hard (*swarm*: each seed leaves most kinds of fault out, so that the others are
//! seen alone and undisturbed too). Small limits everywhere, so that minutes of simulated time see recycled segments,
//! checkpoints, merges and snapshots. What happens *during* a run is drawn from [`Plan::stream`]s: one for each part of the
//! simulator, so that a change in one part leaves the choices of the others as they are.

use fastrand::Rng;
use kv_core::{
    inbox::Limits,
    log::LogSettings,
    settings::Settings,
    types::{META_SHARD, ShardId},
};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{clock, storms::Storms};

mod clients;
mod divergences;
mod draw;
mod fields;
mod founding;
mod losses;
mod names;
mod operated;
mod show;
mod tight;
mod unaware;

pub use clients::Clients;
pub use divergences::Divergences;
pub use founding::Founding;
pub use losses::Losses;
pub use names::Names;
pub use operated::Operated;
pub use unaware::Unaware;

/// What a run is asked to be, beside its seed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Length of the phase with faults in simulated seconds; `None` draws it.
    pub sim_secs: Option<u64>,
    /// No faults, three nodes, four shards, ten operations a second: the profile by which the simulator's speed is measured.
    pub light: bool,
}

/// All choices of one run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed that all is drawn from.
    pub seed: u64,
    /// Which of the faults that are drawn happen.
    pub faults_kept: Kept,
    /// Number of nodes.
    pub nodes: u64,
    /// Number of shards, the meta shard not counted.
    pub shards: u64,
    /// Replicas of a shard.
    pub replication: u64,
    /// Length of the phase with faults, in microseconds.
    pub faults_micros: u64,
    /// In the quiet phase all that was promised must hold again after this long, in microseconds.
    pub quiet_micros_max: u64,
    /// The nodes' settings.
    pub settings: Settings,
    /// Bytes of a log segment.
    pub segment_bytes: u64,
    /// Past half of this the log asks for checkpoints that let it recycle segments.
    pub log_bytes_max: u64,
    /// Bytes of a checkpoint's file that are sent in one piece.
    pub chunk_bytes_max: usize,
    /// Records that the checkpoint thread handles in one step.
    pub slice_records_max: usize,
    /// Deltas at which they are merged into a base.
    pub merge_deltas: usize,
    /// What things cost.
    pub costs: Costs,
    /// What the network does.
    pub links: Links,
    /// What clients do.
    pub workload: Workload,
    /// Which faults there are.
    pub faults: Faults,
    /// The bounds of a node's inbox.
    pub inbox: Limits,
    /// What it costs a node to refuse a request at the door, in microseconds.
    pub refuse_micros: u64,
    /// Which storms there are.
    pub storms: Storms,
    /// How awkward clients are.
    pub clients: Clients,
    /// How the cluster is founded, if the run does not begin with a founded one.
    pub founding: Founding,
    /// How often replicas are made to differ.
    pub divergences: Divergences,
    /// How often leaders are lost with what they have just acknowledged.
    pub losses: Losses,
    /// How often leaders are kept from hearing that they are deposed.
    pub unaware: Unaware,
    /// How often changes of names fail, and whether read indexes go back.
    pub names: Names,
    /// How many streams of files are cut off, until what they left is thrown away.
    pub streams_cut: u64,
    /// How many merges find the disk full.
    pub full_merges: u64,
    /// How the cluster is made and looked after.
    pub operated: Operated,
    /// Clocks run up to this much too fast or too slow, in parts per million.
    pub drift_ppm_max: u64,
}

/// Which of the faults that a run draws happen: a failing run is cut down to those that it needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Kept {
    /// All of them.
    #[default]
    All,
    /// Those with these numbers, counted from 1 in the order of drawing.
    Only(Vec<u64>),
}

/// What work costs on a node, in simulated microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Costs {
    /// A turn.
    pub turn_micros: u64,
    /// Each input of it.
    pub input_micros: u64,
    /// A write and sync of the log, at least.
    pub sync_micros_min: u64,
    /// And at most, drawn evenly.
    pub sync_micros_max: u64,
    /// What the write and sync of a block that holds an install take on top, at most, while there are faults.
    pub install_micros_max: u64,
    /// A step of the checkpoint thread.
    pub step_micros: u64,
    /// Start of a process until it serves.
    pub start_micros: u64,
}

/// What the network does to messages between nodes, and between clients and nodes.
#[derive(Clone, Copy, Debug)]
pub struct Links {
    /// Least delay in microseconds.
    pub delay_micros_min: u64,
    /// Mean of what comes on top, in microseconds (exponential).
    pub jitter_micros: u64,
    /// Whether messages of one lane keep their order, as on a connection.
    pub ordered: bool,
    /// Messages lost, in millionths.
    pub drop_ppm: u32,
    /// Envelopes that arrive twice, in millionths.
    pub duplicate_ppm: u32,
    /// Envelopes that come very late, in millionths.
    pub late_ppm: u32,
    /// How late, in microseconds, at most.
    pub late_micros_max: u64,
    /// Lost messages of which the sender hears, in percent.
    pub reported_percent: u32,
}

/// What clients do.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// Number of clients.
    pub clients: u64,
    /// Operations a second, of all clients together.
    pub operations_per_second: u64,
    /// Operations that one client may have open at once.
    pub open_max: usize,
    /// Number of keys.
    pub keys: u64,
    /// Bytes of a value at most.
    pub value_bytes_max: usize,
    /// How long a client waits for an answer in all, in microseconds.
    pub deadline_micros: u64,
    /// Share of reads, in percent.
    pub reads_percent: u32,
    /// Share of reads that may be old, in percent of reads.
    pub old_reads_percent: u32,
    /// Share of deletes, in percent of writes.
    pub deletes_percent: u32,
    /// Share of writes with a condition, in percent.
    pub conditions_percent: u32,
    /// Share of writes that ask for the previous entry, in percent.
    pub previous_percent: u32,
    /// Share of asynchronous writes, in percent of those that may be.
    pub async_percent: u32,
}

/// Which faults there are: for each kind, how many a simulated minute, cluster-wide, on average.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// A node loses its power: all that was not synced is lost or torn.
    pub crash: f64,
    /// All nodes at once.
    pub crash_all: f64,
    /// A crash, and at restart one more during recovery.
    pub crash_in_recovery: f64,
    /// A process is killed: what it wrote is still in the page cache.
    pub kill: f64,
    /// A process stands still, often longer than an election.
    pub pause: f64,
    /// The network falls in two, both ways.
    pub partition: f64,
    /// Messages from one side to the other are lost, not back.
    pub partition_one_way: f64,
    /// One link is dead.
    pub link: f64,
    /// A disk is slow for a while.
    pub slow_disk: f64,
    /// A sync fails.
    pub failed_sync: f64,
    /// A disk runs full, below the reserve or wholly.
    pub disk_full: f64,
    /// A bit flips in the log of a node that is down.
    pub rot_log: f64,
    /// A bit flips in a checkpoint's file.
    pub rot_file: f64,
    /// The read index is lost while its node is down.
    pub store_lost: f64,
    /// A record of the read index is altered, dropped or brought back while its node is down.
    pub store_altered: f64,
    /// An operator asks a shard's leader to hand over.
    pub transfer: f64,
    /// A leader stands still, and does not hear the other nodes when it goes on: it still thinks that it leads.
    pub zombie: f64,
    /// How long a fault lasts on average, in microseconds.
    pub lasts_micros: u64,
}

impl Plan {
    /// How many voters a shard has.
    #[must_use]
    pub fn voters(&self, shard: ShardId) -> usize {
        let most = if shard == META_SHARD { 5 } else { self.replication };
        most.min(self.nodes) as usize
    }

    /// How the logs are laid out. How many segments may wait to be used goes by the seed.
    #[must_use]
    pub fn log_settings(&self) -> LogSettings {
        LogSettings {
            segment_bytes: self.segment_bytes as usize,
            log_bytes_max: self.log_bytes_max,
            spares_max: [2, 1, 8][(self.seed % 3) as usize],
        }
    }

    /// The random stream of one part of the simulator.
    #[must_use]
    pub fn stream(&self, part: &str) -> Rng {
        Rng::with_seed(mix(self.seed, part))
    }

    /// How much too slow a clock may run, in parts per million.
    #[must_use]
    pub fn slow_ppm_max(&self) -> u64 {
        let storms = if self.storms.change_rates() { clock::TRUE_RATE_PPM - clock::RATE_PPM_MIN } else { 0 };
        self.drift_ppm_max.max(storms)
    }
}

impl Kept {
    /// Whether the fault of this number happens.
    #[must_use]
    pub fn keeps(&self, number: u64) -> bool {
        match self {
            Self::All => true,
            Self::Only(numbers) => numbers.contains(&number),
        }
    }
}

impl Faults {
    /// The kinds by name, with how many a minute.
    #[must_use]
    pub fn kinds(&self) -> [(&'static str, f64); 17] {
        [
            ("crash", self.crash),
            ("crash-all", self.crash_all),
            ("crash-in-recovery", self.crash_in_recovery),
            ("kill", self.kill),
            ("pause", self.pause),
            ("partition", self.partition),
            ("partition-one-way", self.partition_one_way),
            ("link", self.link),
            ("slow-disk", self.slow_disk),
            ("failed-sync", self.failed_sync),
            ("disk-full", self.disk_full),
            ("rot-log", self.rot_log),
            ("rot-file", self.rot_file),
            ("store-lost", self.store_lost),
            ("store-altered", self.store_altered),
            ("transfer", self.transfer),
            ("zombie", self.zombie),
        ]
    }
}

/// A number that depends on the seed and the name of a part.
#[must_use]
pub fn mix(seed: u64, part: &str) -> u64 {
    xxh3_64_with_seed(part.as_bytes(), seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_the_same_plan_each_time() {
        for seed in 0..50 {
            let draw = || format!("{:?}", Plan::draw(seed, Options::default()));
            assert_eq!(draw(), draw());
        }
        assert_ne!(
            format!("{}", Plan::draw(1, Options::default())),
            format!("{}", Plan::draw(2, Options::default())).replace("seed 2", "seed 1")
        );
    }
}
