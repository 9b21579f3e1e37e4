//! What goes into a turn and what comes out of it: plain values, the whole boundary between the algorithm and the world.

use crate::{
    checkpoint::job::{CheckpointEvent, CheckpointJob},
    command::{Previous, Write},
    error::Error,
    log::record::LogBatch,
    message::PeerMessage,
    shard_map::{NodeDescription, ShardMap},
    types::{Entry, Epoch, Key, NodeId, RequestId, Revision, SessionId, ShardId, Time, Token},
};

pub use crate::log::record::LogReport;
pub use crate::types::Durability;

/// One thing that happened, for `Node::turn`.
#[derive(Clone, Debug)]
pub enum Input {
    /// One tick of the logical clock. After a stall one is given, not those that were missed.
    Tick,
    /// A message from a peer whose handshake was accepted.
    Peer {
        /// Who sent it.
        from: NodeId,
        /// What it says.
        message: PeerMessage,
    },
    /// The transport could not deliver a message, or gave up a connection on which it had sent one.
    Undelivered {
        /// Whom it was for.
        to: NodeId,
        /// The message's shard; `None` stands for all shards.
        shard: Option<ShardId>,
    },
    /// A client's request.
    Request(Request),
    /// The log has synced this batch and all before it.
    Synced(LogReport),
    /// The checkpoint thread reports.
    Checkpoint(Box<CheckpointEvent>),
    /// Free bytes on the disk, told every second or so.
    DiskFree {
        /// Free bytes for this process.
        bytes: u64,
    },
    /// How this node is reached, told once at the start; recorded in the meta shard if it differs.
    Describe(NodeDescription),
    /// The node is about to stop: hand all leaderships over and take no new requests.
    HandOver,
}

/// One thing to be done, in the order given.
#[derive(Clone, Debug)]
pub enum Output {
    /// Send to a peer. May be lost; is never sent twice.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: PeerMessage,
    },
    /// Write this batch to the log and sync it. None is given before the one before is reported as synced.
    LogBatch(LogBatch),
    /// Work for the checkpoint thread.
    Checkpoint(Box<CheckpointJob>),
    /// The answer to a request; exactly one for each.
    Reply {
        /// The request.
        request: RequestId,
        /// What came of it.
        result: Result<Answer, Error>,
    },
    /// The map has changed: push it to clients that asked to hear of it.
    MapChanged(ShardMap),
    /// Something that an operator may want to read.
    Notice(Notice),
}

/// A request as the door admits it. Keys and values are within bounds by their types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its number, echoed in the reply.
    pub id: RequestId,
    /// The shard that it is for, by the asker's map.
    pub shard: ShardId,
    /// The epoch of the row that the asker used; `None` if it knows none.
    pub epoch: Option<Epoch>,
    /// When the asker stops waiting, on this node's clock.
    pub deadline: Time,
    /// What is asked.
    pub operation: Operation,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Reads a key.
    Get {
        /// The key.
        key: Key,
        /// How fresh the answer must be.
        consistency: Consistency,
    },
    /// Changes a key.
    Write {
        /// The change.
        write: Write,
        /// When to answer; `None` takes the cluster's default.
        durability: Option<Durability>,
    },
    /// Opens a session with the shard.
    OpenSession,
    /// Waits until a write is durable, or says that it is lost.
    WaitDurable {
        /// The write.
        token: Token,
    },
    /// Hands the shard's leadership to another node.
    TransferLeader {
        /// The node that is to lead.
        to: NodeId,
    },
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// It sees every write acknowledged before it was asked. Answered by the leader.
    #[default]
    Linearizable,
    /// The state was current at most this long ago, by the clock of the node that answers. Any replica.
    Bounded {
        /// Greatest age in microseconds.
        age_micros_max: u64,
    },
    /// Whatever the replica has applied, of any age. Any replica.
    Stale,
}

/// What came of a request that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To `Get`.
    Got {
        /// What the key holds.
        entry: Option<Entry>,
        /// The shard's revision when it was read.
        revision: Revision,
        /// How long ago the state read was certainly current, in microseconds: 0 for a linearizable read, `None` if it is
        /// not known (a stale read at a replica that has not heard from a leader).
        age_micros: Option<u64>,
    },
    /// To `Write`, acknowledged as sync.
    Written {
        /// The revision it got; 0 if it changed nothing (the delete of an absent key).
        revision: Revision,
        /// What the key held before.
        previous: Previous,
        /// Where it stands in the log; for an outcome that was remembered, where its last sending does.
        token: Option<Token>,
    },
    /// To `Write`, acknowledged as async: accepted, not yet decided.
    Accepted {
        /// To ask with later.
        token: Token,
    },
    /// To `OpenSession`.
    SessionOpened(SessionId),
    /// To `WaitDurable`: it is decided, on disk at a majority, and applied.
    Durable,
    /// To `WaitDurable`: it did not take effect and never will.
    Lost,
    /// To `WaitDurable`: it is older than what the shard remembers of its terms, so that nobody can tell any more.
    Forgotten,
    /// To `TransferLeader`: it has begun. Whether it succeeds shows in the status.
    TransferBegun,
}

/// Something that an operator may want to read, with the time of the turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The role of a replica changed.
    Role {
        /// The shard.
        shard: ShardId,
        /// Whether it leads now.
        leads: bool,
        /// Its term.
        term: crate::types::Term,
        /// The leader, if it knows one.
        leader: Option<NodeId>,
    },
    /// A replica was taken out of service: it answers nothing until the node is started again.
    Quarantined {
        /// The shard.
        shard: ShardId,
        /// Why.
        reason: String,
    },
    /// A replica begins to serve: its state is proven.
    Verified {
        /// The shard.
        shard: ShardId,
        /// The index that it is proven at.
        index: crate::types::LogIndex,
    },
    /// A replica has to take its state from a peer.
    StateLost {
        /// The shard.
        shard: ShardId,
        /// Why.
        reason: String,
    },
    /// A replica was too busy with a checkpoint for a mark, and did not wait.
    MarkSkipped {
        /// The shard.
        shard: ShardId,
        /// The mark.
        index: crate::types::LogIndex,
    },
    /// A replica's state was another than that of a majority: it was thrown away, and comes from one of them.
    Diverged {
        /// The shard.
        shard: ShardId,
        /// The mark at which it was seen.
        index: crate::types::LogIndex,
        /// The digest here.
        own: crate::types::Digest,
        /// The majority's.
        majority: crate::types::Digest,
        /// On which nodes that stands.
        held_by: Vec<NodeId>,
    },
    /// Replicas of a shard hold different states, and no majority agrees on one: this replica answers nobody.
    Disputed {
        /// The shard.
        shard: ShardId,
        /// The mark at which it was seen.
        index: crate::types::LogIndex,
        /// Which nodes are known to hold which digest there.
        held: Vec<(NodeId, crate::types::Digest)>,
    },
    /// The dispute is over: a majority agrees with this replica.
    Settled {
        /// The shard.
        shard: ShardId,
    },
    /// A message from a peer was refused.
    Refused {
        /// The peer.
        from: NodeId,
        /// The shard that it was about; `None` for the map's messages, and for a list that is empty or too long.
        shard: Option<ShardId>,
        /// Why: one of a few sentences, so that they can be counted.
        reason: &'static str,
    },
    /// The log's disk has been silent for an election timeout; leaderships are handed over.
    LogStalled,
    /// The log's disk answers again.
    LogAnswers,
    /// Little space is left on the disk: client writes are refused.
    DiskLow {
        /// Free bytes.
        free_bytes: u64,
    },
    /// There is space again: client writes are taken.
    DiskEnough {
        /// Free bytes.
        free_bytes: u64,
    },
}
