//! A disk that is full, by a file that takes the room.
//!
//! *Can't produce* a file system that has no more inodes, or quotas.

use std::{fs, path::Path, process::Command, time::Duration};

use crate::{
    tools::{aside, run},
    world::World,
};

/// Below this many free bytes a node takes no writes (the server's default).
const RESERVE_BYTES: u64 = 256 * 1024 * 1024;
/// A disk counts as full with so much more left: the file system needs some blocks to note which the filler has.
const SLACK_BYTES: u64 = 16 * 1024 * 1024;
/// Milliseconds that a disk is full.
const FULL_MS: std::ops::Range<u64> = 3_000..10_000;

/// Fills a node's disk, below its reserve or entirely.
pub(super) async fn full(world: &World, random: &mut fastrand::Rng) -> Result<bool, String> {
    let Some(taken) = world.take_any(random) else { return Ok(false) };
    let disk = world.cluster.borrow().disk(taken.node).ok_or("nodes have no disks of their own")?;
    let left = if random.bool() { RESERVE_BYTES / 2 } else { 0 };
    let filler = disk.directory().join("filler");
    let from = world.recorder.micros();
    if left == 0 {
        // Nothing can be written then: a node may end for that, with a sentence.
        world.may_end.borrow_mut().insert(taken.node);
    }
    let (path, directory) = (filler.clone(), disk.directory().to_owned());
    let free = aside(move || fill(&path, &directory, left)).await?;
    let is_full = free <= left + SLACK_BYTES;
    if is_full {
        world.hold(Duration::from_millis(random.u64(FULL_MS))).await;
    }
    let named = |error: std::io::Error| format!("{}: {error}", filler.display());
    fs::remove_file(&filler).map_err(named)?;
    // Else a power cut that follows brings it back, and the disk stays full.
    fs::File::open(disk.directory()).and_then(|directory| directory.sync_all()).map_err(named)?;
    let ended = world.cluster.borrow_mut().has_ended(taken.node);
    if world.cluster.borrow().process(taken.node).is_none() {
        world.cluster.borrow_mut().spawn(taken.node)?;
    }
    world.may_end.borrow_mut().remove(&taken.node);
    let ended = ended.map_or(String::new(), |status| format!("; it ended with {status}"));
    if is_full {
        world.record("disk-full", from, &[taken.node], format!("{free} bytes free{ended}"));
    }
    Ok(is_full)
}

fn free_bytes(directory: &Path) -> Result<u64, String> {
    let status = rustix::fs::statvfs(directory).map_err(|error| error.to_string())?;
    Ok(status.f_bavail * status.f_frsize)
}

/// Fills the disk until so much is left, and tells how much really is.
fn fill(path: &Path, directory: &Path, left: u64) -> Result<u64, String> {
    let free = free_bytes(directory)?.saturating_sub(left);
    for bytes in [free, free.saturating_sub(1024 * 1024), free.saturating_sub(8 * 1024 * 1024)] {
        if bytes == 0 {
            continue;
        }
        match run(Command::new("fallocate").args(["-l", &bytes.to_string()]).arg(path)) {
            Ok(()) => break,
            Err(_) if left == 0 => {}
            Err(error) => return Err(error),
        }
    }
    // What is not there yet is made, so that it can be removed.
    fs::File::options().create(true).append(true).open(path).map_err(|error| error.to_string())?;
    free_bytes(directory)
}
