//! Heartbeats of many groups in one message: a node with a thousand shards says to its peers several thousand times a second that a
//! leader, or a follower, is there. Alone, each is a message with its frame; together, a few bytes.
//!
//! A row is a raft message of its own: it comes out as the message that went in, and is judged and taken by itself, so that one that is
//! refused costs the others nothing. What says more than a row can hold goes alone.

use kv_core::{
    error::Error,
    message::{Heartbeat, PeerMessage},
    types::{LogIndex, ReplicaId, ShardId, Term},
};
use kv_proto::v1::{self, peer_message::Body};

/// Most rows of one message; the next begins another.
const ROWS_MAX: usize = 4_096;

/// Rows for which a message has room from its beginning on.
const ROWS_LIKELY: usize = 16;

/// A heartbeat of a shard's group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeartbeatRow {
    shard: ShardId,
    heartbeat: Heartbeat,
}

impl HeartbeatRow {
    /// The message as a row, if one can hold it.
    pub(crate) fn of(message: &PeerMessage) -> Option<Self> {
        let PeerMessage::Raft { shard, message } = message else { return None };
        Heartbeat::of(message).map(|heartbeat| Self { shard: *shard, heartbeat })
    }

    /// The row as a message of its own, to which others can be added.
    pub(crate) fn begin(self) -> v1::PeerMessage {
        let column = || Vec::with_capacity(ROWS_LIKELY);
        let mut rows = v1::Heartbeats {
            answers: self.heartbeat.is_answer,
            shards: column(),
            to: column(),
            from: column(),
            terms: column(),
            commits: column(),
        };
        self.push(&mut rows);
        v1::PeerMessage { shard: 0, body: Some(Body::Heartbeats(rows)) }
    }

    /// Adds the row to a message of such. False if that is none, or has no room.
    pub(crate) fn add_to(self, message: &mut v1::PeerMessage) -> bool {
        match &mut message.body {
            Some(Body::Heartbeats(rows))
                if rows.answers == self.heartbeat.is_answer && rows.shards.len() < ROWS_MAX =>
            {
                self.push(rows);
                true
            }
            _ => false,
        }
    }

    /// How many a message of such holds; `None` if it is another.
    pub(crate) fn count(message: &v1::PeerMessage) -> Option<usize> {
        match &message.body {
            Some(Body::Heartbeats(rows)) => Some(rows.shards.len()),
            _ => None,
        }
    }

    fn push(self, rows: &mut v1::Heartbeats) {
        let Heartbeat { is_answer: _, to, from, term, commit } = self.heartbeat;
        rows.shards.push(self.shard.0);
        rows.to.push(to.0);
        rows.from.push(from.0);
        rows.terms.push(term.0);
        rows.commits.push(commit.0);
    }
}

/// The messages that the rows stand for, in their order.
///
/// # Errors
/// If the columns differ in length, or there are more rows than `rows_max`.
pub(super) fn heartbeats_from_wire(
    rows: v1::Heartbeats,
    rows_max: usize,
) -> Result<impl ExactSizeIterator<Item = PeerMessage>, Error> {
    let v1::Heartbeats { answers, shards, to, from, terms, commits } = rows;
    let count = shards.len();
    if count > rows_max.min(ROWS_MAX) {
        return Err(Error::invalid(format!("{count} heartbeats in one message")));
    }
    if [to.len(), from.len(), terms.len(), commits.len()] != [count; 4] {
        return Err(Error::invalid("heartbeats whose columns differ in length"));
    }
    Ok((0..count).map(move |row| {
        let heartbeat = Heartbeat {
            is_answer: answers,
            to: ReplicaId(to[row]),
            from: ReplicaId(from[row]),
            term: Term(terms[row]),
            commit: LogIndex(commits[row]),
        };
        PeerMessage::Raft { shard: ShardId(shards[row]), message: heartbeat.into() }
    }))
}
