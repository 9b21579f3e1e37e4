//! Redis: a master and two replicas.

use std::{path::Path, process::Command};

use super::{Kind, NODES, System, spawn, version};
use crate::{drivers::Driver, ports};

const PACKAGE: &str = "the Debian package redis-server";
/// Over so many connections callers share the client library's pipelines.
pub(super) const SHARED_CONNECTIONS: usize = 8;

/// Starts a master and its replicas.
pub(super) fn start(kind: Kind, place: &Path) -> Result<System, String> {
    let ports = ports::free::<NODES>()?;
    let mut processes = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let data = place.join(index.to_string());
        std::fs::create_dir_all(&data).map_err(|error| format!("{}: {error}", data.display()))?;
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--dir"]).arg(&data);
        if kind == Kind::RedisWait {
            command.args(["--save", "", "--appendonly", "yes", "--appendfsync", "always"]);
        }
        if index > 0 {
            command.args(["--replicaof", &format!("127.0.0.1 {}", ports[0])]);
        }
        processes.push(spawn(command, PACKAGE, &place.join(format!("{index}.out")))?);
    }
    let addresses = vec![format!("redis://127.0.0.1:{}", ports[0])];
    Ok(System { kind, version: version("redis-server", PACKAGE)?, addresses, processes })
}

/// Connections to the master.
pub(super) async fn drivers(system: &System, connections: usize, replicas: u32) -> Result<Vec<Driver>, String> {
    let client = redis::Client::open(system.addresses[0].as_str()).map_err(|error| error.to_string())?;
    let mut drivers = Vec::new();
    for _ in 0..connections {
        let connection = client.get_multiplexed_async_connection().await.map_err(|error| error.to_string())?;
        drivers.push(Driver::Redis { connection, replicas });
    }
    Ok(drivers)
}
