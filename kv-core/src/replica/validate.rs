//! What a peer's message must be before raft sees it.
//!
//! raft stops the process on a message that no honest peer sends (a commit index beyond the log, a conflict below it). Such
//! a message is refused and counted here; one that proves that the logs have parted takes the replica out of service. Kinds
//! that are local to a process have no form in [`RaftMessage`] at all.

use super::Replica;
use crate::{
    log::record::EntryKind,
    message::{RaftMessage, RaftMessageKind},
    types::{LogIndex, NodeId, ReplicaId, Term},
};

/// Why a message is refused whose sender has no replica of the shard.
pub(crate) const NO_MEMBER: &str = "its sender is not the group's replica on that node";
/// Why a message is refused with numbers that could make others overflow.
pub(super) const OUT_OF_RANGE: &str = "an index or a term that no log reaches";
/// The largest index of a message that is taken. Far above what any log reaches, and far below what a u64 holds: an index is
/// counted on from here without an overflow.
pub(super) const INDEX_MAX: u64 = u64::MAX / 2;
/// How far a message's term may be ahead of the replica's own. Whoever hears of a greater term takes it over, so that a bound
/// on terms themselves would leave a group without leaders that was brought up to it by one lie; no honest replica is so
/// many elections behind.
pub(super) const TERMS_AHEAD_MAX: u64 = 1 << 32;

/// What to do with a message from a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Raft may see it.
    Step,
    /// Not in order, or not now: it is dropped without a word, as a network would.
    Drop,
    /// No honest peer sends it.
    Refuse(&'static str),
    /// It proves that this replica's log is not the group's.
    Quarantine(&'static str),
}

impl Replica {
    /// Judges a message that came from this node.
    pub(super) fn judge(&self, from: NodeId, message: &RaftMessage) -> Verdict {
        if message.to != self.id {
            return Verdict::Refuse("it is for another replica");
        }
        if self.node_of(message.from) != Some(from) {
            return Verdict::Refuse(NO_MEMBER);
        }
        if message.term.0 == 0 {
            return Verdict::Refuse("it has no term");
        }
        if !self.is_in_range(message) {
            return Verdict::Refuse(OUT_OF_RANGE);
        }
        if message.snapshot.is_some() != (message.kind == RaftMessageKind::Snapshot) {
            return Verdict::Refuse("a snapshot's mark comes with a snapshot, and only with one");
        }
        if message.request_snapshot != LogIndex(0) {
            return Verdict::Refuse("no replica of ours asks raft for a snapshot");
        }
        match message.kind {
            RaftMessageKind::Append => self.judge_append(message),
            RaftMessageKind::Heartbeat if message.commit > self.last_index() => {
                if message.term.0 < self.raft.raft.term {
                    // Of an old leader: raft answers it with the newer term and looks no further.
                    return Verdict::Step;
                }
                Verdict::Refuse("a heartbeat's commit index is beyond what this replica has acknowledged")
            }
            RaftMessageKind::TimeoutNow if self.is_installing() => {
                point!(TimeoutNowWhileInstalling);
                Verdict::Drop
            }
            RaftMessageKind::AppendResponse
                if self.leads()
                    && message.term == self.term()
                    && !message.reject
                    && message.index > self.last_index() =>
            {
                Verdict::Refuse("it acknowledges entries that were never sent")
            }
            _ if !message.entries.is_empty() => Verdict::Refuse("entries come with appends only"),
            RaftMessageKind::Snapshot => self.judge_snapshot(message),
            _ => Verdict::Step,
        }
    }

    /// A snapshot stands for all that is decided up to its mark. raft compares terms only to see whether it has need of it: one
    /// that stands exactly at the commit index with another term it would put in place of what was decided here.
    fn judge_snapshot(&self, message: &RaftMessage) -> Verdict {
        let parted = message.snapshot.as_ref().is_some_and(|mark| self.has_parted(mark.index, mark.term));
        if parted && message.term.0 >= self.raft.raft.term {
            return Verdict::Quarantine("a leader's snapshot differs from this log at an index that is committed here");
        }
        Verdict::Step
    }

    /// Whether another term than this stands at an index that is committed here.
    pub(super) fn has_parted(&self, index: LogIndex, term: Term) -> bool {
        // What raft took over earlier in this turn is committed by now, though not yet in the store.
        let own = self.raft.raft.raft_log.term(index.0);
        index <= self.commit() && own.is_ok_and(|own| own != 0 && own != term.0)
    }

    fn judge_append(&self, message: &RaftMessage) -> Verdict {
        // raft takes the term of an index that is not in its log for 0, so that an append of term 0 would fit anywhere.
        if message.log_term == Term(0) {
            return Verdict::Refuse("the entry before its entries has no term");
        }
        let mut index = message.index;
        let mut term = message.log_term;
        for entry in &message.entries {
            if entry.index != index.next() {
                return Verdict::Refuse("its entries are not contiguous");
            }
            if entry.term < term || entry.term > message.term {
                return Verdict::Refuse("the terms of its entries fall, or exceed its own");
            }
            if entry.kind != EntryKind::Commands {
                return Verdict::Refuse("it changes the configuration, which nothing does yet");
            }
            (index, term) = (entry.index, entry.term);
        }
        if message.term.0 < self.raft.raft.term {
            return Verdict::Step;
        }
        if self.has_parted(message.index, message.log_term)
            || message.entries.iter().any(|entry| self.has_parted(entry.index, entry.term))
        {
            return Verdict::Quarantine("a leader's log differs from this one at an index that is committed here");
        }
        Verdict::Step
    }

    /// Whether no number in it could make another overflow. The entries' indexes follow from the message's, their terms are
    /// at most its own.
    fn is_in_range(&self, message: &RaftMessage) -> bool {
        let mark = message.snapshot.as_ref();
        let indexes = [message.index, message.commit, message.reject_hint, mark.map_or(LogIndex(0), |mark| mark.index)];
        let terms = [message.term, message.log_term, message.commit_term, mark.map_or(Term(0), |mark| mark.term)];
        let term_max = self.term_max();
        indexes.iter().all(|index| index.0 <= INDEX_MAX) && terms.iter().all(|term| *term <= term_max)
    }

    /// The greatest term of which a peer may speak.
    pub(super) fn term_max(&self) -> Term {
        Term(self.term().0.saturating_add(TERMS_AHEAD_MAX))
    }

    /// Whether a replica is in the group and can be handed the leadership.
    pub(super) fn is_voter(&self, replica: ReplicaId) -> bool {
        self.configuration.voters.contains(&replica)
    }
}
