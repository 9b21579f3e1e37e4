//! Our own server, as `serve` runs it, with its defaults but for the engine where that is compared.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use kv_client::{Client, Consistency, Durability, load::Kv};
use kv_proto::v1::kv_client::KvClient;
use tonic::transport::Endpoint;

use super::{Kind, NODES, System, UNARY_CONNECTIONS, spawn, version};
use crate::{drivers::Driver, ports};

const PACKAGE: &str = "this workspace: cargo build --release -p kv-server";

/// Starts three nodes.
pub(super) fn start(kind: Kind, server: Option<PathBuf>, place: &Path) -> Result<System, String> {
    let server = match server {
        Some(server) => server,
        None => std::env::current_exe().map_err(|error| error.to_string())?.with_file_name("kv-server"),
    };
    let server = server.to_string_lossy().into_owned();
    let ports = ports::free::<{ 2 * NODES }>()?;
    let (peers, clients) = ports.split_at(NODES);
    let members: Vec<_> =
        peers.iter().enumerate().map(|(node, port)| format!("{}=127.0.0.1:{port}", node + 1)).collect();
    let addresses: Vec<_> = clients.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let mut processes = Vec::new();
    for (index, address) in addresses.iter().enumerate() {
        let node = (index + 1).to_string();
        let mut command = Command::new(&server);
        command.args(["serve", "--node", &node, "--cluster", &members.join(","), "--client", address, "--data"]);
        command.arg(place.join(&node));
        if kind == Kind::KvRedb {
            command.args(["--engine", "redb"]);
        }
        processes.push(spawn(command, PACKAGE, &place.join(format!("{node}.out")))?);
    }
    Ok(System { kind, version: version(&server, PACKAGE)?, addresses, processes })
}

/// One client for all callers: it has one connection a node.
pub(super) async fn drivers(system: &System) -> Result<Vec<Driver>, String> {
    let builder = Client::builder().endpoints(system.addresses.clone()).deadline(Duration::from_secs(5));
    let client = builder.connect().await.map_err(|error| error.to_string())?;
    let durability = if system.kind == Kind::KvAsync { Durability::Async } else { Durability::Sync };
    Ok(vec![Driver::Kv(Kv { client, consistency: Consistency::Linearizable, durability: Some(durability) })])
}

/// Some connections to each node, as etcd has them; callers take them in turn, and know nothing of who leads what.
pub(super) async fn unary_drivers(system: &System) -> Result<Vec<Driver>, String> {
    let mut drivers = Vec::new();
    for address in system.addresses.iter().cycle().take(UNARY_CONNECTIONS * NODES) {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| error.to_string())?;
        drivers.push(Driver::KvUnary(KvClient::new(endpoint.connect().await.map_err(|error| error.to_string())?)));
    }
    Ok(drivers)
}
