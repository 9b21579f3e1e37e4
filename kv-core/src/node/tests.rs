//! What a cluster does when nothing goes wrong, on a perfect network and disk. What it does when things go wrong is the
//! simulator's to show.

use bytes::Bytes;

use super::*;
use crate::{
    checkpoint::job::{CheckpointEvent, CheckpointJob},
    command::{Action, Condition, Previous, SessionStamp, Write},
    disk::StoreError,
    error::{Error, ErrorKind, Outcome},
    founding::tests::record,
    io::{Answer, Consistency, LogReport, Operation, Request},
    log::record::Recovered,
    message::{PeerMessage, RaftMessageKind},
    state::record::{Footer, StateHeader},
    types::{Digest, Entry, Key, META_SHARD, ReplicaId, RequestId, Revision, Sequence, SessionId, Term, Token, Value},
};

mod clock;
mod cluster;
mod cut;
mod hand_over;
mod lost_hard_state;
mod marks;
mod offers;
mod probes;
mod rest;
mod rounds;

use cluster::{Cluster, Memory};

fn key(text: &str) -> Key {
    Key::new(text.to_owned()).unwrap()
}

fn write(name: &str, value: &str) -> Write {
    Write {
        key: key(name),
        action: Action::Put(Value::new(value.to_owned()).unwrap()),
        condition: Condition::Always,
        return_previous: false,
        session: None,
    }
}

fn put(write: Write, durability: Durability) -> Operation {
    Operation::Write { write, durability: Some(durability) }
}

fn get(name: &str, consistency: Consistency) -> Operation {
    Operation::Get { key: key(name), consistency }
}

fn value_of(answer: &Result<Answer, Error>) -> Option<String> {
    match answer.as_ref().unwrap() {
        Answer::Got { entry, .. } => {
            entry.as_ref().map(|Entry { value, .. }| String::from_utf8(value.as_bytes().to_vec()).unwrap())
        }
        other => panic!("not a read: {other:?}"),
    }
}

#[test]
fn owners_lead_from_the_start_and_the_map_knows_all_addresses() {
    let cluster = Cluster::start(5, 8, &Settings::default());
    for row in cluster.nodes[&NodeId(1)].map().shards.clone() {
        assert_eq!(cluster.leader(row.shard), row.owner().unwrap(), "shard {}", row.shard);
    }
    for node in cluster.nodes.values() {
        assert!(node.map().nodes.iter().all(|node| !node.client_address.is_empty()), "node {}", node.id());
    }
}

#[test]
fn a_write_is_read_at_the_leader_and_at_followers() {
    let mut cluster = Cluster::start(3, 4, &Settings::default());
    let (shard, leader) = cluster.place(&key("a"));
    let written = cluster.answer(leader, shard, put(write("a", "1"), Durability::Sync)).unwrap();
    let Answer::Written { revision, previous: Previous::NotAsked, token: Some(token) } = written else {
        panic!("{written:?}")
    };
    assert_eq!(revision, Revision(1));
    assert_eq!(value_of(&cluster.answer(leader, shard, get("a", Consistency::Linearizable))).as_deref(), Some("1"));
    assert_eq!(cluster.answer(leader, shard, Operation::WaitDurable { token }), Ok(Answer::Durable));
    let lost = Token { term: Term(1), ..token };
    assert_eq!(cluster.answer(leader, shard, Operation::WaitDurable { token: lost }), Ok(Answer::Lost));
    let follower = *cluster.nodes.keys().find(|node| **node != leader).unwrap();
    let refused = cluster.answer(follower, shard, get("a", Consistency::Linearizable)).unwrap_err();
    assert_eq!((refused.kind(), refused.leader()), (ErrorKind::NotOwner, Some(leader)));
    let bounded = Consistency::Bounded { age_micros_max: 1_000_000 };
    assert_eq!(value_of(&cluster.answer(follower, shard, get("a", bounded))).as_deref(), Some("1"));
    assert_eq!(value_of(&cluster.answer(follower, shard, get("a", Consistency::Stale))).as_deref(), Some("1"));
}

#[test]
fn an_async_write_is_acknowledged_before_any_disk_and_read_once_it_is_decided() {
    let mut cluster = Cluster::start(3, 1, &Settings::default());
    let (shard, leader) = cluster.place(&key("a"));
    let id = cluster.ask(leader, shard, put(write("a", "1"), Durability::Async));
    let read = cluster.ask(leader, shard, get("a", Consistency::Linearizable));
    let mut inputs = std::mem::take(cluster.inputs.get_mut(&leader).unwrap());
    let mut outputs = Vec::new();
    let now = cluster.now;
    cluster.nodes.get_mut(&leader).unwrap().turn(now, &mut inputs, &mut outputs);
    assert!(
        outputs.iter().any(
            |output| matches!(output, Output::Reply { request, result: Ok(Answer::Accepted { .. }) } if *request == id)
        ),
        "acknowledged in the turn that took it"
    );
    cluster.perform(leader, outputs);
    cluster.settle();
    assert_eq!(value_of(&cluster.replies[&read]).as_deref(), Some("1"));
    let conditional = Write { condition: Condition::Absent, ..write("b", "1") };
    let refused = cluster.answer(leader, shard, put(conditional, Durability::Async)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
}

#[test]
fn a_write_sent_twice_in_a_session_runs_once() {
    let mut cluster = Cluster::start(3, 1, &Settings::default());
    let (shard, leader) = cluster.place(&key("a"));
    let opened = cluster.answer(leader, shard, Operation::OpenSession);
    assert_eq!(opened, Ok(Answer::SessionOpened(SessionId(1))));
    let stamp = SessionStamp { session: SessionId(1), sequence: Sequence(1), floor: Sequence(1) };
    let once = Write { condition: Condition::Absent, session: Some(stamp), ..write("a", "1") };
    let first = cluster.answer(leader, shard, put(once.clone(), Durability::Sync));
    let second = cluster.answer(leader, shard, put(once, Durability::Sync));
    for answer in [first, second] {
        assert!(matches!(answer, Ok(Answer::Written { revision: Revision(1), .. })), "{answer:?}");
    }
    let expired = SessionStamp { session: SessionId(9), ..stamp };
    let write = Write { session: Some(expired), ..write("a", "2") };
    let refused = cluster.answer(leader, shard, put(write, Durability::Sync)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::SessionExpired);
}

#[test]
fn what_a_node_queues_for_itself_answers_nobody_when_the_leadership_goes() {
    let mut cluster = Cluster::start(3, 2, &Settings::default());
    let leader = cluster.leader(META_SHARD);
    let other = *cluster.nodes.keys().find(|node| **node != leader).unwrap();
    let mut own = cluster.nodes[&leader].map().nodes.iter().find(|node| node.node == leader).unwrap().clone();
    own.client_address = "elsewhere:2".to_owned();
    // The description waits for the end of the hand-over, and finds that it can't be proposed here any more.
    cluster.ask(leader, META_SHARD, Operation::TransferLeader { to: other });
    cluster.inputs.get_mut(&leader).unwrap().extend([Input::Describe(own), Input::Tick]);
    cluster.settle();
    assert_eq!(cluster.leader(META_SHARD), other);
    cluster.run_ticks(40);
    for node in cluster.nodes.values() {
        let known = node.map().nodes.iter().find(|known| known.node == leader).unwrap();
        assert_eq!(known.client_address, "elsewhere:2");
    }
}

#[test]
fn leadership_is_handed_over_on_request_and_comes_back_to_the_owner() {
    let mut cluster = Cluster::start(3, 2, &Settings { hand_over_ticks: 20, ..Settings::default() });
    let shard = ShardId(1);
    let owner = cluster.leader(shard);
    let other = *cluster.nodes.keys().find(|node| **node != owner).unwrap();
    let begun = cluster.ask(owner, shard, Operation::TransferLeader { to: other });
    cluster.settle();
    assert_eq!(cluster.replies[&begun], Ok(Answer::TransferBegun));
    assert_eq!(cluster.leader(shard), other);
    cluster.run_ticks(30);
    assert_eq!(cluster.leader(shard), owner);
}

#[test]
fn checkpoints_free_the_log_and_the_tables() {
    let settings = Settings { active_bytes_max: 4_000, kept_bytes_max: 2_000, ..Settings::default() };
    let mut cluster = Cluster::start(3, 1, &settings);
    let (shard, leader) = cluster.place(&key("a"));
    for round in 0..40 {
        let name = format!("k{}", round % 7);
        cluster.answer(leader, shard, put(write(&name, &"v".repeat(200)), Durability::Sync)).unwrap();
    }
    assert!(cluster.checkpoints > 3);
    assert_eq!(cluster.freed, cluster.checkpoints);
    for node in cluster.nodes.values() {
        let status = node.shard_status(shard).unwrap();
        assert!(status.log_bytes < 6_000 && status.table_bytes < 6_000, "{status:?}");
    }
    assert!(value_of(&cluster.answer(leader, shard, get("k3", Consistency::Linearizable))).is_some());
    cluster.assert_healthy();
}

#[test]
fn a_leader_knows_which_follower_is_silent_and_which_is_sent_a_snapshot() {
    let settings = Settings { active_bytes_max: 4_000, kept_bytes_max: 2_000, ..Settings::default() };
    let mut cluster = Cluster::start(3, 1, &settings);
    let (shard, leader) = cluster.place(&key("a"));
    let silent = *cluster.nodes.keys().find(|node| **node != leader).unwrap();
    let seen = |cluster: &Cluster| {
        let status = cluster.nodes[&leader].shard_status(shard).unwrap();
        assert_eq!(status.followers.len(), 2);
        for follower in status.followers.iter().filter(|follower| follower.node != silent) {
            assert!(follower.active && !follower.snapshot && follower.matched >= status.commit, "{follower:?}");
        }
        let follower = status.followers.iter().find(|follower| follower.node == silent).unwrap();
        (follower.active, follower.snapshot, status.commit.0 - follower.matched.0)
    };
    // Also at the moments at which raft forgets who answered.
    for _ in 0..30 {
        cluster.run_ticks(1);
        assert_eq!(seen(&cluster), (true, false, 0));
    }
    cluster.silent = Some(silent);
    cluster.run_ticks(settings.election_ticks + 1);
    assert_eq!(seen(&cluster), (false, false, 0));
    for round in 0..40 {
        let name = format!("k{}", round % 7);
        cluster.answer(leader, shard, put(write(&name, &"v".repeat(200)), Durability::Sync)).unwrap();
    }
    // Marks are entries too.
    let (active, snapshot, lag) = seen(&cluster);
    assert!(!active && !snapshot && (40..60).contains(&lag), "{lag}");
    cluster.assert_healthy();
    cluster.silent = None;
    cluster.run_ticks(settings.heartbeat_ticks + 2);
    assert_eq!(seen(&cluster), (true, true, lag));
    assert!(!cluster.other_jobs.is_empty(), "the files of the snapshot are asked for");
}

#[test]
fn what_can_not_be_served_is_refused_with_the_reason() {
    let mut cluster = Cluster::start(3, 2, &Settings::default());
    let (shard, leader) = cluster.place(&key("a"));
    let other = if shard == ShardId(1) { ShardId(2) } else { ShardId(1) };
    let wrong = cluster.leader(other);
    let refused = cluster.answer(wrong, other, put(write("a", "1"), Durability::Sync)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotOwner);
    assert!(refused.row().is_some());
    let unknown = cluster.answer(leader, ShardId(99), get("a", Consistency::Linearizable)).unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::Invalid);
    let meta = cluster.leader(META_SHARD);
    let misplaced = cluster.answer(meta, META_SHARD, put(write("a", "1"), Durability::Sync)).unwrap_err();
    assert_eq!(misplaced.kind(), ErrorKind::NotOwner);
    cluster.inputs.get_mut(&leader).unwrap().push(Input::DiskFree { bytes: 1 });
    let full = cluster.answer(leader, shard, put(write("a", "1"), Durability::Sync)).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::DiskFull);
}

#[test]
fn what_waits_for_a_hand_over_to_end_is_bounded_in_bytes() {
    let mut cluster = Cluster::start(3, 1, &Settings::default());
    let (shard, leader) = cluster.place(&key("a"));
    let silent = *cluster.nodes.keys().find(|node| **node != leader).unwrap();
    cluster.silent = Some(silent);
    cluster.ask(leader, shard, Operation::TransferLeader { to: silent });
    cluster.settle();
    let large = "v".repeat(crate::types::VALUE_BYTES_MAX);
    let asked: Vec<_> =
        (0..40).map(|_| cluster.ask(leader, shard, put(write("a", &large), Durability::Sync))).collect();
    cluster.settle();
    let refused = asked.iter().filter_map(|id| cluster.replies.get(id)).map(|reply| reply.as_ref().unwrap_err());
    assert!(
        refused.clone().all(|error| (error.kind(), error.outcome()) == (ErrorKind::Overloaded, Outcome::NotApplied))
    );
    assert_eq!(refused.count(), 40 - 8, "8 of a MiB each may wait");
    // The hand-over comes to nothing, and those that waited are written.
    cluster.run_ticks(2 * Settings::default().election_ticks);
    let written = asked.iter().filter(|id| cluster.replies.get(id).is_some_and(Result::is_ok)).count();
    assert_eq!(written, 8);
}
