//! What the liar says of reads: rounds that nobody asked or another did, of terms that never were, about shards that stand
//! elsewhere or nowhere, in lists without items and of more than there may be; and answers to questions that were for others.

use kv_core::{
    message::{ClaimedLeadership, LEADERSHIPS_MAX, LeadershipRound, PeerMessage},
    types::{LogIndex, NodeId, ReplicaId, ShardId, Term},
};

use super::{liar::Script, world::Cluster};

/// A round that was asked, nearly, or one that never was.
fn round(asked: Option<LeadershipRound>, script: &mut Script) -> LeadershipRound {
    let LeadershipRound { run, number } = asked.unwrap_or(LeadershipRound { run: 1, number: 0 });
    let run = if script.byte() < 240 { run } else { script.number(run) };
    LeadershipRound { run, number: script.number(number) }
}

/// How many a list has: few, none, or about as many as one may have.
fn count(script: &mut Script) -> usize {
    match script.byte() {
        0..6 => LEADERSHIPS_MAX - 2 + script.below(5),
        6..20 => 0,
        byte => 1 + usize::from(byte) % 5,
    }
}

/// A list of that many; a long one says the same again and again.
fn list<T: Clone>(count: usize, script: &mut Script, mut item: impl FnMut(&mut Script) -> T) -> Vec<T> {
    let mut list: Vec<T> = (0..count.min(5)).map(|_| item(script)).collect();
    if let Some(last) = list.last().cloned() {
        list.resize(count, last);
    }
    list
}

/// A shard that stands somewhere, or one of any number.
fn some_shard(near: ShardId, script: &mut Script) -> ShardId {
    if script.byte() < 200 { near } else { ShardId(script.number(near.0)) }
}

impl Cluster {
    pub(super) fn leadership_ask(&self, node: NodeId, shard: ShardId, script: &mut Script) -> PeerMessage {
        let round = LeadershipRound { run: script.number(9), number: script.number(1) };
        let leaderships = list(count(script), script, |script| {
            let shard = some_shard(shard, script);
            let (replica, _, term, ..) = self.truth(node, shard);
            let replica = if script.byte() < 220 { replica } else { ReplicaId(script.number(replica.0)) };
            ClaimedLeadership { shard, replica, term: Term(script.number(term)) }
        });
        PeerMessage::LeadershipAsk { round, leaderships }
    }

    pub(super) fn leadership_answer(&self, node: NodeId, shard: ShardId, script: &mut Script) -> PeerMessage {
        let round = round(self.asked.get(&node).copied(), script);
        PeerMessage::LeadershipAnswer { round, shards: list(count(script), script, |script| some_shard(shard, script)) }
    }

    /// An answer to a question that a node asked the leader, or never did.
    pub(super) fn probe_answer(&self, node: NodeId, shard: ShardId, script: &mut Script) -> PeerMessage {
        let (asked, near) = (self.probes.get(&(node, shard)).copied(), self.truth(node, shard).3);
        let probe = if script.byte() < 200 { asked.unwrap_or(1) } else { script.number(asked.unwrap_or(1)) };
        let index = (script.byte() < 200).then(|| LogIndex(script.number(near)));
        PeerMessage::ReadProbeAnswer { shard, probe, index }
    }
}
