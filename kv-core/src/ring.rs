//! The ring: where a key stands, where a node stands, and how the ring is cut into arcs.
//!
//! Everything here is frozen: a key that moved to another position would be looked for in the wrong shard. The functions are
//! version [`RING_VERSION`], which the founding record names, and golden values in the tests pin them. Which nodes hold an
//! arc is not decided here, see [`placement`](crate::placement).

use xxhash_rust::xxh3::xxh3_64;

use crate::{
    shard_map::Arc,
    types::{NodeId, Position},
};

/// The version of the functions of this file. A node of another version can't take part in the cluster.
pub const RING_VERSION: u32 = 1;

/// Number of places on the ring that a node gets for each unit of its weight.
///
/// More of them even out the load by about 1 / sqrt(places); placement bounds what is left.
pub const PLACES_PER_WEIGHT: u32 = 256;

/// The position of a key: the hash of the key, or of its hash tag, so that keys with one tag share a shard.
#[must_use]
pub fn position(key: &[u8]) -> Position {
    Position(xxh3_64(hash_tag(key)))
}

/// The part of a key that is hashed: what stands between the first `{` and the first `}` after it, if that is not empty, else
/// the whole key. This is Redis Cluster's rule to the letter.
#[must_use]
pub fn hash_tag(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|byte| *byte == b'{') else { return key };
    let inner = &key[open + 1..];
    match inner.iter().position(|byte| *byte == b'}') {
        Some(length) if length > 0 => &inner[..length],
        _ => key,
    }
}

/// The places of a node on the ring: the hashes of (node, number) in little-endian. A larger weight only adds places.
pub fn node_positions(node: NodeId, weight: u32) -> impl Iterator<Item = Position> {
    let count = u64::from(weight) * u64::from(PLACES_PER_WEIGHT);
    (0..count).map(move |number| {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&node.0.to_le_bytes());
        bytes[8..].copy_from_slice(&number.to_le_bytes());
        Position(xxh3_64(&bytes))
    })
}

/// Cuts the ring into `count` arcs whose lengths differ by at most one position, ascending.
#[must_use]
pub fn arcs(count: u32) -> Vec<Arc> {
    let first = |number: u32| (u128::from(number) << 64).div_ceil(u128::from(count.max(1)));
    (0..count)
        .map(|number| Arc {
            first: Position(u64::try_from(first(number)).expect("number < count, so this is below 2^64")),
            last: Position(u64::try_from(first(number + 1) - 1).expect("number + 1 <= count, so this is below 2^64")),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A change of any of these moves keys of existing clusters to shards that don't hold them.
    #[test]
    fn golden_positions() {
        let keys: [&[u8]; 5] = [b"", b"a", b"hello", b"user:1000", &[0xff; 4096]];
        // The first two are published values of XXH3.
        let golden = [
            0x2d06_8005_38d3_94c2,
            0xe6c6_32b6_1e96_4e1f,
            0x9555_e855_5c62_dcfd,
            0xfb68_41b2_068c_0c9f,
            0x074c_fac2_7385_1dd6,
        ];
        assert_eq!(keys.map(position), golden.map(Position), "{:x?}", keys.map(|key| position(key).0));

        let places: Vec<_> =
            node_positions(NodeId(1), 1).take(2).chain(node_positions(NodeId(7), 2).skip(511)).collect();
        let golden = [0x26f2_a114_8cf5_2011, 0x6ca7_f978_e158_28a6, 0x5d5e_3a03_d8ab_e50d];
        assert_eq!(places, golden.map(Position), "{:x?}", places.iter().map(|place| place.0).collect::<Vec<_>>());
    }

    #[test]
    fn hash_tags_follow_redis_cluster() {
        // The examples of the Redis Cluster specification.
        assert_eq!(hash_tag(b"{user1000}.following"), b"user1000");
        assert_eq!(hash_tag(b"foo{}{bar}"), b"foo{}{bar}");
        assert_eq!(hash_tag(b"foo{{bar}}zap"), b"{bar");
        assert_eq!(hash_tag(b"foo{bar}{zap}"), b"bar");
        // And the edges.
        assert_eq!(hash_tag(b"{"), b"{");
        assert_eq!(hash_tag(b"}{"), b"}{");
        assert_eq!(hash_tag(b"a}b{c}"), b"c");
        assert_eq!(hash_tag(b"{a"), b"{a");
        assert_eq!(position(b"{user1000}.following"), position(b"user1000"));
    }

    #[test]
    fn a_larger_weight_only_adds_places() {
        let light: Vec<_> = node_positions(NodeId(3), 1).collect();
        let heavy: Vec<_> = node_positions(NodeId(3), 3).collect();
        assert_eq!(light.len(), 256);
        assert_eq!(heavy.len(), 768);
        assert_eq!(heavy[..256], light[..]);
        assert_eq!(node_positions(NodeId(3), 0).count(), 0);
    }

    #[test]
    fn golden_arcs() {
        assert_eq!(arcs(0), []);
        assert_eq!(arcs(1), [Arc { first: Position(0), last: Position(u64::MAX) }]);
        let thirds = arcs(3);
        assert_eq!(thirds[1].first, Position(0x5555_5555_5555_5556));
        assert_eq!(thirds[1].last, Position(0xaaaa_aaaa_aaaa_aaaa));
    }

    proptest! {
        #[test]
        fn arcs_cover_the_ring_without_overlap(count in 1_u32..5_000) {
            let arcs = arcs(count);
            prop_assert_eq!(arcs[0].first, Position(0));
            prop_assert_eq!(arcs[arcs.len() - 1].last, Position(u64::MAX));
            let even = u64::MAX / u64::from(count);
            for pair in arcs.windows(2) {
                prop_assert_eq!(pair[0].last.0.checked_add(1), Some(pair[1].first.0));
            }
            for arc in arcs {
                prop_assert!((arc.last.0 - arc.first.0).abs_diff(even) <= 1);
            }
        }
    }
}
