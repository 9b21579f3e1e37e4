//! `--kind overload`: ten times what a cluster bears, from honest clients.
//!
//! The peak is looked for with puts and gets in a closed loop, with more and more outstanding, until more brings no more. Then
//! ten times as many are outstanding as at the peak, from as many clients as it takes. The three servers have the first core
//! for themselves and the clients the second, so that it is the servers that have too much to do.
//!
//! What must hold: goodput (calls that succeed within their deadline of 5 s) is at least 90 % of the peak's; no election; memory within a
//! bound; all nodes live. How long a call took is told as its caller saw it, with what it waited in its own client: that grows with what is
//! outstanding, and is not judged.

use std::time::Duration;

use kv_client::load::{self, Kv, Load, Plan, Window};
use kv_tests::{
    processes::{Cluster, Layout, NODES},
    usage,
};
use rustix::{
    io::Errno,
    thread::{CpuSet, sched_setaffinity},
};

use crate::{
    options::Options,
    run::{settle, terms},
};

/// How many calls are outstanding where the peak is looked for.
const OUTSTANDING: [u32; 6] = [32, 64, 128, 256, 512, 1_024];
/// More than this share of more goodput is more.
const MORE: f64 = 1.05;
/// How many times the peak's are outstanding then.
const TIMES: u32 = 10;
/// Least share of the peak's goodput that must be left.
const GOODPUT_LEAST: f64 = 0.9;
/// Calls that one client has outstanding at the most: below what a stream to one node takes.
const CALLS_A_CLIENT: u32 = 512;
/// The load is on for so long before it is measured.
const WARM_UP: Duration = Duration::from_secs(2);
const DEADLINE: Duration = Duration::from_secs(5);
/// So much may a node's memory grow: the bounds of what waits (64 MiB at the door), of tables and of the log's entries.
const RESIDENT_GROWTH_MAX_BYTES: u64 = 768 * 1024 * 1024;

/// Measures it. True if everything held.
pub(crate) async fn run(options: &Options, layout: &Layout) -> Result<bool, String> {
    on_core(0)?;
    let flags: Vec<_> = options.server_flags.split_whitespace().collect();
    let mut cluster = Cluster::start(layout, &flags).await?;
    on_core(1)?;
    let client = cluster.client(DEADLINE).await?;
    load::fill(&[Kv::from(client.clone())], &plan(options, 64)).await?;
    settle(&client).await?;
    println!("overload    servers on the first core, clients on the second; half puts, half gets");
    println!("{:>11} {:>10} {:>9} {:>9}  failed", "outstanding", "a second", "p50 ms", "p99 ms");
    let length = Duration::from_secs(options.secs);
    let mut peak: Option<(u32, f64)> = None;
    for out in OUTSTANDING {
        let window = under(&cluster, options, out, length).await?;
        let is_more = peak.is_none_or(|(_, before)| window.per_second() > before * MORE);
        if !is_more {
            break;
        }
        peak = Some((out, window.per_second()));
    }
    let (out, goodput) = peak.ok_or("no load was offered")?;
    let status = async || client.status().await.map_err(|error| error.to_string());
    let (terms_before, resident_before) = (terms(&status().await?), resident(&cluster)?);
    let window = under(&cluster, options, out * TIMES, length).await?;
    let mut broken = Vec::new();
    if window.per_second() < goodput * GOODPUT_LEAST {
        broken.push(format!("goodput fell from {goodput:.0} to {:.0} a second", window.per_second()));
    }
    let elections = terms(&status().await?).saturating_sub(terms_before);
    if elections > 0 {
        broken.push(format!("{elections} elections"));
    }
    let growth = resident(&cluster)?.saturating_sub(resident_before);
    if growth > RESIDENT_GROWTH_MAX_BYTES {
        broken.push(format!("memory grew by {} MiB", growth / 1024 / 1024));
    }
    if let Err(ended) = cluster.check_running() {
        broken.push(ended);
    }
    println!(
        "overload    {:.0} % of the peak's goodput with {TIMES} times as much outstanding, {elections} elections, {} MiB more memory",
        100.0 * window.per_second() / goodput,
        growth / 1024 / 1024
    );
    broken.iter().for_each(|broken| println!("  VIOLATION {broken}"));
    Ok(broken.is_empty())
}

fn plan(options: &Options, out: u32) -> Plan {
    Plan { out, seed: options.seed, ..Plan::default() }
}

/// A window with so many outstanding, and its line of the table.
async fn under(cluster: &Cluster<'_>, options: &Options, out: u32, length: Duration) -> Result<Window, String> {
    let mut clients = Vec::new();
    for _ in 0..out.div_ceil(CALLS_A_CLIENT) {
        clients.push(Kv::from(cluster.client(DEADLINE).await?));
    }
    let load = Load::start(clients, plan(options, out))?;
    tokio::time::sleep(WARM_UP).await;
    let window = load.window(length).await;
    load.stop().await;
    let mut both = load::Side::default();
    for side in [&window.record.puts, &window.record.gets] {
        both.latency.add(&side.latency).expect("all have the same bounds");
    }
    let ms = |quantile| both.latency.value_at_quantile(quantile) as f64 / 1e3;
    println!("{out:>11} {:>10.0} {:>9.2} {:>9.2}  {:?}", window.per_second(), ms(0.5), ms(0.99), window.record.errors);
    Ok(window)
}

/// What the node with the most memory holds.
fn resident(cluster: &Cluster<'_>) -> Result<u64, String> {
    let mut most = 0;
    for node in 1..=NODES {
        let process = cluster.process(node).ok_or("a node does not run")?;
        most = most.max(usage::usage(process)?.resident_bytes);
    }
    Ok(most)
}

/// This thread, and all that it starts from now on, runs on one core. Where there is one only, everything shares it.
fn on_core(core: usize) -> Result<(), String> {
    let mut cores = CpuSet::new();
    cores.set(core);
    match sched_setaffinity(None, &cores) {
        Err(Errno::INVAL) if core > 0 => Ok(()),
        set => set.map_err(|error| format!("core {core}: {error}")),
    }
}
