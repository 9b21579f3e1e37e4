//! A map that was checked and is indexed for lookups.
//!
//! Whatever came from outside becomes a [`CheckedMap`] before anything is looked up in it. Single rows may be taken into
//! it later; a position is then found in the row of the highest epoch, or in none until a whole map comes.

use std::{collections::BTreeSet, fmt};

use crate::{
    shard_map::{ADDRESS_BYTES_MAX, NodeDescription, ShardMap, ShardRow},
    types::{Epoch, META_SHARD, NodeId, Position, ReplicaId, ShardId},
};

/// A map from outside that can't be right: what is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapError(pub &'static str);

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the shard map can't be right: {}", self.0)
    }
}

impl std::error::Error for MapError {}

/// A map whose arcs covered the ring without overlap and whose ids were all known when it was made.
#[derive(Clone, Debug)]
pub struct CheckedMap {
    map: ShardMap,
    /// Indexes of rows by arc, ascending; no two overlap.
    by_arc: Vec<usize>,
}

impl CheckedMap {
    /// Checks and indexes a map.
    ///
    /// # Errors
    /// If a node or shard is missing, doubled or out of order, or the arcs don't cover the ring exactly once.
    pub fn new(map: ShardMap) -> Result<Self, MapError> {
        check_nodes(&map.nodes)?;
        if !map.shards.windows(2).all(|pair| pair[0].shard < pair[1].shard) {
            return Err(MapError("shards are not ascending by id"));
        }
        if map.shards.first().is_none_or(|row| row.shard != META_SHARD) {
            return Err(MapError("the meta shard is missing"));
        }
        let mut replicas = BTreeSet::new();
        for row in &map.shards {
            check_row(row)?;
            if row.replicas.iter().any(|place| node_index(&map, place.node).is_none()) {
                return Err(MapError("a replica stands on an unknown node"));
            }
            if !row.replicas.iter().all(|place| replicas.insert(place.replica)) {
                return Err(MapError("a replica id is used twice"));
            }
        }
        check_arcs(&map.shards)?;
        let by_arc = index(&map.shards);
        Ok(Self { map, by_arc })
    }

    /// The map itself.
    #[must_use]
    pub fn map(&self) -> &ShardMap {
        &self.map
    }

    /// The row whose arc holds a position. `None` only after a row with another arc was taken and before a whole map was.
    #[must_use]
    pub fn row_at(&self, position: Position) -> Option<&ShardRow> {
        let next = self.by_arc.partition_point(|index| first(&self.map.shards[*index]) <= position);
        let row = &self.map.shards[*self.by_arc.get(next.checked_sub(1)?)?];
        row.arc.filter(|arc| arc.contains(position)).map(|_| row)
    }

    /// A shard's row.
    #[must_use]
    pub fn row(&self, shard: ShardId) -> Option<&ShardRow> {
        Some(&self.map.shards[self.row_index(shard).ok()?])
    }

    /// A node's description.
    #[must_use]
    pub fn node(&self, node: NodeId) -> Option<&NodeDescription> {
        Some(&self.map.nodes[node_index(&self.map, node)?])
    }

    /// Takes a row that came with a refusal, if it is fresher than the one here. True if it was taken.
    ///
    /// # Errors
    /// If the row can't be right, or names a node that is not in the map: then a whole map is needed.
    pub fn take_row(&mut self, row: &ShardRow) -> Result<bool, MapError> {
        check_row(row)?;
        if row.replicas.iter().any(|place| self.node(place.node).is_none()) {
            return Err(MapError("a replica stands on an unknown node"));
        }
        match self.row_index(row.shard) {
            Ok(index) if self.map.shards[index].epoch >= row.epoch => return Ok(false),
            Ok(index) => self.map.shards[index] = row.clone(),
            Err(index) => self.map.shards.insert(index, row.clone()),
        }
        self.by_arc = index(&self.map.shards);
        Ok(true)
    }

    /// Takes a whole map if it is fresher than this one. True if it was taken.
    ///
    /// # Errors
    /// As [`CheckedMap::new`].
    pub fn take_map(&mut self, map: &ShardMap) -> Result<bool, MapError> {
        if map.version <= self.map.version {
            return Ok(false);
        }
        let mut fresh = Self::new(map.clone())?;
        // A row taken from a refusal may be fresher than the map of a node that lags.
        for row in &self.map.shards {
            if fresh.row(row.shard).is_some_and(|other| other.arc == row.arc) {
                let _unknown_node_keeps_the_maps_row = fresh.take_row(row);
            }
        }
        *self = fresh;
        Ok(true)
    }

    fn row_index(&self, shard: ShardId) -> Result<usize, usize> {
        self.map.shards.binary_search_by_key(&shard, |row| row.shard)
    }
}

fn node_index(map: &ShardMap, node: NodeId) -> Option<usize> {
    map.nodes.binary_search_by_key(&node, |description| description.node).ok()
}

fn first(row: &ShardRow) -> Position {
    row.arc.map(|arc| arc.first).unwrap_or_default()
}

fn check_nodes(nodes: &[NodeDescription]) -> Result<(), MapError> {
    if nodes.is_empty() || nodes[0].node == NodeId(0) || !nodes.windows(2).all(|pair| pair[0].node < pair[1].node) {
        return Err(MapError("nodes are missing, or not ascending by id from 1"));
    }
    let texts = nodes.iter().flat_map(|node| [&node.peer_address, &node.client_address, &node.zone]);
    if texts.into_iter().any(|text| text.len() > ADDRESS_BYTES_MAX) {
        return Err(MapError("an address or zone is too long"));
    }
    Ok(())
}

/// Checks what can be said of a row by itself.
fn check_row(row: &ShardRow) -> Result<(), MapError> {
    if row.arc.is_none() != (row.shard == META_SHARD) {
        return Err(MapError("a shard has no arc, or the meta shard has one"));
    }
    if row.arc.is_some_and(|arc| arc.first > arc.last) {
        return Err(MapError("an arc ends before it begins"));
    }
    if row.epoch == Epoch(0) {
        return Err(MapError("an epoch is 0"));
    }
    let nodes: BTreeSet<_> = row.replicas.iter().map(|place| place.node).collect();
    if row.replicas.is_empty() || nodes.len() != row.replicas.len() {
        return Err(MapError("a shard has no replica, or two on one node"));
    }
    if row.replicas.iter().any(|place| place.replica == ReplicaId(0)) {
        return Err(MapError("a replica id is 0"));
    }
    Ok(())
}

fn check_arcs(rows: &[ShardRow]) -> Result<(), MapError> {
    let mut arcs: Vec<_> = rows.iter().filter_map(|row| row.arc).collect();
    arcs.sort_unstable();
    let whole = arcs.first().is_some_and(|arc| arc.first == Position(0))
        && arcs.last().is_some_and(|arc| arc.last == Position(u64::MAX))
        && arcs.windows(2).all(|pair| pair[0].last.0.checked_add(1) == Some(pair[1].first.0));
    if whole { Ok(()) } else { Err(MapError("the arcs don't cover the ring exactly once")) }
}

/// Rows by arc. Of rows that overlap only the one of the highest epoch is in it.
fn index(rows: &[ShardRow]) -> Vec<usize> {
    let mut freshest: Vec<usize> = (0..rows.len()).filter(|index| rows[*index].arc.is_some()).collect();
    freshest.sort_by_key(|index| std::cmp::Reverse(rows[*index].epoch));
    let mut by_arc: Vec<usize> = Vec::with_capacity(freshest.len());
    for row in freshest {
        let Some(arc) = rows[row].arc else { continue };
        let at = by_arc.partition_point(|other| first(&rows[*other]) < arc.first);
        let before = at.checked_sub(1).and_then(|at| rows[by_arc[at]].arc).is_none_or(|other| other.last < arc.first);
        let after = by_arc.get(at).is_none_or(|other| first(&rows[*other]) > arc.last);
        if before && after {
            by_arc.insert(at, row);
        }
    }
    by_arc
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        founding::FoundingRecord,
        shard_map::Arc,
        types::{Durability, MapVersion},
    };

    fn map() -> ShardMap {
        let members = (1..=3)
            .map(|id| crate::founding::Member {
                node: NodeId(id),
                incarnation: Default::default(),
                peer_address: String::new(),
                zone: String::new(),
                weight: 1,
            })
            .collect();
        FoundingRecord { members, shards: 4, replication: 3, durability: Durability::Sync }.layout()
    }

    #[test]
    fn every_position_is_found_at_both_ends_of_its_arc() {
        let checked = CheckedMap::new(map()).unwrap();
        for row in &map().shards[1..] {
            let arc = row.arc.unwrap();
            assert_eq!(checked.row_at(arc.first), Some(row));
            assert_eq!(checked.row_at(arc.last), Some(row));
            assert_eq!(checked.row(row.shard), Some(row));
        }
        assert_eq!(checked.row(ShardId(99)), None);
        assert_eq!(checked.node(NodeId(3)).map(|node| node.node), Some(NodeId(3)));
        assert_eq!(checked.node(NodeId(4)), None);
    }

    #[test]
    fn maps_that_cannot_be_right_are_refused() {
        let mut cases: Vec<(&str, ShardMap)> = Vec::new();
        let mut case = |what, change: &dyn Fn(&mut ShardMap)| {
            let mut map = map();
            change(&mut map);
            cases.push((what, map));
        };
        case("no nodes", &|map| map.nodes.clear());
        case("node order", &|map| map.nodes.reverse());
        case("node 0", &|map| map.nodes[0].node = NodeId(0));
        case("long text", &|map| map.nodes[0].zone = "z".repeat(ADDRESS_BYTES_MAX + 1));
        case("no meta shard", &|map| drop(map.shards.remove(0)));
        case("shard order", &|map| map.shards.swap(1, 2));
        case("a hole", &|map| drop(map.shards.remove(2)));
        case("the end", &|map| drop(map.shards.pop()));
        case("an overlap", &|map| map.shards[1].arc.as_mut().unwrap().last.0 += 1);
        case("no arc", &|map| map.shards[1].arc = None);
        case("meta arc", &|map| map.shards[0].arc = map.shards[1].arc);
        case("epoch 0", &|map| map.shards[1].epoch = Epoch(0));
        case("no replica", &|map| map.shards[1].replicas.clear());
        case("unknown node", &|map| map.shards[1].replicas[0].node = NodeId(9));
        case("node twice", &|map| map.shards[1].replicas[0].node = map.shards[1].replicas[1].node);
        case("replica twice", &|map| map.shards[1].replicas[0] = map.shards[2].replicas[0]);
        case("replica 0", &|map| map.shards[1].replicas[0].replica = ReplicaId(0));
        for (what, map) in cases {
            assert!(CheckedMap::new(map).is_err(), "{what}");
        }
    }

    #[test]
    fn a_fresher_row_is_taken_and_a_staler_one_is_not() {
        let mut checked = CheckedMap::new(map()).unwrap();
        let mut row = map().shards[2].clone();
        assert_eq!(checked.take_row(&row), Ok(false));
        row.epoch = Epoch(2);
        row.replicas.rotate_left(1);
        assert_eq!(checked.take_row(&row), Ok(true));
        assert_eq!(checked.row_at(row.arc.unwrap().first), Some(&row));
        assert_eq!(checked.take_row(&map().shards[2]), Ok(false));
        row.epoch = Epoch(3);
        row.replicas[0].node = NodeId(9);
        assert!(checked.take_row(&row).is_err());

        // A newer map with an older row does not take the row back.
        let mut newer = map();
        newer.version = MapVersion(1);
        assert_eq!(checked.take_map(&newer), Ok(true));
        assert_eq!(checked.row(ShardId(2)).unwrap().epoch, Epoch(2));
        assert_eq!(checked.take_map(&newer), Ok(false));
    }

    #[test]
    fn a_split_seen_from_one_child_leaves_no_position_in_two_rows() {
        let mut checked = CheckedMap::new(map()).unwrap();
        let parent = map().shards[2].clone();
        let arc = parent.arc.unwrap();
        let middle = arc.first.0 + (arc.last.0 - arc.first.0) / 2;
        let mut child = parent.clone();
        child.shard = ShardId(5);
        child.epoch = Epoch(2);
        child.arc = Some(Arc { first: Position(middle + 1), last: arc.last });
        for place in &mut child.replicas {
            place.replica.0 += 100;
        }
        assert_eq!(checked.take_row(&child), Ok(true));
        assert_eq!(checked.row_at(arc.last), Some(&child));
        assert_eq!(checked.row_at(arc.first), None, "until the parent's new row or a map comes");
        let mut shortened = parent;
        shortened.epoch = Epoch(2);
        shortened.arc = Some(Arc { first: arc.first, last: Position(middle) });
        assert_eq!(checked.take_row(&shortened), Ok(true));
        assert_eq!(checked.row_at(arc.first), Some(&shortened));
        assert_eq!(checked.row_at(Position(middle)), Some(&shortened));
        assert_eq!(checked.row_at(Position(middle + 1)), Some(&child));
    }
}
