//! Everything that one run chooses, drawn from its seed before anything happens.
//!
//! A [`Plan`] is the whole difference between two runs: how large the cluster is, how fast its machines are, what clients ask
//! for, and which faults there are and how hard (*swarm*: each seed leaves most kinds of fault out, so that the others are
//! seen alone and undisturbed too). Small limits everywhere, so that minutes of simulated time see recycled segments,
//! checkpoints, merges and snapshots. What happens *during* a run is drawn from [`Plan::stream`]s: one for each part of the
//! simulator, so that a change in one part leaves the choices of the others as they are.

use std::fmt;

use fastrand::Rng;
use kv_core::settings::Settings;
use xxhash_rust::xxh3::xxh3_64_with_seed;

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
    /// What things cost.
    pub costs: Costs,
    /// What the network does.
    pub links: Links,
    /// What clients do.
    pub workload: Workload,
    /// Which faults there are.
    pub faults: Faults,
    /// Clocks run up to this much too fast or too slow, in parts per million.
    pub drift_ppm_max: u64,
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
    /// Draws everything.
    #[must_use]
    pub fn draw(seed: u64, options: Options) -> Self {
        let mut rng = Rng::with_seed(mix(seed, "plan"));
        if options.light {
            return Self::light(seed, options);
        }
        let nodes = match rng.u32(..20) {
            0 => 1,
            1..=13 => 3,
            _ => 5,
        };
        let replication = if nodes == 5 && rng.bool() { 5 } else { nodes.min(3) };
        let settings = draw_settings(&mut rng);
        // A batch must fit into a segment, and one may hold all that a follower was behind.
        let segment_bytes = [256, 512, 1_024][rng.usize(..3)] * 1024;
        let faults_secs = options.sim_secs.unwrap_or_else(|| rng.u64(30..=120));
        Self {
            seed,
            nodes,
            shards: rng.u64(1..=8),
            replication,
            faults_micros: faults_secs * 1_000_000,
            quiet_micros_max: 120_000_000,
            segment_bytes,
            log_bytes_max: segment_bytes * rng.u64(3..=12),
            costs: draw_costs(&mut rng),
            links: draw_links(&mut rng, &settings),
            workload: draw_workload(&mut rng),
            faults: if nodes == 1 { draw_faults(&mut rng).for_one_node() } else { draw_faults(&mut rng) },
            drift_ppm_max: [0, 200, 50_000][rng.usize(..3)],
            settings,
        }
    }

    /// The profile of the speed measurement: nothing goes wrong.
    fn light(seed: u64, options: Options) -> Self {
        Self {
            seed,
            nodes: 3,
            shards: 4,
            replication: 3,
            faults_micros: options.sim_secs.unwrap_or(1_000) * 1_000_000,
            quiet_micros_max: 120_000_000,
            settings: Settings { disk_reserve_bytes: 0, block_bytes_max: 256 * 1024, ..Settings::default() },
            segment_bytes: 1024 * 1024,
            log_bytes_max: 64 * 1024 * 1024,
            costs: Costs {
                turn_micros: 20,
                input_micros: 2,
                sync_micros_min: 500,
                sync_micros_max: 2_000,
                step_micros: 200,
                start_micros: 10_000,
            },
            links: Links {
                delay_micros_min: 200,
                jitter_micros: 300,
                ordered: true,
                drop_ppm: 0,
                duplicate_ppm: 0,
                late_ppm: 0,
                late_micros_max: 0,
                reported_percent: 100,
            },
            workload: Workload {
                clients: 4,
                operations_per_second: 10,
                open_max: 4,
                keys: 100,
                value_bytes_max: 64,
                deadline_micros: 5_000_000,
                reads_percent: 50,
                old_reads_percent: 0,
                deletes_percent: 10,
                conditions_percent: 10,
                previous_percent: 10,
                async_percent: 0,
            },
            faults: Faults::default(),
            drift_ppm_max: 0,
        }
    }

    /// The random stream of one part of the simulator.
    #[must_use]
    pub fn stream(&self, part: &str) -> Rng {
        Rng::with_seed(mix(self.seed, part))
    }
}

impl Faults {
    /// With one node there is no other to take over: what damages its only copy is left out.
    fn for_one_node(self) -> Self {
        Self { rot_log: 0.0, rot_file: 0.0, partition: 0.0, partition_one_way: 0.0, link: 0.0, zombie: 0.0, ..self }
    }

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

fn draw_settings(rng: &mut Rng) -> Settings {
    let election_ticks = rng.u64(6..=12);
    Settings {
        election_ticks,
        hand_over_ticks: rng.u64(20..=100),
        hand_over_pause_ticks: rng.u64(50..=200),
        checkpoint_ticks: [20, 100, 400][rng.usize(..3)],
        active_bytes_max: [2, 8, 64][rng.usize(..3)] * 1024,
        tables_bytes_max: [256, 4 * 1024][rng.usize(..2)] * 1024,
        kept_bytes_max: [2, 16, 128][rng.usize(..3)] * 1024,
        kept_node_bytes_max: 1024 * 1024,
        async_commands_max: [3, 20, 1_000][rng.usize(..3)],
        disk_reserve_bytes: 256 * 1024,
        block_bytes_max: 64 * 1024,
        stream_ticks_max: rng.u64(400..=1_600),
        ..Settings::default()
    }
}

fn draw_costs(rng: &mut Rng) -> Costs {
    let sync_micros_min = [50, 500, 4_000][rng.usize(..3)];
    Costs {
        turn_micros: rng.u64(5..=100),
        input_micros: rng.u64(1..=20),
        sync_micros_min,
        sync_micros_max: sync_micros_min * rng.u64(2..=20),
        step_micros: [50, 1_000, 20_000][rng.usize(..3)],
        start_micros: rng.u64(1_000..=200_000),
    }
}

fn draw_links(rng: &mut Rng, settings: &Settings) -> Links {
    let calm = rng.u32(..3) == 0;
    let some = |rng: &mut Rng, most: u32| if calm || rng.bool() { 0 } else { rng.u32(..=most) };
    Links {
        delay_micros_min: rng.u64(50..=3_000),
        jitter_micros: [100, 1_000, 20_000][rng.usize(..3)],
        ordered: rng.bool(),
        drop_ppm: some(rng, 100_000),
        duplicate_ppm: some(rng, 100_000),
        late_ppm: some(rng, 20_000),
        late_micros_max: settings.tick_micros * settings.election_ticks * rng.u64(1..=8),
        reported_percent: [100, 100, 50][rng.usize(..3)],
    }
}

fn draw_workload(rng: &mut Rng) -> Workload {
    Workload {
        clients: rng.u64(2..=8),
        operations_per_second: [5, 20, 60][rng.usize(..3)],
        open_max: rng.usize(1..=8),
        keys: [3, 12, 60][rng.usize(..3)],
        value_bytes_max: [24, 200, 2_000][rng.usize(..3)],
        deadline_micros: rng.u64(500_000..=5_000_000),
        reads_percent: rng.u32(20..=60),
        old_reads_percent: if rng.bool() { rng.u32(..=60) } else { 0 },
        deletes_percent: rng.u32(..=30),
        conditions_percent: rng.u32(..=40),
        previous_percent: rng.u32(..=30),
        async_percent: if rng.bool() { rng.u32(10..=80) } else { 0 },
    }
}

fn draw_faults(rng: &mut Rng) -> Faults {
    let mut some = |often: f64| if rng.u32(..5) < 2 { often * (0.3 + 1.4 * rng.f64()) } else { 0.0 };
    let mut faults = Faults {
        crash: some(8.0),
        crash_all: some(2.0),
        crash_in_recovery: some(3.0),
        kill: some(6.0),
        pause: some(8.0),
        partition: some(5.0),
        partition_one_way: some(4.0),
        link: some(6.0),
        slow_disk: some(4.0),
        failed_sync: some(3.0),
        disk_full: some(2.0),
        rot_log: some(2.0),
        rot_file: some(2.0),
        store_lost: some(3.0),
        store_altered: some(4.0),
        transfer: some(8.0),
        zombie: some(6.0),
        lasts_micros: 0,
    };
    faults.lasts_micros = [300_000, 2_000_000, 8_000_000][rng.usize(..3)];
    faults
}

/// A number that depends on the seed and the name of a part.
#[must_use]
pub fn mix(seed: u64, part: &str) -> u64 {
    xxh3_64_with_seed(part.as_bytes(), seed)
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (work, links) = (&self.workload, &self.links);
        writeln!(
            f,
            "seed {}: {} nodes, {} shards of {} replicas and the meta shard; {} s with faults, then quiet",
            self.seed,
            self.nodes,
            self.shards,
            self.replication,
            self.faults_micros / 1_000_000
        )?;
        writeln!(
            f,
            "  clients: {} with up to {} open, {} operations a second on {} keys, values up to {} B, deadline {} ms; {} % reads \
             ({} % of them old), {} % deletes, {} % conditions, {} % async",
            work.clients,
            work.open_max,
            work.operations_per_second,
            work.keys,
            work.value_bytes_max,
            work.deadline_micros / 1_000,
            work.reads_percent,
            work.old_reads_percent,
            work.deletes_percent,
            work.conditions_percent,
            work.async_percent
        )?;
        writeln!(
            f,
            "  network: {} us + {} us, {}, lost {} ppm ({} % reported), twice {} ppm, late {} ppm by up to {} ms; clocks within {} ppm",
            links.delay_micros_min,
            links.jitter_micros,
            if links.ordered { "in order" } else { "out of order" },
            links.drop_ppm,
            links.reported_percent,
            links.duplicate_ppm,
            links.late_ppm,
            links.late_micros_max / 1_000,
            self.drift_ppm_max
        )?;
        writeln!(
            f,
            "  nodes: sync {} to {} us, election {} ticks, checkpoints every {} ticks or {} B, {} B of log kept, segments of {} B",
            self.costs.sync_micros_min,
            self.costs.sync_micros_max,
            self.settings.election_ticks,
            self.settings.checkpoint_ticks,
            self.settings.active_bytes_max,
            self.settings.kept_bytes_max,
            self.segment_bytes
        )?;
        write!(f, "  faults a minute:")?;
        for (name, often) in self.faults.kinds().into_iter().filter(|(_, often)| *often > 0.0) {
            write!(f, " {name} {often:.1}")?;
        }
        write!(f, ", lasting {} ms", self.faults.lasts_micros / 1_000)
    }
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
