//! `sim --overload`: ten times the load that a cluster can bear.

use std::process::ExitCode;

use kv_tests::sim::overload::{self, Measured};

use super::{Arguments, cpu_seconds, out::say};

/// Seconds that each load is counted for.
const SECS: u64 = 4;

/// Measures, prints, and fails if anything did not hold.
pub(super) fn overload(arguments: &Arguments) -> ExitCode {
    let began = cpu_seconds();
    let figures = match arguments.brief {
        true => overload::measure_briefly(arguments.seed),
        false => overload::measure(arguments.seed, SECS, overload::loads()),
    };
    say(format_args!("offered/s  goodput/s  attempts/s  elections  at the door  per shard  tables B  kept B"));
    figures.search.iter().for_each(line);
    line(&figures.overload);
    say(format_args!(
        "peak {} operations a second; at ten times the load {}",
        figures.peak.goodput, figures.overload.goodput
    ));
    let broken = figures.broken();
    broken.iter().for_each(|what| say(format_args!("FAILED: {what}")));
    say(format_args!("{} failed; {:.1} s of CPU", broken.len(), cpu_seconds() - began));
    if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn line(measured: &Measured) {
    let Measured { offered, goodput, attempts, elections, queues, .. } = measured;
    say(format_args!(
        "{offered:>9}  {goodput:>9}  {attempts:>10}  {elections:>9}  {:>11}  {:>9}  {:>8}  {:>6}",
        queues.requests, queues.waiting, queues.table_bytes, queues.kept_bytes
    ));
}
