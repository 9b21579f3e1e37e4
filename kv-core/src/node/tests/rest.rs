//! What a node says is the same, turn for turn, whether its replicas may rest or not.

use super::*;

/// splitmix64.
struct Random(u64);

impl Random {
    /// A number below this one.
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

/// A run of a cluster in which nodes are silent now and then, are asked a few things, and have their turns and ticks at odd times.
struct Run {
    cluster: Cluster,
    random: Random,
    /// Whether all replicas are woken before each turn.
    wakes: bool,
    said: Vec<String>,
    /// Replicas that rested at the end of a turn, counted over all turns.
    rested: usize,
    roles: usize,
}

impl Run {
    fn begin(seed: u64, wakes: bool) -> Self {
        let settings =
            Settings { hand_over_ticks: 30, hand_over_pause_ticks: 60, checkpoint_ticks: 90, ..Settings::default() };
        let cluster = Cluster::start(3, 5, &settings);
        Self { cluster, random: Random(seed), wakes, said: Vec::new(), rested: 0, roles: 0 }
    }

    fn turn(&mut self, id: NodeId) {
        let mut inputs = std::mem::take(self.cluster.inputs.get_mut(&id).unwrap());
        if inputs.is_empty() {
            return;
        }
        let node = self.cluster.nodes.get_mut(&id).unwrap();
        if self.wakes {
            node.replicas.slots().for_each(|slot| _ = slot.awake());
        }
        let mut outputs = Vec::new();
        self.cluster.now = self.cluster.now.plus_micros(10);
        node.turn(self.cluster.now, &mut inputs, &mut outputs);
        self.rested += node.replicas.at_rest();
        let is_role = |output: &&Output| matches!(output, Output::Notice(Notice::Role { .. }));
        self.roles += outputs.iter().filter(is_role).count();
        self.said.push(format!("{id} {outputs:?}"));
        self.cluster.perform(id, outputs);
    }

    fn step(&mut self) {
        let node = NodeId(1 + self.random.below(3));
        match self.random.below(400) {
            0..=1 => self.cluster.silent = Some(node),
            2..=9 => self.cluster.silent = None,
            10 => self
                .cluster
                .inputs
                .get_mut(&node)
                .unwrap()
                .push(Input::Undelivered { to: NodeId(node.0 % 3 + 1), shard: None }),
            11..=15 => {
                let name = format!("k{}", self.random.below(40));
                let (shard, operation) = match self.random.below(3) {
                    0 => (self.shard_of(&name), put(write(&name, "v"), Durability::Sync)),
                    1 => (self.shard_of(&name), get(&name, Consistency::Linearizable)),
                    _ => (self.shard_of(&name), get(&name, Consistency::Bounded { age_micros_max: 100_000 })),
                };
                self.cluster.ask(node, shard, operation);
            }
            16 => {
                let shard = ShardId(self.random.below(6));
                self.cluster.ask(node, shard, Operation::TransferLeader { to: NodeId(node.0 % 3 + 1) });
            }
            17..=80 => {
                self.cluster.now = self.cluster.now.plus_micros(20_000);
                let late = self.random.below(20);
                for (id, inputs) in &mut self.cluster.inputs {
                    // Some clocks are slow, and now and then a node has had no turn since its last tick.
                    if id.0 != late {
                        inputs.push(Input::Tick);
                    }
                }
            }
            _ => self.turn(node),
        }
    }

    fn shard_of(&self, name: &str) -> ShardId {
        let checked = self.cluster.nodes[&NodeId(1)].keeper.checked();
        checked.row_at(crate::ring::position(name.as_bytes())).unwrap().shard
    }
}

#[test]
fn nothing_that_a_node_says_differs_for_replicas_that_rest() {
    let (mut rested, mut woken, mut roles, mut unsent) = (0, 0, 0, 0);
    for seed in 0..12 {
        let mut resting = Run::begin(seed, false);
        let mut awake = Run::begin(seed, true);
        for step in 0..6_000 {
            resting.step();
            unsent += crate::points::take().of(crate::points::Point::PulseWokenUnsent);
            awake.step();
            let _of_the_other = crate::points::take();
            assert_eq!(resting.said.pop(), awake.said.pop(), "seed {seed}, step {step}");
        }
        for (id, node) in &resting.cluster.nodes {
            let (mut one, mut other) = (node.status(), awake.cluster.nodes[id].status());
            for shard in one.shards.iter_mut().chain(&mut other.shards) {
                // Of these a replica at rest may tell what was known when it was last awake.
                shard.followers.iter_mut().for_each(|follower| follower.active = true);
            }
            assert_eq!(one, other, "seed {seed}");
        }
        rested += resting.rested;
        woken += awake.rested;
        roles += resting.roles;
    }
    assert!(rested > 100_000 && rested > woken, "{rested} rested, {woken} of those that are woken before each turn");
    assert!(unsent > 10, "{unsent} were woken with something to send");
    assert!(roles > 300, "{roles} changes of leaders were told");
}

#[test]
fn a_leader_at_rest_that_is_asked_for_a_newer_state_proposes_a_mark_at_its_next_tick() {
    let mut cluster = Cluster::start(3, 1, &Settings::default());
    let shard = ShardId(1);
    let leader = cluster.leader(shard);
    cluster.run_ticks(40);
    let asker = NodeId(leader.0 % 3 + 1);
    let node = cluster.nodes.get_mut(&leader).unwrap();
    assert!(node.replicas.pulse(shard).is_some(), "it rests");
    let last = node.shard_status(shard).unwrap().last_index;
    let mut turn = |input| {
        let mut outputs = Vec::new();
        cluster.now = cluster.now.plus_micros(1_000);
        node.turn(cluster.now, &mut vec![input], &mut outputs);
        assert!(node.changed_shards().contains(&shard), "what it is asked for changes what waits");
        outputs.iter().any(|output| matches!(output, Output::LogBatch(_)))
    };
    let message = PeerMessage::StateAsk { shard, at_least: last.next(), at_most: LogIndex(u64::MAX) };
    assert!(!turn(Input::Peer { from: asker, message }));
    assert!(turn(Input::Tick), "the mark is on its way");
}
