//! The node that leads most shards is killed every few seconds, and started again.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use kv_client::ClusterStatus;
use kv_tests::processes::{Cluster, Layout};
use tokio::{task::LocalSet, time::sleep};

use super::{DEADLINE, describe};
use crate::{
    Ran,
    load::{Load, Shape},
};

/// How long a killed node stays away.
const AWAY: Duration = Duration::from_secs(3);

/// Kills for this long, once every `every`.
pub(crate) async fn run(layout: &Layout, shape: Shape, time: Duration, every: Duration) -> Ran {
    describe("kill", layout, shape);
    let mut cluster = Cluster::start(layout, &[]).await?;
    LocalSet::new().run_until(torture(&mut cluster, shape, time, every)).await
}

async fn torture(cluster: &mut Cluster<'_>, shape: Shape, time: Duration, every: Duration) -> Ran {
    let load = Load::new(cluster.client(DEADLINE).await?, shape, DEADLINE);
    let began = Instant::now();
    let tasks = load.start();
    let mut kills = 0;
    let mut next = every;
    while next < time {
        sleep(next.saturating_sub(began.elapsed())).await;
        // A second node is only taken away once the first is back: else nothing could be served, rightly.
        let status = cluster.wait_whole().await?;
        let (victim, leads) = who_leads_most(&status)?;
        let killed = Instant::now();
        let _before = load.counts.borrow_mut().take_longest_wait();
        cluster.kill(victim);
        kills += 1;
        println!(
            "{:>7.1} s  node {victim} killed, which led {leads} of {} shards",
            began.elapsed().as_secs_f64(),
            status.shards.len()
        );
        sleep(AWAY).await;
        let gap = load.counts.borrow_mut().take_longest_wait();
        cluster.spawn(victim)?;
        let restarted = Instant::now();
        cluster.wait_whole().await?;
        println!(
            "{:>7.1} s  longest wait of a call {:.3} s without it; started {:.1} s after the kill, all ready {:.1} s later, \
             longest wait {:.3} s meanwhile",
            began.elapsed().as_secs_f64(),
            gap.as_secs_f64(),
            (restarted - killed).as_secs_f64(),
            restarted.elapsed().as_secs_f64(),
            load.counts.borrow_mut().take_longest_wait().as_secs_f64()
        );
        next += every;
        if next < began.elapsed() {
            next = began.elapsed();
        }
    }
    sleep(time.saturating_sub(began.elapsed())).await;
    load.stop(tasks).await?;
    let took = began.elapsed();
    cluster.wait_whole().await?;
    // A client of its own: what the other has learnt must not matter.
    let keys = load.read_back(&cluster.client(DEADLINE).await?).await;
    println!("kills       {kills} in {:.0} s", took.as_secs_f64());
    load.print(took);
    println!("read back   {keys} keys");
    Ok(load.judge.borrow().verdict())
}

/// The node that leads most shards, and how many.
fn who_leads_most(status: &ClusterStatus) -> Result<(usize, usize), String> {
    let mut leads: BTreeMap<u64, usize> = BTreeMap::new();
    for leader in status.shards.iter().filter_map(|shard| shard.leader) {
        *leads.entry(leader.0).or_default() += 1;
    }
    let most = leads.into_iter().max_by_key(|(_, count)| *count);
    let (node, count) = most.ok_or("no shard has a leader")?;
    Ok((usize::try_from(node).map_err(|error| error.to_string())?, count))
}
