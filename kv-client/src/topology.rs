//! Asking nodes for the map: at the start, and whenever what is known has proved stale.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use kv_core::{
    shard_map::ShardMap,
    types::{ClusterId, NodeId},
};
use kv_proto::v1::{TopologyRequest, cluster_client::ClusterClient};
use tokio::time::{Instant, timeout};

use crate::{
    convert,
    error::{Error, ErrorKind, Result},
    link::{RESPONSE_BYTES_MAX, task::channel},
    routing::Routing,
};

/// Between two rounds of questions to all nodes.
const PAUSE: Duration = Duration::from_millis(100);

/// Between two fetches of a newer map.
const REFRESH_PAUSE: Duration = Duration::from_millis(500);

/// What a node answered.
struct Found {
    cluster: ClusterId,
    node: NodeId,
    map: ShardMap,
}

/// Asks all addresses at once, again and again until one has a map.
///
/// # Errors
/// `Unavailable` with what each address said last; `WrongCluster` if they belong to more than one cluster.
pub(crate) async fn discover(endpoints: &[String], connect_timeout: Duration, deadline: Instant) -> Result<Routing> {
    loop {
        let mut reasons = Vec::new();
        let mut asked: FuturesUnordered<_> =
            endpoints.iter().map(|endpoint| async move { (endpoint, ask(endpoint, connect_timeout).await) }).collect();
        while let Some(Some((endpoint, found))) = timeout_at(deadline, asked.next()).await {
            let routing = found.and_then(|found| {
                let routing = Routing::new(found.cluster);
                routing.take(&found.map)?;
                routing.node_answered_at(found.node, endpoint);
                Ok(routing)
            });
            match routing {
                Ok(routing) => {
                    // The others are heard for as long as they are as quick: they tell of a mixed list of addresses.
                    let rest = asked.map(|(endpoint, found)| found.map(|found| (endpoint.clone(), found)));
                    return check_rest(routing, rest.filter_map(|found| async { found.ok() })).await;
                }
                Err(reason) => reasons.push(format!("{endpoint}: {reason}")),
            }
        }
        if Instant::now() + PAUSE >= deadline {
            let reasons = if reasons.is_empty() { "no answer in time".to_owned() } else { reasons.join("; ") };
            let message = format!("no node could be reached; check the addresses and that the nodes run: {reasons}");
            return Err(Error::not_applied(ErrorKind::Unavailable, message));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Takes in what the other addresses answer within a moment.
async fn check_rest(routing: Routing, rest: impl futures_util::Stream<Item = (String, Found)>) -> Result<Routing> {
    let mut rest = std::pin::pin!(rest);
    let until = Instant::now() + MOMENT;
    while let Some(Some((endpoint, found))) = timeout_at(until, rest.next()).await {
        if found.cluster != routing.cluster() {
            let message =
                format!("{endpoint} belongs to another cluster than the other addresses; leave one of them out");
            return Err(Error::not_applied(ErrorKind::WrongCluster, message));
        }
        routing.node_answered_at(found.node, &endpoint);
        let _an_older_map_changes_nothing = routing.take(&found.map);
    }
    Ok(routing)
}

/// How long the slower addresses are listened to once one has answered.
const MOMENT: Duration = Duration::from_millis(20);

async fn timeout_at<T>(deadline: Instant, future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout_at(deadline, future).await.ok()
}

/// Fetches a newer map each time one is wanted, from the addresses given and those of the map. Runs as long as the client.
pub(crate) async fn keep_fresh(routing: Arc<Routing>, endpoints: Vec<String>, connect_timeout: Duration) {
    loop {
        routing.map_wanted.notified().await;
        let mut addresses = endpoints.clone();
        if let Some(map) = routing.router().map() {
            addresses
                .extend(map.nodes.iter().map(|node| node.client_address.clone()).filter(|address| !address.is_empty()));
        }
        addresses.sort();
        addresses.dedup();
        fastrand::shuffle(&mut addresses);
        let mut asked: FuturesUnordered<_> =
            addresses.iter().map(|address| async move { (address, ask(address, connect_timeout).await) }).collect();
        while let Some((address, found)) = asked.next().await {
            match found {
                Ok(found) if found.cluster == routing.cluster() => {
                    routing.node_answered_at(found.node, address);
                    if let Err(error) = routing.take(&found.map) {
                        tracing::warn!(error, address, "a node sent a map that can't be used");
                    }
                }
                Ok(_) => tracing::warn!(address, "the node belongs to another cluster"),
                Err(reason) => tracing::debug!(address, reason, "no map from the node"),
            }
        }
        // While a node is down every failed call wants a map: that many are not fetched.
        tokio::time::sleep(REFRESH_PAUSE).await;
    }
}

/// Why an address gives no map, for people.
fn describe(status: &tonic::Status) -> String {
    let error = convert::status(status);
    match status.code() {
        // A node that is asked at its port for peers or for metrics, or something else altogether.
        tonic::Code::Unimplemented => {
            "it does not answer as a kv node answers clients; is this its address for clients?".to_owned()
        }
        code if error.message().is_empty() => code.description().to_owned(),
        _ => error.message().to_owned(),
    }
}

async fn ask(address: &str, connect_timeout: Duration) -> std::result::Result<Found, String> {
    let question = async {
        let channel = channel(address, connect_timeout).await?;
        let mut client = ClusterClient::new(channel).max_decoding_message_size(RESPONSE_BYTES_MAX);
        let answer = client.topology(TopologyRequest {}).await;
        let answer = answer.map_err(|status| describe(&status))?.into_inner();
        match (convert::cluster(&answer.cluster), answer.map) {
            (Some(cluster), Some(map)) => Ok(Found { cluster, node: NodeId(answer.node), map: convert::map(map) }),
            _ => Err("it has no map yet: the cluster is being founded, which needs all its members".to_owned()),
        }
    };
    timeout(connect_timeout, question).await.unwrap_or_else(|_| Err(format!("no answer within {connect_timeout:?}")))
}
