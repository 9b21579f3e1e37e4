//! A run as it is kept: what it was, what its clients saw, and what was done to the cluster meanwhile.
//!
//! A [`History`] is all that the judges of clients need. A [`Run`] has beside it what a person wants to know who looks at the
//! history later (which program, which seed, which faults when), and the few settings without which some promises can't be
//! judged. [`super::json`] is its form on disk, [`super::recorder`] makes one while it happens.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{History, Mode};

/// The number of the format that [`super::json`] writes and reads.
pub const FORMAT: u32 = 1;

/// A run: its description, its operations and its events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// What it was.
    pub about: About,
    /// What clients saw.
    pub history: History,
    /// What was done to the cluster, and what it did, in the order in which the file has it.
    pub events: Vec<RunEvent>,
}

/// What a run was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct About {
    /// The format of the file: [`FORMAT`].
    pub format: u32,
    /// The program that made the history.
    pub program: String,
    /// Its version.
    pub version: String,
    /// The seed from which its choices came.
    pub seed: u64,
    /// The workload by name. `append` and `counter` say how values are to be read (see [`super::json`]).
    pub workload: String,
    /// The nodes, as a person would name them: addresses, or `n1`. Events name a node by its number, from 1.
    pub nodes: Vec<String>,
    /// How many shards the cluster has, the meta shard not counted; 0 if it is not known.
    pub shards: u64,
    /// When the run began, in the form of RFC 3339.
    pub started: String,
    /// What judges have to know.
    pub settings: Settings,
}

/// What judges have to know of a cluster and a load.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// When writes are acknowledged that don't say so themselves.
    pub durability: Durability,
    /// Whether writes carried session numbers: then each takes effect at most once.
    pub sessions: bool,
    /// By how many millionths a node's clock may go slower or faster than the clock of the history, over the ages that are told.
    pub clock_drift_ppm: u64,
    /// What is added to every age that a node tells, in microseconds: its unit's rounding.
    pub age_slack_micros: u64,
    /// Most asynchronous writes of a shard that a leader may have acknowledged and not decided.
    pub async_commands_max: u64,
    /// Whatever else a reader may want to know, shown as it is.
    #[serde(flatten)]
    pub others: BTreeMap<String, serde_json::Value>,
}

/// [`Mode`] as the format spells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// After a majority has synced it.
    #[default]
    Sync,
    /// From the leader's memory.
    Async,
}

/// Something that was done to the cluster, or that it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunEvent {
    /// When it began, in microseconds since the run began.
    pub from_micros: u64,
    /// When it was over; `None` if it was one moment, or never over.
    pub until_micros: Option<u64>,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A fault was injected.
    Fault {
        /// Its short name, the same for all of its kind, such as `kill` or `partition`.
        name: String,
        /// The nodes that it concerned, from 1.
        nodes: Vec<u64>,
        /// The rest, for people.
        detail: String,
    },
    /// A node was seen to lead a shard.
    Leader {
        /// The shard.
        shard: u64,
        /// The node, from 1.
        node: u64,
        /// The term in which it leads.
        term: u64,
    },
    /// From here on nothing is injected any more, and every key that was written is read by linearizable gets: what was
    /// acknowledged must be there.
    FinalReads {
        /// The number of the first event (as in [`super::Moment`]) that belongs to them.
        event: u64,
    },
    /// Anything else that a reader should see.
    Note(String),
}

impl Default for About {
    fn default() -> Self {
        Self {
            format: FORMAT,
            program: String::new(),
            version: String::new(),
            seed: 0,
            workload: String::new(),
            nodes: Vec::new(),
            shards: 0,
            started: String::new(),
            settings: Settings::default(),
        }
    }
}

impl Default for Settings {
    /// Those of a cluster of kv with its defaults on one machine, whose clocks are one.
    fn default() -> Self {
        Self {
            durability: Durability::Sync,
            sessions: true,
            clock_drift_ppm: 0,
            age_slack_micros: 1_000,
            async_commands_max: 1_000,
            others: BTreeMap::new(),
        }
    }
}

impl Settings {
    /// An age as a node told it, as it may be on the clock of the history: never less than it was.
    #[must_use]
    pub fn age_micros(&self, told_micros: u64) -> u64 {
        let drift = u128::from(told_micros) * u128::from(self.clock_drift_ppm) / 1_000_000;
        let drift = u64::try_from(drift).unwrap_or(u64::MAX);
        told_micros.saturating_add(drift).saturating_add(self.age_slack_micros)
    }
}

impl From<Durability> for Mode {
    fn from(durability: Durability) -> Self {
        match durability {
            Durability::Sync => Self::Sync,
            Durability::Async => Self::Async,
        }
    }
}

impl Run {
    /// The event (its number, as in [`super::Moment`]) from which on the run holds its final reads, if it has any.
    #[must_use]
    pub fn final_reads_from(&self) -> Option<u64> {
        self.events
            .iter()
            .filter_map(|event| if let What::FinalReads { event } = event.what { Some(event) } else { None })
            .max()
    }

    /// When the last thing happened, in microseconds since the run began.
    #[must_use]
    pub fn until_micros(&self) -> u64 {
        let operations = self
            .history
            .operations()
            .iter()
            .map(|operation| operation.completed.as_ref().map_or(operation.invoked.micros, |(at, _)| at.micros));
        let events = self.events.iter().map(|event| event.until_micros.unwrap_or(event.from_micros));
        operations.chain(events).max().unwrap_or_default()
    }
}
