//! Wall clocks that jump, by libfaketime.
//!
//! *Can't produce* a monotonic clock that jumps or drifts: the kernel has one for all, and the server asks it directly. The
//! simulator's clocks drift and jump.

use std::time::Duration;

use tokio::time::sleep;

use crate::world::World;

/// How often it is looked whether a node that has just been started has loaded the library.
const LOOKS: u32 = 50;

/// Seconds by which a clock is off: up to a year.
const OFF_SECS: i64 = 366 * 24 * 3600;

/// Sets a node's clock off for a while.
pub(super) async fn jump(world: &World, random: &mut fastrand::Rng) -> Result<bool, String> {
    let nodes = world.nodes();
    let node = nodes[random.usize(0..nodes.len())];
    for look in 0.. {
        let has_clock = world.cluster.borrow().has_clock(node);
        match has_clock {
            None => return Ok(false),
            Some(true) => break,
            // One that was started just now may not have loaded it yet.
            Some(false) if look < LOOKS => sleep(Duration::from_millis(100)).await,
            Some(false) => return Err(format!("node {node} runs without libfaketime: its clock can't be set")),
        }
    }
    let scale = [60, 3_600, OFF_SECS][random.usize(0..3)];
    // Not by nothing.
    let seconds = if random.bool() { 1 } else { -1 } * random.i64(1..=scale);
    let from = world.recorder.micros();
    world.cluster.borrow().set_clock(node, seconds)?;
    world.hold(Duration::from_millis(random.u64(200..4_000))).await;
    world.cluster.borrow().set_clock(node, 0)?;
    world.record("clock", from, &[node], format!("{seconds:+} s"));
    Ok(true)
}
