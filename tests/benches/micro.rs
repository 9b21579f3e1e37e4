//! Micro-benchmarks of what every operation passes: the codec of entries, the log's append, apply, the ring's lookup; and of the
//! checker, which decides how long a history may be. They measure time, so nothing depends on what they say: they are for
//! comparing a change with what was before, on one quiet machine. What CI compares is counted instructions (`.ci/instructions`).
//!
//! `just micro`, or `just micro apply` for one group. What they leave out: threads, disks and sockets (`kv bench`, `just peers`).

// Their dependency's macros make functions without a description.
#![allow(missing_docs)]

use std::{hint::black_box, time::Duration};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use kv_core::{
    command::{Action, Command, Condition, SessionStamp, Write, decode_batch, encode_batch},
    configuration::Configuration,
    disk::{DiskError, LogDisk, SegmentNumber},
    log::{
        Log, LogSettings,
        record::{EntryKind, HardState, LogBatch, LogEntry, Record},
    },
    ring,
    shard_map::{Arc, CheckedMap, NodeDescription, ReplicaPlace, ShardMap, ShardRow},
    state::{ShardState, Tree, record::StateHeader, sessions::SessionBounds},
    types::{
        BatchNumber, Epoch, Incarnation, Key, LogIndex, MapVersion, NodeId, Position, ReplicaId, Revision, Sequence,
        SessionId, ShardId, Term, Value,
    },
};
use kv_tests::{
    check::linearizability,
    disk::MemoryStore,
    history::{Answer, Call, Consistency, History, Mode, Moment, Name, Previous, Seen},
};

/// Commands of an entry, as a shard of a busy cluster has them.
const COMMANDS: usize = 16;
const VALUE_BYTES: usize = 128;

fn write(key: u64, sequence: u64) -> Command {
    Command::Write(Write {
        key: Key::new(format!("bench/{key:010}")).expect("it is short"),
        action: Action::Put(Value::new(vec![b'v'; VALUE_BYTES]).expect("it is short")),
        condition: Condition::Always,
        return_previous: false,
        // As by a caller who has one operation open at a time.
        session: Some(SessionStamp { session: SessionId(1), sequence: Sequence(sequence), floor: Sequence(sequence) }),
    })
}

fn entry_data(random: &mut fastrand::Rng, keys: u64, sequence: &mut u64) -> Bytes {
    let commands: Vec<_> = (0..COMMANDS)
        .map(|_| {
            *sequence += 1;
            write(random.u64(0..keys), *sequence)
        })
        .collect();
    encode_batch(&commands)
}

fn codec(criterion: &mut Criterion) {
    let mut random = fastrand::Rng::with_seed(1);
    let data = entry_data(&mut random, 1_000_000, &mut 0);
    let commands = decode_batch(&data).expect("it was just encoded");
    let mut group = criterion.benchmark_group("codec");
    group.throughput(Throughput::Elements(COMMANDS as u64));
    group.bench_function("encode", |bencher| bencher.iter(|| encode_batch(black_box(&commands))));
    group.bench_function("decode", |bencher| bencher.iter(|| decode_batch(black_box(&data))));
    group.finish();
}

/// Applying entries whose commands set random keys of so many that are all there: small sets lie in the processor's caches, large
/// ones do not.
fn apply(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("apply");
    group.throughput(Throughput::Elements(COMMANDS as u64));
    for keys in [1_000_u64, 100_000, 1_000_000] {
        let mut random = fastrand::Rng::with_seed(keys);
        let store = MemoryStore::default();
        let mut state = state();
        let (mut sequence, mut index) = (0, 1);
        let mut run = |state: &mut ShardState, commands: &[Command]| {
            index += 1;
            let mut outcomes = Vec::with_capacity(commands.len());
            let tree = Tree::new(&store, ReplicaId(1));
            state.apply(&tree, LogIndex(index), Term(1), commands, &mut outcomes).expect("nothing is read");
            outcomes
        };
        run(&mut state, &[Command::OpenSession]);
        for key in 0..keys {
            sequence += 1;
            run(&mut state, &[write(key, sequence)]);
        }
        group.bench_function(format!("{keys} keys"), |bencher| {
            bencher.iter_batched(
                || entry_data(&mut random, keys, &mut sequence),
                |data| {
                    let commands = decode_batch(&data).expect("it was just encoded");
                    run(&mut state, &commands)
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn state() -> ShardState {
    let header = StateHeader {
        index: LogIndex(1),
        term: Term(1),
        arc: Some(Arc { first: Position(0), last: Position(u64::MAX) }),
        epoch: Epoch(1),
        terms: vec![(Term(1), LogIndex(1))],
        configurations: vec![(LogIndex(1), Configuration::default())],
        ..StateHeader::default()
    };
    ShardState::from_header(header, Vec::new(), Vec::new())
        .expect("there is nothing in it")
        .with_session_bounds(SessionBounds::default())
}

/// Takes all that is written, and keeps nothing: what is measured is what the log does.
#[derive(Debug)]
struct Nowhere;

impl LogDisk for Nowhere {
    fn segments(&mut self) -> Result<Vec<(SegmentNumber, u64)>, DiskError> {
        Ok(Vec::new())
    }

    fn create(&mut self, _: SegmentNumber, _: u64) -> Result<(), DiskError> {
        Ok(())
    }

    fn rename(&mut self, _: SegmentNumber, _: SegmentNumber) -> Result<(), DiskError> {
        Ok(())
    }

    fn remove(&mut self, _: SegmentNumber) -> Result<(), DiskError> {
        Ok(())
    }

    fn read(&mut self, _: SegmentNumber, _: u64, into: &mut [u8]) -> Result<(), DiskError> {
        into.fill(0);
        Ok(())
    }

    fn write(&mut self, _: SegmentNumber, _: u64, bytes: &[u8]) -> Result<(), DiskError> {
        black_box(bytes);
        Ok(())
    }

    fn sync(&mut self, _: SegmentNumber) -> Result<(), DiskError> {
        Ok(())
    }

    fn sync_directory(&mut self) -> Result<(), DiskError> {
        Ok(())
    }
}

fn log(criterion: &mut Criterion) {
    let mut log = Log::create(Nowhere, LogSettings::default()).expect("nothing fails");
    let data = entry_data(&mut fastrand::Rng::with_seed(1), 1_000_000, &mut 0);
    let shards = (1..=12).map(ShardId);
    let (mut number, mut index) = (0, 0);
    for shard in shards.clone() {
        number += 1;
        let (hard_state, boundary) = (HardState::default(), kv_core::log::record::Boundary::default());
        let records = vec![Record::Create { shard, replica: ReplicaId(shard.0), hard_state, boundary }];
        log.append(&LogBatch { number: BatchNumber(number), records }).expect("nothing fails");
    }
    let mut group = criterion.benchmark_group("log");
    group.throughput(Throughput::Elements((4 * COMMANDS) as u64));
    group.bench_function("append", |bencher| {
        bencher.iter(|| {
            (number, index) = (number + 1, index + 1);
            // What a node syncs at once: entries of a third of its shards.
            let records = shards.clone().take(4).flat_map(|shard| {
                let (kind, context) = (EntryKind::Commands, Bytes::new());
                let entry = LogEntry { index: LogIndex(index), term: Term(1), kind, context, data: data.clone() };
                let commit = LogIndex(index - 1);
                let hard_state = HardState { term: Term(1), vote: ReplicaId(0), commit };
                // As a checkpoint does from time to time: or the log would grow.
                let boundary = kv_core::log::record::Boundary { index: commit, term: Term(1), ..Default::default() };
                [
                    Record::Entry { shard, entry },
                    Record::HardState { shard, hard_state },
                    Record::Boundary { shard, boundary },
                ]
            });
            let batch = LogBatch { number: BatchNumber(number), records: records.collect() };
            log.append(&batch).expect("nothing fails")
        });
    });
    group.finish();
}

fn lookup(criterion: &mut Criterion) {
    let nodes = [1, 2, 3].map(|node| NodeDescription {
        node: NodeId(node),
        incarnation: Incarnation(node.into()),
        peer_address: format!("node{node}:7201"),
        client_address: format!("node{node}:7101"),
        zone: String::new(),
        weight: 1,
    });
    let row = |number: u64, arc| ShardRow {
        shard: ShardId(number),
        arc,
        epoch: Epoch(1),
        replicas: (0..3)
            .map(|place| ReplicaPlace { node: NodeId(place + 1), replica: ReplicaId(number * 3 + place + 1) })
            .collect(),
    };
    let arcs = (1..).zip(ring::arcs(12)).map(|(number, arc)| row(number, Some(arc)));
    let shards = std::iter::once(row(0, None)).chain(arcs).collect();
    let map = CheckedMap::new(ShardMap { version: MapVersion(1), nodes: nodes.to_vec(), shards }).expect("it is whole");
    let keys: Vec<_> = (0..1_024).map(|key| format!("bench/{key:010}")).collect();
    let mut group = criterion.benchmark_group("ring");
    group.throughput(Throughput::Elements(keys.len() as u64));
    group.bench_function("lookup", |bencher| {
        bencher.iter(|| keys.iter().filter_map(|key| map.row_at(ring::position(black_box(key.as_bytes())))).count());
    });
    group.finish();
}

/// Eight callers write and read one key each in its turn, and always overlap.
fn history(operations: u64) -> History {
    let at = |event| Moment { event, micros: event };
    let mut history = History::default();
    let key = Name::of(b"key");
    let mut open: Vec<u64> = Vec::new();
    let (mut revision, mut value) = (0, None);
    for number in 0..operations {
        let client = number % 8;
        if open.len() == 8 {
            let id = open.remove(0);
            let token = None;
            let answer = match &history.operations()[usize::try_from(id).expect("a small number")].call {
                Call::Write { value: written, .. } => {
                    revision += 1;
                    value.clone_from(written);
                    Answer::Written { revision: Revision(revision), previous: Previous::Untold, token }
                }
                _ => {
                    let entry = value.clone().map(|value| Seen { revision: Revision(revision), value });
                    Answer::Read { entry, at: Some(Revision(revision)), age_micros: 0 }
                }
            };
            history.complete(id, answer, at(2 * number + 1));
        }
        let call = if number % 2 == 0 {
            let value = Some(Name::of(format!("value{number}").as_bytes()));
            let condition = Condition::Always;
            Call::Write { key: key.clone(), value, condition, return_previous: false, mode: Mode::Sync }
        } else {
            Call::Get { key: key.clone(), consistency: Consistency::Linearizable }
        };
        open.push(history.invoke(client, call, at(2 * number)));
    }
    history
}

fn checker(criterion: &mut Criterion) {
    const OPERATIONS: u64 = 10_000;
    let history = history(OPERATIONS);
    linearizability::check(&history).expect("the history is of a register");
    let mut group = criterion.benchmark_group("checker");
    group.throughput(Throughput::Elements(OPERATIONS)).sample_size(20);
    group.bench_function("linearizability", |bencher| bencher.iter(|| linearizability::check(black_box(&history))));
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_secs(1));
    targets = codec, log, apply, lookup, checker
}
criterion_main!(benches);
