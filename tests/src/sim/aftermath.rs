//! What is left of a state that was made to differ once the replica is right again: what it applied meanwhile, of which nobody was
//! told, and the checkpoints that it wrote.
//!
//! The first matters because it may have been the only one so far to apply an entry: who is right again may show what came of
//! it. What a wrong state makes of a command may be wrong, so up to the index at which it is known to be right the model says
//! what must have come of it.
//!
//! The second matters because a later start may find nothing newer: the files after it have rotted. Then the replica is wrong
//! again, as it was when it wrote that checkpoint, and marks have to find it as before.

use std::collections::{BTreeMap, BTreeSet};

use kv_core::types::{Digest, LogIndex, ShardId};

use super::world::World;
use crate::check::view::{AppliedCommand, EntryMark, Fact, Place};

/// An entry that a replica applied while its state may have been wrong.
#[derive(Debug)]
pub(super) struct Unheard {
    pub(super) place: Place,
    pub(super) entry: EntryMark,
    pub(super) commands: Vec<AppliedCommand>,
}

/// What wrong states have left, by node and shard.
#[derive(Debug, Default)]
pub(super) struct Aftermath {
    /// What was applied, ascending by index.
    unheard: BTreeMap<(usize, ShardId), Vec<Unheard>>,
    /// Checkpoints that hold a wrong state.
    spoiled: BTreeMap<(usize, ShardId), BTreeSet<(LogIndex, Digest)>>,
}

impl Aftermath {
    /// Keeps what a replica has applied. After a load it may apply the same again: then the last time counts.
    pub(super) fn keep(&mut self, node: usize, applied: Unheard) {
        let unheard = self.unheard.entry((node, applied.place.shard)).or_default();
        unheard.retain(|earlier| earlier.entry.index < applied.entry.index);
        unheard.push(applied);
    }

    /// Takes what was kept of a replica.
    pub(super) fn take(&mut self, node: usize, shard: ShardId) -> Vec<Unheard> {
        self.unheard.remove(&(node, shard)).unwrap_or_default()
    }

    /// Whether a replica's files hold a wrong state that a start may find.
    pub(super) fn has_spoiled(&self, node: usize, shard: ShardId) -> bool {
        self.spoiled.contains_key(&(node, shard))
    }

    fn spoil(&mut self, node: usize, shard: ShardId, index: LogIndex, digest: Digest) {
        self.spoiled.entry((node, shard)).or_default().insert((index, digest));
    }

    /// A start finds these checkpoints, and loads the one at an index. True if that one is wrong.
    fn loads(&mut self, node: usize, shard: ShardId, found: &[(LogIndex, Digest)], index: LogIndex) -> bool {
        let Some(spoiled) = self.spoiled.get_mut(&(node, shard)) else { return false };
        spoiled.retain(|checkpoint| found.contains(checkpoint));
        let is_wrong = spoiled.iter().any(|(at, _)| *at == index);
        if spoiled.is_empty() {
            self.spoiled.remove(&(node, shard));
        }
        is_wrong
    }
}

impl World {
    /// A replica that may be wrong has a durable checkpoint: if that is wrong, a later start may load it.
    pub(super) fn wrote_checkpoint(&mut self, node: usize, shard: ShardId, index: LogIndex, digest: Digest) {
        let may_be_wrong = self.divergence.is_altered(node, shard) || self.divergence.is_doubtful(node, shard);
        if may_be_wrong && self.judge.digest_at(shard, index) != Some(digest) {
            self.divergence.aftermath.spoil(node, shard, index, digest);
        }
    }

    /// A start has loaded a checkpoint: if a wrong state had written it, the replica is wrong again.
    pub(super) fn loaded_checkpoint(
        &mut self,
        node: usize,
        shard: ShardId,
        found: &[(LogIndex, Digest)],
        index: LogIndex,
    ) {
        if self.divergence.aftermath.loads(node, shard, found, index) {
            self.divergence.is_wrong_from(node, shard, index);
            self.injector.atlas.is_wrong_again(node, shard);
            self.trace.tell(self.now, || format!("n{} loaded a wrong state of shard {shard}", node + 1));
        }
    }

    /// Tells what a replica has applied since its state was made to differ, now that it is known to have been right at this
    /// index. What follows a state that was read back as a whole it will apply again.
    pub(super) fn tell_unheard(&mut self, node: usize, shard: ShardId, right_at: LogIndex, loaded: bool) {
        let mut last = None;
        for Unheard { place, entry, mut commands } in self.divergence.aftermath.take(node, shard) {
            if entry.index <= right_at {
                if let Some(outcomes) = self.judge.outcomes_at(shard, entry.index) {
                    commands.iter_mut().zip(outcomes).for_each(|(command, outcome)| command.outcome = outcome.clone());
                }
            } else if loaded {
                return;
            }
            if last != Some(LogIndex(entry.index.0 - 1)) {
                self.tell_one(&Fact::StateBegins { place, index: LogIndex(entry.index.0 - 1) });
            }
            last = Some(entry.index);
            self.tell_one(&Fact::Applied { place, entry, commands });
        }
    }
}

#[cfg(test)]
mod tests {
    use kv_core::types::Term;

    use super::*;

    const SHARD: ShardId = ShardId(1);

    fn applied(index: u64, hash: u64) -> Unheard {
        let place = Place { shard: SHARD, ..Place::default() };
        let entry = EntryMark { index: LogIndex(index), term: Term(2), hash };
        Unheard { place, entry, commands: Vec::new() }
    }

    #[test]
    fn what_is_applied_again_after_a_load_counts_once() {
        let mut aftermath = Aftermath::default();
        [(5, 0), (6, 0), (7, 0), (6, 1)].into_iter().for_each(|(index, hash)| aftermath.keep(0, applied(index, hash)));
        let kept: Vec<_> = aftermath.take(0, SHARD).iter().map(|kept| (kept.entry.index.0, kept.entry.hash)).collect();
        assert_eq!(kept, [(5, 0), (6, 1)]);
        assert!(aftermath.take(0, SHARD).is_empty());
    }

    #[test]
    fn a_wrong_checkpoint_counts_until_a_start_does_not_find_it() {
        let (wrong, right) = ((LogIndex(7), Digest(1)), (LogIndex(9), Digest(2)));
        let mut aftermath = Aftermath::default();
        aftermath.spoil(0, SHARD, wrong.0, wrong.1);
        assert!(!aftermath.loads(0, SHARD, &[wrong, right], right.0) && aftermath.has_spoiled(0, SHARD));
        assert!(aftermath.loads(0, SHARD, &[wrong], wrong.0) && aftermath.has_spoiled(0, SHARD));
        assert!(!aftermath.loads(0, SHARD, &[right], right.0) && !aftermath.has_spoiled(0, SHARD));
    }
}
