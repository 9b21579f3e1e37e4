//! The scrub: what rots under a worker that runs is found, and nothing else is taken for it.

use kv_core::{
    checkpoint::{
        MERGE_FILES,
        job::{CheckpointEvent, CheckpointJob},
    },
    disk::StateStore,
    points::{self, Point},
};

use crate::{
    bench::{Bench, REPLICA, SHARD},
    history::History,
};

/// Slices that are more than a pass of what is written here.
const SLICES: usize = 40;

/// Asks for slices, and lets each be done; what it finds.
fn scrub(bench: &mut Bench, slices: usize) -> Vec<CheckpointEvent> {
    (0..slices)
        .flat_map(|_| {
            bench.worker.submit(CheckpointJob::Scrub { shard: SHARD, replica: REPLICA });
            bench.run()
        })
        .collect()
}

#[test]
fn a_record_that_rots_in_the_tree_is_found_and_the_tree_made_anew() {
    let history = History::new(31, 6, 800, 40);
    let mut bench = Bench::found(&history);
    bench.write(&history, 1..=6);
    assert!(scrub(&mut bench, SLICES).is_empty(), "nothing is wrong");
    assert!(points::take().of(Point::ScrubPassed) > 0);
    bench.store.flip(&mut fastrand::Rng::with_seed(1)).unwrap();
    let found = scrub(&mut bench, SLICES);
    assert!(matches!(found[..], [CheckpointEvent::TreeFailed { .. }]), "once: {found:?}");
    let loaded = bench.load(history.index(6), None, None);
    assert_eq!(bench.check(&history, loaded), history.index(6));
}

#[test]
fn a_bit_that_flips_anywhere_in_a_file_is_found() {
    let history = History::new(32, 3, 20, 40);
    let mut bench = Bench::found(&history);
    bench.write(&history, 1..=3);
    for path in bench.checkpoint_files().iter().filter(|path| path.contains("set-")) {
        let bits = bench.disk.content(path).unwrap().len() as u64 * 8;
        for bit in (0..bits).step_by(97).chain([bits - 1]) {
            let mut bench = bench.fork();
            let loaded = bench.load(history.index(3), None, None);
            bench.check(&history, loaded);
            bench.disk.flip_bit(path, bit);
            let found = scrub(&mut bench, SLICES);
            assert!(matches!(&found[..], [CheckpointEvent::TreeFailed { reason, .. }] if reason.contains("set-1")));
        }
    }
}

#[test]
fn checkpoints_and_merges_in_the_midst_of_a_pass_are_not_taken_for_damage() {
    let history = History::new(33, MERGE_FILES + 8, 600, 30);
    let mut random = fastrand::Rng::with_seed(2);
    let mut bench = Bench::found(&history);
    for number in 1..=MERGE_FILES + 8 {
        bench.submit_write(&history, number);
        if random.bool() {
            bench.confirm(&history.points[number - 1].footer);
        }
        while !bench.worker.is_idle() {
            if random.u8(..3) == 0 {
                bench.worker.submit(CheckpointJob::Scrub { shard: SHARD, replica: REPLICA });
            }
            let events = bench.step().events;
            assert!(!events.iter().any(|event| matches!(event, CheckpointEvent::TreeFailed { .. })), "{events:?}");
        }
    }
    assert!(points::take().of(Point::ScrubPassed) > 3);
    let tree = bench.store.range(REPLICA, &[], usize::MAX).unwrap();
    assert!(tree.len() > 400, "a pass takes several slices: {}", tree.len());
}
