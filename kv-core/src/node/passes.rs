//! Passes over the replicas: over all of them at a tick, over those that a turn has touched, and over those that may have a
//! checkpoint to begin.
//!
//! What all replicas are visited for is little: there may be a thousand of them, twenty times a second, and most of them rest. So a
//! visit of all is one walk, and only those are touched by it that a pass could do anything for.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{
    Node, in_order,
    replicas::{Replicas, Slot},
};
use crate::{
    disk::StateStore,
    io::Output,
    message::{Heartbeat, RaftMessage},
    replica::{Replica, context::Context, pulse::Beat},
    state::ShardState,
    types::{NodeId, ShardId, Time},
};

/// Passes over a replica in one turn. What is left after them waits for the next turn.
const PASSES_MAX: usize = 8;

/// What a visit needs, apart from each other.
struct Visit<'a, S> {
    replicas: &'a mut Replicas,
    /// Bytes of all replicas' tables.
    tables_bytes: &'a mut usize,
    dirty: &'a mut Vec<ShardId>,
    cx: Context<'a, S>,
}

impl<S: StateStore> Node<S> {
    /// A tick for every replica; gives the bytes of all sessions.
    pub(super) fn tick_replicas(&mut self, now: Time, outputs: &mut Vec<Output>) -> usize {
        let may_rest = self.may_rest();
        let Visit { replicas, tables_bytes, dirty, mut cx } = self.visit(now, outputs);
        let mut sessions_bytes = 0;
        for slot in replicas.slots() {
            let shard = slot.shard;
            if may_rest && let Some(pulse) = slot.pulse {
                sessions_bytes += pulse.sessions_bytes();
                match pulse.tick() {
                    Beat::None => continue,
                    Beat::Sends => {
                        dirty.push(shard);
                        continue;
                    }
                    Beat::Wakes => {}
                }
            } else {
                sessions_bytes += slot.replica.state().map_or(0, ShardState::sessions_bytes);
            }
            let is_touched = guarded(slot, tables_bytes, &mut cx, |replica, cx| {
                replica.tick(cx);
                replica.needs_pass(cx)
            });
            if is_touched != Some(false) {
                dirty.push(shard);
            }
        }
        sessions_bytes
    }

    /// A message of raft's, taken by the pulse of a replica at rest, which knows its peers; false if it is for the replica to judge.
    pub(super) fn hear_at_rest(&mut self, from: NodeId, shard: ShardId, message: &RaftMessage) -> bool {
        let may_rest = self.may_rest();
        let Some(pulse) = self.replicas.pulse(shard).filter(|_| may_rest) else { return false };
        let is_heard = pulse.hear(from, message);
        if is_heard && pulse.has_unsent() {
            self.dirty.push(shard);
        }
        is_heard
    }

    /// A message of raft's.
    pub(super) fn step(
        &mut self,
        from: NodeId,
        shard: ShardId,
        message: &RaftMessage,
        now: Time,
        outputs: &mut Vec<Output>,
    ) {
        let Visit { replicas, tables_bytes, dirty, mut cx } = self.visit(now, outputs);
        let Some(slot) = replicas.slot(shard) else { return };
        let is_touched = guarded(slot, tables_bytes, &mut cx, |replica, cx| {
            replica.step(from, message, cx);
            Heartbeat::of(message).is_none() || replica.needs_pass(cx)
        });
        if is_touched != Some(false) {
            dirty.push(shard);
        }
    }

    /// Proposes, asks, takes Readies and applies, for all replicas that were touched, until none has anything left.
    pub(super) fn flush(&mut self, now: Time, outputs: &mut Vec<Output>) {
        let mut dirty = std::mem::take(&mut self.dirty);
        in_order(&mut dirty);
        dirty.retain(|shard| {
            if let Some(pulse) = self.replicas.pulse(*shard) {
                pulse.send(*shard, outputs);
                return false;
            }
            let flushed = self.with_replica(*shard, now, outputs, |replica, cx| {
                if replica.pass_heartbeats(cx) {
                    return None;
                }
                let mut snapshots = Vec::new();
                // What is applied may free a round or end a hand-over, so a second pass can find more to do.
                for _ in 0..PASSES_MAX {
                    replica.flush(cx);
                    let pumped = replica.pump(cx);
                    snapshots.extend(pumped.snapshots);
                    replica.settle_incoming(cx);
                    replica.observe(cx);
                    replica.serve(cx);
                    if !replica.has_more() {
                        break;
                    }
                }
                Some((snapshots, replica.has_more_to_apply(cx)))
            });
            match flushed {
                Some(None) => return false,
                Some(Some((snapshots, is_unfinished))) => {
                    if is_unfinished {
                        self.unfinished.push(*shard);
                    }
                    for message in snapshots {
                        self.begin_stream(*shard, message, now, outputs);
                    }
                }
                None => {}
            }
            true
        });
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
    }

    pub(super) fn begin_checkpoints(&mut self, now: Time, tick: bool, outputs: &mut Vec<Output>) {
        if !tick {
            let mut dirty = std::mem::take(&mut self.dirty);
            in_order(&mut dirty);
            for shard in &dirty {
                self.with_replica(*shard, now, outputs, |replica, cx| replica.checkpoint_if_due(false, cx));
            }
            self.dirty.append(&mut dirty);
            return;
        }
        let may_rest = self.may_rest();
        let Visit { replicas, tables_bytes, dirty, mut cx } = self.visit(now, outputs);
        let mut log_bytes = 0;
        for Slot { shard, pulse, replica } in replicas.slots() {
            if let Some(pulse) = pulse.as_mut().filter(|_| may_rest)
                && pulse.visit()
            {
                log_bytes += pulse.log_bytes();
                continue;
            }
            dirty.push(shard);
            let slot = Slot { shard, pulse: &mut *pulse, replica: &mut *replica };
            let next = guarded(slot, tables_bytes, &mut cx, |replica, cx| {
                replica.checkpoint_if_due(true, cx);
                replica.drop_floors();
                replica.pulse(cx)
            });
            log_bytes += replica.log_bytes();
            *pulse = next.flatten();
        }
        self.keep_logs_within_bound(log_bytes, now, outputs);
    }

    /// Runs `work` on a replica with its surroundings.
    #[inline]
    pub(super) fn with_replica<R>(
        &mut self,
        shard: ShardId,
        now: Time,
        outputs: &mut Vec<Output>,
        work: impl FnOnce(&mut Replica, &mut Context<'_, S>) -> R,
    ) -> Option<R> {
        let Visit { replicas, tables_bytes, mut cx, .. } = self.visit(now, outputs);
        guarded(replicas.slot(shard)?, tables_bytes, &mut cx, work)
    }

    /// Whether replicas may rest. Where the node is not fit to lead, or its tables ask for checkpoints, each looks after itself.
    fn may_rest(&self) -> bool {
        let is_unfit = self.stopping || self.log_stalled || self.disk_full || self.log_full;
        !is_unfit && self.tables_bytes < self.settings.tables_bytes_max / 2
    }

    fn visit<'a>(&'a mut self, now: Time, outputs: &'a mut Vec<Output>) -> Visit<'a, S> {
        let cx = Context {
            now,
            node: self.id,
            settings: &self.settings,
            store: &self.store,
            map: self.keeper.checked(),
            unique: &mut self.unique,
            batcher: &mut self.batcher,
            rounds: &mut self.rounds,
            outputs,
            watched: &mut self.watched,
            disk_full: self.disk_full,
            log_full: self.log_full,
            kept_full: self.kept_full,
            leaving: self.stopping || self.log_stalled,
            sessions_bytes: self.sessions_bytes,
            tables_bytes: self.tables_bytes,
            apply_bytes_left: &mut self.apply_bytes_left,
            answer_bytes_left: &mut self.answer_bytes_left,
        };
        Visit { replicas: &mut self.replicas, tables_bytes: &mut self.tables_bytes_now, dirty: &mut self.dirty, cx }
    }
}

/// Runs `work` on a replica, woken if it rests. A panic in it takes the replica out of service: raft stops on what it holds to be
/// impossible, and one group must not take the others down.
#[inline]
fn guarded<S: StateStore, R>(
    slot: Slot<'_>,
    tables_bytes: &mut usize,
    cx: &mut Context<'_, S>,
    work: impl FnOnce(&mut Replica, &mut Context<'_, S>) -> R,
) -> Option<R> {
    let Slot { pulse, replica, .. } = slot;
    let tables_bytes_before = replica.table_bytes();
    let pulse = pulse.take();
    let worked = catch_unwind(AssertUnwindSafe(|| {
        if let Some(pulse) = &pulse {
            replica.wake(pulse);
        }
        work(&mut *replica, &mut *cx)
    }));
    let result = match worked {
        Ok(result) => Some(result),
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            let reason = format!("its group reached a state that must be impossible: {said}");
            replica.quarantine(&reason, cx);
            None
        }
    };
    *tables_bytes = *tables_bytes + replica.table_bytes() - tables_bytes_before;
    result
}
