//! Processes: killed, stopped, starved.
//!
//! *Can't produce* the loss of what was written and not synced: a killed process' writes stay in the kernel (see `power`). A stopped
//! process' clock goes on, and its kernel still answers on the network; `starve` is stopping too, many times a second, so that
//! all threads of the node stand still at the same moments.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use kv_client::ClusterStatus;
use kv_core::types::ShardId;
use tokio::time::sleep;

use crate::world::World;

/// A kill is measured by itself only if the cluster was whole before; it is not waited for that any longer.
const WHOLE_WAIT: Duration = Duration::from_secs(15);
/// Milliseconds that a killed node stays away.
const AWAY_MS: std::ops::Range<u64> = 500..4_000;
/// Milliseconds that a node is stopped: up to eight times the longest election timeout.
const STOPPED_MS: std::ops::Range<u64> = 300..8_000;
/// Milliseconds that a node is starved.
const STARVED_MS: std::ops::Range<u64> = 3_000..10_000;
/// Milliseconds that it stands still at a time, and that it runs in between.
const STARVED_STILL_MS: std::ops::Range<u64> = 45..95;
const STARVED_RUNS_MS: u64 = 5;

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

/// Stops a node for a while.
pub(super) async fn pause(world: &World, random: &mut fastrand::Rng) -> Result<bool, String> {
    let busy = if random.bool() { busiest(&world.status().await?).0 } else { None };
    let taken = busy.and_then(|node| world.take(node)).or_else(|| world.take_any(random));
    let Some(taken) = taken else { return Ok(false) };
    let from = world.recorder.micros();
    world.cluster.borrow_mut().stop(taken.node);
    world.hold(Duration::from_millis(random.u64(STOPPED_MS))).await;
    world.cluster.borrow_mut().resume(taken.node);
    world.record("pause", from, &[taken.node], "SIGSTOP, SIGCONT".to_owned());
    Ok(true)
}

/// Lets a node run only now and then.
pub(super) async fn starve(world: &World, random: &mut fastrand::Rng) -> Result<bool, String> {
    let Some(taken) = world.take_any(random) else { return Ok(false) };
    let from = world.recorder.micros();
    let still = Duration::from_millis(random.u64(STARVED_STILL_MS));
    let time = Duration::from_millis(random.u64(STARVED_MS));
    let began = Instant::now();
    while began.elapsed() < time && !world.stops.get() {
        world.cluster.borrow_mut().stop(taken.node);
        sleep(still).await;
        world.cluster.borrow_mut().resume(taken.node);
        sleep(Duration::from_millis(STARVED_RUNS_MS)).await;
    }
    world.record("starve", from, &[taken.node], format!("runs {STARVED_RUNS_MS} ms, stands still {still:?}"));
    Ok(true)
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
