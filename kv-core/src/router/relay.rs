//! The way of a call that a server takes for a caller who knows no map: which node to ask, and whether to ask another.
//!
//! * Only what certainly was not applied is asked of a second node, and reads: a write runs at most once, since it is in no
//!   session that could tell a second run from the first.
//! * What is asked of one node alone is answered by it, and nobody else is asked.
//! * Who is known to lead is asked first, so that a call costs one hop and not a refusal before it.
//! * It ends before its deadline, and whenever the refusal says that no other node would do better.
//! * The leader that a node named is asked next, without a pause at first; two nodes that name each other are asked in turn with
//!   pauses, never in a tight circle.

use crate::{
    error::{Error, Outcome},
    router::Remedy,
    shard_map::ShardRow,
    types::{NodeId, Time},
};

/// Pause before a call is tried again, in microseconds.
pub const RELAY_PAUSE_MICROS: u64 = 30_000;
/// So many tries go to a leader that was named without a pause before them.
const HINTS_AT_ONCE: u32 = 2;

/// What to do after a failed try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Further {
    /// Ask the next node at once.
    AtOnce,
    /// Ask the next node after [`RELAY_PAUSE_MICROS`].
    AfterPause,
    /// Tell the caller of the failure.
    No,
}

/// A call on its way.
#[derive(Clone, Debug)]
pub struct Relay {
    own: NodeId,
    deadline: Time,
    is_read: bool,
    is_here_only: bool,
    asked_own: bool,
    tries: u32,
    hint: Option<NodeId>,
}

impl Relay {
    /// A call that came to the node `own`: a read or a write, and whether nobody else is to be asked.
    #[must_use]
    pub fn new(own: NodeId, deadline: Time, is_read: bool, is_here_only: bool) -> Self {
        Self { own, deadline, is_read, is_here_only, asked_own: false, tries: 0, hint: None }
    }

    /// The same call, of whose shard this node is known to lead, if any is.
    #[must_use]
    pub fn toward(self, leader: Option<NodeId>) -> Self {
        Self { hint: leader, ..self }
    }

    /// Whom to ask: the leader that is known or that somebody named; else, once, the own node if it has a replica; then the
    /// replicas in turn.
    #[must_use]
    pub fn node(&self, row: &ShardRow) -> NodeId {
        if self.is_here_only {
            return self.own;
        }
        if let Some(hint) = self.hint {
            return hint;
        }
        if !self.asked_own && row.replica_on(self.own).is_some() {
            return self.own;
        }
        let turn = self.tries as usize % row.replicas.len().max(1);
        row.replicas.get(turn).map_or(self.own, |place| place.node)
    }

    /// A node that was asked answered with an error, or could not be asked.
    pub fn failed(&mut self, node: NodeId, error: &Error, now: Time) -> Further {
        let elsewhere = matches!(Remedy::of(error.kind()), Remedy::AnotherNode | Remedy::FreshMap);
        let is_harmless = self.is_read || error.outcome() == Outcome::NotApplied;
        let is_in_time = now.plus_micros(RELAY_PAUSE_MICROS) < self.deadline;
        if self.is_here_only || !elsewhere || !is_harmless || !is_in_time {
            return Further::No;
        }
        self.tries = self.tries.saturating_add(1);
        self.asked_own |= node == self.own;
        self.hint = error.leader().filter(|leader| *leader != node);
        if self.hint.is_some() && self.tries <= HINTS_AT_ONCE { Further::AtOnce } else { Further::AfterPause }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        error::ErrorKind,
        shard_map::ReplicaPlace,
        types::{Epoch, ReplicaId, ShardId},
    };

    const DEADLINE: Time = Time(1_000_000);

    fn row() -> ShardRow {
        let place = |node| ReplicaPlace { replica: ReplicaId(node), node: NodeId(node) };
        ShardRow { shard: ShardId(1), arc: None, epoch: Epoch(1), replicas: [2, 3, 4].map(place).to_vec() }
    }

    fn refused(kind: ErrorKind) -> Error {
        Error::not_applied(kind, "refused")
    }

    fn led_by(node: u64) -> Error {
        refused(ErrorKind::NotOwner).with(|detail| detail.leader = Some(NodeId(node)))
    }

    #[test]
    fn an_own_replica_is_asked_first_then_who_is_named_then_all_in_turn() {
        let mut relay = Relay::new(NodeId(3), DEADLINE, false, false);
        assert_eq!(relay.node(&row()), NodeId(3));
        assert_eq!(relay.failed(NodeId(3), &led_by(4), Time(1)), Further::AtOnce);
        assert_eq!(relay.node(&row()), NodeId(4));
        assert_eq!(relay.failed(NodeId(4), &refused(ErrorKind::NoQuorum), Time(1)), Further::AfterPause);
        let mut asked = Vec::new();
        for _ in 0..3 {
            let node = relay.node(&row());
            asked.push(node.0);
            relay.failed(node, &refused(ErrorKind::NotOwner), Time(1));
        }
        asked.sort_unstable();
        assert_eq!(asked, [2, 3, 4]);
        assert_eq!(Relay::new(NodeId(9), DEADLINE, true, false).node(&row()), NodeId(2), "no replica of its own");
    }

    #[test]
    fn who_led_last_is_asked_first_and_the_own_replica_if_it_does_not_answer() {
        let mut relay = Relay::new(NodeId(3), DEADLINE, false, false).toward(Some(NodeId(4)));
        assert_eq!(relay.node(&row()), NodeId(4));
        assert_eq!(relay.failed(NodeId(4), &refused(ErrorKind::NoQuorum), Time(1)), Further::AfterPause);
        assert_eq!(relay.node(&row()), NodeId(3), "it knows best who leads now");
        assert_eq!(relay.failed(NodeId(3), &led_by(2), Time(1)), Further::AtOnce);
        assert_eq!(relay.node(&row()), NodeId(2));
    }

    #[test]
    fn nodes_that_name_each_other_are_not_asked_in_a_tight_circle() {
        let mut relay = Relay::new(NodeId(2), DEADLINE, true, false);
        let further: Vec<_> =
            (0..5).map(|turn| relay.failed(NodeId(2 + turn % 2), &led_by(3 - turn % 2), Time(1))).collect();
        assert_eq!(further[..2], [Further::AtOnce; 2]);
        assert_eq!(further[2..], [Further::AfterPause; 3]);
        assert_eq!(
            relay.failed(NodeId(3), &led_by(3), Time(1)),
            Further::AfterPause,
            "a node that names itself is no hint"
        );
    }

    #[test]
    fn a_write_that_may_have_run_is_never_asked_of_a_second_node() {
        for kind in
            [ErrorKind::NotOwner, ErrorKind::NoQuorum, ErrorKind::Timeout, ErrorKind::Corrupt, ErrorKind::StaleEpoch]
        {
            let unknown = Error::unknown(kind, "lost");
            let further =
                |is_read, error| Relay::new(NodeId(2), DEADLINE, is_read, false).failed(NodeId(2), error, Time(1));
            assert_eq!(further(false, &unknown), Further::No, "{kind:?}");
            assert_eq!(further(true, &unknown), Further::AfterPause, "{kind:?}: a read does no harm");
            assert_eq!(further(false, &refused(kind)), Further::AfterPause, "{kind:?}");
        }
    }

    #[test]
    fn it_ends_where_nothing_is_won_and_in_time() {
        let mut relay = Relay::new(NodeId(2), DEADLINE, true, false);
        let last = Time(DEADLINE.0 - RELAY_PAUSE_MICROS);
        assert_eq!(relay.failed(NodeId(2), &refused(ErrorKind::NotOwner), last), Further::No);
        for kind in
            [ErrorKind::Overloaded, ErrorKind::DiskFull, ErrorKind::Conflict, ErrorKind::Invalid, ErrorKind::Internal]
        {
            assert_eq!(relay.failed(NodeId(2), &refused(kind), Time(1)), Further::No, "{kind:?}");
        }
        let mut here = Relay::new(NodeId(9), DEADLINE, true, true).toward(Some(NodeId(2)));
        assert_eq!(here.node(&row()), NodeId(9), "who asks one node has chosen");
        assert_eq!(here.failed(NodeId(9), &led_by(2), Time(1)), Further::No);
    }
}
