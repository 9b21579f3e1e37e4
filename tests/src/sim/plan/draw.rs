//! How a plan's choices are drawn: the ranges of everything, and how often each kind of fault is left out.
//!
//! A change here gives every seed another meaning. What is new is better drawn from a stream of its own.

use fastrand::Rng;
use kv_core::{
    checkpoint::{MERGE_FILES, SLICE_RECORDS_MAX},
    inbox::Limits,
    message::CHUNK_BYTES_MAX,
    settings::Settings,
};

use super::{
    super::storms::Storms, Clients, Costs, Divergences, Faults, Founding, Kept, Links, Losses, Names, Operated,
    Options, Plan, Unaware, Workload, clients::draw_session_bounds, mix, operated::draw_nodes,
};

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
        let nodes = draw_nodes(seed, nodes);
        let replication = if nodes >= 5 && rng.bool() { 5 } else { nodes.min(3) };
        let settings = Settings {
            waiting_requests_max: draw_waiting(seed),
            checkpoint_percent: draw_checkpoints(seed),
            ..draw_settings(&mut rng)
        };
        // A batch must fit into a segment, and one may hold all that a follower was behind.
        let segment_bytes = [256, 512, 1_024][rng.usize(..3)] * 1024;
        let faults_secs = options.sim_secs.unwrap_or_else(|| rng.u64(30..=120));
        let mut plan = Self {
            seed,
            faults_kept: Kept::All,
            nodes,
            shards: rng.u64(1..=8),
            replication,
            faults_micros: faults_secs * 1_000_000,
            // Where slow disks, small steps and tight bounds are drawn together it takes minutes until all have caught up.
            quiet_micros_max: 300_000_000,
            segment_bytes,
            log_bytes_max: segment_bytes * rng.u64(3..=12),
            chunk_bytes_max: draw_chunk(seed),
            slice_records_max: draw_slice(seed),
            merge_deltas: draw_merges(seed),
            costs: Costs { install_micros_max: draw_install(seed), ..draw_costs(&mut rng) },
            links: draw_links(&mut rng, &settings),
            workload: draw_workload(&mut rng),
            faults: if nodes == 1 { draw_faults(&mut rng).for_one_node() } else { draw_faults(&mut rng) },
            inbox: Limits::default(),
            refuse_micros: 0,
            storms: Storms::draw(Rng::with_seed(mix(seed, "storm kinds")), nodes),
            drift_ppm_max: [0, 200, 50_000][rng.usize(..3)],
            founding: Founding::draw(seed),
            divergences: Divergences::default(),
            losses: Losses::default(),
            unaware: Unaware::default(),
            names: Names::default(),
            streams_cut: 0,
            full_merges: 0,
            operated: Operated::draw(seed, nodes),
            clients: Clients::draw(seed),
            settings: draw_session_bounds(seed, settings),
        };
        let has_faults = plan.faults.kinds().iter().any(|(_, often)| *often > 0.0);
        plan.divergences = Divergences::draw(seed, replication.min(nodes), has_faults);
        plan.draw_losses();
        plan.draw_unaware();
        plan.names = Names::draw(seed, has_faults);
        plan.streams_cut = u64::from(has_faults && plan.stream("cut streams").u32(..6) == 0);
        plan.draw_full_merges();
        plan.tighten();
        plan
    }

    /// The profile of the speed measurement: nothing goes wrong.
    fn light(seed: u64, options: Options) -> Self {
        Self {
            seed,
            faults_kept: Kept::All,
            nodes: 3,
            shards: 4,
            replication: 3,
            faults_micros: options.sim_secs.unwrap_or(1_000) * 1_000_000,
            quiet_micros_max: 120_000_000,
            settings: Settings { disk_reserve_bytes: 0, block_bytes_max: 256 * 1024, ..Settings::default() },
            segment_bytes: 1024 * 1024,
            log_bytes_max: 64 * 1024 * 1024,
            chunk_bytes_max: CHUNK_BYTES_MAX,
            slice_records_max: SLICE_RECORDS_MAX,
            merge_deltas: MERGE_FILES,
            costs: Costs {
                turn_micros: 20,
                input_micros: 2,
                sync_micros_min: 500,
                sync_micros_max: 2_000,
                install_micros_max: 0,
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
            inbox: Limits::default(),
            refuse_micros: 0,
            storms: Storms::default(),
            drift_ppm_max: 0,
            founding: Founding::default(),
            divergences: Divergences::default(),
            losses: Losses::default(),
            unaware: Unaware::default(),
            names: Names::default(),
            streams_cut: 0,
            full_merges: 0,
            operated: Operated::default(),
            clients: Clients::default(),
        }
    }
}

impl Faults {
    /// With one node there is no other to take over: what damages its only copy is left out.
    fn for_one_node(self) -> Self {
        Self { rot_log: 0.0, rot_file: 0.0, partition: 0.0, partition_one_way: 0.0, link: 0.0, zombie: 0.0, ..self }
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

/// In a fourth of all runs so few requests may wait that some are refused.
fn draw_waiting(seed: u64) -> usize {
    let mut rng = Rng::with_seed(mix(seed, "bounds"));
    if rng.u32(..4) == 0 { rng.usize(2..=8) } else { Settings::default().waiting_requests_max }
}

/// When checkpoints are due: early, as by default, or hardly before they would no longer wait for a mark.
fn draw_checkpoints(seed: u64) -> usize {
    let mut rng = Rng::with_seed(mix(seed, "checkpoints"));
    [50, 65, 65, 90][rng.usize(..4)]
}

/// In a third of all runs a disk is slow just when it writes an install, so that the next snapshot comes meanwhile.
fn draw_install(seed: u64) -> u64 {
    let mut rng = Rng::with_seed(mix(seed, "installs"));
    [0, 0, 0, 0, 1_000_000, 8_000_000][rng.usize(..6)]
}

/// In a fourth of all runs files are sent in many pieces.
fn draw_chunk(seed: u64) -> usize {
    let mut rng = Rng::with_seed(mix(seed, "chunks"));
    if rng.u32(..4) == 0 { [512, 2_048, 8_192][rng.usize(..3)] } else { CHUNK_BYTES_MAX }
}

/// In a fourth of all runs the checkpoint thread's work has many steps.
fn draw_slice(seed: u64) -> usize {
    let mut rng = Rng::with_seed(mix(seed, "slices"));
    if rng.u32(..4) == 0 { [1, 4, 16][rng.usize(..3)] } else { SLICE_RECORDS_MAX }
}

/// In a fourth of all runs checkpoints are merged all the time.
fn draw_merges(seed: u64) -> usize {
    let mut rng = Rng::with_seed(mix(seed, "merges"));
    if rng.u32(..4) == 0 { [2, 4, 8][rng.usize(..3)] } else { MERGE_FILES }
}

fn draw_costs(rng: &mut Rng) -> Costs {
    let sync_micros_min = [50, 500, 4_000][rng.usize(..3)];
    Costs {
        turn_micros: rng.u64(5..=100),
        input_micros: rng.u64(1..=20),
        sync_micros_min,
        sync_micros_max: sync_micros_min * rng.u64(2..=20),
        install_micros_max: 0,
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
