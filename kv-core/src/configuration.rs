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

impl Configuration {
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
    /// If the bytes are damaged.
    pub fn decode(reader: &mut Reader) -> Result<Self, CodecError> {
        let mut group = || {
            let count = reader.count(1)?;
            (0..count).map(|_| reader.varint().map(ReplicaId)).collect::<Result<Vec<_>, _>>()
        };
        let (voters, learners, voters_outgoing, learners_next) = (group()?, group()?, group()?, group()?);
        let auto_leave = reader.bool()?;
        let count = reader.count(2)?;
        let mut nodes = BTreeMap::new();
        for _ in 0..count {
            nodes.insert(ReplicaId(reader.varint()?), NodeId(reader.varint()?));
        }
        Ok(Self { voters, learners, voters_outgoing, learners_next, auto_leave, nodes })
    }
}
