//! The bytes of a shard's state: records of entries and of sessions, and the header that stands beside them.
//!
//! Every value has exactly one encoding, since digests are taken over it. A session's numbers have fixed widths, so that its
//! size (which decides evictions, hence must be the same everywhere) is a sum and not a measurement.

use bytes::Bytes;
use smallvec::SmallVec;

use crate::{
    codec::{CodecError, Reader, put_u8, put_u32, put_u64, put_u128, put_varint},
    command::Previous,
    configuration::Configuration,
    sequences::SequenceMap,
    shard_map,
    state::{
        record::{Footer, RecordKey, SPACE_ENTRIES, SPACE_NODES, SPACE_SESSIONS, StateHeader, TERMS_MAX},
        sessions::{Remembered, Session},
    },
    types::{Digest, Entry, Epoch, Key, LogIndex, NodeId, Position, Revision, Sequence, SessionId, Term, Value},
};

const HEADER_FORMAT: u8 = 1;

/// A session without outcomes: its key (9 bytes), then index, position, floor and the count of outcomes.
pub(super) const SESSION_BYTES: usize = 9 + 8 + 4 + 8 + 4;
/// An outcome without an entry: sequence, tag, revision.
pub(super) const OUTCOME_BYTES: usize = 8 + 1 + 8;
/// What a remembered entry adds to that beside its value: its revision and the value's length.
pub(super) const OUTCOME_ENTRY_BYTES: usize = 8 + 4;

const TAG_NOT_ASKED: u8 = 1;
const TAG_ABSENT: u8 = 2;
const TAG_ENTRY: u8 = 3;
const TAG_UNAVAILABLE: u8 = 4;
const TAG_CONFLICT: u8 = 5;

/// The record's key of a user's key.
#[must_use]
pub fn entry_key(key: &Key) -> RecordKey {
    let mut out = RecordKey::with_capacity(1 + key.as_bytes().len());
    out.push(SPACE_ENTRIES);
    out.extend_from_slice(key.as_bytes());
    out
}

/// The record's key of a session.
#[must_use]
pub fn session_key(session: SessionId) -> RecordKey {
    numbered_key(SPACE_SESSIONS, session.0)
}

/// The record's key of a node's description.
#[must_use]
pub fn node_key(node: NodeId) -> RecordKey {
    numbered_key(SPACE_NODES, node.0)
}

/// The session that a record's key names, if it names one.
#[must_use]
pub fn session_of_key(key: &[u8]) -> Option<SessionId> {
    let (space, number) = key.split_first()?;
    let number = <[u8; 8]>::try_from(number).ok()?;
    (*space == SPACE_SESSIONS).then(|| SessionId(u64::from_be_bytes(number)))
}

fn numbered_key(space: u8, number: u64) -> RecordKey {
    let mut out = RecordKey::new();
    out.push(space);
    out.extend_from_slice(&number.to_be_bytes());
    out
}

/// Encodes what a key holds.
#[must_use]
pub fn encode_entry(revision: Revision, value: &Value) -> Bytes {
    let (head, value) = entry_parts(revision, value);
    [&head[..], value].concat().into()
}

/// The same in two parts, of which the second is the value.
pub(super) fn entry_parts(revision: Revision, value: &Value) -> (SmallVec<[u8; 10]>, &[u8]) {
    let mut head = SmallVec::new();
    put_varint(&mut head, revision.0);
    (head, value.as_bytes())
}

/// Decodes what [`encode_entry`] wrote; the value is a slice of it.
///
/// # Errors
/// If the bytes are damaged.
pub fn decode_entry(bytes: Bytes) -> Result<Entry, CodecError> {
    let mut reader = Reader::new(bytes);
    let revision = Revision(reader.varint()?);
    let value = Value::new(reader.rest()).map_err(|_| CodecError("a value within bounds"))?;
    Ok(Entry { revision, value })
}

pub(super) fn encode_session(session: &Session) -> Bytes {
    let mut out = Vec::with_capacity(session.bytes());
    let (index, position) = session.last_applied();
    put_u64(&mut out, index.0);
    put_u32(&mut out, position);
    put_u64(&mut out, session.floor().0);
    put_u32(&mut out, u32::try_from(session.open()).expect("at most 1,024 are open"));
    for (sequence, outcome) in session.outcomes() {
        put_u64(&mut out, sequence.0);
        encode_outcome(outcome, &mut out);
    }
    debug_assert_eq!(out.len() + 9, session.bytes());
    out.into()
}

fn encode_outcome(outcome: &Remembered, out: &mut Vec<u8>) {
    let (tag, revision) = match outcome {
        Remembered::Conflict { current } => (TAG_CONFLICT, current),
        Remembered::Written { revision, previous } => match previous {
            Previous::NotAsked => (TAG_NOT_ASKED, revision),
            Previous::Absent => (TAG_ABSENT, revision),
            Previous::Entry(_) => (TAG_ENTRY, revision),
            Previous::Unavailable => (TAG_UNAVAILABLE, revision),
        },
    };
    put_u8(out, tag);
    put_u64(out, revision.0);
    if let Remembered::Written { previous: Previous::Entry(entry), .. } = outcome {
        let value = entry.value.as_bytes();
        put_u64(out, entry.revision.0);
        put_u32(out, u32::try_from(value.len()).expect("a remembered value has at most 4 KiB"));
        out.extend_from_slice(value);
    }
}

pub(super) fn decode_session(bytes: Bytes) -> Result<Session, CodecError> {
    let mut reader = Reader::new(bytes);
    let last_applied = (LogIndex(reader.u64()?), reader.u32()?);
    let floor = Sequence(reader.u64()?);
    let count = reader.u32()?;
    let mut outcomes = SequenceMap::default();
    for _ in 0..count {
        let sequence = Sequence(reader.u64()?);
        if sequence < floor || outcomes.last().is_some_and(|last| sequence <= last) {
            return Err(CodecError("sequences that rise from the floor"));
        }
        outcomes.insert(sequence, decode_outcome(&mut reader)?);
    }
    reader.finish()?;
    Ok(Session::restore(last_applied, floor, outcomes))
}

fn decode_outcome(reader: &mut Reader) -> Result<Remembered, CodecError> {
    let tag = reader.u8()?;
    let revision = Revision(reader.u64()?);
    let previous = match tag {
        TAG_NOT_ASKED => Previous::NotAsked,
        TAG_ABSENT => Previous::Absent,
        TAG_ENTRY => {
            let revision = Revision(reader.u64()?);
            let length = reader.u32()? as usize;
            // A copy, so that a small value does not keep a whole session's bytes alive.
            let value = Bytes::copy_from_slice(&reader.take(length)?);
            let value = Value::new(value).map_err(|_| CodecError("a value within bounds"))?;
            Previous::Entry(Entry { revision, value })
        }
        TAG_UNAVAILABLE => Previous::Unavailable,
        TAG_CONFLICT => return Ok(Remembered::Conflict { current: revision }),
        _ => return Err(CodecError("a known outcome")),
    };
    Ok(Remembered::Written { revision, previous })
}

/// Appends a footer's encoding.
pub fn encode_footer(footer: &Footer, out: &mut Vec<u8>) {
    encode_header(&footer.header, &footer.header.configurations, out);
    put_u128(out, footer.digest.0);
}

/// Reads what [`encode_footer`] wrote.
///
/// # Errors
/// If the bytes are damaged.
pub fn decode_footer(reader: &mut Reader) -> Result<Footer, CodecError> {
    Ok(Footer { header: decode_header(reader)?, digest: Digest(reader.u128()?) })
}

/// What of a header the digest covers: all but the older configurations.
pub(super) fn encode_header_for_digest(header: &StateHeader) -> Vec<u8> {
    let mut out = Vec::with_capacity(128 + 8 * header.terms.len());
    let newest = header.configurations.len().saturating_sub(1);
    encode_header(header, &header.configurations[newest..], &mut out);
    out
}

fn encode_header(header: &StateHeader, configurations: &[(LogIndex, Configuration)], out: &mut Vec<u8>) {
    put_u8(out, HEADER_FORMAT);
    put_varint(out, header.index.0);
    put_varint(out, header.term.0);
    put_u8(out, u8::from(header.arc.is_some()));
    if let Some(arc) = header.arc {
        put_u64(out, arc.first.0);
        put_u64(out, arc.last.0);
    }
    put_varint(out, header.epoch.0);
    put_varint(out, header.revision.0);
    put_varint(out, header.last_session.0);
    put_varint(out, header.terms.len() as u64);
    for (term, first) in &header.terms {
        put_varint(out, term.0);
        put_varint(out, first.0);
    }
    put_varint(out, configurations.len() as u64);
    for (index, configuration) in configurations {
        put_varint(out, index.0);
        configuration.encode(out);
    }
}

fn decode_header(reader: &mut Reader) -> Result<StateHeader, CodecError> {
    if reader.u8()? != HEADER_FORMAT {
        return Err(CodecError("a state header of format 1"));
    }
    let index = LogIndex(reader.varint()?);
    let term = Term(reader.varint()?);
    let arc = if reader.bool()? {
        Some(shard_map::Arc { first: Position(reader.u64()?), last: Position(reader.u64()?) })
    } else {
        None
    };
    let epoch = Epoch(reader.varint()?);
    let revision = Revision(reader.varint()?);
    let last_session = SessionId(reader.varint()?);
    let count = reader.count(2)?;
    if count > TERMS_MAX {
        return Err(CodecError("at most 4,096 terms"));
    }
    let mut terms = Vec::with_capacity(count);
    for _ in 0..count {
        terms.push((Term(reader.varint()?), LogIndex(reader.varint()?)));
    }
    if !terms.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1) {
        return Err(CodecError("terms that rise"));
    }
    let count = reader.count(8)?;
    let mut configurations = Vec::with_capacity(count);
    for _ in 0..count {
        configurations.push((LogIndex(reader.varint()?), Configuration::decode(reader)?));
    }
    if !configurations.is_sorted_by(|a, b| a.0 < b.0) {
        return Err(CodecError("configurations that rise"));
    }
    Ok(StateHeader { index, term, arc, epoch, revision, last_session, terms, configurations })
}
