//! The limit of the wire: three processes of this program that only echo. See `crate::echo`.

use std::{path::Path, process::Command};

use super::{Kind, NODES, System, spawn};
use crate::ports;

/// Starts three processes.
pub(super) fn start(kind: Kind, place: &Path) -> Result<System, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let addresses = ports::free::<NODES>()?.map(|port| format!("127.0.0.1:{port}")).to_vec();
    let mut processes = Vec::new();
    for node in 1..=NODES {
        let mut command = Command::new(&program);
        command.args(["--echo", &node.to_string(), "--echo-addresses", &addresses.join(",")]);
        processes.push(spawn(command, "this workspace", &place.join(format!("{node}.out")))?);
    }
    let version =
        "what the client, gRPC and the sockets can do: every operation answered at once, nothing kept".to_owned();
    Ok(System { kind, version, addresses, processes })
}
