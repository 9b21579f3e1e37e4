//! The task of a link: waits until there is something to send, connects, reads results, and starts anew when the stream
//! breaks.

use std::{sync::Arc, time::Duration};

use kv_core::types::NodeId;
use kv_proto::{
    PROTOCOL,
    v1::{self, batch_response_message::Message, kv_client::KvClient},
};
use tokio::time::timeout;
use tonic::{
    Streaming,
    transport::{Channel, Endpoint},
};

use super::{
    Host, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, OUTSTANDING_MAX, RESPONSE_BYTES_MAX, outgoing::Outgoing,
    shared::Shared,
};
use crate::convert;

/// What the task of a link works with.
pub(super) struct Task {
    pub(super) node: NodeId,
    pub(super) address: String,
    pub(super) connect_timeout: Duration,
    pub(super) shared: Arc<Shared>,
    pub(super) host: Arc<dyn Host>,
}

impl Task {
    /// Runs until the link is dropped. How soon a node that failed is tried again is the router's affair: it sends nothing
    /// there for a while, and without something to send there is no attempt.
    pub(super) async fn run(self) {
        for stream in 1.. {
            self.shared.demanded().await;
            let opened = timeout(self.connect_timeout, self.open(stream))
                .await
                .unwrap_or_else(|_| Err(format!("no answer within {:?}", self.connect_timeout)));
            let reason = match opened {
                Ok(incoming) => self.read(incoming).await,
                Err(reason) => reason,
            };
            tracing::debug!(node = %self.node, address = self.address, reason, "no stream");
            self.shared.broken(&format!("{}: {reason}", self.address));
        }
    }

    /// Connects, and goes as far as Welcome.
    async fn open(&self, stream: u64) -> Result<Streaming<v1::BatchResponseMessage>, String> {
        let channel = channel(&self.address, self.connect_timeout).await?;
        let (cluster, map_version) = self.host.known();
        let cluster = cluster.0.to_be_bytes().to_vec().into();
        let hello = v1::Hello { protocol: PROTOCOL, map_version, cluster };
        self.shared.begin(stream);
        let outgoing = Outgoing::new(hello, stream, self.shared.clone());
        let mut client = KvClient::new(channel).max_decoding_message_size(RESPONSE_BYTES_MAX);
        let mut incoming = client.batch(outgoing).await.map_err(|status| describe(&status))?.into_inner();
        let first = incoming.message().await.map_err(|status| describe(&status))?.and_then(|first| first.message);
        let Some(Message::Welcome(welcome)) = first else {
            return Err("it does not answer as a kv node does".to_owned());
        };
        if welcome.node != self.node.0 {
            return Err(format!("node {} answers where node {} is expected", welcome.node, self.node));
        }
        if let Some(map) = welcome.map {
            self.host.take_map(map);
        }
        let allowed = welcome.limits.map_or(OUTSTANDING_MAX, |limits| limits.outstanding_max as usize);
        self.shared.opened(allowed.clamp(1, OUTSTANDING_MAX));
        Ok(incoming)
    }

    /// Reads until the stream ends, and says why it did.
    async fn read(&self, mut incoming: Streaming<v1::BatchResponseMessage>) -> String {
        loop {
            match incoming.message().await {
                Ok(Some(v1::BatchResponseMessage { message: Some(Message::Batch(batch)) })) => {
                    // The map first: callers that are told to look elsewhere then find it.
                    if let Some(map) = batch.map {
                        self.host.take_map(map);
                    }
                    self.shared.complete(batch.results);
                }
                Ok(Some(_)) => return "it sent what no kv node sends".to_owned(),
                Ok(None) => return "the node closed the stream".to_owned(),
                Err(status) => return describe(&status),
            }
        }
    }
}

/// A connection to an address, with keepalive on: a node that vanished without a farewell is noticed.
///
/// # Errors
/// Why it could not be made, for people.
pub(crate) async fn channel(address: &str, connect_timeout: Duration) -> Result<Channel, String> {
    let endpoint =
        Endpoint::from_shared(format!("http://{address}")).map_err(|_| "not an address: host:port is wanted")?;
    endpoint
        .connect_timeout(connect_timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .connect()
        .await
        .map_err(|error| innermost(&error))
}

/// What a node may send before the client has read it, in bytes. It then waits.
const WINDOW_BYTES: u32 = 4 * 1024 * 1024;

fn describe(status: &tonic::Status) -> String {
    let error = convert::status(status);
    if error.message().is_empty() { status.code().description().to_owned() } else { error.message().to_owned() }
}

/// The last cause of an error: what the system said, without the layers around it.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
