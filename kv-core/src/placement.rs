//! Which nodes hold which shard, as a pure function of the nodes and the shards.
//!
//! A shard stands at the first position of its arc. From there one walks the ring clockwise: the first nodes met become its
//! replicas, nodes of other zones before a second one of a zone, and nodes that hold their bound already are passed over.
//! The first of the replicas that owns fewer shards than its bound is the *owner*, the preferred leader.
//!
//! A node's bound is its fair share by weight, rounded up, plus one; there is one for replicas and one for owned shards. A
//! node holds at most one replica of a shard, so what a heavy node can't take is shared among the others. The bound goes
//! before the zones: where zones have unequal weights, some shards have two replicas in one zone rather than overload a node.
//! Only where fewer nodes than replicas are below their bound is the bound passed by one.
//!
//! [`place`] gives the target; [`next_step`] is one step from where the replicas are towards it.

use std::collections::BTreeMap;

use crate::{
    ring,
    shard_map::{NodeDescription, ShardRow},
    types::{META_SHARD, NodeId, Position, ShardId},
};

/// Most replicas of the meta shard.
pub const META_REPLICAS_MAX: usize = 5;

/// Places shards, given with the first position of their arcs, on nodes: for each the nodes of its replicas, the owner first.
///
/// There are `replication` of them, or as many as there are nodes with a weight above 0.
#[must_use]
pub fn place(
    nodes: &[NodeDescription],
    shards: &BTreeMap<ShardId, Position>,
    replication: u32,
) -> BTreeMap<ShardId, Vec<NodeId>> {
    let ring = NodeRing::new(nodes);
    let replication = (replication as usize).min(ring.nodes.len());
    let weights: Vec<u64> = ring.nodes.iter().map(|node| u64::from(node.weight)).collect();
    let replicas_max = bounds(&weights, shards.len() * replication, shards.len());
    let owned_max = bounds(&weights, shards.len(), shards.len());
    let mut replicas = vec![0; ring.nodes.len()];
    let mut owned = vec![0; ring.nodes.len()];

    let mut placed = BTreeMap::new();
    for (shard, first) in shards {
        let walk = ring.walk(*first);
        let mut chosen = choose(&ring, &walk, replication, |node| replicas[node] < replicas_max[node]);
        let owner = chosen.iter().position(|node| owned[*node] < owned_max[*node]).unwrap_or(0);
        if owner < chosen.len() {
            chosen[..=owner].rotate_right(1);
            owned[chosen[0]] += 1;
        }
        for node in &chosen {
            replicas[*node] += 1;
        }
        placed.insert(*shard, chosen.iter().map(|node| ring.nodes[*node].node).collect());
    }
    placed
}

/// The nodes of the meta shard's replicas, the owner first: the lowest ids, a new zone before a second node of one.
#[must_use]
pub fn place_meta(nodes: &[NodeDescription]) -> Vec<NodeId> {
    let ring = NodeRing::new(nodes);
    let walk: Vec<_> = (0..ring.nodes.len()).collect();
    let chosen = choose(&ring, &walk, META_REPLICAS_MAX.min(walk.len()), |_| true);
    chosen.into_iter().map(|node| ring.nodes[node].node).collect()
}

/// One change of who holds a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make a replica on a node.
    Add {
        /// Of this shard.
        shard: ShardId,
        /// On this node.
        node: NodeId,
    },
    /// Make another of its nodes the owner.
    Own {
        /// Of this shard.
        shard: ShardId,
        /// The node, which has a replica.
        node: NodeId,
    },
    /// Take a replica away.
    Remove {
        /// Of this shard.
        shard: ShardId,
        /// From this node.
        node: NodeId,
    },
}

/// The next step from where the shards are towards where [`place`] and [`place_meta`] put them; `None` when they are there.
///
/// A shard is moved replica by replica, a new one before an old one goes, and one shard after another. Every step lessens the
/// number of replicas that are missing, those that are too many, and owners that are wrong, so that it ends.
#[must_use]
pub fn next_step(nodes: &[NodeDescription], rows: &[ShardRow], replication: u32) -> Option<Step> {
    let positions = rows.iter().filter_map(|row| Some((row.shard, row.arc?.first))).collect();
    let mut target = place(nodes, &positions, replication);
    target.insert(META_SHARD, place_meta(nodes));
    rows.iter().find_map(|row| step_of(row, target.get(&row.shard)?))
}

fn step_of(row: &ShardRow, target: &[NodeId]) -> Option<Step> {
    let shard = row.shard;
    let owner = *target.first()?;
    let missing = target.iter().find(|node| row.replica_on(**node).is_none());
    let surplus = row.replicas.iter().map(|place| place.node).find(|node| !target.contains(node));
    if let Some(node) = missing
        && (row.replicas.len() <= target.len() || surplus.is_none())
    {
        return Some(Step::Add { shard, node: *node });
    }
    // The owner changes before a replica goes, so that leadership is not lost with it.
    if row.replica_on(owner).is_some() && row.owner() != Some(owner) {
        return Some(Step::Own { shard, node: owner });
    }
    surplus.map(|node| Step::Remove { shard, node })
}

/// The places of all nodes on the ring.
struct NodeRing<'a> {
    /// Nodes with a weight, ascending by id. Elsewhere a node is its index here.
    nodes: Vec<&'a NodeDescription>,
    /// Every place and its node, ascending.
    places: Vec<(Position, usize)>,
}

impl<'a> NodeRing<'a> {
    fn new(nodes: &'a [NodeDescription]) -> Self {
        let mut nodes: Vec<_> = nodes.iter().filter(|node| node.weight > 0).collect();
        nodes.sort_by_key(|node| node.node);
        let mut places: Vec<_> = nodes
            .iter()
            .enumerate()
            .flat_map(|(index, node)| ring::node_positions(node.node, node.weight).map(move |place| (place, index)))
            .collect();
        places.sort_unstable();
        Self { nodes, places }
    }

    /// All nodes in the order in which they are met first.
    fn walk(&self, from: Position) -> Vec<usize> {
        let start = self.places.partition_point(|(place, _)| *place < from);
        let mut met = vec![false; self.nodes.len()];
        let mut order = Vec::with_capacity(self.nodes.len());
        for (_, node) in self.places[start..].iter().chain(&self.places[..start]) {
            if !std::mem::replace(&mut met[*node], true) {
                order.push(*node);
                if order.len() == self.nodes.len() {
                    break;
                }
            }
        }
        order
    }

    /// An empty zone is a zone of the node's own.
    fn share_zone(&self, left: usize, right: usize) -> bool {
        let zone = &self.nodes[left].zone;
        left == right || (!zone.is_empty() && *zone == self.nodes[right].zone)
    }
}

/// The first `count` of `walk`: in new zones and with room, then with room, then any.
fn choose(ring: &NodeRing<'_>, walk: &[usize], count: usize, has_room: impl Fn(usize) -> bool) -> Vec<usize> {
    let mut chosen: Vec<usize> = Vec::with_capacity(count);
    for (new_zone, room) in [(true, true), (false, true), (false, false)] {
        for node in walk {
            if chosen.len() == count {
                return chosen;
            }
            let taken = chosen.contains(node) || (room && !has_room(*node));
            let in_old_zone = new_zone && chosen.iter().any(|other| ring.share_zone(*other, *node));
            if !taken && !in_old_zone {
                chosen.push(*node);
            }
        }
    }
    chosen
}

/// Each node's fair share of `total` by weight, of which it can take at most `each_max`, rounded up, plus one.
fn bounds(weights: &[u64], total: usize, each_max: usize) -> Vec<usize> {
    let mut full = vec![false; weights.len()];
    loop {
        let count_full = full.iter().filter(|full| **full).count();
        let rest = total.saturating_sub(count_full * each_max) as u128;
        let weight: u128 = weights.iter().zip(&full).filter(|(_, full)| !**full).map(|(w, _)| u128::from(*w)).sum();
        let share = |w: u64| rest * u128::from(w);
        let over: Vec<usize> = (0..weights.len())
            .filter(|node| !full[*node] && share(weights[*node]) > each_max as u128 * weight)
            .collect();
        if over.is_empty() {
            let bound = |(w, full): (&u64, &bool)| {
                if *full { each_max } else { share(*w).div_ceil(weight.max(1)) as usize + 1 }
            };
            return weights.iter().zip(&full).map(bound).collect();
        }
        for node in over {
            full[node] = true;
        }
    }
}
