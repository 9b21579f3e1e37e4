//! `sim`: tortures the whole algorithm in simulated time, and says what did not hold.
//!
//! `sim --seed 1 --runs 100` runs seeds 1 to 100. Everything that a run does comes from its seed; one that fails prints the
//! property in words and the command that repeats it, and ends the program with status 1. `sim --mutants` builds a variant of
//! itself with planted bugs and shows that each is found.

mod crash_points;
mod mutants;
mod networks;

use std::{fs::File, io::BufWriter, path::PathBuf, process::ExitCode};

use clap::Parser;
use kv_tests::sim::{
    plan::{Options, Plan},
    report::Report,
    trace::Trace,
};

/// Tortures the whole algorithm in simulated time.
#[derive(Debug, Parser)]
struct Arguments {
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds to run, one after the other.
    #[arg(long, default_value_t = 1)]
    runs: u64,
    /// Length of the phase with faults in simulated seconds; drawn from the seed if not given.
    #[arg(long)]
    sim_secs: Option<u64>,
    /// No faults, 3 nodes, 4 shards, 10 operations a second: measures the simulator's speed.
    #[arg(long)]
    light: bool,
    /// Writes all that happens, in words, to this file (`-` is the standard output).
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    trace: Option<PathBuf>,
    /// Writes what the clients saw to this file.
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Prints a line a run only.
    #[arg(long)]
    brief: bool,
    /// Goes on with the next seed after a failure.
    #[arg(long)]
    keep_going: bool,
    /// Crashes one machine of a recorded run at every step of its disk, instead of running the simulation.
    #[arg(long)]
    crash_points: bool,
    /// With `--crash-points`: about how many disk states to visit.
    #[arg(long, default_value_t = 100_000)]
    states: u64,
    /// Builds the variant with planted bugs and looks for each.
    #[arg(long)]
    mutants: bool,
    /// With `--mutants`: only these bugs, as `B1,B9`.
    #[arg(long, value_name = "BUGS", value_delimiter = ',')]
    only: Vec<String>,
    /// Switches one planted bug on; only in the variant that `--mutants` builds.
    #[arg(long, value_name = "BUG")]
    mutant: Option<String>,
    /// Imposes every directed network of five nodes on a cluster: safe in all, live wherever a node reaches a majority.
    #[arg(long)]
    networks: bool,
    /// With `--networks`: the first network.
    #[arg(long, default_value_t = 0)]
    from: usize,
    /// With `--networks`: how many.
    #[arg(long, default_value_t = usize::MAX)]
    count: usize,
    /// Ends after this many seconds of CPU time, with status 3 if nothing was found.
    #[arg(long)]
    cpu_secs: Option<f64>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.mutants {
        return mutants::find_all(&arguments.only);
    }
    if let Some(mutant) = &arguments.mutant
        && let Err(reason) = mutants::switch_on(mutant)
    {
        eprintln!("{reason}");
        return ExitCode::from(2);
    }
    if arguments.crash_points {
        let Arguments { seed, runs, states, keep_going, .. } = arguments;
        return crash_points::crash_everywhere(seed, runs, states, keep_going);
    }
    if arguments.networks {
        return networks::bear_all(&arguments);
    }
    run_all(&arguments)
}

fn run_all(arguments: &Arguments) -> ExitCode {
    let options = Options { sim_secs: arguments.sim_secs, light: arguments.light };
    let (mut failed, mut simulated_micros, began) = (0, 0_u64, cpu_seconds());
    for seed in arguments.seed..arguments.seed.saturating_add(arguments.runs) {
        let plan = Plan::draw(seed, options);
        if !arguments.brief {
            println!("{plan}");
        }
        let before = cpu_seconds();
        let (report, history) = kv_tests::sim::run(plan, trace(arguments));
        let seconds = cpu_seconds() - before;
        simulated_micros += report.simulated_micros;
        if let Some(path) = &arguments.history
            && let Err(error) = std::fs::write(path, history.to_string())
        {
            eprintln!("the history can't be written to {}: {error}", path.display());
        }
        print_report(arguments, &report, seconds);
        if report.failure.is_some() {
            failed += 1;
            if !arguments.keep_going {
                break;
            }
        }
        if arguments.cpu_secs.is_some_and(|most| cpu_seconds() - began > most) {
            break;
        }
    }
    let seconds = cpu_seconds() - began;
    println!(
        "{failed} failed; {:.0} simulated seconds in {seconds:.2} s of CPU: {:.0} a second",
        simulated_micros as f64 / 1e6,
        simulated_micros as f64 / 1e6 / seconds
    );
    if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn print_report(arguments: &Arguments, report: &Report, seconds: f64) {
    let seed = report.plan.seed;
    if !arguments.brief {
        println!("{report}");
        println!("  {:.0} simulated seconds per CPU-second", report.simulated_micros as f64 / 1e6 / seconds);
    }
    match &report.failure {
        None if arguments.brief => println!("seed {seed}: holds ({seconds:.1} s, trace {:016x})", report.trace_hash),
        None => println!("seed {seed}: all properties hold"),
        Some(violation) => {
            println!("seed {seed}: FAILED\n  {violation}");
            let mut command = "cargo run --release -p kv-tests --bin sim --".to_owned();
            if let Some(mutant) = &arguments.mutant {
                command = format!("target/mutants/release/sim --mutant {mutant}");
            }
            command += &format!(" --seed {seed}");
            if let Some(secs) = arguments.sim_secs {
                command += &format!(" --sim-secs {secs}");
            }
            if arguments.light {
                command += " --light";
            }
            println!("  again: {command} --trace");
        }
    }
}

fn trace(arguments: &Arguments) -> Trace {
    let Some(path) = &arguments.trace else { return Trace::new(None) };
    if path.as_os_str() == "-" {
        return Trace::new(Some(Box::new(std::io::stdout().lock())));
    }
    match File::create(path) {
        Ok(file) => Trace::new(Some(Box::new(BufWriter::new(file)))),
        Err(error) => {
            eprintln!("the trace can't be written to {}: {error}", path.display());
            std::process::exit(2);
        }
    }
}

/// CPU time that this process has used, in seconds.
fn cpu_seconds() -> f64 {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
}
