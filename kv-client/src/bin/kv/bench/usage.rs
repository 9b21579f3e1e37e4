//! What the servers and this process used while operations were measured: the difference of two readings.
//!
//! Each node tells what its process has used; nodes that share a process are counted once, together. A node that does not
//! answer, or has started anew between the readings, leaves the servers' account out altogether: half a sum would be wrong.

use std::{collections::BTreeMap, time::Duration};

use kv_client::{Client, ClusterStatus, NodeId, ProcessUsage};

use crate::exit::Exit;

/// What had been used at a moment.
#[derive(Debug)]
pub(super) struct Reading {
    client_cpu: Duration,
    pub(super) status: ClusterStatus,
}

impl Reading {
    /// Asks all nodes.
    ///
    /// # Errors
    /// If the client has no cluster.
    pub(super) async fn take(client: &Client) -> Result<Self, Exit> {
        let status = client.status().await?;
        Ok(Self { client_cpu: cpu_of_this_process(), status })
    }

    /// The processes of the cluster; `None` if one of the nodes does not tell.
    fn processes(&self) -> Option<Processes> {
        let mut processes = BTreeMap::new();
        for node in &self.status.nodes {
            let report = node.report.as_ref().ok()?;
            let process = report.process?;
            let machine = node.address.rsplit_once(':').map_or("", |(host, _)| host).to_owned();
            let entry = processes.entry((machine, process.process, process.started));
            let (_, nodes) = entry.or_insert_with(|| (process, Vec::new()));
            nodes.push(LogUsage {
                node: node.node,
                syncs: report.log_syncs?,
                written_bytes: report.log_written_bytes?,
            });
        }
        Some(processes)
    }
}

/// By machine, id and start: what a process had used, and the logs of its nodes.
type Processes = BTreeMap<(String, u64, u64), (ProcessUsage, Vec<LogUsage>)>;

/// What had been written to a node's log.
#[derive(Debug)]
struct LogUsage {
    node: NodeId,
    syncs: u64,
    written_bytes: u64,
}

fn cpu_of_this_process() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

/// What was used between two readings.
#[derive(Debug)]
pub(super) struct Usage {
    /// CPU of this process.
    pub(super) client_cpu: Duration,
    /// Each process of the cluster; `None` if not all of it is known.
    pub(super) processes: Option<Vec<ProcessDelta>>,
}

/// What a process used between two readings.
#[derive(Debug, PartialEq)]
pub(super) struct ProcessDelta {
    /// The nodes in it.
    pub(super) nodes: Vec<NodeId>,
    /// Blocks of their logs that were synced.
    pub(super) log_syncs: u64,
    /// Bytes of these blocks.
    pub(super) log_written_bytes: u64,
    pub(super) cpu: Duration,
    pub(super) voluntary_switches: u64,
    /// Not a difference: what it held at the end.
    pub(super) resident_bytes: u64,
}

impl Usage {
    /// What lay between them.
    pub(super) fn between(before: &Reading, after: &Reading) -> Self {
        Self { client_cpu: after.client_cpu.saturating_sub(before.client_cpu), processes: deltas(before, after) }
    }
}

fn deltas(before: &Reading, after: &Reading) -> Option<Vec<ProcessDelta>> {
    let (before, after) = (before.processes()?, after.processes()?);
    if !before.keys().eq(after.keys()) {
        return None;
    }
    let pairs = before.into_values().zip(after.into_values());
    pairs
        .map(|((was, logs_before), (is, logs_after))| {
            if !logs_before.iter().map(|log| log.node).eq(logs_after.iter().map(|log| log.node)) {
                return None;
            }
            let sum = |logs: &[LogUsage], field: fn(&LogUsage) -> u64| logs.iter().map(field).sum::<u64>();
            let more = |field| sum(&logs_after, field).checked_sub(sum(&logs_before, field));
            Some(ProcessDelta {
                nodes: logs_after.iter().map(|log| log.node).collect(),
                log_syncs: more(|log| log.syncs)?,
                log_written_bytes: more(|log| log.written_bytes)?,
                cpu: is.cpu.checked_sub(was.cpu)?,
                // Threads that have ended take their count with them.
                voluntary_switches: is.voluntary_switches.saturating_sub(was.voluntary_switches),
                resident_bytes: is.resident_bytes,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_client::{ClusterId, MapVersion, NodeReport, NodeStatus};

    fn node(id: u64, started: u64, used: u64) -> NodeStatus {
        let process = ProcessUsage {
            process: 7,
            started,
            cpu: Duration::from_millis(used),
            voluntary_switches: used,
            resident_bytes: 1_000,
        };
        let report = NodeReport {
            version: String::new(),
            ready: true,
            uptime: Duration::ZERO,
            log_bytes: 0,
            disk_free_bytes: 0,
            requests_outstanding: 0,
            log_syncs: Some(id * used),
            log_written_bytes: Some(used * 512),
            process: Some(process),
        };
        NodeStatus { node: NodeId(id), address: format!("host:{id}"), zone: String::new(), report: Ok(report) }
    }

    fn reading(nodes: Vec<NodeStatus>) -> Reading {
        let status = ClusterStatus { cluster: ClusterId(1), map_version: MapVersion(1), nodes, shards: Vec::new() };
        Reading { client_cpu: Duration::ZERO, status }
    }

    #[test]
    fn nodes_of_one_process_are_counted_once() {
        let before = reading(vec![node(1, 5, 10), node(2, 5, 10), node(3, 6, 10)]);
        let after = reading(vec![node(1, 5, 30), node(2, 5, 30), node(3, 6, 15)]);
        let usage = Usage::between(&before, &after).processes.unwrap();
        assert_eq!(usage.len(), 2);
        assert_eq!((&usage[0].nodes[..], usage[0].log_syncs), (&[NodeId(1), NodeId(2)][..], 20 + 40));
        assert_eq!(usage[0].log_written_bytes, 2 * 20 * 512);
        assert_eq!((usage[0].cpu, usage[1].cpu), (Duration::from_millis(20), Duration::from_millis(5)));
        assert_eq!((&usage[1].nodes[..], usage[1].log_syncs), (&[NodeId(3)][..], 15));
    }

    #[test]
    fn half_an_account_is_none() {
        let before = reading(vec![node(1, 5, 10), node(2, 6, 10)]);
        let mut silent = node(2, 6, 20);
        silent.report = Err("no answer".to_owned());
        for after in [vec![node(1, 5, 20), node(2, 7, 1)], vec![node(1, 5, 20), silent], vec![node(1, 5, 20)]] {
            assert!(Usage::between(&before, &reading(after)).processes.is_none());
        }
    }
}
