//! The log of one replica in memory, as raft reads it.
//!
//! All entries that are kept are here, from the boundary on; the disk has them too, and is read only at a start. What raft
//! finds here may not be synced yet: the replica tells raft apart when it is.

use std::{cell::Cell, collections::VecDeque};

use raft::{
    Error, GetEntriesContext, RaftState, StorageError,
    eraftpb::{Entry, Snapshot},
};

use super::convert::{configuration_to_raft, hard_state_to_raft, snapshot_to_raft};
use crate::{
    configuration::Configuration,
    log::{
        entry_data::EntryData,
        record::{Boundary, HardState},
    },
    types::{LogIndex, Term},
};

/// About how many bytes an entry takes beside its data.
const ENTRY_BYTES: usize = 96;

pub(super) struct LogStore {
    hard_state: HardState,
    boundary: Boundary,
    entries: VecDeque<Entry>,
    data: EntryData,
    bytes: usize,
    /// The newest confirmed checkpoint: what a follower too far behind is given.
    checkpoint: Option<Boundary>,
    /// The configuration that raft begins with: that of the index from which entries are handed out.
    start: Configuration,
    /// Set when raft asked for a snapshot and there was none that is new enough.
    snapshot_wanted: Cell<bool>,
}

impl LogStore {
    pub(super) fn new(
        hard_state: HardState,
        boundary: Boundary,
        start: Configuration,
        entries: impl Iterator<Item = Entry>,
    ) -> Self {
        let mut store = Self {
            hard_state,
            boundary,
            start,
            entries: VecDeque::new(),
            data: EntryData::default(),
            bytes: 0,
            checkpoint: None,
            snapshot_wanted: Cell::new(false),
        };
        for entry in entries {
            store.push(entry);
        }
        store
    }

    fn push(&mut self, entry: Entry) {
        self.bytes += ENTRY_BYTES + entry.data.len();
        self.entries.push_back(entry);
    }

    /// Appends entries without a gap; the first removes all at or above its index.
    pub(super) fn append(&mut self, entries: Vec<Entry>) {
        let Some(first) = entries.first() else { return };
        assert!(
            self.boundary.index.0 < first.index && first.index <= self.last().0 + 1,
            "raft appends without a gap, above what was given up"
        );
        let kept = usize::try_from(first.index - self.boundary.index.0 - 1).expect("kept entries are in memory");
        point!(SuffixTruncated if self.entries.len() > kept);
        while self.entries.len() > kept {
            let removed = self.entries.pop_back().expect("there are more than kept");
            self.bytes -= ENTRY_BYTES + removed.data.len();
        }
        for mut entry in entries {
            entry.data = self.data.keep(entry.data, self.bytes);
            self.push(entry);
        }
    }

    /// Gives up the entries at or below an index, if they are here; tells the new boundary if it has moved.
    pub(super) fn compact(
        &mut self,
        to: LogIndex,
        configuration_at: impl FnOnce() -> Configuration,
    ) -> Option<Boundary> {
        if to <= self.boundary.index || to > self.last() {
            return None;
        }
        let term = self.term_at(to)?;
        while self.entries.front().is_some_and(|entry| entry.index <= to.0) {
            let removed = self.entries.pop_front().expect("there is a front");
            self.bytes -= ENTRY_BYTES + removed.data.len();
        }
        self.data = EntryData::default();
        self.boundary = Boundary { index: to, term, configuration: configuration_at() };
        Some(self.boundary.clone())
    }

    /// The snapshot takes the place of all entries.
    pub(super) fn install(&mut self, boundary: Boundary) {
        self.entries.clear();
        self.data = EntryData::default();
        self.bytes = 0;
        self.hard_state.commit = self.hard_state.commit.max(boundary.index);
        self.boundary = boundary;
    }

    /// Whether raft asked for a snapshot that is not here, and nobody has heeded it yet.
    pub(super) fn is_snapshot_wanted(&self) -> bool {
        self.snapshot_wanted.get()
    }

    pub(super) fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
    }

    /// The commit index of the hard state.
    pub(super) fn commit(&self) -> LogIndex {
        self.hard_state.commit
    }

    pub(super) fn set_checkpoint(&mut self, checkpoint: Boundary) {
        self.checkpoint = Some(checkpoint);
    }

    /// The checkpoint may be unreadable: nothing is offered or given up on its strength.
    pub(super) fn forget_checkpoint(&mut self) {
        self.checkpoint = None;
    }

    pub(super) fn checkpoint(&self) -> Option<&Boundary> {
        self.checkpoint.as_ref()
    }

    /// Whether raft asked in vain for a snapshot since the last call.
    pub(super) fn take_snapshot_wanted(&self) -> bool {
        self.snapshot_wanted.replace(false)
    }

    pub(super) fn boundary(&self) -> &Boundary {
        &self.boundary
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of the entries at or below an index.
    pub(super) fn bytes_up_to(&self, index: LogIndex) -> usize {
        let above = self.entries.iter().rev().take_while(|entry| entry.index > index.0);
        self.bytes - above.map(|entry| ENTRY_BYTES + entry.data.len()).sum::<usize>()
    }

    pub(super) fn last(&self) -> LogIndex {
        LogIndex(self.entries.back().map_or(self.boundary.index.0, |entry| entry.index))
    }

    pub(super) fn entry(&self, index: LogIndex) -> Option<&Entry> {
        let at = index.0.checked_sub(self.boundary.index.0 + 1)?;
        self.entries.get(usize::try_from(at).ok()?)
    }

    /// The term of an entry here, or of the boundary.
    pub(super) fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == self.boundary.index {
            return Some(self.boundary.term);
        }
        self.entry(index).map(|entry| Term(entry.term))
    }

    /// The lowest index above which the entries take at most this many bytes.
    pub(super) fn index_with_bytes_above(&self, bytes_max: usize, at_most: LogIndex) -> LogIndex {
        let mut bytes = self.bytes;
        let mut index = self.boundary.index;
        for entry in &self.entries {
            if bytes <= bytes_max || entry.index > at_most.0 {
                break;
            }
            bytes -= ENTRY_BYTES + entry.data.len();
            index = LogIndex(entry.index);
        }
        index
    }
}

impl raft::Storage for LogStore {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState {
            hard_state: hard_state_to_raft(self.hard_state),
            conf_state: configuration_to_raft(&self.start),
        })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.boundary.index.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        if high > self.last().0 + 1 {
            return Err(Error::Store(StorageError::Unavailable));
        }
        let bytes_max = max_size.into().unwrap_or(u64::MAX);
        let mut bytes = 0;
        let mut found = Vec::new();
        for index in low..high {
            let Some(entry) = self.entry(LogIndex(index)) else { break };
            bytes += (ENTRY_BYTES + entry.data.len()) as u64;
            if bytes > bytes_max && !found.is_empty() {
                break;
            }
            found.push(entry.clone());
        }
        Ok(found)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index < self.boundary.index.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        self.term_at(LogIndex(index)).map(|term| term.0).ok_or(Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.boundary.index.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last().0)
    }

    /// A snapshot is the mark of the newest durable checkpoint; the files go by a stream of their own.
    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        match &self.checkpoint {
            Some(checkpoint) if checkpoint.index.0 >= request_index && checkpoint.index >= self.boundary.index => {
                Ok(snapshot_to_raft(checkpoint))
            }
            _ => {
                point!(SnapshotNotYet);
                self.snapshot_wanted.set(true);
                Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use raft::Storage as _;

    fn entry(index: u64, term: u64) -> Entry {
        Entry { index, term, data: bytes::Bytes::from_static(b"0123456789"), ..Default::default() }
    }

    fn store(last: u64) -> LogStore {
        let boundary = Boundary { index: LogIndex(1), term: Term(1), ..Default::default() };
        LogStore::new(HardState::default(), boundary, Configuration::default(), (2..=last).map(|index| entry(index, 1)))
    }

    #[test]
    fn an_entry_removes_all_at_or_above_its_index() {
        let mut store = store(6);
        store.append(vec![entry(4, 2)]);
        assert_eq!(store.last(), LogIndex(4));
        assert_eq!(store.term(4).unwrap(), 2);
        assert_eq!(store.term(3).unwrap(), 1);
        assert_eq!(store.bytes(), 3 * (ENTRY_BYTES + 10));
    }

    #[test]
    fn the_term_of_the_boundary_is_known_after_a_compaction() {
        let mut store = store(6);
        assert_eq!(store.compact(LogIndex(4), Default::default).unwrap().index, LogIndex(4));
        assert_eq!(store.term(4).unwrap(), 1);
        assert!(store.term(3).is_err());
        assert!(store.entries(4, 6, None, GetEntriesContext::empty(false)).is_err());
        assert_eq!(store.entries(5, 7, None, GetEntriesContext::empty(false)).unwrap().len(), 2);
        assert!(store.compact(LogIndex(7), Default::default).is_none());
    }

    #[test]
    fn entries_are_cut_by_size_but_never_to_none() {
        let store = store(6);
        assert_eq!(store.entries(2, 7, 1, GetEntriesContext::empty(false)).unwrap().len(), 1);
        assert_eq!(store.entries(2, 7, 250, GetEntriesContext::empty(false)).unwrap().len(), 2);
    }

    #[test]
    fn without_a_checkpoint_new_enough_a_snapshot_has_to_wait() {
        let mut store = store(6);
        assert!(store.snapshot(3, 1).is_err());
        assert!(store.take_snapshot_wanted());
        store.set_checkpoint(Boundary { index: LogIndex(5), term: Term(1), ..Default::default() });
        assert_eq!(store.snapshot(3, 1).unwrap().get_metadata().index, 5);
    }
}
