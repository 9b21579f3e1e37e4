//! The whole algorithm of kv, without IO: no threads, clocks, files, sockets or random numbers.

/// Whether a planted bug is switched on: the constant `false`, except in the mutant build.
#[cfg(not(kv_mutants))]
#[macro_export]
macro_rules! mutant {
    ($($bug:literal)|+) => {
        false
    };
}

/// Whether a planted bug, or one of several, is switched on in this thread.
#[cfg(kv_mutants)]
#[macro_export]
macro_rules! mutant {
    ($($bug:literal)|+) => {
        $($crate::mutants::on($bug))||+
    };
}

#[macro_use]
pub mod points;

pub mod codec;
pub mod command;
pub mod configuration;
pub mod disk;
pub mod error;
pub mod founding;
pub mod identity;
#[cfg(kv_mutants)]
pub mod mutants;
pub mod placement;
pub mod ring;
pub mod router;
#[cfg(feature = "node")]
pub mod settings;
pub mod shard_map;
pub mod types;

#[cfg(feature = "node")]
pub mod checkpoint;
#[cfg(feature = "node")]
pub mod inbox;
#[cfg(feature = "node")]
pub mod io;
#[cfg(feature = "node")]
pub mod log;
#[cfg(feature = "node")]
pub mod message;
#[cfg(feature = "node")]
pub mod node;
#[cfg(feature = "node")]
mod replica;
#[cfg(feature = "node")]
mod sequences;
#[cfg(feature = "node")]
pub mod state;
