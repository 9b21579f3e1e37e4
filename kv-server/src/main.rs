//! `kv-server`: one node of a cluster (`serve`), or a whole cluster to try things (`playground`).
//!
//! All that is process-wide is here: the logger, the signals, the limit of open files, the exit code.

mod cli;
mod playground;
mod serve;

use std::{io::IsTerminal, process::ExitCode};

use clap::Parser;
use kv_server::{Failure, Trouble, disk::DATA_FORMAT};
use tracing_subscriber::EnvFilter;

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.version {
        println!("{}", version());
        return ExitCode::SUCCESS;
    }
    let ran = match cli.command {
        Some(Command::Serve(serve)) => serve::run(*serve),
        Some(Command::Playground(playground)) => playground::run(playground),
        None => Ok(ExitCode::SUCCESS),
    };
    ran.unwrap_or_else(|failure| {
        eprintln!("kv-server: {failure}");
        ExitCode::from(failure.trouble.exit_code())
    })
}

/// Version, commit and data format.
fn version() -> String {
    let commit = option_env!("KV_COMMIT").unwrap_or("unknown");
    format!("kv-server {} (commit {commit}, data format {DATA_FORMAT})", env!("CARGO_PKG_VERSION"))
}

/// Whether it is a level, or names with a level for a target or a span.
fn is_directive(word: &str) -> bool {
    let is_level =
        |level: &str| ["off", "error", "warn", "info", "debug", "trace"].contains(&level.to_lowercase().as_str());
    word.rsplit_once('=').map_or_else(|| is_level(word), |(name, level)| !name.is_empty() && is_level(level))
}

/// Logs to stderr: text for people on a terminal, JSON for machines elsewhere.
fn begin_logging(level: &str) -> Result<(), Failure> {
    let mistake = |what: &str| {
        let message = format!(
            "the log level `{level}` is not known: {what}; it is error, warn, info or debug, or a filter such as \
             info,kv_server=debug"
        );
        Failure::new(Trouble::Configuration, message)
    };
    // The filter takes a word that is no level for the name of a module, and then nothing would be logged.
    if let Some(word) = level.split(',').map(str::trim).find(|word| !is_directive(word)) {
        return Err(mistake(&format!("`{word}` is no level")));
    }
    let filter = EnvFilter::try_new(level).map_err(|error| mistake(&error.to_string()))?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        logs.init();
    } else {
        logs.json().flatten_event(true).with_span_list(false).init();
    }
    Ok(())
}
