//! What one turn proposes is cut into entries; what it applies, and what it reads for its answers, has a bound.

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

#[test]
fn a_turn_applies_a_bounded_part_and_the_next_ones_the_rest() {
    let mut cluster = Cluster::start(1, 1, &Settings { apply_bytes_max: 1, ..Settings::default() });
    let (shard, node) = cluster.place(&key("a"));
    cluster.nodes.get_mut(&node).unwrap().watch_applied();
    let turn = |cluster: &mut Cluster| {
        let mut inputs = std::mem::take(cluster.inputs.get_mut(&node).unwrap());
        let mut outputs = Vec::new();
        let host = cluster.nodes.get_mut(&node).unwrap();
        host.turn(cluster.now, &mut inputs, &mut outputs);
        let (applied, has_more) = (host.take_applied().len(), host.has_more());
        (outputs, applied, has_more)
    };
    // One entry each; no block is reported meanwhile, so that none of them is decided.
    let mut held = Vec::new();
    let asked: Vec<_> = (0..5)
        .map(|_| {
            let id = cluster.ask(node, shard, put(write("a", "1"), Durability::Sync));
            let (outputs, applied, has_more) = turn(&mut cluster);
            assert_eq!((applied, has_more), (0, false));
            held.extend(outputs);
            id
        })
        .collect();
    cluster.perform(node, held);
    let mut applied_in_turns = Vec::new();
    loop {
        let is_over = cluster.inputs[&node].is_empty() && !cluster.nodes[&node].has_more();
        if is_over {
            break;
        }
        let (outputs, applied, has_more) = turn(&mut cluster);
        applied_in_turns.push((applied, has_more));
        cluster.perform(node, outputs);
    }
    assert_eq!(applied_in_turns, [(1, false), (1, true), (1, true), (1, true), (1, false)]);
    assert!(asked.iter().all(|id| matches!(cluster.replies[id], Ok(Answer::Written { .. }))));
}

#[test]
fn a_turn_reads_a_bounded_part_of_what_is_asked_for() {
    let mut cluster = Cluster::start(1, 1, &Settings { answer_bytes_max: 1_000, ..Settings::default() });
    let (shard, node) = cluster.place(&key("a"));
    cluster.answer(node, shard, put(write("a", &"x".repeat(600)), Durability::Sync)).unwrap();
    let ask = |cluster: &mut Cluster| {
        let asked: Vec<_> = (0..5).map(|_| cluster.ask(node, shard, get("a", Consistency::Linearizable))).collect();
        cluster.settle();
        asked.iter().map(|id| cluster.replies[id].as_ref().map(|_| ()).map_err(Error::kind)).collect::<Vec<_>>()
    };
    // The one with which the bound is passed is still answered, and the next turn begins anew.
    let expected = [Ok(()), Ok(()), Err(ErrorKind::Overloaded), Err(ErrorKind::Overloaded), Err(ErrorKind::Overloaded)];
    assert_eq!(ask(&mut cluster), expected);
    assert_eq!(ask(&mut cluster), expected);
}
