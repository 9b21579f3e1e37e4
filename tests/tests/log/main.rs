//! The log on a disk that tears, rots and loses: either every synced batch is told, or the log is refused.
//!
//! One hole is known, and shown by `damage::whole_sectors_lost_at_the_very_end_look_torn`.

// Everything here runs only in tests, helpers included.
#![allow(clippy::unwrap_used)]

#[cfg(kv_mutants)]
mod canaries;
mod crashes;
mod damage;
mod model;
mod recycling;
mod sample;
