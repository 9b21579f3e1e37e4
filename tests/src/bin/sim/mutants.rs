//! Proof that the simulator sees: the variant with planted bugs, built by itself and run bug by bug.
//!
//! Each bug is one that another store really shipped. The simulator gets no hint: it runs seeds from 1 on until one fails, for
//! at most a minute of CPU time a bug. A control run without a bug has to hold, so that "found" means the bug.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

/// CPU seconds after which a bug counts as not found.
const CPU_SECS_MAX: u64 = 60;

/// Seeds that the control runs without a bug.
const CONTROL_RUNS: u64 = 5;

/// The planted bugs: `mutant!` marks the places in kv-core. Those with a B are of the catalogue, those with an A are against
/// promises that only this store makes.
const BUGS: &[(&str, &str)] = &[
    ("B1", "a leader reads its own state without proof that it still leads"),
    ("B2", "a ReadIndex context is used twice"),
    ("B3", "a new leader answers reads before it has committed in its term"),
    ("B4", "a new leader's read is dropped by raft, and whoever waits for it hangs"),
    ("B5", "reads are answered on a lease that is measured in ticks"),
    ("B6", "a follower answers a read before it has applied up to the index that it asked for"),
    ("B7", "a bounded read is answered at the start, before the log is replayed"),
    ("B9", "a write is acknowledged before it is synced"),
    ("B10", "a vote leaves before it is synced"),
    ("B11", "an append is acknowledged to the leader before it is synced"),
    ("B12", "a failed sync of the log is ignored"),
    ("B13", "a new file's name is not synced in its directory"),
    ("B14", "the log is given up before the checkpoint is durable"),
    ("B15", "recovery drops a good end of the log"),
    ("B16", "entries that conflict are not overwritten"),
    ("B17", "damage at the end of the log is taken for a torn write, and cut"),
    ("B18", "a recycled segment shows old records as new"),
    ("B19", "the applied index is ahead of the state after a restart"),
    ("B20", "after a restart, all that is in the log counts as committed"),
    ("B21", "after a restart, what is committed counts as applied"),
    ("B22", "a snapshot's files are switched before the log says so"),
    ("B24", "a snapshot comes without its sessions"),
    ("B25", "a replica draws a number of its own while it applies"),
    ("B26", "a retry of a write of unknown outcome runs twice"),
    ("B27", "a session that is read back has forgotten its outcomes"),
    ("B28", "each replica's own clock decides which sessions have expired"),
    ("B29", "a write of unknown outcome is reported as not applied"),
    ("B30", "a condition is evaluated when the write is proposed, not when it is applied"),
    ("B34", "a node comes back under its id with a wiped disk"),
    ("B41", "requests queue without a bound"),
    ("A1", "a leader acknowledges async writes past their bound"),
    ("A2", "wait_durable goes by the applied index, whatever its term"),
    ("A3", "an async write of unknown outcome is sent again as async, and its last token believed"),
    ("A4", "a write of unknown outcome goes on under another session"),
    ("A5", "an async write is acknowledged though its session may refuse it"),
    ("M1", "a checkpoint that no majority holds is given to others"),
    ("M2", "a replica throws its state away because one other differs"),
    ("M3", "a replica keeps a state that a majority contradicts"),
];

/// Bugs of the catalogue that can't be written against what there is, and why.
const LEFT_OUT: &[(&str, &str, &str)] = &[
    ("B8", "a read at the old owner after a move", "arcs do not move yet"),
    (
        "B23",
        "two snapshots are taken over at once",
        "planted, but too rare: the second must come while an install is synced",
    ),
    ("B31", "a vote of a replica that has none is counted", "every replica votes: nothing changes a configuration yet"),
    ("B32", "two changes of a configuration at once", "nothing changes a configuration yet"),
    ("B33", "a removed node comes back", "no node is removed yet"),
    ("B35", "a joint configuration is never left", "nothing changes a configuration yet"),
    ("B36", "a learner is promoted before it has caught up", "there are no learners yet"),
    ("B37-B40", "ownership and moves of shards", "arcs do not move yet"),
    ("B42", "heartbeats starve behind bulk data", "the simulated network has no bandwidth; lanes are the transport's"),
    (
        "B43",
        "a log for people that blocks the loop",
        "the core writes none; notices are values, and the shell writes them",
    ),
    ("B44", "a lock without a fencing token", "there are no locks"),
];

/// Switches a bug on in this thread, on which the simulation runs.
#[cfg(kv_mutants)]
pub(crate) fn switch_on(bug: &str) -> Result<(), String> {
    kv_core::mutants::switch_on(bug);
    Ok(())
}

/// Says that there is nothing to switch on, and how to build the variant.
#[cfg(not(kv_mutants))]
pub(crate) fn switch_on(bug: &str) -> Result<(), String> {
    Err(format!(
        "{bug} is not in this build; `cargo run --release -p kv-tests --bin sim -- --mutants` builds the variant that has \
         planted bugs, and runs it"
    ))
}

/// Builds the variant and looks for each bug; success only if all are found and the control holds.
pub(crate) fn find_all(only: &[String]) -> ExitCode {
    let root = workspace();
    let binary = match build(&root) {
        Ok(binary) => binary,
        Err(reason) => {
            eprintln!("{reason}");
            return ExitCode::from(2);
        }
    };
    println!("{:<5} {:<66} {:>6} {:>8} {:>6}  by", "bug", "what", "found", "CPU s", "seed");
    let mut missed = 0;
    if only.is_empty() {
        let control = search(&binary, None);
        let holds = control.as_ref().is_some_and(|found| found.seed.is_none());
        missed += u32::from(!holds);
        let what = format!("the control: no bug, {CONTROL_RUNS} seeds");
        println!("{:<5} {what:<66} {}", "-", if holds { "holds" } else { "FAILS" });
    }
    for (bug, what) in BUGS.iter().filter(|(bug, _)| only.is_empty() || only.iter().any(|other| other == bug)) {
        match search(&binary, Some(bug)) {
            Some(Found { seed: Some(seed), by, seconds }) => {
                println!("{bug:<5} {what:<66} {:>6} {seconds:>8} {seed:>6}  {by}", "yes");
            }
            _ => {
                missed += 1;
                println!("{bug:<5} {what:<66} {:>6}", "NO");
            }
        }
    }
    if only.is_empty() {
        let found = canaries(&root);
        missed += u32::from(!found);
        println!("{:<5} {:<66} {:>6}", "-", "the canaries of log and checkpoints, each by its own tests", told(found));
        println!("\nleft out:");
        for (bug, what, why) in LEFT_OUT {
            println!("{bug:<8} {what:<52} {why}");
        }
    }
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn told(found: bool) -> &'static str {
    if found { "yes" } else { "NO" }
}

/// Runs the tests of log and checkpoints that plant bugs of their own; true if all of these are found.
fn canaries(root: &Path) -> bool {
    let mut cargo = cargo_with_bugs(root);
    cargo.args(["test", "--quiet", "--release", "-p", "kv-tests", "--test", "log", "--test", "checkpoint", "canaries"]);
    cargo.status().is_ok_and(|status| status.success())
}

/// What a search came to.
struct Found {
    seed: Option<String>,
    by: String,
    seconds: String,
}

/// Where the workspace is: the directory above this package's, as cargo tells, or the one that we are in.
fn workspace() -> PathBuf {
    let manifest = std::env::var("CARGO_MANIFEST_DIR").map(PathBuf::from);
    manifest.ok().and_then(|manifest| manifest.parent().map(Path::to_owned)).unwrap_or_else(|| PathBuf::from("."))
}

/// Where the variant is built.
const TARGET: &str = "target/mutants";

fn cargo_with_bugs(root: &Path) -> Command {
    let mut cargo = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
    cargo.current_dir(root).env("RUSTFLAGS", "--cfg kv_mutants").env("CARGO_TARGET_DIR", TARGET);
    cargo
}

fn build(root: &Path) -> Result<PathBuf, String> {
    let mut cargo = cargo_with_bugs(root);
    let status = cargo
        .args(["build", "--release", "-p", "kv-tests", "--bin", "sim"])
        .status()
        .map_err(|error| format!("cargo can't be run: {error}"))?;
    if !status.success() {
        return Err("the variant with planted bugs could not be built".to_owned());
    }
    root.join(TARGET).join("release/sim").canonicalize().map_err(|error| format!("the variant can't be found: {error}"))
}

/// Runs seeds with a bug until one fails; `None` if the variant could not be run.
fn search(binary: &Path, bug: Option<&str>) -> Option<Found> {
    let mut command = Command::new(binary);
    command.args(["--brief", "--shrink-secs", "0"]);
    match bug {
        Some(bug) => {
            command.args(["--runs", "1000000", "--cpu-secs", &CPU_SECS_MAX.to_string(), "--mutant", bug]);
        }
        None => {
            command.args(["--runs", &CONTROL_RUNS.to_string()]);
        }
    }
    let output = command.output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines().skip_while(|line| !line.ends_with(": FAILED"));
    let seed = lines.next().and_then(|line| line.strip_prefix("seed ")?.strip_suffix(": FAILED")).map(str::to_owned);
    if seed.is_none() && !output.status.success() {
        return None;
    }
    let by = lines.next().unwrap_or_default().trim().chars().take(100).collect();
    let seconds = text.lines().last()?.split(" s of CPU").next()?.rsplit(' ').next()?.to_owned();
    Some(Found { seed, by, seconds })
}
