//! Random batches, crashes, kills and failing disks, against a plain map of what was acknowledged.

use kv_core::{
    configuration::Configuration,
    log::{
        Log,
        record::{Install, LogBatch, Record, StagingId},
    },
    types::{Digest, LogIndex, ReplicaId, ShardId, Term},
};
use kv_tests::disk::SimDisk;
use proptest::prelude::*;

use crate::sample::{Model, SimLog, batch, boundary, create, entry, settings, vote};

const SEGMENT_BYTES: usize = 8 * 1024;

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_log_tells_what_was_acknowledged(seed: u64) {
        run(seed);
    }
}

/// One life of a log with many deaths; panics if it ever says anything but the model, or the model and the batch in flight.
pub(crate) fn run(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let disk = SimDisk::new();
    let mut log = Log::create(disk.log(), settings(SEGMENT_BYTES)).unwrap();
    let mut model = Model::default();
    for _ in 0..12 {
        match random.u8(0..4) {
            0 => disk.fail_next_sync(),
            1 => disk.fail_next_write(),
            _ => disk.power_off_after(random.u64(0..60)),
        }
        let mut in_flight = None;
        for _ in 0..30 {
            let batch = random_batch(&model, &mut random);
            if random.u8(0..8) == 0 && log.prepare_next().is_err() {
                break;
            }
            match log.append(&batch) {
                Ok(_) => model.apply(&batch),
                Err(_) => {
                    in_flight = Some(batch);
                    break;
                }
            }
        }
        drop(log);
        (log, model) = restart(&disk, model, in_flight, &mut random);
    }
}

fn restart(disk: &SimDisk, model: Model, in_flight: Option<LogBatch>, random: &mut fastrand::Rng) -> (SimLog, Model) {
    let mut with = model.clone();
    if let Some(batch) = &in_flight {
        with.apply(batch);
    }
    loop {
        if random.u8(0..3) == 0 {
            disk.kill();
        } else {
            disk.crash(random);
        }
        if random.u8(0..3) == 0 {
            disk.power_off_after(random.u64(0..8));
        }
        match Log::open(disk.log(), settings(SEGMENT_BYTES)) {
            Ok((log, recovered)) => {
                assert!(
                    recovered == model.recovered() || recovered == with.recovered(),
                    "another log than was written"
                );
                return (log, if recovered == model.recovered() { model } else { with });
            }
            Err(error) => assert!(disk.is_off(), "the log was refused: {error}"),
        }
    }
}

fn random_batch(model: &Model, random: &mut fastrand::Rng) -> LogBatch {
    let mut records = Vec::new();
    for shard in 1..4 {
        if random.bool() {
            random_records(model, shard, random, &mut records);
        }
    }
    batch(records)
}

fn random_records(model: &Model, shard: u64, random: &mut fastrand::Rng, records: &mut Vec<Record>) {
    let Some(state) = model.shards.get(&ShardId(shard)) else {
        if !model.tombstones.contains_key(&ReplicaId(shard + 10)) {
            records.push(create(shard));
        }
        return;
    };
    let (hard_state, first) = (state.recovered.hard_state, state.recovered.boundary.index.0);
    let last = state.entries.keys().next_back().map_or(first, |index| index.0);
    let term_at =
        |index: u64| state.entries.get(&LogIndex(index)).map_or(state.recovered.boundary.term.0, |entry| entry.term.0);
    match random.u8(0..10) {
        0 => records.push(vote(shard, hard_state.term.0 + 1, random.u64(0..4), hard_state.commit.0)),
        1..4 => {
            let index = random.u64(first..=last);
            records.push(vote(shard, hard_state.term.0, hard_state.vote.0, hard_state.commit.0.max(index)));
            records.push(boundary(shard, index, term_at(index)));
        }
        4 if random.u8(0..10) == 0 => {
            let (index, term) = (LogIndex(last + random.u64(1..10)), Term(hard_state.term.0.max(term_at(last))));
            let (staging, digest) = (StagingId(random.u128(..)), Digest(random.u128(..)));
            let install = Install { index, term, configuration: Configuration::default(), staging, digest };
            records.push(Record::Install { shard: ShardId(shard), install });
            records.push(vote(shard, term.0 + 1, 0, index.0));
        }
        5 if shard == 3 && random.u8(0..40) == 0 => {
            records.push(Record::Tombstone { shard: ShardId(shard), replica: ReplicaId(shard + 10) });
        }
        _ => {
            // Sometimes over the uncommitted end, in a later term.
            let floor = hard_state.commit.0.max(first).min(last);
            let start = if random.u8(0..4) == 0 { random.u64(floor..=last) } else { last } + 1;
            let term = if start <= last {
                hard_state.term.0.max(term_at(last)) + 1
            } else {
                hard_state.term.0.max(term_at(last))
            };
            if term > hard_state.term.0 {
                records.push(vote(shard, term, 0, hard_state.commit.0));
            }
            for index in start..start + random.u64(1..4) {
                records.push(entry(shard, index, term, random.usize(0..1_200)));
            }
        }
    }
}
