//! The store behind all nodes of the fake cluster: entries, sessions, planned faults, and what was seen.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use kv_proto::v1::{self, op::Operation, result::Result as Answer};

/// What becomes of the next write, instead of being answered.
#[derive(Clone, Debug)]
pub enum Plan {
    /// It is refused with this.
    Refuse(v1::ErrorDetail),
    /// It is applied, and the stream breaks before the answer.
    ApplyThenBreak,
    /// The stream breaks before it is applied.
    Break,
    /// It is never answered.
    Silence,
    /// Before it is looked at, all sessions are forgotten.
    ExpireSessions,
}

/// An operation that reached a node.
#[derive(Clone, Debug)]
pub struct Seen {
    pub node: u64,
    pub op: v1::Op,
}

impl Seen {
    /// Session, sequence and floor of a write.
    pub fn stamp(&self) -> Option<(u64, u64, u64)> {
        let session = match &self.op.operation {
            Some(Operation::Put(put)) => put.session,
            Some(Operation::Delete(delete)) => delete.session,
            _ => None,
        };
        session.map(|stamp| (stamp.session, stamp.sequence, stamp.floor))
    }
}

/// What a node does with an operation.
pub enum Verdict {
    Answer(Answer),
    Silence,
    Break,
}

pub struct Store {
    pub id: u8,
    pub map: v1::ShardMap,
    /// Who leads each shard, if it is not node 1.
    pub leaders: BTreeMap<u64, u64>,
    pub plans: VecDeque<Plan>,
    /// All operations in the order in which they came.
    pub seen: Vec<Seen>,
    /// The number of operations in each message.
    pub messages: Vec<usize>,
    entries: BTreeMap<Bytes, (u64, Bytes)>,
    revision: u64,
    sessions: BTreeMap<u64, BTreeMap<u64, Answer>>,
    sessions_opened: u64,
}

impl Store {
    pub fn new(id: u8) -> Self {
        Self {
            id,
            map: v1::ShardMap::default(),
            leaders: BTreeMap::new(),
            plans: VecDeque::new(),
            seen: Vec::new(),
            messages: Vec::new(),
            entries: BTreeMap::new(),
            revision: 0,
            sessions: BTreeMap::new(),
            sessions_opened: 0,
        }
    }

    pub fn cluster(&self) -> Bytes {
        vec![self.id; 16].into()
    }

    /// Stamps of all writes seen.
    pub fn stamps(&self) -> Vec<(u64, u64, u64)> {
        self.seen.iter().filter_map(Seen::stamp).collect()
    }

    /// With which durability each put was sent.
    pub fn durabilities(&self) -> Vec<v1::Durability> {
        let puts = self.seen.iter().filter_map(|seen| match &seen.op.operation {
            Some(Operation::Put(put)) => Some(put.durability()),
            _ => None,
        });
        puts.collect()
    }

    /// How often the store was changed.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// A node got an operation.
    pub fn take(&mut self, node: u64, op: v1::Op) -> Verdict {
        self.seen.push(Seen { node, op: op.clone() });
        let leader = *self.leaders.get(&op.shard).unwrap_or(&1);
        if leader != node {
            let mut detail = refusal(v1::ErrorKind::NotOwner, "another node leads");
            detail.leader = leader;
            return Verdict::Answer(Answer::Error(detail));
        }
        let is_write = matches!(op.operation, Some(Operation::Put(_) | Operation::Delete(_)));
        match if is_write { self.plans.pop_front() } else { None } {
            None => Verdict::Answer(self.apply(op)),
            Some(Plan::Refuse(detail)) => Verdict::Answer(Answer::Error(detail)),
            Some(Plan::ApplyThenBreak) => {
                self.apply(op);
                Verdict::Break
            }
            Some(Plan::Break) => Verdict::Break,
            Some(Plan::Silence) => Verdict::Silence,
            Some(Plan::ExpireSessions) => {
                self.sessions.clear();
                Verdict::Answer(self.apply(op))
            }
        }
    }

    fn apply(&mut self, op: v1::Op) -> Answer {
        match op.operation.expect("an operation") {
            Operation::Get(get) => {
                Answer::Get(v1::GetResponse { entry: self.entry(&get.key), revision: self.revision, age_ms: Some(0) })
            }
            Operation::OpenSession(_) => {
                self.sessions_opened += 1;
                self.sessions.insert(self.sessions_opened, BTreeMap::new());
                Answer::OpenSession(v1::OpenSessionResponse { session: self.sessions_opened })
            }
            Operation::Put(put) => {
                let is_async = put.durability() == v1::Durability::Async;
                let decided = self.once(put.session, |store| store.put(put));
                if is_async { accepted() } else { decided }
            }
            Operation::Delete(delete) => self.once(delete.session, |store| {
                let revision = store.entries.remove(&delete.key).map_or(0, |_| store.next_revision());
                Answer::Write(v1::WriteResponse { revision: Some(revision), ..Default::default() })
            }),
            Operation::WaitDurable(_) => {
                Answer::WaitDurable(v1::WaitDurableResponse { fate: v1::Fate::Durable.into() })
            }
        }
    }

    fn once(&mut self, stamp: Option<v1::SessionStamp>, run: impl FnOnce(&mut Self) -> Answer) -> Answer {
        let stamp = stamp.expect("this client stamps every write");
        let Some(session) = self.sessions.get_mut(&stamp.session) else {
            return Answer::Error(refusal(v1::ErrorKind::SessionExpired, "no such session"));
        };
        assert!(stamp.floor <= stamp.sequence && stamp.sequence - stamp.floor < 1_024, "{stamp:?}");
        session.retain(|sequence, _| *sequence >= stamp.floor);
        if let Some(remembered) = session.get(&stamp.sequence) {
            return remembered.clone();
        }
        let answer = run(self);
        self.sessions.get_mut(&stamp.session).expect("looked up above").insert(stamp.sequence, answer.clone());
        answer
    }

    fn put(&mut self, put: v1::PutRequest) -> Answer {
        use v1::put_request::Condition;
        let current = self.entries.get(&put.key).map_or(0, |(revision, _)| *revision);
        let holds = match put.condition {
            Some(Condition::IfAbsent(true)) => current == 0,
            Some(Condition::IfRevision(revision)) => current == revision,
            _ => true,
        };
        if !holds {
            let mut detail = refusal(v1::ErrorKind::Conflict, "the condition did not hold");
            detail.current = Some(current);
            return Answer::Error(detail);
        }
        let revision = self.next_revision();
        self.entries.insert(put.key, (revision, put.value));
        Answer::Write(v1::WriteResponse { revision: Some(revision), ..Default::default() })
    }

    fn next_revision(&mut self) -> u64 {
        self.revision += 1;
        self.revision
    }

    fn entry(&self, key: &Bytes) -> Option<v1::Entry> {
        self.entries.get(key).map(|(revision, value)| v1::Entry { revision: *revision, value: value.clone() })
    }
}

/// The answer to an async write that is not decided yet.
fn accepted() -> Answer {
    Answer::Write(v1::WriteResponse {
        token: Some(v1::Token { shard: 1, term: 2, index: 3 }),
        durability: v1::Durability::Async.into(),
        ..Default::default()
    })
}

/// A refusal that did nothing.
pub fn refusal(kind: v1::ErrorKind, message: &str) -> v1::ErrorDetail {
    v1::ErrorDetail {
        kind: kind.into(),
        outcome: v1::Outcome::NotApplied.into(),
        message: message.into(),
        ..Default::default()
    }
}
