//! How a cluster is doing, put together from what each of its nodes says.

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::join_all;
use kv_core::types::{ClusterId, MapVersion, NodeId, Revision, ShardId};
use kv_proto::v1::{self, StatusRequest, cluster_client::ClusterClient};
use tokio::time::timeout;

use crate::{
    convert,
    link::{RESPONSE_BYTES_MAX, task::channel},
    remote::Remote,
};

/// A cluster, as its nodes describe it.
#[derive(Clone, Debug)]
pub struct ClusterStatus {
    /// The cluster.
    pub cluster: ClusterId,
    /// The version of the map that was used.
    pub map_version: MapVersion,
    /// All nodes of the map, ascending by id.
    pub nodes: Vec<NodeStatus>,
    /// All shards of the map, ascending by id; the meta shard is 0.
    pub shards: Vec<ShardStatus>,
}

impl ClusterStatus {
    /// Whether every node answers and is ready, and every shard has a leader.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let ready = |node: &NodeStatus| node.report.as_ref().is_ok_and(|report| report.ready);
        self.nodes.iter().all(ready) && self.shards.iter().all(|shard| shard.leader.is_some())
    }
}

/// A node and what it says of itself.
#[derive(Clone, Debug)]
pub struct NodeStatus {
    /// The node.
    pub node: NodeId,
    /// Where clients reach it; empty if that is not known.
    pub address: String,
    /// The failure domain it stands in.
    pub zone: String,
    /// What it says, or why it says nothing.
    pub report: Result<NodeReport, String>,
}

/// What a node says of itself.
#[derive(Clone, Debug)]
pub struct NodeReport {
    /// Its software.
    pub version: String,
    /// Whether it takes traffic.
    pub ready: bool,
    /// How long it has been running.
    pub uptime: Duration,
    /// Bytes of its log.
    pub log_bytes: u64,
    /// Bytes free on its disk.
    pub disk_free_bytes: u64,
    /// Number of requests that it works on.
    pub requests_outstanding: u64,
    /// Blocks of the log that it has written and synced since it started; `None` if it does not tell.
    pub log_syncs: Option<u64>,
    /// Bytes of these blocks.
    pub log_written_bytes: Option<u64>,
    /// What its process has used since it started; `None` if it does not tell.
    pub process: Option<ProcessUsage>,
}

/// What a process has used since it started, all its threads together. Nodes that share a process tell the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessUsage {
    /// Its id, as its system numbers processes.
    pub process: u64,
    /// When it started, in its system's own units: with the id and the machine, what tells processes apart.
    pub started: u64,
    /// CPU, of its own code and in the kernel for it.
    pub cpu: Duration,
    /// How often a thread of it has waited, and so given its CPU away.
    pub voluntary_switches: u64,
    /// Bytes of memory that it holds now.
    pub resident_bytes: u64,
}

/// A shard and its replicas.
#[derive(Clone, Debug)]
pub struct ShardStatus {
    /// The shard.
    pub shard: ShardId,
    /// The node that is preferred as its leader.
    pub owner: Option<NodeId>,
    /// The node that leads it in the newest term that any replica names.
    pub leader: Option<NodeId>,
    /// That term.
    pub term: u64,
    /// The greatest commit index that any replica names.
    pub commit: u64,
    /// The replicas that the map names, the owner's first.
    pub replicas: Vec<ReplicaStatus>,
}

/// A replica of a shard.
#[derive(Clone, Debug)]
pub struct ReplicaStatus {
    /// The node that it stands on.
    pub node: NodeId,
    /// What it says; `None` if its node does not answer or does not know of it.
    pub report: Option<ReplicaReport>,
    /// What the shard's leader knows of it; `None` of the leader itself, or if none answers.
    pub followed: Option<Followed>,
}

/// What a leader knows of one of its followers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Followed {
    /// The last index that is known to be on the follower's disk.
    pub matched: u64,
    /// Whether it has answered within an election timeout.
    pub active: bool,
    /// Whether it is too far behind the log, and a snapshot is on its way to it.
    pub snapshot: bool,
}

/// What a replica says of itself.
#[derive(Clone, Debug)]
pub struct ReplicaReport {
    /// What it is in its group.
    pub role: Role,
    /// The last index that it has applied.
    pub applied: u64,
    /// How many entries it is behind the shard's commit index.
    pub lag: u64,
    /// The newest revision that it has.
    pub revision: Revision,
    /// Whether it has proved its state since it started.
    pub verified: bool,
    /// Why it is out of service; empty if it is not.
    pub trouble: String,
}

/// What a replica is in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// It leads.
    Leader,
    /// It follows and votes.
    Follower,
    /// It follows without a vote.
    Learner,
    /// It asks for votes.
    Candidate,
    /// It takes no part.
    Quarantined,
    /// It did not say.
    Unknown,
}

/// Asks every node of the map at once. If one of them has a newer map, that is fetched first: nodes tell a client of a change on
/// the streams that it has open to them, and who only asks for the status has none.
pub(crate) async fn ask_all(remote: &Remote) -> ClusterStatus {
    // Begun before the question, so that no change after it is missed.
    let changed = remote.routing.map_changed.notified();
    let (status, newest) = ask_known(remote).await;
    if newest <= status.map_version {
        return status;
    }
    remote.routing.map_wanted.notify_one();
    // Without the newer map the next look finds it; this one has what the nodes said.
    match timeout(remote.connect_timeout, changed).await {
        Ok(()) => ask_known(remote).await.0,
        Err(_) => status,
    }
}

/// Asks every node of the map that is known, and says which version of it is the newest that any of them has.
async fn ask_known(remote: &Remote) -> (ClusterStatus, MapVersion) {
    let routing = &remote.routing;
    let map = routing.router().map().cloned().unwrap_or_default();
    let asked = map.nodes.iter().map(|node| {
        let address = routing.address(node.node).unwrap_or_default();
        async move { (ask(&address, remote.connect_timeout).await, address) }
    });
    let answers = join_all(asked).await;
    let mut newest = map.version;
    let mut replicas: BTreeMap<(ShardId, NodeId), v1::ShardStatus> = BTreeMap::new();
    let mut nodes = Vec::with_capacity(map.nodes.len());
    for (node, (answer, address)) in map.nodes.iter().zip(answers) {
        let report = answer.map(|answer| {
            newest = newest.max(MapVersion(answer.map_version));
            let report = report(&answer);
            replicas.extend(answer.shards.into_iter().map(|shard| ((ShardId(shard.shard), node.node), shard)));
            report
        });
        nodes.push(NodeStatus { node: node.node, address, zone: node.zone.clone(), report });
    }
    let shards = map.shards.iter().map(|row| {
        let places: Vec<_> = row.replicas.iter().map(|place| place.node).collect();
        shard(row.shard, &places, &replicas)
    });
    let status =
        ClusterStatus { cluster: routing.cluster(), map_version: map.version, shards: shards.collect(), nodes };
    (status, newest)
}

fn shard(shard: ShardId, places: &[NodeId], replicas: &BTreeMap<(ShardId, NodeId), v1::ShardStatus>) -> ShardStatus {
    let said: Vec<_> = places.iter().map(|node| (*node, replicas.get(&(shard, *node)))).collect();
    let newest = said.iter().filter_map(|(_, said)| *said).max_by_key(|said| (said.term, said.leader));
    let commit = said.iter().filter_map(|(_, said)| *said).map(|said| said.commit).max().unwrap_or(0);
    let leading = said.iter().filter_map(|(_, said)| *said).filter(|said| said.role() == v1::ReplicaRole::Leader);
    let leading = leading.max_by_key(|said| said.term);
    ShardStatus {
        shard,
        owner: places.first().copied(),
        leader: newest.filter(|said| said.leader != 0).map(|said| NodeId(said.leader)),
        term: newest.map_or(0, |said| said.term),
        commit,
        replicas: said
            .into_iter()
            .map(|(node, said)| ReplicaStatus {
                node,
                report: said.map(|said| replica(said, commit)),
                followed: leading.and_then(|leading| followed(leading, node)),
            })
            .collect(),
    }
}

fn followed(leading: &v1::ShardStatus, node: NodeId) -> Option<Followed> {
    let follower = leading.followers.iter().find(|follower| follower.node == node.0)?;
    Some(Followed { matched: follower.matched, active: follower.active, snapshot: follower.snapshot })
}

fn replica(said: &v1::ShardStatus, commit: u64) -> ReplicaReport {
    let role = match said.role() {
        v1::ReplicaRole::Leader => Role::Leader,
        v1::ReplicaRole::Follower => Role::Follower,
        v1::ReplicaRole::Learner => Role::Learner,
        v1::ReplicaRole::Candidate => Role::Candidate,
        v1::ReplicaRole::Quarantined => Role::Quarantined,
        v1::ReplicaRole::Unspecified => Role::Unknown,
    };
    ReplicaReport {
        role,
        applied: said.applied,
        lag: commit.saturating_sub(said.applied),
        revision: Revision(said.revision),
        verified: said.verified,
        trouble: said.trouble.clone(),
    }
}

fn report(answer: &v1::StatusResponse) -> NodeReport {
    NodeReport {
        version: answer.version.clone(),
        ready: answer.ready,
        uptime: Duration::from_millis(answer.uptime_ms),
        log_bytes: answer.log_bytes,
        disk_free_bytes: answer.disk_free_bytes,
        requests_outstanding: answer.requests_outstanding,
        log_syncs: answer.usage.map(|usage| usage.log_syncs),
        log_written_bytes: answer.usage.map(|usage| usage.log_written_bytes),
        process: answer.usage.and_then(|usage| usage.process).map(|usage| ProcessUsage {
            process: usage.process,
            started: usage.started,
            cpu: Duration::from_micros(usage.cpu_micros),
            voluntary_switches: usage.voluntary_switches,
            resident_bytes: usage.resident_bytes,
        }),
    }
}

async fn ask(address: &str, connect_timeout: Duration) -> Result<v1::StatusResponse, String> {
    if address.is_empty() {
        return Err("it has not said where clients reach it".to_owned());
    }
    let question = async {
        let channel = channel(address, connect_timeout).await?;
        let mut client = ClusterClient::new(channel).max_decoding_message_size(RESPONSE_BYTES_MAX);
        let answer = client.status(StatusRequest {}).await;
        answer.map(tonic::Response::into_inner).map_err(|status| convert::status(&status).message().to_owned())
    };
    timeout(connect_timeout, question).await.unwrap_or_else(|_| Err(format!("no answer within {connect_timeout:?}")))
}
