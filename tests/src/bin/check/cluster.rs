//! Makes a history on a cluster of one's own: a load of clients that reads and writes keys of its own, every answer recorded.
//!
//! Nothing is done to the cluster: kill nodes or part networks meanwhile, by whatever means it has. The keys (`register/0/3` and the like)
//! are deleted before, because what an earlier run left would be values that nobody wrote, and afterwards.

use std::{collections::BTreeMap, path::Path, time::Duration};

use kv_client::{Client, ClientBuilder};
use kv_tests::{
    history::{
        recorder::Recorder,
        run::{About, RunEvent, Settings, What},
    },
    workloads::{Load, Shape, Workload},
};
use tokio::time::sleep;

/// Clients with connections and routers of their own.
const CLIENTS: usize = 4;
/// Tasks that they have.
const TASKS: usize = 24;
/// Keys of each workload that are in use at a time.
const KEYS: u64 = 24;
/// After so many seconds the load turns to new keys, so that orders can be found whatever the length of a run.
const KEY_SECS: u64 = 10;
/// Mean pause of a task between two calls.
const PAUSE: Duration = Duration::from_millis(2);
/// Time of a call that has no reason for less.
const DEADLINE: Duration = Duration::from_secs(3);
/// For how long a final read is waited for, and the deletion of keys.
const PATIENCE: Duration = Duration::from_secs(15);
/// By how many millionths the clocks of nodes and clients may differ.
const CLOCK_DRIFT_PPM: u64 = 500;
/// Pause between two looks at who leads.
const LOOK_PAUSE: Duration = Duration::from_millis(250);

/// Runs a load for so many seconds and records it into a file.
pub(crate) fn record(endpoints: &[String], secs: u64, workload: &str, seed: u64, file: &Path) -> Result<(), String> {
    let workloads = match workload {
        "mixed" => Workload::ALL.to_vec(),
        name => vec![Workload::named(name).ok_or_else(|| {
            let names: Vec<_> = Workload::ALL.iter().map(|workload| workload.name()).collect();
            format!("there is no workload {name}: take mixed, {}", names.join(", "))
        })?],
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|fault| format!("no runtime: {fault}"))?;
    let deadline = DEADLINE;
    let shape = Shape { workloads, tasks: TASKS, keys: KEYS, pause: PAUSE, deadline, key_secs: KEY_SECS, seed };
    runtime.block_on(run(endpoints, secs, workload, &shape, file))
}

async fn run(endpoints: &[String], secs: u64, workload: &str, shape: &Shape, file: &Path) -> Result<(), String> {
    let connect = |deadline| Client::builder().endpoints(endpoints.to_vec()).deadline(deadline);
    let steady = connected(connect(PATIENCE)).await?;
    let status = steady.status().await.map_err(|fault| format!("no status of the cluster: {fault}"))?;
    let shards = status.shards.iter().filter(|shard| shard.shard.0 != 0).count();
    let nodes: Vec<_> = status.nodes.iter().map(|node| format!("n{}", node.node.0)).collect();
    let keys = keys(shape, secs);
    crate::say(&format!("check: {} nodes, {shards} shards; clearing {} keys", nodes.len(), keys.len()));
    clear(&steady, &keys).await?;
    // The nodes may have clocks of their own: no crystal is off by more.
    let settings = Settings { clock_drift_ppm: CLOCK_DRIFT_PPM, ..Settings::default() };
    let about = About {
        program: "check".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        seed: shape.seed,
        workload: workload.into(),
        nodes,
        shards: shards as u64,
        settings,
        ..About::default()
    };
    let recorder = Recorder::start(file, &about).map_err(|fault| format!("{}: {fault}", file.display()))?;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(connected(connect(DEADLINE)).await?);
    }
    crate::say(&format!("check: {TASKS} tasks for {secs} s"));
    let mut load = Load::start(&clients, &recorder, shape);
    tokio::select! {
        () = watch(&steady, &recorder) => {}
        () = sleep(Duration::from_secs(secs)) => {}
    }
    load.stop().await?;
    let (read, unread) = load.final_reads(steady.clone()).await;
    crate::say(&format!("check: {read} keys read in the end, {} of them not answered", unread.len()));
    recorder.finish().map_err(|fault| format!("{}: {fault}", file.display()))?;
    // The history is whole: what is left over harms nobody but disks.
    if let Err(fault) = clear(&steady, &keys).await {
        crate::say(&format!("check: {fault}; its keys stay"));
    }
    Ok(())
}

async fn connected(builder: ClientBuilder) -> Result<Client, String> {
    builder.connect().await.map_err(|fault| format!("no node of the cluster can be reached: {fault}"))
}

/// All keys that a run of so many seconds may write.
fn keys(shape: &Shape, secs: u64) -> Vec<String> {
    // Calls of the end, and a load that was slow to start, may come to the next keys.
    let ages = 0..=(secs + 2 * DEADLINE.as_secs()) / shape.key_secs.max(1);
    let of = |workload: &Workload, age: u64| (0..shape.keys).map(move |key| (*workload, age, key)).collect::<Vec<_>>();
    let all = shape.workloads.iter().flat_map(|workload| ages.clone().flat_map(move |age| of(workload, age)));
    all.map(|(workload, age, key)| format!("{workload}/{age}/{key}")).collect()
}

async fn clear(client: &Client, keys: &[String]) -> Result<(), String> {
    for key in keys {
        client.delete(key).await.map_err(|fault| format!("key {key} can't be deleted: {fault}"))?;
    }
    Ok(())
}

/// Notes who leads, until nobody asks for it any more.
async fn watch(client: &Client, recorder: &Recorder) {
    let mut leaders: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    loop {
        if let Ok(status) = client.status().await {
            for shard in &status.shards {
                let Some(leader) = shard.leader else { continue };
                if leaders.insert(shard.shard.0, (shard.term, leader.0)) != Some((shard.term, leader.0)) {
                    let what = What::Leader { shard: shard.shard.0, node: leader.0, term: shard.term };
                    recorder.event(&RunEvent { from_micros: recorder.micros(), until_micros: None, what });
                }
            }
        }
        sleep(LOOK_PAUSE).await;
    }
}
