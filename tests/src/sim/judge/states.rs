//! What is told of whole states: their digests at checkpoints and loads, at looks at running replicas, and at the end.

use kv_core::{
    checkpoint::job::CheckpointEvent,
    types::{Digest, LogIndex, NodeId, ShardId},
};

use super::World;
use crate::{
    check::view::{Fact, Place},
    sim::world::Event,
};

/// How often the whole state of one replica is looked at, one after the other, in simulated microseconds.
const LOOK_MICROS: u64 = 1_000_000;

impl World {
    /// Tells what the checkpoint thread reports: a state has one digest, whoever computes it.
    pub(in crate::sim) fn judge_checkpoint(&mut self, node: usize, event: &CheckpointEvent) {
        let (shard, footer) = match event {
            CheckpointEvent::Durable { shard, footer, .. } => {
                self.counts.checkpoints += 1;
                (*shard, footer)
            }
            CheckpointEvent::Loaded { shard, footer, .. } => {
                self.counts.loads += 1;
                (*shard, footer)
            }
            CheckpointEvent::LoadFailed { shard, reason, .. } => {
                // Crashes, full disks and installs cost no replica its state: only damage does.
                if !self.injector.atlas.has_damaged_files(node, *shard) {
                    let what = format!("node {} finds none of shard {shard}: {reason}", node + 1);
                    self.fail("a checkpoint that nothing damaged can be loaded", what);
                }
                return;
            }
            _ => return,
        };
        self.trace.note([self.now, footer.header.index.0, footer.digest.0 as u64]);
        self.trace.tell(self.now, || {
            let what = if matches!(event, CheckpointEvent::Durable { .. }) { "checkpointed" } else { "loaded" };
            format!("n{} {what} shard {shard} at {} with digest {}", node + 1, footer.header.index, footer.digest)
        });
        let loaded = matches!(event, CheckpointEvent::Loaded { .. });
        let place = self.judge.place(node, shard);
        if let CheckpointEvent::Loaded { checkpoints, .. } = event {
            for (index, digest) in checkpoints {
                self.tell_one(&Fact::Checkpointed { place, index: *index, digest: *digest });
            }
            self.loaded_checkpoint(node, shard, checkpoints, footer.header.index);
        } else {
            self.wrote_checkpoint(node, shard, footer.header.index, footer.digest);
            self.tell_one(&Fact::Checkpointed { place, index: footer.header.index, digest: footer.digest });
        }
        self.is_right_again(node, shard, footer.header.index, footer.digest, loaded);
        // That marks find such a one is theirs to see to; its state is looked at as ever.
        if !self.divergence.is_doubtful(node, shard) {
            self.judge_digest(node, shard, footer.header.index, footer.digest);
        }
    }

    /// Tells the digest of a state, unless it was made to differ.
    pub(in crate::sim) fn judge_digest(&mut self, node: usize, shard: ShardId, index: LogIndex, digest: Digest) {
        if self.divergence.is_altered(node, shard) {
            return;
        }
        let place = self.judge.place(node, shard);
        let place = Place { node: NodeId(node as u64 + 1), shard, ..place };
        self.tell_one(&Fact::Held { place, index, digest });
    }

    /// Compares the digests of all states that a turn has touched.
    pub(in crate::sim) fn judge_digests(&mut self, node: usize) {
        let process = self.machines[node].process.as_ref().expect("it just took a turn");
        let shards: Vec<_> = process.node.changed_shards().to_vec();
        for shard in shards {
            if let Some((index, digest)) = self.machines[node].state_digest(shard) {
                self.judge_digest(node, shard, index, digest);
            }
        }
    }

    /// Schedules the next look at a replica's whole state.
    pub(in crate::sim) fn schedule_look(&mut self) {
        self.queue.push(self.now + LOOK_MICROS, Event::Look);
    }

    /// Tells the digest of one replica's whole state, each time of another.
    pub(in crate::sim) fn look(&mut self) {
        let replicas = self.machines.len() * self.judge.shards;
        self.judge.looked_at = (self.judge.looked_at + 1) % replicas;
        let (node, shard) = (self.judge.looked_at / self.judge.shards, self.judge.looked_at % self.judge.shards);
        let shard = ShardId(shard as u64);
        // A read that is about to fail is to fail for the node.
        if !self.machines[node].store.is_about_to_fail()
            && let Some((index, digest)) = self.machines[node].state_digest(shard)
        {
            self.judge_digest(node, shard, index, digest);
        }
        self.schedule_look();
    }
}
