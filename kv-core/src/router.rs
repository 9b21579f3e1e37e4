//! Where to send an operation, and what to do when it fails: the client's half of routing, without IO.
//!
//! A [`Router`] holds what is known of the cluster: the map, who answered last as leader of a shard, and which nodes are down.
//! All of it are hints; a wrong one costs a round trip, never a wrong answer, because the shard itself checks who owns a key.
//! An [`Attempt`] takes one operation through it: send, wait or give up, until it is answered or its deadline passes. A
//! [`Window`] gives writes their places in a session. A [`Relay`] is a server's half: the way of a call whose caller knows no map.
//!
//! Time and randomness come in with each call. The connections, the deadline's timer and the map's refresh
//! ([`Router::map_wanted`]) are the caller's.

use std::collections::BTreeMap;

use crate::{
    ring,
    shard_map::{CheckedMap, MapError, ShardMap, ShardRow},
    types::{Epoch, Key, MapVersion, NodeId, Position, ShardId, Time},
};

mod attempt;
mod relay;
mod remedy;
mod throttle;
mod window;

pub use attempt::{
    ANSWER_MICROS_MIN, Attempt, Decision, Last, OperationKind, SENDS_PER_ROUND_MAX, WAIT_MICROS_MAX, WAIT_MICROS_MIN,
};
pub use relay::{Further, RELAY_PAUSE_MICROS, Relay};
pub use remedy::Remedy;
pub use window::{WINDOW_MAX, Window};

/// First time for which a node that failed is passed over, in microseconds. It doubles with each further failure.
pub const NODE_PAUSE_MICROS_MIN: u64 = 50_000;
/// Longest time for which a node that failed is passed over, in microseconds.
pub const NODE_PAUSE_MICROS_MAX: u64 = 1_000_000;

/// Where an operation goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// To the shard whose arc holds this position.
    Position(Position),
    /// To this shard.
    Shard(ShardId),
}

impl From<&Key> for Destination {
    fn from(key: &Key) -> Self {
        Self::Position(ring::position(key.as_bytes()))
    }
}

/// The first choice for an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// The shard.
    pub shard: ShardId,
    /// The epoch of the shard's row, which goes with the request.
    pub epoch: Epoch,
    /// The node that answered last as the shard's leader, else its owner.
    pub node: NodeId,
    /// Where clients reach the node; empty if it has not said so.
    pub address: &'a str,
}

/// What is known of the cluster.
#[derive(Clone, Debug, Default)]
pub struct Router {
    map: Option<CheckedMap>,
    map_wanted: bool,
    /// Who is thought to lead a shard. At most one entry for a shard of the map.
    leaders: BTreeMap<ShardId, NodeId>,
    /// At most one entry for a node of the map.
    health: BTreeMap<NodeId, Health>,
    /// At most one entry for a node of the map.
    throttles: BTreeMap<NodeId, throttle::Throttle>,
}

/// How a node has been lately.
#[derive(Clone, Copy, Debug, Default)]
struct Health {
    answered_at: Time,
    failures: u32,
    paused_until: Time,
}

impl Router {
    /// A router that knows nothing and wants a map.
    #[must_use]
    pub fn new() -> Self {
        Self { map_wanted: true, ..Self::default() }
    }

    /// The map, once there is one.
    #[must_use]
    pub fn map(&self) -> Option<&ShardMap> {
        self.map.as_ref().map(CheckedMap::map)
    }

    /// The map's version; 0 before there is one.
    #[must_use]
    pub fn map_version(&self) -> MapVersion {
        self.map().map(|map| map.version).unwrap_or_default()
    }

    /// Whether the map is missing or known to be stale: fetch one from any node. Stays so until [`Router::take_map`].
    #[must_use]
    pub fn map_wanted(&self) -> bool {
        self.map_wanted
    }

    /// Takes a map that a node sent, if it is fresher. True if it was taken.
    ///
    /// # Errors
    /// If the map can't be right; nothing is changed then.
    pub fn take_map(&mut self, map: &ShardMap) -> Result<bool, MapError> {
        let taken = match &mut self.map {
            Some(own) => own.take_map(map)?,
            None => {
                self.map = Some(CheckedMap::new(map.clone())?);
                true
            }
        };
        self.map_wanted = false;
        if let (true, Some(map)) = (taken, &self.map) {
            self.health.retain(|node, _| map.node(*node).is_some());
            self.throttles.retain(|node, _| map.node(*node).is_some());
            self.leaders.retain(|shard, leader| map.row(*shard).is_some() && map.node(*leader).is_some());
        }
        Ok(taken)
    }

    /// The first choice for a key; `None` without a map.
    #[must_use]
    pub fn route(&self, key: &Key) -> Option<Target<'_>> {
        let row = self.row(key.into())?;
        let node = self.leader(row.shard).or_else(|| row.owner())?;
        Some(Target { shard: row.shard, epoch: row.epoch, node, address: self.address(node)? })
    }

    /// Where clients reach a node; empty if it has not said so, `None` if it is unknown.
    #[must_use]
    pub fn address(&self, node: NodeId) -> Option<&str> {
        Some(&self.map.as_ref()?.node(node)?.client_address)
    }

    /// A connection to the node was made, or it answered anything: it is up.
    pub fn node_answered(&mut self, node: NodeId, now: Time) {
        self.health.insert(node, Health { answered_at: now, ..Health::default() });
    }

    /// A connection to the node failed or broke: others are asked for a while.
    ///
    /// Many operations may report one failure: while the node is passed over, further reports change nothing.
    pub fn node_failed(&mut self, node: NodeId, now: Time, random: u64) {
        let health = self.health.entry(node).or_default();
        if now < health.paused_until {
            return;
        }
        let micros = (NODE_PAUSE_MICROS_MIN << health.failures.min(10)).min(NODE_PAUSE_MICROS_MAX);
        health.failures = health.failures.saturating_add(1);
        health.paused_until = now.plus_micros(jittered(micros, random));
    }

    /// A node took what it was asked, or refused it as overloaded.
    fn node_took(&mut self, node: NodeId, overloaded: bool, now: Time) {
        self.throttles.entry(node).or_default().answered(overloaded, now);
    }

    /// Whether what is about to be sent to a node is held back, since it refuses too much.
    fn holds_back(&mut self, node: NodeId, now: Time, random: u64) -> bool {
        let holds_back = self.throttles.get_mut(&node).is_some_and(|throttle| throttle.holds_back(now, random));
        point!(OperationHeldBack if holds_back);
        holds_back
    }

    fn row(&self, destination: Destination) -> Option<&ShardRow> {
        match destination {
            Destination::Position(position) => self.map.as_ref()?.row_at(position),
            Destination::Shard(shard) => self.map.as_ref()?.row(shard),
        }
    }

    fn leader(&self, shard: ShardId) -> Option<NodeId> {
        self.leaders.get(&shard).copied()
    }

    fn take_leader(&mut self, shard: ShardId, node: NodeId) {
        if self.map.as_ref().is_some_and(|map| map.row(shard).is_some() && map.node(node).is_some()) {
            self.leaders.insert(shard, node);
        } else {
            self.map_wanted = true;
        }
    }

    fn forget_leader(&mut self, shard: ShardId, node: NodeId) {
        if self.leader(shard) == Some(node) {
            self.leaders.remove(&shard);
        }
    }

    /// True if the row was fresher than what was known.
    fn take_row(&mut self, row: &ShardRow) -> bool {
        let Some(map) = &mut self.map else { return false };
        let old_arc = map.row(row.shard).and_then(|old| old.arc);
        match map.take_row(row) {
            Ok(taken) => {
                // The rest of an arc that was cut belongs to a shard of which this router may not know.
                self.map_wanted |= taken && old_arc != row.arc;
                taken
            }
            Err(_) => {
                self.map_wanted = true;
                false
            }
        }
    }

    fn answered_since(&self, node: NodeId, since: Time) -> bool {
        self.health.get(&node).is_some_and(|health| health.answered_at >= since && health.failures == 0)
    }

    /// 0 if the node may be asked now.
    fn pause_micros(&self, node: NodeId, now: Time) -> u64 {
        self.health.get(&node).map_or(0, |health| health.paused_until.micros_since(now))
    }

    /// A node that failed and is due again is tried by one operation; the others wait for what comes of it.
    fn begin_trial(&mut self, node: NodeId, now: Time) {
        if let Some(health) = self.health.get_mut(&node).filter(|health| health.failures > 0) {
            point!(NodeTriedAgain);
            health.paused_until = now.plus_micros(NODE_PAUSE_MICROS_MIN);
        }
    }
}

/// Between a half of `micros` and all of it.
fn jittered(micros: u64, random: u64) -> u64 {
    micros - random % (micros / 2).max(1)
}
