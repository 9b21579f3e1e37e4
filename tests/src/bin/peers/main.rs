//! `peers`: the same load on a cluster of kv, of etcd and of Redis, in turn, on this machine.
//!
//! All clusters have three nodes with fresh directories on one disk and run at the same time; only one is asked at a time, in
//! the order A B C A B C, so that whatever else the machine does meets all alike. Only systems that promise the same stand
//! in one table. The CPU of a system is that of its own processes over the measured window.
//!
//! Beside them stand the two limits of the machine: an echo over the very stream that kv's clients use, and a loop of
//! fdatasyncs.
//!
//! *Caveats*: the load and the servers share the machine. Redis answers reads and loses writes as its manual says: in none of its
//! settings is it linearizable. What a system keeps between repetitions (page cache, compaction) it keeps.

mod drivers;
mod echo;
mod etcd;
mod measure;
mod page;
mod ports;
mod report;
mod systems;
mod workload;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use kv_client::load::{Load, Plan};

use drivers::Driver;
use measure::Usage;
use report::{Cell, Report};
use systems::{Kind, System};
#[cfg(test)]
use workload::Tier;

/// Runs the same load on kv, etcd and Redis.
#[derive(Debug, Parser)]
#[command(name = "peers", version, about)]
struct Args {
    /// Workloads by name, joined by commas; all if not given (see --list)
    #[arg(long, value_delimiter = ',')]
    workloads: Vec<String>,
    /// Names the workloads, and ends
    #[arg(long)]
    list: bool,
    /// How often each system has its turn
    #[arg(long, default_value_t = 5)]
    repeat: u32,
    /// Measured seconds of each turn, after a second to warm up
    #[arg(long, default_value_t = 10)]
    secs: u64,
    /// Different keys
    #[arg(long, default_value_t = 100_000)]
    keys: u64,
    /// Systems, joined by commas; all if not given
    #[arg(long, value_delimiter = ',', value_enum)]
    systems: Vec<Kind>,
    /// The server of kv; that beside this program if not given
    #[arg(long)]
    server: Option<PathBuf>,
    /// Where the data goes: a directory that does not exist; a temporary one if not given
    #[arg(long)]
    data: Option<PathBuf>,
    /// Runs no bench, but this one of the echo servers that the bench is compared with, for `kv bench`
    #[arg(long, value_name = "NODE", requires = "echo_addresses")]
    echo: Option<usize>,
    /// The addresses of all echo servers, joined by commas; the first is that of node 1
    #[arg(long, value_name = "ADDRESSES", value_delimiter = ',', requires = "echo")]
    echo_addresses: Vec<String>,
    /// Writes all figures to this file, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Writes a page of plots to this file, as HTML
    #[arg(long)]
    html: Option<PathBuf>,
    /// Writes the plots of throughput and CPU to this directory, as SVG
    #[arg(long)]
    plots: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.list {
        for workload in workload::ALL {
            println!("{:24} {}", workload.name, workload.describe());
        }
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ran = runtime.map_err(|error| error.to_string()).and_then(|runtime| match args.echo {
        Some(node) => runtime.block_on(echo::serve(node, &args.echo_addresses)),
        None => runtime.block_on(run(&args)),
    });
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<(), String> {
    let workloads = workload::named(&args.workloads)?;
    let kinds = if args.systems.is_empty() { Kind::ALL.to_vec() } else { args.systems.clone() };
    let data = systems::data(args.data.clone())?;
    let mut systems = Vec::new();
    for kind in kinds {
        let system = System::start(kind, args.server.clone(), data.path()).await?;
        println!("{}", system.describe());
        systems.push(system);
    }
    let mut report = Report::new(systems.iter().map(System::describe).collect());
    for workload in workloads {
        let mut contenders = Vec::new();
        for system in &systems {
            if system.kind.tiers().contains(&workload.tier) {
                contenders.push((system, system.drivers(workload).await?));
            }
        }
        for (system, drivers) in contenders.iter().filter(|_| !workload.is_new) {
            let filled = kv_client::load::fill(drivers, &workload.plan(args.keys, 0)).await;
            filled.map_err(|error| format!("{}: the keys could not be written: {error}", system.kind.name()))?;
        }
        for turn in 0..args.repeat {
            for (system, drivers) in &contenders {
                let plan = workload.plan(args.keys, turn);
                let cell = measure(system, drivers.clone(), plan, args.secs).await?;
                report.add(workload, system.kind, cell);
            }
        }
        println!("\n{}", report.table(workload));
    }
    let syncs = measure::disk_syncs(data.path())?;
    println!("\nthe disk alone: {syncs}");
    report.disk = Some(syncs);
    if let Some(path) = &args.json {
        write(path, &report.json(&command()))?;
    }
    if let Some(path) = &args.html {
        write(path, &report.html(&command()))?;
    }
    if let Some(directory) = &args.plots {
        std::fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        for (name, svg) in report.plots() {
            write(&directory.join(name), &svg)?;
        }
    }
    println!("\nrepeat with: {}", command());
    Ok(())
}

async fn measure(system: &System, drivers: Vec<Driver>, plan: Plan, secs: u64) -> Result<Cell, String> {
    let load = Load::start(drivers, plan)?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = Usage::of(&system.processes())?;
    let window = load.window(Duration::from_secs(secs)).await;
    let used = Usage::of(&system.processes())?.since(&before);
    load.stop().await;
    Ok(Cell { window, used })
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

fn command() -> String {
    std::env::args().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_table_mixes_durabilities() {
        for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Echo) {
            let is_memory = matches!(kind, Kind::KvAsync | Kind::Redis);
            assert_eq!(kind.tiers().contains(&Tier::LeaderMemory), is_memory, "{}", kind.name());
            assert_eq!(kind.tiers().contains(&Tier::QuorumDisk), !is_memory, "{}", kind.name());
        }
    }
}
