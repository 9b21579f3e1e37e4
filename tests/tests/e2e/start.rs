//! Starts that must be refused, each with a sentence that says what to do; and data that survives what it must.

use std::{fs, net::TcpListener};

use kv_core::types::NodeId;
use kv_server::{Config, Ending, Server, Trouble, testing::TestCluster};
use tokio::time::timeout;

use crate::support::{PATIENCE, client, cluster, keys, whole};

#[tokio::test]
async fn a_wiped_directory_is_refused_under_its_old_id() {
    let mut cluster = cluster(3).await;
    let client = client(&cluster).await;
    client.put("hello", "world").await.unwrap();
    cluster.kill(3).unwrap();
    fs::remove_dir_all(cluster.data(3)).unwrap();
    cluster.restart(3).unwrap();
    let ending = timeout(PATIENCE, cluster.server(3).unwrap().ended()).await.unwrap();
    let Ending::Failed(failure) = ending else { panic!("it ended by {ending:?}") };
    assert_eq!(failure.trouble, Trouble::DataDirectory);
    assert!(failure.message.contains("wiped"), "{failure}");
    assert_eq!(client.get("hello").await.unwrap().unwrap().value, "world");
    client.put("hello", "again").await.unwrap();
}

#[tokio::test]
async fn a_read_index_that_is_gone_is_rebuilt() {
    let often = |config: &mut Config| config.settings.checkpoint_ticks = 4;
    let mut cluster = TestCluster::start_with(3, None, often).await.unwrap();
    let client = client(&cluster).await;
    for key in keys(60) {
        client.put(&key, key.clone()).await.unwrap();
    }
    crate::support::until("there is a checkpoint", || async {
        let files = fs::read_dir(cluster.data(2).join("checkpoints")).map_or(0, |entries| entries.count());
        (files > 0).then_some(())
    })
    .await;
    cluster.kill(2).unwrap();
    fs::remove_dir_all(cluster.data(2).join("index")).unwrap();
    cluster.restart(2).unwrap();
    whole(&cluster, &client).await;
    // Without another node the one that was damaged is needed for everything.
    cluster.kill(1).unwrap();
    for (key, entry) in keys(60).zip(client.get_many(keys(60)).await) {
        assert_eq!(entry.unwrap().unwrap().value, key);
    }
}

#[tokio::test]
async fn a_log_that_is_damaged_or_gone_is_refused_and_nothing_changed() {
    let mut cluster = cluster(3).await;
    let client = client(&cluster).await;
    for key in keys(60) {
        client.put(&key, key.clone()).await.unwrap();
    }
    cluster.kill(3).unwrap();
    let log = cluster.data(3).join("log");
    let largest = fs::read_dir(&log)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .max_by_key(|path| fs::read(path).unwrap().iter().filter(|byte| **byte != 0).count());
    let segment = largest.unwrap();
    let whole_log = fs::read(&segment).unwrap();
    // Not in a sector's stamp: one that has rotted where all else is right is no damage.
    let used: Vec<_> = (0..whole_log.len()).filter(|at| whole_log[*at] != 0 && at % 512 >= 64).collect();
    let mut damaged = whole_log.clone();
    damaged[used[used.len() / 2]] ^= 0x10;
    fs::write(&segment, &damaged).unwrap();
    for _ in 0..2 {
        let failure = cluster.restart(3).unwrap_err();
        assert_eq!((failure.trouble, failure.trouble.exit_code()), (Trouble::Damaged, 4), "{failure}");
        assert!(failure.message.contains(log.to_str().unwrap()), "{failure}");
        assert_eq!(fs::read(&segment).unwrap(), damaged);
    }
    client.put("the others", "go on").await.unwrap();
    let aside = cluster.data(3).join("log-aside");
    fs::rename(&log, &aside).unwrap();
    let failure = cluster.restart(3).unwrap_err();
    assert_eq!(failure.trouble, Trouble::Damaged, "{failure}");
    fs::rename(&aside, &log).unwrap();
    fs::write(&segment, &whole_log).unwrap();
    cluster.restart(3).unwrap();
    whole(&cluster, &client).await;
}

#[tokio::test]
async fn another_nodes_directory_one_in_use_and_addresses_that_can_not_be_had() {
    let cluster = cluster(1).await;
    let members =
        || [(NodeId(1), "127.0.0.1:0".to_owned()), (NodeId(2), "127.0.0.1:0".to_owned())].into_iter().collect();
    let failure = |config: Config| Server::start(config).expect_err("the start is refused");

    let refused = failure(Config::new(NodeId(1), members(), cluster.data(1)));
    assert_eq!(refused.trouble, Trouble::DataDirectory);
    assert!(refused.message.contains("another process uses"), "{refused}");

    let directory = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = Config {
        client_listen: taken.local_addr().unwrap().to_string(),
        ..Config::new(NodeId(1), members(), directory.path())
    };
    let refused = failure(config);
    assert_eq!((refused.trouble, refused.trouble.exit_code()), (Trouble::Address, 5));
    assert!(refused.message.contains("stop the process that uses it"), "{refused}");

    let config =
        Config { client_listen: "0.0.0.0:0".to_owned(), ..Config::new(NodeId(1), members(), directory.path()) };
    let refused = failure(config);
    assert_eq!(refused.trouble, Trouble::Configuration);
    assert!(refused.message.contains("--insecure"), "{refused}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "nothing was touched");

    let data = cluster.directory().to_owned();
    cluster.server(1).unwrap().kill();
    let refused = failure(Config::new(NodeId(2), members(), data.join("1")));
    assert_eq!(refused.trouble, Trouble::DataDirectory);
    assert!(refused.message.contains("node 1"), "{refused}");
}

#[tokio::test]
async fn a_format_from_the_future_is_refused() {
    let mut cluster = cluster(1).await;
    cluster.kill(1).unwrap();
    let identity = cluster.data(1).join("identity");
    let mut bytes = fs::read(&identity).unwrap();
    // Eight bytes of magic, then the format.
    bytes[8] = 99;
    fs::write(&identity, bytes).unwrap();
    let failure = cluster.restart(1).unwrap_err();
    assert_eq!(failure.trouble, Trouble::DataDirectory, "{failure}");
    assert!(failure.message.contains("99"), "{failure}");
}
