//! The state of a shard.
pub mod record;
