//! One connection to a peer: made, greeted, filled from its queue, and made again when it breaks.

use std::{sync::Arc, time::Duration};

use kv_core::{io::Input, message::Lane, types::NodeId};
use kv_proto::{
    PROTOCOL,
    v1::{self, envelope::Content, peer_client::PeerClient},
};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Endpoint};

use super::{Contact, FRAME_BYTES_MAX, Refusals, queue::LaneQueue};
use crate::{convert::id_to_wire, inbox::Event, services, shared::Shared};

/// How long a connection may take to be made, and again to be greeted.
const CONNECT_WAIT: Duration = Duration::from_secs(2);
/// The main connection, which carries heartbeats, acknowledgements and short appends, is asked this often whether it lives. When packets
/// get through again that were dropped for a while, TCP is silent for up to as long again, since it waits longer after each that it sent in
/// vain; a new connection is not. What the others carry may be long, so that an answer waits behind it: they are asked less often.
const MAIN_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// And it is closed if it does not answer for so long.
const MAIN_KEEPALIVE_WAIT: Duration = Duration::from_secs(2);
/// Pause after the first failed attempt; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(25);
/// Longest pause between attempts.
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// Envelopes between queue and socket. Past it they wait in the queue.
const ENVELOPES_MAX: usize = 2;

/// What keeps one connection alive.
pub(super) struct LaneTask {
    to: NodeId,
    lane: Lane,
    queue: Arc<LaneQueue>,
    shared: Arc<Shared>,
    refusals: Arc<Refusals>,
}

/// Why a connection ended or was not made.
enum Broken {
    /// The peer was not reached or did not greet.
    NotMade(String),
    /// It had been greeted: messages may be lost.
    Lost(String),
}

impl LaneTask {
    pub(super) fn new(
        to: NodeId,
        lane: Lane,
        queue: &Arc<LaneQueue>,
        shared: &Arc<Shared>,
        refusals: &Arc<Refusals>,
    ) -> Self {
        Self { to, lane, queue: Arc::clone(queue), shared: Arc::clone(shared), refusals: Arc::clone(refusals) }
    }

    /// Connects for as long as the node lives.
    pub(super) async fn run(self) {
        if self.lane != Lane::Main {
            // Before the founding there is nothing to say on the others.
            self.shared.founded.cancelled().await;
        }
        let mut pause = PAUSE_MIN;
        for attempt in 0.. {
            if !self.shared.links.allows(self.shared.node, self.to) {
                self.say(Contact::Cut);
                self.shared.links.until(self.shared.node, self.to, true).await;
                self.say(Contact::Allowed);
            }
            self.queue.begin();
            let broken = self.connect(attempt).await;
            let lost = self.queue.fail();
            let (was_up, reason) = match broken {
                Broken::NotMade(reason) => (false, reason),
                Broken::Lost(reason) => (true, reason),
            };
            if (lost || was_up) && self.shared.cluster.get().is_some() {
                self.shared.metrics.undelivered();
                self.shared.inbox.push(Event::Input(Input::Undelivered { to: self.to, shard: None }));
            }
            tracing::debug!(peer = %self.to, lane = ?self.lane, %reason, "no connection");
            // One that breaks and is made again at once is no news.
            if !was_up && self.shared.links.allows(self.shared.node, self.to) {
                self.say(Contact::Lost(reason));
            }
            pause = if was_up { PAUSE_MIN } else { (pause * 2).min(PAUSE_MAX) };
            // Jitter: nodes that lost each other at one moment need not meet again at one moment.
            sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        }
    }

    /// Tells what is news. The main connection stands for all; before the founding it is said for whom the node waits.
    fn say(&self, contact: Contact) {
        if self.lane == Lane::Main && self.shared.cluster.get().is_some() {
            self.shared.contacts.to(self.to, contact);
        }
    }

    /// Makes the connection and uses it until it breaks.
    async fn connect(&self, attempt: usize) -> Broken {
        let founded = self.shared.cluster.get().is_some();
        let addresses = self.addresses();
        let Some(address) = addresses.get(attempt % addresses.len().max(1)) else {
            return Broken::NotMade("no address is known".to_owned());
        };
        let (envelopes, outgoing) = mpsc::channel(ENVELOPES_MAX);
        let inbound = match timeout(2 * CONNECT_WAIT, self.greet(address, &envelopes, outgoing)).await {
            Ok(Ok(inbound)) => inbound,
            Ok(Err(reason)) => return Broken::NotMade(format!("{address}: {reason}")),
            Err(_) => return Broken::NotMade(format!("{address}: no answer in time")),
        };
        self.refusals.accepted(self.to);
        tracing::debug!(peer = %self.to, lane = ?self.lane, %address, "connected");
        self.say(Contact::Reached);
        self.pump(envelopes, inbound, founded).await
    }

    /// The addresses to try in turn: the one configured here, and the one that the peer told the cluster.
    fn addresses(&self) -> Vec<String> {
        let mut addresses: Vec<_> = self.shared.members.get(&self.to).cloned().into_iter().collect();
        if let Some(map) = &*self.shared.map.borrow()
            && let Some(node) = map.node(self.to)
        {
            addresses.push(node.peer_address.clone());
        }
        addresses.dedup();
        addresses.retain(|address| !address.is_empty());
        addresses
    }

    /// Connects, says hello, and hears whether the peer talks to this node.
    async fn greet(
        &self,
        address: &str,
        envelopes: &mpsc::Sender<v1::Envelope>,
        outgoing: mpsc::Receiver<v1::Envelope>,
    ) -> Result<Streaming<v1::Envelope>, String> {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| error.to_string())?;
        let mut endpoint = services::peer_endpoint(endpoint).connect_timeout(CONNECT_WAIT);
        if self.lane == Lane::Main {
            endpoint =
                endpoint.http2_keep_alive_interval(MAIN_KEEPALIVE_INTERVAL).keep_alive_timeout(MAIN_KEEPALIVE_WAIT);
        }
        let channel = endpoint.connect().await.map_err(|error| describe(&error))?;
        let hello = v1::PeerHello {
            protocol: PROTOCOL,
            cluster: self.shared.cluster.get().map(|cluster| id_to_wire(cluster.id.0)).unwrap_or_default(),
            node: self.shared.node.0,
            incarnation: id_to_wire(self.shared.incarnation().0),
            kind: match self.lane {
                Lane::Main => v1::ConnectionKind::Main,
                Lane::Bulk => v1::ConnectionKind::Bulk,
                Lane::Snapshot => v1::ConnectionKind::Snapshot,
            }
            .into(),
            to: self.to.0,
        };
        let hello = v1::Envelope { content: Some(Content::Hello(hello)) };
        envelopes.try_send(hello).map_err(|_| "the connection has no room for a greeting".to_owned())?;
        let mut client = PeerClient::new(channel)
            .max_decoding_message_size(FRAME_BYTES_MAX)
            .max_encoding_message_size(FRAME_BYTES_MAX);
        let answer =
            client.exchange(ReceiverStream::new(outgoing)).await.map_err(|error| error.message().to_owned())?;
        let mut inbound = answer.into_inner();
        match inbound.message().await.map_err(|error| error.message().to_owned())?.and_then(|first| first.content) {
            Some(Content::Welcome(welcome)) if welcome.node == self.to.0 => Ok(inbound),
            Some(Content::Welcome(welcome)) => Err(format!("node {} answered instead", welcome.node)),
            Some(Content::Refusal(refusal)) => {
                self.refusals.refused(&self.shared, self.to, &refusal);
                Err(refusal.message)
            }
            _ => Err("the peer did not greet".to_owned()),
        }
    }

    /// Sends what the queue holds until the connection ends. What is behind the queue is lost then.
    async fn pump(
        &self,
        envelopes: mpsc::Sender<v1::Envelope>,
        mut inbound: Streaming<v1::Envelope>,
        founded: bool,
    ) -> Broken {
        let send = async {
            loop {
                // Room first: what is taken from the queue is then sent at once.
                let Ok(room) = envelopes.reserve().await else { break };
                let batch = self.queue.next().await;
                room.send(v1::Envelope { content: Some(Content::Batch(batch)) });
            }
        };
        let reason = tokio::select! {
            () = send => "the connection was closed".to_owned(),
            end = inbound.message() => match end {
                Ok(Some(_)) => "the peer said something where it only listens".to_owned(),
                Ok(None) => "the peer closed the connection".to_owned(),
                Err(error) => error.message().to_owned(),
            },
            () = self.shared.links.until(self.shared.node, self.to, false) => "the link is cut".to_owned(),
            // A greeting without a cluster is good for founding only.
            () = self.shared.founded.cancelled(), if !founded => "the cluster is founded".to_owned(),
        };
        Broken::Lost(reason)
    }
}

/// The error with its causes, which tonic leaves out.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
