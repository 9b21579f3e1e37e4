//! `status`: nodes, shards, leaders, terms and lag.

use std::time::{Duration, Instant};

use kv_client::{ClusterStatus, NodeStatus, ReplicaStatus, Role};
use serde_json::{Value, json};

use crate::{
    args::{Common, Format, Status},
    builder,
    exit::Exit,
    output::{Output, table},
};

/// Between two looks, with `--wait`.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Shows the cluster; with `--wait` not before it is whole, or the time is up.
pub(crate) async fn run(common: &Common, wanted: Status, output: &Output) -> Result<(), Exit> {
    let began = Instant::now();
    let wait = wanted.wait.unwrap_or_default();
    let client = builder(common)?.deadline(wait.max(common.timeout)).connect().await?;
    let status = loop {
        let status = client.status().await?;
        if status.is_whole() || began.elapsed() + LOOK_EVERY > wait {
            break status;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    match output.format {
        Format::Json => output.line(as_json(&status))?,
        Format::Table | Format::Raw => output.line(as_table(&status))?,
    }
    let leaderless: Vec<_> =
        status.shards.iter().filter(|shard| shard.leader.is_none()).map(|shard| shard.shard.to_string()).collect();
    if !leaderless.is_empty() {
        let message = format!("no leader: shard {}; a majority of its replicas must run", leaderless.join(", "));
        return Err(Exit::NotReady { message, waited: wanted.wait.is_some() });
    }
    if wanted.wait.is_some() && !status.is_whole() {
        let message = format!("not every node was ready after {}", humantime::format_duration(wait));
        return Err(Exit::NotReady { message, waited: true });
    }
    Ok(())
}

fn as_table(status: &ClusterStatus) -> String {
    let nodes = status.nodes.iter().map(|node| node_row(status, node)).collect();
    let shards = status.shards.iter().map(|shard| {
        let name = if shard.shard.0 == 0 { "0 (meta)".to_owned() } else { shard.shard.to_string() };
        let node = |node: Option<kv_client::NodeId>| node.map_or_else(|| "-".to_owned(), |node| node.to_string());
        let replicas: Vec<_> = shard.replicas.iter().map(replica_text).collect();
        [
            name,
            node(shard.owner),
            node(shard.leader),
            shard.term.to_string(),
            shard.commit.to_string(),
            replicas.join("  "),
        ]
    });
    format!(
        "cluster {}  map {}\n\n{}\n\n{}",
        status.cluster,
        status.map_version,
        table(["NODE", "ADDRESS", "ZONE", "STATE", "LEADS", "UPTIME", "LOG", "DISK FREE", "VERSION"], nodes),
        table(["SHARD", "OWNER", "LEADER", "TERM", "COMMIT", "REPLICAS (node: entries behind)"], shards.collect()),
    )
}

fn node_row(status: &ClusterStatus, node: &NodeStatus) -> [String; 9] {
    let leads = status.shards.iter().filter(|shard| shard.leader == Some(node.node)).count();
    let (id, address, zone) = (node.node.to_string(), node.address.clone(), node.zone.clone());
    match &node.report {
        Err(reason) => [id, address, zone, reason.clone(), leads.to_string(), s("-"), s("-"), s("-"), s("-")],
        Ok(report) => {
            let state = if report.ready { "ready" } else { "not ready" };
            let uptime = humantime::format_duration(Duration::from_secs(report.uptime.as_secs())).to_string();
            let (log, free) = (bytes(report.log_bytes), bytes(report.disk_free_bytes));
            [id, address, zone, s(state), leads.to_string(), uptime, log, free, report.version.clone()]
        }
    }
}

fn s(text: &str) -> String {
    text.to_owned()
}

fn replica_text(replica: &ReplicaStatus) -> String {
    let node = replica.node;
    let mut notes = Vec::new();
    let behind = match &replica.report {
        None => "?".to_owned(),
        Some(report) if !report.trouble.is_empty() => report.trouble.clone(),
        Some(report) => {
            notes.extend((!report.verified).then_some("loading"));
            report.lag.to_string()
        }
    };
    if let Some(followed) = &replica.followed {
        notes.extend((!followed.active).then_some("silent"));
        notes.extend(followed.snapshot.then_some("snapshot"));
    }
    match notes.is_empty() {
        true => format!("{node}: {behind}"),
        false => format!("{node}: {behind} ({})", notes.join(", ")),
    }
}

/// Bytes in the greatest unit of which there is one.
fn bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let index = (0..units.len()).rev().find(|index| bytes >> (10 * index) > 0).unwrap_or(0);
    format!("{} {}", bytes >> (10 * index), units[index])
}

fn as_json(status: &ClusterStatus) -> Value {
    let nodes: Vec<_> = status.nodes.iter().map(node_json).collect();
    let shards: Vec<_> = status
        .shards
        .iter()
        .map(|shard| {
            json!({
                "shard": shard.shard.0,
                "owner": shard.owner.map(|node| node.0),
                "leader": shard.leader.map(|node| node.0),
                "term": shard.term,
                "commit": shard.commit,
                "replicas": shard.replicas.iter().map(replica_json).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({
        "cluster": status.cluster.to_string(),
        "map_version": status.map_version.0,
        "whole": status.is_whole(),
        "nodes": nodes,
        "shards": shards,
    })
}

fn node_json(node: &NodeStatus) -> Value {
    let mut object = json!({ "node": node.node.0, "address": node.address, "zone": node.zone });
    match &node.report {
        Err(reason) => object["error"] = json!(reason),
        Ok(report) => {
            object["version"] = json!(report.version);
            object["ready"] = json!(report.ready);
            object["uptime_seconds"] = json!(report.uptime.as_secs());
            object["log_bytes"] = json!(report.log_bytes);
            object["disk_free_bytes"] = json!(report.disk_free_bytes);
            object["requests_outstanding"] = json!(report.requests_outstanding);
            object["log_syncs"] = json!(report.log_syncs);
            object["log_written_bytes"] = json!(report.log_written_bytes);
            if let Some(process) = &report.process {
                object["process"] = json!({
                    "id": process.process,
                    "cpu_seconds": process.cpu.as_secs_f64(),
                    "resident_bytes": process.resident_bytes,
                    "voluntary_switches": process.voluntary_switches,
                });
            }
        }
    }
    object
}

fn replica_json(replica: &ReplicaStatus) -> Value {
    let mut object = json!({ "node": replica.node.0 });
    if let Some(report) = &replica.report {
        let role = match report.role {
            Role::Leader => "leader",
            Role::Follower => "follower",
            Role::Learner => "learner",
            Role::Candidate => "candidate",
            Role::Quarantined => "quarantined",
            _ => "unknown",
        };
        object["role"] = json!(role);
        object["applied"] = json!(report.applied);
        object["lag"] = json!(report.lag);
        object["revision"] = json!(report.revision.0);
        object["verified"] = json!(report.verified);
        if !report.trouble.is_empty() {
            object["trouble"] = json!(report.trouble);
        }
    }
    if let Some(followed) = &replica.followed {
        object["matched"] = json!(followed.matched);
        object["active"] = json!(followed.active);
        object["snapshot"] = json!(followed.snapshot);
    }
    object
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn bytes_are_shown_in_the_greatest_unit() {
        assert_eq!([bytes(0), bytes(1_023), bytes(1_024), bytes(5 << 30)], ["0 B", "1023 B", "1 KiB", "5 GiB"]);
    }
}
