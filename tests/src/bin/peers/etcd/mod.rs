//! The part of etcd's protocol that is spoken here: `kv.proto`, and the code made from it.

#[allow(clippy::all, clippy::pedantic, missing_docs, unreachable_pub, unused_qualifications, dead_code)]
pub(crate) mod wire {
    include!("generated.rs");
}
