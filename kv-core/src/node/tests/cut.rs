//! What one turn proposes is cut into entries.

use super::*;
use crate::points::{self, Point};

#[test]
fn the_commands_of_a_turn_are_cut_into_entries_of_at_most_a_mebibyte() {
    let mut cluster = Cluster::start(3, 1, &Settings::default());
    let (shard, leader) = cluster.place(&key("a"));
    let before = cluster.nodes[&leader].shard_status(shard).unwrap().last_index;
    let large = "x".repeat(600_000);
    let _before = points::take();
    let asked = [large.as_str(), &large, "small"]
        .map(|value| cluster.ask(leader, shard, put(write("a", value), Durability::Sync)));
    cluster.settle();
    for id in asked {
        assert!(matches!(cluster.replies[&id], Ok(Answer::Written { .. })));
    }
    assert_eq!(cluster.nodes[&leader].shard_status(shard).unwrap().last_index.0, before.0 + 2);
    assert_eq!(points::take().of(Point::CommandsCut), 1);
}
