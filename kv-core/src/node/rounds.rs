//! Rounds in which a node proves to itself that it still leads its shards: one message to each peer for all shards of a turn.
//!
//! This is Raft's ReadIndex (thesis 6.4) with two differences: the shards of a node share their messages, and what is asked is
//! no heartbeat, so that nothing of raft is touched by it; heartbeats go on beside it.
//!
//! Why it proves anything: a replica that leads in term T begins a round when its reads have come, and notes its commit index.
//! A voter recognises it only while the voter's own term is T. Had a leader of a greater term been elected before the round
//! began, a majority would have given it their votes, each synced before it left; a term never falls, a crash included, so that
//! none of that majority could recognise T afterwards. Any majority that does has a voter in common with it. So when the round
//! began there was no later leader, and everything that was decided by then is at or below the commit index that was noted,
//! since the leader had committed an entry of its own term. The voter's *present* term need not be synced for this, only
//! the votes, which are; so an answer waits for no disk, as that to a heartbeat does not.
//!
//! An answer counts for the round that it names and for all before it. Rounds have numbers that only rise, within one start of
//! the node, and carry the start's random number: an answer that comes late, or twice, or after a crash proves nothing new.
//!
//! *Left out*: that somebody is there. It is raft's own heartbeats that keep followers from campaigning, and a leader that hears
//! from no majority from staying one.

use std::collections::BTreeMap;

use super::Node;
use crate::{
    disk::StateStore,
    io::Output,
    message::{ClaimedLeadership, LEADERSHIPS_MAX, LeadershipRound, PeerMessage},
    types::{NodeId, ShardId},
};

/// Why a message about a shard of others is refused.
pub(super) const NOT_HERE: &str = "it is about a shard that does not stand here";

/// What a turn asks of the peers.
#[derive(Debug)]
pub(crate) struct LeadershipRounds {
    run: u64,
    /// The last round that was sent.
    sent: u64,
    /// What the next one asks of whom.
    asked: BTreeMap<NodeId, Vec<ClaimedLeadership>>,
}

impl LeadershipRounds {
    pub(crate) fn new(run: u64) -> Self {
        Self { run, sent: 0, asked: BTreeMap::new() }
    }

    /// The number of the round that is sent at the end of this turn, if any replica asks for one.
    pub(crate) fn next(&self) -> u64 {
        if mutant!("B2") { 1 } else { self.sent + 1 }
    }

    /// Has a peer asked in that round. A replica that asks twice in a turn, since a round is to be asked again and another begins,
    /// is asked for once.
    pub(crate) fn ask(&mut self, of: NodeId, leadership: ClaimedLeadership) {
        let asked = self.asked.entry(of).or_default();
        if asked.last() != Some(&leadership) {
            asked.push(leadership);
        }
    }

    /// Sends the round.
    pub(super) fn emit(&mut self, outputs: &mut Vec<Output>) {
        if self.asked.is_empty() {
            return;
        }
        let round = LeadershipRound { run: self.run, number: self.next() };
        self.sent = round.number;
        for (to, mut leaderships) in std::mem::take(&mut self.asked) {
            while leaderships.len() > LEADERSHIPS_MAX {
                let rest = leaderships.split_off(LEADERSHIPS_MAX);
                outputs.push(Output::Send { to, message: PeerMessage::LeadershipAsk { round, leaderships } });
                leaderships = rest;
            }
            outputs.push(Output::Send { to, message: PeerMessage::LeadershipAsk { round, leaderships } });
        }
    }
}

impl<S: StateStore> Node<S> {
    /// A peer asks for which of these shards it is still known here as the leader.
    pub(super) fn leadership_asked(
        &self,
        from: NodeId,
        round: LeadershipRound,
        leaderships: &[ClaimedLeadership],
        outputs: &mut Vec<Output>,
    ) {
        if leaderships.is_empty() || leaderships.len() > LEADERSHIPS_MAX {
            return Self::refuse(from, None, "it asks of no shard, or of more than one message may", outputs);
        }
        let mut lie = None;
        let mut shards = Vec::with_capacity(leaderships.len());
        for leadership in leaderships {
            let shard = leadership.shard;
            match self.replicas.get(shard).map(|replica| replica.recognises(from, *leadership)) {
                Some(Ok(true)) => shards.push(shard),
                Some(Ok(false)) => {}
                Some(Err(reason)) => lie = lie.or(Some((shard, reason))),
                None => lie = lie.or(Some((shard, NOT_HERE))),
            }
        }
        // Of all that is wrong in it the first is told: a message is one, however long its list.
        if let Some((shard, reason)) = lie {
            Self::refuse(from, Some(shard), reason, outputs);
        }
        if !shards.is_empty() {
            outputs.push(Output::Send { to: from, message: PeerMessage::LeadershipAnswer { round, shards } });
        }
    }

    /// A peer still knows this node as the leader of these shards.
    pub(super) fn leadership_answered(
        &mut self,
        from: NodeId,
        round: LeadershipRound,
        shards: &[ShardId],
        outputs: &mut Vec<Output>,
    ) {
        if shards.is_empty() || shards.len() > LEADERSHIPS_MAX {
            return Self::refuse(from, None, "it answers for no shard, or for more than one message may", outputs);
        }
        if round.run != self.rounds.run {
            point!(RoundOfThePastProven);
            return;
        }
        if round.number > self.rounds.sent {
            return Self::refuse(from, None, "it answers a round that was never asked", outputs);
        }
        let mut lie = None;
        for shard in shards {
            match self.replicas.get_mut(*shard).map(|replica| replica.recognised(from, round.number)) {
                Some(Ok(true)) => self.dirty(*shard),
                Some(Ok(false)) => {}
                Some(Err(reason)) => lie = lie.or(Some((*shard, reason))),
                None => lie = lie.or(Some((*shard, NOT_HERE))),
            }
        }
        if let Some((shard, reason)) = lie {
            Self::refuse(from, Some(shard), reason, outputs);
        }
    }
}
