//! Applying entries: the one place where a shard's state changes.

use crate::{
    command::{Action, Command, CommandOutcome, Condition, Previous, Write},
    disk::{StateStore, StoreError},
    shard_map::NodeDescription,
    state::{
        ShardState,
        codec::{decode_entry, entry_key, entry_parts, node_key},
        sessions::{LastApplied, Remembered},
        tables::Tree,
    },
    types::{Entry, LogIndex, Revision, Term},
};

impl ShardState {
    /// Applies one entry, the one after [`ShardState::applied`], and appends an outcome for each of its commands. An entry
    /// without commands is a leader's first. Old records are read through `tree`.
    ///
    /// # Errors
    /// If the read index fails. The entry is then half applied: the state must be dropped and loaded again.
    ///
    /// # Panics
    /// If the entry is not the next one, or its term is lower than the last.
    pub fn apply<S: StateStore>(
        &mut self,
        tree: &Tree<'_, S>,
        index: LogIndex,
        term: Term,
        commands: &[Command],
        outcomes: &mut Vec<CommandOutcome>,
    ) -> Result<(), StoreError> {
        self.advance(index, term);
        for (position, command) in commands.iter().enumerate() {
            let at = (index, u32::try_from(position).expect("an entry has at most 1 MiB or one command"));
            let outcome = match command {
                Command::Write(write) => self.write(tree, at, write)?,
                Command::OpenSession => self.open_session(at),
                Command::DescribeNode(node) => self.describe_node(node),
                Command::Mark => CommandOutcome::Marked,
            };
            outcomes.push(outcome);
        }
        Ok(())
    }

    /// The session's table is asked before the arc: an answer from it is final, whoever owns the key by now.
    fn write<S: StateStore>(
        &mut self,
        tree: &Tree<'_, S>,
        at: LastApplied,
        write: &Write,
    ) -> Result<CommandOutcome, StoreError> {
        if self.header.arc.is_none() {
            return Ok(CommandOutcome::Misplaced);
        }
        if let Some(answer) = write.session.and_then(|stamp| self.sessions.answer(stamp, at)) {
            return Ok(answer);
        }
        // Not remembered: it was not run, and may be sent again under its number if the key comes (back) here.
        if !self.owns(&write.key) {
            return Ok(CommandOutcome::NotInArc);
        }
        let done = self.run(tree, write)?;
        if let Some(stamp) = write.session {
            self.sessions.remember(stamp, done.clone());
        }
        Ok(done.into())
    }

    fn run<S: StateStore>(&mut self, tree: &Tree<'_, S>, write: &Write) -> Result<Remembered, StoreError> {
        let key = entry_key(&write.key);
        let is_blind = write.condition == Condition::Always && !write.return_previous && write.action != Action::Delete;
        // What is not needed is not looked up: the old record may have to come from the disk.
        let old = if is_blind { None } else { self.tables.get(tree, &key)? };
        let old = old.map(decode_entry).transpose().map_err(|error| StoreError(error.to_string()))?;
        let current = old.as_ref().map_or(Revision(0), |entry| entry.revision);
        let holds = match write.condition {
            Condition::Always => true,
            Condition::Absent => old.is_none(),
            Condition::RevisionIs(revision) => current == revision,
        };
        if !holds {
            return Ok(Remembered::Conflict { current });
        }
        let revision = match &write.action {
            Action::Put(value) => {
                let revision = self.next_revision();
                let (head, rest) = entry_parts(revision, value);
                self.tables.active.set_joined(&key, Some([&head, rest]));
                revision
            }
            Action::Delete if old.is_none() => Revision(0),
            Action::Delete => {
                self.tables.active.set(&key, None);
                self.next_revision()
            }
        };
        Ok(Remembered::Written { revision, previous: previous(write.return_previous, old) })
    }

    fn open_session(&mut self, at: LastApplied) -> CommandOutcome {
        // No write runs in the meta shard, so a session there could only be in the way.
        if self.header.arc.is_none() {
            return CommandOutcome::Misplaced;
        }
        self.header.last_session = self.header.last_session.next();
        self.sessions.open(self.header.last_session, at);
        CommandOutcome::SessionOpened(self.header.last_session)
    }

    fn describe_node(&mut self, node: &NodeDescription) -> CommandOutcome {
        if self.header.arc.is_some() {
            return CommandOutcome::Misplaced;
        }
        if self.nodes.get(&node.node) != Some(node) {
            self.next_revision();
            let mut record = Vec::with_capacity(64 + node.text_bytes());
            node.encode(&mut record);
            self.tables.active.set(&node_key(node.node), Some(&record));
            self.nodes.insert(node.node, node.clone());
        }
        CommandOutcome::NodeDescribed
    }

    fn next_revision(&mut self) -> Revision {
        self.header.revision = self.header.revision.next();
        self.header.revision
    }
}

fn previous(is_asked: bool, old: Option<Entry>) -> Previous {
    match old {
        _ if !is_asked => Previous::NotAsked,
        Some(entry) => Previous::Entry(entry),
        None => Previous::Absent,
    }
}
