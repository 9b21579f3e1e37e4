//! Checkpoints of a shard's state.
pub mod job;
