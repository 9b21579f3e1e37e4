//! `instructions`: a fixed load on three nodes of the core in one thread, to be counted by callgrind.
//!
//! Instructions, not time: they are the same on a busy machine and on an idle one, and nearly so at every run. `.ci/instructions`
//! runs this program under valgrind and compares what it counts with the figures that are committed.
//!
//! *Left out*: network, disks, threads, and how many operations a turn gets, which is given here. See `kv bench` for those.

mod cluster;
mod disk;
mod store;

use std::{hint::black_box, process::ExitCode};

use kv_core::types::Key;

use cluster::Cluster;

/// Keys that are written before anything is counted, and then written or read in another order.
const KEYS: u64 = 20_000;
/// Shards beside the meta shard, as a cluster has by default.
const SHARDS: u32 = 12;

/// A load: operations under way at a time, and how often that many.
struct Load {
    name: &'static str,
    at_a_time: u64,
    times: u64,
    is_put: bool,
}

const LOADS: [Load; 5] = [
    Load { name: "put-1", at_a_time: 1, times: 500, is_put: true },
    Load { name: "put-26", at_a_time: 26, times: 100, is_put: true },
    Load { name: "put-100", at_a_time: 100, times: 40, is_put: true },
    Load { name: "get-26", at_a_time: 26, times: 100, is_put: false },
    Load { name: "get-100", at_a_time: 100, times: 40, is_put: false },
];

fn main() -> ExitCode {
    let name = std::env::args().nth(1).unwrap_or_default();
    let Some(load) = LOADS.iter().find(|load| load.name == name) else {
        eprintln!("usage: instructions {}", LOADS.map(|load| load.name).join("|"));
        return ExitCode::from(2);
    };
    let mut cluster = Cluster::start(3, SHARDS);
    for first in (0..KEYS).step_by(500) {
        cluster.put((first..first + 500).map(key));
    }
    measured(&mut cluster, load);
    println!("{} {}", load.name, load.at_a_time * load.times);
    ExitCode::SUCCESS
}

/// What callgrind counts, by this function's name.
#[inline(never)]
fn measured(cluster: &mut Cluster, load: &Load) {
    for time in 0..load.times {
        let keys = (0..load.at_a_time).map(|one| key(scattered(time * load.at_a_time + one)));
        if load.is_put {
            cluster.put(keys);
        } else {
            cluster.get(keys);
        }
    }
    black_box(cluster);
}

/// Another order of the keys: the number is prime, so that each is met once before any is met again.
fn scattered(number: u64) -> u64 {
    number * 7_919 % KEYS
}

fn key(number: u64) -> Key {
    Key::new(format!("bench/{number:010}")).expect("a short key")
}
