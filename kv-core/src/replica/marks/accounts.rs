//! What the replicas of a shard have said of their checkpoints, and what follows from it.
//!
//! Facts and verdicts alone: pure, and the same whoever asks. What a replica does about them is told in [`super`].

use std::collections::{BTreeMap, VecDeque};

use crate::{
    log::record::Boundary,
    message::{MARKS_TOLD_MAX, MarkDigest, MarkReport},
    types::{Digest, LogIndex, ReplicaId},
};

/// What is known of a shard's checkpoints.
#[derive(Debug, Default)]
pub(in crate::replica) struct Marks {
    /// Of this replica, the newest last; at most [`MARKS_TOLD_MAX`].
    pub(super) own: VecDeque<Own>,
    /// Of the others, the last account of each.
    pub(super) said: BTreeMap<ReplicaId, Said>,
    /// The last mark that this replica was too busy for.
    pub(super) skipped: LogIndex,
    /// The newest that is being noted as confirmed.
    pub(super) noting: Option<LogIndex>,
    /// The newest mark at which digests contradict each other, while no majority confirms it or a newer one.
    pub(super) disputed: Option<LogIndex>,
    /// Marks asked for in this dispute.
    pub(super) dispute_marks: u32,
    /// Ticks since a mark was proposed that is not applied yet.
    pub(super) outstanding_ticks: Option<u64>,
    /// Ticks since the last mark was applied.
    pub(super) since_mark_ticks: u64,
    /// Ticks since this replica last told the others.
    pub(super) since_told_ticks: u64,
    /// Ticks since it last asked the leader for a mark.
    pub(super) since_asked_ticks: u64,
    /// Ticks until another's wish for a mark is heeded again.
    pub(super) until_heeding_ticks: u64,
    /// Ticks in a row at its bounds.
    pub(super) full_ticks: u64,
}

#[derive(Debug)]
pub(super) struct Own {
    pub(super) place: Boundary,
    pub(super) digest: Digest,
}

#[derive(Debug)]
pub(super) struct Said {
    pub(super) number: u64,
    pub(super) checkpoints: Vec<MarkDigest>,
    pub(super) skipped: LogIndex,
}

impl Said {
    pub(super) fn digest_at(&self, index: LogIndex) -> Option<Digest> {
        self.checkpoints.iter().find(|mark| mark.index == index).map(|mark| mark.digest)
    }

    /// Whether nothing more is to be expected of it for this mark.
    pub(super) fn has_answered(&self, index: LogIndex) -> bool {
        self.skipped >= index || self.checkpoints.last().is_some_and(|mark| mark.index >= index)
    }
}

/// What the reports say of one checkpoint of this replica's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nobody contradicts, but those who agree are no majority yet.
    Open,
    /// A majority of the voters agrees.
    Confirmed,
    /// Somebody contradicts, and there is no majority either way.
    Split,
    /// A majority of the voters, this replica not counted, agrees on another digest.
    Against(Digest),
}

impl Marks {
    /// The state goes: nothing is known of the next one. What others said stays true.
    pub(in crate::replica) fn lose_state(&mut self) {
        self.own.clear();
        self.noting = None;
        self.disputed = None;
        self.outstanding_ticks = None;
    }

    pub(super) fn verdict(&self, own: &Own, me: ReplicaId, voters: &[ReplicaId]) -> Verdict {
        let majority = voters.len() / 2 + 1;
        let mut others: BTreeMap<Digest, usize> = BTreeMap::new();
        for voter in voters.iter().filter(|voter| **voter != me) {
            if let Some(digest) = self.said.get(voter).and_then(|said| said.digest_at(own.place.index)) {
                *others.entry(digest).or_default() += 1;
            }
        }
        let agreeing = others.remove(&own.digest).unwrap_or(0) + usize::from(voters.contains(&me));
        let enough = if mutant!("M2") { 1 } else { majority };
        if let Some((digest, _)) = others.iter().find(|(_, count)| **count >= enough) {
            return Verdict::Against(*digest);
        }
        if agreeing >= majority {
            Verdict::Confirmed
        } else if others.is_empty() {
            Verdict::Open
        } else {
            Verdict::Split
        }
    }

    /// Who of the voters is known to hold what at an index.
    pub(super) fn held_at(&self, index: LogIndex, me: ReplicaId, voters: &[ReplicaId]) -> Vec<(ReplicaId, Digest)> {
        let own = self.own.iter().find(|own| own.place.index == index).map(|own| own.digest);
        let said = |voter: &ReplicaId| self.said.get(voter).and_then(|said| said.digest_at(index));
        let of = |voter: &ReplicaId| if *voter == me { own } else { said(voter) };
        voters.iter().filter_map(|voter| Some((*voter, of(voter)?))).collect()
    }

    /// The newest index above this one at which this replica holds nothing and others contradict each other, none of them a
    /// majority.
    pub(super) fn contested_above(
        &self,
        above: Option<LogIndex>,
        me: ReplicaId,
        voters: &[ReplicaId],
    ) -> Option<LogIndex> {
        let told = self.said.values().flat_map(|said| &said.checkpoints).map(|mark| mark.index);
        let is_news = |index: &LogIndex| Some(*index) > above;
        let is_contested = |index: &LogIndex| {
            let held = self.held_at(*index, me, voters);
            let count = |digest: Digest| held.iter().filter(|(_, other)| *other == digest).count();
            held.iter().all(|(_, digest)| count(*digest) <= voters.len() / 2)
                && held.iter().any(|(_, digest)| count(*digest) < held.len())
        };
        told.filter(is_news).filter(is_contested).max()
    }

    /// Keeps the newest, and those that something still depends on.
    pub(super) fn forget_oldest(&mut self, confirmed: Option<LogIndex>) {
        let kept = [confirmed, self.noting, self.disputed];
        while self.own.len() > MARKS_TOLD_MAX {
            let oldest = self.own.iter().position(|own| !kept.contains(&Some(own.place.index)));
            self.own.remove(oldest.unwrap_or(0));
        }
    }

    pub(super) fn report(&self, number: u64, wants_mark: bool, wants_answer: bool) -> MarkReport {
        let told = self.own.iter().map(|own| MarkDigest { index: own.place.index, digest: own.digest });
        MarkReport { number, checkpoints: told.collect(), skipped: self.skipped, wants_mark, wants_answer }
    }
}
