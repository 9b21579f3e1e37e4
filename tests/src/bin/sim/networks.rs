//! `sim --networks`: every directed network of five nodes, held and healed.
//!
//! Prints a line for each network that stalls a shard although a node has links with a majority, and fails at one that is not
//! among the known exceptions, or that is not safe.

use std::process::ExitCode;

use kv_tests::sim::{
    digraphs,
    networks::{bear, is_excepted},
};

use super::{Arguments, cpu_seconds, out::say, trace};

/// Bears the networks that were asked for.
pub(super) fn bear_all(arguments: &Arguments) -> ExitCode {
    let (mut run, mut owed, mut stalled, mut broken) = (0, 0, 0, 0);
    let mut simulated_micros = 0;
    let began = cpu_seconds();
    for (number, network) in digraphs::all().into_iter().enumerate().skip(arguments.from).take(arguments.count) {
        let borne = bear(number, network, trace(arguments));
        run += 1;
        owed += usize::from(network.is_owed_a_leader());
        simulated_micros += borne.report.simulated_micros;
        if !borne.is_live() {
            stalled += 1;
            let known = if is_excepted(number) { "known" } else { "NEW" };
            say(format_args!("network {number} stalls shards {:?} ({known}): {network}", borne.stalled));
        } else if !arguments.brief {
            say(format_args!("network {number} holds: {network} (trace {:016x})", borne.report.trace_hash));
        }
        if let Some(what) = borne.broken() {
            broken += 1;
            say(format_args!("network {number}: FAILED\n  {what}"));
            say(format_args!(
                "  again: cargo run --release -p kv-tests --bin sim -- --networks --from {number} --count 1 --trace"
            ));
            if !arguments.keep_going {
                break;
            }
        }
        if arguments.cpu_secs.is_some_and(|most| cpu_seconds() - began > most) {
            break;
        }
    }
    let seconds = cpu_seconds() - began;
    say(format_args!(
        "{broken} failed; {run} networks, {owed} owed a leader, {} of these live, {stalled} stalled; {:.0} simulated \
         seconds in {seconds:.2} s of CPU",
        owed - stalled,
        simulated_micros as f64 / 1e6
    ));
    if broken > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
