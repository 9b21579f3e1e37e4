//! What clients saw: every operation with its call, its answer and the moments of both.
//!
//! The judges of a run read nothing else about clients. A history can be printed as one line per operation and read back
//! (see [`text`]), so that a failing one is stored and judged again. Three rules make it sharp:
//!
//! - a [`Moment`] carries the number of the simulator's event, so that the order of all calls and answers is total;
//! - no two puts of a run write the same value, so that a read names the write that it saw;
//! - an answer says all that the client was told (revision, previous entry, token, age), since each word of it is a promise.
//!
//! *Caveat*: keys and values are held by [`Name`], which is the bytes themselves if they are short and their length and hash
//! if they are long. A stored history therefore cannot be replayed against a server, only judged.

pub mod edn;
pub mod index;
pub mod jepsen;
pub mod json;
pub mod recorder;
pub mod run;
pub mod text;

use std::{fmt, sync::Arc};

use kv_core::{
    command::Condition,
    error::{ErrorKind, Outcome},
    types::{Revision, Sequence, SessionId, ShardId, Token},
};
use xxhash_rust::xxh3::xxh3_128;

/// Why a text is no history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadError {
    /// The line, from 1; 0 for the whole.
    pub line: usize,
    /// What was expected there, and what was found.
    pub what: String,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.what),
            line => write!(f, "line {line}: {}", self.what),
        }
    }
}

impl std::error::Error for ReadError {}

/// A point in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment {
    /// The number of the simulator's event: strictly greater for whatever happens later.
    pub event: u64,
    /// Simulated time in microseconds since the run began; many events may share it.
    pub micros: u64,
}

/// A key or a value as a history holds it: text without blanks, equal iff the bytes are equal.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

/// Longest key or value, in bytes, that a [`Name`] spells out; of a longer one it holds the beginning, length and hash.
const NAME_BYTES_MAX: usize = 48;

/// One operation of one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Its number: its place in the history.
    pub id: u64,
    /// Who called. A client may have many operations open.
    pub client: u64,
    /// What it asked for.
    pub call: Call,
    /// When it asked.
    pub invoked: Moment,
    /// The session numbers under which it was sent, in order. More than one only if all but the last were proven not applied.
    pub stamps: Vec<Stamp>,
    /// The answer and when it came; `None` if none ever did.
    pub completed: Option<(Moment, Answer)>,
}

/// What a client asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Read a key.
    Get {
        /// The key.
        key: Name,
        /// How fresh the answer has to be.
        consistency: Consistency,
    },
    /// Change a key.
    Write {
        /// The key.
        key: Name,
        /// The value to put, unique in the history; `None` deletes.
        value: Option<Name>,
        /// What must hold for it.
        condition: Condition,
        /// Whether the previous entry was asked for.
        return_previous: bool,
        /// When it may be acknowledged.
        mode: Mode,
    },
    /// Ask whether an earlier write became durable.
    WaitDurable {
        /// The write's token.
        token: Token,
    },
}

/// How fresh a read has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// It sees every write that was acknowledged before it was called.
    Linearizable,
    /// It sees a state at most this old, in microseconds.
    Bounded(u64),
    /// It sees some state that was once current.
    Stale,
}

/// When a write may be acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// After a majority has synced it and the leader has applied it.
    Sync,
    /// As soon as it is in the leader's memory.
    Async,
}

/// A write's number in a session of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// The shard.
    pub shard: ShardId,
    /// The session.
    pub session: SessionId,
    /// The number.
    pub sequence: Sequence,
}

/// What a client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A read was done.
    Read {
        /// What the key held; `None` if it was absent.
        entry: Option<Seen>,
        /// The shard's revision at that state, if the answer says it.
        at: Option<Revision>,
        /// How old the state was at most when the answer was made, in microseconds of *simulated* time: whoever records a
        /// node's own clock converts it, rounding up. 0 for a linearizable read.
        age_micros: u64,
    },
    /// A write was decided and done, whether it was asked for as sync or async.
    Written {
        /// The revision that it got; 0 if it changed nothing (the delete of an absent key).
        revision: Revision,
        /// What the key held before.
        previous: Previous,
        /// Where it stands in the log.
        token: Option<Token>,
    },
    /// An asynchronous write was acknowledged before it was decided: it may yet be lost.
    Accepted {
        /// Where it stands in the log of the leader that acknowledged it.
        token: Token,
    },
    /// The answer to `wait_durable`.
    Durability(Durability),
    /// An error.
    Failed {
        /// What to do next.
        kind: ErrorKind,
        /// Whether it took effect.
        outcome: Outcome,
        /// With `Conflict`: the key's revision, 0 if it was absent.
        current: Option<Revision>,
    },
}

/// An entry as a client saw it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Seen {
    /// Its revision.
    pub revision: Revision,
    /// Its value.
    pub value: Name,
}

/// What the client was told of the entry before its write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Previous {
    /// Nothing: it was not asked for, or is no longer remembered.
    Untold,
    /// The key was absent.
    Absent,
    /// It held this.
    Entry(Seen),
}

/// What `wait_durable` said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The write is applied and survives like a synchronous one.
    Durable,
    /// It is not and never will be applied.
    Lost,
    /// Too old to tell.
    Unknown,
}

/// All operations of a run, in the order of their calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    operations: Vec<Operation>,
}

impl Name {
    /// The name of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        if bytes.len() <= NAME_BYTES_MAX {
            return Self(escaped(bytes).into());
        }
        let hash = xxh3_128(bytes);
        Self(format!("{}~{}~{hash:032x}", escaped(&bytes[..16]), bytes.len()).into())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Escapes what is not printable, blanks, `~` and `:`, so that a name never breaks a line apart. Empty bytes are `\0`, which
/// no other bytes give (a zero byte is `\x00`).
fn escaped(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "\\0".into();
    }
    let mut out = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b' ' | b'~' | b':' => out.push_str(&format!("\\x{byte:02x}")),
            _ => out.extend(byte.escape_ascii().map(char::from)),
        }
    }
    out
}

impl Name {
    /// A name that was printed, taken as it stands: escaping it again would make another one.
    pub(crate) fn printed(text: &str) -> Self {
        Self(text.into())
    }

    /// A name from a file that somebody else may have written: as it stands, unless it would break a line apart.
    pub(crate) fn foreign(text: &str) -> Self {
        let breaks = |letter: char| letter.is_whitespace() || letter.is_control();
        if text.is_empty() || text.contains(breaks) { Self::whole(text) } else { Self::printed(text) }
    }

    /// The name of a text that is kept whole, however long, because the judge of its workload reads what it says: a list, say.
    #[must_use]
    pub fn whole(text: &str) -> Self {
        Self(escaped(text.as_bytes()).into())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Self::of(text.as_bytes())
    }
}

impl Call {
    /// The key that is read or written.
    #[must_use]
    pub fn key(&self) -> Option<&Name> {
        match self {
            Self::Get { key, .. } | Self::Write { key, .. } => Some(key),
            Self::WaitDurable { .. } => None,
        }
    }
}

impl Operation {
    /// The answer, if one came.
    #[must_use]
    pub fn answer(&self) -> Option<&Answer> {
        self.completed.as_ref().map(|(_, answer)| answer)
    }

    /// Whether it is a write of which the client can't know whether it took, or will take, effect: it never returned, its error
    /// says so, or it was only accepted.
    #[must_use]
    pub fn is_open_write(&self) -> bool {
        let open = match self.answer() {
            None | Some(Answer::Accepted { .. } | Answer::Failed { outcome: Outcome::Unknown, .. }) => true,
            Some(_) => false,
        };
        open && matches!(self.call, Call::Write { .. })
    }
}

impl History {
    /// A history of these operations.
    #[must_use]
    pub fn from_operations(operations: Vec<Operation>) -> Self {
        Self { operations }
    }

    /// The same in the order of the calls, if its moments can be those of one run: judges go by them. For histories that others wrote.
    ///
    /// # Errors
    /// In words, which two moments can't be.
    pub fn in_order(mut self) -> Result<Self, String> {
        self.operations.sort_by_key(|operation| operation.invoked);
        let answered =
            self.operations.iter().filter_map(|operation| Some((operation.completed.as_ref()?.0, operation)));
        if let Some((at, operation)) = answered.clone().find(|(at, operation)| at.event <= operation.invoked.event) {
            return Err(format!("operation {} was called at {} and answered at {at}", operation.id, operation.invoked));
        }
        let answered = answered.map(|(at, _)| at);
        let mut moments: Vec<_> = self.operations.iter().map(|operation| operation.invoked).chain(answered).collect();
        moments.sort_unstable();
        let clash = moments.windows(2).find(|pair| pair[0].event == pair[1].event || pair[0].micros > pair[1].micros);
        match clash {
            None => Ok(self),
            Some(pair) if pair[0].event == pair[1].event => Err(format!("event {} is given twice", pair[0].event)),
            Some(pair) => Err(format!("time goes back from event@micros {} to {}", pair[0], pair[1])),
        }
    }

    /// Records a call and gives its number, for [`History::stamp`] and [`History::complete`].
    pub fn invoke(&mut self, client: u64, call: Call, at: Moment) -> u64 {
        let id = self.operations.len() as u64;
        self.operations.push(Operation { id, client, call, invoked: at, stamps: Vec::new(), completed: None });
        id
    }

    /// Records the session number under which a write is sent; repeated ones are recorded once.
    ///
    /// # Panics
    /// If no call has this number: the recorder is broken.
    pub fn stamp(&mut self, id: u64, stamp: Stamp) {
        let stamps = &mut self.operations[index(id)].stamps;
        if !stamps.contains(&stamp) {
            stamps.push(stamp);
        }
    }

    /// Records the answer to a call.
    ///
    /// # Panics
    /// If no call has this number, or it was answered already: the recorder is broken.
    pub fn complete(&mut self, id: u64, answer: Answer, at: Moment) {
        let operation = &mut self.operations[index(id)];
        assert!(operation.completed.is_none(), "operation {id} was answered twice");
        assert!(operation.invoked.event < at.event, "operation {id} was answered before its call");
        operation.completed = Some((at, answer));
    }

    /// All operations, in the order of their calls.
    #[must_use]
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }
}

fn index(id: u64) -> usize {
    usize::try_from(id).expect("an operation's number is an index into memory")
}
