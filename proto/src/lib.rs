//! The wire of kv: gRPC services and messages.
//!
//! The protos are under `kv/v1/`; the code made from them is committed, so that nobody needs protoc, and a test fails if the
//! two differ. Every `bytes` field is a [`bytes::Bytes`]: a value is not copied between the socket and the store. Nothing
//! here gives a meaning or checks a bound but that of long lists ([`frame`]); that is done where messages become the types of
//! kv-core.

pub mod frame;
pub mod status;

/// Version 1 of the wire.
pub mod v1 {
    #![allow(clippy::all, clippy::pedantic)]
    include!("generated/kv.v1.rs");
}

/// The protos as a compiled descriptor set: what gRPC reflection serves.
pub const DESCRIPTORS: &[u8] = include_bytes!("generated/kv.v1.descriptors.bin");

/// The version of the protocol that Hello and PeerHello name.
pub const PROTOCOL: u32 = 1;

/// Metadata of a unary call that only the node may answer to which it is sent: it is not handed on. Any value will do.
pub const HERE_ONLY: &str = "kv-here-only";

/// Metadata of a unary call that names the cluster which the caller means: 32 hexadecimal digits.
pub const CLUSTER: &str = "kv-cluster";
