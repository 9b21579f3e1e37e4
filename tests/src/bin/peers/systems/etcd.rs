//! etcd, with its defaults.

use std::{path::Path, process::Command};

use tonic::transport::Endpoint;

use super::{Kind, NODES, System, UNARY_CONNECTIONS, spawn, version};
use crate::{drivers::Driver, etcd::wire::kv_client::KvClient, ports};

const PACKAGE: &str = "the Debian package etcd-server";

/// Starts three members.
pub(super) fn start(kind: Kind, place: &Path) -> Result<System, String> {
    let ports = ports::free::<{ 2 * NODES }>()?;
    let (peers, clients) = ports.split_at(NODES);
    let url = |port: &u16| format!("http://127.0.0.1:{port}");
    let members: Vec<_> = peers.iter().enumerate().map(|(node, port)| format!("n{}={}", node + 1, url(port))).collect();
    let mut processes = Vec::new();
    for (index, (peer, client)) in peers.iter().zip(clients).enumerate() {
        let name = format!("n{}", index + 1);
        let mut command = Command::new("etcd");
        command
            .args(["--name", &name])
            .args(["--listen-peer-urls", &url(peer), "--initial-advertise-peer-urls", &url(peer)])
            .args(["--listen-client-urls", &url(client), "--advertise-client-urls", &url(client)])
            .args(["--initial-cluster", &members.join(","), "--initial-cluster-state", "new"])
            .arg("--data-dir")
            .arg(place.join(&name));
        processes.push(spawn(command, PACKAGE, &place.join(format!("{name}.out")))?);
    }
    Ok(System { kind, version: version("etcd", PACKAGE)?, addresses: clients.iter().map(url).collect(), processes })
}

/// Some connections to each member; callers take them in turn.
pub(super) async fn drivers(system: &System) -> Result<Vec<Driver>, String> {
    let mut drivers = Vec::new();
    for address in system.addresses.iter().cycle().take(UNARY_CONNECTIONS * NODES) {
        let endpoint = Endpoint::from_shared(address.clone()).map_err(|error| error.to_string())?;
        drivers.push(Driver::Etcd(KvClient::new(endpoint.connect().await.map_err(|error| error.to_string())?)));
    }
    Ok(drivers)
}
