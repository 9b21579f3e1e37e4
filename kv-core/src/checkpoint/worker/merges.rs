//! The lane of merges: which replica's files become one next, and when a merge gives way.
//!
//! One merge is under way at a time, a step a turn. What a merge does to the files is [`super::super::base`]'s; here is when it
//! begins, what its failures mean, and who may end it.

use super::{Worker, reason};
use crate::{
    checkpoint::{
        base::{self, BaseTask},
        context::{Failure, Progress, Step},
        job::CheckpointEvent,
    },
    disk::{DiskError, DiskErrorKind, FileDisk, StateStore},
    types::{LogIndex, ReplicaId, ShardId},
};

impl<F: FileDisk, S: StateStore> Worker<F, S> {
    /// A step of the merge under way, or the beginning of the next. True if there was something to do.
    pub(super) fn merges(&mut self, step: &mut Step) -> Result<bool, DiskError> {
        let Some((shard, task)) = &mut self.merge else {
            let Some((shard, replica)) = self.merges.pop_front() else { return Ok(false) };
            let bounds = self.cx.merge_bounds;
            let due = self.cx.replicas.get(&replica).and_then(|known| Some((known, base::due(known, bounds)?)));
            self.merge = due.map(|(known, places)| (shard, BaseTask::new(replica, known, places)));
            return Ok(true);
        };
        let (shard, replica) = (*shard, task.replica());
        match task.step(&mut self.cx, step) {
            Ok(Progress::More) => return Ok(true),
            Ok(Progress::Done) => {}
            // Without room the deltas stay as they are; the next checkpoint tries again.
            Err(Failure::Disk(error)) if error.kind == DiskErrorKind::Full => {
                point!(MergeHadNoRoom);
                task.abandon(&mut self.cx.files)?;
            }
            Err(failure) => {
                let reason = reason(failure)?;
                task.abandon(&mut self.cx.files)?;
                if let Some(known) = self.cx.replicas.get_mut(&replica) {
                    known.is_loaded = false;
                }
                point!(MergeFoundDamage);
                step.events.push(CheckpointEvent::TreeFailed { shard, replica, reason });
            }
        }
        self.merge = None;
        Ok(true)
    }

    /// A checkpoint is confirmed: a merge that would take its file away is given up, if it can be.
    pub(super) fn merge_makes_way(&mut self, replica: ReplicaId, confirmed: LogIndex) -> Result<bool, DiskError> {
        let Some((_, task)) = &self.merge else { return Ok(true) };
        if task.replica() != replica || !task.is_against(confirmed) {
            return Ok(true);
        }
        let may = task.may_be_abandoned();
        if may {
            self.abandon_merge(replica)?;
        }
        Ok(may)
    }

    /// Queues a merge of a replica's files if there are enough of them.
    pub(super) fn merge_if_due(&mut self, shard: ShardId, replica: ReplicaId) {
        let bounds = self.cx.merge_bounds;
        let is_due = self.cx.replicas.get(&replica).is_some_and(|known| base::due(known, bounds).is_some());
        if is_due && !self.is_merging(replica) {
            self.merges.push_back((shard, replica));
        }
    }

    /// Whether a replica's files are being merged or wait for it.
    pub(super) fn is_merging(&self, replica: ReplicaId) -> bool {
        self.merges.iter().any(|(_, queued)| *queued == replica)
            || self.merge.as_ref().is_some_and(|(_, task)| task.replica() == replica)
    }

    /// Gives a replica's merge up, whether it has begun or not.
    pub(super) fn abandon_merge(&mut self, replica: ReplicaId) -> Result<(), DiskError> {
        self.merges.retain(|(_, queued)| *queued != replica);
        if let Some((_, task)) = self.merge.take_if(|(_, task)| task.replica() == replica) {
            point!(MergeAbandoned);
            task.abandon(&mut self.cx.files)?;
        }
        Ok(())
    }
}
