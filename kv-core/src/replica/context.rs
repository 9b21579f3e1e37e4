//! What a replica reaches for during a turn: the time, the settings, and where effects go.

use crate::{
    disk::StateStore,
    error::Error,
    io::{Answer, Notice, Output},
    message::PeerMessage,
    node::{AppliedEntry, batcher::Batcher, rounds::LeadershipRounds},
    settings::Settings,
    shard_map::CheckedMap,
    types::{NodeId, RequestId, Time},
};

/// A number that this node never uses twice, over all its starts: the start's own number and a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Unique {
    run: u64,
    count: u64,
}

impl Unique {
    pub(crate) fn new(run: u64) -> Self {
        Self { run, count: 0 }
    }

    /// The next number. Starts have random numbers of 64 bits, so that what two starts count from them does not meet.
    pub(crate) fn next_number(&mut self) -> u64 {
        self.count += 1;
        self.run.wrapping_add(self.count)
    }
}

/// The surroundings of one turn.
pub(crate) struct Context<'a, S> {
    pub(crate) now: Time,
    pub(crate) node: NodeId,
    pub(crate) settings: &'a Settings,
    pub(crate) store: &'a S,
    pub(crate) map: &'a CheckedMap,
    pub(crate) unique: &'a mut Unique,
    pub(crate) batcher: &'a mut Batcher,
    pub(crate) rounds: &'a mut LeadershipRounds,
    pub(crate) outputs: &'a mut Vec<Output>,
    /// What is applied, if anybody watches.
    pub(crate) watched: &'a mut Option<Vec<AppliedEntry>>,
    /// The node refuses client writes: little disk is left.
    pub(crate) disk_full: bool,
    /// It refuses them because its log is at its bound.
    pub(crate) log_full: bool,
    /// It refuses them because it keeps as many entries as it may, until marks are confirmed. Others keep as many: to hand over
    /// would not help.
    pub(crate) kept_full: bool,
    /// The node is about to stop, or its log is stalled: it gives leaderships away.
    pub(crate) leaving: bool,
    /// Bytes of the sessions of all shards, as of the start of the turn.
    pub(crate) sessions_bytes: usize,
    /// Bytes of the tables of all shards, as of the start of the turn.
    pub(crate) tables_bytes: usize,
    /// Bytes of entries that this turn may still apply.
    pub(crate) apply_bytes_left: &'a mut usize,
    /// Bytes of values that this turn may still read for its answers.
    pub(crate) answer_bytes_left: &'a mut usize,
}

impl<S: StateStore> Context<'_, S> {
    pub(crate) fn send(&mut self, to: NodeId, message: PeerMessage) {
        self.outputs.push(Output::Send { to, message });
    }

    pub(crate) fn reply(&mut self, request: RequestId, result: Result<Answer, Error>) {
        self.outputs.push(Output::Reply { request, result });
    }

    pub(crate) fn notice(&mut self, notice: Notice) {
        self.outputs.push(Output::Notice(notice));
    }
}
