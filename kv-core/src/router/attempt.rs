//! One operation on its way: what to do first, and what to do after each failure.
//!
//! * It ends before its deadline: a send is only decided before it, a wait only if it ends before it.
//! * The outcome is kept over all sendings: `NotApplied` only if every one of them was. The one exception is an answer from
//!   the session's table (`Conflict` to a write in a session): it is the answer to the first run, whichever sending got it.
//! * A write without a session is sent again only while nothing can have come of the sendings before. Everything else may
//!   always be sent again.
//! * A token names one sending and says nothing of those before it. So an async write of which an earlier sending may have been
//!   taken is sent again as sync ([`Attempt::must_be_sync`]): under its stamp that answer is the decided one.
//! * A write whose session has expired goes on under a new one if nothing can have come of it ([`Decision::Renew`]);
//!   otherwise it ends with an unknown outcome: a second run under another session would be one.
//! * Hints are followed, but in one round each node is asked once and at most [`SENDS_PER_ROUND_MAX`] sendings are made.
//!   After a round comes a wait, which doubles from [`WAIT_MICROS_MIN`] to [`WAIT_MICROS_MAX`], half of it at random.

use crate::{
    error::{Error, ErrorKind, Outcome},
    router::{Destination, Remedy, Router, jittered},
    types::{Epoch, NodeId, ShardId, Time},
};

/// Most sendings of one operation before it waits.
pub const SENDS_PER_ROUND_MAX: u32 = 8;
/// Wait after the first round, in microseconds, before jitter.
pub const WAIT_MICROS_MIN: u64 = 5_000;
/// Longest wait after a round, in microseconds, unless a node asks for more.
pub const WAIT_MICROS_MAX: u64 = 200_000;
/// What is held back for a node's sake waits for this long at least, in microseconds.
const HELD_BACK_MICROS: u64 = 50_000;
/// How long the first sending may go without an answer, in microseconds, if the operation may be sent again. It doubles
/// with each that went without.
pub const ANSWER_MICROS_MIN: u64 = 1_000_000;

/// What an operation is, as far as sending it again goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OperationKind {
    /// A read at the leader.
    Read,
    /// A read at any replica.
    ReadAnywhere,
    /// A write without a session: sent twice it runs twice.
    Write,
    /// A write in a session, or the opening of one: sent twice it does no harm.
    SessionWrite,
}

/// What came of the last decision.
#[derive(Clone, Copy, Debug)]
pub enum Last<'a> {
    /// There was none, or it was to wait. After a sending it counts as [`Last::NoAnswer`].
    Nothing,
    /// The node answered with an error.
    Refused(&'a Error),
    /// The node could not be reached: nothing was sent.
    NodeDown,
    /// The connection broke after the operation was sent, or may have been.
    ConnectionLost,
    /// No answer came in the time that the decision gave.
    NoAnswer,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Send the operation.
    Send {
        /// To this node.
        node: NodeId,
        /// For this shard.
        shard: ShardId,
        /// With this epoch.
        epoch: Epoch,
        /// If nothing comes back for so long, ask for the next decision. Never past the deadline.
        answer_micros_max: u64,
    },
    /// Ask for the next decision after this time, or when a map has been taken.
    Wait {
        /// In microseconds, at least 1.
        micros: u64,
    },
    /// The session has expired, and nothing can have come of the write: give it a place in another session, then ask for the
    /// next decision with [`Last::Nothing`].
    Renew,
    /// The operation has failed. The error's outcome is that of the operation, not of its last sending.
    GiveUp(Error),
}

/// One operation on its way.
#[derive(Clone, Debug)]
pub struct Attempt {
    kind: OperationKind,
    destination: Destination,
    deadline: Time,
    /// Whether some sending may have taken effect.
    unknown: bool,
    sent: Option<Sent>,
    /// Nodes that need not be asked again in this round. At most one entry for a sending.
    tried: Vec<NodeId>,
    sends_in_round: u32,
    rounds: u32,
    unanswered: u32,
    /// The last failure, for the error at the deadline.
    problem: Option<Error>,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    node: NodeId,
    shard: ShardId,
    at: Time,
}

/// What follows from a failure.
enum Step {
    Again,
    Renew,
    Wait { micros_min: u64 },
    GiveUp(Error),
}

impl Attempt {
    /// An operation that has not been sent yet.
    #[must_use]
    pub fn new(kind: OperationKind, destination: Destination, deadline: Time) -> Self {
        Self {
            kind,
            destination,
            deadline,
            unknown: false,
            sent: None,
            tried: Vec::new(),
            sends_in_round: 0,
            rounds: 0,
            unanswered: 0,
            problem: None,
        }
    }

    /// What to do, given what came of the last decision. `random` is 64 random bits, used to spread load and waits.
    #[must_use]
    pub fn next(&mut self, router: &mut Router, last: Last<'_>, now: Time, random: u64) -> Decision {
        let step = match (last, self.sent.take()) {
            (_, None) => Step::Again,
            (Last::Refused(error), Some(sent)) => self.refused(router, sent, error, now),
            // A caller that says nothing of a sending does not know what came of it.
            (failure, Some(sent)) => self.failed(router, sent, failure, now, random),
        };
        match step {
            Step::GiveUp(error) => Decision::GiveUp(error),
            _ if now >= self.deadline => Decision::GiveUp(self.deadline_error()),
            Step::Wait { micros_min } => self.wait(micros_min, now, random),
            Step::Renew => {
                self.tried.clear();
                Decision::Renew
            }
            Step::Again => self.send(router, now, random),
        }
    }

    /// The node to which it was sent last has answered, and not with an error.
    pub fn succeeded(&mut self, router: &mut Router, now: Time) {
        if let Some(sent) = self.sent.take() {
            router.node_answered(sent.node, now);
            router.node_took(sent.node, false, now);
            if self.kind != OperationKind::ReadAnywhere {
                router.take_leader(sent.shard, sent.node);
            }
        }
    }

    /// Whether an earlier sending of this write may have taken effect; the one under way, if there is one, is left out.
    #[must_use]
    pub fn is_uncertain(&self) -> bool {
        self.unknown
    }

    /// Whether a write is to be sent as sync now, even if its caller asked for async.
    #[must_use]
    pub fn must_be_sync(&self) -> bool {
        self.unknown && !crate::mutant!("A3")
    }

    fn refused(&mut self, router: &mut Router, sent: Sent, error: &Error, now: Time) -> Step {
        router.node_answered(sent.node, now);
        router.node_took(sent.node, error.kind() == ErrorKind::Overloaded, now);
        if error.kind() == ErrorKind::Conflict {
            return Step::GiveUp(error.clone());
        }
        self.note(error.outcome());
        self.problem = Some(error.clone());
        let may_retry = self.may_send_again();
        let moved = error.row().is_some_and(|row| router.take_row(row));
        if let Some(leader) = error.leader().filter(|leader| *leader != sent.node) {
            router.take_leader(sent.shard, leader);
        }
        if !may_retry {
            return Step::GiveUp(self.with_operations_outcome(error.clone()));
        }
        match Remedy::of(error.kind()) {
            Remedy::AnotherNode => {
                self.pass_over(router, sent);
                Step::Again
            }
            Remedy::FreshMap if moved => Step::Again,
            Remedy::FreshMap => {
                router.map_wanted = true;
                Step::Wait { micros_min: 0 }
            }
            Remedy::Time => {
                // A leader without room gives its leadership away.
                if error.kind() == ErrorKind::DiskFull {
                    router.forget_leader(sent.shard, sent.node);
                }
                Step::Wait { micros_min: micros(error) }
            }
            Remedy::NewSession
                if self.kind == OperationKind::SessionWrite && (!self.unknown || crate::mutant!("A4")) =>
            {
                point!(SessionRenewed);
                Step::Renew
            }
            Remedy::NewSession | Remedy::Nothing => Step::GiveUp(self.with_operations_outcome(error.clone())),
        }
    }

    fn failed(&mut self, router: &mut Router, sent: Sent, failure: Last<'_>, now: Time, random: u64) -> Step {
        let node = sent.node;
        let (outcome, message) = match failure {
            Last::NodeDown => (Outcome::NotApplied, format!("node {node} can't be reached")),
            Last::ConnectionLost => {
                (Outcome::Unknown, format!("the connection to node {node} broke before the answer"))
            }
            _ => (Outcome::Unknown, format!("node {node} did not answer in time")),
        };
        let silent = !matches!(failure, Last::NodeDown | Last::ConnectionLost);
        self.note(outcome);
        let problem = Error::unknown(ErrorKind::Timeout, message);
        self.unanswered = self.unanswered.saturating_add(u32::from(silent));
        if silent && router.answered_since(node, sent.at) {
            // A node that answers others is up: this one operation is slow. It looks elsewhere, but if there is another leader,
            // others learn of it soon enough; if there is none, they would all ask in vain while this one is busy.
            self.tried.push(node);
        } else {
            router.node_failed(node, now, random);
            self.pass_over(router, sent);
        }
        point!(UncertainWriteSentAgain if self.unknown && self.may_send_again());
        if !self.may_send_again() {
            point!(UncertainWriteGivenUp);
            return Step::GiveUp(self.with_operations_outcome(problem));
        }
        self.problem = Some(problem);
        Step::Again
    }

    fn send(&mut self, router: &mut Router, now: Time, random: u64) -> Decision {
        let Some(row) = router.row(self.destination) else {
            router.map_wanted = true;
            return self.wait(0, now, random);
        };
        let (shard, epoch, count) = (row.shard, row.epoch, row.replicas.len());
        let (leader, start) = match self.kind {
            OperationKind::ReadAnywhere => (None, random as usize % count),
            _ => (router.leader(shard), 0),
        };
        let replicas = row.replicas.iter().map(|place| place.node).cycle().skip(start).take(count);
        let untried = leader.into_iter().chain(replicas).filter(|node| !self.tried.contains(node));
        let pauses = untried.map(|node| (router.pause_micros(node, now), node));
        let chosen = pauses.clone().find(|(pause, _)| *pause == 0).map(|(_, node)| node);
        let Some(node) = chosen.filter(|_| self.sends_in_round < SENDS_PER_ROUND_MAX) else {
            // If all that is left is nodes that failed, there is no point in asking before the first of them is due.
            let due = pauses.map(|(pause, _)| pause).min().unwrap_or(0);
            let micros_min = if self.tried.is_empty() { due } else { 0 };
            return self.wait(micros_min, now, random);
        };
        if router.holds_back(node, now, random) {
            let what = format!("node {node} is overloaded, and is asked less for a while");
            self.problem = Some(Error::overloaded(what, 0));
            return self.wait(HELD_BACK_MICROS, now, random);
        }
        router.begin_trial(node, now);
        self.sends_in_round += 1;
        self.sent = Some(Sent { node, shard, at: now });
        let remaining = self.deadline.micros_since(now);
        let answer_micros_max = match self.kind {
            OperationKind::Write => remaining,
            _ => remaining.min(ANSWER_MICROS_MIN << self.unanswered.min(10)),
        };
        Decision::Send { node, shard, epoch, answer_micros_max }
    }

    /// Ends the round.
    fn wait(&mut self, micros_min: u64, now: Time, random: u64) -> Decision {
        let micros = (WAIT_MICROS_MIN << self.rounds.min(10)).min(WAIT_MICROS_MAX);
        // What a node asks for is stretched, not shortened, so that those who were refused together don't return together.
        let micros = jittered(micros, random).max(micros_min.saturating_add(random % (micros_min / 4 + 1)));
        if micros >= self.deadline.micros_since(now) {
            return Decision::GiveUp(self.deadline_error());
        }
        self.tried.clear();
        self.sends_in_round = 0;
        self.rounds = self.rounds.saturating_add(1);
        Decision::Wait { micros }
    }

    fn pass_over(&mut self, router: &mut Router, sent: Sent) {
        router.forget_leader(sent.shard, sent.node);
        self.tried.push(sent.node);
    }

    fn note(&mut self, outcome: Outcome) {
        let is_write = matches!(self.kind, OperationKind::Write | OperationKind::SessionWrite);
        self.unknown |= is_write && outcome == Outcome::Unknown;
    }

    fn may_send_again(&self) -> bool {
        !(self.unknown && self.kind == OperationKind::Write)
    }

    fn with_operations_outcome(&self, error: Error) -> Error {
        error.with_outcome(if self.unknown { Outcome::Unknown } else { Outcome::NotApplied })
    }

    fn deadline_error(&self) -> Error {
        let error = match &self.problem {
            // These tell the caller more than that time ran out.
            Some(error) if matches!(error.kind(), ErrorKind::Overloaded | ErrorKind::DiskFull | ErrorKind::Corrupt) => {
                error.clone()
            }
            Some(error) => {
                Error::unknown(ErrorKind::Timeout, format!("no success before the deadline; last: {}", error.message()))
            }
            None => Error::unknown(ErrorKind::Timeout, "no node could be asked before the deadline"),
        };
        self.with_operations_outcome(error)
    }
}

fn micros(error: &Error) -> u64 {
    error.retry_after_ms().unwrap_or(0).saturating_mul(1_000)
}

#[cfg(test)]
mod tests;
