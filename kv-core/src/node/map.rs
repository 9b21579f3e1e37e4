//! The node's map of the cluster: the founding layout with what the meta shard has recorded since.
//!
//! A node with a live replica of the meta shard makes its map from that; the others ask one that has. A node whose own
//! description is not what the map says has it recorded. The map is a hint for routing and decides nothing.

use super::Node;
use crate::{
    command::Command,
    disk::StateStore,
    io::Output,
    message::PeerMessage,
    shard_map::{ADDRESS_BYTES_MAX, CheckedMap, NodeDescription, ShardMap},
    types::{META_SHARD, MapVersion, NodeId},
};

/// Ticks between two looks at whether map and description are up to date.
const MAP_TICKS: u64 = 20;
/// The same while addresses are lacking on the map: without them nobody finds the nodes.
const MAP_TICKS_LACKING: u64 = 2;

/// The greatest version of a map that is taken: far above what the meta shard's revision reaches, so that a newer one is
/// never shut out.
const VERSION_MAX: u64 = u64::MAX / 2;

#[derive(Debug)]
pub(super) struct MapKeeper {
    founding: ShardMap,
    checked: CheckedMap,
    own: Option<NodeDescription>,
    ticks: u64,
}

impl MapKeeper {
    pub(super) fn new(founding: ShardMap) -> Self {
        let checked = CheckedMap::new(founding.clone()).expect("a founding record's layout is a map");
        Self { founding, checked, own: None, ticks: 0 }
    }

    pub(super) fn map(&self) -> &ShardMap {
        self.checked.map()
    }

    pub(super) fn checked(&self) -> &CheckedMap {
        &self.checked
    }

    pub(super) fn describe(&mut self, own: NodeDescription) {
        self.own = Some(own);
        self.ticks = 0;
    }

    fn meta_nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.checked.row(META_SHARD).into_iter().flat_map(|row| row.replicas.iter().map(|place| place.node))
    }
}

impl<S: StateStore> Node<S> {
    /// Each tick: asks for what is lacking.
    pub(super) fn tick_map(&mut self, outputs: &mut Vec<Output>) {
        let is_lacking = self.keeper.map().nodes.iter().any(|node| node.client_address.is_empty());
        let interval = if is_lacking { MAP_TICKS_LACKING } else { MAP_TICKS };
        let due = self.keeper.ticks.is_multiple_of(interval);
        self.keeper.ticks += 1;
        if !due {
            return;
        }
        if let Some(own) = self.keeper.own.clone()
            && self.keeper.checked.node(self.id) != Some(&own)
        {
            self.have_recorded(own, outputs);
        }
        let has_meta = self.replicas.get(META_SHARD).is_some_and(|replica| replica.state().is_some());
        if !has_meta {
            let nodes: Vec<NodeId> = self.keeper.meta_nodes().filter(|node| *node != self.id).collect();
            let turn = (self.keeper.ticks / interval) % nodes.len().max(1) as u64;
            if let Some(to) = usize::try_from(turn).ok().and_then(|turn| nodes.get(turn)) {
                let message = PeerMessage::MapAsk { have: self.keeper.map().version };
                outputs.push(Output::Send { to: *to, message });
            }
        }
    }

    /// At the end of a turn: makes the map anew if the meta shard's state has moved.
    pub(super) fn map_from_meta(&mut self, outputs: &mut Vec<Output>) {
        let Some(state) = self.replicas.get(META_SHARD).and_then(|replica| replica.state()) else { return };
        let version = MapVersion(state.revision().0);
        if version <= self.keeper.map().version {
            return;
        }
        let mut map = self.keeper.founding.clone();
        map.version = version;
        for node in &mut map.nodes {
            if let Some(recorded) = state.nodes().get(&node.node) {
                *node = recorded.clone();
            }
        }
        self.take_map(&map, outputs);
    }

    fn take_map(&mut self, map: &ShardMap, outputs: &mut Vec<Output>) {
        if matches!(self.keeper.checked.take_map(map), Ok(true)) {
            outputs.push(Output::MapChanged(self.keeper.map().clone()));
        }
    }

    /// Has this node's description recorded in the meta shard: here if it leads, else by whoever does.
    fn have_recorded(&mut self, own: NodeDescription, outputs: &mut Vec<Output>) {
        if self.record(&own) {
            return;
        }
        let leader = self.replicas.get(META_SHARD).and_then(|replica| replica.leader());
        let to: Vec<NodeId> = match leader {
            Some(leader) => vec![leader],
            None => self.keeper.meta_nodes().collect(),
        };
        for to in to.into_iter().filter(|to| *to != self.id) {
            outputs.push(Output::Send { to, message: PeerMessage::DescribeNode(own.clone()) });
        }
    }

    /// Proposes a description if this node leads the meta shard; true if there is nothing more to do.
    fn record(&mut self, description: &NodeDescription) -> bool {
        let Some(replica) = self.replicas.get_mut(META_SHARD).filter(|replica| replica.leads()) else { return false };
        let Some(state) = replica.state() else { return false };
        if state.nodes().get(&description.node) != Some(description) {
            replica.queue_own(Command::DescribeNode(description.clone()));
            self.dirty(META_SHARD);
        }
        true
    }

    /// A peer says how it is reached.
    pub(super) fn described(&mut self, from: NodeId, description: &NodeDescription, outputs: &mut Vec<Output>) {
        let known = self.keeper.founding.nodes.iter().find(|node| node.node == from);
        let honest = description.node == from
            && description.weight > 0
            && texts(description).iter().all(|text| text.len() <= ADDRESS_BYTES_MAX)
            && known.is_some_and(|known| known.incarnation == description.incarnation);
        if honest {
            self.record(description);
        } else {
            Self::refuse(from, None, "it describes another node than itself, or none that can be", outputs);
        }
    }

    /// A peer asks for a newer map.
    pub(super) fn map_asked(&self, from: NodeId, have: MapVersion, outputs: &mut Vec<Output>) {
        if self.keeper.map().version > have {
            let message = PeerMessage::MapTell(self.keeper.map().clone());
            outputs.push(Output::Send { to: from, message });
        }
    }

    /// A peer's map.
    pub(super) fn map_told(&mut self, from: NodeId, map: &ShardMap, outputs: &mut Vec<Output>) {
        let founding = &self.keeper.founding;
        // Nothing moves yet: what may differ from the founding is how nodes are reached.
        let same = |(one, other): (&NodeDescription, &NodeDescription)| {
            (one.node, one.incarnation) == (other.node, other.incarnation)
        };
        let is_ours = map.shards == founding.shards
            && map.nodes.len() == founding.nodes.len()
            && map.nodes.iter().zip(&founding.nodes).all(same);
        if !is_ours || map.version.0 > VERSION_MAX || CheckedMap::new(map.clone()).is_err() {
            return Self::refuse(from, None, "its map can't be right", outputs);
        }
        if !self.keeper.meta_nodes().any(|node| node == from) {
            return Self::refuse(from, None, "it has no replica of the meta shard to have a map from", outputs);
        }
        self.take_map(map, outputs);
    }
}

fn texts(node: &NodeDescription) -> [&String; 3] {
    [&node.peer_address, &node.client_address, &node.zone]
}
