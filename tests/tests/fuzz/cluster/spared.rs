//! Shards that no lie may touch, for one of three reasons, and what must hold of them.

use kv_core::{
    io::Consistency,
    message::PeerMessage,
    shard_map::{ShardMap, ShardRow},
    types::{NodeId, RequestId, ShardId, Term},
};

use super::{
    HONEST, LIAR, NODES, plain,
    world::{Cluster, EVERYWHERE, IN_PAIRS},
};

/// Ticks within which a spared shard takes a write and answers reads, whatever the liar says meanwhile.
const SPARED_TICKS: usize = 10;
/// How old a state a client bears with.
const AGE_MICROS_MAX: u64 = 1_000_000;

/// Why nothing that the liar says can touch a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It says nothing of it.
    Silent,
    /// It holds the shard, and says of it only what must be harmless.
    Harmless,
    /// It does not hold the shard: whatever it says of it must be harmless.
    Foreign,
}

/// A spared shard, and how it stood on each of its nodes when the lies began.
pub(super) struct Spared {
    pub(super) shard: ShardId,
    pub(super) why: Why,
    stood: Vec<(Term, Option<NodeId>)>,
}

impl Spared {
    /// A cluster as the first byte of a script asks for, and the shard that is spared in it, if one is.
    pub(super) fn begin(byte: u8) -> (Cluster, Option<Self>) {
        let shard = ShardId([1, 2, 1, 0][usize::from(byte / 8 % 4)]);
        let spared = match byte % 8 {
            0 | 1 => None,
            2 | 3 => Some((shard, Why::Silent)),
            4 | 5 => Some((shard, Why::Harmless)),
            _ => {
                let is_foreign = |row: &&ShardRow| row.replica_on(LIAR).is_none();
                let row = IN_PAIRS.map.shards.iter().find(is_foreign).expect("of three pairs one is without the liar");
                Some((row.shard, Why::Foreign))
            }
        };
        let is_foreign = spared.is_some_and(|(_, why)| why == Why::Foreign);
        let mut cluster = Cluster::start(if is_foreign { &IN_PAIRS } else { &EVERYWHERE });
        let spared = spared.map(|(shard, why)| {
            cluster.clients.judge(shard);
            Self { shard, why, stood: Self::stand(shard, &cluster) }
        });
        (cluster, spared)
    }

    fn stand(shard: ShardId, cluster: &Cluster) -> Vec<(Term, Option<NodeId>)> {
        let status = NODES.iter().filter_map(|node| cluster.nodes[node].shard_status(shard));
        status.map(|status| (status.term, status.leader)).collect()
    }

    /// What is left of a message to a node, if the shard is to be spared by it.
    pub(super) fn leave_alone(
        &self,
        to: NodeId,
        from: NodeId,
        message: PeerMessage,
        at: &Cluster,
    ) -> Option<PeerMessage> {
        match message {
            PeerMessage::LeadershipAsk { round, mut leaderships } => {
                leaderships.retain(|claimed| self.why != Why::Silent || claimed.shard != self.shard);
                // A connection says whose it is.
                (!HONEST.contains(&from)).then_some(PeerMessage::LeadershipAsk { round, leaderships })
            }
            PeerMessage::LeadershipAnswer { round, mut shards } => {
                shards.retain(|shard| self.why != Why::Silent || *shard != self.shard);
                (!HONEST.contains(&from)).then_some(PeerMessage::LeadershipAnswer { round, shards })
            }
            message if message.shard() != Some(self.shard) => Some(message),
            message => self.is_harmless(to, from, &message, at).then_some(message),
        }
    }

    fn is_harmless(&self, to: NodeId, from: NodeId, message: &PeerMessage, at: &Cluster) -> bool {
        match self.why {
            Why::Silent => false,
            _ if HONEST.contains(&from) => false,
            Why::Foreign => true,
            Why::Harmless => asks_only(message, self.shard, at) || plain::is_plain_lie(at.map(), to, from, message),
        }
    }

    /// Nothing has happened to it; it takes a write and answers reads while others are in whatever state the liar has brought
    /// them to, and has left nobody who asked its leader without an answer.
    pub(super) fn check(&self, cluster: &mut Cluster) {
        let shard = self.shard;
        let stands = Self::stand(shard, cluster);
        assert_eq!(stands, self.stood, "shard {shard}, of which nobody lied, has another leader");
        let out = cluster.quarantined.keys().find(|(_, other)| *other == shard);
        assert_eq!(out, None, "a replica of which nobody lied is out of service");
        let leader = cluster.leader(shard, &NODES).expect("a leader that did not change is there");
        if cluster.needs_files(shard, &holders(cluster.map(), shard)) {
            return;
        }
        let Some(is_written) = takes_a_write(cluster, leader, shard) else { return };
        let status = || NODES.map(|node| cluster.nodes[&node].shard_status(shard));
        assert!(is_written, "shard {shard}, of which nobody lied, takes no writes: {:#?}", status());
        let reads: Vec<RequestId> = holders(cluster.map(), shard)
            .into_iter()
            .filter_map(|node| {
                let bounded = Consistency::Bounded { age_micros_max: AGE_MICROS_MAX };
                cluster.read(node, shard, if node == leader { Consistency::Linearizable } else { bounded })
            })
            .collect();
        let are_read = |cluster: &Cluster| reads.iter().all(|read| cluster.clients.read.contains_key(read));
        assert!(within(cluster, SPARED_TICKS, are_read), "shard {shard}, of which nobody lied, answers no reads");
        // A follower that was behind asks once more if what it heard has become too old meanwhile.
        let are_answered = |cluster: &Cluster| cluster.clients.open(shard) == 0;
        assert!(
            within(cluster, SPARED_TICKS, are_answered),
            "shard {shard}, of which nobody lied, leaves requests unanswered"
        );
    }
}

/// What a member may ask for, whatever the numbers in it, and what it says of rounds: as long as nobody else was elected, who
/// recognises the leader that there is says what is true.
fn asks_only(message: &PeerMessage, shard: ShardId, at: &Cluster) -> bool {
    match message {
        PeerMessage::ReadProbe { .. }
        | PeerMessage::StateAsk { .. }
        | PeerMessage::SnapshotWant { .. }
        | PeerMessage::SnapshotChunk { .. }
        | PeerMessage::SnapshotEnd { .. } => true,
        // A leader's word is what followers go by.
        PeerMessage::ReadProbeAnswer { .. } => at.leader(shard, &[LIAR]).is_none(),
        _ => false,
    }
}

fn holders(map: &ShardMap, shard: ShardId) -> Vec<NodeId> {
    let row = map.shards.iter().find(|row| row.shard == shard);
    NODES.into_iter().filter(|node| row.is_some_and(|row| row.replica_on(*node).is_some())).collect()
}

/// Whether a write is acknowledged in time. It is asked again each tick: who has just been written to as fast as can be refuses until
/// a checkpoint has made room. `None` of the meta shard, which has no keys to write.
fn takes_a_write(cluster: &mut Cluster, leader: NodeId, shard: ShardId) -> Option<bool> {
    let mut writes = Vec::new();
    for _ in 0..SPARED_TICKS {
        writes.push(cluster.write(leader, shard, 10)?);
        cluster.settle();
        if writes.iter().any(|write| cluster.clients.written.contains_key(write)) {
            return Some(true);
        }
        cluster.tick(1);
    }
    Some(writes.iter().any(|write| cluster.clients.written.contains_key(write)))
}

fn within(cluster: &mut Cluster, ticks: usize, is_so: impl Fn(&Cluster) -> bool) -> bool {
    cluster.settle();
    is_so(cluster)
        || (0..ticks).any(|_| {
            cluster.tick(1);
            is_so(cluster)
        })
}
