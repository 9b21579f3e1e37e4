//! Proof that the simulator sees: the variant with planted bugs, built by itself and run bug by bug.
//!
//! Each bug is one that another store really shipped. The simulator gets no hint: it runs seeds from 1 on until one fails, for
//! at most a minute of CPU time a bug; a bug of load is looked for under ten times the load that a cluster can bear. Control
//! runs without a bug have to hold, so that "found" means the bug. The table is Markdown, to be pasted as it is: standard output
//! has nothing else.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use super::out::say;

/// CPU seconds after which a bug counts as not found.
const CPU_SECS_MAX: u64 = 60;

/// Seeds that the control runs without a bug.
const CONTROL_RUNS: u64 = 5;

/// The planted bugs: `mutant!` marks the places in kv-core. Those with a B are of the catalogue, those with an A, an S,
/// an R or an M are against promises that only this store makes.
const BUGS: &[(&str, &str)] = &[
    ("B1", "a leader reads its own state without proof that it still leads"),
    ("B2", "the number of a round of reads is used twice"),
    ("B3", "a new leader answers reads before it has committed in its term"),
    ("B4", "a round of reads whose answers are lost is never asked again, and whoever waits for it hangs"),
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
    ("B23", "a second snapshot is taken in while one is being installed"),
    ("B24", "a snapshot comes without its sessions"),
    ("B25", "a replica draws a number of its own while it applies"),
    ("B26", "a retry of a write of unknown outcome runs twice"),
    ("B27", "a session that is read back has forgotten its outcomes"),
    ("B28", "each replica's own clock decides which sessions have expired"),
    ("B29", "a write of unknown outcome is reported as not applied"),
    ("B30", "a condition is evaluated when the write is proposed, not when it is applied"),
    ("B34", "a node comes back under its id with a wiped disk"),
    ("B41", "requests queue without a bound"),
    ("B42", "heartbeats wait behind a flood of requests"),
    ("A1", "a leader acknowledges async writes past their bound"),
    ("A2", "wait_durable goes by the applied index, whatever its term"),
    ("A3", "an async write of unknown outcome is sent again as async, and its last token believed"),
    ("A4", "a write of unknown outcome goes on under another session"),
    ("A5", "an async write is acknowledged though its session may refuse it"),
    ("S1", "all replicas alike forget an entry when they make a checkpoint"),
    ("S2", "all replicas alike forget the session that was used last"),
    ("S3", "the arcs of two shards overlap by one position"),
    ("S4", "a node stops again and again though its disk is in order"),
    ("S5", "a shard takes no writes while any of its replicas is away"),
    ("R1", "a read joins a round that began before it came"),
    ("R2", "a replica whose term is newer still recognises the leader of an older one"),
    ("R3", "an answer to an earlier round of reads counts for the one under way"),
    ("M1", "a checkpoint that no majority holds is given to others"),
    ("M2", "a replica throws its state away because one other differs"),
    ("M3", "a replica keeps a state that a majority contradicts"),
];

/// Those that only load brings out.
const UNDER_LOAD: &[&str] = &["B42"];

/// Bugs of the catalogue that can't be planted in what there is, each with the reason.
const LEFT_OUT: &[(&str, &str, &str)] = &[
    ("B8", "a read at the old owner after a move", "arcs do not move yet, so that a key has one owner for ever"),
    ("B31", "the vote of a replica that has none is counted", "every replica votes: nothing makes a learner yet"),
    ("B32", "two changes of a configuration at once", "no command changes a configuration yet"),
    ("B33", "a removed node comes back and disturbs", "no node is removed yet"),
    (
        "B43",
        "a log sink that blocks stops the loop",
        "the core writes no log; whether the shell's sink blocks no simulation shows",
    ),
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

/// Builds the variant and looks for each bug; success only if all are found and the controls hold.
pub(crate) fn find_all(only: &[String]) -> ExitCode {
    let root = workspace();
    let binary = match build(&root) {
        Ok(binary) => binary,
        Err(reason) => {
            eprintln!("{reason}");
            return ExitCode::from(2);
        }
    };
    row("bug", "what is planted", "found", "CPU s", "seed", "by which check");
    row("---", "---", "---", "---:", "---:", "---");
    let mut missed = 0;
    if only.is_empty() {
        for (control, how) in [("no bug, the first seeds", How::Seeds), ("no bug, under ten times the load", How::Load)]
        {
            let looked = search(&binary, None, how);
            let holds = looked.as_ref().is_some_and(|looked| looked.by.is_none());
            missed += u32::from(!holds);
            let seconds = looked.map(|looked| looked.seconds).unwrap_or_default();
            row("-", control, if holds { "no" } else { "FAILS WITHOUT A BUG" }, &seconds, "", "");
        }
    }
    let asked = |bug: &str| only.is_empty() || only.iter().any(|other| other == bug);
    let bugs: Vec<_> = BUGS.iter().filter(|(bug, _)| asked(bug)).collect();
    for (bug, what) in &bugs {
        let how = if UNDER_LOAD.contains(bug) { How::Load } else { How::Seeds };
        match search(&binary, Some(bug), how) {
            Some(Looked { by: Some(by), seed, seconds }) => row(bug, what, "yes", &seconds, &seed, &by),
            looked => {
                missed += 1;
                row(bug, what, "NO", &looked.map(|looked| looked.seconds).unwrap_or_default(), "", "");
            }
        }
    }
    if only.is_empty() {
        let found = canaries(&root);
        missed += u32::from(!found);
        row(
            "-",
            "the canaries of log and checkpoints",
            if found { "yes" } else { "NO" },
            "",
            "",
            "each by a test of its own",
        );
        for (bug, what, why) in LEFT_OUT {
            row(bug, what, "left out", "", "", why);
        }
    }
    say(format_args!("\n{} bugs looked for, {missed} failed, {} left out", bugs.len(), LEFT_OUT.len()));
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A row of the table.
fn row(bug: &str, what: &str, found: &str, seconds: &str, seed: &str, by: &str) {
    say(format_args!("| {bug:<3} | {what:<83} | {found:<8} | {seconds:>5} | {seed:>4} | {by} |"));
}

/// Runs the tests of log and checkpoints that plant bugs of their own; true if all of these are found.
fn canaries(root: &Path) -> bool {
    let mut cargo = cargo_with_bugs(root);
    cargo.args(["test", "--quiet", "--release", "-p", "kv-tests", "--test", "log", "--test", "checkpoint", "canaries"]);
    let ended = cargo.stderr(Stdio::inherit()).output();
    ended.is_ok_and(|ended| ended.status.success())
}

/// How a bug is looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// In runs of one seed after the other.
    Seeds,
    /// Under ten times the load that a cluster can bear.
    Load,
}

/// What a search came to.
struct Looked {
    /// The property that did not hold.
    by: Option<String>,
    seed: String,
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

/// Looks for a bug, or runs the control; `None` if the variant could not be run, or failed in a way of its own.
fn search(binary: &Path, bug: Option<&str>, how: How) -> Option<Looked> {
    let mut command = Command::new(binary);
    command.arg("--brief");
    let seconds = CPU_SECS_MAX.to_string();
    match (how, bug) {
        (How::Load, _) => command.arg("--overload"),
        (How::Seeds, Some(_)) => command.args(["--runs", "1000000", "--cpu-secs", &seconds, "--shrink-secs", "0"]),
        (How::Seeds, None) => command.args(["--runs", &CONTROL_RUNS.to_string(), "--shrink-secs", "0"]),
    };
    if let Some(bug) = bug {
        command.args(["--mutant", bug]);
    }
    let output = command.stderr(Stdio::inherit()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last()?;
    let seconds = last.split(" s of CPU").next()?.rsplit(' ').next()?.to_owned();
    let (by, seed) = match how {
        How::Seeds => failed_seed(&text).unzip(),
        How::Load => (text.lines().find_map(|line| line.strip_prefix("FAILED: ")).map(str::to_owned), None),
    };
    // Status 3 says that the time was over before a seed failed.
    (by.is_some() || matches!(output.status.code(), Some(0 | 3))).then(|| Looked {
        by,
        seed: seed.unwrap_or_default(),
        seconds,
    })
}

/// The property that did not hold in the first seed that failed, and that seed.
fn failed_seed(text: &str) -> Option<(String, String)> {
    let mut lines = text.lines().skip_while(|line| !line.ends_with(": FAILED"));
    let seed = lines.next()?.strip_prefix("seed ")?.strip_suffix(": FAILED")?;
    let by = lines.next().unwrap_or_default().trim();
    Some((by.split(" does not hold").next().unwrap_or(by).to_owned(), seed.to_owned()))
}
