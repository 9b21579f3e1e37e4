//! Which links between nodes are allowed: how a playground or a test cuts a cluster in two.
//!
//! The peer transport of every node asks before it connects and before it accepts, and closes what is no longer allowed.
//! `serve` uses [`Links::default`], which allows all.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kv_core::types::NodeId;
use tokio::sync::watch;

/// The links of a cluster, shared by its nodes if they run in one process. Clones share it.
#[derive(Clone, Debug)]
pub struct Links {
    cut: Arc<Mutex<BTreeSet<(NodeId, NodeId)>>>,
    changes: watch::Sender<u64>,
}

impl Default for Links {
    fn default() -> Self {
        Self { cut: Arc::default(), changes: watch::Sender::new(0) }
    }
}

impl Links {
    /// Cuts every link between a node of one group and a node of the other, both ways.
    pub fn partition(&self, one: &[NodeId], other: &[NodeId]) {
        let mut cut = self.lock();
        for a in one {
            for b in other.iter().filter(|b| *b != a) {
                cut.insert((*a, *b));
                cut.insert((*b, *a));
            }
        }
        drop(cut);
        self.changes.send_modify(|count| *count += 1);
    }

    /// Cuts what `from` sends to `to`, and leaves the other way as it is.
    pub fn cut_one_way(&self, from: NodeId, to: NodeId) {
        self.lock().insert((from, to));
        self.changes.send_modify(|count| *count += 1);
    }

    /// Allows every link again.
    pub fn heal(&self) {
        self.lock().clear();
        self.changes.send_modify(|count| *count += 1);
    }

    /// Whether `from` may send to `to`.
    #[must_use]
    pub fn allows(&self, from: NodeId, to: NodeId) -> bool {
        !self.lock().contains(&(from, to))
    }

    /// Waits until `from` may send to `to`, or may no longer.
    pub(crate) async fn until(&self, from: NodeId, to: NodeId, allowed: bool) {
        let mut changes = self.changes.subscribe();
        // The sender lives as long as `self`, so that the wait ends only with the condition.
        let _closed = changes.wait_for(|_| self.allows(from, to) == allowed).await;
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<(NodeId, NodeId)>> {
        self.cut.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

    #[test]
    fn a_partition_cuts_both_ways_between_the_groups_only() {
        let links = Links::default();
        links.partition(&NODES[..1], &NODES[1..]);
        assert!(!links.allows(NODES[0], NODES[1]) && !links.allows(NODES[2], NODES[0]));
        assert!(links.allows(NODES[1], NODES[2]));
        links.heal();
        assert!(links.allows(NODES[0], NODES[1]));
        links.cut_one_way(NODES[0], NODES[1]);
        assert!(!links.allows(NODES[0], NODES[1]) && links.allows(NODES[1], NODES[0]));
    }

    #[tokio::test]
    async fn a_waiter_hears_of_the_change() {
        let links = Links::default();
        let waiting = tokio::spawn({
            let links = links.clone();
            async move { links.until(NODES[0], NODES[1], false).await }
        });
        tokio::task::yield_now().await;
        links.partition(&NODES[..1], &NODES[1..]);
        waiting.await.unwrap();
    }
}
