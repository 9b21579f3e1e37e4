//! What nodes say to each other, in the core's own types.
//!
//! The shell turns these into the wire's messages and back; raft's own types appear only inside the replica. Kinds that raft
//! uses inside one process (proposals, ReadIndex, hand-overs, unreachable reports) have no form here, so that a peer can't
//! send them.

use bytes::Bytes;

use crate::{
    checkpoint::job::Manifest,
    configuration::Configuration,
    log::record::LogEntry,
    shard_map::{NodeDescription, ShardMap},
    types::{Digest, LogIndex, MapVersion, ReplicaId, ShardId, Term},
};

/// A message from one node to another, both founded members of one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerMessage {
    /// A message of a shard's Raft group.
    Raft {
        /// The shard.
        shard: ShardId,
        /// The message.
        message: RaftMessage,
    },
    /// A replica asks the leader for an index that covers all that was acknowledged before the question.
    ReadProbe {
        /// The shard.
        shard: ShardId,
        /// The question's number, never reused by its node.
        probe: u64,
    },
    /// The leader's answer, proven by a round that began after the question came.
    ReadProbeAnswer {
        /// The shard.
        shard: ShardId,
        /// The question's number.
        probe: u64,
        /// The index to wait for; `None` if the node asked can't prove that it leads.
        index: Option<LogIndex>,
    },
    /// A leader of shards asks whether the receiver still knows it as that.
    LeadershipAsk {
        /// The round.
        round: LeadershipRound,
        /// What it leads, each shard once; at most [`LEADERSHIPS_MAX`].
        leaderships: Vec<ClaimedLeadership>,
    },
    /// Where the sender does, in answer to a [`PeerMessage::LeadershipAsk`]. Nothing is said of the other shards.
    LeadershipAnswer {
        /// The round, as it was asked.
        round: LeadershipRound,
        /// Shards whose term is still the one that was claimed, here, when this is sent; at most [`LEADERSHIPS_MAX`].
        shards: Vec<ShardId>,
    },
    /// A replica without a readable checkpoint asks for one.
    StateAsk {
        /// The shard.
        shard: ShardId,
        /// The least index that is of use.
        at_least: LogIndex,
        /// The greatest index that is of use.
        at_most: LogIndex,
    },
    /// Files that the receiver can have, to be asked for piece by piece.
    SnapshotOffer {
        /// The shard.
        shard: ShardId,
        /// The stream's number, never reused by its sender.
        stream: u64,
        /// The files.
        manifest: Manifest,
        /// Raft's MsgSnapshot, stepped once the files are verified; `None` in answer to a [`PeerMessage::StateAsk`].
        message: Option<Box<RaftMessage>>,
    },
    /// The receiver asks for a piece of a file.
    SnapshotWant {
        /// The shard.
        shard: ShardId,
        /// The stream.
        stream: u64,
        /// Which file of the manifest.
        file: u32,
        /// From where on.
        offset: u64,
    },
    /// A piece of a file.
    SnapshotChunk {
        /// The shard.
        shard: ShardId,
        /// The stream.
        stream: u64,
        /// Which file of the manifest.
        file: u32,
        /// Where the bytes belong.
        offset: u64,
        /// The bytes; none if the sender no longer has the file.
        bytes: Bytes,
    },
    /// The receiver is done with the stream.
    SnapshotEnd {
        /// The shard.
        shard: ShardId,
        /// The stream.
        stream: u64,
        /// Whether all files arrived and were verified.
        complete: bool,
    },
    /// What a replica holds at marks, so that all can compare; to every other replica of the shard.
    Marks {
        /// The shard.
        shard: ShardId,
        /// What it says.
        report: MarkReport,
    },
    /// Asks for a map newer than the asker's.
    MapAsk {
        /// The version that the asker has.
        have: MapVersion,
    },
    /// The sender's map.
    MapTell(ShardMap),
    /// Asks the leader of the meta shard to record how the sender is reached.
    DescribeNode(NodeDescription),
}

/// A round in which a node proves that it still leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeadershipRound {
    /// The random number of the asking node's start: what was asked before a crash proves nothing after it.
    pub run: u64,
    /// Grows with each round of that start.
    pub number: u64,
}

/// A shard that the sender leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimedLeadership {
    /// The shard.
    pub shard: ShardId,
    /// The replica that is asked.
    pub replica: ReplicaId,
    /// The term in which the sender leads.
    pub term: Term,
}

/// Most shards in one [`PeerMessage::LeadershipAsk`], and in its answer; a longer one is refused. A round of more takes several.
pub const LEADERSHIPS_MAX: usize = 4_096;

/// A replica's account of its checkpoints. Any of it may be lost, late or repeated: what it says of an index stays true.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MarkReport {
    /// Grows with each report of one start of a node, so that one that was overtaken is known.
    pub number: u64,
    /// Its newest durable checkpoints, ascending by index; at most [`MARKS_TOLD_MAX`].
    pub checkpoints: Vec<MarkDigest>,
    /// The last mark for which it was too busy; 0 for none.
    pub skipped: LogIndex,
    /// Whether it needs a mark: only the leader proposes one.
    pub wants_mark: bool,
    /// Whether it asks for the receiver's account.
    pub wants_answer: bool,
}

/// The digest of a replica's state at an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkDigest {
    /// The index.
    pub index: LogIndex,
    /// The digest of the state there.
    pub digest: Digest,
}

/// Most checkpoints in a [`MarkReport`]; a longer one is refused.
pub const MARKS_TOLD_MAX: usize = 8;

/// Most bytes of a file in one [`PeerMessage::SnapshotChunk`].
pub const CHUNK_BYTES_MAX: usize = 256 * 1024;

/// A [`PeerMessage::SnapshotWant`] for this file asks for nothing but that the stream be kept.
pub const KEEP_STREAM: u32 = u32::MAX;

/// Appends of more bytes than this go by the bulk connection, so that they don't hold up heartbeats.
pub const MAIN_LANE_BYTES_MAX: usize = 64 * 1024;

/// The connection that a message takes. Order is kept within one, not between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Heartbeats, votes, acknowledgements, small appends and all that is small.
    Main,
    /// Large appends.
    Bulk,
    /// Files.
    Snapshot,
}

impl PeerMessage {
    /// The connection that the message takes.
    #[must_use]
    pub fn lane(&self) -> Lane {
        match self {
            Self::Raft { message, .. } if message.payload_bytes() > MAIN_LANE_BYTES_MAX => Lane::Bulk,
            Self::SnapshotOffer { .. }
            | Self::SnapshotWant { .. }
            | Self::SnapshotChunk { .. }
            | Self::SnapshotEnd { .. } => Lane::Snapshot,
            _ => Lane::Main,
        }
    }

    /// The shard that it is about; `None` for the map's messages, and for those about several.
    #[must_use]
    pub fn shard(&self) -> Option<ShardId> {
        match self {
            Self::Raft { shard, .. }
            | Self::ReadProbe { shard, .. }
            | Self::ReadProbeAnswer { shard, .. }
            | Self::StateAsk { shard, .. }
            | Self::SnapshotOffer { shard, .. }
            | Self::SnapshotWant { shard, .. }
            | Self::SnapshotChunk { shard, .. }
            | Self::SnapshotEnd { shard, .. }
            | Self::Marks { shard, .. } => Some(*shard),
            Self::LeadershipAsk { .. }
            | Self::LeadershipAnswer { .. }
            | Self::MapAsk { .. }
            | Self::MapTell(_)
            | Self::DescribeNode(_) => None,
        }
    }

    /// About how many bytes it takes on the wire, and beside its own size in memory.
    #[must_use]
    pub fn bytes_about(&self) -> usize {
        64 + match self {
            Self::Raft { message, .. } => message.payload_bytes(),
            Self::SnapshotChunk { bytes, .. } => bytes.len(),
            Self::SnapshotOffer { manifest, message, .. } => {
                let beside = size_of::<RaftMessage>() + size_of::<SnapshotMark>();
                64 * manifest.files.len() + message.as_ref().map_or(0, |message| beside + message.payload_bytes())
            }
            Self::Marks { report, .. } => 32 * report.checkpoints.len(),
            Self::LeadershipAsk { leaderships, .. } => 16 * leaderships.len(),
            Self::LeadershipAnswer { shards, .. } => 4 * shards.len(),
            Self::MapTell(map) => 200 * map.nodes.len() + 100 * map.shards.len(),
            _ => 0,
        }
    }
}

/// A message of Raft between replicas, every field of raft's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftMessage {
    /// What it is.
    pub kind: RaftMessageKind,
    /// The replica that it is for.
    pub to: ReplicaId,
    /// The replica that sends it.
    pub from: ReplicaId,
    /// The sender's term, or the term it asks a vote for.
    pub term: Term,
    /// The term of the entry at `index`.
    pub log_term: Term,
    /// The entry before `entries`, the index acknowledged, or the last index of a candidate.
    pub index: LogIndex,
    /// Entries to append.
    pub entries: Vec<LogEntry>,
    /// The sender's commit index.
    pub commit: LogIndex,
    /// The term of the entry at `commit`.
    pub commit_term: Term,
    /// With a snapshot: where it stands. Apart, since every message is moved about and few have it.
    pub snapshot: Option<Box<SnapshotMark>>,
    /// The index from which a snapshot is asked for; 0 for none.
    pub request_snapshot: LogIndex,
    /// Whether the request is refused.
    pub reject: bool,
    /// With a refusal: where the logs may agree.
    pub reject_hint: LogIndex,
    /// Bytes that travel with heartbeats and campaigns.
    pub context: Bytes,
    /// The candidate's priority.
    pub priority: i64,
}

impl RaftMessage {
    /// Number of bytes of its entries, with about what each costs beside its data.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.entries.iter().map(|entry| 32 + entry.data.len() + entry.context.len()).sum()
    }
}

/// A heartbeat, or the answer to one, that says nothing but what each of them does. A replica at rest says and hears nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Whether it is the answer to one.
    pub is_answer: bool,
    /// The replica that it is for.
    pub to: ReplicaId,
    /// The replica that sends it.
    pub from: ReplicaId,
    /// The sender's term.
    pub term: Term,
    /// The sender's commit index.
    pub commit: LogIndex,
}

impl Heartbeat {
    /// The message as one of these; `None` if it is of another kind, or says more.
    #[must_use]
    pub fn of(message: &RaftMessage) -> Option<Self> {
        // All fields, so that a new one is not left out.
        let RaftMessage {
            kind,
            to,
            from,
            term,
            commit,
            entries,
            context,
            log_term: Term(0),
            index: LogIndex(0),
            commit_term: Term(0),
            snapshot: None,
            request_snapshot: LogIndex(0),
            reject: false,
            reject_hint: LogIndex(0),
            priority: 0,
        } = message
        else {
            return None;
        };
        let is_answer = match kind {
            RaftMessageKind::Heartbeat => false,
            RaftMessageKind::HeartbeatResponse => true,
            _ => return None,
        };
        let says_no_more = entries.is_empty() && context.is_empty();
        says_no_more.then_some(Self { is_answer, to: *to, from: *from, term: *term, commit: *commit })
    }
}

impl From<Heartbeat> for RaftMessage {
    fn from(heartbeat: Heartbeat) -> Self {
        let Heartbeat { is_answer, to, from, term, commit } = heartbeat;
        Self {
            kind: if is_answer { RaftMessageKind::HeartbeatResponse } else { RaftMessageKind::Heartbeat },
            to,
            from,
            term,
            log_term: Term(0),
            index: LogIndex(0),
            entries: Vec::new(),
            commit,
            commit_term: Term(0),
            snapshot: None,
            request_snapshot: LogIndex(0),
            reject: false,
            reject_hint: LogIndex(0),
            context: Bytes::new(),
            priority: 0,
        }
    }
}

/// The kinds of message that replicas send each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RaftMessageKind {
    /// Entries to append (MsgAppend).
    Append,
    /// The answer to them (MsgAppendResponse).
    AppendResponse,
    /// Asks for a vote (MsgRequestVote).
    RequestVote,
    /// The answer (MsgRequestVoteResponse).
    RequestVoteResponse,
    /// Asks whether a vote would be given (MsgRequestPreVote).
    RequestPreVote,
    /// The answer (MsgRequestPreVoteResponse).
    RequestPreVoteResponse,
    /// A snapshot, its files by a stream of their own (MsgSnapshot).
    Snapshot,
    /// A heartbeat (MsgHeartbeat).
    Heartbeat,
    /// The answer to it (MsgHeartbeatResponse).
    HeartbeatResponse,
    /// Asks the receiver to campaign at once (MsgTimeoutNow).
    TimeoutNow,
}

/// Where a snapshot stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotMark {
    /// The last index that it covers.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
    /// The configuration at that index.
    pub configuration: Configuration,
}
