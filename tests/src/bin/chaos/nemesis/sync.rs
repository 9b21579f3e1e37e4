//! Syncs that fail or take long, by strace on the running node.
//!
//! *Can't produce* a sync that fails after it lost something: the kernel never got the call, and what was written is still in its memory.
//! strace slows all system calls of the node a little while it is attached.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::{tamper::Tampered, world::World};

/// The calls by which a node syncs.
const SYNCS: &str = "fdatasync,fsync";
/// The one by which it syncs its log.
const LOG_SYNC: &str = "fdatasync";
/// The exit code of a node whose disk failed.
const EXIT_DISK: i32 = 6;
/// How long a node may take to end after a sync that failed.
const END_WAIT: Duration = Duration::from_secs(15);
/// And after the last look at whether one failed.
const LAST_WAIT: Duration = Duration::from_secs(5);
/// Milliseconds that syncs are slow.
const SLOW_MS: std::ops::Range<u64> = 3_000..10_000;
/// Milliseconds that each then takes more.
const DELAY_MS: std::ops::Range<u64> = 5..700;
/// Milliseconds that a node stays away after it ended.
const AWAY_MS: std::ops::Range<u64> = 300..3_000;

/// The node's next sync fails: it must end, and come back.
pub(super) async fn fails(world: &World, random: &mut fastrand::Rng) -> Result<bool, String> {
    let Some(taken) = world.take_any(random) else { return Ok(false) };
    let Some(process) = world.cluster.borrow().process(taken.node) else { return Ok(false) };
    let from = world.recorder.micros();
    world.may_end.borrow_mut().insert(taken.node);
    let skipped = random.u32(1..40);
    let trace = world.cluster.borrow().trace_file(taken.node);
    let tampered = Tampered::new(process, SYNCS, &format!("error=EIO:when={skipped}+"), trace)?;
    let began = Instant::now();
    let mut ended = None;
    while ended.is_none() && began.elapsed() < END_WAIT {
        sleep(Duration::from_millis(20)).await;
        ended = world.cluster.borrow_mut().has_ended(taken.node);
        if world.cluster.borrow().process(taken.node).is_none() {
            break;
        }
    }
    let failed = tampered.end(LOG_SYNC);
    if ended.is_none() && failed > 0 {
        // The last one may have failed just now.
        sleep(LAST_WAIT).await;
        ended = world.cluster.borrow_mut().has_ended(taken.node);
    }
    match ended {
        Some(status) if status.code() != Some(EXIT_DISK) => {
            let words = world.cluster.borrow().last_words(taken.node);
            world.violated(format!(
                "node {} ended with {status}, not with {EXIT_DISK}, after a failed sync: {words}",
                taken.node
            ));
        }
        None if failed > 0 => {
            world.violated(format!("node {} goes on after {failed} syncs of its log failed", taken.node));
        }
        _ => {}
    }
    world.hold(Duration::from_millis(random.u64(AWAY_MS))).await;
    if world.cluster.borrow().process(taken.node).is_none() {
        world.cluster.borrow_mut().spawn(taken.node)?;
    }
    world.may_end.borrow_mut().remove(&taken.node);
    let how = ended.map_or("it goes on".to_owned(), |status| format!("it ended with {status}"));
    // One that had nothing to sync, or that strace did not get hold of, was not harmed.
    let is_harmed = ended.is_some() || failed > 0;
    if is_harmed {
        world.record("sync-fails", from, &[taken.node], format!("EIO from sync {skipped} on; {how}"));
    }
    Ok(is_harmed)
}

/// The node's syncs take long.
pub(super) async fn slow(world: &World, random: &mut fastrand::Rng) -> Result<bool, String> {
    let Some(taken) = world.take_any(random) else { return Ok(false) };
    let Some(process) = world.cluster.borrow().process(taken.node) else { return Ok(false) };
    let from = world.recorder.micros();
    let delay = random.u64(DELAY_MS);
    let trace = world.cluster.borrow().trace_file(taken.node);
    let tampered = Tampered::new(process, SYNCS, &format!("delay_enter={}", delay * 1_000), trace)?;
    world.hold(Duration::from_millis(random.u64(SLOW_MS))).await;
    let late = tampered.end("sync");
    if late > 0 {
        world.record("sync-slow", from, &[taken.node], format!("{delay} ms more, {late} times"));
    }
    Ok(late > 0)
}
