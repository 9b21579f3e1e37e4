//! Reads a run, and says of the first line that is none what was expected there.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    io::{self, BufRead},
};

use kv_core::{
    command::Condition,
    error::{ErrorKind, Outcome},
    types::{LogIndex, Revision, Sequence, SessionId, ShardId, Term, Token},
};

use super::{Entry, LINE_BYTES_MAX, Line, Told};
use crate::history::{
    Answer, Call, Consistency, Durability, History, Mode, Moment, Name, Operation, Previous, ReadError, Seen, Stamp,
    run::{About, FORMAT, Run, RunEvent, What},
    text::ERROR_KINDS,
};

impl Run {
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

    fn finish(self) -> Result<Run, ReadError> {
        let Some(about) = self.about else {
            return Err(ReadError { line: 1, what: "expected an `about` line, found nothing".into() });
        };
        // Other programs may write calls in another order than they made them.
        let history = History::from_operations(self.operations).in_order();
        let history = history.map_err(|what| ReadError { line: 0, what })?;
        Ok(Run { about, history, events: self.events })
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

fn token_of([shard, term, index]: [u64; 3]) -> Token {
    Token { shard: ShardId(shard), term: Term(term), index: LogIndex(index) }
}
