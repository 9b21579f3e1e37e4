//! The whole algorithm of kv, without IO: no threads, clocks, files, sockets or random numbers.

pub mod codec;
pub mod command;
pub mod configuration;
pub mod disk;
pub mod error;
#[cfg(feature = "node")]
pub mod settings;
pub mod shard_map;
pub mod types;

#[cfg(feature = "node")]
pub mod checkpoint;
#[cfg(feature = "node")]
pub mod io;
#[cfg(feature = "node")]
pub mod log;
#[cfg(feature = "node")]
pub mod message;
#[cfg(feature = "node")]
pub mod state;
