//! A crash at each step of an install, on the node that receives and on the node that sends: whatever the disk kept, the node
//! starts again, nobody leaves the group, and all come to hold the same state.
//!
//! *Left out*: torn writes and subsets of what was not synced. A crash here keeps all of it or nothing; the tests of log and
//! checkpoints and the simulator draw what lies between.

use kv_core::{settings::Settings, types::NodeId};
use kv_tests::script::{cluster::Cluster, commands::command_of};

const SENDER: NodeId = NodeId(1);
const RECEIVER: NodeId = NodeId(3);

/// Ticks in which an install without a crash is done.
const INSTALL_TICKS: u64 = 14;
/// Ticks in which everything is well again: a stream given up, an election, an install.
const RECOVERY_TICKS: u64 = 130;

fn run(cluster: &mut Cluster, command: &str) {
    command_of(cluster, &command.split_whitespace().collect::<Vec<_>>()).expect("it is a command");
    cluster.settle();
}

/// A cluster whose third node is so far behind that it needs a snapshot.
fn one_is_behind() -> Cluster {
    let settings = Settings { kept_bytes_max: 4_000, stream_ticks_max: 40, ..Settings::default() };
    let mut cluster = Cluster::new(3, 1, &settings);
    for node in cluster.nodes() {
        cluster.start(node).expect("an empty disk is no reason to refuse");
    }
    cluster.settle();
    for command in ["crash 3", "fill 1 8 900", "restart 3"] {
        run(&mut cluster, command);
    }
    cluster
}

fn saw(cluster: &Cluster, what: &str) -> bool {
    cluster.trace.iter().any(|line| line.contains(what))
}

/// Lets an install begin, and the power of a node go after so many steps of its disk; false if it was done before.
fn crash_after(node: NodeId, steps: u64, keeps_all: bool) -> bool {
    let mut cluster = one_is_behind();
    cluster.host(node).disk.power_off_after(steps);
    let nodes = cluster.nodes();
    for _ in 0..INSTALL_TICKS {
        cluster.tick(&nodes);
    }
    // Without power a process that only reads serves nothing and does not notice.
    let has_crashed = cluster.host(node).process.is_none() || cluster.host(node).disk.is_off();
    if has_crashed {
        if keeps_all {
            cluster.host(node).disk.crash_keeping(|| true, |_, _| true);
        }
        cluster.crash(node);
        let started = cluster.start(node);
        assert_eq!(started, Ok(()), "after {steps} steps of node {node}, all kept: {keeps_all}");
    } else {
        assert!(saw(&cluster, "n3 syncs install"), "what is crashed is an install");
        cluster.host(node).disk.kill();
    }
    cluster.settle();
    for _ in 0..RECOVERY_TICKS {
        cluster.tick(&nodes);
    }
    let states: Vec<_> = nodes.iter().map(|node| cluster.state(*node)).collect();
    let trace = || cluster.trace[cluster.trace.len().saturating_sub(40)..].join("\n");
    assert!(
        states[0].is_some() && states.iter().all(|state| *state == states[0]),
        "after {steps} steps of node {node}, all kept: {keeps_all}: {states:?}\n{}",
        trace()
    );
    assert!(!saw(&cluster, "out of service"), "after {steps} steps of node {node}\n{}", trace());
    has_crashed
}

fn crash_at_each_step(node: NodeId, steps_min: u64) {
    for keeps_all in [false, true] {
        let steps = (0..500).take_while(|steps| crash_after(node, *steps, keeps_all)).count() as u64;
        assert!((steps_min..500).contains(&steps), "{steps} steps were crashed at: is it an install?");
    }
}

#[test]
fn a_crash_at_each_step_of_an_install_on_the_receiver() {
    crash_at_each_step(RECEIVER, 15);
}

#[test]
fn a_crash_at_each_step_of_an_install_on_the_sender() {
    crash_at_each_step(SENDER, 1);
}
