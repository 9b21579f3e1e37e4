//! The read index of one replica: its mark, and scanning it.

use bytes::Bytes;

use crate::{
    checkpoint::context::{SLICE_BYTES_MAX, SLICE_RECORDS_MAX, Slice},
    codec::{Reader, put_varint},
    disk::{StateStore, StoreError},
    state::{
        codec::session_of_key,
        digest::RecordSum,
        record::{SPACE_NODES, StateHeader, TREE_MARK},
    },
    types::{Digest, LogIndex, ReplicaId, SessionId},
};

/// Notes that the tree has all up to this index.
pub(super) fn mark_tree<S: StateStore>(store: &S, replica: ReplicaId, index: LogIndex) -> Result<(), StoreError> {
    let mut value = Vec::new();
    put_varint(&mut value, index.0);
    store.write(replica, &[(TREE_MARK, Some(&value))])
}

/// What the tree says that it has; `None` if it says nothing that makes sense.
pub(super) fn read_mark<S: StateStore>(store: &S, replica: ReplicaId) -> Result<Option<LogIndex>, StoreError> {
    let Some(value) = store.get(replica, TREE_MARK)? else { return Ok(None) };
    let mut reader = Reader::new(value);
    let index = reader.varint().ok().map(LogIndex);
    Ok(index.filter(|_| reader.remaining() == 0))
}

/// A pass over the whole tree: its digest, and the records that are kept in memory.
pub(super) struct Scan {
    from: Vec<u8>,
    count_max: usize,
    sum: RecordSum,
    pub(super) sessions: Vec<(SessionId, Bytes)>,
    pub(super) nodes: Vec<(Bytes, Bytes)>,
}

/// Records asked for at first: values may have 1 MiB each, and the answer comes in one piece.
const SCAN_RECORDS_FIRST: usize = 16;

impl Scan {
    pub(super) fn new() -> Self {
        Self {
            from: Vec::new(),
            count_max: SCAN_RECORDS_FIRST,
            sum: RecordSum::default(),
            sessions: Vec::new(),
            nodes: Vec::new(),
        }
    }

    /// Reads on; `true` at the end.
    pub(super) fn slice<S: StateStore>(
        &mut self,
        store: &S,
        replica: ReplicaId,
        slice: &mut Slice,
    ) -> Result<bool, StoreError> {
        let count = self.count_max.min(slice.records_left());
        let records = store.range(replica, &self.from, count)?;
        let is_end = records.len() < count;
        for (key, value) in records {
            if key[..] < self.from[..] {
                return Err(StoreError("keys come out of order".to_owned()));
            }
            slice.count(&key, Some(&value));
            // The next key that there can be.
            self.from.clear();
            self.from.extend_from_slice(&key);
            self.from.push(0);
            if key == TREE_MARK {
                continue;
            }
            self.sum.add(&key, &value);
            if let Some(session) = session_of_key(&key) {
                self.sessions.push((session, value));
            } else if key.first() == Some(&SPACE_NODES) {
                self.nodes.push((key, value));
            }
        }
        if slice.bytes > SLICE_BYTES_MAX {
            self.count_max = (self.count_max / 2).max(1);
        } else if slice.bytes < SLICE_BYTES_MAX / 4 {
            self.count_max = (self.count_max * 2).min(SLICE_RECORDS_MAX);
        }
        Ok(is_end)
    }

    /// Whether a record of this key would have been read.
    pub(super) fn has_passed(&self, key: &[u8]) -> bool {
        key < &self.from[..]
    }

    /// A record that was read, or was not there, becomes another.
    pub(super) fn replace(&mut self, key: &[u8], old: Option<&[u8]>, new: Option<&[u8]>) {
        if let Some(old) = old {
            self.sum.subtract(key, old);
        }
        if let Some(new) = new {
            self.sum.add(key, new);
        }
    }

    /// The digest of what was read, under a header.
    pub(super) fn digest(&self, header: &StateHeader) -> Digest {
        self.sum.digest(header)
    }
}
