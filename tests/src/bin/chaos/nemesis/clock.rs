//! Wall clocks that jump, by libfaketime.
//!
//! *Can't produce* a monotonic clock that jumps or drifts: the kernel has one for all, and the server asks it directly. The
//! simulator's clocks drift and jump.

use std::time::Duration;

use crate::world::World;

/// Seconds by which a clock is off: up to a year.
const OFF_SECS: i64 = 366 * 24 * 3600;

/// Sets a node's clock off for a while.
pub(super) async fn jump(world: &World, random: &mut fastrand::Rng) -> Result<bool, String> {
    let nodes = world.nodes();
    let node = nodes[random.usize(0..nodes.len())];
    let scale = [60, 3_600, OFF_SECS][random.usize(0..3)];
    let seconds = random.i64(-scale..=scale);
    let from = world.recorder.micros();
    world.cluster.borrow().set_clock(node, seconds)?;
    world.hold(Duration::from_millis(random.u64(200..4_000))).await;
    world.cluster.borrow().set_clock(node, 0)?;
    world.record("clock", from, &[node], format!("{seconds:+} s"));
    Ok(true)
}
