//! How a cluster comes to be: the record that founds it, what follows from that record, and the protocol that spreads it.
//!
//! * [`FoundingRecord`]: the members with their incarnations, and the settings. The cluster's id is its hash; shard ids,
//!   arcs, replica ids, configurations and owners are a pure function of it ([`FoundingRecord::layout`]).
//! * [`IdentityFile`]: what a data directory says of its node. It is stored through the disk trait, by shell
//!   and simulator alike.
//! * [`Founder`]: the protocol, without IO. It promises that at most one record is in force: see [`founder`] for why.

pub mod founder;
mod identity_file;
mod message;
mod record;

pub use founder::{Founder, FounderOutput, FounderStart};
pub use identity_file::{DATA_FORMAT, IDENTITY_PATH, IdentityError, IdentityFile};
pub use message::{FoundingMessage, FoundingRefusal, Unfounded};
pub use record::{
    ConfigurationDigest, FoundingRecord, FoundingSettings, MEMBERS_MAX, Member, REPLICATION_DEFAULT, REPLICATION_MAX,
    SHARDS_DEFAULT, SHARDS_MAX, WEIGHT_MAX, configuration,
};

#[cfg(test)]
pub(crate) use record::tests;
