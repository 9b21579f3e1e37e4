//! `kv-server serve`: one node, until a signal or a failure ends it.

use std::{collections::BTreeMap, process::ExitCode};

use kv_server::{Ending, Failure, Server, Trouble};
use tokio::{
    runtime,
    signal::unix::{Signal, SignalKind, signal},
};

use crate::{begin_logging, cli, version};

/// With fewer open files than this a busy node may run out of them.
const FILES_WANTED: u64 = 16_384;

/// Runs the node.
pub(crate) fn run(serve: cli::Serve) -> Result<ExitCode, Failure> {
    let keys = serve.keys()?;
    begin_logging(keys.log_level())?;
    let config = keys.config()?;
    raise_file_limit();
    let (node, members, insecure) = (config.node, config.members.clone(), config.insecure);
    let data = config.data.display().to_string();
    let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(system)?;
    let ending = runtime.block_on(async {
        // Before the node starts, so that no signal is missed.
        let mut terminate = signal(SignalKind::terminate()).map_err(system)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(system)?;
        let server = Server::start(config)?;
        let addresses = server.addresses();
        println!("{}", version());
        println!("node {node} of {}, data in {data}", list(&members));
        println!(
            "clients {}  peers {}  http {}",
            addresses.client,
            addresses.peer,
            match addresses.http {
                Some(http) => http.to_string(),
                None => "off".to_owned(),
            }
        );
        if insecure {
            println!("insecure: connections are not encrypted, and anybody who reaches the ports may read and write");
        }
        Ok::<_, Failure>(until_ended(&server, &mut terminate, &mut interrupt).await)
    })?;
    match ending {
        Ending::Shutdown => Ok(ExitCode::SUCCESS),
        Ending::Kill => Ok(ExitCode::FAILURE),
        Ending::Failed(failure) => Err(failure),
    }
}

/// The first signal stops the node in order, the second at once.
async fn until_ended(server: &Server, terminate: &mut Signal, interrupt: &mut Signal) -> Ending {
    let mut is_stopping = false;
    loop {
        tokio::select! {
            ending = server.ended() => return ending,
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if is_stopping {
            server.kill();
        } else {
            server.shutdown();
        }
        is_stopping = true;
    }
}

fn raise_file_limit() {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(files) if files < FILES_WANTED => {
            tracing::warn!(
                files,
                wanted = FILES_WANTED,
                "few files may be open at a time; raise the limit (ulimit -n)"
            );
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "the limit of open files can't be raised"),
    }
}

fn list(members: &BTreeMap<kv_core::types::NodeId, String>) -> String {
    let members: Vec<_> = members.iter().map(|(node, address)| format!("{node}={address}")).collect();
    members.join(",")
}

fn system(error: std::io::Error) -> Failure {
    Failure::new(Trouble::Internal, error.to_string())
}
