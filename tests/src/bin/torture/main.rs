//! `torture`: three real `kv-server` processes are killed and damaged under load, and every acknowledged write is looked for.
//!
//! What the simulator can't show is shown here: the real sockets, files, threads and clocks. Everything lives under a
//! temporary directory and on loopback, and only processes that were started here are ever killed. Exit status 0 means that
//! nothing was violated, 1 that something was, 2 that the run itself could not be done.
//!
//! *Caveat*: `kill -9` ends a process, not the machine: what it had written but not synced stays in the kernel's memory and
//! comes back. The loss of what was not synced is the simulator's part.

mod judge;
mod load;
mod modes;
mod replica;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};

use kv_tests::{processes::Layout, server::find_server};

/// Kills and damages a cluster of three real processes under load, and looks for a lost write.
#[derive(Debug, Parser)]
#[command(name = "torture")]
struct Arguments {
    /// The kv-server to torture; by default it is built, or taken from beside this program if that was not run by cargo.
    #[arg(long, global = true)]
    server: Option<PathBuf>,
    /// Keep data and logs in this directory, which must not exist; else they are removed unless something was violated.
    #[arg(long, global = true)]
    data: Option<PathBuf>,
    /// Number of shards.
    #[arg(long, global = true, default_value_t = 12)]
    shards: u32,
    /// Tasks that write, each to keys of its own.
    #[arg(long, global = true, default_value_t = 32)]
    writers: usize,
    /// Tasks that read keys of all writers.
    #[arg(long, global = true, default_value_t = 8)]
    readers: usize,
    /// Where the choice of keys and of bytes to damage begins.
    #[arg(long, global = true, default_value_t = 1)]
    seed: u64,
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Debug, Subcommand)]
enum Mode {
    /// The node that leads most shards is killed again and again.
    Kill {
        /// How long to run, in seconds.
        #[arg(long, default_value_t = 120)]
        secs: u64,
        /// Seconds between two kills.
        #[arg(long, default_value_t = 10)]
        every: u64,
    },
    /// All nodes are killed at once, again and again.
    Power {
        /// How often.
        #[arg(long, default_value_t = 10)]
        rounds: u32,
    },
    /// One node's files are deleted or damaged, in several ways.
    Damage {
        /// How many bytes of the read index are flipped, one at a time.
        #[arg(long, default_value_t = 5)]
        flips: u32,
    },
}

/// What a mode comes to: the violations, or why it could not be run.
type Ran = Result<Vec<String>, String>;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(|error| error.to_string()).and_then(|runtime| runtime.block_on(run(arguments))) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("torture: {error}");
            ExitCode::from(2)
        }
    }
}

/// Runs the mode and tells how many violations there were.
async fn run(arguments: Arguments) -> Result<usize, String> {
    let server = find_server(arguments.server)?;
    let layout = Layout::new(server, arguments.data, arguments.shards, arguments.seed)?;
    let load = load::Shape { writers: arguments.writers, readers: arguments.readers, seed: arguments.seed };
    let ran = match arguments.mode {
        Mode::Kill { secs, every } => {
            modes::kill::run(&layout, load, Duration::from_secs(secs), Duration::from_secs(every.max(1))).await
        }
        Mode::Power { rounds } => modes::power::run(&layout, load, rounds).await,
        Mode::Damage { flips } => modes::damage::run(&layout, load, flips).await,
    };
    let violations = match ran {
        Ok(violations) => violations,
        Err(error) => {
            let kept = layout.keep();
            return Err(format!("{error}\ndata and logs of all nodes: {}", kept.display()));
        }
    };
    for violation in &violations {
        println!("VIOLATION  {violation}");
    }
    println!("violations  {}", violations.len());
    if !violations.is_empty() {
        println!("data and logs of all nodes: {}", layout.keep().display());
    }
    Ok(violations.len())
}
