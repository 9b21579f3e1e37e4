//! What the simulator hands to the checkers: a stream of facts about replicas, plain data, each given once when it happens.
//!
//! The simulator sees all nodes at one instant, so it reports facts and not a node's opinion: what a log holds is reported from
//! the batches that the node hands to its disk, what a replica promised from the messages that leave it. After every event the
//! simulator gives [`Fact::View`] for those replicas whose view changed, after the other facts of that event.

use kv_core::{
    command::{Command, CommandOutcome},
    shard_map::Arc,
    types::{Digest, Epoch, LogIndex, NodeId, ReplicaId, Revision, Sequence, SessionId, ShardId, Term, Token},
};
use xxhash_rust::xxh3::xxh3_64;

use crate::history::{Moment, Name, Seen};

/// What went wrong: the property that does not hold, in words, and when it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The property's name, as in the table of [`crate::check`].
    pub property: &'static str,
    /// What was seen.
    pub what: String,
    /// When.
    pub at: Moment,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} does not hold at event {}: {}", self.property, self.at, self.what)
    }
}

impl std::error::Error for Violation {}

/// A replica, and where it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The node.
    pub node: NodeId,
    /// The shard.
    pub shard: ShardId,
    /// The replica.
    pub replica: ReplicaId,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "replica {} of shard {} on node {}", self.replica, self.shard, self.node)
    }
}

/// What a replica is in its term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// It follows.
    #[default]
    Follower,
    /// It asks whether it could win.
    PreCandidate,
    /// It asks for votes.
    Candidate,
    /// It leads.
    Leader,
}

/// A replica's state as its node would tell it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplicaView {
    /// Which replica.
    pub place: Place,
    /// Its role.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// Whom it voted for in that term.
    pub vote: Option<ReplicaId>,
    /// Whom it takes for the leader.
    pub leader: Option<ReplicaId>,
    /// Highest index that it knows to be committed.
    pub commit: LogIndex,
    /// The applied index of its own state (not raft's).
    pub applied: LogIndex,
    /// First index that its log still holds.
    pub first_index: LogIndex,
    /// Last index of its log, synced or not.
    pub last_index: LogIndex,
    /// The arc in its state; `None` for the meta shard, or while the replica is unverified.
    pub arc: Option<Arc>,
    /// The epoch in its state; 0 while the replica is unverified.
    pub epoch: Epoch,
}

/// A place in a log: the entry there is known by all three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryMark {
    /// Its index.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
    /// [`hash_entry`] of its type and data.
    pub hash: u64,
}

/// One command of an applied entry, with what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedCommand {
    /// The write's number in its session, if it has one.
    pub stamp: Option<(SessionId, Sequence)>,
    /// What it writes; `None` if it is no write.
    pub write: Option<AppliedWrite>,
    /// What came of it. A remembered outcome is given as it is remembered.
    pub outcome: CommandOutcome,
}

/// What a command writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedWrite {
    /// The key.
    pub key: Name,
    /// The value; `None` deletes.
    pub value: Option<Name>,
}

/// A part of a block that was synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncedRecord {
    /// An entry; it replaces all at or above its index.
    Entry {
        /// Its index.
        index: LogIndex,
        /// Its term.
        term: Term,
    },
    /// The log begins after this index: a state stands for all before.
    Stands {
        /// The index.
        index: LogIndex,
    },
    /// Term and vote.
    HardState {
        /// The term.
        term: Term,
        /// The vote in it.
        vote: Option<ReplicaId>,
    },
}

/// Something that happened to a replica, or that it did.
#[derive(Clone, Debug)]
pub enum Fact {
    /// A replica came up, its process being the `start`th of its node. Nothing of its memory is left from before.
    Started {
        /// Which replica.
        place: Place,
        /// Counts the starts of the node's process, from 1.
        start: u64,
        /// What recovery found: term, vote and commit of the hard state.
        term: Term,
        /// The vote in that term.
        vote: Option<ReplicaId>,
        /// The commit index, which may be behind what was known before.
        commit: LogIndex,
        /// Index and term on which the log stands: what came before it is in a checkpoint.
        boundary: (LogIndex, Term),
        /// The entries of the recovered log, from the one after the boundary on.
        entries: Vec<EntryMark>,
        /// How many voters its shard has.
        voters: usize,
    },
    /// A process came up, and its disk does not have a replica that its last process had: that one began and was not synced. If
    /// it was, it shows when the replica begins anew, which is a start as well.
    NotFound {
        /// Which replica.
        place: Place,
    },
    /// A running replica gave its state up: it loads one that may be older, and applies again from there.
    StateLost {
        /// Which replica.
        place: Place,
    },
    /// An entry was handed to the disk. It replaces all at or above its index. Given in the order of the log.
    Appended {
        /// Which replica.
        place: Place,
        /// The entry.
        entry: EntryMark,
    },
    /// A block was synced; given before the node learns of it.
    Synced {
        /// Which replica.
        place: Place,
        /// What the block holds of it, in its order.
        records: Vec<SyncedRecord>,
    },
    /// A snapshot was installed: the log now stands on this boundary, and all entries are gone.
    Installed {
        /// Which replica.
        place: Place,
        /// Index of the snapshot.
        index: LogIndex,
        /// Its term.
        term: Term,
        /// The digest of the state that it brings.
        digest: Digest,
    },
    /// A replica began to lead in a term. Given before any of its messages of that term.
    BecameLeader {
        /// Which replica.
        place: Place,
        /// The term.
        term: Term,
        /// Its log's last index when it won, before the entry that opens its term.
        last_index: LogIndex,
    },
    /// A message that promises something has *left* a replica: a request for votes, a vote, an append or its answer. Not for
    /// pre-votes, whose term is not the sender's, nor for answers to heartbeats, which may leave before their term is synced.
    Promised {
        /// Who promised.
        place: Place,
        /// The message's term.
        term: Term,
        /// With a vote granted, or a request for votes (a vote for oneself): the candidate.
        vote: Option<ReplicaId>,
        /// With an append response that is no refusal: the index up to which the log is said to hold what the leader's holds.
        accepted: Option<LogIndex>,
    },
    /// A replica learned that its log up to here is committed. Given when its commit index moves.
    Committed {
        /// Which replica.
        place: Place,
        /// The new commit index.
        index: LogIndex,
        /// Its term then: the entry was committed in this term or before.
        term: Term,
    },
    /// An entry was applied to a replica's state.
    Applied {
        /// Which replica.
        place: Place,
        /// The entry.
        entry: EntryMark,
        /// Its commands in order, with their outcomes; empty for an entry without any.
        commands: Vec<AppliedCommand>,
    },
    /// An entry was applied by a replica for the first time: it is decided. Given once for each index, in their order, before the
    /// replica's [`Fact::Applied`], and also if the state of that replica was made to differ.
    Decided {
        /// The shard.
        shard: ShardId,
        /// The entry's index.
        index: LogIndex,
        /// Its term.
        term: Term,
        /// Its commands.
        commands: Vec<Command>,
    },
    /// A replica that nothing made to differ told the digest of its whole state.
    Held {
        /// Which replica.
        place: Place,
        /// The index at which the state stands.
        index: LogIndex,
        /// Its digest.
        digest: Digest,
    },
    /// The leader answered an asynchronous write before it was decided.
    AcceptedAsync {
        /// Who answered.
        place: Place,
        /// Where the write stands.
        token: Token,
        /// The bytes of its command, as the leader counts them against the bound.
        bytes: u64,
        /// For how long the answer was ready before it left, because its node stood still.
        held_micros: u64,
    },
    /// A replica answered `wait_durable`.
    SaidDurable {
        /// Who answered.
        place: Place,
        /// The token it was asked about.
        token: Token,
        /// `true` for durable, `false` for lost. Not given for "too old to tell".
        durable: bool,
    },
    /// A replica answered a read of one key.
    AnsweredRead {
        /// Who answered.
        place: Place,
        /// The key.
        key: Name,
        /// What it said.
        entry: Option<Seen>,
        /// The shard's revision at that state.
        at: Revision,
    },
    /// A leader acknowledged a write as decided.
    AcknowledgedWrite {
        /// Who answered.
        place: Place,
        /// The revision that the write got; 0 if it changed nothing.
        revision: Revision,
    },
    /// A replica answered a read that may be old. Given after [`Fact::AnsweredRead`].
    AnsweredOldRead {
        /// Who answered.
        place: Place,
        /// The shard's revision at the state that was read.
        at: Revision,
        /// The greatest age that was asked for, in microseconds of the replica's own clock; `None` for any.
        asked_micros_max: Option<u64>,
        /// The age that was told, by the same clock; `None` if it is not known.
        told_micros: Option<u64>,
        /// The simulated time at which that clock showed the moment that the told age reaches back to.
        current_at_micros: Option<u64>,
    },
    /// A replica's state was proven anew, or is not watched since the simulator made it differ: what is applied next comes
    /// right after this index.
    StateBegins {
        /// Which replica.
        place: Place,
        /// The index that its state stands at.
        index: LogIndex,
    },
    /// A replica has a durable checkpoint.
    Checkpointed {
        /// Which replica.
        place: Place,
        /// The checkpoint's index.
        index: LogIndex,
        /// The digest of the state there.
        digest: Digest,
    },
    /// A replica offered a checkpoint to another.
    Offered {
        /// Who offered.
        place: Place,
        /// The checkpoint's index.
        index: LogIndex,
        /// The digest of the state there.
        digest: Digest,
        /// How many voters the shard has.
        voters: usize,
    },
    /// A replica threw its state away, since a majority holds another one.
    Discarded {
        /// Which replica.
        place: Place,
        /// The index at which it was seen.
        index: LogIndex,
        /// How many voters the shard has.
        voters: usize,
    },
    /// How a replica looks after an event, if that changed.
    View(ReplicaView),
}

/// The hash of an entry, from its type (as a number) and its data.
#[must_use]
pub fn hash_entry(entry_type: u8, data: &[u8]) -> u64 {
    xxh3_64(data) ^ u64::from(entry_type).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
