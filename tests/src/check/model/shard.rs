//! One shard of the model: entries, nodes and counters, and the outcome and digest at each index.

use std::collections::BTreeMap;

use bytes::Bytes;
use kv_core::{
    command::{Action, Command, CommandOutcome, Condition, Previous, Write},
    founding::configuration,
    ring,
    shard_map::{NodeDescription, ShardRow},
    state::{
        codec::{encode_entry, entry_key, node_key},
        digest::RecordSum,
        record::{StateHeader, TERMS_MAX},
        sessions::SessionBounds,
    },
    types::{Digest, Entry, Key, LogIndex, NodeId, Revision, Term},
};

use super::sessions::{Answered, Sessions};

/// The index at which a founded shard stands.
const FOUNDED: LogIndex = LogIndex(1);

/// One shard as it must be.
#[derive(Debug)]
pub(super) struct Shard {
    header: StateHeader,
    entries: BTreeMap<Key, Entry>,
    sessions: Sessions,
    nodes: BTreeMap<NodeId, NodeDescription>,
    sum: RecordSum,
    /// What came of each entry of the log from the one after [`FOUNDED`] on.
    outcomes: Vec<Vec<CommandOutcome>>,
    /// The digest at each index from [`FOUNDED`] on.
    digests: Vec<Digest>,
}

impl Shard {
    /// As a founding makes it.
    pub(super) fn founded(row: &ShardRow, bounds: SessionBounds) -> Self {
        let header = StateHeader {
            index: FOUNDED,
            term: Term(1),
            arc: row.arc,
            epoch: row.epoch,
            terms: vec![(Term(1), FOUNDED)],
            configurations: vec![(FOUNDED, configuration(row))],
            ..StateHeader::default()
        };
        let sum = RecordSum::default();
        let digests = vec![sum.digest(&header)];
        Self {
            header,
            entries: BTreeMap::new(),
            sessions: Sessions::new(bounds),
            nodes: BTreeMap::new(),
            sum,
            outcomes: Vec::new(),
            digests,
        }
    }

    pub(super) fn index(&self) -> LogIndex {
        self.header.index
    }

    pub(super) fn digest_at(&self, index: LogIndex) -> Option<Digest> {
        let place = index.0.checked_sub(FOUNDED.0)?;
        self.digests.get(usize::try_from(place).ok()?).copied()
    }

    pub(super) fn digests(&self) -> impl Iterator<Item = (LogIndex, Digest)> {
        (FOUNDED.0..).map(LogIndex).zip(self.digests.iter().copied())
    }

    pub(super) fn outcomes_at(&self, index: LogIndex) -> Option<&[CommandOutcome]> {
        let place = index.0.checked_sub(FOUNDED.0 + 1)?;
        self.outcomes.get(usize::try_from(place).ok()?).map(Vec::as_slice)
    }

    /// What it holds, in a few words.
    pub(super) fn summary(&self) -> String {
        let (entries, sessions, revision) = (self.entries.len(), self.sessions.count(), self.header.revision);
        format!("{entries} entries, {sessions} sessions, revision {revision} at {}", self.header.index)
    }

    /// Applies the next entry of the log.
    pub(super) fn apply(&mut self, index: LogIndex, term: Term, commands: &[Command]) -> Result<(), String> {
        if index != self.header.index.next() || term < self.header.term {
            let (last, last_term) = (self.header.index, self.header.term);
            return Err(format!("{index} of term {term} is decided after {last} of term {last_term}"));
        }
        (self.header.index, self.header.term) = (index, term);
        if self.header.terms.last().is_none_or(|(last, _)| *last < term) {
            self.header.terms.push((term, index));
            let surplus = self.header.terms.len().saturating_sub(TERMS_MAX);
            self.header.terms.drain(..surplus);
        }
        let outcomes =
            (0..).zip(commands).map(|(position, command)| self.command((index, position), command)).collect();
        self.outcomes.push(outcomes);
        self.sessions.count_changes(&mut self.sum);
        self.digests.push(self.sum.digest(&self.header));
        Ok(())
    }

    fn command(&mut self, at: (LogIndex, u32), command: &Command) -> CommandOutcome {
        match command {
            Command::Mark => CommandOutcome::Marked,
            // The meta shard takes no writes and no sessions, all others no nodes.
            Command::Write(_) | Command::OpenSession if self.header.arc.is_none() => CommandOutcome::Misplaced,
            Command::DescribeNode(_) if self.header.arc.is_some() => CommandOutcome::Misplaced,
            Command::Write(write) => self.write(at, write),
            Command::OpenSession => {
                self.header.last_session = self.header.last_session.next();
                self.sessions.open(self.header.last_session, at);
                CommandOutcome::SessionOpened(self.header.last_session)
            }
            Command::DescribeNode(node) => self.describe(node),
        }
    }

    fn write(&mut self, at: (LogIndex, u32), write: &Write) -> CommandOutcome {
        if let Some(stamp) = write.session
            && let Answered::Already(outcome) = self.sessions.ask(stamp, at)
        {
            return outcome;
        }
        let arc = self.header.arc.expect("the meta shard's writes are misplaced");
        if !arc.contains(ring::position(write.key.as_bytes())) {
            return CommandOutcome::NotInArc;
        }
        let outcome = self.run(write);
        if let Some(stamp) = write.session {
            self.sessions.remember(stamp, &outcome);
        }
        outcome
    }

    fn run(&mut self, write: &Write) -> CommandOutcome {
        let old = self.entries.get(&write.key).cloned();
        let current = old.as_ref().map_or(Revision(0), |entry| entry.revision);
        let holds = match write.condition {
            Condition::Always => true,
            Condition::Absent => old.is_none(),
            Condition::RevisionIs(revision) => revision == current,
        };
        if !holds {
            return CommandOutcome::Conflict { current };
        }
        let revision = match &write.action {
            Action::Delete if old.is_none() => Revision(0),
            Action::Delete => {
                self.hold(&write.key, None);
                self.header.revision = self.header.revision.next();
                self.header.revision
            }
            Action::Put(value) => {
                self.header.revision = self.header.revision.next();
                let revision = self.header.revision;
                self.hold(&write.key, Some(Entry { revision, value: value.clone() }));
                revision
            }
        };
        let previous = match old {
            _ if !write.return_previous => Previous::NotAsked,
            Some(entry) => Previous::Entry(entry),
            None => Previous::Absent,
        };
        CommandOutcome::Written { revision, previous }
    }

    /// A key holds this from now on.
    fn hold(&mut self, key: &Key, entry: Option<Entry>) {
        let record = |entry: &Entry| -> Bytes { encode_entry(entry.revision, &entry.value) };
        let record_key = entry_key(key);
        if let Some(entry) = &entry {
            self.sum.add(&record_key, &record(entry));
        }
        let old = match entry {
            Some(entry) => self.entries.insert(key.clone(), entry),
            None => self.entries.remove(key),
        };
        if let Some(old) = old {
            self.sum.subtract(&record_key, &record(&old));
        }
    }

    fn describe(&mut self, node: &NodeDescription) -> CommandOutcome {
        let record = |node: &NodeDescription| {
            let mut out = Vec::new();
            node.encode(&mut out);
            out
        };
        if self.nodes.get(&node.node) != Some(node) {
            self.header.revision = self.header.revision.next();
            self.sum.add(&node_key(node.node), &record(node));
            if let Some(old) = self.nodes.insert(node.node, node.clone()) {
                self.sum.subtract(&node_key(old.node), &record(&old));
            }
        }
        CommandOutcome::NodeDescribed
    }
}
