//! The log of a node: one stream of blocks for all its shards.
pub mod record;
