//! The story that is crashed at every step: twelve seconds of three nodes with all that a disk can be in the midst of.
//!
//! | second | what happens to the node that is recorded |
//! |---|---|
//! | 0 | its first start: log, identity, the records that create its replicas |
//! | 0 to 12 | writes, elections, segments that are recycled, checkpoints by the dozen, merges to a base |
//! | 3 | it is cut off until the others have given up the log that it lacks: snapshots are installed |
//! | 7.5 | it is killed and a checkpoint's file damaged: its state comes from a peer |
//! | 9.5 | its power goes |
//!
//! *Never in it*: async writes, more than three nodes, a second fault at once (the swarm of the simulator has those), values
//! of more than a few sectors.

use std::collections::BTreeMap;

use kv_core::types::{Digest, LogIndex, ShardId};

use super::tape::{Note, Promise, Tape};
use crate::{
    disk::image::Image,
    sim::{
        plan::{Options, Plan},
        trace::Trace,
        world::World,
    },
};

/// The node that is recorded: it owns a shard and follows in others.
pub(super) const NODE: usize = 0;

/// What was recorded.
pub(super) struct Story {
    pub(super) plan: Plan,
    /// The disk before each step, with what was promised then.
    pub(super) moments: Vec<(Image, Promise)>,
    /// The digest of each state that was seen, on whatever node.
    pub(super) digests: BTreeMap<(ShardId, LogIndex), Digest>,
    /// What the run saw.
    pub(super) looks: Looks,
}

/// That the story has in it what it should.
#[derive(Clone, Copy, Debug, Default)]
pub struct Looks {
    /// Steps of the recorded disk.
    pub steps: usize,
    /// Checkpoints, of all nodes.
    pub checkpoints: u64,
    /// New base files, of the recorded node.
    pub merges: usize,
    /// Snapshots installed, of all nodes.
    pub installs: u64,
    /// States that came from a peer, of all nodes.
    pub states_lost: u64,
    /// Segments given up by the recorded node.
    pub recycled: u64,
}

/// The choices of the story: small segments and tables, checkpoints all the time.
pub(super) fn plan(seed: u64) -> Plan {
    let mut plan = Plan::draw(seed, Options { sim_secs: Some(12), light: true });
    plan.shards = 2;
    plan.segment_bytes = 16 * 1024;
    plan.log_bytes_max = 4 * plan.segment_bytes;
    plan.settings.block_bytes_max = 4 * 1024;
    plan.settings.checkpoint_ticks = 3;
    plan.settings.active_bytes_max = 2 * 1024;
    plan.settings.kept_bytes_max = 512;
    plan.settings.checkpoint_percent = 50;
    plan.settings.hand_over_ticks = 20;
    plan.settings.hand_over_pause_ticks = 40;
    plan.workload.operations_per_second = 40;
    plan.workload.keys = 12;
    plan.workload.value_bytes_max = 300;
    plan.workload.reads_percent = 10;
    plan
}

/// Runs the story, with what is done before its first event.
pub(super) fn play(plan: Plan, prepare: impl FnOnce(&mut World)) -> World {
    let mut world = World::new(plan, Trace::new(None));
    prepare(&mut world);
    world.run_until(3_000_000);
    let others: Vec<usize> = (0..world.machines.len()).filter(|node| *node != NODE).collect();
    for other in &others {
        world.network.cut(NODE, *other);
        world.network.cut(*other, NODE);
    }
    world.run_until(5_500_000);
    for other in others {
        world.network.mend(NODE, other);
        world.network.mend(other, NODE);
    }
    world.run_until(7_500_000);
    world.stop(NODE, false, "killed");
    if let Some(tape) = &mut world.tape {
        tape.note(NODE, || Note::Damaged);
    }
    let start = world.machines[NODE].start;
    assert!(world.injector.atlas.admits_all_files(NODE, start), "the others are whole");
    let disk = &world.machines[NODE].disk;
    // What all of the meta shard's checkpoints stand on, so that no older one serves in place of the newest. That shard's log is
    // short: no snapshot of raft's comes first.
    if let Some(path) = disk.paths().into_iter().find(|path| path.contains("base-")) {
        disk.flip_bit(&path, 300);
    }
    world.schedule_start(NODE, 100_000);
    world.run_until(9_500_000);
    world.stop(NODE, true, "crashed");
    world.schedule_start(NODE, 100_000);
    world.run_until(12_000_000);
    world
}

impl Story {
    /// Plays the story and records it.
    ///
    /// # Errors
    /// If it does not even hold without a crash.
    pub(super) fn record(seed: u64) -> Result<Self, String> {
        let plan = plan(seed);
        let mut world = play(plan.clone(), |world| {
            world.tape = Some(Tape::new(NODE, &world.machines[NODE].disk));
        });
        if let Some(violation) = world.failure.take() {
            return Err(violation.to_string());
        }
        let mut looks = Looks {
            checkpoints: world.counts.checkpoints,
            installs: world.counts.installs,
            states_lost: world.counts.states_lost,
            recycled: world.machines[NODE].segments_recycled(),
            ..Looks::default()
        };
        let tape = world.tape.take().expect("it was put in above");
        let shards: Vec<ShardId> = (0..=plan.shards).map(ShardId).collect();
        let moments = tape.end(Promise::default(), &shards)?;
        looks.steps = moments.len();
        let is_merging = |(image, _): &(Image, Promise)| {
            image.disk().paths().iter().any(|path| path.contains("base-") && path.ends_with(".new"))
        };
        looks.merges = moments.windows(2).filter(|two| !is_merging(&two[0]) && is_merging(&two[1])).count();
        Ok(Self { plan, moments, digests: world.judge.digests(), looks })
    }
}
