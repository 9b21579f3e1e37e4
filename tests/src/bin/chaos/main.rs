//! `chaos`: a cluster of real `kv-server` processes under faults, with real clients whose every answer is judged.
//!
//! Each node stands in a network namespace of its own where root and tools allow, else on loopback. The clients are in this process. Any
//! of the nemeses may be at work together; `--list` says what each does, and whether it can be done here. In the end all faults
//! are undone, the cluster has to become whole again, every key is read, and the history is judged.
//!
//! What a run leaves is in one directory, printed at the end: `run.jsonl` (the history, with faults and
//! leaders), `run.html` (its page), the nodes' logs and
//! metrics, `seed`; and the data of all nodes, if anything was violated.
//!
//! Exit status: 0 nothing was violated, 1 something was, 2 the run could not be done. Processes are ended by their id only, and
//! what the run made (processes, namespaces, mounts) is removed also on Ctrl-C and when this program panics; if it is killed itself,
//! its nodes end with it, and the next run clears namespaces and mounts away.
//!
//! A nemesis counts only what it can show: packets dropped, syncs failed, a file lost with the power. A run whose nemeses or workloads did
//! nothing ends with exit status 2.
//!
//! *Caveat*: unlike the simulator's, a run is not repeated by its seed: which faults come in which order is, but not what they meet.

mod campaign;
mod cluster;
mod disks;
mod end;
mod links;
mod namespaces;
mod nemesis;
mod options;
mod run;
mod tamper;
mod tools;
mod watch;
mod world;

use std::process::ExitCode;

use clap::Parser;
use kv_tests::server::find_server;

use self::{nemesis::Nemesis, options::Options};

fn main() -> ExitCode {
    let options = Options::parse();
    if options.list {
        list(&options);
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ran = runtime.map_err(|error| error.to_string()).and_then(|runtime| {
        let server = find_server(options.server.clone())?;
        let ran = runtime.block_on(run::run(&options, server));
        // A command that still runs aside is not waited for.
        runtime.shutdown_background();
        ran
    });
    match ran {
        Ok(violations) if violations.is_empty() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: {error}");
            ExitCode::from(2)
        }
    }
}

/// Says what each nemesis does, and whether it can be done here.
fn list(options: &Options) {
    let namespaces = options.namespaces();
    for nemesis in Nemesis::ALL {
        let lacks = nemesis.lacks(namespaces.is_ok()).map_or(String::new(), |lacks| format!(" [not here: {lacks}]"));
        println!("{:<11} {}{lacks}", nemesis.name(), nemesis.about());
    }
    match namespaces {
        Ok(()) => println!("each node gets a network namespace"),
        Err(lacks) => println!("nodes share the loopback, links between them are proxies: {lacks}"),
    }
}
