//! What clients are told while a cluster is tormented can be explained, and afterwards it is whole.

use std::{fs::File, io::BufReader, time::Duration};

use kv_client::Client;
use kv_server::testing::{Nemesis, TestCluster};
use kv_tests::{
    history::{
        recorder::Recorder,
        run::{About, Run},
    },
    verdict::{self, Verdict, text},
    workloads::{Load, Shape, Workload},
};

use crate::support::{client_of, cluster, whole};

/// Shorter faults than an election, and longer ones. Nothing waits for them to be noticed.
const LASTS_MAX: Duration = Duration::from_millis(900);
const DEADLINE: Duration = Duration::from_secs(2);

/// The cluster is whole when it is left, and every answer was right.
async fn survives(mut cluster: TestCluster, kinds: &[Nemesis], seed: u64) {
    let directory = tempfile::tempdir().unwrap();
    let recorder = Recorder::start(&directory.path().join("run.jsonl"), &About::default()).unwrap();
    let client: Client = client_of(&cluster, DEADLINE).await;
    let shape = Shape {
        workloads: Workload::ALL.to_vec(),
        tasks: 6,
        keys: 4,
        pause: Duration::from_millis(5),
        deadline: DEADLINE,
        key_secs: 60,
        seed,
    };
    let mut load = Load::start(std::slice::from_ref(&client), &recorder, &shape);
    for (kind, seed) in kinds.iter().zip(seed..) {
        let made = cluster.torment(&[*kind], seed, 1, LASTS_MAX).await.unwrap();
        assert_eq!((made.len(), made[0].nemesis), (1, *kind));
        assert!(!made[0].nodes.is_empty());
    }
    assert!(cluster.nodes().all(|node| cluster.server(node).is_some()), "a node was left dead");
    load.stop().await.unwrap();
    whole(&cluster, &client).await;
    let (keys, unread) = load.final_reads(client).await;
    assert_eq!((keys > 0, unread), (true, vec![]));
    let run = Run::read(BufReader::new(File::open(recorder.finish().unwrap()).unwrap())).unwrap();
    let judged = verdict::judge(&run);
    assert_eq!(judged.verdict(), Verdict::Ok, "{}", text::report(&run, &judged));
}

#[tokio::test]
async fn every_kind_of_fault() {
    survives(cluster(3).await, &Nemesis::ALL, 1).await;
}
