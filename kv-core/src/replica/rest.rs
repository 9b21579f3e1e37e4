//! Replicas at rest: most ticks and heartbeats change nothing, and a node may have a thousand replicas.
//!
//! A replica *rests* when nobody waits for it, all that is decided is applied, no checkpoint is due, and role, term and leader are
//! those that were last told. A pass over it would then take what raft has ready and do nothing else; and if raft has nothing ready
//! either, nothing at all. Heartbeats, and answers to them, need no Ready: at a leader a Ready's messages leave at once, at a
//! follower the answer to a heartbeat may overtake what waits for the disk ([`super::ready`]), and neither brings a record.
//!
//! Promised is that nothing differs for it: what leaves a turn is what would have left it, in the same order. Nor does raft miss
//! anything: every tick and every message is stepped.

use raft::{StateRole, eraftpb::MessageType};

use super::{Phase, Replica, context::Context};
use crate::{disk::StateStore, message::PeerMessage};

impl Replica {
    /// Whether a pass over the replica in this turn could do anything.
    pub(crate) fn needs_pass<S: StateStore>(&self, cx: &Context<'_, S>) -> bool {
        !self.rests(cx) || self.raft.has_ready()
    }

    /// Sends what raft has to say if that is all there is to do, and it is heartbeats or answers to them. False if a pass is needed.
    pub(crate) fn pass_heartbeats<S: StateStore>(&mut self, cx: &mut Context<'_, S>) -> bool {
        let kind = match self.raft.raft.state {
            StateRole::Leader => MessageType::MsgHeartbeat,
            _ => MessageType::MsgHeartbeatResponse,
        };
        if !self.rests(cx) || self.raft.raft.msgs.iter().any(|message| message.msg_type != kind) {
            return false;
        }
        let mut messages = std::mem::take(&mut self.raft.raft.msgs);
        if self.raft.has_ready() {
            self.raft.raft.msgs = messages;
            return false;
        }
        for message in messages.drain(..) {
            if let Some(message) = self.own_message(message)
                && let Some(to) = self.node_of(message.to)
            {
                cx.send(to, PeerMessage::Raft { shard: self.shard, message });
            }
        }
        // Emptied, and still of the size that the next ones need.
        self.raft.raft.msgs = messages;
        true
    }

    /// Whether nothing is to be done here but what raft has ready.
    fn rests<S: StateStore>(&self, cx: &Context<'_, S>) -> bool {
        // The node's tables make checkpoints due by their size together.
        let tables_ask = cx.tables_bytes >= cx.settings.tables_bytes_max / 2;
        let has_applied_all = match &self.phase {
            Phase::Live(state) => state.applied().0 >= self.handed_out,
            Phase::Quarantined(_) => false,
            Phase::Loading | Phase::Stateless => true,
        };
        !tables_ask
            && has_applied_all
            && self.has_told_role()
            && self.incoming.is_none()
            && self.proposals.len() == 0
            && self.reads.nobody_asks()
            && self.durable_waits.is_empty()
            && !self.checkpointing.is_due()
            && !self.raft.store().is_snapshot_wanted()
    }
}
