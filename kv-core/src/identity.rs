//! Who a node is, and whether two nodes may talk: the judgement of a handshake.
//!
//! Nothing but handshakes that were accepted reach a shard. A node whose disk was wiped must not speak as the one it was: it
//! has forgotten its votes and what it acknowledged.

use std::fmt;

use crate::{
    founding::FoundingRecord,
    types::{ClusterId, Incarnation, NodeId},
};

/// The version of what nodes say to each other. Nodes of different versions don't talk.
pub const PEER_PROTOCOL: u32 = 1;

/// A founded node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// Its data directory's incarnation.
    pub incarnation: Incarnation,
}

/// How a node introduces itself to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The version that it speaks.
    pub protocol: u32,
    /// Its cluster; `None` if it is unfounded.
    pub cluster: Option<ClusterId>,
    /// The node.
    pub node: NodeId,
    /// Its data directory's incarnation.
    pub incarnation: Incarnation,
}

/// Why a founded node doesn't talk to another. Its text is for people, at the node that introduced itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It speaks another version.
    Protocol {
        /// The version.
        theirs: u32,
    },
    /// It belongs to another cluster.
    OtherCluster {
        /// That of the node which refuses.
        ours: ClusterId,
        /// That of the node which is refused.
        theirs: ClusterId,
    },
    /// It has no founding record yet: only founding messages are taken from it.
    Unfounded,
    /// No member has its id.
    NotAMember {
        /// The node.
        node: NodeId,
        /// The cluster.
        cluster: ClusterId,
    },
    /// It has the id of the node which refuses.
    SameNode {
        /// The id.
        node: NodeId,
    },
    /// The member of this id has another incarnation.
    Wiped {
        /// The node.
        node: NodeId,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protocol { theirs } => write!(
                f,
                "you speak version {theirs} of the protocol between nodes and this node speaks {PEER_PROTOCOL}; run versions \
                 of kv-server that go together"
            ),
            Self::OtherCluster { ours, theirs } => write!(
                f,
                "you belong to cluster {theirs} and this node to {ours}; correct the addresses of the members"
            ),
            Self::Unfounded => f.write_str("you have not been founded yet; wait for the founding record"),
            Self::NotAMember { node, cluster } => {
                write!(
                    f,
                    "cluster {cluster} has no node {node}; correct the node's id, or the addresses of the members"
                )
            }
            Self::SameNode { node } => {
                write!(f, "this is node {node} too; give each node its own id, and check the addresses of the members")
            }
            Self::Wiped { node } => write!(
                f,
                "the cluster knows node {node} with another data directory: the disk was wiped or replaced. Put the old \
                 directory back; if it is lost, the node can't come back under this id"
            ),
        }
    }
}

impl std::error::Error for Refusal {}

/// Whether a founded node talks to the one that introduces itself.
///
/// # Errors
/// Why not. After [`Refusal::Unfounded`] founding messages may still be exchanged; they say more than this can.
pub fn judge(record: &FoundingRecord, own: &Identity, hello: &Hello) -> Result<(), Refusal> {
    if hello.protocol != PEER_PROTOCOL {
        return Err(Refusal::Protocol { theirs: hello.protocol });
    }
    let Some(theirs) = hello.cluster else { return Err(Refusal::Unfounded) };
    if theirs != own.cluster {
        return Err(Refusal::OtherCluster { ours: own.cluster, theirs });
    }
    if hello.node == own.node {
        return Err(Refusal::SameNode { node: own.node });
    }
    match record.member(hello.node) {
        None => Err(Refusal::NotAMember { node: hello.node, cluster: own.cluster }),
        Some(member) if member.incarnation != hello.incarnation => Err(Refusal::Wiped { node: hello.node }),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::founding::tests::record;

    #[test]
    fn each_reason_not_to_talk() {
        let record = record(3, 12, 3);
        let cluster = record.cluster_id();
        let own = Identity { cluster, node: NodeId(1), incarnation: record.members[0].incarnation };
        let hello = Hello {
            protocol: PEER_PROTOCOL,
            cluster: Some(cluster),
            node: NodeId(2),
            incarnation: record.members[1].incarnation,
        };
        let judge = |hello| judge(&record, &own, &hello);
        assert_eq!(judge(hello), Ok(()));
        assert_eq!(judge(Hello { protocol: 2, ..hello }), Err(Refusal::Protocol { theirs: 2 }));
        assert_eq!(judge(Hello { cluster: None, ..hello }), Err(Refusal::Unfounded));
        let theirs = ClusterId(1);
        let refusal = judge(Hello { cluster: Some(theirs), ..hello });
        assert_eq!(refusal, Err(Refusal::OtherCluster { ours: cluster, theirs }));
        assert_eq!(judge(Hello { node: NodeId(1), ..hello }), Err(Refusal::SameNode { node: NodeId(1) }));
        assert_eq!(judge(Hello { node: NodeId(4), ..hello }), Err(Refusal::NotAMember { node: NodeId(4), cluster }));
        let wiped = judge(Hello { incarnation: Incarnation(0), ..hello });
        assert_eq!(wiped, Err(Refusal::Wiped { node: NodeId(2) }));
        assert!(wiped.unwrap_err().to_string().contains("the disk was wiped or replaced"));
    }
}
