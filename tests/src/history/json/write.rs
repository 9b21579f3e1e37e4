//! Writes a run, line by line, as it happens or when it is over.

use std::io::{self, Write};

use kv_core::{command::Condition, error::Outcome, types::Token};

use super::{Entry, Line, Told};
use crate::history::{
    Answer, Call, Consistency, Durability, Mode, Moment, Previous, Seen, Stamp,
    run::{About, Run, RunEvent, What},
};

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
