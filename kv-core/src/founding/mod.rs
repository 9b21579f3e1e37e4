//! How a cluster comes to be: the record that founds it, and what follows from that record.
//!
//! * [`FoundingRecord`]: the members with their incarnations, and the settings. The cluster's id is its hash; shard ids,
//!   arcs, replica ids, configurations and owners are a pure function of it ([`FoundingRecord::layout`]).

mod record;

pub use record::{
    ConfigurationDigest, FoundingRecord, FoundingSettings, MEMBERS_MAX, Member, REPLICATION_DEFAULT, REPLICATION_MAX,
    SHARDS_DEFAULT, SHARDS_MAX, WEIGHT_MAX, configuration,
};
