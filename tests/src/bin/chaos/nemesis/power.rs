//! Power cuts: a node, or all of them, come back with the disk that the moment of the cut had. How, and what *can't be produced* that
//! way, is told where the images are (`disks`). Just before, a file is written beside the node's and not synced: a disk that has it
//! afterwards lost nothing, and does not count.

use std::time::Duration;

use futures_util::future::join_all;

use crate::{
    disks::Disk,
    tools::aside,
    world::{Taken, World},
};

/// Milliseconds without power.
const DARK_MS: std::ops::Range<u64> = 100..3_000;
/// A cluster that comes back from a cut should be whole so soon; the next cut does not wait longer.
const WHOLE_WAIT: Duration = Duration::from_secs(15);

/// Cuts the power of one node.
pub(super) async fn one(world: &World, random: &mut fastrand::Rng) -> Result<bool, String> {
    let Some(taken) = world.take_any(random) else { return Ok(false) };
    cut(world, random, "power", vec![taken]).await
}

/// Cuts the power of all nodes.
pub(super) async fn all(world: &World, random: &mut fastrand::Rng) -> Result<bool, String> {
    let taken = world.take_all();
    if taken.is_empty() {
        return Ok(false);
    }
    let did = cut(world, random, "power-all", taken).await;
    // Some writes must have a chance before the next one.
    let _whole = world.wait_whole(WHOLE_WAIT).await;
    did
}

async fn cut(world: &World, random: &mut fastrand::Rng, name: &str, taken: Vec<Taken<'_>>) -> Result<bool, String> {
    let nodes: Vec<_> = taken.iter().map(|taken| taken.node).collect();
    let from = world.recorder.micros();
    for node in &nodes {
        world.cluster.borrow_mut().stop(*node);
    }
    let disks: Result<Vec<_>, _> =
        nodes.iter().map(|node| world.cluster.borrow().disk(*node).ok_or("no disks")).collect();
    let disks = disks?;
    disks.iter().try_for_each(Disk::write_unsynced)?;
    let copies = join_all(disks.iter().cloned().map(|disk| aside(move || disk.copy()))).await;
    world.kill(&nodes);
    let copies: Vec<_> = copies.into_iter().collect::<Result<_, _>>()?;
    let replaced = disks.into_iter().zip(copies).map(|(disk, copy)| {
        aside(move || {
            disk.replace_with(&copy)?;
            disk.has_lost_unsynced()
        })
    });
    let lost = join_all(replaced).await.into_iter().collect::<Result<Vec<_>, _>>()?;
    let lost = lost.into_iter().filter(|lost| *lost).count();
    world.hold(Duration::from_millis(random.u64(DARK_MS))).await;
    for node in &nodes {
        world.cluster.borrow_mut().spawn(*node)?;
    }
    if lost > 0 {
        let detail = format!("{lost} of {} disks as they were, without what was not written to them", nodes.len());
        world.record(name, from, &nodes, detail);
    }
    Ok(lost > 0)
}
