//! Running commands against the cluster, through the ordinary client.

use std::time::Instant;

use kv_client::{Client, Error, ErrorKind, Outcome};
use kv_server::{Failure, Trouble, testing::TestCluster};

use super::command::{Command, HELP};

/// The cluster with a client of it.
pub(super) struct Session {
    pub(super) cluster: TestCluster,
    client: Client,
}

/// The statuses of commands, as those of `kv`.
mod status {
    pub(super) const FAILURE: u8 = 1;
    pub(super) const USAGE: u8 = 2;
    pub(super) const NOT_FOUND: u8 = 3;
    pub(super) const CONFLICT: u8 = 4;
    pub(super) const UNAVAILABLE: u8 = 5;
    pub(super) const TIMEOUT: u8 = 6;
    pub(super) const UNKNOWN: u8 = 8;
}

impl Session {
    /// Connects to a cluster that takes traffic.
    pub(super) async fn begin(cluster: TestCluster) -> Result<Self, Failure> {
        let client = cluster.client().await.map_err(|error| Failure::new(Trouble::Internal, error.to_string()))?;
        Ok(Self { cluster, client })
    }

    /// Runs a command and tells its status: 0 if it did what it was asked.
    pub(super) async fn run(&mut self, command: Command) -> u8 {
        let began = Instant::now();
        let done = |what: String| {
            println!("{what}  {:.1} ms", began.elapsed().as_secs_f64() * 1_000.0);
            Ok(0)
        };
        let result = match command {
            Command::Put(key, value) => match self.client.put(key, value).await {
                Ok(receipt) => done(format!("OK revision {}", receipt.revision.unwrap_or_default())),
                Err(error) => Err(error),
            },
            Command::Delete(key) => match self.client.delete(key).await {
                Ok(receipt) => match receipt.revision.unwrap_or_default().0 {
                    0 => done("OK it was absent".to_owned()),
                    revision => done(format!("OK revision {revision}")),
                },
                Err(error) => Err(error),
            },
            Command::Get(key) => match self.client.get(key).await {
                Ok(Some(entry)) => {
                    println!("{}", String::from_utf8_lossy(&entry.value));
                    Ok(0)
                }
                Ok(None) => {
                    println!("(absent)");
                    Ok(status::NOT_FOUND)
                }
                Err(error) => Err(error),
            },
            Command::Status => self.show_status().await,
            Command::Kill(node) => return told(self.cluster.kill(node), &format!("node {node} is killed")),
            Command::Restart(node) => return told(self.cluster.restart(node), &format!("node {node} starts")),
            Command::Partition(one, other) => {
                let what = format!("nodes {one:?} and {other:?} can't reach each other; \\heal restores the links");
                return told(self.cluster.partition(&one, &other), &what);
            }
            Command::Heal => {
                self.cluster.heal();
                println!("all links are restored");
                Ok(0)
            }
            Command::Help | Command::Quit => {
                println!("{HELP}");
                Ok(0)
            }
        };
        result.unwrap_or_else(|error| {
            eprintln!("{error}");
            exit_status(&error)
        })
    }

    async fn show_status(&self) -> Result<u8, Error> {
        let cluster = self.client.status().await?;
        println!("cluster {}  map version {}", cluster.cluster, cluster.map_version);
        for node in &cluster.nodes {
            let leads = cluster.shards.iter().filter(|shard| shard.leader == Some(node.node)).count();
            let state = match &node.report {
                Ok(report) if report.ready => "ready".to_owned(),
                Ok(_) => "not ready".to_owned(),
                Err(reason) => format!("no answer: {reason}"),
            };
            println!("  node {}  {}  leads {leads}  {state}", node.node, node.address);
        }
        for shard in &cluster.shards {
            let nodes: Vec<_> = shard.replicas.iter().map(|replica| replica.node.to_string()).collect();
            let leader = shard.leader.map_or("none".to_owned(), |node| format!("node {node}"));
            let (id, term, commit) = (shard.shard, shard.term, shard.commit);
            println!("  shard {id}  leader {leader}  term {term}  commit {commit}  on nodes {}", nodes.join(","));
        }
        Ok(0)
    }
}

fn told(done: Result<(), Failure>, what: &str) -> u8 {
    match done {
        Ok(()) => {
            println!("{what}");
            0
        }
        Err(failure) => {
            eprintln!("{failure}");
            status::FAILURE
        }
    }
}

fn exit_status(error: &Error) -> u8 {
    match error.kind() {
        _ if error.outcome() == Outcome::Unknown => status::UNKNOWN,
        ErrorKind::Invalid => status::USAGE,
        ErrorKind::Conflict => status::CONFLICT,
        ErrorKind::Timeout => status::TIMEOUT,
        ErrorKind::Unavailable | ErrorKind::Overloaded | ErrorKind::DiskFull => status::UNAVAILABLE,
        _ => status::FAILURE,
    }
}
