//! What a replica makes of the accounts that others give of their states, and what becomes of those who wait for its own.
//!
//! The accounts are made up here: what real ones lead to, with all that can go wrong meanwhile, is the simulator's to show.

use super::*;
use crate::{
    error::Outcome,
    message::{MARKS_TOLD_MAX, MarkDigest, MarkReport, PeerMessage},
};

const OTHER: Digest = Digest(77);

/// Three nodes whose first shard has a confirmed checkpoint.
fn marked() -> (Cluster, ShardId, NodeId) {
    let settings = Settings { checkpoint_ticks: 10, ..Settings::default() };
    let mut cluster = Cluster::start(3, 1, &settings);
    let (shard, leader) = cluster.place(&key("a"));
    cluster.answer(leader, shard, put(write("a", "1"), Durability::Sync)).unwrap();
    cluster.run_ticks(30);
    for node in cluster.nodes.values() {
        let status = node.shard_status(shard).unwrap();
        assert!(status.confirmed.is_some() && status.confirmed == status.checkpoint, "{status:?}");
    }
    (cluster, shard, leader)
}

/// A node says that it holds these, as if it had been started again; its true accounts are taken for those of a further start.
fn tell(cluster: &mut Cluster, to: NodeId, from: NodeId, shard: ShardId, checkpoints: Vec<MarkDigest>) {
    give(cluster, to, from, shard, MarkReport { checkpoints, ..MarkReport::default() });
}

fn give(cluster: &mut Cluster, to: NodeId, from: NodeId, shard: ShardId, report: MarkReport) {
    cluster.next_told += 1;
    let report = MarkReport { number: (1 << 60) + cluster.next_told, ..report };
    let input = Input::Peer { from, message: PeerMessage::Marks { shard, report } };
    cluster.inputs.get_mut(&to).unwrap().push(input);
}

fn others(leader: NodeId) -> [NodeId; 2] {
    let mut others = (1..=3).map(NodeId).filter(|node| *node != leader);
    [others.next().unwrap(), others.next().unwrap()]
}

fn outcome(cluster: &Cluster, id: RequestId) -> (ErrorKind, Outcome) {
    let error = cluster.replies.get(&id).expect("answered").as_ref().unwrap_err();
    (error.kind(), error.outcome())
}

#[test]
fn whoever_waits_is_answered_when_the_state_goes() {
    let (mut cluster, shard, leader) = marked();
    // Something is applied behind the newest mark.
    cluster.ask(leader, shard, put(write("a", "1b"), Durability::Sync));
    cluster.settle();
    // Its messages are lost from here on: what is proposed stays undecided.
    cluster.silent = Some(leader);
    cluster.answer(leader, shard, put(write("b", "1"), Durability::Async)).unwrap();
    let proposed = cluster.ask(leader, shard, put(write("a", "2"), Durability::Sync));
    let read = cluster.ask(leader, shard, get("a", Consistency::Linearizable));
    let status = cluster.nodes[&leader].shard_status(shard).unwrap();
    let token = Token { shard, term: status.term, index: status.last_index };
    let durable = cluster.ask(leader, shard, Operation::WaitDurable { token });
    cluster.settle();
    assert!([proposed, read, durable].iter().all(|id| !cluster.replies.contains_key(id)), "they wait");
    let late = cluster.ask(leader, shard, put(write("a", "3"), Durability::Sync));
    let digest = MarkDigest { index: status.last_index.next(), digest: Digest(1) };
    let [one, two] = others(leader);
    tell(&mut cluster, leader, one, shard, vec![digest]);
    tell(&mut cluster, leader, two, shard, vec![digest]);
    cluster.settle();
    assert!(!cluster.replies.contains_key(&late), "what others hold where it holds nothing is nothing against it");
    // A checkpoint of its own is contradicted by both.
    let index = diverging_checkpoint(&mut cluster, leader, shard);
    let queued = cluster.ask(leader, shard, put(write("a", "4"), Durability::Sync));
    tell(&mut cluster, leader, one, shard, vec![MarkDigest { index, digest: OTHER }]);
    tell(&mut cluster, leader, two, shard, vec![MarkDigest { index, digest: OTHER }]);
    cluster.settle();
    assert!(!cluster.nodes[&leader].shard_status(shard).unwrap().live, "its state is thrown away");
    assert_eq!(outcome(&cluster, queued), (ErrorKind::NoQuorum, Outcome::NotApplied));
    assert_eq!(outcome(&cluster, read), (ErrorKind::NoQuorum, Outcome::NotApplied));
    for id in [proposed, late, durable] {
        assert_eq!(outcome(&cluster, id), (ErrorKind::NoQuorum, Outcome::Unknown));
    }
    let refused = cluster.ask(leader, shard, get("a", Consistency::Bounded { age_micros_max: 1_000_000 }));
    cluster.settle();
    assert_eq!(outcome(&cluster, refused), (ErrorKind::NoQuorum, Outcome::NotApplied), "it would wait in vain");
    let waiting = cluster.nodes[&leader].shard_status(shard).unwrap().waiting;
    assert!(waiting >= 3, "the books on what is undecided stay: {waiting}");
}

/// A replica has a checkpoint of all that it has applied, and nobody has confirmed it yet.
fn diverging_checkpoint(cluster: &mut Cluster, node: NodeId, shard: ShardId) -> LogIndex {
    let replica = cluster.nodes[&node].shard_status(shard).unwrap().replica;
    let index = cluster.nodes[&node].shard_status(shard).unwrap().applied;
    let header = StateHeader { index, term: Term(1), ..StateHeader::default() };
    let footer = Footer { header, digest: Digest(5) };
    let event = CheckpointEvent::Durable { shard, replica, footer };
    cluster.inputs.get_mut(&node).unwrap().push(Input::Checkpoint(Box::new(event)));
    index
}

#[test]
fn where_two_contradict_each_other_the_third_stops_too_until_a_majority_agrees() {
    let (mut cluster, shard, leader) = marked();
    let [one, two] = others(leader);
    let applied = cluster.nodes[&leader].shard_status(shard).unwrap().applied;
    let index = LogIndex(applied.0 + 1);
    cluster.silent = Some(leader);
    tell(&mut cluster, leader, one, shard, vec![MarkDigest { index, digest: OTHER }]);
    cluster.settle();
    assert!(!cluster.nodes[&leader].shard_status(shard).unwrap().disputed, "one voice contradicts nobody");
    tell(&mut cluster, leader, two, shard, vec![MarkDigest { index, digest: Digest(78) }]);
    let read = cluster.ask(leader, shard, get("a", Consistency::Linearizable));
    let stale = cluster.ask(leader, shard, get("a", Consistency::Stale));
    let written = cluster.ask(leader, shard, put(write("a", "2"), Durability::Sync));
    cluster.settle();
    assert!(cluster.nodes[&leader].shard_status(shard).unwrap().disputed);
    for id in [read, stale, written] {
        assert_eq!(outcome(&cluster, id), (ErrorKind::Corrupt, Outcome::NotApplied));
    }
    // One of them was wrong, and says no more of it: that alone proves nobody right.
    tell(&mut cluster, leader, one, shard, Vec::new());
    cluster.settle();
    assert!(cluster.nodes[&leader].shard_status(shard).unwrap().disputed);
    cluster.silent = None;
    cluster.inputs.values_mut().for_each(Vec::clear);
    cluster.answer(leader, shard, put(write("a", "3"), Durability::Sync)).unwrap_err();
    cluster.run_ticks(120);
    let leader = cluster.leader(shard);
    assert!(!cluster.nodes[&leader].shard_status(shard).unwrap().disputed, "a further mark is confirmed");
    cluster.answer(leader, shard, put(write("a", "3"), Durability::Sync)).unwrap();
}

#[test]
fn accounts_that_no_replica_gives_are_refused_and_change_nothing() {
    let (mut cluster, shard, leader) = marked();
    let [one, _] = others(leader);
    let mark = |index: u64| MarkDigest { index: LogIndex(index), digest: OTHER };
    let too_many = (1..=MARKS_TOLD_MAX as u64 + 1).map(mark).collect();
    for checkpoints in [vec![mark(7), mark(7)], vec![mark(8), mark(7)], too_many] {
        tell(&mut cluster, leader, one, shard, checkpoints);
        cluster.settle();
        assert_eq!(cluster.refused, ["an account of marks that no replica gives"]);
        cluster.refused.clear();
    }
    assert!(!cluster.nodes[&leader].shard_status(shard).unwrap().disputed);
}

#[test]
fn however_often_marks_are_asked_for_they_come_no_more_often() {
    let (mut cluster, shard, leader) = marked();
    let [one, _] = others(leader);
    let before = cluster.checkpoints;
    for _ in 0..100 {
        give(&mut cluster, leader, one, shard, MarkReport { wants_mark: true, ..MarkReport::default() });
        cluster.run_ticks(1);
    }
    let made = cluster.checkpoints - before;
    assert!((3..=3 * 11).contains(&made), "{made} checkpoints of three replicas in 100 ticks");
}
