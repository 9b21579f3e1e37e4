//! The state answers as a plain map with remembered answers would, whatever is frozen, inserted and loaded in between.

use super::*;
use crate::command::Previous;

/// The simplest thing that could be right.
#[derive(Default)]
struct Model {
    entries: BTreeMap<Key, Entry>,
    revision: u64,
    sessions: BTreeMap<u64, (u64, BTreeMap<u64, CommandOutcome>)>,
    terms: Vec<Term>,
}

impl Model {
    fn apply(&mut self, command: &Command) -> CommandOutcome {
        let write = match command {
            Command::OpenSession => {
                let id = self.sessions.len() as u64 + 1;
                self.sessions.insert(id, (0, BTreeMap::new()));
                return CommandOutcome::SessionOpened(SessionId(id));
            }
            Command::DescribeNode(_) => return CommandOutcome::Misplaced,
            Command::Mark => return CommandOutcome::Marked,
            Command::Write(write) => write,
        };
        if let Some(stamp) = write.session {
            let Some((floor, outcomes)) = self.sessions.get_mut(&stamp.session.0) else {
                return CommandOutcome::SessionExpired;
            };
            let remembered = outcomes.get(&stamp.sequence.0).cloned();
            *floor = stamp.floor.0.max(*floor);
            outcomes.retain(|sequence, _| sequence >= floor);
            if let Some(remembered) = remembered {
                return remembered;
            }
            if stamp.sequence.0 < *floor {
                return CommandOutcome::Finished;
            }
        }
        if !HALF.contains(ring::position(write.key.as_bytes())) {
            return CommandOutcome::NotInArc;
        }
        let outcome = self.run(write);
        if let Some(stamp) = write.session {
            self.sessions.get_mut(&stamp.session.0).unwrap().1.insert(stamp.sequence.0, outcome.clone());
        }
        outcome
    }

    fn run(&mut self, write: &Write) -> CommandOutcome {
        let old = self.entries.get(&write.key).cloned();
        let current = old.as_ref().map_or(Revision(0), |entry| entry.revision);
        match write.condition {
            Condition::Absent if old.is_some() => return CommandOutcome::Conflict { current },
            Condition::RevisionIs(revision) if revision != current => return CommandOutcome::Conflict { current },
            _ => {}
        }
        let mut revision = Revision(0);
        if matches!(write.action, Action::Put(_)) || old.is_some() {
            self.revision += 1;
            revision = Revision(self.revision);
        }
        match &write.action {
            Action::Put(value) => {
                self.entries.insert(write.key.clone(), Entry { revision, value: value.clone() });
            }
            Action::Delete => {
                self.entries.remove(&write.key);
            }
        }
        let previous = match old {
            _ if !write.return_previous => Previous::NotAsked,
            None => Previous::Absent,
            Some(entry) => Previous::Entry(entry),
        };
        CommandOutcome::Written { revision, previous }
    }

    fn durability(&self, token: Token) -> TokenState {
        let position = usize::try_from(token.index.0 - 2).unwrap();
        match self.terms.get(position) {
            Some(term) if *term == token.term => TokenState::Durable,
            Some(_) => TokenState::Lost,
            None if self.terms.last().is_some_and(|last| *last > token.term) => TokenState::Lost,
            None => TokenState::Undecided,
        }
    }
}

proptest! {
    #[test]
    fn the_state_answers_as_the_model(steps in steps()) {
        let mut model = Model::default();
        let mut replica = Replica::new(Some(HALF));
        let mut term = Term(1);
        for step in steps {
            match step {
                Step::Entry(terms, commands) => {
                    term = Term(term.0 + terms);
                    model.terms.push(term);
                    let expected: Vec<_> = commands.iter().map(|command| model.apply(command)).collect();
                    prop_assert_eq!(replica.apply(term, &commands), expected);
                }
                Step::Freeze => replica.freeze(),
                Step::Insert => replica.insert(),
                Step::Reload => replica.reload(),
            }
            prop_assert_eq!(replica.state.revision(), Revision(model.revision));
            for number in 0..8 {
                prop_assert_eq!(replica.get(&key(number)), model.entries.get(&key(number)).cloned());
            }
        }
        for index in 2..model.terms.len() as u64 + 4 {
            for asked in 1..=term.0 + 1 {
                let token = Token { shard: crate::types::ShardId(1), term: Term(asked), index: LogIndex(index) };
                prop_assert_eq!(replica.state.durability(token), model.durability(token));
            }
        }
    }
}
