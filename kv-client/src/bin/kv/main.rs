//! `kv`, the command line: reads and writes keys, shows how a cluster is doing, and measures it.
//!
//! Results go to standard output, everything else to standard error. The exit code says what happened: see [`exit`].

mod args;
mod bench;
mod commands;
mod exit;
mod input;
mod output;
mod status;

use clap::{CommandFactory, Parser};
use kv_client::{Client, ClientBuilder};

use args::{Args, Command, Common};
use exit::Exit;
use output::Output;

fn main() -> std::process::ExitCode {
    let args = Args::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Exit::Failure(format!("no runtime: {error}")).report(),
    };
    match runtime.block_on(run(args)) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(exit) => exit.report(),
    }
}

async fn run(args: Args) -> Result<(), Exit> {
    let output = Output::new(args.common.output);
    match args.command {
        Command::Get(get) => commands::get(connect(&args.common).await?, get, &output).await,
        // The value is read first: a mistake there is told without waiting for a cluster.
        Command::Put(put) => {
            let value = input::value(put.value.as_deref(), put.file.as_deref())?;
            commands::put(connect(&args.common).await?, put, value, &output).await
        }
        Command::Del(del) => commands::del(connect(&args.common).await?, del, &output).await,
        Command::Status(wanted) => status::run(&args.common, wanted, &output).await,
        Command::Bench(bench) => bench::run(&args.common, *bench, &output).await,
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "kv", &mut script);
            output.bytes(&script)
        }
    }
}

fn builder(common: &Common) -> Result<ClientBuilder, Exit> {
    let builder = Client::builder().url(&common.endpoints)?;
    Ok(builder.deadline(common.timeout).connect_timeout(common.connect_timeout))
}

async fn connect(common: &Common) -> Result<Client, Exit> {
    Ok(builder(common)?.connect().await?)
}
