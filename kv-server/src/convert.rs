//! Between the wire's messages and the core's types: the only place that knows both.
//!
//! What comes from outside is checked here and becomes a core type or an error with a sentence; it never panics and never
//! reaches the core half checked. What goes out can't fail.

mod answer;
mod cluster;
mod error;
mod heartbeats;
mod peer;
mod raft;
mod request;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use kv_core::error::Error;

pub(crate) use self::{
    answer::{answer_to_get, answer_to_result, answer_to_write},
    cluster::{durability_to_wire, map_to_wire},
    error::error_to_status,
    heartbeats::HeartbeatRow,
    peer::{FromPeer, batch_from_wire, count_of, founding_to_wire, message_to_wire},
    request::operation_from_wire,
};

/// A 128-bit id on the wire: 16 bytes, highest first.
pub(crate) fn id_to_wire(id: u128) -> Bytes {
    Bytes::copy_from_slice(&id.to_be_bytes())
}

/// Reads a 128-bit id.
pub(crate) fn id_from_wire(bytes: &[u8], what: &str) -> Result<u128, Error> {
    match <[u8; 16]>::try_from(bytes) {
        Ok(bytes) => Ok(u128::from_be_bytes(bytes)),
        Err(_) => Err(Error::invalid(format!("{what} has {} bytes; it has 16", bytes.len()))),
    }
}

/// Below this many bytes a string is copied out of the buffer it came in, which it would otherwise keep in memory whole.
const COPIED_BYTES_MAX: usize = 4096;

/// The same bytes, without a large buffer behind a small string that is kept for long.
fn compact(bytes: Bytes) -> Bytes {
    if bytes.len() <= COPIED_BYTES_MAX { Bytes::copy_from_slice(&bytes) } else { bytes }
}
