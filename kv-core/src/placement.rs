//! Which nodes hold which shard, as a pure function of the nodes and the shards.
//!
//! A shard stands at the first position of its arc. From there one walks the ring clockwise: the first nodes met become its
//! replicas, nodes of other zones before a second one of a zone, and nodes that hold their bound already are passed over.
//! The first of the replicas that owns fewer shards than its bound is the *owner*, the preferred leader.
//!
//! A node's bound is its fair share by weight, rounded up, plus one; there is one for replicas and one for owned shards. A
//! node holds at most one replica of a shard, so what a heavy node can't take is shared among the others. The bound goes
//! before the zones: where zones have unequal weights, or there are more of them than replicas, some shards (of equal zones the
//! last one or two) have two replicas in one zone rather than overload a node. The bound for replicas always holds. Where all
//! replicas of a shard own their bound already, one of them passes another of its shards on; only where weights differ can
//! that fail, and then the bound is passed.
//!
//! Measured with equal nodes, 3 replicas, and eight sets of ids for each row (`tests::the_load_and_what_moves`): the largest
//! load over the average, for replicas and for owned shards; the share of all replicas that move when a node joins and when
//! one leaves, and how much of that moves between the nodes that stay, because of the bound.
//!
//! | nodes | shards | replicas | owned | join (ideal) | between old | leave (ideal) | between old |
//! |---|---|---|---|---|---|---|---|
//! | 3 | 12 | 1.00 | 1.25 | 24.7 % (25.0 %) | 0.0 % |  |  |
//! | 3 | 192 | 1.00 | 1.02 | 24.9 % (25.0 %) | 0.0 % |  |  |
//! | 4 | 12 | 1.11 | 1.33 | 22.9 % (20.0 %) | 1.0 % | 25.3 % (25.0 %) | 0.0 % |
//! | 4 | 16 | 1.08 | 1.25 | 21.6 % (20.0 %) | 1.3 % | 24.5 % (25.0 %) | 0.0 % |
//! | 4 | 256 | 1.01 | 1.02 | 20.7 % (20.0 %) | 0.8 % | 25.0 % (25.0 %) | 0.0 % |
//! | 5 | 12 | 1.25 | 1.67 | 21.5 % (16.7 %) | 3.1 % | 20.1 % (20.0 %) | 0.3 % |
//! | 5 | 20 | 1.08 | 1.25 | 17.9 % (16.7 %) | 2.1 % | 20.2 % (20.0 %) | 0.8 % |
//! | 5 | 320 | 1.01 | 1.02 | 17.5 % (16.7 %) | 0.7 % | 20.9 % (20.0 %) | 0.8 % |
//! | 10 | 12 | 1.39 | 2.50 | 11.5 % (9.1 %) | 3.1 % | 12.2 % (10.0 %) | 3.5 % |
//! | 10 | 40 | 1.08 | 1.25 | 11.0 % (9.1 %) | 2.0 % | 12.7 % (10.0 %) | 2.8 % |
//! | 10 | 640 | 1.01 | 1.02 | 10.1 % (9.1 %) | 1.0 % | 10.9 % (10.0 %) | 0.8 % |
//! | 30 | 12 | 2.50 | 5.00 | 3.5 % (3.2 %) | 0.0 % | 2.8 % (3.3 %) | 0.0 % |
//! | 30 | 120 | 1.08 | 1.25 | 5.1 % (3.2 %) | 2.0 % | 6.2 % (3.3 %) | 2.8 % |
//! | 30 | 1920 | 1.01 | 1.02 | 4.0 % (3.2 %) | 0.7 % | 4.1 % (3.3 %) | 0.8 % |
//! | 100 | 12 | 5.56 | 16.67 | 1.7 % (1.0 %) | 0.0 % | 0.3 % (1.0 %) | 0.0 % |
//! | 100 | 400 | 1.08 | 1.25 | 1.6 % (1.0 %) | 0.7 % | 5.3 % (1.0 %) | 4.3 % |
//! | 100 | 6400 | 1.01 | 1.02 | 1.7 % (1.0 %) | 0.8 % | 1.5 % (1.0 %) | 0.5 % |
//!
//! With few shards the bound's one more weighs most: 12 shards on 10 nodes are 3.6 replicas for each, and at most 5.
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
    let replicas_bounds = bounds(&weights, shards.len() * replication, shards.len());
    let mut replicas = vec![0; ring.nodes.len()];

    let mut placed = Vec::with_capacity(shards.len());
    for (index, first) in shards.values().enumerate() {
        let left = shards.len() - index;
        let rooms: Vec<usize> = (0..replicas.len()).map(|node| replicas_bounds[node] - replicas[node]).collect();
        let walk = ring.walk(*first);
        let wide = |node: usize| rooms[node] >= left;
        let needed = wide_nodes_needed(&rooms, left, replication);
        let chosen = choose(&ring, &walk, needed, Vec::new(), wide);
        let chosen = choose(&ring, &walk, replication, chosen, |node| rooms[node] > 0);
        for node in &chosen {
            replicas[*node] += 1;
        }
        placed.push(chosen);
    }
    put_owners_first(&mut placed, &bounds(&weights, shards.len(), shards.len()));
    let ids = |chosen: Vec<usize>| chosen.into_iter().map(|node| ring.nodes[node].node).collect();
    shards.keys().copied().zip(placed.into_iter().map(ids)).collect()
}

/// The nodes of the meta shard's replicas, the owner first: the lowest ids, a new zone before a second node of one.
#[must_use]
pub fn place_meta(nodes: &[NodeDescription]) -> Vec<NodeId> {
    let ring = NodeRing::new(nodes);
    let walk: Vec<_> = (0..ring.nodes.len()).collect();
    let chosen = choose(&ring, &walk, META_REPLICAS_MAX, Vec::new(), |_| true);
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

/// How many nodes with room for every shard that is left (*wide* ones) must be chosen for the next shard.
///
/// A wide node loses room when it is passed over. If that happened more often than there is room to spare, the last shards
/// would find too few nodes below their bound.
fn wide_nodes_needed(rooms: &[usize], shards_left: usize, replication: usize) -> usize {
    let wide = rooms.iter().filter(|room| **room >= shards_left).count();
    let total: usize = rooms.iter().map(|room| room.min(&shards_left)).sum();
    wide.saturating_sub(total.saturating_sub(shards_left * replication)).min(replication)
}

/// Adds to `chosen` until it has `count` nodes that fit, or all that fit: of new zones first. In the order of the walk.
fn choose(
    ring: &NodeRing<'_>,
    walk: &[usize],
    count: usize,
    mut chosen: Vec<usize>,
    fits: impl Fn(usize) -> bool,
) -> Vec<usize> {
    for new_zones in [true, false] {
        for node in walk {
            let in_old_zone = new_zones && chosen.iter().any(|other| ring.share_zone(*other, *node));
            if chosen.len() < count && fits(*node) && !chosen.contains(node) && !in_old_zone {
                chosen.push(*node);
            }
        }
    }
    walk.iter().copied().filter(|node| chosen.contains(node)).collect()
}

/// Makes one of each shard's replicas the owner: the first that owns fewer shards than its bound.
///
/// Where there is none, a shard that one of them owns already goes to another of its own replicas, if need be through
/// several shards. Where that fails too (weights), the one that is least above its bound owns the shard.
fn put_owners_first(placed: &mut [Vec<usize>], owned_max: &[usize]) {
    let mut owned = vec![0; owned_max.len()];
    for shard in 0..placed.len() {
        let mut asked = vec![false; owned_max.len()];
        if placed[shard].is_empty() || take_owner(placed, shard, shard, &mut owned, owned_max, &mut asked) {
            continue;
        }
        let places = 0..placed[shard].len();
        let least = places.min_by_key(|place| owned[placed[shard][*place]] - owned_max[placed[shard][*place]]);
        if let Some(place) = least {
            owned[placed[shard][place]] += 1;
            placed[shard][..=place].rotate_right(1);
        }
    }
}

/// Finds an owner for a shard; those before `settled` have theirs. Each node is asked once, which bounds the depth.
fn take_owner(
    placed: &mut [Vec<usize>],
    shard: usize,
    settled: usize,
    owned: &mut [usize],
    owned_max: &[usize],
    asked: &mut [bool],
) -> bool {
    if let Some(place) = placed[shard].iter().position(|node| !asked[*node] && owned[*node] < owned_max[*node]) {
        owned[placed[shard][place]] += 1;
        placed[shard][..=place].rotate_right(1);
        return true;
    }
    for place in 0..placed[shard].len() {
        let node = placed[shard][place];
        if std::mem::replace(&mut asked[node], true) {
            continue;
        }
        for other in 0..settled {
            if placed[other][0] == node && take_owner(placed, other, settled, owned, owned_max, asked) {
                // It took over what the node owned of that shard; the node takes this one instead.
                placed[shard][..=place].rotate_right(1);
                return true;
            }
        }
    }
    false
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

#[cfg(test)]
mod tests;
