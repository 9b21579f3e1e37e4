//! Segments come and go, and no vote, entry, install or tombstone goes with them.

use kv_core::{
    configuration::Configuration,
    log::{
        Log, LogError, LogSettings,
        record::{Install, Record, StagingId},
    },
    types::{Digest, LogIndex, ReplicaId, ShardId, Term},
};
use kv_tests::disk::SimDisk;

use crate::sample::{Model, SimLog, batch, boundary, create, entry, settings, vote};

const SEGMENT_BYTES: usize = 16 * 1024;

struct World {
    disk: SimDisk,
    settings: LogSettings,
    log: SimLog,
    model: Model,
}

impl World {
    fn new() -> Self {
        Self::with(settings(SEGMENT_BYTES))
    }

    fn with(settings: LogSettings) -> Self {
        let disk = SimDisk::new();
        let log = Log::create(disk.log(), settings.clone()).unwrap();
        Self { disk, settings, log, model: Model::default() }
    }

    fn append(&mut self, records: Vec<Record>) -> kv_core::log::record::LogReport {
        let batch = batch(records);
        let report = self.log.append(&batch).unwrap();
        self.model.apply(&batch);
        report
    }

    fn reopen(&mut self) {
        let (log, recovered) = Log::open(self.disk.log(), self.settings.clone()).unwrap();
        assert_eq!(recovered, self.model.recovered());
        self.log = log;
    }
}

#[test]
fn idle_shards_keep_their_votes_installs_and_tombstones() {
    let mut world = World::new();
    world.append(vec![create(1), create(2), create(3), create(4)]);
    world.append(vec![vote(2, 9, 44, 1), Record::Tombstone { shard: ShardId(4), replica: ReplicaId(14) }]);
    let install = Install {
        index: LogIndex(50),
        term: Term(3),
        configuration: Configuration::default(),
        staging: StagingId(7),
        digest: Digest(8),
    };
    world.append(vec![Record::Install { shard: ShardId(3), install }, vote(3, 3, 0, 50), entry(3, 51, 3, 10)]);
    world.append(vec![Record::Boundary { shard: ShardId(3), boundary: at(50) }]);
    let first = world.disk.paths()[0].clone();
    for index in 2..400 {
        world.append(vec![entry(1, index, 1, 1_000)]);
        if index % 8 == 0 {
            world.append(vec![boundary(1, index - 1, 1)]);
        }
        if index == 200 {
            // Shard 3 has held the first segment until now.
            assert!(world.disk.paths().contains(&first));
            world.append(vec![Record::Boundary { shard: ShardId(3), boundary: at(51) }]);
        }
        if index % 50 == 0 {
            world.reopen();
        }
    }
    world.reopen();
    assert!(!world.disk.paths().contains(&first));
    assert!(world.disk.paths().len() <= 6, "{:?}", world.disk.paths());
}

fn at(index: u64) -> kv_core::log::record::Boundary {
    kv_core::log::record::Boundary { index: LogIndex(index), term: Term(3), configuration: Configuration::default() }
}

#[test]
fn past_half_of_the_bound_the_shards_that_pin_the_oldest_segment_are_named() {
    let mut world = World::new();
    world.append(vec![create(1), create(2), create(3)]);
    world.append(vec![entry(2, 2, 1, 100), vote(3, 2, 13, 1)]);
    let mut pinned_by = Vec::new();
    for index in 2..60 {
        let report = world.append(vec![entry(1, index, 1, 1_000), boundary(1, index - 1, 1)]);
        assert_eq!(report.pinned_by.is_empty(), report.bytes <= 32 * 1024, "{} bytes", report.bytes);
        pinned_by = report.pinned_by;
    }
    assert_eq!(pinned_by, vec![ShardId(2)]);
    // A boundary frees it; the block after the one that says so gives the segments up.
    world.append(vec![boundary(2, 2, 1)]);
    let report = world.append(vec![]);
    assert_eq!((report.bytes, report.pinned_by), (SEGMENT_BYTES as u64, vec![]));
    world.reopen();
}

#[test]
fn an_overwritten_tail_does_not_pin_its_segment() {
    let mut world = World::new();
    world.append(vec![create(1), create(2)]);
    world.append((2..8).map(|index| entry(2, index, 1, 100)).collect());
    let first = world.disk.paths()[0].clone();
    for index in 2..40 {
        world.append(vec![entry(1, index, 1, 1_000), boundary(1, index - 1, 1)]);
    }
    // Entries 4 to 7 never take effect, and no boundary will ever reach them.
    world.append(vec![entry(2, 4, 2, 10)]);
    assert!(world.disk.paths().contains(&first));
    world.append(vec![boundary(2, 3, 1)]);
    world.append(vec![]);
    assert!(!world.disk.paths().contains(&first));
    world.reopen();
}

#[test]
fn many_segments_freed_at_once_are_used_again_in_their_turn() {
    const SPARES: usize = 5;
    let mut world = World::with(LogSettings { spares_max: SPARES, ..settings(SEGMENT_BYTES) });
    world.append(vec![create(1)]);
    let mut next = 2;
    let mut write = |world: &mut World, segments: usize| {
        // A block of one such entry takes three sectors, and eight of them nearly fill a segment.
        for _ in 0..segments * 8 {
            world.append(vec![entry(1, next, 1, 1_000)]);
            next += 1;
        }
        next - 1
    };
    let last = write(&mut world, 16);
    assert!(world.disk.paths().len() > SPARES + 3);
    world.append(vec![boundary(1, last, 1)]);
    world.append(vec![]);
    let kept = world.disk.paths();
    assert_eq!(kept.len(), 1 + SPARES, "the current one and those that wait");
    world.reopen();
    assert_eq!(world.disk.paths(), kept, "a start keeps them");
    for _ in 0..SPARES - 1 {
        write(&mut world, 1);
        assert_eq!(world.disk.paths().len(), kept.len(), "none is made anew while some wait");
        world.reopen();
    }
    write(&mut world, 6);
    assert!(world.disk.paths().len() > kept.len(), "then they are");
    world.reopen();
}

#[test]
fn a_full_disk_stops_the_log_and_what_was_acknowledged_is_there() {
    let mut world = World::new();
    world.append(vec![create(1)]);
    world.log.prepare_next().unwrap();
    world.disk.set_bytes_max(Some(3 * SEGMENT_BYTES as u64 - 1));
    for index in 2.. {
        let batch = batch(vec![entry(1, index, 1, 1_000)]);
        match world.log.append(&batch) {
            Ok(_) => world.model.apply(&batch),
            Err(LogError::Disk(_)) => break,
            Err(error) => panic!("{error}"),
        }
    }
    world.reopen();
    world.disk.set_bytes_max(None);
    let next = world.model.shards[&ShardId(1)].entries.len() as u64 + 2;
    world.append(vec![entry(1, next, 1, 1_000)]);
    world.reopen();
}

#[test]
fn a_batch_that_contradicts_the_log_is_refused_before_it_is_written() {
    let refused: [(&str, Vec<Record>); 9] = [
        ("a gap", vec![entry(1, 5, 1, 10)]),
        ("at the boundary", vec![entry(1, 1, 1, 10)]),
        ("no such shard", vec![entry(9, 2, 1, 10)]),
        ("a replica twice", vec![create(1)]),
        ("a commit index above the end", vec![vote(1, 4, 11, 4)]),
        ("a lower term", vec![vote(1, 2, 0, 1)]),
        ("a second vote", vec![vote(1, 3, 12, 1)]),
        ("a boundary above the end", vec![boundary(1, 4, 1)]),
        ("too large", (3..30).map(|index| entry(1, index, 1, 1_000)).collect()),
    ];
    for (what, records) in refused {
        let mut world = World::new();
        world.append(vec![create(1)]);
        world.append(vec![entry(1, 2, 1, 10), entry(1, 3, 1, 10), vote(1, 3, 11, 1)]);
        let result = world.log.append(&batch(records));
        assert!(matches!(result, Err(LogError::Refused(_))), "{what}: {result:?}");
        world.reopen();
    }
}

#[test]
fn recycled_segments_are_used_again_and_none_is_made() {
    let mut world = World::new();
    world.append(vec![create(1)]);
    let mut most = 0;
    for index in 2..300 {
        world.append(vec![entry(1, index, 1, 2_000), boundary(1, index - 1, 1)]);
        most = most.max(world.disk.paths().len());
    }
    world.disk.take_counters();
    for index in 300..400 {
        world.append(vec![entry(1, index, 1, 2_000), boundary(1, index - 1, 1)]);
    }
    // 100 blocks of 5 sectors; every 6 of them a rotation: an end, a table, a rename with its sync.
    let counters = world.disk.take_counters();
    assert!(counters.writes <= 100 + 2 * 18, "{counters:?}");
    assert!(counters.bytes_written < 100 * 2_560 + 36 * 1_024, "no segment is zeroed: {counters:?}");
    assert!(most <= 4, "{most} files");
}
