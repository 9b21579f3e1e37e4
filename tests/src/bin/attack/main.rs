//! `attack`: clients that mean harm, against a real cluster of three `kv-server` processes that honest clients use all the while.
//!
//! For each kind of attack quiet and attacked windows follow one another, so that the noise of the machine shows. One node is
//! attacked. The honest clients are of kv-client: one offers puts and gets at an even rate and measures them from when they
//! were due; some run the workloads of `chaos`, of which every answer is recorded and judged; and every quarter of a second one
//! comes anew, connects, writes and reads. The attackers are a process of their own with the least right to the CPU (nice 19),
//! since they share two cores with those whom they attack: what is measured is what the servers do for them, not who gets the
//! CPU. What both used is told.
//!
//! What must hold of each kind, or the exit status is 1 (`--list` has the kinds, the table has the figures):
//!
//! - every answer to an honest client is right, and none of its calls fails: the client may ask again within its deadline;
//! - whoever is honest and comes anew is served;
//! - the honest p99 is at most twice what it is without the attack, or 2 ms more if that is more;
//! - the attacked node's memory grows by no more than a bound, and its open files are given back afterwards;
//! - no election, and no process has ended.
//!
//! With `--no-times` the p99, elections and who came anew in vain are told, and not judged.
//!
//! A line of JSON for each kind goes to a file: see [`report::Line`].
//!
//! *Caveats*: all are on one machine, so that attackers by bandwidth alone are not told from a slow loopback; everything has
//! the address 127.0.0.1, which is the harder case for a bound by address.

mod attacker;
mod honest;
mod kinds;
mod measure;
mod options;
mod overload;
mod report;
mod run;

use std::process::ExitCode;

use clap::Parser;
use kv_tests::server::find_server;

use self::{kinds::Kind, options::Options};

fn main() -> ExitCode {
    let options = Options::parse();
    if options.list {
        println!("{:<27}  honest clients with ten times what the cluster bears; by itself only", "overload");
        for kind in Kind::all() {
            println!("{:<20} {:>6}  {}", kind.name(), kind.crowd, kind.about);
        }
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ran = runtime.map_err(|error| error.to_string()).and_then(|runtime| {
        if let Some(attacker) = &options.attacker {
            return runtime.block_on(attacker::run(attacker, &options)).map(|()| true);
        }
        let server = find_server(options.server.clone())?;
        runtime.block_on(run::run(&options, server))
    });
    match ran {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("attack: {error}");
            ExitCode::from(2)
        }
    }
}
