//! What the read index costs on sled, and on two other engines behind the same trait: the load is that of checkpoints. A replica's
//! changes come sorted, in slices; of every key the old record is read, then the new ones are written; later everything is scanned,
//! as at each start. Nothing is synced: the index is no promise, it is rebuilt from the checkpoints' files.
//!
//! `just engines` prints a table: CPU microseconds a record of the whole process (engines' own threads included), the same of the
//! scan and of reading single records afterwards, the largest memory and the bytes on disk.

mod stores;

use std::{
    path::Path,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use kv_core::{disk::StateStore, types::ReplicaId};
use kv_server::disk::{Engine, IndexStore};
use stores::FjallStore;

/// As a node has them by default.
const TREES: u64 = 12;
/// As the checkpoint worker writes them.
const SLICE_RECORDS: usize = 256;
const LOOKUP_RECORDS: usize = 16;
/// Changes of a replica in one checkpoint, which is due at about so many if no key is written twice.
const DELTA_RECORDS: usize = 60_000;
const VALUE_BYTES: usize = 130;
/// Single records read at the end.
const GETS: u64 = 200_000;

/// What is written.
#[derive(Clone, Copy)]
enum Load {
    /// Keys that rise.
    Rising,
    /// New keys in no order, until all are there, then as many changes of them.
    Scattered,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let first = arguments.next();
    // Each engine has a process of its own, so that memory and threads are its alone.
    if first.as_deref() == Some("one") {
        let (engine, load, records) = (arguments.next(), arguments.next(), arguments.next());
        let load = if load.as_deref() == Some("rising") { Load::Rising } else { Load::Scattered };
        let records = records.and_then(|records| records.parse().ok()).expect("the parent names a number");
        return one(engine.as_deref().unwrap_or_default(), load, records);
    }
    let records = first.map_or(Ok(1_000_000), |records| records.parse::<u64>());
    let Ok(records) = records else {
        eprintln!("how many records? as in: just engines 1000000");
        return ExitCode::FAILURE;
    };
    println!(
        "{records} records of 17 + {VALUE_BYTES} B in {TREES} trees, changes of {DELTA_RECORDS}, slices of {SLICE_RECORDS}"
    );
    println!(
        "{:28}{:>12}{:>12}{:>12}{:>12}{:>12}{:>12}",
        "", "WRITE us", "WALL s", "SCAN us", "GET us", "MIB RSS", "MIB DISK"
    );
    for load in ["rising", "scattered"] {
        for engine in ["sled", "redb", "fjall"] {
            let program = std::env::current_exe().expect("this process has a program");
            let status = Command::new(program).args(["one", engine, load, &records.to_string()]).status();
            if !status.is_ok_and(|status| status.success()) {
                eprintln!("{engine} failed");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

fn one(engine: &str, load: Load, records: u64) -> ExitCode {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let name = match load {
        Load::Rising => format!("{engine}, rising keys"),
        Load::Scattered => format!("{engine}, scattered keys"),
    };
    let path = directory.path();
    match engine {
        "sled" => measure(&name, load, records, path, &IndexStore::open(path, Engine::Sled)),
        "redb" => measure(&name, load, records, path, &IndexStore::open(path, Engine::Redb)),
        "fjall" => measure(&name, load, records, path, &FjallStore::open(path)),
        _ => return ExitCode::FAILURE,
    }
    ExitCode::SUCCESS
}

fn measure<S: StateStore>(name: &str, load: Load, records: u64, path: &Path, store: &S) {
    (1..=TREES).for_each(|tree| store.reset(ReplicaId(tree)).expect("a tree can be made"));
    let (began, cpu) = (Instant::now(), cpu_time());
    let mut random = fastrand::Rng::with_seed(1);
    let passes = match load {
        Load::Rising => 1,
        Load::Scattered => 2,
    };
    let per_tree = records / TREES;
    for _ in 0..passes {
        for tree in 1..=TREES {
            let mut keys: Vec<u64> = (0..per_tree).collect();
            if let Load::Scattered = load {
                random.shuffle(&mut keys);
            }
            for delta in keys.chunks(DELTA_RECORDS) {
                let mut delta = delta.to_vec();
                delta.sort_unstable();
                write(store, ReplicaId(tree), &delta, &mut random);
            }
        }
    }
    let (wall, written) = (began.elapsed(), cpu_time() - cpu);
    let cpu = cpu_time();
    let found: u64 = (1..=TREES).map(|tree| scan(store, ReplicaId(tree))).sum();
    assert_eq!(found, per_tree * TREES, "the scan finds what was written");
    let scanned = cpu_time() - cpu;
    let cpu = cpu_time();
    for _ in 0..GETS {
        let key = format!("kbench/{:010}", random.u64(0..per_tree));
        let value = store.get(ReplicaId(random.u64(1..=TREES)), key.as_bytes()).expect("a record can be read");
        assert_eq!(std::hint::black_box(value).map(|value| value.len()), Some(VALUE_BYTES));
    }
    let read = cpu_time() - cpu;
    let us = |time: Duration, count: u64| time.as_secs_f64() * 1e6 / count as f64;
    println!(
        "{name:28}{:12.1}{:12.1}{:12.2}{:12.2}{:12}{:12}",
        us(written, found * passes),
        wall.as_secs_f64(),
        us(scanned, found),
        us(read, GETS),
        resident_mib_max(),
        disk_mib(path)
    );
}

fn write<S: StateStore>(store: &S, tree: ReplicaId, keys: &[u64], random: &mut fastrand::Rng) {
    for slice in keys.chunks(SLICE_RECORDS) {
        let records: Vec<_> = slice
            .iter()
            .map(|key| {
                let mut value = vec![0; VALUE_BYTES];
                random.fill(&mut value);
                (format!("kbench/{key:010}"), value)
            })
            .collect();
        let changes: Vec<_> = records.iter().map(|(key, value)| (key.as_bytes(), Some(&value[..]))).collect();
        let keys: Vec<&[u8]> = changes.iter().map(|(key, _)| *key).collect();
        for keys in keys.chunks(LOOKUP_RECORDS) {
            std::hint::black_box(store.get_many(tree, keys).expect("records can be read"));
        }
        store.write(tree, &changes).expect("records can be written");
    }
}

fn scan<S: StateStore>(store: &S, tree: ReplicaId) -> u64 {
    let (mut from, mut count) = (Vec::new(), 0);
    loop {
        let records = store.range(tree, &from, SLICE_RECORDS).expect("a tree can be read");
        count += records.len() as u64;
        match records.last() {
            Some((last, _)) if records.len() == SLICE_RECORDS => from = [last, &[0][..]].concat(),
            _ => return count,
        }
    }
}

/// CPU time of all threads of this process.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).expect("less than a second"))
}

fn resident_mib_max() -> u64 {
    let status = procfs::process::Process::myself().and_then(|process| process.status());
    status.ok().and_then(|status| status.vmhwm).unwrap_or(0) / 1_024
}

fn disk_mib(path: &Path) -> u64 {
    fn bytes(path: &Path) -> u64 {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        entries
            .map(|entry| match entry.metadata() {
                Ok(data) if data.is_dir() => bytes(&entry.path()),
                // What it takes up, not how long it says it is.
                Ok(data) => std::os::unix::fs::MetadataExt::blocks(&data) * 512,
                Err(_) => 0,
            })
            .sum()
    }
    bytes(path) / (1 << 20)
}
