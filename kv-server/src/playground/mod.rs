//! `kv-server playground`: a whole cluster in this process, and a prompt to try it, break it and watch it heal.
//!
//! However it ends, by a command, the end of input or a signal, the nodes end first and the temporary data goes with them.

mod command;
mod run;

use std::{process::ExitCode, sync::mpsc as blocking, thread, time::Instant};

use kv_server::{Failure, Trouble, testing::TestCluster};
use rustyline::{DefaultEditor, error::ReadlineError};
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use self::{
    command::{Command, HELP, split_script},
    run::Session,
};
use crate::{begin_logging, cli, version};

/// Runs the cluster and the commands, until a signal ends them.
pub(crate) fn run(arguments: cli::Playground) -> Result<ExitCode, Failure> {
    begin_logging(&arguments.log_level)?;
    let system = |error: std::io::Error| Failure::new(Trouble::Internal, error.to_string());
    let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(system)?;
    runtime.block_on(async {
        // Before the nodes start, so that none leaves its data behind.
        let mut terminate = signal(SignalKind::terminate()).map_err(system)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(system)?;
        tokio::select! {
            played = play(arguments) => played.map(ExitCode::from),
            _ = terminate.recv() => Ok(ExitCode::from(SIGNALLED + 15)),
            _ = interrupt.recv() => Ok(ExitCode::from(SIGNALLED + 2)),
        }
    })
}

async fn play(arguments: cli::Playground) -> Result<u8, Failure> {
    let began = Instant::now();
    let shards = arguments.shards;
    let keeps_data = arguments.data.is_some();
    let start = TestCluster::start_with(arguments.nodes, arguments.data, |config| config.shards = shards);
    let mut session = Session::begin(start.await?).await?;
    if let Some(script) = arguments.execute {
        return Ok(execute(&mut session, &script).await);
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
    prompt(&mut session).await?;
    Ok(0)
}

/// Runs commands separated by `;` up to the first that fails, and tells its status.
async fn execute(session: &mut Session, script: &str) -> u8 {
    for line in split_script(script) {
        let status = match Command::parse(line) {
            Ok(Command::Quit) => return 0,
            Ok(command) => session.run(command).await,
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

async fn prompt(session: &mut Session) -> Result<(), Failure> {
    let terminal =
        |error: ReadlineError| Failure::new(Trouble::Internal, format!("the terminal can't be used: {error}"));
    let (ask, mut typed) = lines(DefaultEditor::new().map_err(terminal)?);
    // The thread that reads ends when nobody asks it any more.
    while ask.send(()).is_ok() {
        let line = match typed.recv().await {
            Some(Ok(line)) => line,
            None | Some(Err(ReadlineError::Eof | ReadlineError::Interrupted)) => break,
            Some(Err(error)) => return Err(terminal(error)),
        };
        match Command::parse(line.trim()) {
            _ if line.trim().is_empty() => {}
            Ok(Command::Quit) => break,
            Ok(Command::Help) => println!("{HELP}"),
            Ok(command) => {
                session.run(command).await;
            }
            Err(message) => eprintln!("{message}"),
        }
    }
    Ok(())
}

type Typed = Result<String, ReadlineError>;

/// A thread that reads a line whenever it is asked for one: reading blocks, and a signal must not wait for it.
fn lines(mut editor: DefaultEditor) -> (blocking::Sender<()>, mpsc::Receiver<Typed>) {
    let (ask, asked) = blocking::channel();
    let (lines, typed) = mpsc::channel(1);
    thread::spawn(move || {
        while asked.recv().is_ok() {
            let line = editor.readline("kv> ");
            if let Ok(line) = &line
                && !line.trim().is_empty()
            {
                // A line that can't be kept is only missing from the history.
                let _kept = editor.add_history_entry(line);
            }
            if lines.blocking_send(line).is_err() {
                return;
            }
        }
    });
    (ask, typed)
}

/// The status of a command that is none.
const USAGE: u8 = 2;
/// What shells add to the number of the signal that ended a program.
const SIGNALLED: u8 = 128;
