//! The map of the cluster on the wire. A map from outside is only translated here; the core checks that it can be right.

use kv_core::{
    error::Error,
    ring::RING_VERSION,
    shard_map::{ADDRESS_BYTES_MAX, Arc, NodeDescription, ReplicaPlace, ShardMap, ShardRow},
    types::{Durability, Epoch, Incarnation, MapVersion, NodeId, Position, ReplicaId, ShardId},
};
use kv_proto::v1;

use super::{id_from_wire, id_to_wire};

/// A map as it travels.
pub(crate) fn map_to_wire(map: &ShardMap) -> v1::ShardMap {
    v1::ShardMap {
        version: map.version.0,
        nodes: map.nodes.iter().map(node_to_wire).collect(),
        shards: map.shards.iter().map(row_to_wire).collect(),
        ring_version: RING_VERSION,
    }
}

/// Reads a map.
pub(crate) fn map_from_wire(map: v1::ShardMap) -> Result<ShardMap, Error> {
    if map.ring_version != RING_VERSION {
        return Err(Error::invalid(format!(
            "a map of ring version {}; this node knows {RING_VERSION}",
            map.ring_version
        )));
    }
    Ok(ShardMap {
        version: MapVersion(map.version),
        nodes: map.nodes.into_iter().map(node_from_wire).collect::<Result<_, _>>()?,
        shards: map.shards.into_iter().map(row_from_wire).collect::<Result<_, _>>()?,
    })
}

pub(super) fn node_to_wire(node: &NodeDescription) -> v1::Node {
    v1::Node {
        node: node.node.0,
        incarnation: id_to_wire(node.incarnation.0),
        peer_address: node.peer_address.clone(),
        client_address: node.client_address.clone(),
        zone: node.zone.clone(),
        weight: node.weight,
    }
}

pub(super) fn node_from_wire(node: v1::Node) -> Result<NodeDescription, Error> {
    for text in [&node.peer_address, &node.client_address, &node.zone] {
        if text.len() > ADDRESS_BYTES_MAX {
            return Err(Error::invalid(format!("an address or zone of {} bytes", text.len())));
        }
    }
    Ok(NodeDescription {
        node: NodeId(node.node),
        incarnation: Incarnation(id_from_wire(&node.incarnation, "an incarnation")?),
        peer_address: node.peer_address,
        client_address: node.client_address,
        zone: node.zone,
        weight: node.weight,
    })
}

pub(super) fn row_to_wire(row: &ShardRow) -> v1::ShardRow {
    v1::ShardRow {
        shard: row.shard.0,
        arc: row.arc.map(|arc| v1::Arc { first: arc.first.0, last: arc.last.0 }),
        epoch: row.epoch.0,
        replicas: row.replicas.iter().map(|place| place_to_wire(*place)).collect(),
    }
}

pub(super) fn row_from_wire(row: v1::ShardRow) -> Result<ShardRow, Error> {
    let arc = row.arc.map(|arc| Arc { first: Position(arc.first), last: Position(arc.last) });
    if arc.is_some_and(|arc| arc.first > arc.last) {
        return Err(Error::invalid("an arc that ends before it begins"));
    }
    Ok(ShardRow {
        shard: ShardId(row.shard),
        arc,
        epoch: Epoch(row.epoch),
        replicas: row.replicas.into_iter().map(place_from_wire).collect(),
    })
}

pub(super) fn place_to_wire(place: ReplicaPlace) -> v1::ReplicaPlace {
    v1::ReplicaPlace { replica: place.replica.0, node: place.node.0 }
}

pub(super) fn place_from_wire(place: v1::ReplicaPlace) -> ReplicaPlace {
    ReplicaPlace { replica: ReplicaId(place.replica), node: NodeId(place.node) }
}

/// When a write is acknowledged, as it travels.
pub(crate) fn durability_to_wire(durability: Durability) -> v1::Durability {
    match durability {
        Durability::Sync => v1::Durability::Sync,
        Durability::Async => v1::Durability::Async,
    }
}

/// Reads when a write is to be acknowledged; `None` if it is left to the cluster.
pub(super) fn durability_from_wire(durability: i32) -> Result<Option<Durability>, Error> {
    match v1::Durability::try_from(durability) {
        Ok(v1::Durability::Unspecified) => Ok(None),
        Ok(v1::Durability::Sync) => Ok(Some(Durability::Sync)),
        Ok(v1::Durability::Async) => Ok(Some(Durability::Async)),
        Err(_) => Err(Error::invalid(format!("durability {durability} is not known; it is 0, 1 (sync) or 2 (async)"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_core::founding::{FoundingRecord, Member};

    #[test]
    fn a_map_comes_back_as_it_went() {
        let members = [1, 2].map(|id| Member {
            node: NodeId(id),
            incarnation: Incarnation(u128::MAX - u128::from(id)),
            peer_address: format!("host-{id}:7201"),
            zone: "z".to_owned(),
            weight: 2,
        });
        let record =
            FoundingRecord { members: members.into(), shards: 4, replication: 2, durability: Durability::Sync };
        let map = record.layout();
        assert_eq!(map_from_wire(map_to_wire(&map)).unwrap(), map);
        let wire = || map_to_wire(&map);
        assert!(map_from_wire(v1::ShardMap { ring_version: 9, ..wire() }).is_err());
        let mut short = wire();
        short.nodes[0].incarnation.truncate(3);
        assert!(map_from_wire(short).is_err());
    }
}
