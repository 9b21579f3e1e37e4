//! The power goes, or the process is killed, at any step of writing, inserting, merging and loading.

use kv_core::{
    checkpoint::{MERGE_FILES, newest_footers},
    types::LogIndex,
};

use crate::{
    bench::{Bench, Load, REPLICA},
    history::History,
};

/// So many that a merge happens, and one more.
const CHECKPOINTS: usize = MERGE_FILES + 3;

fn history() -> History {
    History::new(1, CHECKPOINTS, 6, 40)
}

/// Loads with all that the log still has, and checks that nothing durable is lost.
fn load_and_check(bench: &mut Bench, history: &History, durable: Option<LogIndex>) -> LogIndex {
    let footers = newest_footers(bench.worker.files()).expect("the disk is on");
    let initial = durable.is_none().then(|| history.initial());
    let at_least = durable.unwrap_or(LogIndex(1));
    let loaded = bench.load(at_least, None, initial);
    let index = bench.check(history, loaded);
    assert!(index >= at_least);
    assert_eq!(footers.get(&REPLICA).map_or(LogIndex(1), |footer| footer.header.index), index);
    index
}

fn wrong_the_tree(bench: &Bench, random: &mut fastrand::Rng) {
    match random.u8(0..4) {
        0 => bench.store.lose(),
        1 => drop(bench.store.flip(random)),
        2 => bench.store.fail_read_after(random.u64(0..4)),
        _ => {}
    }
}

#[test]
pub(crate) fn a_checkpoint_that_is_durable_outlives_a_crash_at_any_step_after_it() {
    let history = history();
    let mut random = fastrand::Rng::with_seed(2);
    let mut crashes = 0;
    for steps in 0.. {
        let mut bench = Bench::found(&history);
        bench.disk.power_off_after(steps);
        let written = bench.write(&history, 1..=CHECKPOINTS);
        let is_whole = written.failed.is_none();
        bench.disk.crash(&mut random);
        let mut bench = bench.restart();
        wrong_the_tree(&bench, &mut random);
        let index = load_and_check(&mut bench, &history, written.durable);
        // And on from there: what is written next stands on what was loaded.
        let number = history.points.iter().position(|point| point.footer.header.index == index).unwrap();
        let last = (number + 2).min(CHECKPOINTS);
        bench.write(&history, number + 1..=last);
        let mut bench = bench.restart();
        let loaded = bench.load(history.index(last), None, (last == 0).then(|| history.initial()));
        bench.check(&history, loaded);
        if is_whole {
            break;
        }
        crashes += 1;
    }
    assert!(crashes > 200, "the history has enough steps to be crashed at: {crashes}");
}

#[test]
fn what_was_loaded_after_a_kill_outlives_a_loss_of_power() {
    let history = history();
    let mut random = fastrand::Rng::with_seed(3);
    for steps in 0..60 {
        let mut bench = Bench::found(&history);
        bench.disk.power_off_after(steps);
        let written = bench.write(&history, 1..=5);
        bench.disk.kill();
        let mut bench = bench.restart();
        let index = load_and_check(&mut bench, &history, written.durable);
        bench.disk.crash_keeping(|| false, |_, _| false);
        let mut bench = bench.restart();
        wrong_the_tree(&bench, &mut random);
        load_and_check(&mut bench, &history, Some(index).filter(|index| *index > LogIndex(1)));
    }
}

#[test]
fn a_worker_dropped_between_any_two_of_its_steps_leaves_what_was_durable() {
    let history = History::new(4, MERGE_FILES + 2, 40, 100);
    let mut bench = Bench::found(&history);
    bench.write(&history, 1..=MERGE_FILES);
    let begun = bench.disk.fork();
    let mut steps_max = 0;
    for steps in 0.. {
        let mut bench = Bench::on(begun.fork(), kv_tests::disk::MemoryStore::default());
        let loaded = bench.load(history.index(MERGE_FILES), None, None);
        bench.check(&history, loaded);
        bench.submit_write(&history, MERGE_FILES + 1);
        let mut durable = history.index(MERGE_FILES);
        for _ in 0..steps {
            for event in bench.step().events {
                if let kv_core::checkpoint::job::CheckpointEvent::Durable { footer, .. } = event {
                    durable = footer.header.index;
                    bench.confirm(&footer);
                }
            }
        }
        let is_done = bench.worker.is_idle();
        bench.disk.kill();
        let mut bench = bench.restart();
        assert!(load_and_check(&mut bench, &history, Some(durable)) >= durable);
        steps_max = steps;
        if is_done {
            break;
        }
    }
    assert!(steps_max > 15, "writing, inserting and merging take many steps: {steps_max}");
}

#[test]
fn a_load_that_is_cut_short_can_be_begun_again() {
    let history = history();
    let mut bench = Bench::found(&history);
    bench.write(&history, 1..=4);
    let begun = bench.disk.fork();
    let mut random = fastrand::Rng::with_seed(5);
    for steps in 0..30 {
        let mut bench = Bench::on(begun.fork(), kv_tests::disk::MemoryStore::default());
        bench.disk.power_off_after(steps);
        match bench.load(history.index(4), None, None) {
            Load::Loaded(footer, sessions) => drop(bench.check(&history, Load::Loaded(footer, sessions))),
            Load::Failed(reason) | Load::DiskFailed(reason) => assert!(reason.contains("the power is off"), "{reason}"),
        }
        bench.disk.crash(&mut random);
        let mut bench = bench.restart();
        load_and_check(&mut bench, &history, Some(history.index(4)));
    }
}
