//! Reads of bounded age at a replica that does not lead: whose answers to its questions count, and whose questions are heard.

use super::*;

const BOUNDED: Consistency = Consistency::Bounded { age_micros_max: 1_000_000 };

/// A cluster of five, of which three hold `a`'s shard.
struct Place {
    cluster: Cluster,
    shard: ShardId,
    leader: NodeId,
    /// The other two that hold it.
    followers: [NodeId; 2],
    /// One that does not.
    stranger: NodeId,
}

fn place(settings: &Settings) -> Place {
    let cluster = Cluster::start(5, 4, settings);
    let (shard, leader) = cluster.place(&key("a"));
    let (members, strangers): (Vec<NodeId>, Vec<NodeId>) =
        cluster.nodes.keys().copied().partition(|node| cluster.nodes[node].shard_status(shard).is_some());
    let followers: Vec<_> = members.into_iter().filter(|node| *node != leader).collect();
    Place { shard, leader, followers: followers.try_into().unwrap(), stranger: strangers[0], cluster }
}

impl Place {
    /// One turn of a node; what it says reaches nobody.
    fn turn(&mut self, node: NodeId) -> Vec<Output> {
        let mut inputs = std::mem::take(self.cluster.inputs.get_mut(&node).unwrap());
        let mut outputs = Vec::new();
        self.cluster.now = self.cluster.now.plus_micros(10);
        self.cluster.nodes.get_mut(&node).unwrap().turn(self.cluster.now, &mut inputs, &mut outputs);
        outputs
    }

    fn hear(&mut self, node: NodeId, from: NodeId, message: PeerMessage) -> Vec<Output> {
        self.cluster.inputs.get_mut(&node).unwrap().push(Input::Peer { from, message });
        self.turn(node)
    }

    /// A read at a follower, and the number of the question that it made the follower ask.
    fn ask(&mut self, follower: NodeId) -> (RequestId, u64) {
        let read = self.cluster.ask(follower, self.shard, get("a", BOUNDED));
        let outputs = self.turn(follower);
        let probe = outputs.iter().find_map(|output| match output {
            Output::Send { to, message: PeerMessage::ReadProbe { probe, .. } } if *to == self.leader => Some(*probe),
            _ => None,
        });
        (read, probe.expect("the leader is asked"))
    }

    fn answer(&self, probe: u64, index: u64) -> PeerMessage {
        PeerMessage::ReadProbeAnswer { shard: self.shard, probe, index: Some(LogIndex(index)) }
    }
}

fn answers(outputs: &[Output], request: RequestId) -> bool {
    outputs
        .iter()
        .any(|output| matches!(output, Output::Reply { request: of, result: Ok(Answer::Got { .. }) } if *of == request))
}

fn refusals(outputs: &[Output]) -> Vec<&'static str> {
    let refusal = |output: &Output| match output {
        Output::Notice(Notice::Refused { reason, .. }) => Some(*reason),
        _ => None,
    };
    outputs.iter().filter_map(refusal).collect()
}

#[test]
fn only_the_leader_that_was_asked_proves_how_new_a_state_is() {
    let mut place = place(&Settings::default());
    let [follower, other] = place.followers;
    let (read, probe) = place.ask(follower);
    let (leader, stranger) = (place.leader, place.stranger);
    let cases = [
        (stranger, place.answer(probe, 1), Some("its sender is not the group's replica on that node")),
        (other, place.answer(probe, 1), Some("it answers what another was asked")),
        (leader, place.answer(probe + 1, 1), None),
        (leader, place.answer(probe, u64::MAX), Some("an index or a term that no log reaches")),
    ];
    for (from, message, refused) in cases {
        let outputs = place.hear(follower, from, message.clone());
        assert!(!answers(&outputs, read), "{message:?}");
        assert_eq!(refusals(&outputs), Vec::from_iter(refused), "{message:?}");
    }
    let message = place.answer(probe, 1);
    assert!(answers(&place.hear(follower, leader, message), read));
}

#[test]
fn who_knows_no_index_is_asked_again_at_the_next_tick_and_not_before() {
    let mut place = place(&Settings::default());
    let [follower, _] = place.followers;
    let (read, probe) = place.ask(follower);
    let message = PeerMessage::ReadProbeAnswer { shard: place.shard, probe, index: None };
    let outputs = place.hear(follower, place.leader, message);
    assert!(outputs.is_empty(), "{outputs:?}");
    place.cluster.inputs.get_mut(&follower).unwrap().push(Input::Tick);
    let outputs = place.turn(follower);
    let asks = |output: &Output| matches!(output, Output::Send { message: PeerMessage::ReadProbe { .. }, .. });
    assert_eq!(outputs.iter().filter(|output| asks(output)).count(), 1);
    place.cluster.perform(follower, outputs);
    place.cluster.settle();
    assert!(matches!(place.cluster.replies.get(&read), Some(Ok(Answer::Got { .. }))));
}

/// What no answer can be new enough for is asked for until its time is over, but not as fast as the network brings answers.
#[test]
fn a_read_that_wants_a_state_too_new_is_asked_for_once_a_tick() {
    let mut place = place(&Settings::default());
    let (shard, leader, [follower, other]) = (place.shard, place.leader, place.followers);
    let asks = |outputs: &[Output]| {
        let ask = |output: &&Output| {
            let Output::Send { message, .. } = output else { return false };
            matches!(message, PeerMessage::ReadProbe { .. } | PeerMessage::LeadershipAsk { .. })
        };
        outputs.iter().filter(ask).count()
    };
    // Each turn is 10 us after the one before.
    let too_new = get("a", Consistency::Bounded { age_micros_max: 9 });
    let at_follower = place.cluster.ask(follower, shard, too_new.clone());
    let outputs = place.turn(follower);
    let Some(Output::Send { message: PeerMessage::ReadProbe { probe, .. }, .. }) = outputs.first() else {
        panic!("the leader is asked: {outputs:?}")
    };
    let message = place.answer(*probe, 1);
    let outputs = place.hear(follower, leader, message);
    assert!(!answers(&outputs, at_follower) && asks(&outputs) == 0, "{outputs:?}");

    let at_leader = place.cluster.ask(leader, shard, too_new);
    let outputs = place.turn(leader);
    let round = outputs.iter().find_map(|output| match output {
        Output::Send { message: PeerMessage::LeadershipAsk { round, .. }, .. } => Some(*round),
        _ => None,
    });
    let (round, shards) = (round.unwrap(), vec![shard]);
    let outputs = place.hear(leader, other, PeerMessage::LeadershipAnswer { round, shards });
    assert!(!answers(&outputs, at_leader) && asks(&outputs) == 0, "{outputs:?}");

    for (node, asked) in [(follower, 1), (leader, 2)] {
        place.cluster.inputs.get_mut(&node).unwrap().push(Input::Tick);
        let outputs = place.turn(node);
        assert_eq!(asks(&outputs), asked, "{outputs:?}");
        place.cluster.perform(node, outputs);
    }
    // Nothing goes on by itself, and in the end both are told.
    place.cluster.settle();
    place.cluster.run_ticks(150);
    for read in [at_follower, at_leader] {
        let error = place.cluster.replies[&read].as_ref().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
    }
}

#[test]
fn an_index_that_only_an_earlier_leader_knew_is_not_waited_for_in_vain() {
    let mut place = place(&Settings::default());
    let [follower, other] = place.followers;
    let (read, probe) = place.ask(follower);
    let message = place.answer(probe, 1_000_000);
    let outputs = place.hear(follower, place.leader, message);
    assert!(!answers(&outputs, read) && refusals(&outputs).is_empty());
    place.cluster.ask(place.leader, place.shard, Operation::TransferLeader { to: other });
    place.cluster.run_ticks(20);
    assert_eq!(place.cluster.leader(place.shard), other);
    assert!(matches!(place.cluster.replies.get(&read), Some(Ok(Answer::Got { .. }))));
}

#[test]
fn who_does_not_hold_the_shard_is_told_no_index() {
    let mut place = place(&Settings::default());
    let (leader, shard) = (place.leader, place.shard);
    let outputs = place.hear(leader, place.stranger, PeerMessage::ReadProbe { shard, probe: 7 });
    assert_eq!(refusals(&outputs), ["its sender is not the group's replica on that node"]);
    assert!(!outputs.iter().any(|output| matches!(output, Output::Send { .. })), "{outputs:?}");
}

#[test]
fn a_peer_that_asks_without_end_takes_no_clients_place_and_is_answered_once() {
    let mut place = place(&Settings { waiting_requests_max: 4, ..Settings::default() });
    let (leader, shard) = (place.leader, place.shard);
    let from = place.followers[0];
    let inputs = place.cluster.inputs.get_mut(&leader).unwrap();
    inputs.extend((1..=20).map(|probe| Input::Peer { from, message: PeerMessage::ReadProbe { shard, probe } }));
    let read = place.cluster.ask(leader, shard, get("a", Consistency::Linearizable));
    let outputs = place.turn(leader);
    let refusal = outputs.iter().find(|output| matches!(output, Output::Reply { request, .. } if *request == read));
    assert!(refusal.is_none(), "{refusal:?}");
    place.cluster.perform(leader, outputs);
    place.cluster.silent = Some(from);
    let mut said = Vec::new();
    while let Some(node) = place.cluster.inputs.iter().find(|(_, inputs)| !inputs.is_empty()).map(|(node, _)| *node) {
        let outputs = place.turn(node);
        said.extend(outputs.iter().filter_map(|output| match output {
            Output::Send { to, message: PeerMessage::ReadProbeAnswer { probe, .. } } => Some((*to, *probe)),
            _ => None,
        }));
        place.cluster.perform(node, outputs);
    }
    assert_eq!(said, [(from, 20)]);
    assert!(matches!(place.cluster.replies.get(&read), Some(Ok(Answer::Got { .. }))));
}
