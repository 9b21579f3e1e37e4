//! Which answers prove that a leader still leads, and what it asks for them.

use super::*;
use crate::message::{ClaimedLeadership, LEADERSHIPS_MAX, LeadershipRound};

/// A question that was sent to a node.
type Asked = (NodeId, LeadershipRound, Vec<ClaimedLeadership>);

/// One turn of one node; what it says reaches nobody.
fn turn(cluster: &mut Cluster, node: NodeId) -> Vec<Output> {
    let mut inputs = std::mem::take(cluster.inputs.get_mut(&node).unwrap());
    let mut outputs = Vec::new();
    cluster.now = cluster.now.plus_micros(10);
    cluster.nodes.get_mut(&node).unwrap().turn(cluster.now, &mut inputs, &mut outputs);
    outputs
}

fn hear(cluster: &mut Cluster, node: NodeId, from: NodeId, message: PeerMessage) -> Vec<Output> {
    cluster.inputs.get_mut(&node).unwrap().push(Input::Peer { from, message });
    turn(cluster, node)
}

fn asked(outputs: &[Output]) -> Vec<Asked> {
    let sent = outputs.iter().filter_map(|output| match output {
        Output::Send { to, message: PeerMessage::LeadershipAsk { round, leaderships } } => {
            Some((*to, *round, leaderships.clone()))
        }
        Output::Send { message, .. } => panic!("it needs no other message: {message:?}"),
        _ => None,
    });
    sent.collect()
}

fn answers(outputs: &[Output], request: RequestId) -> bool {
    let is_answer = |output: &Output| matches!(output, Output::Reply { request: of, result: Ok(Answer::Got { .. }) } if *of == request);
    outputs.iter().any(is_answer)
}

fn refusals(outputs: &[Output]) -> Vec<&'static str> {
    let refusal = |output: &Output| match output {
        Output::Notice(Notice::Refused { reason, .. }) => Some(*reason),
        _ => None,
    };
    outputs.iter().filter_map(refusal).collect()
}

/// A cluster of five whose leader of `a`'s shard has asked a round for a read of it.
fn begin() -> (Cluster, ShardId, NodeId, RequestId, Vec<Asked>) {
    let mut cluster = Cluster::start(5, 4, &Settings::default());
    let (shard, leader) = cluster.place(&key("a"));
    let read = cluster.ask(leader, shard, get("a", Consistency::Linearizable));
    let outputs = turn(&mut cluster, leader);
    assert!(!answers(&outputs, read), "nobody has answered yet");
    let asked = asked(&outputs);
    (cluster, shard, leader, read, asked)
}

#[test]
fn one_message_to_each_peer_asks_for_all_shards_of_a_turn_and_nothing_is_written() {
    let mut cluster = Cluster::start(3, 9, &Settings::default());
    let led_by = |node: NodeId| -> Vec<ShardId> {
        (1..=9).map(ShardId).filter(|shard| cluster.leader(*shard) == node).collect()
    };
    let leader = cluster.nodes.keys().copied().max_by_key(|node| led_by(*node).len()).unwrap();
    let led = led_by(leader);
    assert!(led.len() > 1, "{led:?}");
    let key_of = |shard: ShardId| {
        let names = (0..).map(|number| format!("key{number}"));
        names.into_iter().find(|name| cluster.place(&key(name)).0 == shard).unwrap()
    };
    let names: Vec<String> = led.iter().map(|shard| key_of(*shard)).collect();
    let reads: Vec<RequestId> = std::iter::zip(&led, &names)
        .map(|(shard, name)| cluster.ask(leader, *shard, get(name, Consistency::Linearizable)))
        .collect();
    let outputs = turn(&mut cluster, leader);
    assert!(!outputs.iter().any(|output| matches!(output, Output::LogBatch(_))));
    let asked = asked(&outputs);
    let others: Vec<NodeId> = cluster.nodes.keys().copied().filter(|node| *node != leader).collect();
    assert_eq!(asked.iter().map(|(to, ..)| *to).collect::<Vec<_>>(), others);
    for (_, _, claimed) in &asked {
        assert_eq!(claimed.iter().map(|claimed| claimed.shard).collect::<Vec<_>>(), led);
    }
    // One of two others is a majority with the leader itself; it answers in the same turn, and no disk is waited for.
    let (to, round, leaderships) = asked[0].clone();
    let outputs = hear(&mut cluster, to, leader, PeerMessage::LeadershipAsk { round, leaderships });
    let [Output::Send { to: back, message }] = outputs.as_slice() else { panic!("{outputs:?}") };
    assert_eq!((*back, message), (leader, &PeerMessage::LeadershipAnswer { round, shards: led }));
    let outputs = hear(&mut cluster, leader, to, message.clone());
    assert!(reads.iter().all(|read| answers(&outputs, *read)));
}

#[test]
fn an_answer_counts_for_its_round_and_those_before_it_and_for_no_later_one() {
    let (mut cluster, shard, leader, first, asked_first) = begin();
    let (peer, round, _) = asked_first[0];
    let second = cluster.ask(leader, shard, get("a", Consistency::Linearizable));
    let later = asked(&turn(&mut cluster, leader))[0].1;
    assert_eq!((later.run, later.number), (round.run, round.number + 1));

    let answer = |round| PeerMessage::LeadershipAnswer { round, shards: vec![shard] };
    let outputs = hear(&mut cluster, leader, peer, answer(round));
    assert!(answers(&outputs, first) && !answers(&outputs, second));
    // The same once more, as a network may bring it.
    let outputs = hear(&mut cluster, leader, peer, answer(round));
    assert!(outputs.is_empty(), "{outputs:?}");
    let third = cluster.ask(leader, shard, get("a", Consistency::Linearizable));
    let last = asked(&turn(&mut cluster, leader))[0].1;
    let outputs = hear(&mut cluster, leader, peer, answer(last));
    assert!(answers(&outputs, second) && answers(&outputs, third));
}

#[test]
fn what_proves_nothing_is_ignored_or_refused() {
    let (mut cluster, shard, leader, read, asked) = begin();
    let (peer, round, _) = asked[0].clone();
    let members: Vec<NodeId> = asked.iter().map(|(to, ..)| *to).chain([leader]).collect();
    let stranger = *cluster.nodes.keys().find(|node| !members.contains(node)).unwrap();
    let answer = |round, shard| PeerMessage::LeadershipAnswer { round, shards: vec![shard] };
    let earlier_start = LeadershipRound { run: round.run + 1, ..round };
    let never_asked = LeadershipRound { number: round.number + 1, ..round };
    let too_many = PeerMessage::LeadershipAnswer { round, shards: vec![shard; LEADERSHIPS_MAX + 1] };
    let cases = [
        (stranger, answer(round, shard), Some("its sender is not the group's replica on that node")),
        (peer, answer(earlier_start, shard), None),
        (peer, answer(never_asked, shard), Some("it answers a round that was never asked")),
        (peer, answer(round, ShardId(77)), Some("it is about a shard that does not stand here")),
        // Of a long list of lies one is told.
        (
            peer,
            PeerMessage::LeadershipAnswer { round, shards: vec![ShardId(77); 100] },
            Some("it is about a shard that does not stand here"),
        ),
        (
            peer,
            PeerMessage::LeadershipAnswer { round, shards: Vec::new() },
            Some("it answers for no shard, or for more than one message may"),
        ),
        (peer, too_many, Some("it answers for no shard, or for more than one message may")),
    ];
    for (from, message, refused) in cases {
        let outputs = hear(&mut cluster, leader, from, message.clone());
        assert!(!answers(&outputs, read), "{message:?}");
        assert_eq!(refusals(&outputs), Vec::from_iter(refused), "{message:?}");
    }
    let outputs = hear(&mut cluster, leader, peer, answer(round, shard));
    assert!(answers(&outputs, read));
}

#[test]
fn a_replica_recognises_the_leader_of_its_own_term_only() {
    let (mut cluster, shard, leader, _, asked) = begin();
    let (peer, round, claimed) = asked[0].clone();
    let [claimed] = claimed.as_slice() else { panic!("{claimed:?}") };
    let members: Vec<NodeId> = asked.iter().map(|(to, ..)| *to).chain([leader]).collect();
    let stranger = *cluster.nodes.keys().find(|node| !members.contains(node)).unwrap();
    let (earlier, later) = (Term(claimed.term.0 - 1), claimed.term.next());
    let other = ReplicaId(claimed.replica.0 + 1);
    let elsewhere = ShardId(77);
    let cases = [
        (leader, vec![ClaimedLeadership { term: earlier, ..*claimed }], None),
        (leader, vec![ClaimedLeadership { term: later, ..*claimed }], None),
        (leader, vec![ClaimedLeadership { replica: other, ..*claimed }], Some("it is for another replica")),
        (stranger, vec![*claimed], Some("its sender is not the group's replica on that node")),
        (
            leader,
            vec![ClaimedLeadership { shard: elsewhere, ..*claimed }],
            Some("it is about a shard that does not stand here"),
        ),
        (
            leader,
            vec![ClaimedLeadership { term: Term(u64::MAX), ..*claimed }; 100],
            Some("an index or a term that no log reaches"),
        ),
        (leader, Vec::new(), Some("it asks of no shard, or of more than one message may")),
        (leader, vec![*claimed; LEADERSHIPS_MAX + 1], Some("it asks of no shard, or of more than one message may")),
    ];
    for (from, leaderships, refused) in cases {
        let outputs = hear(&mut cluster, peer, from, PeerMessage::LeadershipAsk { round, leaderships });
        assert!(!outputs.iter().any(|output| matches!(output, Output::Send { .. })), "{outputs:?}");
        assert_eq!(refusals(&outputs), Vec::from_iter(refused));
    }
    let leaderships = vec![*claimed];
    let outputs = hear(&mut cluster, peer, leader, PeerMessage::LeadershipAsk { round, leaderships });
    let [Output::Send { message, .. }] = outputs.as_slice() else { panic!("{outputs:?}") };
    assert_eq!(message, &PeerMessage::LeadershipAnswer { round, shards: vec![shard] });
}

#[test]
fn a_round_whose_messages_are_lost_is_asked_again() {
    let (mut cluster, _, leader, read, asked) = begin();
    let settings = Settings::default();
    let mut again = Vec::new();
    for _ in 0..settings.heartbeat_ticks {
        assert_eq!(again, [], "only when a heartbeat's time has passed");
        cluster.inputs.get_mut(&leader).unwrap().push(Input::Tick);
        let outputs = turn(&mut cluster, leader);
        again.extend(outputs.into_iter().filter_map(|output| match output {
            Output::Send { to, message: message @ PeerMessage::LeadershipAsk { .. } } => Some((to, message)),
            _ => None,
        }));
    }
    assert_eq!(again.len(), asked.len());
    let (to, message) = again.swap_remove(0);
    let PeerMessage::LeadershipAsk { round, .. } = &message else { panic!("{message:?}") };
    assert_eq!(round.number, asked[0].1.number + 1);
    let outputs = hear(&mut cluster, to, leader, message);
    let answer = outputs.into_iter().find_map(|output| match output {
        Output::Send { message: message @ PeerMessage::LeadershipAnswer { .. }, .. } => Some(message),
        _ => None,
    });
    let outputs = hear(&mut cluster, leader, to, answer.unwrap());
    assert!(answers(&outputs, read));
}

#[test]
fn a_shard_is_named_once_however_often_it_asks_in_a_turn() {
    let (mut cluster, shard, leader, _, asked_before) = begin();
    for _ in 0..Settings::default().heartbeat_ticks {
        cluster.inputs.get_mut(&leader).unwrap().push(Input::Tick);
    }
    // The round is asked again, and one begins for a read that came since.
    cluster.ask(leader, shard, get("a", Consistency::Linearizable));
    let outputs = turn(&mut cluster, leader);
    let lists = outputs.iter().filter_map(|output| match output {
        Output::Send { message: PeerMessage::LeadershipAsk { leaderships, .. }, .. } => Some(leaderships.len()),
        _ => None,
    });
    assert_eq!(lists.collect::<Vec<_>>(), vec![1; asked_before.len()]);
}
