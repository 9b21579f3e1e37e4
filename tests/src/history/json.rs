//! A run as a file of JSON lines: what `chaos` writes, and `check` reads from whoever writes it.
//!
//! One JSON object a line, told apart by its field `type`. The first line is `about`. An operation is two lines, `invoke` when it is
//! called and `ok`, `fail` or `unknown` when it has an answer; one that never had an answer has no second line. Lines stand in any
//! order but for `about` and this: a completion comes after its call. Fields that are not listed here are ignored; optional ones may
//! be left out.
//!
//! ```text
//! {"type":"about","format":1,"program":"chaos","version":"0.1.0","seed":7,"workload":"register","nodes":["n1","n2","n3"],"shards":12,
//!  "started":"2026-11-21T21:27:34Z","settings":{"durability":"sync","sessions":true,"clock_drift_ppm":0}}          (one line)
//! {"type":"invoke","id":0,"client":1,"event":1,"micros":0,"f":"put","key":"k1","value":"v0"}
//! {"type":"invoke","id":1,"client":2,"event":2,"micros":40,"f":"get","key":"k1"}
//! {"type":"ok","id":0,"event":3,"micros":900,"revision":6,"token":[4,2,33],"stamps":[[4,1,9]]}
//! {"type":"ok","id":1,"event":4,"micros":950,"found":{"revision":6,"value":"v0"},"at":6}
//! {"type":"fail","id":2,"event":9,"micros":1200,"kind":"Conflict","current":7}
//! {"type":"unknown","id":3,"event":12,"micros":5001200,"kind":"Timeout"}
//! {"type":"fault","from_micros":1000,"until_micros":2000,"name":"kill","nodes":[2],"detail":"kill -9"}
//! ```
//!
//! **`about`**: `format` (1); optional `program`, `version`, `seed`, `workload`, `nodes` (their names; events count them from 1),
//! `shards`, `started` (RFC 3339), and `settings`, each of them optional: `durability` of writes that don't say it (`sync` or `async`),
//! `sessions` (whether writes carried session numbers, so that none takes effect twice), `clock_drift_ppm` (by how many millionths a
//! node's clock may differ from the history's), `age_slack_micros` (what is added to each age that a node tells: its rounding),
//! `async_commands_max` (most async writes of a shard that may be acknowledged and undecided); others are shown as they are.
//!
//! **Every line of an operation**: `id` (its number, unlike any other's), `event` (a counter of the whole run: a call or answer that
//! came later has a greater one, no two have the same), `micros` (microseconds since the run began, by one clock for all clients).
//!
//! **`invoke`**: `client`, `f`, and
//! - `get`: `key`; optional `consistency`: `linearizable` (if left out), `stale`, or `bounded` with `age_micros_max`, microseconds;
//! - `put`: `key`, `value`; `delete`: `key`; both: optional `if_absent` (true) or `if_revision`, `previous` (true if the entry before was
//!   asked for), `mode` (`sync` or `async`);
//! - `wait_durable`: `token`.
//!
//! **`ok`**, by the call:
//! - `get`: `found` (`null`, or `revision` and `value`); optional `at` (the shard's revision at that state), `age_micros` (how old the
//!   state was at most, microseconds by the node's clock: 0 if left out; `null` if the node could not say);
//! - `put` and `delete`: `revision` (0 for the delete of an absent key); optional `previous` (`null`: absent; left out: not told), `token`;
//! - the same with `"accepted":true` and `token` in place of `revision`: acknowledged before it was decided, it may yet be lost;
//! - `wait_durable`: `durability`: `durable`, `lost`, or `unknown` (too old to tell).
//!
//! **`fail`**: it took no effect and never will. **`unknown`**: it may have, or may yet. Both: optional `kind` (a word of
//! [`kv_core::error::ErrorKind`]; `Internal` if left out), `current` (with `Conflict`: the key's revision, 0 if it was absent).
//!
//! **All completions**: optional `stamps`, the session numbers (shard, session, sequence) under which a write was sent. A **token** is
//! (shard, term, index) of a write's place in the log.
//!
//! **Events**: `fault` (`name`, `nodes`, optional `detail`), `leader` (`shard`, `node`, `term`), `final_reads` (`event`: from there on
//! every key that was written is read, and nothing is injected), `note` (`text`); all with `from_micros` and optional `until_micros`.
//!
//! **Keys and values** are texts that are equal only if the bytes are; nobody looks inside but for two workloads. **No two puts of a run
//! write the same value**, so that a read names the write that it saw. In the workload `append`, and at keys that begin with
//! `append/`, a value is a list, its elements joined by
//! `,`, and each put adds one element at the end; in `counter`, alike, it is `COUNT/UNIQUE`, and each put adds one to the count.
//!
//! Reading takes any bytes without a panic. Both directions take memory for one line and for what is still open.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    fmt,
    io::{self, BufRead, Write},
};

use kv_core::{
    command::Condition,
    error::{ErrorKind, Outcome},
    types::{LogIndex, Revision, Sequence, SessionId, ShardId, Term, Token},
};
use serde::{Deserialize, Deserializer, Serialize};

use super::{
    Answer, Call, Consistency, Durability, History, Mode, Moment, Name, Operation, Previous, Seen, Stamp,
    run::{About, FORMAT, Run, RunEvent, What},
    text::ERROR_KINDS,
};

/// Longest line, in bytes, that is read; a longer one is refused.
pub const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Why a file is no run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadError {
    /// The line, from 1.
    pub line: usize,
    /// What was expected there, and what was found.
    pub what: String,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl std::error::Error for ReadError {}

/// All lines but the first: what a line does not have is `None`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Line<'a> {
    #[serde(borrow, rename = "type")]
    kind_of_line: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    micros: Option<u64>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    f: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    key: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    value: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    consistency: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    age_micros_max: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    if_absent: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    if_revision: Option<u64>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    mode: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    found: Option<Option<Entry<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    age_micros: Option<Option<u64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<u64>,
    #[serde(borrow, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    previous: Option<Told<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<[u64; 3]>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    durability: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    kind: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stamps: Vec<[u64; 3]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_micros: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until_micros: Option<u64>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    name: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    nodes: Vec<u64>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    detail: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shard: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    term: Option<u64>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    text: Option<Cow<'a, str>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry<'a> {
    revision: u64,
    #[serde(borrow)]
    value: Cow<'a, str>,
}

/// `previous` asks in a call (true) and tells in a completion (an entry, or `null`).
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Told<'a> {
    Asked(bool),
    #[serde(borrow)]
    Was(Option<Entry<'a>>),
}

/// A field that is there, `null` included; one that is not there is the default, `None`.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Writes a run while it happens.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: W,
}

impl<W: Write> Writer<W> {
    /// A writer to `out`, which has the first line now. Give it something buffered.
    ///
    /// # Errors
    /// What writing gives.
    pub fn new(mut out: W, about: &About) -> io::Result<Self> {
        let mut first = serde_json::to_value(about)?;
        if let Some(fields) = first.as_object_mut() {
            fields.insert("type".into(), "about".into());
        }
        serde_json::to_writer(&mut out, &first)?;
        out.write_all(b"\n")?;
        Ok(Self { out })
    }

    /// Writes a call.
    ///
    /// # Errors
    /// What writing gives.
    pub fn invoke(&mut self, id: u64, client: u64, call: &Call, at: Moment) -> io::Result<()> {
        let mut line = Line { kind_of_line: "invoke".into(), client: Some(client), ..Line::at(id, at) };
        match call {
            Call::Get { key, consistency } => {
                (line.f, line.key) = (Some("get".into()), Some(key.as_str().into()));
                match consistency {
                    Consistency::Linearizable => {}
                    Consistency::Stale => line.consistency = Some("stale".into()),
                    Consistency::Bounded(micros) => {
                        (line.consistency, line.age_micros_max) = (Some("bounded".into()), Some(*micros));
                    }
                }
            }
            Call::Write { key, value, condition, return_previous, mode } => {
                line.f = Some(if value.is_some() { "put" } else { "delete" }.into());
                line.key = Some(key.as_str().into());
                line.value = value.as_ref().map(|value| value.as_str().into());
                match condition {
                    Condition::Always => {}
                    Condition::Absent => line.if_absent = Some(true),
                    Condition::RevisionIs(revision) => line.if_revision = Some(revision.0),
                }
                line.previous = return_previous.then_some(Told::Asked(true));
                line.mode = Some(if *mode == Mode::Sync { "sync" } else { "async" }.into());
            }
            Call::WaitDurable { token } => (line.f, line.token) = (Some("wait_durable".into()), Some(numbers(*token))),
        }
        self.line(&line)
    }

    /// Writes the answer to a call, with the session numbers under which it was sent if it is a write.
    ///
    /// # Errors
    /// What writing gives.
    pub fn complete(&mut self, id: u64, answer: &Answer, stamps: &[Stamp], at: Moment) -> io::Result<()> {
        let mut line = Line { kind_of_line: "ok".into(), ..Line::at(id, at) };
        line.stamps = stamps.iter().map(|stamp| [stamp.shard.0, stamp.session.0, stamp.sequence.0]).collect();
        match answer {
            Answer::Read { entry, at, age_micros } => {
                line.found = Some(entry.as_ref().map(entry_of));
                line.at = at.map(|at| at.0);
                line.age_micros = match age_micros {
                    0 => None,
                    &u64::MAX => Some(None),
                    &age => Some(Some(age)),
                };
            }
            Answer::Written { revision, previous, token } => {
                line.revision = Some(revision.0);
                line.previous = match previous {
                    Previous::Untold => None,
                    Previous::Absent => Some(Told::Was(None)),
                    Previous::Entry(seen) => Some(Told::Was(Some(entry_of(seen)))),
                };
                line.token = token.map(numbers);
            }
            Answer::Accepted { token } => (line.accepted, line.token) = (Some(true), Some(numbers(*token))),
            Answer::Durability(told) => {
                let word = match told {
                    Durability::Durable => "durable",
                    Durability::Lost => "lost",
                    Durability::Unknown => "unknown",
                };
                line.durability = Some(word.into());
            }
            Answer::Failed { kind, outcome, current } => {
                line.kind_of_line = if *outcome == Outcome::NotApplied { "fail" } else { "unknown" }.into();
                line.kind = Some(format!("{kind:?}").into());
                line.current = current.map(|current| current.0);
            }
        }
        self.line(&line)
    }

    /// Writes an event of the run.
    ///
    /// # Errors
    /// What writing gives.
    pub fn event(&mut self, event: &RunEvent) -> io::Result<()> {
        let mut line =
            Line { from_micros: Some(event.from_micros), until_micros: event.until_micros, ..Line::default() };
        match &event.what {
            What::Fault { name, nodes, detail } => {
                line.kind_of_line = "fault".into();
                (line.name, line.nodes) = (Some(name.into()), nodes.clone());
                line.detail = Some(detail).filter(|detail| !detail.is_empty()).map(Into::into);
            }
            What::Leader { shard, node, term } => {
                line.kind_of_line = "leader".into();
                (line.shard, line.node, line.term) = (Some(*shard), Some(*node), Some(*term));
            }
            What::FinalReads { event } => {
                (line.kind_of_line, line.event) = ("final_reads".into(), Some(*event));
            }
            What::Note(text) => (line.kind_of_line, line.text) = ("note".into(), Some(text.into())),
        }
        self.line(&line)
    }

    /// Brings what was written to where it goes.
    ///
    /// # Errors
    /// What flushing gives.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Gives back what it wrote to, flushed.
    ///
    /// # Errors
    /// What flushing gives.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }

    fn line(&mut self, line: &Line<'_>) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, line)?;
        self.out.write_all(b"\n")
    }
}

impl Line<'_> {
    fn at(id: u64, at: Moment) -> Self {
        Self { id: Some(id), event: Some(at.event), micros: Some(at.micros), ..Self::default() }
    }
}

fn entry_of(seen: &Seen) -> Entry<'_> {
    Entry { revision: seen.revision.0, value: seen.value.as_str().into() }
}

fn numbers(token: Token) -> [u64; 3] {
    [token.shard.0, token.term.0, token.index.0]
}

fn token_of([shard, term, index]: [u64; 3]) -> Token {
    Token { shard: ShardId(shard), term: Term(term), index: LogIndex(index) }
}

impl Run {
    /// Writes the whole run.
    ///
    /// # Errors
    /// What writing gives.
    pub fn write<W: Write>(&self, out: W) -> io::Result<W> {
        let mut writer = Writer::new(out, &self.about)?;
        for operation in self.history.operations() {
            writer.invoke(operation.id, operation.client, &operation.call, operation.invoked)?;
            if let Some((at, answer)) = &operation.completed {
                writer.complete(operation.id, answer, &operation.stamps, *at)?;
            }
        }
        self.events.iter().try_for_each(|event| writer.event(event))?;
        writer.finish()
    }

    /// Reads a run.
    ///
    /// # Errors
    /// The first line that is none of a run's, and why.
    pub fn read(mut input: impl BufRead) -> Result<Self, ReadError> {
        let mut reader = Reader::default();
        let mut bytes = Vec::new();
        for line in 1.. {
            let error = |what: String| ReadError { line, what };
            bytes.clear();
            let limit = LINE_BYTES_MAX as u64 + 1;
            let read = io::Read::take(&mut input, limit).read_until(b'\n', &mut bytes);
            if read.map_err(|fault| error(format!("can't be read: {fault}")))? == 0 {
                break;
            }
            if bytes.len() > LINE_BYTES_MAX {
                return Err(error(format!("longer than {LINE_BYTES_MAX} bytes")));
            }
            if !bytes.trim_ascii().is_empty() {
                reader.take(&bytes).map_err(error)?;
            }
        }
        reader.finish()
    }
}

/// A run as far as it is read.
#[derive(Debug, Default)]
struct Reader {
    about: Option<About>,
    operations: Vec<Operation>,
    /// Where the operation of each id stands.
    places: HashMap<u64, usize>,
    events: Vec<RunEvent>,
    /// Each name once: a run of a million operations has few keys, and reads repeat what puts wrote.
    names: HashSet<std::sync::Arc<str>>,
}

type Parsed<T> = Result<T, String>;

impl Reader {
    fn take(&mut self, bytes: &[u8]) -> Parsed<()> {
        if self.about.is_none() {
            self.about = Some(about(bytes)?);
            return Ok(());
        }
        let line: Line<'_> =
            serde_json::from_slice(bytes).map_err(|fault| format!("expected a line of a run: {fault}"))?;
        match &*line.kind_of_line {
            "invoke" => self.invoke(&line),
            "ok" | "fail" | "unknown" => self.complete(&line),
            _ => {
                self.events.push(event(&line)?);
                Ok(())
            }
        }
    }

    fn invoke(&mut self, line: &Line<'_>) -> Parsed<()> {
        let id = needed(line.id, "id")?;
        let call = self.call(line)?;
        let client = needed(line.client, "client")?;
        let operation = Operation { id, client, call, invoked: moment(line)?, stamps: Vec::new(), completed: None };
        if self.places.insert(id, self.operations.len()).is_some() {
            return Err(format!("expected an operation with an `id` of its own: {id} was called before"));
        }
        self.operations.push(operation);
        Ok(())
    }

    fn call(&mut self, line: &Line<'_>) -> Parsed<Call> {
        let f = needed(line.f.as_deref(), "f")?;
        if f == "wait_durable" {
            return Ok(Call::WaitDurable { token: token_of(needed(line.token, "token")?) });
        }
        let key = self.name(needed(line.key.as_deref(), "key")?);
        let value = match f {
            "get" => {
                let consistency = match line.consistency.as_deref() {
                    None | Some("linearizable") => Consistency::Linearizable,
                    Some("stale") => Consistency::Stale,
                    Some("bounded") => Consistency::Bounded(needed(line.age_micros_max, "age_micros_max")?),
                    Some(other) => return Err(format!("expected linearizable, bounded or stale, found {other:?}")),
                };
                return Ok(Call::Get { key, consistency });
            }
            "put" => Some(self.name(needed(line.value.as_deref(), "value")?)),
            "delete" => None,
            other => return Err(format!("expected `f` to be get, put, delete or wait_durable, found {other:?}")),
        };
        let condition = match (line.if_absent, line.if_revision) {
            (Some(true), None) => Condition::Absent,
            (Some(true), Some(_)) => return Err("expected `if_absent` or `if_revision`, found both".into()),
            (_, Some(revision)) => Condition::RevisionIs(Revision(revision)),
            (_, None) => Condition::Always,
        };
        let return_previous = match line.previous {
            None => false,
            Some(Told::Asked(asked)) => asked,
            Some(Told::Was(_)) => return Err("expected `previous` of a call to be true or false".into()),
        };
        let mode = match line.mode.as_deref() {
            None => self.about.as_ref().map_or(Mode::Sync, |about| about.settings.durability.into()),
            Some("sync") => Mode::Sync,
            Some("async") => Mode::Async,
            Some(other) => return Err(format!("expected sync or async, found {other:?}")),
        };
        Ok(Call::Write { key, value, condition, return_previous, mode })
    }

    fn complete(&mut self, line: &Line<'_>) -> Parsed<()> {
        let id = needed(line.id, "id")?;
        let at = moment(line)?;
        let place = *self.places.get(&id).ok_or_else(|| format!("expected the completion of a call, found id {id}"))?;
        let answer = match &*line.kind_of_line {
            "ok" => self.answer(place, line)?,
            word => {
                let outcome = if word == "fail" { Outcome::NotApplied } else { Outcome::Unknown };
                let kind = line.kind.as_deref().map_or(Ok(ErrorKind::Internal), error_kind)?;
                Answer::Failed { kind, outcome, current: line.current.map(Revision) }
            }
        };
        let operation = &mut self.operations[place];
        if operation.completed.is_some() {
            return Err(format!("expected one completion for each call: operation {id} has two"));
        }
        if at.event <= operation.invoked.event || at.micros < operation.invoked.micros {
            return Err(format!(
                "expected the answer after the call: operation {id} was called at {}",
                operation.invoked
            ));
        }
        let stamp = |[shard, session, sequence]: &[u64; 3]| Stamp {
            shard: ShardId(*shard),
            session: SessionId(*session),
            sequence: Sequence(*sequence),
        };
        operation.stamps = line.stamps.iter().map(stamp).collect();
        operation.completed = Some((at, answer));
        Ok(())
    }

    fn answer(&mut self, place: usize, line: &Line<'_>) -> Parsed<Answer> {
        match &self.operations[place].call {
            Call::Get { .. } => {
                let entry = needed(line.found.as_ref(), "found")?.as_ref().map(|entry| self.seen(entry));
                let age_micros = line.age_micros.map_or(0, |age| age.unwrap_or(u64::MAX));
                Ok(Answer::Read { entry, at: line.at.map(Revision), age_micros })
            }
            Call::Write { .. } if line.accepted == Some(true) => {
                Ok(Answer::Accepted { token: token_of(needed(line.token, "token")?) })
            }
            Call::Write { .. } => {
                let previous = match &line.previous {
                    None => Previous::Untold,
                    Some(Told::Was(None)) => Previous::Absent,
                    Some(Told::Was(Some(entry))) => Previous::Entry(self.seen(entry)),
                    Some(Told::Asked(_)) => {
                        return Err("expected `previous` of a completion to be an entry or null".into());
                    }
                };
                let revision = Revision(needed(line.revision, "revision")?);
                Ok(Answer::Written { revision, previous, token: line.token.map(token_of) })
            }
            Call::WaitDurable { .. } => {
                Ok(Answer::Durability(match needed(line.durability.as_deref(), "durability")? {
                    "durable" => Durability::Durable,
                    "lost" => Durability::Lost,
                    "unknown" => Durability::Unknown,
                    other => return Err(format!("expected durable, lost or unknown, found {other:?}")),
                }))
            }
        }
    }

    fn seen(&mut self, entry: &Entry<'_>) -> Seen {
        Seen { revision: Revision(entry.revision), value: self.name(&entry.value) }
    }

    /// A name, the same one for the same text.
    fn name(&mut self, text: &str) -> Name {
        if let Some(known) = self.names.get(text) {
            return Name(known.clone());
        }
        let name = Name::foreign(text);
        if name.as_str() == text {
            self.names.insert(name.0.clone());
        }
        name
    }

    fn finish(mut self) -> Result<Run, ReadError> {
        let Some(about) = self.about else {
            return Err(ReadError { line: 1, what: "expected an `about` line, found nothing".into() });
        };
        // Other programs may write calls in another order than they made them.
        self.operations.sort_by_key(|operation| operation.invoked);
        Ok(Run { about, history: History::from_operations(self.operations), events: self.events })
    }
}

fn about(bytes: &[u8]) -> Parsed<About> {
    let expected = |fault| format!("expected an `about` line: {fault}");
    let mut line: serde_json::Value = serde_json::from_slice(bytes).map_err(|fault| expected(fault.to_string()))?;
    let kind = line.as_object_mut().and_then(|fields| fields.remove("type"));
    if kind.as_ref().and_then(serde_json::Value::as_str) != Some("about") {
        return Err(expected("its `type` is another".into()));
    }
    let about: About = serde_json::from_value(line).map_err(|fault| expected(fault.to_string()))?;
    if about.format != FORMAT {
        return Err(format!("expected format {FORMAT}, found {}", about.format));
    }
    Ok(about)
}

fn event(line: &Line<'_>) -> Parsed<RunEvent> {
    let words = |text: &Option<Cow<'_, str>>| text.as_deref().unwrap_or_default().to_owned();
    let what = match &*line.kind_of_line {
        "fault" => What::Fault {
            name: needed(line.name.as_deref(), "name")?.to_owned(),
            nodes: line.nodes.clone(),
            detail: words(&line.detail),
        },
        "leader" => What::Leader {
            shard: needed(line.shard, "shard")?,
            node: needed(line.node, "node")?,
            term: needed(line.term, "term")?,
        },
        "final_reads" => What::FinalReads { event: needed(line.event, "event")? },
        "note" => What::Note(words(&line.text)),
        other => {
            return Err(format!(
                "expected `type` to be invoke, ok, fail, unknown, fault, leader, final_reads or note, found {other:?}"
            ));
        }
    };
    Ok(RunEvent { from_micros: needed(line.from_micros, "from_micros")?, until_micros: line.until_micros, what })
}

fn moment(line: &Line<'_>) -> Parsed<Moment> {
    Ok(Moment { event: needed(line.event, "event")?, micros: needed(line.micros, "micros")? })
}

fn needed<T>(field: Option<T>, name: &str) -> Parsed<T> {
    field.ok_or_else(|| format!("expected a field `{name}`"))
}

fn error_kind(word: &str) -> Parsed<ErrorKind> {
    let known = ERROR_KINDS.iter().find(|kind| format!("{kind:?}") == word);
    known.copied().ok_or_else(|| format!("expected an error kind such as Timeout, found {word:?}"))
}

#[cfg(test)]
mod tests;
