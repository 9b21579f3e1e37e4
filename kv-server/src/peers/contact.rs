//! What an operator hears of the ways to and from the peers: each change once, however often a connection is tried.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use kv_core::types::NodeId;

/// Callers that were refused and are remembered as such; a full list is forgotten. Bounds what strangers can make it hold.
const REFUSED_MAX: usize = 64;

/// The way to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Contact {
    /// It has greeted.
    Reached,
    /// It is not reached, for this reason.
    Lost(String),
    /// It was cut by request (a playground or a test).
    Cut,
    /// The cut has ended; whether it is reached will be seen.
    Allowed,
    /// The peer was reached and refuses this node, for this reason.
    Refused(String),
}

/// All peers' contacts, as last said.
#[derive(Debug, Default)]
pub(crate) struct Contacts {
    to: Mutex<BTreeMap<NodeId, Contact>>,
    /// Why callers were last refused, by the node that they say they are.
    refused: Mutex<BTreeMap<u64, String>>,
}

impl Contacts {
    /// The way to a peer is like this now.
    pub(super) fn to(&self, peer: NodeId, contact: Contact) {
        if !self.changes(peer, &contact) {
            return;
        }
        match contact {
            Contact::Reached => tracing::info!(%peer, "a peer is reached"),
            Contact::Lost(reason) => {
                tracing::warn!(%peer, %reason, "a peer is not reached; it is tried again until it is");
            }
            Contact::Cut => tracing::info!(%peer, "the link to a peer is cut by request"),
            Contact::Allowed => tracing::debug!(%peer, "the link to a peer is allowed again"),
            Contact::Refused(reason) => tracing::error!(%peer, %reason, "a peer refuses this node"),
        }
    }

    /// Whether that is to be said. One reason for a loss is as good as another; a refusal for another reason is news.
    fn changes(&self, peer: NodeId, contact: &Contact) -> bool {
        let mut to = self.to.lock().unwrap_or_else(PoisonError::into_inner);
        let before = to.insert(peer, contact.clone());
        match (&before, contact) {
            (Some(Contact::Lost(_)), Contact::Lost(_)) => false,
            // A peer that refuses is lost as well.
            (Some(Contact::Refused(_)), Contact::Lost(_)) => {
                to.extend(before.map(|before| (peer, before)));
                false
            }
            (before, contact) => before.as_ref() != Some(contact),
        }
    }

    /// A caller is refused.
    pub(super) fn refuse(&self, from: u64, reason: &str) {
        if self.refuses_anew(from, reason) {
            tracing::warn!(from, %reason, "a node is refused");
        }
    }

    fn refuses_anew(&self, from: u64, reason: &str) -> bool {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.get(&from).is_some_and(|before| before == reason) {
            return false;
        }
        if refused.len() >= REFUSED_MAX {
            refused.clear();
        }
        refused.insert(from, reason.to_owned());
        true
    }

    /// A caller is accepted.
    pub(super) fn accept(&self, from: NodeId) {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).remove(&from.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_said_once() {
        let contacts = Contacts::default();
        let lost = |reason: &str| Contact::Lost(reason.to_owned());
        let refused = |reason: &str| Contact::Refused(reason.to_owned());
        let said = |contact: Contact| contacts.changes(NodeId(2), &contact);
        assert!(said(lost("connection refused")));
        assert!(!said(lost("no answer in time")));
        assert!(said(Contact::Reached));
        assert!(!said(Contact::Reached));
        assert!(said(Contact::Cut));
        assert!(said(Contact::Allowed) && said(lost("connection refused")), "it ended meanwhile");
        assert!(said(Contact::Reached));
        assert!(said(refused("another cluster")));
        assert!(!said(lost("refused")) && !said(refused("another cluster")));
        assert!(said(refused("another node")));
        assert!(contacts.changes(NodeId(3), &Contact::Reached), "each peer by itself");
    }

    #[test]
    fn a_stranger_is_refused_aloud_once_for_each_reason() {
        let contacts = Contacts::default();
        assert!(contacts.refuses_anew(7, "one reason") && !contacts.refuses_anew(7, "one reason"));
        assert!(contacts.refuses_anew(7, "another"));
        contacts.accept(NodeId(7));
        assert!(contacts.refuses_anew(7, "another"));
        (0..1_000).for_each(|from| assert!(contacts.refuses_anew(100 + from, "x")));
        assert!(contacts.refused.lock().unwrap().len() <= REFUSED_MAX);
    }
}
