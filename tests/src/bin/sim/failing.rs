//! What is done with a run that failed: it is cut down, told to people, and kept if asked for.

use std::path::{Path, PathBuf};

use kv_tests::sim::{
    failure,
    plan::{Options, Plan},
    shrink,
    trace::Trace,
};

use crate::{
    Arguments,
    out::say,
    seeds::{self, Ended},
};

/// Cuts a failed run down and tells of it, with the one command that repeats it.
pub(crate) fn tell(arguments: &Arguments, failed: Ended) {
    let (began, most) = (seeds::cpu_seconds(), arguments.shrink_secs);
    let whole = failed.report.plan.clone();
    let shrunk = shrink::shrink(failed.report, failed.history, &mut || seeds::cpu_seconds() - began < most);
    let plan = shrunk.report.plan;
    if shrunk.trials > 0 {
        say(format_args!(
            "  cut down in {} trials, {:.0} s of CPU: {} nodes, {} shards, {} clients, {:.1} s",
            shrunk.trials,
            seeds::cpu_seconds() - began,
            plan.nodes,
            plan.shards,
            plan.workload.clients,
            plan.faults_micros as f64 / 1e6
        ));
    }
    let again = seeds::run_one(plan.clone(), Trace::new(None).with_timeline());
    for line in failure::explain(&again.report, &again.history).lines() {
        say(format_args!("  {line}"));
    }
    say(format_args!("  again: {}", command(arguments, &plan)));
    if plan.to_text() != whole.to_text() {
        say(format_args!("  before it was cut down: {}", command(arguments, &whole)));
    }
    if let Some(name) = &arguments.save {
        let why = arguments.why.clone().unwrap_or_else(|| {
            again
                .report
                .failure
                .as_ref()
                .map_or_else(String::new, |violation| format!("{} did not hold", violation.property))
        });
        save(name, &why, &plan);
    }
}

/// Keeps a plan as a file of `tests/seeds`.
pub(crate) fn save(name: &str, why: &str, plan: &Plan) {
    let path = seeds_directory().join(format!("{name}.seed"));
    let text = format!("# {why}\n{}", plan.to_text());
    match std::fs::write(&path, text) {
        Ok(()) => say(format_args!("  kept as {}", path.display())),
        Err(error) => eprintln!("{} can't be written: {error}", path.display()),
    }
}

/// The command that runs a plan again, with its trace.
fn command(arguments: &Arguments, plan: &Plan) -> String {
    let mut command = match &arguments.mutant {
        Some(mutant) => format!("target/mutants/release/sim --mutant {mutant}"),
        None => "cargo run --release -p kv-tests --bin sim --".to_owned(),
    };
    let options = Options { light: arguments.light, ..Options::default() };
    command += &format!(" --seed {}", plan.seed);
    if options.light {
        command += " --light";
    }
    for setting in plan.settings_beside(&Plan::draw(plan.seed, options)) {
        command += &format!(" --set {setting}");
    }
    command + " --trace"
}

fn seeds_directory() -> PathBuf {
    let manifest = std::env::var("CARGO_MANIFEST_DIR").map_or_else(|_| PathBuf::from("tests"), PathBuf::from);
    if manifest.join("seeds").is_dir() { manifest.join("seeds") } else { Path::new("tests/seeds").to_owned() }
}
