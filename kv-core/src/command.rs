//! What a log entry asks of a shard's state, and what came of it.
//!
//! One entry carries a batch of commands: all that one turn proposed for the shard. The codec is ours, with a version byte
//! first; [`decode_batch`] takes any bytes without a panic. Nothing here depends on a clock, randomness or map order, so
//! that every replica reads the same.

use bytes::Bytes;

use crate::{
    codec::{CodecError, Reader, put_bytes, put_u8, put_varint},
    shard_map::NodeDescription,
    types::{Entry, Key, Revision, Sequence, SessionId, Value},
};

/// One command of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Changes one key.
    Write(Write),
    /// Opens a session; its number is the outcome.
    OpenSession,
    /// Records how a node is reached. Only in the meta shard.
    DescribeNode(NodeDescription),
    /// Every replica freezes its state right after this command's entry, so that all can compare their digests.
    Mark,
}

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The key.
    pub key: Key,
    /// What to do with it.
    pub action: Action,
    /// What must hold for it to be done.
    pub condition: Condition,
    /// Whether the outcome names what the key held before.
    pub return_previous: bool,
    /// The write's place in a session; without one it is not remembered, and a second sending runs twice.
    pub session: Option<SessionStamp>,
}

/// What a write does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Sets the value.
    Put(Value),
    /// Removes the key.
    Delete,
}

/// What must hold at apply for a write to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    #[default]
    Always,
    /// The key is absent.
    Absent,
    /// The key's revision is this one.
    RevisionIs(Revision),
}

/// A write's place in a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionStamp {
    /// The session, given by the shard.
    pub session: SessionId,
    /// The write's number, given by the client.
    pub sequence: Sequence,
    /// The lowest sequence still open among those sent to this shard; outcomes below it are forgotten.
    pub floor: Sequence,
}

/// What came of one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandOutcome {
    /// The write was done, or had been before and was remembered.
    Written {
        /// The revision it got; 0 if it changed nothing (the delete of an absent key).
        revision: Revision,
        /// What the key held before.
        previous: Previous,
    },
    /// The condition did not hold.
    Conflict {
        /// The key's revision; 0 if it is absent.
        current: Revision,
    },
    /// The session was opened.
    SessionOpened(SessionId),
    /// The node's description was recorded, or was the same already.
    NodeDescribed,
    /// The mark is passed. It changes nothing.
    Marked,
    /// Not done: the session is unknown here. An earlier sending may have been done.
    SessionExpired,
    /// Not done: the sequence is below the floor, so the client had its answer.
    Finished,
    /// Not done: the session has 1,024 writes open.
    SessionFull,
    /// Not done: the key is not in this shard's arc.
    NotInArc,
    /// Not done: the command does not belong to this kind of shard.
    Misplaced,
}

/// What a key held before a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Previous {
    /// It was not asked for.
    NotAsked,
    /// The key was absent.
    Absent,
    /// It held this.
    Entry(Entry),
    /// It was asked for, but is no longer remembered.
    Unavailable,
}

/// Most commands in one batch. A batch with more does not decode: the smallest command takes one byte there and over a
/// hundred once it is decoded. A leader never comes near it: see [`encoded_bytes_about`].
pub const BATCH_COMMANDS_MAX: usize = 16_384;

const FORMAT: u8 = 1;

const TAG_WRITE: u8 = 1;
const TAG_OPEN_SESSION: u8 = 2;
const TAG_DESCRIBE_NODE: u8 = 3;
const TAG_MARK: u8 = 4;

const FLAG_DELETE: u8 = 1;
const FLAG_ABSENT: u8 = 2;
const FLAG_REVISION: u8 = 4;
const FLAG_PREVIOUS: u8 = 8;
const FLAG_SESSION: u8 = 16;

/// Encodes commands as the data of one log entry.
#[must_use]
pub fn encode_batch(commands: &[Command]) -> Bytes {
    encode_commands(commands.iter())
}

/// The same of commands that lie elsewhere.
pub(crate) fn encode_commands<'a>(commands: impl ExactSizeIterator<Item = &'a Command> + Clone) -> Bytes {
    let mut out = Vec::with_capacity(16 + commands.clone().map(encoded_bytes_about).sum::<usize>());
    put_u8(&mut out, FORMAT);
    put_varint(&mut out, commands.len() as u64);
    for command in commands {
        encode(command, &mut out);
    }
    out.into()
}

/// Decodes the data of one log entry. An entry without data (a leader's first) has no commands.
///
/// # Errors
/// If the bytes are not exactly one encoded batch.
pub fn decode_batch(data: &Bytes) -> Result<Vec<Command>, CodecError> {
    if data.is_empty() {
        return Ok(Vec::new());
    }
    let mut reader = Reader::new(data.clone());
    if reader.u8()? != FORMAT {
        return Err(CodecError("a command batch of format 1"));
    }
    let count = reader.count(1)?;
    if count > BATCH_COMMANDS_MAX {
        return Err(CodecError("a batch of at most 16,384 commands"));
    }
    // The smallest write of a client takes more than 16 bytes; what claims to hold smaller ones gets its room as they come.
    let mut commands = Vec::with_capacity(count.min(1 + reader.remaining() / 16));
    for _ in 0..count {
        commands.push(decode(&mut reader)?);
    }
    reader.finish()?;
    Ok(commands)
}

/// About how many bytes a command takes in an entry; never fewer than it takes, and at least 64, so that an entry of 1 MiB
/// has at most [`BATCH_COMMANDS_MAX`].
#[must_use]
pub fn encoded_bytes_about(command: &Command) -> usize {
    match command {
        Command::Write(write) => {
            let value = match &write.action {
                Action::Put(value) => value.as_bytes().len(),
                Action::Delete => 0,
            };
            64 + write.key.as_bytes().len() + value
        }
        Command::OpenSession | Command::Mark => 64,
        Command::DescribeNode(node) => 64 + node.text_bytes(),
    }
}

fn encode(command: &Command, out: &mut Vec<u8>) {
    match command {
        Command::Write(write) => {
            put_u8(out, TAG_WRITE);
            encode_write(write, out);
        }
        Command::OpenSession => put_u8(out, TAG_OPEN_SESSION),
        Command::Mark => put_u8(out, TAG_MARK),
        Command::DescribeNode(node) => {
            put_u8(out, TAG_DESCRIBE_NODE);
            node.encode(out);
        }
    }
}

fn encode_write(write: &Write, out: &mut Vec<u8>) {
    let mut flags = match write.condition {
        Condition::Always => 0,
        Condition::Absent => FLAG_ABSENT,
        Condition::RevisionIs(_) => FLAG_REVISION,
    };
    if write.action == Action::Delete {
        flags |= FLAG_DELETE;
    }
    if write.return_previous {
        flags |= FLAG_PREVIOUS;
    }
    if write.session.is_some() {
        flags |= FLAG_SESSION;
    }
    put_u8(out, flags);
    put_bytes(out, write.key.as_bytes());
    if let Action::Put(value) = &write.action {
        put_bytes(out, value.as_bytes());
    }
    if let Condition::RevisionIs(revision) = write.condition {
        put_varint(out, revision.0);
    }
    if let Some(stamp) = write.session {
        put_varint(out, stamp.session.0);
        put_varint(out, stamp.sequence.0);
        put_varint(out, stamp.floor.0);
    }
}

fn decode(reader: &mut Reader) -> Result<Command, CodecError> {
    match reader.u8()? {
        TAG_WRITE => Ok(Command::Write(decode_write(reader)?)),
        TAG_OPEN_SESSION => Ok(Command::OpenSession),
        TAG_MARK => Ok(Command::Mark),
        TAG_DESCRIBE_NODE => Ok(Command::DescribeNode(NodeDescription::decode(reader)?)),
        _ => Err(CodecError("a known command")),
    }
}

fn decode_write(reader: &mut Reader) -> Result<Write, CodecError> {
    let flags = reader.u8()?;
    if flags > 31 || (flags & FLAG_ABSENT != 0 && flags & FLAG_REVISION != 0) {
        return Err(CodecError("the flags of a write"));
    }
    let key = Key::new(reader.bytes()?).map_err(|_| CodecError("a key within bounds"))?;
    let action = if flags & FLAG_DELETE != 0 {
        Action::Delete
    } else {
        Action::Put(Value::new(reader.bytes()?).map_err(|_| CodecError("a value within bounds"))?)
    };
    let condition = if flags & FLAG_ABSENT != 0 {
        Condition::Absent
    } else if flags & FLAG_REVISION != 0 {
        Condition::RevisionIs(Revision(reader.varint()?))
    } else {
        Condition::Always
    };
    let session = if flags & FLAG_SESSION != 0 {
        Some(SessionStamp {
            session: SessionId(reader.varint()?),
            sequence: Sequence(reader.varint()?),
            floor: Sequence(reader.varint()?),
        })
    } else {
        None
    };
    Ok(Write { key, action, condition, return_previous: flags & FLAG_PREVIOUS != 0, session })
}
