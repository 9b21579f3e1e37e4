//! Between nodes: three connections to each peer, and three from it.
//!
//! A node sends on the connections that it made and only reads on those made to it. Order is kept within one connection;
//! messages are dropped where a queue is full or a connection breaks, which the core is told, and never sent twice.

mod accept;
mod connect;
mod contact;
mod queue;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use kv_core::{
    founding::FoundingMessage,
    identity::{self, RefusalKind},
    io::Input,
    message::{Lane, PeerMessage},
    types::NodeId,
};
use kv_proto::v1;

#[cfg(test)]
pub(crate) use self::accept::judge;
pub(crate) use self::{accept::PeerService, contact::Contacts};
use self::{contact::Contact, queue::LaneQueue};
use crate::{
    convert::{HeartbeatRow, founding_to_wire, message_to_wire},
    inbox::Event,
    shared::Shared,
    stop::Trouble,
};

/// Most bytes of one frame on a peer's connection. A longer one ends the connection.
pub(crate) const FRAME_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The sending side.
pub(crate) struct Peers {
    shared: Arc<Shared>,
    lanes: BTreeMap<(NodeId, Lane), Arc<LaneQueue>>,
}

impl Peers {
    /// Begins to connect to all other members. Must be called inside the loop's runtime.
    pub(crate) fn start(shared: &Arc<Shared>) -> Self {
        let refusals = Arc::new(Refusals::default());
        let mut lanes = BTreeMap::new();
        for node in shared.members.keys().filter(|node| **node != shared.node) {
            for lane in [Lane::Main, Lane::Bulk, Lane::Snapshot] {
                let queue = Arc::new(LaneQueue::new(lane));
                let task = connect::LaneTask::new(*node, lane, &queue, shared, &refusals);
                shared.spawn("a connection to a peer", task.run());
                lanes.insert((*node, lane), queue);
            }
        }
        Self { shared: Arc::clone(shared), lanes }
    }

    /// Queues a message of the node. What is dropped at once is told to the core.
    pub(crate) fn send(&self, to: NodeId, message: PeerMessage) {
        let (lane, shard, bytes) = (message.lane(), message.shard(), message.bytes_about());
        let is_taken = match HeartbeatRow::of(&message) {
            Some(heartbeat) => self.lanes.get(&(to, lane)).is_some_and(|queue| queue.push_heartbeat(heartbeat, bytes)),
            None => self.put(to, lane, || (message_to_wire(message), bytes)),
        };
        if !is_taken {
            self.shared.metrics.undelivered();
            self.shared.inbox.push(Event::Input(Input::Undelivered { to, shard }));
        }
    }

    /// Queues a message about founding. It is asked again anyway if it is lost.
    pub(crate) fn send_founding(&self, to: NodeId, message: &FoundingMessage) {
        let _asked_again = self.put(to, Lane::Main, || (founding_to_wire(message), 1_024));
    }

    /// How many messages wait.
    pub(crate) fn queued(&self) -> usize {
        self.lanes.values().map(|queue| queue.len()).sum()
    }

    fn put(&self, to: NodeId, lane: Lane, message: impl FnOnce() -> (v1::PeerMessage, usize)) -> bool {
        self.lanes.get(&(to, lane)).is_some_and(|queue| {
            queue.is_up() && {
                let (message, bytes) = message();
                queue.push(message, bytes)
            }
        })
    }
}

/// Who has refused this node; what follows from it the core says.
#[derive(Default)]
struct Refusals {
    told: Mutex<identity::Refusals>,
}

impl Refusals {
    /// A peer has refused the handshake.
    fn refused(&self, shared: &Shared, by: NodeId, refusal: &v1::PeerRefusal) {
        let kind = match refusal.reason() {
            v1::RefusalReason::Wiped | v1::RefusalReason::NotAMember => RefusalKind::Banned,
            v1::RefusalReason::WrongCluster => RefusalKind::OtherCluster,
            v1::RefusalReason::WrongNode | v1::RefusalReason::Protocol => RefusalKind::Passing,
            // Nothing that this version knows to be wrong: it is as good as not reached.
            v1::RefusalReason::Unspecified => return,
        };
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        match told.refused(by, kind, &refusal.message, shared.members.len()) {
            Some(sentence) => shared.stop.fail(Trouble::DataDirectory, sentence),
            None => shared.contacts.to(by, Contact::Refused(refusal.message.clone())),
        }
    }

    /// A peer has accepted the handshake.
    fn accepted(&self, by: NodeId) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).accepted(by);
    }
}
