//! Who a node is, and whether two nodes may talk: the judgement of a handshake, and what follows for the one that is refused.
//!
//! Nothing but handshakes that were accepted reach a shard. A node whose disk was wiped must not speak as the one it was: it
//! has forgotten its votes and what it acknowledged.
//!
//! A node that is not founded listens to founding messages of whoever greets it, since of two that were started differently
//! the protocol of [`crate::founding`] says which gives way. It can't refuse anybody for good: a node of a founded cluster
//! must not end because somebody started a process with other members at one of its peers' addresses.

use std::{collections::BTreeSet, fmt};

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
    /// It meant another node.
    OtherNode {
        /// The node that refuses.
        node: NodeId,
        /// The node that was meant.
        meant: NodeId,
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
            Self::OtherNode { node, meant } => {
                write!(f, "this is node {node}, not node {meant}; check the addresses of the members")
            }
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
                "the cluster knows node {node} with another data directory: the disk was wiped or replaced. Put that very \
                 directory back; if it is lost, the node stays out, since this version can't replace a node yet. The other \
                 nodes serve on as long as they are a majority"
            ),
        }
    }
}

impl std::error::Error for Refusal {}

/// What a node is when another greets it.
#[derive(Clone, Copy, Debug)]
pub enum Standing<'a> {
    /// It has no founding record yet.
    Unfounded(NodeId),
    /// It is founded.
    Founded {
        /// Who it is.
        own: Identity,
        /// The record.
        record: &'a FoundingRecord,
    },
}

/// To what a node listens on a connection that it accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// To everything: both belong to one founded cluster.
    Member,
    /// To founding messages alone. When the node is founded it closes the connection, and judges the next greeting anew.
    FoundingOnly,
}

/// How a node takes the greeting of another, which meant to reach node `meant`.
///
/// # Errors
/// Why it is not listened to.
pub fn greet(standing: Standing<'_>, meant: NodeId, hello: &Hello) -> Result<Admission, Refusal> {
    let node = match standing {
        Standing::Unfounded(node) => node,
        Standing::Founded { own, .. } => own.node,
    };
    if meant != node {
        return Err(Refusal::OtherNode { node, meant });
    }
    match standing {
        _ if hello.protocol != PEER_PROTOCOL => Err(Refusal::Protocol { theirs: hello.protocol }),
        Standing::Unfounded(_) if hello.node == node => Err(Refusal::SameNode { node }),
        Standing::Unfounded(_) => Ok(Admission::FoundingOnly),
        Standing::Founded { own, record } => match judge(record, &own, hello) {
            Ok(()) => Ok(Admission::Member),
            // It hears by a founding message what it has to do.
            Err(Refusal::Unfounded) => Ok(Admission::FoundingOnly),
            Err(refusal) => Err(refusal),
        },
    }
}

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
        Some(member) if member.incarnation != hello.incarnation && !crate::mutant!("B34") => {
            Err(Refusal::Wiped { node: hello.node })
        }
        Some(_) => Ok(()),
    }
}

/// Why a node was refused, as far as it matters to the node itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// The cluster has no such node, or knows it with another disk: said only by members of the node's own cluster.
    Banned,
    /// The other belongs to another cluster.
    OtherCluster,
    /// Anything else: it may be mended while both run.
    Passing,
}

impl Refusal {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> RefusalKind {
        match self {
            Self::NotAMember { .. } | Self::Wiped { .. } => RefusalKind::Banned,
            Self::OtherCluster { .. } => RefusalKind::OtherCluster,
            Self::Protocol { .. } | Self::Unfounded | Self::SameNode { .. } | Self::OtherNode { .. } => {
                RefusalKind::Passing
            }
        }
    }
}

/// Who has refused this node, and whether it has to end for that. One peer of another cluster may be the stranger itself; a
/// majority is not.
#[derive(Clone, Debug, Default)]
pub struct Refusals {
    /// Members that belong to another cluster. At most one entry for a member.
    other_cluster: BTreeSet<NodeId>,
}

impl Refusals {
    /// A peer has refused a greeting, with these words. The sentence with which the node must end, if it must; `members` is
    /// the number of configured members.
    pub fn refused(&mut self, by: NodeId, kind: RefusalKind, words: &str, members: usize) -> Option<String> {
        match kind {
            RefusalKind::Banned => Some(format!("node {by} refuses this node: {words}")),
            RefusalKind::OtherCluster => {
                self.other_cluster.insert(by);
                (2 * self.other_cluster.len() > members).then(|| {
                    format!(
                        "the data directory belongs to another cluster: most of the configured members say so ({words}); \
                         give this node its own directory, or correct the addresses of the cluster"
                    )
                })
            }
            RefusalKind::Passing => None,
        }
    }

    /// A peer has accepted a greeting.
    pub fn accepted(&mut self, by: NodeId) {
        self.other_cluster.remove(&by);
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

    #[test]
    fn a_greeting_is_taken_as_what_both_are() {
        let record = record(3, 12, 3);
        let own =
            Identity { cluster: record.cluster_id(), node: NodeId(1), incarnation: record.members[0].incarnation };
        let member = Hello {
            protocol: PEER_PROTOCOL,
            cluster: Some(own.cluster),
            node: NodeId(2),
            incarnation: record.members[1].incarnation,
        };
        let unfounded = Hello { cluster: None, incarnation: Incarnation(7), ..member };
        let (founded, waiting) = (Standing::Founded { own, record: &record }, Standing::Unfounded(NodeId(1)));
        assert_eq!(greet(founded, NodeId(1), &member), Ok(Admission::Member));
        assert_eq!(greet(founded, NodeId(1), &unfounded), Ok(Admission::FoundingOnly));
        let wiped = Hello { incarnation: Incarnation(7), ..member };
        assert_eq!(greet(founded, NodeId(1), &wiped), Err(Refusal::Wiped { node: NodeId(2) }));
        for hello in [member, unfounded, wiped, Hello { node: NodeId(77), ..member }] {
            // Its own settings may be the wrong ones: it refuses nobody for not being in them.
            assert_eq!(greet(waiting, NodeId(1), &hello), Ok(Admission::FoundingOnly));
        }
        for standing in [founded, waiting] {
            let refusal = Refusal::OtherNode { node: NodeId(1), meant: NodeId(3) };
            assert_eq!(greet(standing, NodeId(3), &member), Err(refusal));
            let theirs = PEER_PROTOCOL + 1;
            assert_eq!(
                greet(standing, NodeId(1), &Hello { protocol: theirs, ..member }),
                Err(Refusal::Protocol { theirs })
            );
            let same = greet(standing, NodeId(1), &Hello { node: NodeId(1), ..member });
            assert_eq!(same, Err(Refusal::SameNode { node: NodeId(1) }));
        }
    }

    #[test]
    fn a_node_ends_for_its_own_cluster_or_a_majority_and_for_nobody_else() {
        let mut refusals = Refusals::default();
        let mut refused = |by, kind| refusals.refused(NodeId(by), kind, "words", 3);
        assert!(refused(2, RefusalKind::Banned).unwrap().contains("node 2 refuses this node: words"));
        assert_eq!(refused(2, RefusalKind::Passing), None);
        assert_eq!(refused(2, RefusalKind::OtherCluster), None);
        assert_eq!(refused(2, RefusalKind::OtherCluster), None, "one that says it twice is one");
        assert!(refused(3, RefusalKind::OtherCluster).unwrap().contains("belongs to another cluster"));
        refusals.accepted(NodeId(2));
        assert_eq!(refusals.refused(NodeId(3), RefusalKind::OtherCluster, "words", 3), None);
    }
}
