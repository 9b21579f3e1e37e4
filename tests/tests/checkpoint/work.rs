//! How much one step does, and what a disk that fails or is full comes to.

use std::sync::Arc;

use kv_core::{
    checkpoint::{
        FILES_MAX, MERGE_FILES, SLICE_BYTES_MAX, SLICE_RECORDS_MAX,
        job::{CheckpointEvent, CheckpointJob},
    },
    points::{self, Point},
    state::record::Table,
    types::{LogIndex, ReplicaId, ShardId},
};

use crate::{
    bench::{Bench, Load},
    history::History,
    install::offer,
};

#[test]
fn a_step_handles_no_more_than_a_slice() {
    let history = History::new(16, 3, 1_500, 9_000);
    let mut bench = Bench::found(&history);
    let step_and_check = |bench: &mut Bench| {
        let mut steps = 0;
        while !bench.worker.is_idle() {
            bench.disk.take_counters();
            let step = bench.step();
            let done = bench.disk.take_counters();
            assert!(step.records <= SLICE_RECORDS_MAX && step.bytes <= SLICE_BYTES_MAX + 10_000, "{step:?}");
            assert!(done.bytes_written <= 2 * SLICE_BYTES_MAX as u64, "{done:?}");
            assert!(done.syncs <= 8);
            steps += 1;
        }
        steps
    };
    for number in 1..=3 {
        bench.submit_write(&history, number);
        assert!(step_and_check(&mut bench) > 15);
    }
    let mut bench = Bench::on(bench.disk.fork(), kv_tests::disk::MemoryStore::default());
    let loaded = bench.load(history.index(3), None, None);
    assert_eq!(bench.check(&history, loaded), history.index(3));
}

#[test]
fn a_table_that_is_done_with_is_freed_by_the_worker() {
    let mut bench = Bench::found(&History::new(23, 1, 600, 700));
    let table = Arc::new(Table::with_seed(1));
    bench.worker.submit(CheckpointJob::Free { table: Arc::clone(&table) });
    assert!(bench.worker.is_idle());
    assert_eq!(Arc::strong_count(&table), 1);
}

#[test]
fn a_failed_sync_or_write_stops_the_worker_and_costs_nothing_durable() {
    let history = History::new(17, 3, 20, 40);
    for is_sync in [true, false] {
        let mut bench = Bench::found(&history);
        bench.write(&history, 1..=2);
        if is_sync {
            bench.disk.fail_next_sync()
        } else {
            bench.disk.fail_next_write()
        }
        let written = bench.write(&history, [3]);
        assert!(written.failed.is_some() && written.durable.is_none());
        bench.submit_write(&history, 3);
        assert!(bench.worker.is_idle() && bench.step().events.is_empty(), "it does nothing any more");
        bench.disk.kill();
        let mut bench = bench.restart();
        let loaded = bench.load(history.index(2), None, None);
        assert_eq!(bench.check(&history, loaded), history.index(2));
    }
}

#[test]
fn a_full_disk_puts_a_checkpoint_off_but_not_for_a_merge() {
    let history = History::new(18, MERGE_FILES + 4, 20, 200);
    let mut bench = Bench::found(&history);
    bench.write(&history, 1..=MERGE_FILES);
    let used = |bench: &Bench| -> u64 {
        bench.disk.paths().iter().map(|path| bench.disk.content(path).unwrap().len() as u64).sum()
    };
    // Room for the next delta, and not for a new base.
    bench.disk.set_bytes_max(Some(used(&bench) + 3_500));
    let written = bench.write(&history, [MERGE_FILES + 1]);
    assert_eq!(written.durable, Some(history.index(MERGE_FILES + 1)), "{:?}", written.failed);
    assert_eq!(bench.checkpoint_files().len(), MERGE_FILES + 1, "what was begun of a base is gone");
    for room in [0, 100, 600, 1_000] {
        bench.disk.set_bytes_max(Some(used(&bench) + room));
        bench.submit_write(&history, MERGE_FILES + 2);
        let events = bench.run();
        let [CheckpointEvent::NoRoom { header, table, .. }] = &events[..] else { panic!("{events:?}") };
        let point = &history.points[MERGE_FILES + 2];
        assert_eq!(header, &point.footer.header, "it comes back as it was given");
        assert!(table.sorted().eq(point.table.sorted()), "it comes back as it was given");
        assert_eq!(bench.checkpoint_files().len(), MERGE_FILES + 1, "what was begun of it is gone");
        let mut restarted = bench.fork();
        let loaded = restarted.load(history.index(MERGE_FILES + 1), None, None);
        restarted.check(&history, loaded);
    }
    bench.disk.set_bytes_max(None);
    bench.write(&history, [MERGE_FILES + 2]);
    // Whether the newest is among them depends on whether it was confirmed when the merge began.
    assert!(bench.checkpoint_files().len() <= 2, "with room again what is confirmed is merged");
}

#[test]
fn a_disk_that_does_not_read_back_what_was_written_stops_the_worker() {
    let history = History::new(19, 2, 20, 40);
    let mut bench = Bench::found(&history);
    bench.write(&history, [1]);
    bench.submit_write(&history, 2);
    let mut is_spoiled = false;
    let mut events = Vec::new();
    while !bench.worker.is_idle() {
        events.append(&mut bench.step().events);
        let unfinished = bench.disk.paths().into_iter().find(|path| path.ends_with(".new"));
        if let (Some(path), false) = (unfinished, is_spoiled) {
            is_spoiled = bench.disk.unsynced().is_empty();
            if is_spoiled {
                bench.disk.flip_bit(&path, 333);
            }
        }
    }
    assert!(is_spoiled);
    assert!(matches!(events[..], [CheckpointEvent::DiskFailed { .. }]), "{events:?}");
    let mut bench = bench.restart();
    let loaded = bench.load(history.index(1), None, None);
    assert_eq!(bench.check(&history, loaded), history.index(1));
    assert!(matches!(bench.load(LogIndex(1), None, None), Load::Loaded(..)));
}

#[test]
fn a_load_has_its_turn_however_many_checkpoints_are_made() {
    let history = History::new(20, 30, 4, 40);
    let mut bench = Bench::found(&history);
    bench.submit_write(&history, 1);
    let (shard, replica, initial) = (ShardId(2), ReplicaId(8), Some(history.initial()));
    bench.worker.submit(CheckpointJob::Load { shard, replica, at_least: LogIndex(1), install: None, initial });
    let (mut submitted, mut inserted, mut inserted_before_the_load) = (1, 0, None);
    while inserted < 30 {
        // There always is a checkpoint that waits.
        if submitted < 30 && submitted < inserted + 2 {
            submitted += 1;
            bench.submit_write(&history, submitted);
        }
        for event in bench.step().events {
            match event {
                CheckpointEvent::Inserted { .. } => inserted += 1,
                CheckpointEvent::Loaded { shard: ShardId(2), .. } => inserted_before_the_load = Some(inserted),
                CheckpointEvent::Durable { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
    let waited = inserted_before_the_load.expect("it is loaded");
    assert!((2..=10).contains(&waited), "{waited} checkpoints went before it");
}

#[test]
fn many_checkpoints_that_nobody_confirms_become_one_above_the_confirmed_one_which_stays() {
    let history = History::new(21, FILES_MAX + 8, 6, 40);
    let mut bench = Bench::found(&history);
    bench.write(&history, 1..=4);
    let newest_only = |bench: &mut Bench, number: usize| {
        bench.submit_write(&history, number);
        let events = bench.run();
        let durable = events.iter().any(|event| matches!(event, CheckpointEvent::Durable { .. }));
        assert!(durable, "{number}: {events:?}");
    };
    for number in 5..=FILES_MAX {
        newest_only(&mut bench, number);
    }
    assert_eq!(points::take().of(Point::DeltasMerged), 1);
    assert_eq!(bench.checkpoint_files().len(), 5, "{:?}", bench.checkpoint_files());
    let given = |bench: &mut Bench| offer(bench, 1).map(|manifest| manifest.index);
    assert_eq!(given(&mut bench), Some(history.index(4)), "there is still something to give");
    bench.worker.submit(CheckpointJob::Release { stream: 1 });
    bench.run();
    newest_only(&mut bench, FILES_MAX + 1);
    let mut restarted = bench.fork();
    let loaded = restarted.load(history.index(4), None, None);
    assert_eq!(restarted.check(&history, loaded), history.index(FILES_MAX + 1));
    assert_eq!(given(&mut restarted), Some(history.index(4)), "and after a start too");
    // What was merged into the one delta is no checkpoint any more, the newest of it is.
    bench.confirm(&history.points[FILES_MAX - 1].footer);
    assert!(bench.run().is_empty());
    bench.confirm(&history.points[FILES_MAX].footer);
    assert!(matches!(bench.run()[..], [CheckpointEvent::Confirmed { .. }]));
    assert_eq!(given(&mut bench), Some(history.index(FILES_MAX)));
}

#[test]
fn a_checkpoint_confirmed_while_it_is_merged_is_not_taken_away() {
    let history = History::new(22, FILES_MAX + 8, 6, 40);
    for steps in 0.. {
        let mut bench = Bench::found(&history);
        bench.write(&history, 1..=2);
        for number in 3..=FILES_MAX {
            bench.submit_write(&history, number);
            // The last write begins a merge.
            while number < FILES_MAX && !bench.worker.is_idle() {
                bench.step();
            }
        }
        for _ in 0..steps {
            bench.step();
        }
        let is_over = bench.worker.is_idle();
        bench.confirm(&history.points[FILES_MAX - 5].footer);
        let noted = bench.run().iter().any(|event| matches!(event, CheckpointEvent::Confirmed { .. }));
        let expected = history.index(if noted { FILES_MAX - 5 } else { 2 });
        let manifest = offer(&mut bench, 1).unwrap();
        assert_eq!(manifest.index, expected, "after {steps} steps");
        let mut receiver = Bench::new();
        receiver.take(&mut bench, &manifest);
        let mut bench = bench.restart();
        let loaded = bench.load(expected, None, None);
        assert_eq!(bench.check(&history, loaded), history.index(FILES_MAX));
        assert_eq!(offer(&mut bench, 1).map(|manifest| manifest.index), Some(expected));
        if is_over {
            assert!(steps > 10 && !noted);
            break;
        }
    }
}
