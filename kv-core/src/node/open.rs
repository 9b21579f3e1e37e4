//! How a node begins: from what its log and its checkpoints say, or as a founding member without either.

use std::collections::BTreeMap;

use super::{Node, batcher::Batcher, map::MapKeeper, replicas::Replicas, rounds::LeadershipRounds, streams::Streams};
use crate::{
    configuration::Configuration,
    disk::StateStore,
    founding::{FoundingRecord, configuration},
    io::Output,
    log::record::{Boundary, HardState, Record, Recovered, RecoveredShard},
    replica::{Beginning, Replica, context::Unique},
    settings::Settings,
    shard_map::{ShardMap, ShardRow},
    state::record::{Footer, StateHeader},
    types::{LogIndex, NodeId, ReplicaId, ShardId, Term, Time},
};

/// What a node begins with.
#[derive(Clone, Debug)]
pub struct Opening {
    /// The node.
    pub node: NodeId,
    /// What founded the cluster; the node is a member of it.
    pub record: FoundingRecord,
    /// What the log says; nothing if it was just made.
    pub recovered: Recovered,
    /// The newest readable checkpoint of each replica.
    pub footers: BTreeMap<ReplicaId, Footer>,
    /// Settings.
    pub settings: Settings,
    /// For election timeouts, and the hash by which records are found: better one that nobody can guess.
    pub seed: u64,
    /// A random number for this start: rounds, probes and streams go by it, so that nothing of an earlier start answers them.
    pub run: u64,
    /// The time of the first turn or earlier.
    pub now: Time,
}

impl Opening {
    /// The first start of a node, with its number in place of all that is random: for tests and tools, whose runs repeat.
    #[must_use]
    pub fn first(node: NodeId, record: FoundingRecord, settings: Settings, now: Time) -> Self {
        Self {
            node,
            record,
            recovered: Recovered::default(),
            footers: BTreeMap::new(),
            settings,
            seed: node.0,
            run: node.0 << 32,
            now,
        }
    }
}

/// A node can't begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// Log and checkpoints contradict each other: something that was synced is gone. The node must not take part.
    Damaged {
        /// What is wrong, for people.
        what: String,
    },
    /// The founding record does not name the node.
    NotMember,
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Damaged { what } => write!(f, "log and checkpoints contradict each other: {what}"),
            Self::NotMember => f.write_str("the cluster's founding record does not name this node"),
        }
    }
}

impl std::error::Error for OpenError {}

impl<S: StateStore> Node<S> {
    /// A node ready for its first turn, and what that turn's outputs begin with.
    ///
    /// # Errors
    /// If the node must not take part: see [`OpenError`].
    pub fn open(opening: Opening, store: S, outputs: &mut Vec<Output>) -> Result<Self, OpenError> {
        let Opening { node, record, mut recovered, footers, settings, seed, run, now } = opening;
        if record.member(node).is_none() {
            return Err(OpenError::NotMember);
        }
        let map = record.layout();
        let mut batcher = Batcher::new(settings.block_bytes_max);
        let mut replicas = BTreeMap::new();
        let mut first = Vec::new();
        for row in &map.shards {
            let Some(replica) = row.replica_on(node) else { continue };
            if recovered.tombstones.contains_key(&replica) {
                continue;
            }
            let shard = recovered.shards.remove(&row.shard).unwrap_or_else(|| {
                let shard = founded_shard(row, replica);
                batcher.push(vec![Record::Create {
                    shard: row.shard,
                    replica,
                    hard_state: shard.hard_state,
                    boundary: shard.boundary.clone(),
                }]);
                if row.owner() == Some(node) {
                    first.push(row.shard);
                }
                shard
            });
            if shard.replica != replica {
                let what = format!("shard {} is logged as replica {}, not {replica}", row.shard, shard.replica);
                return Err(OpenError::Damaged { what });
            }
            let beginning = Beginning {
                shard: row.shard,
                recovered: shard,
                checkpoint: footers.get(&replica).and_then(place_of),
                initial: Some(founded_header(row)),
                seed: seed ^ row.shard.0.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            };
            let opened = Replica::open(beginning, &settings).map_err(|bad| OpenError::Damaged { what: bad.0 })?;
            replicas.insert(row.shard, opened);
        }
        if let Some(shard) = recovered.shards.keys().next() {
            let what = format!("shard {shard} is in the log but not in the founding record");
            return Err(OpenError::Damaged { what });
        }
        let mut opened = Self {
            id: node,
            settings,
            durability: record.durability,
            store,
            replicas: Replicas::new(replicas),
            batcher,
            rounds: LeadershipRounds::new(run),
            unique: Unique::new(run),
            streams: Streams::default(),
            keeper: MapKeeper::new(map),
            disk_full: false,
            log_full: false,
            log_full_ticks: 0,
            scrubbed: (ShardId(0), 0),
            kept_full: false,
            log_stalled: false,
            stopping: false,
            last_turn: now,
            tables_bytes: 0,
            tables_bytes_now: 0,
            sessions_bytes: 0,
            apply_bytes_left: 0,
            answer_bytes_left: 0,
            dirty: Vec::new(),
            unfinished: Vec::new(),
            changed: Vec::new(),
            watched: None,
        };
        opened.begin(&first, now, outputs);
        Ok(opened)
    }

    /// Has all states loaded, the meta shard and owned shards first, and lets owners of new shards campaign.
    fn begin(&mut self, first: &[ShardId], now: Time, outputs: &mut Vec<Output>) {
        let map: &ShardMap = self.keeper.map();
        let mut order: Vec<_> = map.shards.iter().map(|row| (row.owner() != Some(self.id), row.shard)).collect();
        order.sort_unstable_by_key(|(other, shard)| (*other && *shard != crate::types::META_SHARD, *shard));
        for (_, shard) in order {
            self.with_replica(shard, now, outputs, |replica, cx| replica.load(cx));
            self.dirty(shard);
        }
        for shard in first {
            self.with_replica(*shard, now, outputs, |replica, _| replica.campaign_first());
        }
    }
}

/// Where a checkpoint stands, with the configuration there.
fn place_of(footer: &Footer) -> Option<Boundary> {
    let header = &footer.header;
    let (_, configuration) = header.configurations.iter().rev().find(|(from, _)| *from <= header.index)?;
    Some(Boundary { index: header.index, term: header.term, configuration: configuration.clone() })
}

/// A shard of a cluster that was just founded: as if a snapshot stood at index 1 of term 1.
fn founded_shard(row: &ShardRow, replica: ReplicaId) -> RecoveredShard {
    let (index, term) = (LogIndex(1), Term(1));
    RecoveredShard {
        replica,
        hard_state: HardState { term, vote: ReplicaId(0), commit: index },
        boundary: Boundary { index, term, configuration: founded_configuration(row) },
        ..RecoveredShard::default()
    }
}

fn founded_configuration(row: &ShardRow) -> Configuration {
    configuration(row)
}

/// The state of a shard of a cluster that was just founded.
fn founded_header(row: &ShardRow) -> StateHeader {
    StateHeader {
        index: LogIndex(1),
        term: Term(1),
        arc: row.arc,
        epoch: row.epoch,
        terms: vec![(Term(1), LogIndex(1))],
        configurations: vec![(LogIndex(1), founded_configuration(row))],
        ..StateHeader::default()
    }
}
