//! How clients come by maps: asked for when the router wants one, pushed with answers, and at first perhaps an old one.
//!
//! *Never produced here*: a map that can't be right (its decoder and checks have tests of their own), arcs that moved between
//! two maps, and epochs that are over, since
//! no arc moves yet; an old map differs in owners.

use kv_core::{shard_map::ShardMap, types::MapVersion};

use super::{
    network::Fate,
    world::{Event, World},
};

/// After this long a client that heard nothing asks for a map again, in microseconds.
const AGAIN_MICROS: u64 = 250_000;

/// Something that will happen to a map on its way.
#[derive(Debug)]
pub(super) enum MapEvent {
    /// A client's question arrives at a node.
    Asked { client: usize, node: usize },
    /// A map arrives at a client.
    Arrives { client: usize, map: Box<ShardMap> },
    /// Nothing came.
    NoAnswer { client: usize },
}

/// The map of a time before the cluster's first: every shard had another owner.
pub(super) fn of_long_ago(map: &ShardMap) -> ShardMap {
    let mut old = map.clone();
    old.version = MapVersion(0);
    for row in &mut old.shards {
        row.replicas.rotate_left(1);
    }
    old
}

impl World {
    /// Asks a node for a map, if the client's router wants one and no question is under way.
    pub(super) fn ask_for_map_if_wanted(&mut self, client: usize) {
        let nodes = self.machines.len();
        let here = &mut self.clients[client];
        if here.asks_for_map || !here.router.map_wanted() {
            return;
        }
        here.asks_for_map = true;
        // With a map it may ask any node, without one only the one whose address it was given. That one may be gone for good:
        // in the end its user has to name the others.
        let knows_more = here.router.map().is_some() || !self.plan.clients.one_endpoint || self.quiet;
        let node = if knows_more { here.rng.usize(..nodes) } else { here.endpoint };
        if let Fate::Arrives(at, _) = self.network.send(self.now, nodes + client, node, 0) {
            self.queue.push(at, Event::Map(MapEvent::Asked { client, node }));
        }
        self.queue.push(self.now + AGAIN_MICROS, Event::Map(MapEvent::NoAnswer { client }));
    }

    pub(super) fn map_event(&mut self, event: MapEvent) {
        match event {
            MapEvent::Asked { client, node } => self.send_map(client, node),
            MapEvent::Arrives { client, map } => {
                self.counts.maps += 1;
                if let Err(error) = self.clients[client].router.take_map(&map) {
                    self.fail("a node's map can be right", error.to_string());
                }
            }
            MapEvent::NoAnswer { client } => {
                self.clients[client].asks_for_map = false;
                if !self.clients[client].is_idle() {
                    self.ask_for_map_if_wanted(client);
                }
            }
        }
    }

    /// Before an answer: a newer map than this connection has carried, if nodes push them.
    pub(super) fn push_map(&mut self, client: usize, node: usize) {
        let Some(process) = self.machines[node].process.as_ref().filter(|_| self.plan.clients.pushes) else { return };
        let version = process.node.map().version;
        let told = self.maps_told.entry((client, node, self.machines[node].start)).or_default();
        if version > *told {
            *told = version;
            self.send_map(client, node);
        }
    }

    fn send_map(&mut self, client: usize, node: usize) {
        let Some(process) = &self.machines[node].process else { return };
        let map = Box::new(process.node.map().clone());
        if let Fate::Arrives(at, _) = self.network.send(self.now, node, self.machines.len() + client, 0) {
            self.queue.push(at, Event::Map(MapEvent::Arrives { client, map }));
        }
    }
}
