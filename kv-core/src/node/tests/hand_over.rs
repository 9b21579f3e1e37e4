//! The leadership is offered to the ring's owner, and not again and again if it does not take it.

use super::*;

#[test]
fn an_owner_that_does_not_take_the_leadership_is_left_alone_for_a_while() {
    let settings = Settings { hand_over_ticks: 20, hand_over_pause_ticks: 100, ..Settings::default() };
    let mut cluster = Cluster::start(3, 1, &settings);
    let shard = ShardId(1);
    let owner = cluster.leader(shard);
    let other = *cluster.nodes.keys().find(|node| **node != owner).unwrap();
    cluster.ask(owner, shard, Operation::TransferLeader { to: other });
    cluster.settle();
    assert_eq!(cluster.leader(shard), other);

    // It answers and has everything, and can't win.
    cluster.deaf = Some(owner);
    let begun = cluster.now;
    cluster.run_ticks(250);
    let ticks = |time: &Time| time.micros_since(begun) / 50_000;
    let told: Vec<u64> = cluster.told_to_campaign.iter().map(ticks).collect();
    let (first, pause) = (settings.hand_over_ticks, settings.hand_over_pause_ticks);
    assert_eq!(told.len(), 3, "{told:?}");
    assert!((first..first + 5).contains(&told[0]), "{told:?}");
    assert!(told.windows(2).all(|pair| (pause..pause + 5).contains(&(pair[1] - pair[0]))), "{told:?}");

    // Nothing has become of it: the same leader takes writes.
    assert_eq!(cluster.leader(shard), other);
    cluster.answer(other, shard, put(write("a", "1"), Durability::Sync)).unwrap();
    cluster.assert_healthy();
}
