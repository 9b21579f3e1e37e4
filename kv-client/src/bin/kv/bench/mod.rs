//! `bench`: a mix of puts and gets with a fixed number of operations outstanding.
//!
//! Closed loop: each of `--out` callers asks again when it is answered, so a slow cluster is asked less, and the latencies
//! leave out what would have had to wait. All callers share one client on one thread: what is measured includes it.

mod record;
mod report;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use kv_client::{Client, Durability, Result};

use crate::{
    args::{Bench, Common},
    connect,
    exit::Exit,
    output::Output,
};
use record::{Kind, Record};

/// Runs the benchmark and reports; an interrupt ends it early, with a report.
pub(crate) async fn run(common: &Common, bench: Bench, output: &Output) -> std::result::Result<(), Exit> {
    let client = connect(common).await?;
    if bench.fill {
        fill(&client, &bench).await?;
    }
    let began = Instant::now();
    let load = Arc::new(Load {
        record: Mutex::new(Record::new()),
        left: Mutex::new(bench.count),
        until: bench.count.is_none().then(|| began + bench.duration),
        value: value(&bench),
        bench,
    });
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..load.bench.out {
        callers.spawn(call_in_a_loop(client.clone(), load.clone(), u64::from(caller)));
    }
    tokio::select! {
        () = async { while callers.join_next().await.is_some() {} } => {}
        _interrupted = tokio::signal::ctrl_c() => callers.shutdown().await,
    }
    let elapsed = began.elapsed();
    let status = client.status().await?;
    let record = load.record.lock().unwrap_or_else(PoisonError::into_inner);
    report::write(&load.bench, common, &record, elapsed, &status, output)
}

/// What all callers share.
struct Load {
    bench: Bench,
    record: Mutex<Record>,
    /// Operations not begun yet, if their number is given.
    left: Mutex<Option<u64>>,
    until: Option<Instant>,
    value: Bytes,
}

impl Load {
    /// Whether there is another operation to begin.
    fn take_one(&self) -> bool {
        if self.until.is_some_and(|until| Instant::now() >= until) {
            return false;
        }
        match self.left.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            None => true,
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }

    fn record(&self, kind: Kind, latency: Duration, result: &Result<bool>) {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).add(kind, latency, result);
    }
}

async fn call_in_a_loop(client: Client, load: Arc<Load>, caller: u64) {
    let bench = &load.bench;
    let mut random = fastrand::Rng::with_seed(bench.seed ^ caller.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    while load.take_one() {
        let key = key(bench, random.u64(..bench.keys));
        let kind = if random.u8(..100) < bench.mix.put_percent { Kind::Put } else { Kind::Get };
        let began = Instant::now();
        let result = match kind {
            Kind::Put => put(&client, bench, &key, &load.value).await,
            Kind::Get => client.get(key).consistency(bench.consistency).await.map(|entry| entry.is_some()),
        };
        load.record(kind, began.elapsed(), &result);
    }
}

async fn put(client: &Client, bench: &Bench, key: &str, value: &Bytes) -> Result<bool> {
    let put = client.put(key, value.clone());
    let put = if bench.is_async { put.durability(Durability::Async) } else { put };
    put.await.map(|_receipt| true)
}

/// Writes every key once.
async fn fill(client: &Client, bench: &Bench) -> std::result::Result<(), Exit> {
    let next = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let value = value(bench);
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..bench.out {
        let (client, bench, next, value) = (client.clone(), bench.clone(), next.clone(), value.clone());
        callers.spawn(async move {
            loop {
                let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if number >= bench.keys {
                    return Ok(());
                }
                client.put(key(&bench, number), value.clone()).await?;
            }
        });
    }
    while let Some(ended) = callers.join_next().await {
        ended.map_err(|error| Exit::Failure(error.to_string()))?.map_err(Exit::Error)?;
    }
    Ok(())
}

fn key(bench: &Bench, number: u64) -> String {
    format!("{}{number:010}", bench.prefix)
}

/// One value for all: random bytes, which no layer can make smaller.
fn value(bench: &Bench) -> Bytes {
    let mut random = fastrand::Rng::with_seed(bench.seed);
    (0..bench.value_bytes).map(|_| random.u8(..)).collect()
}
