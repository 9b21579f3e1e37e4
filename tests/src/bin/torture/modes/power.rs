//! All nodes are killed at once under load, and started again.

use std::time::{Duration, Instant};

use kv_tests::processes::{Cluster, Layout, NODES};
use tokio::{task::LocalSet, time::sleep};

use super::{DEADLINE, describe};
use crate::{
    Ran,
    load::{Load, Shape},
};

/// The shortest time of load before a kill; up to twice as long, so that it meets checkpoints at different places.
const LOAD_MIN: Duration = Duration::from_secs(2);
/// Checkpoints come every second, so that kills meet them.
const FLAGS: [&str; 2] = ["--checkpoint-ticks", "20"];

/// Kills all at once, this often.
pub(crate) async fn run(layout: &Layout, shape: Shape, rounds: u32) -> Ran {
    describe("power", layout, shape);
    let mut cluster = Cluster::start(layout, &FLAGS).await?;
    LocalSet::new().run_until(torture(&mut cluster, shape, rounds)).await
}

async fn torture(cluster: &mut Cluster<'_>, shape: Shape, rounds: u32) -> Ran {
    let load = Load::new(cluster.client(DEADLINE).await?, shape, DEADLINE);
    let mut random = fastrand::Rng::with_seed(shape.seed);
    let began = Instant::now();
    // The same tasks go on through all rounds: their calls wait for the cluster to come back.
    let tasks = load.start();
    for round in 1..=rounds {
        sleep(LOAD_MIN.mul_f64(1.0 + random.f64())).await;
        cluster.check_running()?;
        cluster.kill_all();
        let acknowledged = load.counts.borrow().acknowledged;
        let restarted = Instant::now();
        for node in 1..=NODES {
            cluster.spawn(node)?;
        }
        cluster.wait_whole().await?;
        let whole = restarted.elapsed();
        let keys = load.read_back(&cluster.client(DEADLINE).await?).await;
        println!(
            "round {round:>2}    all killed after {acknowledged} acknowledged writes; whole {:.2} s after the restart; {keys} \
             keys read back",
            whole.as_secs_f64()
        );
    }
    load.stop(tasks).await?;
    load.read_back(&cluster.client(DEADLINE).await?).await;
    load.print(began.elapsed());
    Ok(load.judge.borrow().verdict())
}
