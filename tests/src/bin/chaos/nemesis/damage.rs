//! Bits that flip in files, while the node is down.
//!
//! Which nodes may be damaged is drawn once from the seed: a minority, so that of everything a majority stays whole. The log of
//! one of them is damaged at most once in a run; that node must refuse to start, and stays out.
//! *Can't produce* bits that flip under a running node, in memory or between a check and a use.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tokio::time::sleep;

use crate::world::World;

/// What a log is written in.
const SECTOR_BYTES: usize = 512;
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
    world.cluster.borrow_mut().kill(&[taken.node]);
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
    let Some(what) = what else {
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
    let short = what.strip_prefix(&data).unwrap_or(&what).display().to_string();
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
        world.cluster.borrow_mut().kill(&[node]);
        world.violated(format!("node {node} did not refuse a damaged log: {ended:?}"));
    }
}

/// Flips a bit of a byte that is not zero, any as likely as any other.
fn flip_somewhere(files: &[PathBuf], random: &mut fastrand::Rng) -> Result<Option<PathBuf>, String> {
    let mut chosen = None;
    let mut so_far = 0;
    for path in files {
        let bytes = read(path)?;
        let used: Vec<_> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
        so_far += used.len();
        if !used.is_empty() && random.usize(0..so_far) < used.len() {
            let at = used[random.usize(0..used.len())];
            chosen = Some((path, at, bytes[at]));
        }
    }
    let Some((path, at, byte)) = chosen else { return Ok(None) };
    write_byte(path, at, byte ^ (1 << random.u8(0..8)))?;
    Ok(Some(path.clone()))
}

/// Flips a bit in the middle of what is written in the newest segment: every sector there begins with the number that is also the
/// file's name, and blocks follow it.
fn flip_in_the_log(files: &[PathBuf]) -> Result<Option<PathBuf>, String> {
    for path in files.iter().rev() {
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
        let Ok(number) = name.parse::<u64>() else { continue };
        let bytes = read(path)?;
        let sectors = bytes.chunks(SECTOR_BYTES).enumerate();
        let written: Vec<_> = sectors.filter(|(_, sector)| sector.starts_with(&number.to_le_bytes())).collect();
        if let Some((place, sector)) = written.get(written.len() / 2) {
            let last = sector.iter().rposition(|byte| *byte != 0).unwrap_or_default();
            write_byte(path, place * SECTOR_BYTES + last, sector[last] ^ 1)?;
            return Ok(Some(path.clone()));
        }
    }
    Ok(None)
}

/// All files of a directory and of those in it, by name.
fn files_below(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let named = |error: std::io::Error| format!("{}: {error}", directory.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(named)? {
        let path = entry.map_err(named)?.path();
        if path.is_dir() { files.extend(files_below(&path)?) } else { files.push(path) }
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn write_byte(path: &Path, at: usize, byte: u8) -> Result<(), String> {
    let named = |error: std::io::Error| format!("{}: {error}", path.display());
    File::options().write(true).open(path).map_err(named)?.write_all_at(&[byte], at as u64).map_err(named)
}
