//! Bits that flip in files, while the node is down.
//!
//! Which nodes may be damaged is drawn once from the seed: a minority, so that of everything a majority stays whole. The log of
//! one of them is damaged at most once in a run; that node must refuse to start, and stays out.
//! A flip counts if the file holds it when the node starts; where in the file nobody looks it may stay unseen.
//! *Can't produce* bits that flip under a running node, in memory or between a check and a use.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use kv_tests::damage::{Flip, files_below, flip_in_the_log, flip_somewhere};
use tokio::time::sleep;

use crate::world::World;

/// How long a node with a damaged log may take to refuse its start.
const REFUSAL_WAIT: Duration = Duration::from_secs(30);
/// One flip in so many is one of the log, until there was one.
const LOG_FLIPS: u8 = 6;
/// The exit code of a node whose data is damaged.
const EXIT_DAMAGED: i32 = 4;

/// Flips a bit of a node of the minority, which is killed for that.
pub(super) async fn flip(world: &World, random: &mut fastrand::Rng) -> Result<bool, String> {
    let nodes = world.nodes().len();
    // The last nodes are the minority: which places of the ring they have is no one's merit.
    let Some(taken) = world.take(nodes - random.usize(0..(nodes - 1) / 2)) else { return Ok(false) };
    let data = world.cluster.borrow().data(taken.node);
    let from = world.recorder.micros();
    world.kill(&[taken.node]);
    let wants_log = random.u8(0..LOG_FLIPS) == 0 && world.out.borrow().is_empty();
    let files = files_below(&data)?;
    let is_log = |path: &PathBuf| path.strip_prefix(&data).is_ok_and(|path| path.starts_with("log"));
    let what = if wants_log {
        flip_in_the_log(&files.into_iter().filter(is_log).collect::<Vec<_>>())?
    } else {
        let is_state = |path: &PathBuf| {
            path.strip_prefix(&data).is_ok_and(|path| path.starts_with("index") || path.starts_with("checkpoints"))
        };
        flip_somewhere(&files.into_iter().filter(is_state).collect::<Vec<_>>(), random)?
    };
    let is_there = what.as_ref().map_or(Ok(false), Flip::is_there)?;
    let Some(flip) = what.filter(|_| is_there) else {
        world.cluster.borrow_mut().spawn(taken.node)?;
        return Ok(false);
    };
    if wants_log {
        world.may_end.borrow_mut().insert(taken.node);
        world.out.borrow_mut().insert(taken.node);
    }
    world.cluster.borrow_mut().spawn(taken.node)?;
    if wants_log {
        refuses(world, taken.node).await;
    }
    let short = flip.path.strip_prefix(&data).unwrap_or(&flip.path).display().to_string();
    world.record(
        "flip",
        from,
        &[taken.node],
        format!("one bit of {short}{}", if wants_log { "; it stays out" } else { "" }),
    );
    Ok(true)
}

/// A node whose log is damaged in the middle must not start.
async fn refuses(world: &World, node: usize) {
    let began = Instant::now();
    let mut ended = None;
    while ended.is_none() && began.elapsed() < REFUSAL_WAIT {
        sleep(Duration::from_millis(20)).await;
        ended = world.cluster.borrow_mut().has_ended(node);
    }
    if ended.and_then(|status| status.code()) != Some(EXIT_DAMAGED) {
        world.kill(&[node]);
        world.violated(format!("node {node} did not refuse a damaged log: {ended:?}"));
    }
}
