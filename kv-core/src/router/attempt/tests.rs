//! One behaviour of routing per test, then the two promises over random failures: it ends in time, and the outcome is right.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    founding::{FoundingRecord, Member},
    shard_map::{ShardMap, ShardRow},
    types::{Incarnation, Key, Revision},
};

const SECOND: u64 = 1_000_000;
const DEADLINE: Time = Time(5 * SECOND);

fn map() -> ShardMap {
    let members = (1..=3)
        .map(|id| Member {
            node: NodeId(id),
            incarnation: Incarnation(u128::from(id)),
            peer_address: format!("p{id}"),
            zone: String::new(),
            weight: 1,
        })
        .collect();
    let mut map = FoundingRecord { members, shards: 4, replication: 3, durability: Default::default() }.layout();
    for node in &mut map.nodes {
        node.client_address = format!("c{}", node.node);
    }
    map
}

fn router() -> Router {
    let mut router = Router::new();
    router.take_map(&map()).unwrap();
    router
}

fn key() -> Key {
    Key::new("hello").unwrap()
}

fn row() -> ShardRow {
    router().row((&key()).into()).unwrap().clone()
}

/// The nodes of the key's shard, the owner first.
fn nodes() -> [NodeId; 3] {
    let row = row();
    [0, 1, 2].map(|index| row.replicas[index].node)
}

fn attempt(kind: OperationKind) -> Attempt {
    Attempt::new(kind, (&key()).into(), DEADLINE)
}

fn not_owner() -> Error {
    Error::not_applied(ErrorKind::NotOwner, "not here")
}

fn sent_to(decision: &Decision) -> Option<NodeId> {
    match decision {
        Decision::Send { node, .. } => Some(*node),
        _ => None,
    }
}

#[test]
fn without_a_map_it_waits_and_wants_one() {
    let mut router = Router::new();
    let mut attempt = attempt(OperationKind::Read);
    assert!(matches!(attempt.next(&mut router, Last::Nothing, Time(0), 7), Decision::Wait { .. }));
    assert!(router.map_wanted());
    assert!(router.route(&key()).is_none());
    router.take_map(&map()).unwrap();
    assert!(!router.map_wanted());
    assert_eq!(sent_to(&attempt.next(&mut router, Last::Nothing, Time(10), 7)), Some(nodes()[0]));
    let target = router.route(&key()).unwrap();
    assert_eq!((target.node, target.shard), (nodes()[0], row().shard));
    assert_eq!(target.address, format!("c{}", nodes()[0]));
}

#[test]
fn a_hint_of_the_leader_is_followed_and_remembered() {
    let mut router = router();
    let mut first = attempt(OperationKind::SessionWrite);
    assert_eq!(sent_to(&first.next(&mut router, Last::Nothing, Time(0), 0)), Some(nodes()[0]));
    let hint = not_owner().with(|detail| detail.leader = Some(nodes()[2]));
    assert_eq!(sent_to(&first.next(&mut router, Last::Refused(&hint), Time(1), 0)), Some(nodes()[2]));
    first.succeeded(&mut router, Time(2));
    assert_eq!(router.route(&key()).unwrap().node, nodes()[2]);
    assert_eq!(sent_to(&attempt(OperationKind::Read).next(&mut router, Last::Nothing, Time(3), 0)), Some(nodes()[2]));
}

#[test]
fn hints_in_a_circle_end_in_a_wait() {
    let mut router = router();
    let mut attempt = attempt(OperationKind::Read);
    let mut decision = attempt.next(&mut router, Last::Nothing, Time(0), 0);
    let mut asked = Vec::new();
    while let Some(node) = sent_to(&decision) {
        asked.push(node);
        let next = nodes()[(nodes().iter().position(|other| *other == node).unwrap() + 1) % 2];
        let hint = not_owner().with(|detail| detail.leader = Some(next));
        decision = attempt.next(&mut router, Last::Refused(&hint), Time(1), 0);
    }
    assert_eq!(asked.len(), 3, "each node once: {asked:?}");
    assert!(matches!(decision, Decision::Wait { micros } if micros > WAIT_MICROS_MIN / 2 && micros <= WAIT_MICROS_MIN));
}

#[test]
fn a_fresher_row_is_taken_from_a_refusal() {
    let mut router = router();
    let mut attempt = attempt(OperationKind::SessionWrite);
    let _ = attempt.next(&mut router, Last::Nothing, Time(0), 0);
    let mut fresh = row();
    fresh.epoch = fresh.epoch.next();
    fresh.replicas.rotate_left(1);
    let stale = Error::not_applied(ErrorKind::StaleEpoch, "moved").with(|detail| detail.row = Some(fresh.clone()));
    let decision = attempt.next(&mut router, Last::Refused(&stale), Time(1), 0);
    assert!(matches!(decision, Decision::Send { node, epoch, .. } if node == nodes()[1] && epoch == fresh.epoch));
    // The same row again brings nothing new: a map is wanted.
    assert!(matches!(attempt.next(&mut router, Last::Refused(&stale), Time(2), 0), Decision::Wait { .. }));
    assert!(router.map_wanted());
}

#[test]
fn a_row_that_cannot_be_right_is_not_taken() {
    let mut router = router();
    let mut attempt = attempt(OperationKind::Read);
    let _ = attempt.next(&mut router, Last::Nothing, Time(0), 0);
    let mut wrong = row();
    wrong.epoch = wrong.epoch.next();
    wrong.replicas[0].node = NodeId(77);
    let refusal = not_owner().with(|detail| {
        detail.row = Some(wrong);
        detail.leader = Some(NodeId(77));
    });
    assert_eq!(sent_to(&attempt.next(&mut router, Last::Refused(&refusal), Time(1), 0)), Some(nodes()[1]));
    assert!(router.map_wanted());
    assert_eq!(router.row((&key()).into()), Some(&row()));
}

#[test]
fn a_node_that_is_down_is_passed_over_by_all_and_tried_by_one_when_due() {
    let mut router = router();
    let mut first = attempt(OperationKind::Read);
    let _ = first.next(&mut router, Last::Nothing, Time(0), 0);
    assert_eq!(sent_to(&first.next(&mut router, Last::NodeDown, Time(0), 0)), Some(nodes()[1]));
    let ask = |router: &mut Router, now| sent_to(&attempt(OperationKind::Read).next(router, Last::Nothing, now, 0));
    assert_eq!(ask(&mut router, Time(1)), Some(nodes()[1]));
    let due = Time(super::super::NODE_PAUSE_MICROS_MIN);
    assert_eq!(ask(&mut router, due), Some(nodes()[0]), "one tries it");
    assert_eq!(ask(&mut router, due), Some(nodes()[1]), "the others don't wait for that");
    router.node_answered(nodes()[0], due);
    assert_eq!(ask(&mut router, due), Some(nodes()[0]));
}

#[test]
fn many_reports_of_one_failure_count_once() {
    let mut router = router();
    for _ in 0..1_000 {
        router.node_failed(nodes()[0], Time(0), 0);
    }
    assert_eq!(router.pause_micros(nodes()[0], Time(0)), super::super::NODE_PAUSE_MICROS_MIN);
    for _ in 0..100 {
        let pause = router.pause_micros(nodes()[0], Time(0));
        router.node_failed(nodes()[0], Time(0).plus_micros(pause), 0);
        assert!(router.pause_micros(nodes()[0], Time(0).plus_micros(pause)) <= super::super::NODE_PAUSE_MICROS_MAX);
    }
}

#[test]
fn one_slow_operation_does_not_make_a_node_that_answers_pass_for_down() {
    let mut router = router();
    let mut slow = attempt(OperationKind::Read);
    let _ = slow.next(&mut router, Last::Nothing, Time(5), 0);
    router.node_answered(nodes()[0], Time(6));
    assert_eq!(sent_to(&slow.next(&mut router, Last::NoAnswer, Time(SECOND), 0)), Some(nodes()[1]));
    assert_eq!(router.pause_micros(nodes()[0], Time(SECOND)), 0);
    let _ = slow.next(&mut router, Last::NoAnswer, Time(2 * SECOND), 0);
    assert!(router.pause_micros(nodes()[1], Time(2 * SECOND)) > 0);
}

#[test]
fn a_leader_that_answers_others_stays_known_when_one_operation_is_slow() {
    let mut router = router();
    let shard = row().shard;
    router.take_leader(shard, nodes()[2]);
    let mut slow = attempt(OperationKind::Read);
    assert_eq!(sent_to(&slow.next(&mut router, Last::Nothing, Time(5), 0)), Some(nodes()[2]));
    router.node_answered(nodes()[2], Time(6));
    assert_eq!(sent_to(&slow.next(&mut router, Last::NoAnswer, Time(SECOND), 0)), Some(nodes()[0]));
    assert_eq!(router.leader(shard), Some(nodes()[2]), "others would all be told that the owner does not lead");
    // One of which nothing is heard is forgotten.
    router.take_leader(shard, nodes()[0]);
    let _ = slow.next(&mut router, Last::NoAnswer, Time(2 * SECOND), 0);
    assert_eq!(router.leader(shard), None);
}

#[test]
fn a_write_without_a_session_is_sent_again_only_while_nothing_can_have_come_of_it() {
    let mut router = router();
    let mut write = attempt(OperationKind::Write);
    let decision = write.next(&mut router, Last::Nothing, Time(0), 0);
    assert!(matches!(decision, Decision::Send { answer_micros_max, .. } if answer_micros_max == DEADLINE.0));
    assert!(sent_to(&write.next(&mut router, Last::Refused(&not_owner()), Time(1), 0)).is_some());
    assert!(sent_to(&write.next(&mut router, Last::NodeDown, Time(2), 0)).is_some());
    let Decision::GiveUp(error) = write.next(&mut router, Last::ConnectionLost, Time(3), 0) else { panic!() };
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Timeout, Outcome::Unknown));
}

#[test]
fn an_expired_session_is_renewed_as_long_as_nothing_can_have_come_of_the_write() {
    let mut router = router();
    let mut attempt = attempt(OperationKind::SessionWrite);
    let expired = Error::not_applied(ErrorKind::SessionExpired, "unknown session");
    assert!(sent_to(&attempt.next(&mut router, Last::Nothing, Time(0), 0)).is_some());
    assert_eq!(attempt.next(&mut router, Last::Refused(&expired), Time(1), 0), Decision::Renew);
    assert!(sent_to(&attempt.next(&mut router, Last::Nothing, Time(2), 0)).is_some());
    // However often that happens, it does not go on without a pause.
    let decisions = (3..40).map(|at| match at % 2 {
        1 => attempt.next(&mut router, Last::Refused(&expired), Time(at), 0),
        _ => attempt.next(&mut router, Last::Nothing, Time(at), 0),
    });
    assert!(decisions.into_iter().any(|decision| matches!(decision, Decision::Wait { .. })));
    assert_eq!(
        attempt.next(&mut router, Last::Nothing, DEADLINE, 0),
        Decision::GiveUp(attempt.clone().deadline_error())
    );
}

#[test]
fn an_uncertain_write_is_sent_as_sync() {
    let mut router = router();
    let mut attempt = attempt(OperationKind::SessionWrite);
    let _ = attempt.next(&mut router, Last::Nothing, Time(0), 0);
    let refused = Error::overloaded("later", 1);
    let (mut now, mut decision) = (Time(1), attempt.next(&mut router, Last::Refused(&refused), Time(1), 0));
    // An overloaded node is spared for a while, except by some: those who draw the highest.
    while let Decision::Wait { micros } = decision {
        now = Time(now.0 + micros);
        decision = attempt.next(&mut router, Last::Nothing, now, u64::MAX);
    }
    assert!(sent_to(&decision).is_some());
    assert!(!attempt.is_uncertain() && !attempt.must_be_sync(), "nothing came of the first");
    let _ = attempt.next(&mut router, Last::ConnectionLost, Time(now.0 + 1), 0);
    assert!(attempt.is_uncertain() && attempt.must_be_sync());
}

#[test]
fn the_outcome_is_not_applied_only_if_every_sending_was() {
    for (kind, expected) in [
        (OperationKind::SessionWrite, Outcome::Unknown),
        (OperationKind::Read, Outcome::NotApplied),
        (OperationKind::ReadAnywhere, Outcome::NotApplied),
    ] {
        let mut router = router();
        let mut attempt = attempt(kind);
        let _ = attempt.next(&mut router, Last::Nothing, Time(0), 0);
        assert!(sent_to(&attempt.next(&mut router, Last::ConnectionLost, Time(1), 0)).is_some());
        let expired = Error::not_applied(ErrorKind::SessionExpired, "unknown session");
        let Decision::GiveUp(error) = attempt.next(&mut router, Last::Refused(&expired), Time(2), 0) else { panic!() };
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::SessionExpired, expected));
    }
}

#[test]
fn an_answer_from_the_session_table_is_final() {
    let mut router = router();
    let mut attempt = attempt(OperationKind::SessionWrite);
    let _ = attempt.next(&mut router, Last::Nothing, Time(0), 0);
    assert!(!matches!(attempt.next(&mut router, Last::ConnectionLost, Time(1), 0), Decision::GiveUp(_)));
    let conflict = Error::conflict(Revision(4));
    assert_eq!(attempt.next(&mut router, Last::Refused(&conflict), Time(2), 0), Decision::GiveUp(conflict));
}

#[test]
fn what_a_node_asks_for_is_waited_for_or_handed_up() {
    let mut router = router();
    let mut first = attempt(OperationKind::SessionWrite);
    let _ = first.next(&mut router, Last::Nothing, Time(0), 0);
    let overloaded = Error::overloaded("full", 1_000);
    let decision = first.next(&mut router, Last::Refused(&overloaded), Time(0), u64::MAX);
    assert!(
        matches!(decision, Decision::Wait { micros } if (SECOND..=SECOND * 5 / 4).contains(&micros)),
        "{decision:?}"
    );
    let _ = first.next(&mut router, Last::Nothing, Time(4 * SECOND + 1), 0);
    let decision = first.next(&mut router, Last::Refused(&overloaded), Time(4 * SECOND + 1), 0);
    assert_eq!(decision, Decision::GiveUp(overloaded), "the wait would pass the deadline");
}

#[test]
fn a_cut_off_leader_does_not_hold_an_operation() {
    let mut router = router();
    let mut attempt = attempt(OperationKind::SessionWrite);
    let _ = attempt.next(&mut router, Last::Nothing, Time(0), 0);
    let cut_off = Error::unknown(ErrorKind::NoQuorum, "no majority");
    assert_eq!(sent_to(&attempt.next(&mut router, Last::Refused(&cut_off), Time(1), 0)), Some(nodes()[1]));
}

#[test]
fn reads_at_any_replica_are_spread() {
    let mut counts = BTreeMap::new();
    for random in 0..300 {
        let mut read = attempt(OperationKind::ReadAnywhere);
        let node = sent_to(&read.next(&mut router(), Last::Nothing, Time(0), random)).unwrap();
        *counts.entry(node).or_insert(0) += 1;
    }
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [100, 100, 100]);
}

#[test]
fn all_nodes_down_and_then_up_again() {
    let mut router = router();
    let mut attempt = attempt(OperationKind::Read);
    let mut now = Time(0);
    let mut last = Last::Nothing;
    let mut sends = 0;
    // Down for 3 seconds.
    let node = loop {
        match attempt.next(&mut router, last, now, now.0) {
            Decision::Send { node, .. } if now >= Time(3 * SECOND) => break node,
            Decision::Send { .. } => {
                sends += 1;
                last = Last::NodeDown;
            }
            Decision::Wait { micros } => {
                now = now.plus_micros(micros);
                last = Last::Nothing;
            }
            Decision::Renew => panic!("it is in no session"),
            Decision::GiveUp(error) => panic!("{error}"),
        }
    };
    assert!(nodes().contains(&node));
    assert!(sends < 60, "{sends} tries of nodes that are down");
    assert!(now < Time(4 * SECOND + SECOND / 4), "{now:?}");
}

/// What the world does with one sending.
#[derive(Clone, Debug)]
enum World {
    Refuses(ErrorKind, bool, Option<u64>, Option<u64>),
    Down,
    Breaks,
    Silent,
}

fn world() -> impl Strategy<Value = World> {
    use ErrorKind::*;
    let kinds = prop::sample::select(vec![
        NotOwner, NotOwner, NotOwner, StaleEpoch, StaleEpoch, NoQuorum, Overloaded, DiskFull, Timeout, Corrupt,
        Conflict,
    ]);
    prop_oneof![
        6 => (kinds, any::<bool>(), prop::option::of(0_u64..5), prop::option::of(0_u64..3_000))
            .prop_map(|(kind, unknown, leader, retry)| World::Refuses(kind, unknown, leader, retry)),
        2 => Just(World::Down),
        1 => Just(World::Breaks),
        1 => Just(World::Silent),
    ]
}

fn refusal(kind: ErrorKind, unknown: bool, leader: Option<u64>, retry: Option<u64>, epoch: Epoch) -> Error {
    let mut fresh = row();
    fresh.epoch = epoch.next();
    let error =
        if unknown && kind != ErrorKind::Conflict { Error::unknown(kind, "x") } else { Error::not_applied(kind, "x") };
    error.with(|detail| {
        detail.leader = leader.map(NodeId);
        detail.retry_after_ms = retry;
        // A world that has a fresher row for every refusal would keep a router without bounds busy for ever.
        detail.row = (kind == ErrorKind::StaleEpoch).then_some(fresh);
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn it_ends_before_the_deadline_and_keeps_the_outcome(
        kind in prop::sample::select(vec![
            OperationKind::Read, OperationKind::ReadAnywhere, OperationKind::Write, OperationKind::SessionWrite,
        ]),
        worlds in prop::collection::vec((world(), 0_u64..200_000, any::<u64>()), 1..40),
    ) {
        let mut router = router();
        let mut attempt = attempt(kind);
        let is_write = matches!(kind, OperationKind::Write | OperationKind::SessionWrite);
        let (mut now, mut sends, mut unknown) = (Time(0), 0, false);
        let mut turns = worlds.iter().cycle();
        let mut decision = attempt.next(&mut router, Last::Nothing, now, 0);
        let error = loop {
            let (world, latency, random) = turns.next().unwrap();
            match decision {
                Decision::GiveUp(error) => break error,
                Decision::Renew => {
                    prop_assert!(kind == OperationKind::SessionWrite && !unknown, "it may have run under the old session");
                    decision = attempt.next(&mut router, Last::Nothing, now, *random);
                }
                Decision::Wait { micros } => {
                    prop_assert!(micros > 0);
                    now = now.plus_micros(micros);
                    prop_assert!(now < DEADLINE);
                    decision = attempt.next(&mut router, Last::Nothing, now, *random);
                }
                Decision::Send { epoch, answer_micros_max, .. } => {
                    sends += 1;
                    prop_assert!(now < DEADLINE && now.plus_micros(answer_micros_max) <= DEADLINE);
                    prop_assert!(!(unknown && kind == OperationKind::Write), "sent again though it may have run");
                    now = now.plus_micros((*latency).min(answer_micros_max));
                    decision = match world {
                        World::Refuses(kind, may_have, leader, retry) => {
                            let error = refusal(*kind, *may_have, *leader, *retry, epoch);
                            unknown |= is_write && error.outcome() == Outcome::Unknown;
                            attempt.next(&mut router, Last::Refused(&error), now, *random)
                        }
                        World::Down => attempt.next(&mut router, Last::NodeDown, now, *random),
                        World::Breaks => {
                            unknown |= is_write;
                            attempt.next(&mut router, Last::ConnectionLost, now, *random)
                        }
                        World::Silent => {
                            unknown |= is_write;
                            attempt.next(&mut router, Last::NoAnswer, now, *random)
                        }
                    };
                }
            }
        };
        // 5 s hold at most 57 rounds: six that double, then one for every 100 ms.
        prop_assert!(sends <= 57 * SENDS_PER_ROUND_MAX, "{} sendings", sends);
        if error.kind() == ErrorKind::Conflict {
            prop_assert_eq!(error.outcome(), Outcome::NotApplied);
        } else {
            let expected = if unknown { Outcome::Unknown } else { Outcome::NotApplied };
            prop_assert_eq!(error.outcome(), expected);
        }
    }
}
