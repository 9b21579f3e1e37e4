//! How records stand in a block: a kind byte, the shard, then the fields. Numbers are varints.
//!
//! | kind | record | fields after the shard |
//! |---|---|---|
//! | 1 | entry | index, term, kind, context, data |
//! | 2 | hard state | term, vote, commit |
//! | 3 | boundary | index, term, configuration |
//! | 4 | install | index, term, configuration, staging (16 bytes), digest (16 bytes) |
//! | 5 | tombstone | replica |
//! | 6 | create | replica, hard state, boundary |
//!
//! Kinds are never used again for something else.

use bytes::Bytes;

use crate::{
    codec::{CodecError, Reader, put_bytes, put_u8, put_u128, put_varint},
    configuration::Configuration,
    types::{Digest, LogIndex, ReplicaId, ShardId, Term},
};

use super::{
    block::BlockBuffer,
    record::{Boundary, EntryKind, HardState, Install, LogEntry, Record, StagingId},
};

const ENTRY: u8 = 1;
const HARD_STATE: u8 = 2;
const BOUNDARY: u8 = 3;
const INSTALL: u8 = 4;
const TOMBSTONE: u8 = 5;
const CREATE: u8 = 6;

/// Puts a record into a block. `scratch` is memory for the small fields; an entry's data is copied only once.
pub(crate) fn put_record(record: &Record, block: &mut BlockBuffer, scratch: &mut Vec<u8>) {
    scratch.clear();
    let head = |out: &mut Vec<u8>, kind, shard: ShardId| {
        put_u8(out, kind);
        put_varint(out, shard.0);
    };
    match record {
        Record::Entry { shard, entry } => {
            head(scratch, ENTRY, *shard);
            put_varint(scratch, entry.index.0);
            put_varint(scratch, entry.term.0);
            put_u8(scratch, entry_kind_byte(entry.kind));
            put_bytes(scratch, &entry.context);
            put_varint(scratch, entry.data.len() as u64);
            block.put(scratch);
            block.put(&entry.data);
            return;
        }
        Record::HardState { shard, hard_state } => {
            head(scratch, HARD_STATE, *shard);
            put_hard_state(scratch, hard_state);
        }
        Record::Boundary { shard, boundary } => {
            head(scratch, BOUNDARY, *shard);
            put_boundary(scratch, boundary);
        }
        Record::Install { shard, install } => {
            head(scratch, INSTALL, *shard);
            put_install(scratch, install);
        }
        Record::Tombstone { shard, replica } => {
            head(scratch, TOMBSTONE, *shard);
            put_varint(scratch, replica.0);
        }
        Record::Create { shard, replica, hard_state, boundary } => {
            head(scratch, CREATE, *shard);
            put_varint(scratch, replica.0);
            put_hard_state(scratch, hard_state);
            put_boundary(scratch, boundary);
        }
    }
    block.put(scratch);
}

/// Reads the records of a block one by one: a block may be of millions of records of three bytes, which would take a hundred times
/// as much if they stood in memory all at once.
///
/// An item is an error if the bytes are not records; what comes after one means nothing.
pub(crate) fn read_records(payload: Bytes) -> impl Iterator<Item = Result<Record, CodecError>> {
    let mut reader = Reader::new(payload);
    std::iter::from_fn(move || (reader.remaining() > 0).then(|| read_record(&mut reader)))
}

fn read_record(reader: &mut Reader) -> Result<Record, CodecError> {
    let kind = reader.u8()?;
    let shard = ShardId(reader.varint()?);
    Ok(match kind {
        ENTRY => Record::Entry { shard, entry: read_entry(reader)? },
        HARD_STATE => Record::HardState { shard, hard_state: read_hard_state(reader)? },
        BOUNDARY => Record::Boundary { shard, boundary: read_boundary(reader)? },
        INSTALL => Record::Install { shard, install: read_install(reader)? },
        TOMBSTONE => Record::Tombstone { shard, replica: ReplicaId(reader.varint()?) },
        CREATE => Record::Create {
            shard,
            replica: ReplicaId(reader.varint()?),
            hard_state: read_hard_state(reader)?,
            boundary: read_boundary(reader)?,
        },
        _ => return Err(CodecError("the kind of a record")),
    })
}

fn read_entry(reader: &mut Reader) -> Result<LogEntry, CodecError> {
    Ok(LogEntry {
        index: LogIndex(reader.varint()?),
        term: Term(reader.varint()?),
        kind: match reader.u8()? {
            0 => EntryKind::Commands,
            1 => EntryKind::Configuration,
            2 => EntryKind::ConfigurationV2,
            _ => return Err(CodecError("the kind of an entry")),
        },
        // Copied, so that one small entry that is kept does not keep its whole block in memory.
        context: Bytes::copy_from_slice(&reader.bytes()?),
        // A part of the block, which who keeps it copies.
        data: reader.bytes()?,
    })
}

fn entry_kind_byte(kind: EntryKind) -> u8 {
    match kind {
        EntryKind::Commands => 0,
        EntryKind::Configuration => 1,
        EntryKind::ConfigurationV2 => 2,
    }
}

/// Appends a hard state.
pub(crate) fn put_hard_state(out: &mut Vec<u8>, hard_state: &HardState) {
    put_varint(out, hard_state.term.0);
    put_varint(out, hard_state.vote.0);
    put_varint(out, hard_state.commit.0);
}

/// Reads a hard state.
pub(crate) fn read_hard_state(reader: &mut Reader) -> Result<HardState, CodecError> {
    Ok(HardState {
        term: Term(reader.varint()?),
        vote: ReplicaId(reader.varint()?),
        commit: LogIndex(reader.varint()?),
    })
}

/// Appends a boundary.
pub(crate) fn put_boundary(out: &mut Vec<u8>, boundary: &Boundary) {
    put_varint(out, boundary.index.0);
    put_varint(out, boundary.term.0);
    boundary.configuration.encode(out);
}

/// Reads a boundary.
pub(crate) fn read_boundary(reader: &mut Reader) -> Result<Boundary, CodecError> {
    Ok(Boundary {
        index: LogIndex(reader.varint()?),
        term: Term(reader.varint()?),
        configuration: Configuration::decode(reader)?,
    })
}

/// Appends an install.
pub(crate) fn put_install(out: &mut Vec<u8>, install: &Install) {
    put_varint(out, install.index.0);
    put_varint(out, install.term.0);
    install.configuration.encode(out);
    put_u128(out, install.staging.0);
    put_u128(out, install.digest.0);
}

/// Reads an install.
pub(crate) fn read_install(reader: &mut Reader) -> Result<Install, CodecError> {
    Ok(Install {
        index: LogIndex(reader.varint()?),
        term: Term(reader.varint()?),
        configuration: Configuration::decode(reader)?,
        staging: StagingId(reader.u128()?),
        digest: Digest(reader.u128()?),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::block::{self, BlockKind, BlockRead, Stamp};
    use super::*;
    use crate::{disk::SegmentNumber, types::NodeId};

    fn numbers() -> impl Strategy<Value = u64> {
        prop_oneof![0..300_u64, any::<u64>()]
    }

    prop_compose! {
        fn configurations()(voters in prop::collection::btree_set(1..=u64::MAX, 0..4), joint: bool, node in numbers()) -> Configuration {
            let voters: Vec<_> = voters.into_iter().map(ReplicaId).collect();
            let nodes = voters.iter().map(|replica| (*replica, NodeId(node))).collect();
            let voters_outgoing = if joint { voters.clone() } else { Vec::new() };
            let auto_leave = !voters_outgoing.is_empty();
            Configuration { voters, voters_outgoing, auto_leave, nodes, ..Configuration::default() }
        }
    }

    fn records() -> impl Strategy<Value = Record> {
        let fields = (numbers(), numbers(), numbers(), numbers(), any::<u128>(), configurations(), 0..3_usize);
        let data = (any::<Vec<u8>>(), prop::collection::vec(any::<u8>(), 0..2_000));
        (0..6, fields, data).prop_map(|(kind, (shard, a, b, c, wide, configuration, entry_kind), (context, data))| {
            let shard = ShardId(shard);
            let hard_state = HardState { term: Term(a), vote: ReplicaId(b), commit: LogIndex(c) };
            let boundary = Boundary { index: LogIndex(a), term: Term(b), configuration: configuration.clone() };
            let (index, term) = (LogIndex(a), Term(b));
            match kind {
                0 => {
                    let kind = [EntryKind::Commands, EntryKind::Configuration, EntryKind::ConfigurationV2][entry_kind];
                    Record::Entry {
                        shard,
                        entry: LogEntry { index, term, kind, context: context.into(), data: data.into() },
                    }
                }
                1 => Record::HardState { shard, hard_state },
                2 => Record::Boundary { shard, boundary },
                3 => {
                    let (staging, digest) = (StagingId(wide), Digest(wide ^ 1));
                    Record::Install { shard, install: Install { index, term, configuration, staging, digest } }
                }
                4 => Record::Tombstone { shard, replica: ReplicaId(a) },
                _ => Record::Create { shard, replica: ReplicaId(c), hard_state, boundary },
            }
        })
    }

    proptest! {
        #[test]
        fn records_are_read_as_written_and_no_longer_than_announced(
            records in prop::collection::vec(records(), 0..6)
        ) {
            let (mut block, mut scratch) = (BlockBuffer::default(), Vec::new());
            block.clear();
            for record in &records {
                put_record(record, &mut block, &mut scratch);
            }
            let announced: usize = records.iter().map(Record::bytes_about).sum();
            prop_assert!(block.payload_bytes() <= announced);
            let stamp = Stamp { epoch: SegmentNumber(1), number: 1 };
            let bytes = block.finish(stamp, BlockKind::Batch, SegmentNumber(1), 0).0.to_vec();
            let BlockRead::Good { header, .. } = block::read_block(&bytes, 0, stamp) else { panic!("damaged") };
            let read: Result<Vec<Record>, CodecError> = read_records(block::payload(&bytes, &header)).collect();
            prop_assert_eq!(read, Ok(records));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            let _ = read_records(bytes.into()).take_while(Result::is_ok).count();
        }
    }
}
