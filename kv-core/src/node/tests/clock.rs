//! A clock that goes back: what is known by it is forgotten, and nobody gets less or more time for it. And a deadline that has
//! passed.

use super::*;
use crate::points::{self, Point};

#[test]
fn a_clock_that_goes_back_makes_no_state_look_young_and_no_deadline_far() {
    let mut cluster = Cluster::start(3, 1, &Settings::default());
    let (shard, leader) = cluster.place(&key("a"));
    cluster.answer(leader, shard, put(write("a", "1"), Durability::Sync)).unwrap();
    let follower = *cluster.nodes.keys().find(|node| **node != leader).unwrap();
    let bounded = || get("a", Consistency::Bounded { age_micros_max: 1_000_000 });
    assert_eq!(value_of(&cluster.answer(follower, shard, bounded())).as_deref(), Some("1"));
    cluster.run_ticks(100);
    // Back to before the probe was sent: by the clock alone the state would be fresh for another five seconds.
    cluster.now = Time(cluster.now.0 - 5_100_000);
    cluster.answer(leader, shard, put(write("a", "2"), Durability::Sync)).unwrap();
    assert_eq!(value_of(&cluster.answer(follower, shard, bounded())).as_deref(), Some("2"));
    // A read that can't be answered, with a deadline two seconds away.
    cluster.silent = Some(follower);
    cluster.run_ticks(30);
    let waiting = cluster.ask(follower, shard, bounded());
    cluster.settle();
    cluster.now = Time(cluster.now.0 - 4_000_000);
    cluster.run_ticks(120);
    assert!(cluster.replies.contains_key(&waiting), "it waits as long as it would have");
}

#[test]
fn a_clock_that_goes_back_to_its_zero_makes_no_undecided_write_look_young() {
    let mut cluster = Cluster::start(3, 1, &Settings::default());
    let (shard, leader) = cluster.place(&key("a"));
    // Nobody hears it, so that nothing is decided.
    cluster.silent = Some(leader);
    let early = cluster.ask(leader, shard, put(write("a", "1"), Durability::Async));
    cluster.settle();
    assert!(matches!(cluster.replies.get(&early), Some(Ok(Answer::Accepted { .. }))));
    cluster.run_ticks(4);
    cluster.now = Time(0);
    let late = cluster.ask(leader, shard, put(write("a", "2"), Durability::Async));
    cluster.settle();
    assert_eq!(cluster.replies.get(&late), None, "it waits as a sync write does");
}

#[test]
fn a_request_whose_deadline_has_passed_is_not_looked_at() {
    let mut cluster = Cluster::start(1, 1, &Settings::default());
    let (shard, node) = cluster.place(&key("a"));
    let _before = points::take();
    let id = cluster.ask(node, shard, put(write("a", "late"), Durability::Sync));
    // The shell gives it back before; here it is given to the node.
    cluster.now = cluster.now.plus_micros(5_000_000);
    cluster.settle();
    let error = cluster.replies[&id].clone().unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Timeout, Outcome::NotApplied));
    assert_eq!(points::take().of(Point::CameTooLate), 1);
}
