//! The gRPC services, and the limits of their connections: every one is set here and none left to a default.

mod cluster;
mod held;
mod kv;
mod kv_stream;
mod kv_unary;

use std::{io, sync::Arc, time::Duration};

use kv_proto::v1::{cluster_server::ClusterServer, kv_server::KvServer, peer_server::PeerServer};
use tonic::transport::{Endpoint, Server};
use tonic_health::ServingStatus;

use self::{cluster::ClusterService, held::HoldAnswers, kv::KvService};
use crate::{
    guests::Bounds,
    net::Door,
    peers::{FRAME_BYTES_MAX, PeerService},
    shared::Shared,
    unread::UNREAD_BYTES_MAX,
};

/// Most bytes of one message of a client. A longer one fails its call or stream.
const CLIENT_MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Streams of one connection at a time. Past it new ones wait at the client.
const STREAMS_MAX: u32 = 256;
/// Connections of clients at a time, if nothing else is set; half of the files that the process may open, if that is less. Past it those
/// leave that ask nothing, or newcomers are closed: see `guests.rs`.
pub(crate) const CONNECTIONS_MAX: usize = 10_000;
/// The same for peers, of which each needs three, and an eighth of the files.
const PEER_CONNECTIONS_MAX: usize = 1_024;
/// The same for the HTTP port, and a sixteenth.
const HTTP_CONNECTIONS_MAX: usize = 256;
/// How long a connection may take to its first call. Past it it is closed.
const FIRST_CALL_WAIT: Duration = Duration::from_secs(20);
/// How long a connection of the HTTP port may take for its request and the answer. Past it it is closed.
const HTTP_WAIT: Duration = Duration::from_secs(10);
/// Streams that clients reset before they were accepted. Past it the connection is closed (CVE-2023-44487).
const PENDING_RESETS_MAX: usize = 20;
/// The same for peers, which reset calls in ordinary traffic when they lose each other.
const PEER_PENDING_RESETS_MAX: usize = 64;
/// Streams that were reset because of errors of the other side. Past it the connection is closed (RUSTSEC-2024-0003).
const ERROR_RESETS_MAX: usize = 1_024;
/// Bytes of a call's headers. Past it the call is refused.
const HEADER_BYTES_MAX: u32 = 16 * 1024;
/// A connection is asked this often whether it lives.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// A connection that does not answer for so long is closed.
const KEEPALIVE_WAIT: Duration = Duration::from_secs(5);
/// Bytes that may be under way on one stream.
const STREAM_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// Bytes that may be under way on one connection.
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// Most bytes of one HTTP/2 frame.
const HTTP2_FRAME_BYTES: u32 = 256 * 1024;

/// Serves clients until the node closes.
pub(crate) async fn serve_clients(door: Door, shared: Arc<Shared>) {
    let (reporter, health) = tonic_health::server::health_reporter();
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(kv_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .expect("the committed descriptors decode");
    shared.spawn("the health service", tell_health(Arc::clone(&shared), reporter));
    let kv = KvServer::new(KvService::new(&shared))
        .max_decoding_message_size(CLIENT_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(CLIENT_MESSAGE_BYTES_MAX);
    let cluster = ClusterServer::new(ClusterService { shared: Arc::clone(&shared) })
        .max_decoding_message_size(CLIENT_MESSAGE_BYTES_MAX);
    let served = server(PENDING_RESETS_MAX)
        .layer(HoldAnswers)
        .add_service(kv)
        .add_service(cluster)
        .add_service(health)
        .add_service(reflection)
        .serve_with_incoming_shutdown(door.connections(), shared.closing.clone().cancelled_owned())
        .await;
    closed("clients", served);
}

/// Serves peers until the node closes.
pub(crate) async fn serve_peers(door: Door, shared: Arc<Shared>) {
    let peer = PeerServer::new(PeerService { shared: Arc::clone(&shared) })
        .max_decoding_message_size(FRAME_BYTES_MAX)
        .max_encoding_message_size(FRAME_BYTES_MAX);
    let served = server(PEER_PENDING_RESETS_MAX)
        .layer(HoldAnswers)
        .add_service(peer)
        .serve_with_incoming_shutdown(door.connections(), shared.closing.clone().cancelled_owned())
        .await;
    closed("peers", served);
}

/// A client side of connections between nodes, with the same limits.
pub(crate) fn peer_endpoint(endpoint: Endpoint) -> Endpoint {
    endpoint
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_WAIT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .http2_adaptive_window(false)
}

/// nodelay is set by [`Door`]: tonic sets it only on sockets that it accepts itself.
fn server(pending_resets_max: usize) -> Server {
    Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .http2_max_pending_accept_reset_streams(Some(pending_resets_max))
        .http2_max_local_error_reset_streams(Some(ERROR_RESETS_MAX))
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_WAIT))
        .http2_adaptive_window(Some(false))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(HTTP2_FRAME_BYTES)
}

fn closed(whom: &str, served: Result<(), impl std::fmt::Display>) {
    if let Err(error) = served {
        tracing::error!(%error, "the port for {whom} is closed");
    }
}

/// Keeps the health service in step with the node's readiness.
async fn tell_health(shared: Arc<Shared>, reporter: tonic_health::server::HealthReporter) {
    let mut unready = shared.unready.subscribe();
    loop {
        let is_ready = unready.borrow_and_update().is_none();
        let status = if is_ready { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in ["", "kv.v1.Kv", "kv.v1.Cluster"] {
            reporter.set_service_status(service, status).await;
        }
        if unready.changed().await.is_err() {
            return;
        }
    }
}

/// A port of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    /// For clients.
    Clients,
    /// For peers.
    Peers,
    /// For health checks and metrics.
    Http,
}

impl Port {
    fn name(self) -> &'static str {
        match self {
            Self::Clients => "clients",
            Self::Peers => "peers",
            Self::Http => "http",
        }
    }

    /// What it bears, if the process may have so many open files: most of them are left to files and to the other ports.
    fn bounds(self, shared: &Shared, files_max: usize) -> Bounds {
        let (connections_max, share, first_call_wait) = match self {
            Self::Clients => (shared.connections_max, 2, FIRST_CALL_WAIT),
            Self::Peers => (PEER_CONNECTIONS_MAX, 8, FIRST_CALL_WAIT),
            Self::Http => (HTTP_CONNECTIONS_MAX, 16, HTTP_WAIT),
        };
        Bounds { connections_max: connections_max.min(files_max / share).max(1), first_call_wait }
    }
}

/// Opens a bound socket in the runtime.
pub(crate) fn open_door(listener: std::net::TcpListener, port: Port, shared: &Shared) -> io::Result<Door> {
    let (files_max, _) = rlimit::Resource::NOFILE.get()?;
    let bounds = port.bounds(shared, usize::try_from(files_max).unwrap_or(usize::MAX));
    // What clients hold must not cost a peer its connection.
    let unread = match port {
        Port::Clients => Arc::clone(&shared.unread),
        Port::Peers | Port::Http => shared.metrics.unread(UNREAD_BYTES_MAX),
    };
    Door::open(listener, &unread, bounds, shared.metrics.door(port.name()), port != Port::Http)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn ports_leave_files_to_the_log() {
        let shared = Shared::new(&Config::new(kv_core::types::NodeId(1), Default::default(), "data"));
        let connections = |files_max| {
            [Port::Clients, Port::Peers, Port::Http].map(|port| port.bounds(&shared, files_max).connections_max)
        };
        assert_eq!(connections(1_000_000), [10_000, 1_024, 256]);
        assert_eq!(connections(1_024), [512, 128, 64]);
        assert_eq!(connections(1), [1, 1, 1]);
    }
}
