//! Files that rot, are cut, exchanged or lost; a read index that is lost, altered, fails or lies.

use std::collections::VecDeque;

use kv_core::{
    checkpoint::{MERGE_FILES, job::CheckpointEvent},
    types::LogIndex,
};
use kv_tests::disk::{MemoryStore, SimDisk};

use crate::{
    bench::{Bench, Load},
    history::History,
};

/// A disk with a base and two deltas, small enough to be damaged everywhere.
fn small() -> (History, SimDisk) {
    let history = History::new(6, 3, 3, 12);
    let mut bench = Bench::found(&history);
    bench.write(&history, 1..=3);
    assert_eq!(bench.checkpoint_files().len(), 3, "{:?}", bench.disk.paths());
    (history, bench.disk.clone())
}

/// A damaged disk gives the newest state or none, if only the newest is of use; an older one otherwise; never a wrong one.
fn check_damaged(history: &History, disk: &SimDisk) {
    let paths = disk.paths();
    let newest = history.index(3);
    let mut bench = Bench::on(disk.fork(), MemoryStore::default());
    match bench.load(newest, None, None) {
        Load::Failed(_) => {
            assert_eq!(bench.disk.paths(), paths, "nothing is removed when nothing is of use");
            if let loaded @ Load::Loaded(..) = bench.load(LogIndex(1), None, None) {
                assert!(bench.check(history, loaded) < newest);
                let mut bench = bench.restart();
                let loaded = bench.load(LogIndex(1), None, None);
                bench.check(history, loaded);
            }
        }
        loaded => assert_eq!(bench.check(history, loaded), newest),
    }
}

#[test]
fn a_flipped_bit_anywhere_is_found() {
    let (history, disk) = small();
    let mut failed = 0;
    for path in disk.paths() {
        let bits = disk.content(&path).unwrap().len() as u64 * 8;
        for bit in (0..bits).step_by(3) {
            let damaged = disk.fork();
            damaged.flip_bit(&path, bit);
            check_damaged(&history, &damaged);
            let mut bench = Bench::on(damaged, MemoryStore::default());
            failed += u32::from(matches!(bench.load(history.index(3), None, None), Load::Failed(_)));
        }
        // What is confirmed is said by a file's name; its content says nothing.
        let counted = if path.contains("confirmed-") { 0 } else { bits.div_ceil(3) };
        assert!(bits > 0);
        assert_eq!(failed, u32::try_from(counted).unwrap(), "{path}: each bit of it counts");
        failed = 0;
    }
}

#[test]
fn a_file_cut_anywhere_is_found() {
    let (history, disk) = small();
    for path in disk.paths() {
        let bytes = disk.content(&path).unwrap();
        for length in 0..bytes.len() {
            let damaged = disk.fork();
            damaged.replace(&path, bytes[..length].to_vec());
            check_damaged(&history, &damaged);
        }
        let damaged = disk.fork();
        damaged.replace(&path, [&bytes[..], b"x"].concat());
        check_damaged(&history, &damaged);
    }
}

#[test]
fn files_that_are_lost_or_exchanged_are_found() {
    let (history, disk) = small();
    for path in disk.paths() {
        let lost = disk.fork();
        lost.lose_file(&path);
        check_damaged(&history, &lost);
        for other in disk.paths() {
            let exchanged = disk.fork();
            exchanged.replace(&path, disk.content(&other).unwrap());
            check_damaged(&history, &exchanged);
        }
    }
}

#[test]
fn an_older_checkpoint_is_loaded_if_it_is_still_of_use() {
    let (history, disk) = small();
    let newest = disk.paths().into_iter().find(|path| path.ends_with("delta-31")).unwrap();
    disk.flip_bit(&newest, 300);
    let mut bench = Bench::on(disk, MemoryStore::default());
    let loaded = bench.load(history.index(2), None, None);
    assert_eq!(bench.check(&history, loaded), history.index(2));
    assert!(!bench.disk.paths().contains(&newest), "what is not part of it went once it was loaded");
    assert_eq!(bench.confirmed, Some(history.index(2)), "a majority agreed with this one too: others may be given it");
    bench.write(&history, [3]);
    let mut bench = bench.restart();
    let loaded = bench.load(history.index(3), None, None);
    assert_eq!(bench.check(&history, loaded), history.index(3));
}

#[test]
fn no_file_and_no_initial_state_is_a_failure() {
    let history = History::new(6, 1, 3, 12);
    let mut bench = Bench::new();
    assert!(matches!(bench.load(LogIndex(1), None, None), Load::Failed(_)));
    let loaded = bench.load(LogIndex(1), None, Some(history.initial()));
    assert_eq!(bench.check(&history, loaded), LogIndex(1));
    assert!(
        matches!(bench.load(LogIndex(2), None, Some(history.initial())), Load::Failed(_)),
        "it is below what is asked"
    );
}

#[test]
fn while_the_log_has_all_damaged_files_cost_nothing() {
    let (history, disk) = small();
    for path in disk.paths() {
        disk.flip_bit(&path, 300);
    }
    let mut bench = Bench::on(disk, MemoryStore::default());
    let loaded = bench.load(LogIndex(1), None, Some(history.initial()));
    assert_eq!(bench.check(&history, loaded), LogIndex(1));
    bench.write(&history, 1..=3);
    let mut bench = bench.restart();
    let loaded = bench.load(history.index(3), None, None);
    assert_eq!(bench.check(&history, loaded), history.index(3));
}

#[test]
fn a_tree_that_is_wrong_is_made_anew() {
    let history = History::new(7, 6, 20, 30);
    let mut bench = Bench::found(&history);
    bench.write(&history, 1..=6);
    let mut random = fastrand::Rng::with_seed(8);
    for round in 0..200 {
        match round % 3 {
            0 => bench.store.fail_read_after(random.u64(0..30)),
            1 => drop(bench.store.flip(&mut random)),
            _ => {
                for _ in 0..random.u8(1..20) {
                    bench.store.flip(&mut random);
                }
            }
        }
        bench = bench.restart();
        let loaded = bench.load(history.index(6), None, None);
        assert_eq!(bench.check(&history, loaded), history.index(6));
        assert_eq!(bench.mark(), Some(history.index(6)));
    }
}

#[test]
fn a_tree_that_fails_costs_the_checkpoint_and_nothing_else() {
    let history = History::new(9, 4, 20, 30);
    let mut failures = 0;
    for reads in 0..25 {
        let mut bench = Bench::found(&history);
        bench.write(&history, 1..=3);
        bench.submit_write(&history, 4);
        bench.store.fail_read_after(reads);
        let events = bench.run();
        bench.store.fail_read_after(u64::MAX);
        if events.iter().any(|event| matches!(event, CheckpointEvent::TreeFailed { .. })) {
            failures += 1;
            assert_eq!(events.len(), 1, "a checkpoint that failed is not durable");
            bench.submit_write(&history, 4);
            let refused = bench.run();
            assert!(
                matches!(refused[..], [CheckpointEvent::TreeFailed { .. }]),
                "nothing is written on a tree not proven"
            );
            let loaded = bench.load(history.index(3), None, None);
            assert_eq!(bench.check(&history, loaded), history.index(3));
            assert!(bench.disk.paths().iter().all(|path| !path.ends_with(".new")));
            bench.write(&history, [4]);
        }
        let mut bench = bench.restart();
        let loaded = bench.load(history.index(4), None, None);
        assert_eq!(bench.check(&history, loaded), history.index(4));
    }
    assert!(failures > 10);
}

/// The worst of all: wrong old records go into a digest, and so into a checkpoint that is reported durable. It must be
/// found when it is loaded or merged, and no wrong state be given out.
#[test]
fn a_tree_that_lies_while_a_checkpoint_is_written_is_found_out() {
    let history = History::new(10, MERGE_FILES + 2, 20, 30);
    let (mut refused, mut merges_refused) = (0, 0);
    for seed in 0..40 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bench = Bench::found(&history);
        let lie_at = random.usize(2..MERGE_FILES);
        for number in 1..=MERGE_FILES + 1 {
            if number == lie_at {
                bench.store.flip(&mut random);
            }
            bench.submit_write(&history, number);
            let mut events = VecDeque::from(bench.run());
            while let Some(event) = events.pop_front() {
                merges_refused += u32::from(matches!(event, CheckpointEvent::TreeFailed { .. }));
                if let CheckpointEvent::Durable { footer, .. } = event {
                    bench.confirm(&footer);
                    events.extend(bench.run());
                }
            }
        }
        bench = bench.restart();
        match bench.load(LogIndex(1), None, None) {
            Load::Failed(_) => panic!("what was written before the lie is still good"),
            loaded => {
                let index = bench.check(&history, loaded);
                refused += u32::from(index < history.index(MERGE_FILES + 1));
            }
        }
    }
    assert!(refused > 10, "{refused} lies mattered");
    assert_eq!(merges_refused, refused, "and the merge found each of them first");
}
