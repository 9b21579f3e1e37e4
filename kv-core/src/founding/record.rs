//! The founding record: its codec, the cluster's id, and the layout that follows from it.
//!
//! The record is written once and never changed. Its encoding is frozen like the ring: the cluster's id is a hash of it.

use std::collections::BTreeMap;

use bytes::Bytes;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::{
    codec::{CodecError, Reader, put_bytes, put_u8, put_u64, put_u128, put_varint},
    configuration::Configuration,
    error::Error,
    placement::{place, place_meta},
    ring::{RING_VERSION, arcs},
    shard_map::{ADDRESS_BYTES_MAX, NodeDescription, ReplicaPlace, ShardMap, ShardRow},
    types::{ClusterId, Durability, Epoch, Incarnation, META_SHARD, MapVersion, NodeId, ReplicaId, ShardId},
};

/// Most members of a founding. More are refused as invalid; a cluster may grow past it later.
pub const MEMBERS_MAX: usize = 100;
/// Most shards, the meta shard not counted. More are refused as invalid.
pub const SHARDS_MAX: u32 = 4096;
/// Number of shards where none is given, the meta shard not counted.
pub const SHARDS_DEFAULT: u32 = 12;
/// Most replicas of a shard. More are refused as invalid.
pub const REPLICATION_MAX: u32 = 7;
/// Number of replicas where none is given.
pub const REPLICATION_DEFAULT: u32 = 3;
/// Largest weight of a node. A larger one is refused as invalid.
pub const WEIGHT_MAX: u32 = 64;

/// What all members must be started with alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundingSettings {
    /// The members and where their peers reach them, ascending by id. The addresses may differ from member to member.
    pub members: BTreeMap<NodeId, String>,
    /// Number of shards, the meta shard not counted.
    pub shards: u32,
    /// Number of replicas of a shard; fewer if there are fewer members.
    pub replication: u32,
    /// When writes are acknowledged that don't say.
    pub durability: Durability,
}

impl FoundingSettings {
    /// These members, and the defaults.
    #[must_use]
    pub fn new(members: BTreeMap<NodeId, String>) -> Self {
        Self { members, shards: SHARDS_DEFAULT, replication: REPLICATION_DEFAULT, durability: Durability::default() }
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// `Invalid` with a sentence that names the setting.
    pub fn check(&self) -> Result<(), Error> {
        if self.members.is_empty() || self.members.len() > MEMBERS_MAX {
            return Err(Error::invalid(format!(
                "the cluster has {} members; it is founded by 1 to {MEMBERS_MAX}",
                self.members.len()
            )));
        }
        if self.members.contains_key(&NodeId(0)) {
            return Err(Error::invalid("a member has the id 0; ids begin at 1"));
        }
        if let Some((node, _)) = self.members.iter().find(|(_, address)| address.len() > ADDRESS_BYTES_MAX) {
            return Err(Error::invalid(format!("the address of node {node} is longer than {ADDRESS_BYTES_MAX} bytes")));
        }
        if self.shards == 0 || self.shards > SHARDS_MAX {
            return Err(Error::invalid(format!("{} shards are asked for; it can be 1 to {SHARDS_MAX}", self.shards)));
        }
        if self.replication == 0 || self.replication > REPLICATION_MAX {
            return Err(Error::invalid(format!(
                "{} replicas are asked for; it can be 1 to {REPLICATION_MAX}",
                self.replication
            )));
        }
        Ok(())
    }

    /// A digest of the members' ids, of shards, replication, durability and the ring's version.
    #[must_use]
    pub fn digest(&self) -> ConfigurationDigest {
        digest(self.members.keys().copied(), self.shards, self.replication, self.durability)
    }
}

/// A digest of what all members must be started with alike: addresses, zones, weights and incarnations are not in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConfigurationDigest(pub u64);

fn digest(
    ids: impl ExactSizeIterator<Item = NodeId>,
    shards: u32,
    replication: u32,
    durability: Durability,
) -> ConfigurationDigest {
    let mut bytes = Vec::new();
    put_u8(&mut bytes, FORMAT);
    put_varint(&mut bytes, u64::from(RING_VERSION));
    put_varint(&mut bytes, ids.len() as u64);
    for id in ids {
        put_varint(&mut bytes, id.0);
    }
    put_varint(&mut bytes, u64::from(shards));
    put_varint(&mut bytes, u64::from(replication));
    put_u8(&mut bytes, durability_byte(durability));
    ConfigurationDigest(xxh3_64(&bytes))
}

/// A member as the founding record names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The node.
    pub node: NodeId,
    /// Its data directory's incarnation.
    pub incarnation: Incarnation,
    /// Where its peers reached it when the cluster was founded.
    pub peer_address: String,
    /// The failure domain it stands in; empty means one of its own.
    pub zone: String,
    /// Its share of the load against the others'; at least 1.
    pub weight: u32,
}

/// What founds a cluster. One that was decoded is within all bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundingRecord {
    /// The members, ascending by id.
    pub members: Vec<Member>,
    /// Number of shards, the meta shard not counted.
    pub shards: u32,
    /// Number of replicas of a shard; fewer if there are fewer members.
    pub replication: u32,
    /// When writes are acknowledged that don't say.
    pub durability: Durability,
}

impl FoundingRecord {
    /// The cluster's id: the hash of the record's encoding.
    #[must_use]
    pub fn cluster_id(&self) -> ClusterId {
        ClusterId(xxh3_128(&self.encode()))
    }

    /// The digest of the settings by which it was made; see [`FoundingSettings::digest`].
    #[must_use]
    pub fn configuration_digest(&self) -> ConfigurationDigest {
        let ids = self.members.iter().map(|member| member.node);
        digest(ids, self.shards, self.replication, self.durability)
    }

    /// A member by its id.
    #[must_use]
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        let index = self.members.binary_search_by_key(&node, |member| member.node).ok()?;
        Some(&self.members[index])
    }

    /// The map at founding, version 0: the meta shard, and the shards 1.. on the arcs of the ring in ascending order.
    ///
    /// Replica ids count from 1 over all shards, owner first, so that none is used twice. [`configuration`] gives a
    /// shard's configuration from its row.
    #[must_use]
    pub fn layout(&self) -> ShardMap {
        let nodes: Vec<_> = self.members.iter().map(description).collect();
        let arcs: BTreeMap<_, _> = (1..).map(ShardId).zip(arcs(self.shards)).collect();
        let positions = arcs.iter().map(|(shard, arc)| (*shard, arc.first)).collect();
        let mut placed = place(&nodes, &positions, self.replication);
        placed.insert(META_SHARD, place_meta(&nodes));

        let mut last = ReplicaId(0);
        let mut replica = |node| {
            last = last.next();
            ReplicaPlace { replica: last, node }
        };
        let shards = placed
            .into_iter()
            .map(|(shard, nodes)| ShardRow {
                shard,
                arc: arcs.get(&shard).copied(),
                epoch: Epoch(1),
                replicas: nodes.into_iter().map(&mut replica).collect(),
            })
            .collect();
        ShardMap { version: MapVersion(0), nodes, shards }
    }

    /// Its bytes, for the disk and for other members.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        put_u8(&mut out, FORMAT);
        put_varint(&mut out, u64::from(RING_VERSION));
        put_varint(&mut out, u64::from(self.shards));
        put_varint(&mut out, u64::from(self.replication));
        put_u8(&mut out, durability_byte(self.durability));
        put_varint(&mut out, self.members.len() as u64);
        for member in &self.members {
            put_varint(&mut out, member.node.0);
            put_u128(&mut out, member.incarnation.0);
            put_bytes(&mut out, member.peer_address.as_bytes());
            put_bytes(&mut out, member.zone.as_bytes());
            put_varint(&mut out, u64::from(member.weight));
        }
        let hash = xxh3_64(&out);
        put_u64(&mut out, hash);
        out.into()
    }

    /// Reads what [`FoundingRecord::encode`] wrote.
    ///
    /// # Errors
    /// If the bytes are damaged, over a bound, of another format or of another version of the ring.
    pub fn decode(bytes: &Bytes) -> Result<Self, CodecError> {
        let Some(length) = bytes.len().checked_sub(HASH_BYTES) else { return Err(CodecError("a founding record")) };
        if Reader::new(bytes.slice(length..)).u64()? != xxh3_64(&bytes[..length]) {
            return Err(CodecError("a founding record whose hash is right"));
        }
        let mut reader = Reader::new(bytes.slice(..length));
        if reader.u8()? != FORMAT {
            return Err(CodecError("a founding record of format 1"));
        }
        if reader.varint()? != u64::from(RING_VERSION) {
            return Err(CodecError("a founding record of ring version 1"));
        }
        let shards = u32::try_from(reader.varint()?).map_err(|_| CodecError("a number of shards"))?;
        let replication = u32::try_from(reader.varint()?).map_err(|_| CodecError("a number of replicas"))?;
        let durability = if reader.bool()? { Durability::Async } else { Durability::Sync };
        let count = reader.count(20)?;
        if count > MEMBERS_MAX {
            return Err(CodecError("a founding record within its bounds"));
        }
        let members = (0..count).map(|_| decode_member(&mut reader)).collect::<Result<Vec<_>, _>>()?;
        reader.finish()?;

        let ascending = members.windows(2).all(|pair| pair[0].node < pair[1].node);
        let weighted = members.iter().all(|member| (1..=WEIGHT_MAX).contains(&member.weight));
        let settings = FoundingSettings {
            members: members.iter().map(|member| (member.node, member.peer_address.clone())).collect(),
            shards,
            replication,
            durability,
        };
        if !ascending || !weighted || settings.check().is_err() {
            return Err(CodecError("a founding record within its bounds"));
        }
        Ok(Self { members, shards, replication, durability })
    }
}

/// The configuration with which a shard starts: every replica of its row votes.
#[must_use]
pub fn configuration(row: &ShardRow) -> Configuration {
    let nodes: BTreeMap<_, _> = row.replicas.iter().map(|place| (place.replica, place.node)).collect();
    Configuration { voters: nodes.keys().copied().collect(), nodes, ..Configuration::default() }
}

const FORMAT: u8 = 1;
const HASH_BYTES: usize = 8;

fn durability_byte(durability: Durability) -> u8 {
    match durability {
        Durability::Sync => 0,
        Durability::Async => 1,
    }
}

fn decode_member(reader: &mut Reader) -> Result<Member, CodecError> {
    let node = NodeId(reader.varint()?);
    let incarnation = Incarnation(reader.u128()?);
    let (peer_address, zone) = (decode_text(reader)?, decode_text(reader)?);
    let weight = u32::try_from(reader.varint()?).map_err(|_| CodecError("a weight"))?;
    Ok(Member { node, incarnation, peer_address, zone, weight })
}

/// A text of at most [`ADDRESS_BYTES_MAX`] bytes.
pub(super) fn decode_text(reader: &mut Reader) -> Result<String, CodecError> {
    let bytes = reader.bytes()?;
    if bytes.len() > ADDRESS_BYTES_MAX {
        return Err(CodecError("a text of at most 300 bytes"));
    }
    String::from_utf8(bytes.to_vec()).map_err(|_| CodecError("text in UTF-8"))
}

fn description(member: &Member) -> NodeDescription {
    NodeDescription {
        node: member.node,
        incarnation: member.incarnation,
        peer_address: member.peer_address.clone(),
        client_address: String::new(),
        zone: member.zone.clone(),
        weight: member.weight,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::shard_map::CheckedMap;
    use proptest::prelude::*;

    /// A record of members 1..=count, of equal weight, each in a zone of its own.
    pub(crate) fn record(count: u64, shards: u32, replication: u32) -> FoundingRecord {
        let members = (1..=count)
            .map(|id| Member {
                node: NodeId(id),
                incarnation: Incarnation(u128::from(id) * 11),
                peer_address: format!("host-{id}:7201"),
                zone: String::new(),
                weight: 1,
            })
            .collect();
        FoundingRecord { members, shards, replication, durability: Durability::Sync }
    }

    /// The cluster's id is a hash of this encoding: it never changes.
    #[test]
    fn golden_encoding() {
        let record = record(1, 12, 3);
        let bytes = record.encode();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "01010c030001010b0000000000000000000000000000000b686f73742d313a373230310001a3409839d879a1b0");
        assert_eq!(record.cluster_id().to_string(), "716950792ea28751c7644af758b89bdc");
    }

    #[test]
    fn the_layout_of_one_node_and_of_three() {
        let alone = record(1, 2, 3).layout();
        assert!(alone.shards.iter().all(|row| row.replicas.len() == 1));
        assert_eq!(alone.shards.len(), 3);

        let map = record(3, 12, 3).layout();
        assert_eq!(map.shards.len(), 13);
        assert_eq!(map.shards[0].owner(), Some(NodeId(1)));
        for row in &map.shards {
            assert_eq!(row.replicas.len(), 3);
            let configuration = configuration(row);
            assert_eq!(configuration.voters.len(), 3);
            assert!(configuration.voters.is_sorted());
            assert_eq!(configuration.nodes[&row.replicas[0].replica], row.replicas[0].node);
        }
        for id in 1..=3 {
            let owned = map.shards[1..].iter().filter(|row| row.owner() == Some(NodeId(id))).count();
            assert!((1..=5).contains(&owned), "node {id} owns {owned} of 12 shards");
        }
    }

    #[test]
    fn the_digest_leaves_out_incarnations_and_addresses_and_nothing_else() {
        let base = record(3, 12, 3);
        let mut other = base.clone();
        other.members[1].incarnation = Incarnation(999);
        other.members[1].peer_address = "elsewhere:1".into();
        assert_eq!(base.configuration_digest(), other.configuration_digest());
        assert_ne!(base.cluster_id(), other.cluster_id());
        for different in [
            record(4, 12, 3),
            record(3, 13, 3),
            record(3, 12, 2),
            FoundingRecord { durability: Durability::Async, ..base.clone() },
        ] {
            assert_ne!(base.configuration_digest(), different.configuration_digest());
        }
        let members = base.members.iter().map(|member| (member.node, String::new())).collect();
        assert_eq!(FoundingSettings::new(members).digest(), base.configuration_digest());
    }

    #[test]
    fn damaged_records_are_refused() {
        let bytes = record(3, 12, 3).encode();
        for index in 0..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[index] ^= 1 << (index % 8);
            assert!(FoundingRecord::decode(&damaged.into()).is_err());
            assert!(FoundingRecord::decode(&bytes.slice(..index)).is_err());
        }
        let out_of_bounds = [record(3, 0, 3), record(3, SHARDS_MAX + 1, 3), record(3, 12, 0), record(0, 12, 3)];
        assert!(out_of_bounds.iter().all(|record| FoundingRecord::decode(&record.encode()).is_err()));
        let mut twice = record(3, 12, 3);
        twice.members[2].node = NodeId(2);
        assert!(FoundingRecord::decode(&twice.encode()).is_err());
    }

    proptest! {
        #[test]
        fn a_record_is_read_back_and_its_layout_is_a_whole_map(
            count in 1_u64..20, shards in 1_u32..40, replication in 1_u32..8, zones in 1_u64..5, heavy in 0_u64..20,
        ) {
            let mut record = record(count, shards, replication);
            for member in &mut record.members {
                member.zone = format!("zone-{}", member.node.0 % zones);
                member.weight = if member.node.0 == heavy { 5 } else { 1 };
            }
            prop_assert_eq!(FoundingRecord::decode(&record.encode()).unwrap(), record.clone());
            let map = CheckedMap::new(record.layout());
            prop_assert!(map.is_ok(), "{map:?}");
            for row in &record.layout().shards[1..] {
                prop_assert_eq!(row.replicas.len() as u64, count.min(u64::from(replication)));
            }
            prop_assert_eq!(record.layout().shards[0].replicas.len() as u64, count.min(5));
        }
    }
}
