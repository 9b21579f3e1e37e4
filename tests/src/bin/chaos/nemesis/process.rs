//! Processes: killed, stopped, starved.
//!
//! *Can't produce* the loss of what was written and not synced: a killed process' writes stay in the kernel (see `power`). A stopped
//! process' clock goes on, and its kernel still answers on the network; `starve` is stopping too, many times a second, so that
//! all threads of the node stand still at the same moments. Both count by what the kernel says of the node's threads and CPU.

use std::{
    collections::BTreeMap,
    num::NonZero,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use kv_client::ClusterStatus;
use kv_core::types::ShardId;
use kv_tests::usage::{cpu, stands_still};
use tokio::time::sleep;

use crate::world::World;

/// A kill is measured by itself only if the cluster was whole before; it is not waited for that any longer.
const WHOLE_WAIT: Duration = Duration::from_secs(15);
/// Milliseconds that a killed node stays away.
const AWAY_MS: std::ops::Range<u64> = 500..4_000;
/// Milliseconds that a node is stopped: up to eight times the longest election timeout.
const STOPPED_MS: std::ops::Range<u64> = 300..8_000;
/// All threads of a node that is told to stop must have done so by then: one that waits for a disk stops afterwards.
const STOP_WAIT: Duration = Duration::from_secs(1);
/// Pause between two looks at that.
const STOP_LOOK: Duration = Duration::from_millis(2);
/// Milliseconds that a node is starved.
const STARVED_MS: std::ops::Range<u64> = 3_000..10_000;
/// Milliseconds that it stands still at a time, and that it runs in between.
const STARVED_STILL_MS: std::ops::Range<u64> = 45..95;
const STARVED_RUNS_MS: u64 = 5;
/// It counts if the node was seen to stand still at so many of a hundred times that it should.
const STARVED_SEEN_PERCENT: usize = 90;
/// What the kernel's account of CPU may be off by: a tick of its clock for user and for system time, before and after.
const CPU_SLACK: Duration = Duration::from_millis(40);

/// Kills the node that leads most shards, and measures when each of them takes a write again.
pub(super) async fn kill(world: &World, random: &mut fastrand::Rng) -> Result<bool, String> {
    let wait = if world.faults_now() == 1 { WHOLE_WAIT } else { Duration::ZERO };
    let is_whole = world.wait_whole(wait).await.is_ok();
    if world.stops.get() {
        return Ok(false);
    }
    let (victim, led) = busiest(&world.status().await?);
    // Among other faults it may be that nobody leads, or that somebody has the busiest: then it is any that can be had.
    let taken = victim.and_then(|node| world.take(node)).or_else(|| world.take_any(random));
    let Some(taken) = taken else { return Ok(false) };
    let led = if victim == Some(taken.node) { led } else { Vec::new() };
    let from = world.recorder.micros();
    let alone = world.faults_begun();
    world.kill(&[taken.node]);
    let back = async {
        world.hold(Duration::from_millis(random.u64(AWAY_MS))).await;
        world.cluster.borrow_mut().spawn(taken.node)
    };
    let (waits, is_back) = tokio::join!(join_all(led.iter().map(|shard| world.probe(*shard))), back);
    is_back?;
    let took: Vec<_> = waits.into_iter().flatten().collect();
    // With another fault at the same time it is not the kill that is measured.
    if is_whole && !took.is_empty() && alone == world.faults_begun() && world.faults_now() == 1 {
        world.failovers.borrow_mut().push(took);
    }
    world.record("kill", from, &[taken.node], format!("SIGKILL; it led {} shards", led.len()));
    Ok(true)
}

/// Kills all nodes at once.
pub(super) async fn kill_all(world: &World, random: &mut fastrand::Rng) -> Result<bool, String> {
    let taken = world.take_all();
    let nodes: Vec<_> = taken.iter().map(|taken| taken.node).collect();
    if nodes.is_empty() {
        return Ok(false);
    }
    let from = world.recorder.micros();
    world.kill(&nodes);
    world.hold(Duration::from_millis(random.u64(0..1_500))).await;
    for node in &nodes {
        world.cluster.borrow_mut().spawn(*node)?;
        if random.bool() {
            world.hold(Duration::from_millis(random.u64(0..1_000))).await;
        }
    }
    world.record("kill-all", from, &nodes, "SIGKILL of all".to_owned());
    // Some writes must have a chance before the next one.
    let _whole = world.wait_whole(WHOLE_WAIT).await;
    Ok(true)
}

/// Stops a node for a while. It counts if no thread of it ran meanwhile.
pub(super) async fn pause(world: &World, random: &mut fastrand::Rng) -> Result<bool, String> {
    let busy = if random.bool() { busiest(&world.status().await?).0 } else { None };
    let taken = busy.and_then(|node| world.take(node)).or_else(|| world.take_any(random));
    let Some(taken) = taken else { return Ok(false) };
    let Some(process) = world.cluster.borrow().process(taken.node) else { return Ok(false) };
    let from = world.recorder.micros();
    world.cluster.borrow_mut().stop(taken.node);
    let used_before = still(process).await;
    world.hold(Duration::from_millis(random.u64(STOPPED_MS))).await;
    let stood = used_before.is_some() && used_before == used_if_still(process);
    world.cluster.borrow_mut().resume(taken.node);
    if stood {
        world.record("pause", from, &[taken.node], "SIGSTOP, SIGCONT; no thread of it ran".to_owned());
    }
    Ok(stood)
}

/// The CPU that a node has used, once all of its threads stand still; `None` if they don't.
async fn still(process: u32) -> Option<Duration> {
    let began = Instant::now();
    while began.elapsed() < STOP_WAIT {
        let used = used_if_still(process);
        if used.is_some() {
            return used;
        }
        sleep(STOP_LOOK).await;
    }
    None
}

fn used_if_still(process: u32) -> Option<Duration> {
    if stands_still(process) == Ok(true) { cpu(process).ok() } else { None }
}

/// Lets a node run only now and then. It counts if the node was seen to stand still in between, and used some CPU, and no more than there
/// is in the time that it had.
pub(super) async fn starve(world: &World, random: &mut fastrand::Rng) -> Result<bool, String> {
    let Some(taken) = world.take_any(random) else { return Ok(false) };
    let Some(process) = world.cluster.borrow().process(taken.node) else { return Ok(false) };
    let from = world.recorder.micros();
    let still = Duration::from_millis(random.u64(STARVED_STILL_MS));
    let time = Duration::from_millis(random.u64(STARVED_MS));
    let (used_before, began) = (cpu(process), Instant::now());
    let (mut stops, mut seen, mut ran) = (0, 0, Duration::ZERO);
    while began.elapsed() < time && !world.stops.get() {
        world.cluster.borrow_mut().stop(taken.node);
        sleep(still).await;
        stops += 1;
        seen += usize::from(stands_still(process) == Ok(true));
        world.cluster.borrow_mut().resume(taken.node);
        let resumed = Instant::now();
        sleep(Duration::from_millis(STARVED_RUNS_MS)).await;
        ran += resumed.elapsed();
    }
    let lasted = began.elapsed();
    let (Ok(used_before), Ok(used_after)) = (used_before, cpu(process)) else { return Ok(false) };
    let used = used_after.saturating_sub(used_before);
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let had = ran.saturating_mul(u32::try_from(cores).unwrap_or(u32::MAX)) + CPU_SLACK;
    let is_starved = seen * 100 >= stops * STARVED_SEEN_PERCENT && used > Duration::ZERO && used <= had;
    if is_starved {
        let detail = format!("ran {ran:.1?} of {lasted:.1?}, in {stops} pieces, and used {used:?} of CPU");
        world.record("starve", from, &[taken.node], detail);
    }
    Ok(is_starved)
}

/// The node that leads most shards, and which.
fn busiest(status: &ClusterStatus) -> (Option<usize>, Vec<ShardId>) {
    let mut leads: BTreeMap<u64, Vec<ShardId>> = BTreeMap::new();
    // Nobody writes to the meta shard.
    for shard in status.shards.iter().filter(|shard| shard.shard.0 > 0) {
        if let Some(leader) = shard.leader {
            leads.entry(leader.0).or_default().push(shard.shard);
        }
    }
    let most = leads.into_iter().max_by_key(|(_, shards)| shards.len());
    most.map_or((None, Vec::new()), |(node, shards)| (usize::try_from(node).ok(), shards))
}
