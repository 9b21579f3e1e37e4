//! Hard places of disks, each by itself: a disk that stalls, a log that can't shrink, a damaged log and its hole.

use kv_core::{
    log::{
        Log, LogSettings,
        record::{HardState, LogBatch, Record, Recovered},
    },
    node::Role,
    types::ShardId,
};

use super::{
    plan::{Options, Plan},
    rot::{Damage, ends_in_the_hole, judge_damage},
    trace::Trace,
    world::World,
};
use crate::disk::SimDisk;

fn calm(sim_secs: u64) -> Plan {
    let mut plan = Plan::draw(3, Options { sim_secs: Some(sim_secs), light: true });
    plan.workload.operations_per_second = 40;
    plan
}

fn leads_any(world: &World, node: usize) -> bool {
    let leads = |shard| world.machines[node].shard_status(shard).is_some_and(|status| status.role == Role::Leader);
    (0..=world.plan.shards).map(ShardId).any(leads)
}

fn served(world: &World) -> u64 {
    world.counts.operations.iter().filter(|((_, told), _)| *told == "ok").map(|(_, count)| count).sum()
}

fn end(mut world: World) {
    world.quieten();
    world.settle();
    let (report, _) = world.finish();
    assert!(report.failure.is_none(), "{report}\n{:?}", report.failure);
}

#[test]
fn a_node_whose_disk_answers_nothing_leads_nothing_until_it_does() {
    let mut world = World::new(calm(60), Trace::new(None));
    world.run_until(5_000_000);
    assert!(leads_any(&world, 0), "it owns a shard");
    world.machines[0].stalled_until = 30_000_000;
    world.run_until(8_000_000);
    let before = served(&world);
    for second in 8..30 {
        world.run_until(second * 1_000_000);
        assert!(!leads_any(&world, 0), "at {second} s");
    }
    let during = served(&world) - before;
    assert!(during > 22 * 30, "the others serve meanwhile: {during} of about 880");
    world.run_until(60_000_000);
    assert!(leads_any(&world, 0), "its own shards came back");
    end(world);
}

#[test]
fn a_log_that_cannot_shrink_refuses_writes_at_its_bound_and_takes_them_again_afterwards() {
    let mut plan = calm(60);
    (plan.nodes, plan.replication, plan.shards) = (1, 1, 2);
    plan.workload.operations_per_second = 200;
    plan.segment_bytes = 32 * 1024;
    plan.log_bytes_max = 4 * plan.segment_bytes;
    plan.settings.block_bytes_max = 8 * 1024;
    plan.settings.checkpoint_ticks = 10;
    plan.settings.log_bytes_max = 8 * plan.segment_bytes;
    let most = plan.settings.log_bytes_max;
    let segment_bytes = plan.segment_bytes;
    let mut world = World::new(plan, Trace::new(None));
    world.run_until(3_000_000);
    // The checkpoint thread stands still: no checkpoint, and all shards keep the oldest segment.
    world.machines[0].process.as_mut().unwrap().step_scheduled = true;
    world.run_until(15_000_000);
    let used =
        |world: &World| world.machines[0].disk.paths().iter().filter(|path| path.starts_with("log/")).count() as u64;
    let before = served(&world);
    world.run_until(20_000_000);
    assert!(used(&world) * segment_bytes <= most + 3 * segment_bytes, "{} segments", used(&world));
    let reads = served(&world) - before;
    world.machines[0].process.as_mut().unwrap().step_scheduled = false;
    world.schedule_step(0);
    // Clients that were refused for long come back slowly.
    world.run_until(40_000_000);
    let before = served(&world);
    world.run_until(45_000_000);
    let all = served(&world) - before;
    assert!(all > 3 * reads / 2 && all > 500, "{all} operations served, and {reads} while writes were refused");
    assert!(used(&world) <= 6, "{} segments", used(&world));
    end(world);
}

/// A log that a small run has left, with what it says.
fn log() -> (SimDisk, LogSettings, Recovered) {
    let mut plan = calm(4);
    plan.segment_bytes = 64 * 1024;
    plan.settings.block_bytes_max = 8 * 1024;
    let settings = plan.log_settings();
    let mut world = World::new(plan, Trace::new(None));
    world.run_until(4_000_000);
    world.stop(0, false, "killed");
    let disk = world.machines[0].disk.fork();
    let (_, recovered) = Log::open(disk.log(), settings.clone()).unwrap();
    (disk, settings, recovered)
}

#[test]
fn only_damage_of_all_that_stands_behind_makes_a_block_look_torn() {
    let (disk, settings, _) = log();
    let path =
        disk.paths().into_iter().rfind(|path| path.starts_with("log/") && disk.content(path).unwrap()[0] != 0).unwrap();
    let used = disk.content(&path).unwrap().chunks(512).take_while(|sector| sector[..12] != [0; 12]).count() as u64;
    assert!(used > 20);
    let damaged = |sectors: &[u64]| {
        let after = disk.fork();
        sectors.iter().for_each(|sector| after.zero_sector(&path, *sector));
        judge_damage(&disk, &after, &settings)
    };
    assert_eq!(damaged(&[used - 1]), Damage::InTheHole);
    assert_eq!(damaged(&[used / 2]), Damage::Refused);
    assert_eq!(damaged(&(used / 2..used).collect::<Vec<_>>()), Damage::InTheHole);
    assert_eq!(damaged(&(used / 2..used - 1).collect::<Vec<_>>()), Damage::Refused);
    assert_eq!(damaged(&[]), Damage::Harmless);
    let rotten = disk.fork();
    rotten.flip_bit(&path, (used - 1) * 512 * 8 + 3);
    assert_eq!(judge_damage(&disk, &rotten, &settings), Damage::Harmless);
}

#[test]
fn damage_that_leaves_the_stamps_excuses_no_end_of_the_log() {
    let (disk, settings, _) = log();
    let path =
        disk.paths().into_iter().rfind(|path| path.starts_with("log/") && disk.content(path).unwrap()[0] != 0).unwrap();
    let used = disk.content(&path).unwrap().chunks(512).take_while(|sector| sector[..12] != [0; 12]).count() as u64;
    let flipped = |byte: u64| {
        let after = disk.fork();
        after.flip_bit(&path, ((used - 1) * 512 + byte) * 8);
        (ends_in_the_hole(&disk, &after).len(), judge_damage(&disk, &after, &settings))
    };
    assert_eq!(flipped(15), (1, Damage::Harmless), "a stamp: the log might end there, and does not");
    for byte in [16, 47, 48, 511] {
        assert_eq!(flipped(byte), (0, Damage::Refused), "byte {byte}: to end the log there would be wrong");
    }
}

#[test]
fn a_log_that_says_something_else_without_such_damage_is_found() {
    let (disk, settings, says) = log();
    assert_eq!(judge_damage(&disk, &SimDisk::new(), &settings), Damage::Refused, "no log at all");
    let other = disk.fork();
    let (mut log, _) = Log::open(other.log(), settings.clone()).unwrap();
    let (shard, found) = says.shards.iter().next().unwrap();
    let hard_state = HardState { term: found.hard_state.term.next(), ..found.hard_state };
    let records = vec![Record::HardState { shard: *shard, hard_state }];
    log.append(&LogBatch { records, ..LogBatch::default() }).unwrap();
    assert!(matches!(judge_damage(&disk, &other, &settings), Damage::Wrong(_)), "a term that was never written");
    assert_eq!(judge_damage(&other, &disk, &settings), Damage::InTheHole, "its whole last block is lost");
}
