//! Who replicates a shard: voters and learners, and the node on which each of them stands.

use std::collections::BTreeMap;

use crate::{
    codec::{CodecError, Reader, put_u8, put_varint},
    types::{NodeId, ReplicaId},
};

/// Who is in a shard's group (raft's ConfState), and on which node each replica stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// Replicas that vote, ascending.
    pub voters: Vec<ReplicaId>,
    /// Replicas that only follow, ascending.
    pub learners: Vec<ReplicaId>,
    /// In a joint configuration, the voters of the old half, ascending.
    pub voters_outgoing: Vec<ReplicaId>,
    /// In a joint configuration, voters of the old half that become learners, ascending.
    pub learners_next: Vec<ReplicaId>,
    /// Whether the joint configuration is left without being asked to.
    pub auto_leave: bool,
    /// The node of every replica named above.
    pub nodes: BTreeMap<ReplicaId, NodeId>,
}

/// Most replicas of a kind in a configuration. One with more does not decode.
pub const REPLICAS_MAX: usize = 64;

impl Configuration {
    /// Whether a majority of the voters is such; in a joint configuration, one of each half.
    #[must_use]
    pub fn is_majority(&self, is_such: impl Fn(ReplicaId) -> bool) -> bool {
        let holds = |half: &[ReplicaId]| half.iter().filter(|replica| is_such(**replica)).count() > half.len() / 2;
        holds(&self.voters) && (self.voters_outgoing.is_empty() || holds(&self.voters_outgoing))
    }

    /// About how many bytes it takes on disk; never fewer than it takes.
    #[must_use]
    pub fn bytes_about(&self) -> usize {
        16 + 10 * (self.voters.len() + self.learners.len() + self.voters_outgoing.len() + self.learners_next.len())
            + 20 * self.nodes.len()
    }

    /// Appends its encoding.
    pub fn encode(&self, out: &mut Vec<u8>) {
        for group in [&self.voters, &self.learners, &self.voters_outgoing, &self.learners_next] {
            put_varint(out, group.len() as u64);
            for replica in group {
                put_varint(out, replica.0);
            }
        }
        put_u8(out, u8::from(self.auto_leave));
        put_varint(out, self.nodes.len() as u64);
        for (replica, node) in &self.nodes {
            put_varint(out, replica.0);
            put_varint(out, node.0);
        }
    }

    /// Reads what [`Configuration::encode`] wrote.
    ///
    /// # Errors
    /// If the bytes are damaged, or it is none that a group can have: raft stops at one of those.
    pub fn decode(reader: &mut Reader) -> Result<Self, CodecError> {
        let mut group = || {
            let count = reader.count(1)?;
            if count > REPLICAS_MAX {
                return Err(CodecError("a configuration of at most 64 replicas a kind"));
            }
            (0..count).map(|_| reader.varint().map(ReplicaId)).collect::<Result<Vec<_>, _>>()
        };
        let (voters, learners, voters_outgoing, learners_next) = (group()?, group()?, group()?, group()?);
        let auto_leave = reader.bool()?;
        let count = reader.count(2)?;
        if count > 4 * REPLICAS_MAX {
            return Err(CodecError("nodes of the configuration's replicas only"));
        }
        let mut nodes = BTreeMap::new();
        for _ in 0..count {
            let replica = ReplicaId(reader.varint()?);
            if nodes.last_key_value().is_some_and(|(last, _)| *last >= replica) {
                return Err(CodecError("nodes of replicas that rise"));
            }
            nodes.insert(replica, NodeId(reader.varint()?));
        }
        let configuration = Self { voters, learners, voters_outgoing, learners_next, auto_leave, nodes };
        configuration.check()?;
        Ok(configuration)
    }

    /// Whether a group can have it (raft-rs, `conf_state` and the joint configurations of the Raft thesis, 4.3).
    fn check(&self) -> Result<(), CodecError> {
        let Self { voters, learners, voters_outgoing, learners_next, auto_leave, nodes } = self;
        let groups = [voters, learners, voters_outgoing, learners_next];
        if !groups.iter().all(|group| group.is_sorted_by(|one, next| one < next) && !group.contains(&ReplicaId(0))) {
            return Err(CodecError("replicas that rise from 1"));
        }
        if !groups.into_iter().flatten().all(|replica| nodes.contains_key(replica)) {
            return Err(CodecError("a node for each replica"));
        }
        let apart = |one: &[ReplicaId], other: &[ReplicaId]| !one.iter().any(|replica| other.contains(replica));
        if !apart(voters, learners) || !apart(voters, learners_next) || !apart(learners, learners_next) {
            return Err(CodecError("replicas that vote or follow, not both"));
        }
        if !apart(learners, voters_outgoing) || !learners_next.iter().all(|next| voters_outgoing.contains(next)) {
            return Err(CodecError("learners to come that vote until then"));
        }
        if voters.is_empty() && !nodes.is_empty() || voters_outgoing.is_empty() && *auto_leave {
            return Err(CodecError("a configuration with voters, joint if it is to be left"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(configuration: &Configuration) -> Result<Configuration, CodecError> {
        let mut bytes = Vec::new();
        configuration.encode(&mut bytes);
        Configuration::decode(&mut Reader::new(bytes.into()))
    }

    fn ids(ids: &[u64]) -> Vec<ReplicaId> {
        ids.iter().copied().map(ReplicaId).collect()
    }

    #[test]
    fn only_what_a_group_can_have_decodes() {
        let nodes = (1..=5).map(|id| (ReplicaId(id), NodeId(id))).collect();
        let plain = Configuration { voters: ids(&[1, 2, 3]), learners: ids(&[5]), nodes, ..Configuration::default() };
        let joint = Configuration {
            voters_outgoing: ids(&[1, 2, 4]),
            learners_next: ids(&[4]),
            auto_leave: true,
            ..plain.clone()
        };
        for good in [&Configuration::default(), &plain, &joint] {
            assert_eq!(decoded(good).as_ref(), Ok(good));
        }
        let many: Vec<u64> = (1..=REPLICAS_MAX as u64 + 1).collect();
        for bad in [
            Configuration { voters: ids(&[2, 1]), ..plain.clone() },
            Configuration { voters: ids(&[1, 1, 2]), ..plain.clone() },
            Configuration { voters: ids(&[0, 1]), ..plain.clone() },
            Configuration { voters: ids(&[1, 5]), ..plain.clone() },
            Configuration { voters: ids(&[1, 6]), ..plain.clone() },
            Configuration { voters: ids(&[]), ..plain.clone() },
            Configuration { voters: ids(&many), ..plain.clone() },
            Configuration { learners_next: ids(&[4]), ..plain.clone() },
            Configuration { auto_leave: true, ..plain.clone() },
            Configuration { voters_outgoing: ids(&[1, 5]), ..joint.clone() },
            Configuration { voters: ids(&[1, 4]), ..joint },
        ] {
            assert!(decoded(&bad).is_err(), "{bad:?}");
        }
    }
}
