//! Leaderships that are handed over at once and often, by the call that operators have.
//!
//! *Can't produce* a hand-over to a replica that is not fit: the leader refuses.

use std::time::Duration;

use kv_proto::v1::{TransferLeaderRequest, cluster_client::ClusterClient};
use tokio::time::timeout;
use tonic::transport::Endpoint;

use crate::world::World;

/// Longest wait for one.
const TRANSFER_WAIT: Duration = Duration::from_secs(2);

/// Hands several shards' leaderships to other replicas.
pub(super) async fn storm(world: &World, random: &mut fastrand::Rng) -> Result<bool, String> {
    let status = world.status().await?;
    let from = world.recorder.micros();
    let (mut asked, mut done) = (0, 0);
    for _ in 0..random.usize(1..12) {
        let shard = &status.shards[random.usize(0..status.shards.len())];
        let Some(leader) = shard.leader else { continue };
        let others: Vec<_> = shard.replicas.iter().map(|replica| replica.node).filter(|node| *node != leader).collect();
        if others.is_empty() || world.stops.get() {
            continue;
        }
        let to = others[random.usize(0..others.len())];
        let address = world.cluster.borrow().client_address(usize::try_from(leader.0).unwrap_or(1));
        let request = TransferLeaderRequest { shard: shard.shard.0, to: to.0 };
        asked += 1;
        // A refusal is right where the leader has changed or the other lags.
        if let Ok(Ok(())) = timeout(TRANSFER_WAIT, hand_over(address.to_string(), request)).await {
            done += 1;
        }
    }
    if done > 0 {
        world.record("transfer", from, &[], format!("{asked} asked for, {done} begun"));
    }
    Ok(done > 0)
}

async fn hand_over(address: String, request: TransferLeaderRequest) -> Result<(), String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| error.to_string())?;
    let channel = endpoint.connect().await.map_err(|error| error.to_string())?;
    let answer = ClusterClient::new(channel).transfer_leader(request).await;
    answer.map(drop).map_err(|status| status.message().to_owned())
}
