//! What a server is started with. Where it comes from (a file, flags, the environment) is the binary's business.

use std::{collections::BTreeMap, net::TcpListener, path::PathBuf};

use kv_core::{
    founding::{FoundingSettings, REPLICATION_DEFAULT, SHARDS_DEFAULT, WEIGHT_MAX},
    settings::Settings,
    shard_map::ADDRESS_BYTES_MAX,
    types::{Durability, NodeId},
};

use crate::{
    disk::Engine,
    faults::Faults,
    links::Links,
    net,
    services::CONNECTIONS_MAX,
    stop::{Failure, Trouble},
    unread::{UNREAD_BYTES_LEAST, UNREAD_BYTES_MAX},
};

/// Most ticks of an election timeout. Raft itself takes just under a million for broken settings.
const ELECTION_TICKS_MAX: u64 = 10_000;

/// Everything that a server is started with.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node's id; one of the members.
    pub node: NodeId,
    /// All members of the cluster with the addresses by which their peers reach them: `host:port`.
    pub members: BTreeMap<NodeId, String>,
    /// Where to listen for peers; the node's address in `members` if not given.
    pub peer_listen: Option<String>,
    /// Where to listen for clients.
    pub client_listen: String,
    /// The address that clients are told; the one listened on if not given.
    pub client_address: Option<String>,
    /// Where to listen for health checks and metrics; nowhere if not given.
    pub http_listen: Option<String>,
    /// The data directory; made if it does not exist.
    pub data: PathBuf,
    /// Number of shards that a new cluster is founded with.
    pub shards: u32,
    /// Number of replicas of each shard in a new cluster.
    pub replication: u32,
    /// When writes that don't say are acknowledged in a new cluster.
    pub durability: Durability,
    /// The failure domain that the node stands in; empty means one of its own.
    pub zone: String,
    /// The node's share of the load against the others'.
    pub weight: u32,
    /// Whether it may listen beyond this machine without encryption.
    pub insecure: bool,
    /// Bytes of answers that all clients together may leave unread; past it, whoever has most of them loses its stream.
    pub unread_bytes_max: usize,
    /// Connections of clients at a time; past it those are closed that ask nothing, or newcomers if there are none.
    pub connections_max: usize,
    /// What the read index is kept in.
    pub engine: Engine,
    /// Timing and bounds of the core.
    pub settings: Settings,
    /// Which links to peers are allowed.
    pub links: Links,
    /// What is made to go wrong.
    pub faults: Faults,
}

impl Config {
    /// A node of these members, with defaults for the rest: clients at a free port of this machine, no HTTP.
    #[must_use]
    pub fn new(node: NodeId, members: BTreeMap<NodeId, String>, data: impl Into<PathBuf>) -> Self {
        Self {
            node,
            members,
            peer_listen: None,
            client_listen: "127.0.0.1:0".to_owned(),
            client_address: None,
            http_listen: None,
            data: data.into(),
            shards: SHARDS_DEFAULT,
            replication: REPLICATION_DEFAULT,
            durability: Durability::Sync,
            zone: String::new(),
            weight: 1,
            insecure: false,
            unread_bytes_max: UNREAD_BYTES_MAX,
            connections_max: CONNECTIONS_MAX,
            engine: Engine::default(),
            settings: Settings::default(),
            links: Links::default(),
            faults: Faults::default(),
        }
    }

    /// What all members must agree on to found a cluster.
    pub(crate) fn founding(&self) -> FoundingSettings {
        FoundingSettings {
            members: self.members.clone(),
            shards: self.shards,
            replication: self.replication,
            durability: self.durability,
        }
    }

    /// Checks what can be checked before anything is touched.
    ///
    /// # Errors
    /// `Configuration`, with what to change.
    pub fn check(&self) -> Result<(), Failure> {
        let mistake = |message: String| Err(Failure::new(Trouble::Configuration, message));
        if !self.members.contains_key(&self.node) {
            let members: Vec<_> = self.members.keys().map(ToString::to_string).collect();
            return mistake(format!(
                "node {} is not in the cluster, which has {}; add it to `cluster`, or change `node`",
                self.node,
                members.join(", ")
            ));
        }
        if let Err(error) = self.founding().check() {
            return mistake(error.message().to_owned());
        }
        if self.weight == 0 || self.weight > WEIGHT_MAX {
            return mistake(format!("the weight is {}; it can be 1 to {WEIGHT_MAX}", self.weight));
        }
        if self.zone.len() > ADDRESS_BYTES_MAX {
            return mistake(format!("the zone's name is longer than {ADDRESS_BYTES_MAX} bytes"));
        }
        if self.connections_max == 0 {
            return mistake("0 connections can't work; it can be 1 at least".to_owned());
        }
        if self.unread_bytes_max < UNREAD_BYTES_LEAST {
            return mistake(format!(
                "{} bytes of unread answers can't work; it can be {UNREAD_BYTES_LEAST} at least",
                self.unread_bytes_max
            ));
        }
        let settings = &self.settings;
        if settings.election_ticks > ELECTION_TICKS_MAX {
            return mistake(format!(
                "an election of {} ticks; it can be {ELECTION_TICKS_MAX} at most, so that a cluster whose leader is gone does \
                 not wait for hours",
                settings.election_ticks
            ));
        }
        if settings.heartbeat_ticks == 0 || settings.election_ticks / 2 < settings.heartbeat_ticks {
            return mistake(format!(
                "an election of {} ticks and a heartbeat of {} can't work; a heartbeat takes at least one tick, an \
                 election at least two heartbeats",
                settings.election_ticks, settings.heartbeat_ticks
            ));
        }
        if settings.checkpoint_ticks == 0 {
            return mistake("a checkpoint after 0 ticks; it can be 1 at least".to_owned());
        }
        if !(1_000..=10_000_000).contains(&settings.tick_micros) {
            return mistake(format!("a tick of {} us; it can be 1 ms to 10 s", settings.tick_micros));
        }
        Ok(())
    }
}

/// The sockets that a server listens on, bound beforehand so that their ports are known.
#[derive(Debug)]
pub struct Listeners {
    /// For peers.
    pub peer: TcpListener,
    /// For clients.
    pub client: TcpListener,
    /// For health checks and metrics.
    pub http: Option<TcpListener>,
}

impl Listeners {
    /// Binds what the configuration says.
    ///
    /// # Errors
    /// If an address is in use, is no address, or could be reached from other machines without `insecure`.
    pub fn bind(config: &Config) -> Result<Self, Failure> {
        let own = config.members.get(&config.node).map_or("", String::as_str);
        let peer = config.peer_listen.as_deref().unwrap_or(own);
        Ok(Self {
            peer: net::bind("peers", peer, config.insecure)?,
            client: net::bind("clients", &config.client_listen, config.insecure)?,
            http: match &config.http_listen {
                Some(address) => Some(net::bind("HTTP", address, config.insecure)?),
                None => None,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let members = (1..=3).map(|id| (NodeId(id), format!("127.0.0.1:720{id}"))).collect();
        Config::new(NodeId(1), members, "data")
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(config().check(), Ok(()));
        let message = |config: Config| config.check().unwrap_err().message;
        assert!(message(Config { node: NodeId(4), ..config() }).contains("node 4 is not in the cluster"));
        assert!(message(Config { shards: 0, ..config() }).contains("0 shards"));
        assert!(message(Config { weight: 0, ..config() }).contains("weight is 0"));
        assert!(message(Config { unread_bytes_max: 1_000, ..config() }).contains("1000 bytes of unread answers"));
        let settings = Settings { election_ticks: 2, ..Settings::default() };
        assert!(message(Config { settings, ..config() }).contains("election of 2 ticks"));
        for election_ticks in [ELECTION_TICKS_MAX + 1, 1_000_000, u64::MAX] {
            let settings = Settings { election_ticks, heartbeat_ticks: u64::MAX, ..Settings::default() };
            assert!(message(Config { settings, ..config() }).contains("10000 at most"));
        }
        let settings = Settings { heartbeat_ticks: u64::MAX, ..Settings::default() };
        assert!(message(Config { settings, ..config() }).contains("at least two heartbeats"));
        let settings = Settings { checkpoint_ticks: 0, ..Settings::default() };
        assert!(message(Config { settings, ..config() }).contains("0 ticks"));
        let settings = Settings {
            election_ticks: ELECTION_TICKS_MAX,
            heartbeat_ticks: ELECTION_TICKS_MAX / 2,
            ..Settings::default()
        };
        assert_eq!(Config { settings, ..config() }.check(), Ok(()));
    }
}
