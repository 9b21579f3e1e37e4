//! The state against a plain model, and two replicas against each other.
//!
//! A [`Replica`] here is a state with a read index and the log that it has applied, so that it can be frozen, brought into
//! its tree and loaded again at any moment, and must not be told from one that never was.

mod golden;
mod model;
mod replicas;
mod session_bounds;

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use bytes::Bytes;
use proptest::prelude::*;

use super::{
    codec::session_of_key,
    digest::RecordSum,
    record::{SPACE_NODES, Table},
    *,
};
use crate::{
    command::{Action, Command, CommandOutcome, Condition, SessionStamp, Write},
    types::{Digest, Position, ReplicaId, Revision, Sequence, Value},
};

const REPLICA: ReplicaId = ReplicaId(1);

/// A read index that never fails.
#[derive(Clone, Default)]
struct Store(Rc<RefCell<BTreeMap<Bytes, Bytes>>>);

impl StateStore for Store {
    fn get(&self, _: ReplicaId, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.0.borrow().get(key).cloned())
    }

    fn range(&self, _: ReplicaId, from: &[u8], count_max: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let records = self.0.borrow();
        let from = Bytes::copy_from_slice(from);
        Ok(records.range(from..).take(count_max).map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn write(&self, _: ReplicaId, changes: &[crate::disk::Change<'_>]) -> Result<(), StoreError> {
        let mut records = self.0.borrow_mut();
        for (key, value) in changes {
            match value {
                Some(value) => records.insert(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)),
                None => records.remove(&key[..]),
            };
        }
        Ok(())
    }

    fn reset(&self, _: ReplicaId) -> Result<(), StoreError> {
        self.0.borrow_mut().clear();
        Ok(())
    }

    fn remove(&self, tree: ReplicaId) -> Result<(), StoreError> {
        self.reset(tree)
    }
}

struct Replica {
    state: ShardState,
    store: Store,
    frozen: Option<(FrozenTable, StateHeader)>,
    inserted: StateHeader,
    log: Vec<(Term, Vec<Command>)>,
    outcomes: Vec<Vec<CommandOutcome>>,
    bounds: Sessions,
}

/// So many sessions and bytes of them.
fn bounds(sessions_max: usize, bytes_max: usize) -> SessionBounds {
    SessionBounds { sessions_max, bytes_max, ..SessionBounds::default() }
}

impl Replica {
    fn new(arc: Option<Arc>) -> Self {
        Self::with_bounds(arc, Sessions::default())
    }

    fn with_bounds(arc: Option<Arc>, bounds: Sessions) -> Self {
        let header = StateHeader {
            index: LogIndex(1),
            term: Term(1),
            arc,
            epoch: Epoch(1),
            terms: vec![(Term(1), LogIndex(1))],
            configurations: vec![(LogIndex(1), Configuration::default())],
            ..StateHeader::default()
        };
        Self {
            state: ShardState::restore(header.clone(), Vec::new(), Vec::new(), bounds.clone()).unwrap(),
            store: Store::default(),
            frozen: None,
            inserted: header,
            log: Vec::new(),
            outcomes: Vec::new(),
            bounds,
        }
    }

    fn apply(&mut self, term: Term, commands: &[Command]) -> Vec<CommandOutcome> {
        self.log.push((term, commands.to_vec()));
        let outcomes = self.apply_only(term, commands);
        self.outcomes.push(outcomes.clone());
        outcomes
    }

    fn apply_only(&mut self, term: Term, commands: &[Command]) -> Vec<CommandOutcome> {
        let mut outcomes = Vec::new();
        let index = self.state.applied().0.next();
        self.state.apply(&Tree::new(&self.store, REPLICA), index, term, commands, &mut outcomes).unwrap();
        assert_eq!(outcomes.len(), commands.len());
        outcomes
    }

    fn get(&self, key: &Key) -> Option<Entry> {
        self.state.get(&Tree::new(&self.store, REPLICA), key).unwrap()
    }

    fn freeze(&mut self) {
        if !self.state.has_frozen() {
            self.frozen = Some(self.state.freeze());
        }
    }

    fn insert(&mut self) {
        if let Some((table, header)) = self.frozen.take() {
            self.store.write(REPLICA, &table.sorted().collect::<Vec<_>>()).unwrap();
            self.state.drop_frozen(header.index);
            self.inserted = header;
        }
    }

    /// As after a crash: the state of the last checkpoint, then the log above it once more.
    fn reload(&mut self) {
        let records = self.store.0.borrow().clone();
        let sessions = records.iter().filter_map(|(key, value)| Some((session_of_key(key)?, value.clone()))).collect();
        let nodes = records.into_iter().filter(|(key, _)| key[0] == SPACE_NODES).collect();
        let inserted = self.inserted.clone();
        self.state = ShardState::restore(inserted, sessions, nodes, self.bounds.clone()).unwrap();
        self.frozen = None;
        let above = usize::try_from(self.inserted.index.0 - 1).unwrap();
        for (position, (term, commands)) in self.log.clone().into_iter().enumerate().skip(above) {
            let outcomes = self.apply_only(term, &commands);
            assert_eq!(outcomes, self.outcomes[position], "a replay must find what was found first");
        }
    }

    fn digest(&self) -> Digest {
        let mut records = self.store.0.borrow().clone();
        let mut state = self.state.clone();
        let mut changes = Table::default();
        for (key, record) in state.sessions.take_changes() {
            changes.set(&key, record.as_deref());
        }
        let frozen = self.frozen.as_ref().map(|(table, _)| &**table);
        for table in frozen.into_iter().chain([&self.state.tables.active, &changes]) {
            for (key, value) in table.sorted() {
                match value {
                    Some(value) => records.insert(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)),
                    None => records.remove(key),
                };
            }
        }
        let mut sum = RecordSum::default();
        for (key, value) in &records {
            sum.add(key, value);
        }
        sum.digest(&state.header)
    }
}

fn key(number: u8) -> Key {
    Key::new(vec![b'a' + number]).unwrap()
}

fn value(bytes: &[u8]) -> Value {
    Value::new(bytes.to_vec()).unwrap()
}

fn put(key_number: u8, bytes: &[u8]) -> Write {
    Write {
        key: key(key_number),
        action: Action::Put(value(bytes)),
        condition: Condition::Always,
        return_previous: false,
        session: None,
    }
}

fn stamp(session: u64, sequence: u64, floor: u64) -> Option<SessionStamp> {
    Some(SessionStamp { session: SessionId(session), sequence: Sequence(sequence), floor: Sequence(floor) })
}

const WHOLE: Arc = Arc { first: Position(0), last: Position(u64::MAX) };
const HALF: Arc = Arc { first: Position(0), last: Position(u64::MAX / 2) };

/// What a test does with a replica.
#[derive(Clone, Debug)]
enum Step {
    Entry(u64, Vec<Command>),
    Freeze,
    Insert,
    Reload,
}

/// Few keys, sessions and sequences, so that everything meets everything.
fn write() -> impl Strategy<Value = Command> {
    let action = prop_oneof![
        3 => prop::collection::vec(any::<u8>(), 0..8).prop_map(|bytes| Action::Put(value(&bytes))),
        1 => Just(Action::Delete),
    ];
    let condition = prop_oneof![
        3 => Just(Condition::Always),
        1 => Just(Condition::Absent),
        1 => (0_u64..12).prop_map(|revision| Condition::RevisionIs(Revision(revision))),
    ];
    let session = prop_oneof![
        1 => Just(None),
        3 => (1_u64..5, 1_u64..9, 0_u64..4).prop_map(|(session, sequence, open)| {
            stamp(session, sequence, sequence.saturating_sub(open))
        }),
    ];
    (0_u8..8, action, condition, any::<bool>(), session).prop_map(
        |(key_number, action, condition, return_previous, session)| {
            Command::Write(Write { key: key(key_number), action, condition, return_previous, session })
        },
    )
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let command = prop_oneof![8 => write(), 1 => Just(Command::OpenSession)];
    let step = prop_oneof![
        8 => (0_u64..2, prop::collection::vec(command, 0..6)).prop_map(|(terms, commands)| Step::Entry(terms, commands)),
        2 => Just(Step::Freeze),
        2 => Just(Step::Insert),
        1 => Just(Step::Reload),
    ];
    prop::collection::vec(step, 0..60)
}
