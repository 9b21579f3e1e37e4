//! `sim`: tortures the whole algorithm in simulated time, and says what did not hold.
//!
//! `sim --seed 1 --runs 100` runs seeds 1 to 100. Everything that a run does comes from its seed; one that fails is cut down, told
//! to people (the promise, the smallest history, the nodes' timeline, the one command that repeats it), and ends the program with
//! status 1. `sim --mutants` builds a variant of itself with planted bugs and shows that each is found; `sim --campaign` adds up
//! long runs in a file.

mod campaign;
mod crash_points;
mod failing;
mod mutants;
mod networks;
mod out;
mod overload;
mod points;
mod seeds;

use std::{fs::File, io::BufWriter, path::PathBuf, process::ExitCode};

use clap::Parser;
use kv_tests::sim::{
    plan::{Options, Plan},
    reach::Reach,
    report::Report,
    trace::Trace,
};

use self::{
    campaign::Campaign,
    out::say,
    seeds::{Ended, cpu_seconds},
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
    /// Runs the plan in this file (as kept in tests/seeds) instead of drawing one.
    #[arg(long, value_name = "FILE", conflicts_with = "seed")]
    plan: Option<PathBuf>,
    /// Overrides a choice of the plan, as `nodes=3`; a failing run names them.
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// Threads, each with a seed of its own.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// CPU seconds to cut a failing run down in; 0 leaves it as it is.
    #[arg(long, default_value_t = 60.0)]
    shrink_secs: f64,
    /// Keeps the plan (of the first failing run, cut down, or of a single run) as tests/seeds/NAME.seed.
    #[arg(long, value_name = "NAME")]
    save: Option<String>,
    /// With `--save`: a sentence that says why.
    #[arg(long, value_name = "SENTENCE", requires = "save")]
    why: Option<String>,
    /// Adds up what is simulated in this file, and takes up seeds that no earlier campaign in it has run.
    #[arg(long, value_name = "FILE")]
    campaign: Option<PathBuf>,
    /// Goes on from seed to seed until so many days were simulated, in all runs together.
    #[arg(long)]
    days: Option<f64>,
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
    /// Measures the cluster's peak, then offers ten times as much: goodput, elections and queues must hold.
    #[arg(long)]
    overload: bool,
    /// With `--networks`: the first network.
    #[arg(long, default_value_t = 0)]
    from: usize,
    /// With `--networks`: how many.
    #[arg(long, default_value_t = usize::MAX)]
    count: usize,
    /// Prints how often each named point of the core was reached: those never reached at the top.
    #[arg(long)]
    points: bool,
    /// Fails if a point was never reached that these runs must come to: `day` asks for those that each simulated day comes to,
    /// `runs` for all.
    #[arg(long, value_name = "WHICH")]
    points_required: Option<points::Which>,
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
    if arguments.overload {
        return overload::overload(&arguments);
    }
    run_all(&arguments)
}

fn run_all(arguments: &Arguments) -> ExitCode {
    let campaign = match arguments.campaign.as_deref().map(Campaign::begin).transpose() {
        Ok(campaign) => campaign,
        Err(reason) => return refuse(&reason),
    };
    let first = campaign.as_ref().map_or(arguments.seed, Campaign::first);
    if let Err(reason) = plan(arguments, first) {
        return refuse(&reason);
    }
    let runs = if campaign.is_some() || arguments.days.is_some() { u64::MAX } else { arguments.runs };
    let plans =
        |number| (number < runs).then(|| plan(arguments, first + number).expect("the settings were just tried"));
    let reach = Reach::default();
    let mut told = Told { campaign, failed: 0, simulated_micros: 0, reach, began: cpu_seconds() };
    let jobs = if arguments.trace.is_some() { 1 } else { arguments.jobs };
    let begin = || {
        if let Some(mutant) = &arguments.mutant {
            mutants::switch_on(mutant).expect("main has just done it on its own thread");
        }
    };
    seeds::run_each(jobs, plans, || trace(arguments), begin, |run| told.take(arguments, run));
    told.end(arguments)
}

fn refuse(reason: &str) -> ExitCode {
    eprintln!("{reason}");
    ExitCode::from(2)
}

/// The plan of a seed as asked for.
fn plan(arguments: &Arguments, seed: u64) -> Result<Plan, String> {
    let mut plan = match &arguments.plan {
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
            Plan::from_text(&text).map_err(|reason| format!("{}: {reason}", path.display()))?
        }
        None => Plan::draw(seed, Options { sim_secs: arguments.sim_secs, light: arguments.light }),
    };
    arguments.set.iter().try_for_each(|setting| plan.set(setting))?;
    Ok(plan)
}

/// A day, in microseconds.
const DAY_MICROS: f64 = 86_400e6;

/// What was told of all runs.
struct Told {
    campaign: Option<Campaign>,
    failed: u64,
    simulated_micros: u64,
    reach: Reach,
    began: f64,
}

impl Told {
    /// Tells of a run; false if it was the last.
    fn take(&mut self, arguments: &Arguments, run: Ended) -> bool {
        self.simulated_micros += run.report.simulated_micros;
        self.reach.add(&run.report);
        if let Some(path) = &arguments.history
            && let Err(error) = std::fs::write(path, run.history.to_string())
        {
            eprintln!("the history can't be written to {}: {error}", path.display());
        }
        print_report(arguments, &run.report, run.seconds);
        let mut goes_on = true;
        if let Some(campaign) = &mut self.campaign
            && let Err(reason) = campaign.add(&run.report)
        {
            eprintln!("{reason}");
            goes_on = false;
        }
        goes_on &= arguments.days.is_none_or(|days| (self.simulated_micros as f64) < days * DAY_MICROS);
        if run.report.failure.is_some() {
            self.failed += 1;
            // The first is told in full; of others the seeds will do.
            if self.failed == 1 {
                failing::tell(arguments, run);
            }
            goes_on &= arguments.keep_going;
        } else if let Some(name) = arguments.save.as_ref().filter(|_| arguments.runs == 1) {
            failing::save(name, arguments.why.as_deref().unwrap_or("kept by hand"), &run.report.plan);
        }
        goes_on && arguments.cpu_secs.is_none_or(|most| cpu_seconds() - self.began <= most)
    }

    fn end(self, arguments: &Arguments) -> ExitCode {
        let seconds = cpu_seconds() - self.began;
        if let Some(campaign) = &self.campaign {
            if let Err(reason) = campaign.write() {
                return refuse(&reason);
            }
            say(campaign.total());
        }
        say(format_args!(
            "{} failed; {:.0} simulated seconds in {seconds:.2} s of CPU: {:.0} a second",
            self.failed,
            self.simulated_micros as f64 / 1e6,
            self.simulated_micros as f64 / 1e6 / seconds
        ));
        let came_to_all = points::tell(&self.reach, arguments.points, arguments.points_required);
        if self.failed > 0 || !came_to_all { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

fn print_report(arguments: &Arguments, report: &Report, seconds: f64) {
    let seed = report.plan.seed;
    if !arguments.brief {
        say(&report.plan);
        say(report);
        say(format_args!("  {:.0} simulated seconds per CPU-second", report.simulated_micros as f64 / 1e6 / seconds));
    }
    match &report.failure {
        None if arguments.brief => {
            say(format_args!("seed {seed}: holds ({seconds:.1} s, trace {:016x})", report.trace_hash))
        }
        None => say(format_args!("seed {seed}: all properties hold")),
        Some(violation) => say(format_args!("seed {seed}: FAILED\n  {violation}")),
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
