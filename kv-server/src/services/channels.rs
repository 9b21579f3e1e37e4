//! Connections to the client ports of other nodes, for calls that are forwarded.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use kv_core::error::{Error, ErrorKind};
use kv_proto::v1::kv_client::KvClient;
use tonic::transport::{Channel, Endpoint};

use super::{CLIENT_MESSAGE_BYTES_MAX, peer_endpoint};

/// How long a connection may take to be made.
const CONNECT_WAIT: Duration = Duration::from_secs(2);

/// One connection for each address, made when it is needed.
#[derive(Default)]
pub(super) struct Channels {
    open: Mutex<BTreeMap<String, Channel>>,
}

impl Channels {
    /// A client of the node at this address.
    pub(super) async fn client(&self, address: &str) -> Result<KvClient<Channel>, Error> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).get(address).cloned();
        let channel = match open {
            Some(channel) => channel,
            None => {
                let channel = connect(address).await.map_err(|error| {
                    // Nothing was sent.
                    Error::not_applied(ErrorKind::NoQuorum, format!("the node at {address} can't be reached: {error}"))
                })?;
                let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
                open.insert(address.to_owned(), channel.clone());
                channel
            }
        };
        Ok(KvClient::new(channel)
            .max_decoding_message_size(CLIENT_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(CLIENT_MESSAGE_BYTES_MAX))
    }

    /// Gives a connection up that failed; the next call makes a new one.
    pub(super) fn forget(&self, address: &str) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(address);
    }
}

async fn connect(address: &str) -> Result<Channel, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    peer_endpoint(endpoint).connect_timeout(CONNECT_WAIT).connect().await
}
