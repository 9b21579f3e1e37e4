//! The cluster's description as every node and client sees it: who the nodes are and who holds which arc.
//!
//! A [`ShardMap`] is a hint: it tells where to ask. Who owns a key is decided by the shard's own replicated state, which
//! checks arc and epoch when it applies and when it answers.

use bytes::Bytes;

use crate::{
    codec::{CodecError, Reader, put_bytes, put_u8, put_u64, put_u128, put_varint},
    types::{Epoch, Incarnation, MapVersion, NodeId, Position, ReplicaId, ShardId},
};

mod checked;

pub use checked::{CheckedMap, MapError};

/// Longest address or zone name, in bytes.
pub const ADDRESS_BYTES_MAX: usize = 300;

/// A piece of the ring: all positions from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Arc {
    /// The lowest position.
    pub first: Position,
    /// The highest position.
    pub last: Position,
}

impl Arc {
    /// Whether a position lies on it.
    #[must_use]
    pub const fn contains(&self, position: Position) -> bool {
        self.first.0 <= position.0 && position.0 <= self.last.0
    }
}

/// A node as the meta shard records it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeDescription {
    /// The node.
    pub node: NodeId,
    /// Its data directory's incarnation.
    pub incarnation: Incarnation,
    /// Where its peers reach it: `host:port`, the host a name or an address.
    pub peer_address: String,
    /// Where clients reach it. Empty until the node has said so.
    pub client_address: String,
    /// The failure domain it stands in; empty means one of its own.
    pub zone: String,
    /// Its share of the load against the others'; at least 1.
    pub weight: u32,
}

impl NodeDescription {
    /// Number of bytes of its addresses and zone.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        self.peer_address.len() + self.client_address.len() + self.zone.len()
    }

    /// Appends its encoding.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.node.0);
        put_u128(out, self.incarnation.0);
        put_bytes(out, self.peer_address.as_bytes());
        put_bytes(out, self.client_address.as_bytes());
        put_bytes(out, self.zone.as_bytes());
        put_varint(out, u64::from(self.weight));
    }

    /// Reads what [`NodeDescription::encode`] wrote.
    ///
    /// # Errors
    /// If the bytes are damaged or a text is over [`ADDRESS_BYTES_MAX`].
    pub fn decode(reader: &mut Reader) -> Result<Self, CodecError> {
        let node = NodeId(reader.varint()?);
        let incarnation = Incarnation(reader.u128()?);
        let mut text = || {
            let bytes = reader.bytes()?;
            if bytes.len() > ADDRESS_BYTES_MAX {
                return Err(CodecError("a text of at most 300 bytes"));
            }
            String::from_utf8(bytes.to_vec()).map_err(|_| CodecError("text in UTF-8"))
        };
        let (peer_address, client_address, zone) = (text()?, text()?, text()?);
        let weight = u32::try_from(reader.varint()?).map_err(|_| CodecError("a weight"))?;
        Ok(Self { node, incarnation, peer_address, client_address, zone, weight })
    }
}

/// A replica of a shard and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaPlace {
    /// The replica.
    pub replica: ReplicaId,
    /// Its node.
    pub node: NodeId,
}

/// One shard in the map: its arc and who holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardRow {
    /// The shard.
    pub shard: ShardId,
    /// Its arc; `None` for the meta shard.
    pub arc: Option<Arc>,
    /// Counts the changes of arc and replicas.
    pub epoch: Epoch,
    /// Its replicas, the first being the owner: the preferred leader.
    pub replicas: Vec<ReplicaPlace>,
}

impl ShardRow {
    /// The node that is preferred as leader.
    #[must_use]
    pub fn owner(&self) -> Option<NodeId> {
        self.replicas.first().map(|place| place.node)
    }

    /// The replica that a node holds, if any.
    #[must_use]
    pub fn replica_on(&self, node: NodeId) -> Option<ReplicaId> {
        self.replicas.iter().find(|place| place.node == node).map(|place| place.replica)
    }
}

impl ShardRow {
    /// Appends its encoding.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.shard.0);
        put_u8(out, u8::from(self.arc.is_some()));
        if let Some(arc) = self.arc {
            put_u64(out, arc.first.0);
            put_u64(out, arc.last.0);
        }
        put_varint(out, self.epoch.0);
        put_varint(out, self.replicas.len() as u64);
        for place in &self.replicas {
            put_varint(out, place.replica.0);
            put_varint(out, place.node.0);
        }
    }

    /// Reads what [`ShardRow::encode`] wrote.
    ///
    /// # Errors
    /// If the bytes are damaged.
    pub fn decode(reader: &mut Reader) -> Result<Self, CodecError> {
        let shard = ShardId(reader.varint()?);
        let arc = if reader.bool()? {
            Some(Arc { first: Position(reader.u64()?), last: Position(reader.u64()?) })
        } else {
            None
        };
        let epoch = Epoch(reader.varint()?);
        let count = reader.count(2)?;
        let place = |_| Ok(ReplicaPlace { replica: ReplicaId(reader.varint()?), node: NodeId(reader.varint()?) });
        let replicas = (0..count).map(place).collect::<Result<_, _>>()?;
        Ok(Self { shard, arc, epoch, replicas })
    }
}

/// The whole map: nodes and shards, at one version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardMap {
    /// Grows with every change.
    pub version: MapVersion,
    /// All nodes, ascending by id.
    pub nodes: Vec<NodeDescription>,
    /// All shards, ascending by id; the meta shard is first.
    pub shards: Vec<ShardRow>,
}

impl ShardMap {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        put_u8(&mut out, FORMAT);
        put_varint(&mut out, self.version.0);
        put_varint(&mut out, self.nodes.len() as u64);
        for node in &self.nodes {
            node.encode(&mut out);
        }
        put_varint(&mut out, self.shards.len() as u64);
        for row in &self.shards {
            row.encode(&mut out);
        }
        out.into()
    }

    /// Reads what [`ShardMap::encode`] wrote. Whether it is a whole map, [`CheckedMap::new`] says.
    ///
    /// # Errors
    /// If the bytes are damaged.
    pub fn decode(bytes: Bytes) -> Result<Self, CodecError> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != FORMAT {
            return Err(CodecError("a map of format 1"));
        }
        let version = MapVersion(reader.varint()?);
        let count = reader.count(NODE_BYTES_MIN)?;
        let mut nodes = Vec::with_capacity(count);
        for _ in 0..count {
            nodes.push(NodeDescription::decode(&mut reader)?);
        }
        let count = reader.count(ROW_BYTES_MIN)?;
        let mut shards = Vec::with_capacity(count);
        for _ in 0..count {
            shards.push(ShardRow::decode(&mut reader)?);
        }
        reader.finish()?;
        Ok(Self { version, nodes, shards })
    }
}

const FORMAT: u8 = 1;
const NODE_BYTES_MIN: usize = 21;
const ROW_BYTES_MIN: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::founding::{FoundingRecord, Member};
    use proptest::prelude::*;

    #[test]
    fn a_map_is_read_back_and_cut_bytes_are_refused() {
        let member = |id: u64| Member {
            node: NodeId(id),
            incarnation: Incarnation(7),
            peer_address: "a:1".into(),
            zone: "z".into(),
            weight: 1,
        };
        let members = vec![member(1), member(300)];
        let map = FoundingRecord { members, shards: 5, replication: 2, durability: Default::default() }.layout();
        let bytes = map.encode();
        assert_eq!(ShardMap::decode(bytes.clone()), Ok(map));
        for length in 0..bytes.len() {
            assert!(ShardMap::decode(bytes.slice(..length)).is_err());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(mut bytes: Vec<u8>, format: bool) {
            if format {
                bytes.insert(0, FORMAT);
            }
            if let Ok(map) = ShardMap::decode(bytes.into()) {
                let _ = CheckedMap::new(map);
            }
        }
    }
}
