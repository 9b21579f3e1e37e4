//! Watches the nodes of a run: who leads, who has ended by itself, how much memory each holds.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use kv_tests::history::run::{RunEvent, What};
use tokio::time::sleep;

use crate::world::World;

/// Pause between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(250);
/// A node that has ended by itself so often is not started any more.
const DEATHS_MAX: u32 = 3;
/// Pause between two lines of progress.
const PROGRESS_PAUSE: Duration = Duration::from_secs(10);

/// Watches until nobody asks for it any more.
pub(crate) async fn watch(world: &World) {
    let mut leaders: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    let mut said = Instant::now();
    loop {
        look_for_the_dead(world);
        if let Ok(status) = world.status().await {
            for shard in &status.shards {
                let Some(leader) = shard.leader else { continue };
                if leaders.insert(shard.shard.0, (shard.term, leader.0)) != Some((shard.term, leader.0)) {
                    let what = What::Leader { shard: shard.shard.0, node: leader.0, term: shard.term };
                    let from_micros = world.recorder.micros();
                    world.recorder.event(&RunEvent { from_micros, until_micros: None, what });
                }
            }
            for node in &status.nodes {
                let usage = node.report.as_ref().ok().and_then(|report| report.process);
                let (Some(usage), Ok(number)) = (usage, usize::try_from(node.node.0)) else { continue };
                let mut most = world.resident_bytes_max.borrow_mut();
                let most = most.entry(number).or_default();
                *most = usage.resident_bytes.max(*most);
            }
        }
        if said.elapsed() > PROGRESS_PAUSE {
            said = Instant::now();
            progress(world);
        }
        sleep(LOOK_PAUSE).await;
    }
}

/// Notes every node that ended although nothing was done to it that is answered by ending, and starts it again.
pub(crate) fn look_for_the_dead(world: &World) {
    for node in world.nodes() {
        if world.may_end.borrow().contains(&node) || world.out.borrow().contains(&node) {
            continue;
        }
        let ended = world.cluster.borrow_mut().has_ended(node);
        if let Some(status) = ended {
            let words = world.cluster.borrow().last_words(node);
            world.violated(format!("node {node} ended by itself with {status}: {words}"));
            let mut deaths = world.deaths.borrow_mut();
            let deaths = deaths.entry(node).or_default();
            *deaths += 1;
            if *deaths == DEATHS_MAX {
                world.violated(format!("node {node} is not started again"));
                world.out.borrow_mut().insert(node);
                continue;
            }
            if let Err(error) = world.cluster.borrow_mut().spawn(node) {
                world.violated(format!("node {node} can't be started again: {error}"));
            }
        }
    }
}

fn progress(world: &World) {
    let seconds = world.recorder.micros() / 1_000_000;
    let faults: u64 = world.faults.borrow().values().sum();
    let violations = world.violations.borrow().len();
    eprintln!("chaos: {seconds:>5} s, {faults} faults, {violations} violations");
}
