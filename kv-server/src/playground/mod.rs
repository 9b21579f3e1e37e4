//! `kv-server playground`: a whole cluster in this process, and a prompt to try it, break it and watch it heal.

mod command;
mod run;

use std::{process::ExitCode, time::Instant};

use kv_server::{Failure, Trouble, testing::TestCluster};
use rustyline::{DefaultEditor, error::ReadlineError};
use tokio::runtime;

use self::{
    command::{Command, HELP},
    run::Session,
};
use crate::{begin_logging, cli, version};

/// Runs the cluster and the commands.
pub(crate) fn run(arguments: cli::Playground) -> Result<ExitCode, Failure> {
    begin_logging(&arguments.log_level)?;
    let began = Instant::now();
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Trouble::Internal, error.to_string()))?;
    let shards = arguments.shards;
    let keeps_data = arguments.data.is_some();
    let start = TestCluster::start_with(arguments.nodes, arguments.data, |config| config.shards = shards);
    let mut session = runtime.block_on(async { Session::begin(start.await?).await })?;
    if let Some(script) = arguments.execute {
        return Ok(ExitCode::from(execute(&runtime, &mut session, &script)));
    }
    println!("{} playground", version());
    println!(
        "{} nodes, {shards} shards, data in {}{}, ready in {:.1} s",
        arguments.nodes,
        session.cluster.directory().display(),
        if keeps_data { "" } else { " (removed at the end; keep it with --data DIR)" },
        began.elapsed().as_secs_f64()
    );
    for node in session.cluster.nodes() {
        if let Some(addresses) = session.cluster.addresses(node) {
            let http = addresses.http.map(|http| format!("  metrics http://{http}/metrics")).unwrap_or_default();
            println!("  node {node}  clients {}{http}", addresses.client);
        }
    }
    println!(
        "try  put hello world   get hello   status   \\kill 2   \\restart 2   \\partition 1 2,3   \\heal   \\help"
    );
    prompt(&runtime, &mut session)?;
    Ok(ExitCode::SUCCESS)
}

/// Runs commands separated by `;` up to the first that fails, and tells its status.
fn execute(runtime: &runtime::Runtime, session: &mut Session, script: &str) -> u8 {
    for line in script.split(';').map(str::trim).filter(|line| !line.is_empty()) {
        let status = match Command::parse(line) {
            Ok(Command::Quit) => return 0,
            Ok(command) => runtime.block_on(session.run(command)),
            Err(message) => {
                eprintln!("{message}");
                USAGE
            }
        };
        if status != 0 {
            return status;
        }
    }
    0
}

fn prompt(runtime: &runtime::Runtime, session: &mut Session) -> Result<(), Failure> {
    let terminal =
        |error: ReadlineError| Failure::new(Trouble::Internal, format!("the terminal can't be used: {error}"));
    let mut editor = DefaultEditor::new().map_err(terminal)?;
    loop {
        let line = match editor.readline("kv> ") {
            Ok(line) => line,
            Err(ReadlineError::Eof | ReadlineError::Interrupted) => return Ok(()),
            Err(error) => return Err(terminal(error)),
        };
        if line.trim().is_empty() {
            continue;
        }
        // A line that can't be kept is only missing from the history.
        let _kept = editor.add_history_entry(&line);
        match Command::parse(line.trim()) {
            Ok(Command::Quit) => return Ok(()),
            Ok(Command::Help) => println!("{HELP}"),
            Ok(command) => {
                runtime.block_on(session.run(command));
            }
            Err(message) => eprintln!("{message}"),
        }
    }
}

/// The status of a command that is none.
const USAGE: u8 = 2;
