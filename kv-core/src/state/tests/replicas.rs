//! Replicas with one log and different histories hold the same; and what the model does not say: placement, nodes, sizes.

use super::*;
use crate::{
    shard_map::NodeDescription,
    types::{Incarnation, NodeId},
};

proptest! {
    #[test]
    fn histories_of_freezing_and_loading_do_not_show(steps in steps(), other in prop::collection::vec(0_u8..8, 60)) {
        // So small that sessions shrink and go all the time.
        let bounds = Sessions::with_bounds(bounds(3, 200));
        let mut one = Replica::with_bounds(Some(HALF), bounds.clone());
        let mut two = Replica::with_bounds(Some(HALF), bounds);
        let mut term = Term(1);
        for (step, other) in steps.into_iter().zip(other) {
            match step {
                Step::Entry(terms, commands) => {
                    term = Term(term.0 + terms);
                    prop_assert_eq!(one.apply(term, &commands), two.apply(term, &commands));
                }
                Step::Freeze => one.freeze(),
                Step::Insert => one.insert(),
                Step::Reload => one.reload(),
            }
            match other {
                0 => two.freeze(),
                1 => two.insert(),
                2 => two.reload(),
                _ => {}
            }
            prop_assert_eq!(one.digest(), two.digest());
            prop_assert!(one.state.sessions_bytes() <= 200 && one.state.sessions_count() <= 3);
        }
    }
}

#[test]
fn the_digest_shows_every_change() {
    let mut replica = Replica::new(Some(WHOLE));
    let mut seen = vec![replica.digest()];
    let mut check = |replica: &Replica| {
        assert!(!seen.contains(&replica.digest()));
        seen.push(replica.digest());
    };
    replica.apply(Term(1), &[Command::Write(put(0, b"x"))]);
    check(&replica);
    replica.apply(Term(1), &[Command::Write(put(0, b"x"))]);
    check(&replica);
    replica.apply(Term(1), &[Command::OpenSession]);
    check(&replica);
    replica.apply(Term(1), &[Command::Write(Write { session: stamp(1, 1, 1), ..put(0, b"y") })]);
    check(&replica);
    replica.apply(Term(2), &[]);
    check(&replica);
    let configuration = Configuration { auto_leave: true, ..Configuration::default() };
    replica.state.apply_configuration(LogIndex(7), Term(2), configuration);
    check(&replica);
}

#[test]
fn older_configurations_can_be_forgotten_unseen() {
    let mut replica = Replica::new(Some(WHOLE));
    for index in 2..6 {
        replica.state.apply_configuration(LogIndex(index), Term(1), Configuration::default());
    }
    let digest = replica.digest();
    replica.state.forget_configurations_before(LogIndex(4));
    let from: Vec<_> = replica.state.header().configurations.iter().map(|(index, _)| index.0).collect();
    assert_eq!(from, [4, 5]);
    replica.state.forget_configurations_before(LogIndex(100));
    assert_eq!(replica.state.header().configurations.len(), 1);
    assert_eq!(replica.digest(), digest);
}

fn node(number: u64, address: &str) -> NodeDescription {
    NodeDescription {
        node: NodeId(number),
        incarnation: Incarnation(7),
        peer_address: address.to_owned(),
        client_address: String::new(),
        zone: String::new(),
        weight: 1,
    }
}

#[test]
fn the_meta_shard_records_nodes_and_nothing_else() {
    let mut meta = Replica::new(None);
    let describe = |address| Command::DescribeNode(node(3, address));
    let outcomes = meta.apply(
        Term(1),
        &[describe("a:1"), describe("a:1"), Command::Write(put(0, b"x")), Command::OpenSession, describe("b:1")],
    );
    let described = CommandOutcome::NodeDescribed;
    let misplaced = CommandOutcome::Misplaced;
    assert_eq!(outcomes, [described.clone(), described.clone(), misplaced.clone(), misplaced.clone(), described]);
    assert_eq!(meta.state.revision(), Revision(2), "what is the same already costs no revision");
    meta.freeze();
    meta.insert();
    meta.reload();
    assert_eq!(meta.state.nodes().get(&NodeId(3)), Some(&node(3, "b:1")));

    let mut shard = Replica::new(Some(WHOLE));
    assert_eq!(shard.apply(Term(1), &[describe("a:1")]), [misplaced]);
    assert!(shard.state.nodes().is_empty());
}

#[test]
fn tables_count_their_bytes_and_know_when_they_changed() {
    let mut replica = Replica::new(Some(WHOLE));
    assert!(!replica.state.is_changed());
    replica.apply(Term(1), &[Command::Write(put(0, b"1234"))]);
    let bytes = replica.state.active_bytes();
    assert!((2 + 1 + 4..32).contains(&bytes), "{bytes}");
    replica.apply(Term(1), &[Command::Write(put(0, b"12"))]);
    assert_eq!(replica.state.active_bytes(), bytes, "it takes the place of the one before");
    assert!(replica.state.is_changed());
    replica.freeze();
    assert!(!replica.state.is_changed());
    assert_eq!((replica.state.active_bytes(), replica.state.frozen_bytes()), (0, bytes));
    replica.state.drop_frozen(LogIndex(1));
    assert!(replica.state.has_frozen(), "only the table of that index is let go");
    assert_eq!(replica.get(&key(0)).unwrap().value, value(b"12"), "read from the frozen table");
    replica.insert();
    assert!(!replica.state.has_frozen());
    assert_eq!(replica.get(&key(0)).unwrap().value, value(b"12"), "read from the tree");
    let delete = Write { action: Action::Delete, ..put(0, b"") };
    replica.apply(Term(1), &[Command::Write(delete)]);
    assert_eq!(replica.get(&key(0)), None, "the tombstone hides the tree's record");
}

#[test]
fn records_that_do_not_decode_are_refused() {
    let header = StateHeader { last_session: SessionId(1), ..StateHeader::default() };
    let bad = |sessions, nodes| ShardState::from_header(header.clone(), sessions, nodes).is_err();
    assert!(bad(vec![(SessionId(1), Bytes::from_static(b"xx"))], Vec::new()));
    assert!(bad(vec![(SessionId(2), Bytes::from(vec![0; 24]))], Vec::new()), "a number that was never given");
    assert!(bad(Vec::new(), vec![(Bytes::copy_from_slice(&node_key(NodeId(1))), Bytes::from_static(b"xx"))]));
    let mut other = Vec::new();
    node(2, "a:1").encode(&mut other);
    assert!(bad(Vec::new(), vec![(Bytes::copy_from_slice(&node_key(NodeId(1))), other.into())]));
    let store = Store::default();
    store.write(REPLICA, &[(&entry_key(&key(0)), Some(&[0xff; 12]))]).unwrap();
    let replica = Replica { store, ..Replica::new(Some(WHOLE)) };
    assert!(replica.state.get(&Tree::new(&replica.store, REPLICA), &key(0)).is_err());
}
