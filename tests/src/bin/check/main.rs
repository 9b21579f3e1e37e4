//! The judge of saved histories: says whether what clients were told can be explained by what the store promises.
//!
//! `check FILE --cluster ADDRESSES` makes the history first, on a cluster of one's own.
//!
//! `check FILE` reads a run as JSON lines (the format is described in `tests/src/history/json.rs`; other programs may write it), a history
//! as the simulator prints it, or a register's log as Jepsen writes it, and prints a verdict. What is broken is shown by the smallest
//! set of operations that shows it. What can't be decided has not passed.
//!
//! Exit status: 0 all promises were held, 1 one was broken, 2 it can't be decided, 3 there was nothing to judge: the file could not be
//! read, or the command was wrong.

mod cluster;
mod input;

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use clap::Parser;
use input::Input;
use kv_tests::{
    history::{Name, edn, run::Run},
    report,
    verdict::{self, Verdict, generate, register, text},
};

/// Judges a saved history by what the store promises.
///
/// Reads JSON lines as `chaos` writes them, histories of the simulator, and register logs of Jepsen (`0 :invoke :read nil`).
/// Exit status: 0 all promises held, 1 one was broken, 2 can't be decided (no pass), 3 nothing could be judged.
#[derive(Debug, Parser)]
#[command(name = "check", version)]
struct Arguments {
    /// The history.
    file: PathBuf,
    /// Write a page with pictures to this file: one HTML file that needs nothing else.
    #[arg(long, value_name = "OUT.html")]
    page: Option<PathBuf>,
    /// Write the history in the form that Jepsen's checkers read (EDN) to this file.
    #[arg(long, value_name = "OUT")]
    edn: Option<PathBuf>,
    /// With --edn: only this key, as Knossos' model cas-register reads it.
    #[arg(long, requires = "edn")]
    key: Option<String>,
    /// First make a history, written to FILE: a load on this cluster of one's own (addresses of nodes, joined by commas). Its keys begin
    /// with the workload's name and a slash; such keys are deleted before and after.
    #[arg(long, value_delimiter = ',', value_name = "ADDRESSES", conflicts_with = "generate")]
    cluster: Vec<String>,
    /// With --cluster: for so many seconds.
    #[arg(long, default_value_t = 30)]
    secs: u64,
    /// With --cluster: register, append, counter, mix, sessions, async, or mixed for all of them.
    #[arg(long, default_value = "mixed")]
    workload: String,
    /// Make up a run of so many operations on a store without faults, write it to FILE, and judge that.
    #[arg(long, value_name = "OPERATIONS")]
    generate: Option<u64>,
    /// With --generate or --cluster: from this seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// With --generate: so many clients, each with one operation open.
    #[arg(long, default_value_t = 64)]
    clients: u64,
    /// With --generate: on so many keys.
    #[arg(long, default_value_t = 2_000)]
    keys: u64,
    /// With --generate: so many of 100 writes have an unknown outcome.
    #[arg(long, default_value_t = 2)]
    unknown: u64,
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(wrong) => {
            let is_asked = !wrong.use_stderr();
            let _ = wrong.print();
            return ExitCode::from(if is_asked { 0 } else { 3 });
        }
    };
    match run(&arguments) {
        Ok(Verdict::Ok) => ExitCode::SUCCESS,
        Ok(Verdict::Violated) => ExitCode::from(1),
        Ok(Verdict::Undecided) => ExitCode::from(2),
        Err(fault) => {
            say(&format!("check: {fault}"));
            ExitCode::from(3)
        }
    }
}

fn run(arguments: &Arguments) -> Result<Verdict, String> {
    let shown = arguments.file.display();
    if let Some(operations) = arguments.generate {
        let Arguments { seed, clients, keys, unknown: unknown_percent, .. } = *arguments;
        let made_up = generate::run(generate::Shape { operations, clients, keys, unknown_percent, seed });
        let file = File::create(&arguments.file).map_err(|fault| format!("{shown}: {fault}"))?;
        made_up.write(BufWriter::new(file)).map_err(|fault| format!("{shown}: {fault}"))?;
    }
    if !arguments.cluster.is_empty() {
        cluster::record(&arguments.cluster, arguments.secs, &arguments.workload, arguments.seed, &arguments.file)?;
    }
    let began = Instant::now();
    let input = input::read(&arguments.file).map_err(|fault| format!("{shown}: {fault}"))?;
    let read_secs = began.elapsed().as_secs_f64();
    let verdict = match &input {
        Input::Run(run) => {
            let judged = verdict::judge(run);
            print(&text::report(run, &judged));
            if let Some(out) = &arguments.page {
                let page = report::html(run, &judged, &format!("check {shown}"));
                std::fs::write(out, page).map_err(|fault| format!("{}: {fault}", out.display()))?;
            }
            if let Some(out) = &arguments.edn {
                write_edn(run, out, arguments.key.as_deref())?;
            }
            judged.verdict()
        }
        Input::Register(_) if arguments.page.is_some() || arguments.edn.is_some() => {
            return Err(format!("{shown} is a register's log, of which no page is made and which is in EDN as it is"));
        }
        Input::Register(operations) => {
            let judged = register::judge(operations);
            print(&register::report(operations, &judged));
            match judged {
                register::Judged::Ok => Verdict::Ok,
                register::Judged::Violated(_) => Verdict::Violated,
                register::Judged::Undecided => Verdict::Undecided,
            }
        }
    };
    say(&format!("read in {read_secs:.2} s, judged in {:.2} s", began.elapsed().as_secs_f64() - read_secs));
    Ok(verdict)
}

/// Prints to whoever reads; one that does not read on is no fault of the history.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// The same for what is said of the work itself: a line beside the verdict.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn write_edn(run: &Run, out: &Path, key: Option<&str>) -> Result<(), String> {
    let error = |fault| format!("{}: {fault}", out.display());
    let file = File::create(out).map_err(error)?;
    edn::write(&run.history, key.map(Name::from).as_ref(), BufWriter::new(file)).map_err(error)
}
