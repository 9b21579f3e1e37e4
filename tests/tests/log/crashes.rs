//! Crashes at every step, in every subset of what was not synced, twice at the same place.

use kv_core::log::{
    Log, LogError,
    record::{LogBatch, Record},
};
use kv_tests::disk::SimDisk;

use crate::sample::{Model, batch, boundary, create, entry, settings, vote};

const SEGMENT_BYTES: usize = 8 * 1024;

/// A log with one shard and a few entries.
fn begun() -> (SimDisk, Model) {
    let disk = SimDisk::new();
    let mut log = Log::create(disk.log(), settings(SEGMENT_BYTES)).unwrap();
    let mut model = Model::default();
    for records in [vec![create(1)], vec![entry(1, 2, 1, 100), entry(1, 3, 1, 900)]] {
        log.append(&batch(records.clone())).unwrap();
        model.apply(&batch(records));
    }
    (disk, model)
}

fn after(model: &Model, batch: &LogBatch) -> Model {
    let mut model = model.clone();
    model.apply(batch);
    model
}

/// Appends, with the power going after the write and before the sync.
fn append_unsynced(disk: &SimDisk, batch: &LogBatch) {
    let (mut log, _) = Log::open(disk.log(), settings(SEGMENT_BYTES)).unwrap();
    disk.power_off_after(1);
    assert!(matches!(log.append(batch), Err(LogError::Disk(_))));
}

/// The power goes, and the sectors of this subset survive.
fn crash_keeping(disk: &SimDisk, subset: u32) {
    let unsynced = disk.unsynced();
    disk.crash_keeping(
        || false,
        |_, sector| {
            let position = unsynced.iter().position(|(_, other)| *other == sector).unwrap();
            subset & 1 << position != 0
        },
    );
}

#[test]
fn every_subset_of_a_torn_block_is_cut_twice_at_the_same_place() {
    let (begun, model) = begun();
    let sizes = [300, 900, 1_400, 2_400];
    let second_sizes = [200, 1_000, 1_900];
    let mut states = 0;
    for bytes in sizes {
        let first = batch(vec![entry(1, 4, 1, bytes), vote(1, 2, 11, 1)]);
        let torn = begun.fork();
        append_unsynced(&torn, &first);
        let sectors = torn.unsynced().len();
        for subset in 0..1_u32 << sectors {
            let disk = torn.fork();
            crash_keeping(&disk, subset);
            let whole = subset == (1 << sectors) - 1;
            let expected = if whole { after(&model, &first) } else { model.clone() };
            let again = disk.fork();
            let (_, recovered) = Log::open(disk.log(), settings(SEGMENT_BYTES)).unwrap();
            assert_eq!(recovered, expected.recovered(), "{bytes} bytes, subset {subset:b}");
            states += 1;
            for bytes in second_sizes {
                let index = if whole { 5 } else { 4 };
                let second = batch(vec![entry(1, index, 3, bytes)]);
                let torn = again.fork();
                append_unsynced(&torn, &second);
                let sectors = torn.unsynced().len();
                for subset in 0..1_u32 << sectors {
                    let disk = torn.fork();
                    crash_keeping(&disk, subset);
                    let whole = subset == (1 << sectors) - 1;
                    let expected = if whole { after(&expected, &second) } else { expected.clone() };
                    let (_, recovered) = Log::open(disk.log(), settings(SEGMENT_BYTES)).unwrap();
                    assert_eq!(recovered, expected.recovered(), "second crash, subset {subset:b}");
                    states += 1;
                }
            }
        }
    }
    println!("{states} states");
}

/// Batches that rotate, recycle, overwrite and end replicas.
fn story() -> Vec<Vec<Record>> {
    let mut story = vec![vec![create(2)], vec![vote(2, 7, 12, 1)]];
    let mut last = 3;
    for round in 0..6 {
        for _ in 0..3 {
            last += 1;
            story.push(vec![entry(1, last, 2 + round, 900), vote(1, 2 + round, 11, last - 1)]);
        }
        last -= 1;
        story.push(vec![entry(1, last, 3 + round, 1_300), vote(1, 3 + round, 0, last)]);
        story.push(vec![boundary(1, last - 1, 2 + round)]);
    }
    story
}

#[test]
fn a_crash_at_every_step_loses_nothing_that_was_acknowledged() {
    let mut states = 0;
    for seed in 0..6 {
        let mut random = fastrand::Rng::with_seed(seed);
        for steps in 0.. {
            let (disk, mut model) = begun();
            let (mut log, _) = Log::open(disk.log(), settings(SEGMENT_BYTES)).unwrap();
            disk.power_off_after(steps);
            let mut in_flight = None;
            for records in story() {
                let batch = batch(records);
                if log.append(&batch).is_err() {
                    in_flight = Some(after(&model, &batch));
                    break;
                }
                model.apply(&batch);
            }
            let Some(in_flight) = in_flight else { break };
            disk.crash(&mut random);
            // Recovery is cut short, too, and whatever a later one finds stays.
            let mut told = None;
            for steps in [0, 1, 2, 3, 4, u64::MAX] {
                disk.power_off_after(steps);
                if let Ok((_, recovered)) = Log::open(disk.log(), settings(SEGMENT_BYTES)) {
                    assert!(told.is_none() || told.as_ref() == Some(&recovered), "an opened log changed");
                    told = Some(recovered);
                }
                disk.crash(&mut random);
            }
            let told = told.expect("the last try was not cut short");
            assert!(told == model.recovered() || told == in_flight.recovered(), "seed {seed}, step {steps}");
            states += 1;
        }
    }
    println!("{states} states");
}

/// No log can see that a disk lies: what was acknowledged meanwhile is lost with the power. But it is lost from one batch on,
/// or the log is refused; what is told was written.
#[test]
fn a_disk_that_lies_about_syncs_costs_the_end_of_the_log_and_invents_nothing() {
    let (mut shorter, mut refused) = (0, 0);
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (disk, mut model) = begun();
        let (mut log, _) = Log::open(disk.log(), settings(SEGMENT_BYTES)).unwrap();
        let story = story();
        let (lies_from, ends) = (random.usize(..story.len()), random.usize(1..=story.len()));
        let mut told = vec![model.recovered()];
        for (number, records) in story.into_iter().take(ends).enumerate() {
            if number == lies_from {
                disk.lie_about_syncs(true);
                told = vec![model.recovered()];
            }
            let batch = batch(records);
            log.append(&batch).unwrap();
            model.apply(&batch);
            told.push(model.recovered());
        }
        disk.lie_about_syncs(false);
        disk.crash(&mut random);
        match Log::open(disk.log(), settings(SEGMENT_BYTES)) {
            Ok((_, recovered)) => {
                assert!(told.contains(&recovered), "seed {seed}: the log says what it never said");
                shorter += u32::from(recovered != model.recovered());
            }
            Err(error) => {
                assert!(matches!(error, LogError::Corrupt { .. }), "seed {seed}: {error}");
                assert!(lies_from < ends, "seed {seed}: a log on an honest disk is refused: {error}");
                refused += 1;
            }
        }
    }
    assert!(shorter > 10 && refused > 10, "{shorter} shorter, {refused} refused");
}

#[test]
fn what_is_told_after_a_failed_sync_survives_the_power() {
    for keep_cache_of_second in [false, true] {
        let (disk, model) = begun();
        let failed = batch(vec![entry(1, 4, 1, 900)]);
        let (mut log, _) = Log::open(disk.log(), settings(SEGMENT_BYTES)).unwrap();
        disk.fail_next_sync();
        assert!(matches!(log.append(&failed), Err(LogError::Disk(_))));
        assert!(matches!(log.append(&failed), Err(LogError::Refused(_))), "a failed log takes nothing any more");
        // The process is gone, the cache shows the block, the platter does not hold it.
        disk.kill();
        let (mut log, recovered) = Log::open(disk.log(), settings(SEGMENT_BYTES)).unwrap();
        assert_eq!(recovered, after(&model, &failed).recovered());
        let mut expected = after(&model, &failed);
        if keep_cache_of_second {
            let next = batch(vec![entry(1, 5, 1, 900)]);
            log.append(&next).unwrap();
            expected.apply(&next);
        }
        disk.crash_keeping(|| false, |_, _| false);
        let (_, recovered) = Log::open(disk.log(), settings(SEGMENT_BYTES)).unwrap();
        assert_eq!(recovered, expected.recovered());
    }
}

#[test]
fn a_failed_sync_of_the_recovery_is_not_believed() {
    let (disk, model) = begun();
    let torn = batch(vec![entry(1, 4, 1, 1_900)]);
    append_unsynced(&disk, &torn);
    crash_keeping(&disk, 0b1010);
    disk.fail_next_sync();
    assert!(matches!(Log::open(disk.log(), settings(SEGMENT_BYTES)), Err(LogError::Disk(_))));
    disk.kill();
    // The cache shows zeros, the platter the torn block; the next block is shorter than that.
    let (mut log, recovered) = Log::open(disk.log(), settings(SEGMENT_BYTES)).unwrap();
    assert_eq!(recovered, model.recovered());
    let next = batch(vec![entry(1, 4, 2, 100)]);
    log.append(&next).unwrap();
    disk.crash_keeping(|| false, |_, _| false);
    let (_, recovered) = Log::open(disk.log(), settings(SEGMENT_BYTES)).unwrap();
    assert_eq!(recovered, after(&model, &next).recovered());
}

#[test]
fn an_interrupted_creation_is_begun_anew() {
    for seed in 0..50 {
        for steps in 0.. {
            let disk = SimDisk::new();
            disk.power_off_after(steps);
            let created = Log::create(disk.log(), settings(SEGMENT_BYTES)).is_ok();
            disk.crash(&mut fastrand::Rng::with_seed(seed));
            match Log::create(disk.log(), settings(SEGMENT_BYTES)) {
                Ok(_) => assert!(!created),
                Err(error) => assert_eq!(error, LogError::Exists),
            }
            let (_, recovered) = Log::open(disk.log(), settings(SEGMENT_BYTES)).unwrap();
            assert_eq!(recovered, Model::default().recovered());
            if created {
                break;
            }
        }
    }
}
