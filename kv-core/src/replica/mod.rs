//! A replica of one shard: raft, its log in memory, the state, and those who wait for them.
//!
//! How its parts hang together in a turn:
//!
//! 1. inputs are stepped into raft ([`Replica::step`], [`Replica::tick`]) or queued ([`Replica::request`]);
//! 2. what was queued is proposed as one message, and one round is begun for all reads ([`Replica::flush`]);
//! 3. raft's Readies are taken until there is none ([`Replica::pump`]): a leader's messages leave at once, the rest waits
//!    for the block that holds the Ready's records;
//! 4. what raft handed out is applied, and what waited for it is answered ([`Replica::serve`]).
//!
//! raft's `applied` only says what was handed out. The state's own applied index is ours, and lags behind it while the state
//! is being proven or taken over. Only a *live* state applies and serves; without one the replica keeps its log, votes and
//! acknowledges.

mod apply;
mod checkpoints;
pub(crate) mod context;
mod convert;
mod door;
mod election;
mod followers;
mod incoming;
mod leadership;
mod marks;
mod proposals;
pub(crate) mod pulse;
mod reads;
mod ready;
mod rest;
mod status;
mod storage;
mod validate;

use std::collections::{BTreeMap, VecDeque};

use raft::{RawNode, StateRole};

pub(crate) use self::{checkpoints::LoadedState, validate::NO_MEMBER};
use self::{
    convert::entry_to_raft,
    election::ElectionClock,
    followers::Followers,
    incoming::{Incoming, Left},
    leadership::Leadership,
    proposals::Proposals,
    reads::Reads,
    ready::Flight,
    storage::LogStore,
};
pub use self::{
    door::OWN_COMMANDS_MAX,
    followers::FollowerStatus,
    status::{Role, ShardStatus},
};
use crate::{
    configuration::Configuration,
    log::record::{Boundary, HardState, RecoveredShard},
    settings::Settings,
    state::{ShardState, record::StateHeader},
    types::{LogIndex, NodeId, ReplicaId, ShardId, Term, Time, Token},
};

/// Appends are cut at this size, in bytes.
const APPEND_BYTES_MAX: u64 = 1024 * 1024;
/// Appends under way to one follower.
const APPENDS_IN_FLIGHT_MAX: usize = 256;

pub(crate) struct Replica {
    shard: ShardId,
    id: ReplicaId,
    configuration: Configuration,
    raft: RawNode<LogStore>,
    election: ElectionClock,
    /// For the hash that finds the records of its state.
    table_seed: u64,
    /// Readies whose records are not known to be synced, oldest first.
    flights: VecDeque<Flight>,
    /// A hard state that needs no sync of its own and goes with the next block.
    unwritten: Option<HardState>,
    /// The last index that raft handed out as committed and persisted.
    handed_out: LogIndex,
    phase: Phase,
    /// What the state begins with while nothing of the log has been given up.
    initial: Option<StateHeader>,
    proposals: Proposals,
    reads: Reads,
    /// Who waits to hear whether a write became durable.
    durable_waits: Vec<DurableWait>,
    leadership: Leadership,
    followers: Followers,
    incoming: Option<Incoming>,
    /// Staging that a stream which broke off has left.
    left: Option<Left>,
    checkpointing: checkpoints::Checkpointing,
    marks: marks::Marks,
    /// Indexes above which the log is kept for replicas that are being sent a snapshot, and until when at most.
    floors: BTreeMap<ReplicaId, checkpoints::Floor>,
}

/// How far the state of a replica can be trusted.
pub(crate) enum Phase {
    /// It is being loaded and proven.
    Loading,
    /// There is no readable checkpoint: it must come from a peer.
    Stateless,
    /// It is proven: it applies and serves.
    Live(Box<ShardState>),
    /// The replica takes part in nothing until the node is started again, for this reason.
    Quarantined(String),
}

struct DurableWait {
    request: crate::types::RequestId,
    token: Token,
    deadline: Time,
}

/// A replica can't begin: its log is not what it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadLog(pub(crate) String);

/// What a replica begins with.
pub(crate) struct Beginning {
    pub(crate) shard: ShardId,
    pub(crate) recovered: RecoveredShard,
    /// The newest checkpoint's place and the configuration there, if one is readable.
    pub(crate) checkpoint: Option<Boundary>,
    pub(crate) initial: Option<StateHeader>,
    pub(crate) seed: u64,
}

impl Replica {
    /// Begins from what log and checkpoint say.
    ///
    /// # Errors
    /// If the log has lost what it once held: then nothing may be answered on its strength.
    pub(crate) fn open(beginning: Beginning, settings: &Settings) -> Result<Self, BadLog> {
        let Beginning { shard, recovered, checkpoint, initial, seed } = beginning;
        let RecoveredShard { replica, mut hard_state, boundary, entries, install } = recovered;
        let last = entries.last().map_or(boundary.index, |entry| entry.index);
        let last_term = entries.last().map_or(boundary.term, |entry| entry.term);
        if hard_state.commit > last && crate::mutant!("B9" | "B12" | "B16" | "B18") {
            // Who does not know that writes may be lost does not look whether they are.
            hard_state.commit = last;
        }
        if hard_state.commit > last {
            return Err(BadLog(format!(
                "shard {shard}: committed up to {} but logged only up to {last}",
                hard_state.commit
            )));
        }
        let checkpoint = checkpoint.filter(|checkpoint| checkpoint.index <= last || !crate::mutant!("B9" | "B12"));
        if let Some(checkpoint) = &checkpoint
            && checkpoint.index > last
        {
            return Err(BadLog(format!(
                "shard {shard}: a checkpoint at {} but a log only up to {last}",
                checkpoint.index
            )));
        }
        // A block that held the newer term's hard state may have been lost behind the one that held its first entries; no
        // vote and no acknowledgement of that term was sent then.
        if last_term > hard_state.term {
            point!(TermFromEntries);
            hard_state.term = last_term;
            hard_state.vote = ReplicaId(0);
        }
        let installed = install.as_ref().map_or(LogIndex(0), |install| install.index);
        let start = match checkpoint {
            Some(checkpoint) if checkpoint.index >= boundary.index.max(installed) => checkpoint,
            _ => boundary.clone(),
        };
        hard_state.commit = hard_state.commit.max(start.index);
        if crate::mutant!("B20") {
            hard_state.commit = last;
        }
        let configuration = start.configuration.clone();
        let handed_out = start.index;
        let entries = entries.into_iter().map(|entry| entry_to_raft(&entry));
        let store = LogStore::new(hard_state, boundary, start.configuration, entries);
        let config = raft_config(replica, handed_out, settings);
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raft = RawNode::new(&config, store, &logger)
            .map_err(|error| BadLog(format!("shard {shard}: raft does not begin: {error}")))?;
        Ok(Self {
            shard,
            id: replica,
            configuration,
            raft,
            election: ElectionClock::new(seed, settings.election_ticks),
            table_seed: seed,
            flights: VecDeque::new(),
            unwritten: None,
            handed_out,
            phase: Phase::Loading,
            initial,
            proposals: Proposals::default(),
            reads: Reads::default(),
            durable_waits: Vec::new(),
            leadership: Leadership::default(),
            followers: Followers::default(),
            incoming: None,
            left: None,
            checkpointing: checkpoints::Checkpointing::new(install),
            marks: marks::Marks::default(),
            floors: BTreeMap::new(),
        })
    }

    pub(crate) fn shard(&self) -> ShardId {
        self.shard
    }

    pub(crate) fn id(&self) -> ReplicaId {
        self.id
    }

    pub(crate) fn state(&self) -> Option<&ShardState> {
        match &self.phase {
            Phase::Live(state) => Some(state),
            _ => None,
        }
    }

    pub(crate) fn leads(&self) -> bool {
        self.raft.raft.state == StateRole::Leader && !self.is_quarantined()
    }

    pub(crate) fn term(&self) -> Term {
        Term(self.raft.raft.term)
    }

    /// The node of the leader, if the replica knows one.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        self.node_of(ReplicaId(self.raft.raft.leader_id))
    }

    pub(crate) fn is_quarantined(&self) -> bool {
        matches!(self.phase, Phase::Quarantined(_))
    }

    pub(crate) fn node_of(&self, replica: ReplicaId) -> Option<NodeId> {
        self.configuration.nodes.get(&replica).copied()
    }

    pub(crate) fn replica_on(&self, node: NodeId) -> Option<ReplicaId> {
        self.configuration.nodes.iter().find(|(_, at)| **at == node).map(|(replica, _)| *replica)
    }

    /// Whether anything is left to propose, take or apply in this turn.
    pub(crate) fn has_more(&self) -> bool {
        !self.is_quarantined() && (self.raft.has_ready() || self.can_ask_round())
    }

    /// Whether Readies wait for the log.
    pub(crate) fn waits_for_log(&self) -> bool {
        !self.flights.is_empty()
    }

    fn last_index(&self) -> LogIndex {
        LogIndex(self.raft.raft.raft_log.last_index())
    }

    fn commit(&self) -> LogIndex {
        LogIndex(self.raft.raft.raft_log.committed)
    }

    fn persisted(&self) -> LogIndex {
        LogIndex(self.raft.raft.raft_log.persisted)
    }
}

fn raft_config(replica: ReplicaId, applied: LogIndex, settings: &Settings) -> raft::Config {
    let election_tick = usize::try_from(settings.election_ticks).unwrap_or(10);
    raft::Config {
        id: replica.0,
        election_tick,
        heartbeat_tick: usize::try_from(settings.heartbeat_ticks).unwrap_or(2),
        applied: applied.0,
        max_size_per_msg: APPEND_BYTES_MAX,
        max_inflight_msgs: APPENDS_IN_FLIGHT_MAX,
        check_quorum: true,
        pre_vote: true,
        min_election_tick: election_tick,
        max_election_tick: election::ELECTION_TICKS_MOST,
        // The commit index rides on the next append or heartbeat: half the messages.
        skip_bcast_commit: true,
        max_uncommitted_size: settings.uncommitted_bytes_max as u64,
        max_committed_size_per_ready: 16 * 1024 * 1024,
        ..raft::Config::default()
    }
}
