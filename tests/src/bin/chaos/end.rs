//! The end of a run: all faults are undone, the cluster has to become whole, take writes and hold what was acknowledged; then the
//! history is judged.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::BufReader,
    path::Path,
    time::Duration,
};

use futures_util::future::join_all;
use kv_client::ClientBuilder;
use kv_core::types::ShardId;
use kv_tests::{
    history::{Answer, Name, Operation, index::Index, run::Run},
    report,
    verdict::{self, Status},
    workloads::Workload,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    watch,
    world::{World, shard_of},
};

/// So long after all faults are undone the cluster must be whole.
const WHOLE_WAIT: Duration = Duration::from_secs(60);
/// Then each shard must take a write so soon.
const WRITE_WAIT: Duration = Duration::from_secs(5);
/// Longest wait for a node's metrics.
const METRICS_WAIT: Duration = Duration::from_secs(2);
/// More lines of nodes' logs than these are only counted.
const LINES_SHOWN_MAX: usize = 5;

/// Brings the cluster back, looks whether it serves, reads everything and keeps what the nodes say.
pub(crate) async fn heal(world: &World, builder: ClientBuilder) -> Result<(), String> {
    watch::look_for_the_dead(world);
    for node in world.nodes() {
        let is_down = world.cluster.borrow().process(node).is_none() && !world.out.borrow().contains(&node);
        if is_down {
            world.cluster.borrow_mut().spawn(node)?;
        }
    }
    if let Err(lacks) = world.wait_whole(WHOLE_WAIT).await {
        world.violated(format!("not whole {} s after all faults were undone: {lacks}", WHOLE_WAIT.as_secs()));
    }
    let shards = world.cluster.borrow().setup().shards;
    let shards: Vec<_> = (1..=u64::from(shards)).map(ShardId).collect();
    let probes = join_all(shards.iter().map(|shard| world.probe(*shard))).await;
    for (shard, took) in shards.iter().zip(probes) {
        match took {
            Some(took) if took <= WRITE_WAIT => {}
            Some(took) => world.violated(format!("a write to shard {shard} took {took:?} after all was whole")),
            None => world.violated(format!("shard {shard} took no write after all was whole")),
        }
    }
    let load = world.load.borrow_mut().take();
    if let Some(mut load) = load {
        load.stop().await?;
        // A client of its own: what the others have learnt must not matter.
        let client = builder.connect().await.unwrap_or_else(|error| {
            world.violated(format!("no client could connect in the end: {error}"));
            world.client.clone()
        });
        let (keys, unread) = load.final_reads(client).await;
        if !unread.is_empty() {
            world.violated(format!(
                "{} of {keys} keys could not be read in the end, first {}",
                unread.len(),
                unread[0]
            ));
        }
    }
    keep_metrics(world).await;
    look_for_panics(world);
    Ok(())
}

async fn keep_metrics(world: &World) {
    for node in world.nodes() {
        let (address, directory) = {
            let cluster = world.cluster.borrow();
            (cluster.http_address(node), cluster.setup().directory.clone())
        };
        let asked = async {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: kv\r\nConnection: close\r\n\r\n").await?;
            let mut text = Vec::new();
            stream.read_to_end(&mut text).await?;
            fs::write(directory.join(format!("node-{node}.metrics")), text)
        };
        // A node that stays out has none.
        let _kept = timeout(METRICS_WAIT, asked).await;
    }
}

/// A panic that was caught took a replica out of service or stopped the node: either is a bug.
fn look_for_panics(world: &World) {
    for node in world.nodes() {
        let text = fs::read(world.cluster.borrow().log_file(node)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> =
            text.lines().filter(|line| line.contains("panicked") || line.contains("quarantined")).collect();
        if !lines.is_empty() {
            let shown = lines[..lines.len().min(LINES_SHOWN_MAX)].join("\n");
            world.violated(format!("node {node} logged {} lines of panics: {shown}", lines.len()));
        }
    }
}

/// What the history comes to.
pub(crate) struct Judged {
    pub(crate) operations: usize,
    /// Answers by what they were.
    pub(crate) answers: BTreeMap<String, u64>,
    pub(crate) violations: Vec<String>,
    /// Workloads of which nothing was done.
    pub(crate) silent: Vec<Workload>,
}

/// Judges the history of a run, and draws its page beside it.
pub(crate) fn judge(path: &Path, shards: u32, workloads: &[Workload]) -> Result<Judged, String> {
    let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let run = Run::read(BufReader::new(file)).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut answers: BTreeMap<String, u64> = BTreeMap::new();
    for operation in run.history.operations() {
        let name = match operation.answer() {
            None => "never".to_owned(),
            Some(Answer::Read { .. }) => "read".to_owned(),
            Some(Answer::Written { .. }) => "written".to_owned(),
            Some(Answer::Accepted { .. }) => "accepted".to_owned(),
            Some(Answer::Durability(durability)) => format!("{durability:?}").to_lowercase(),
            Some(Answer::Failed { kind, outcome, .. }) => format!("{kind:?}/{outcome:?}"),
        };
        *answers.entry(name).or_default() += 1;
    }
    if run.final_reads_from().is_none() {
        return Err("the run has no final reads".to_owned());
    }
    let silent = workloads.iter().filter(|workload| !is_heard(**workload, run.history.operations())).copied().collect();
    // Which shard a key belongs to is known here, so that it is judged beside the others.
    let index = Index::with_shards(&run.history, |key| shard_of(key.as_str(), shards));
    let judged = verdict::judge_by(&run, &index);
    let mut violations: Vec<_> =
        judged.violations().map(|(promise, violated)| format!("{}: {}", promise.words(), violated.why)).collect();
    // What can't be decided has not passed.
    violations.extend(judged.findings.iter().filter_map(|finding| match &finding.status {
        Status::Undecided(why) => Some(format!("undecided: {}: {why}", finding.promise.words())),
        _ => None,
    }));
    let page = path.with_extension("html");
    let command = format!("check {}", path.display());
    fs::write(&page, report::html(&run, &judged, &command)).map_err(|error| format!("{}: {error}", page.display()))?;
    Ok(Judged { operations: run.history.operations().len(), answers, violations, silent })
}

/// Whether any write of a workload was acknowledged.
fn is_heard(workload: Workload, operations: &[Operation]) -> bool {
    let is_own = |key: &Name| key.as_str().split('/').next() == Some(workload.name());
    operations.iter().any(|operation| {
        operation.call.key().is_some_and(is_own)
            && matches!(operation.answer(), Some(Answer::Written { .. } | Answer::Accepted { .. }))
    })
}
