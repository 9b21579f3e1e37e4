//! What the log says of every shard, without the entries themselves: the same rules for a batch to be appended and for a
//! block that is recovered.
//!
//! Every segment opens with this table, so that votes, terms, boundaries, installs and tombstones stated only in a recycled
//! segment are not lost. It also says up to which index each shard's log reaches: recovery knows thereby which entries
//! stood in segments that are gone, and refuses a log in which one of them is still needed.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::{
    codec::{CodecError, Reader, put_u8, put_varint},
    disk::SegmentNumber,
    types::{LogIndex, ReplicaId, ShardId},
};

use super::{
    record::{Boundary, HardState, Install, Record},
    record_codec::{put_boundary, put_hard_state, put_install, read_boundary, read_hard_state, read_install},
};

/// What the log says of all shards.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    /// Every shard with a replica here.
    pub(crate) rows: BTreeMap<ShardId, Row>,
    /// Replicas that were here and are gone for good.
    pub(crate) tombstones: BTreeMap<ReplicaId, ShardId>,
}

/// What the log says of one shard.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// The replica's id.
    pub(crate) replica: ReplicaId,
    /// The newest hard state.
    pub(crate) hard_state: HardState,
    /// The newest boundary.
    pub(crate) boundary: Boundary,
    /// The newest install, until a boundary has passed it.
    pub(crate) install: Option<Install>,
    /// Index of the last entry; the boundary's if there is none.
    pub(crate) last: LogIndex,
    /// Segments that hold live entries (above the boundary, not overwritten), each with the last such entry's index; both
    /// ascending. Not stated in the table on disk: recovery learns it anew.
    held: VecDeque<(SegmentNumber, LogIndex)>,
}

impl Table {
    /// Takes the records of one block in, which stands or will stand in this segment.
    ///
    /// # Errors
    /// What contradicts the log so far. The table is of no use then.
    pub(crate) fn apply(&mut self, records: &[Record], segment: SegmentNumber) -> Result<(), &'static str> {
        for record in records {
            self.apply_record(record, segment)?;
        }
        self.check_commits(records.iter().map(Record::shard))
    }

    /// Whether what a block says of these shards is sound as a whole, all of its records being taken in.
    ///
    /// # Errors
    /// What contradicts the log. Whatever moves either of the two: an entry or an install may end a log below what was decided
    /// before.
    pub(crate) fn check_commits(&self, mut shards: impl Iterator<Item = ShardId>) -> Result<(), &'static str> {
        let ends_too_early = |row: &Row| row.hard_state.commit > row.last;
        if shards.any(|shard| self.rows.get(&shard).is_some_and(ends_too_early)) {
            return Err("a commit index above the shard's last entry");
        }
        Ok(())
    }

    /// Shards with live entries in the segment, which must be the oldest.
    pub(crate) fn held_by(&self, oldest: SegmentNumber) -> impl Iterator<Item = ShardId> {
        let holds = move |row: &Row| row.held.front().is_some_and(|(segment, _)| *segment <= oldest);
        self.rows.iter().filter(move |(_, row)| holds(row)).map(|(shard, _)| *shard)
    }

    /// The lowest segment that holds a live entry.
    pub(crate) fn lowest_held(&self) -> Option<SegmentNumber> {
        self.rows.values().filter_map(|row| row.held.front()).map(|(segment, _)| *segment).min()
    }

    /// Whether both state the same.
    pub(crate) fn states_the_same(&self, other: &Self) -> bool {
        let same = |(a_shard, a): (&ShardId, &Row), (b_shard, b): (&ShardId, &Row)| {
            a_shard == b_shard
                && a.replica == b.replica
                && a.hard_state == b.hard_state
                && a.boundary == b.boundary
                && a.install == b.install
                && a.last == b.last
        };
        self.tombstones == other.tombstones
            && self.rows.len() == other.rows.len()
            && self.rows.iter().zip(&other.rows).all(|(a, b)| same(a, b))
    }

    /// Takes one record of a block in. When all are, [`Table::check_commits`] says whether they fit together.
    ///
    /// # Errors
    /// What contradicts the log so far. The table is of no use then.
    pub(crate) fn apply_record(&mut self, record: &Record, segment: SegmentNumber) -> Result<(), &'static str> {
        let shard = record.shard();
        if let Record::Create { replica, hard_state, boundary, .. } = record {
            if self.rows.contains_key(&shard) || self.tombstones.contains_key(replica) {
                return Err("a replica is created that is there already or is gone for good");
            }
            let (hard_state, boundary, last) = (*hard_state, boundary.clone(), boundary.index);
            let row = Row { replica: *replica, hard_state, boundary, install: None, last, held: VecDeque::new() };
            self.rows.insert(shard, row);
            return Ok(());
        }
        let row = self.rows.get_mut(&shard).ok_or("a record of a shard that has no replica here")?;
        match record {
            Record::Entry { entry, .. } => row.apply_entry(entry.index, segment)?,
            Record::HardState { hard_state, .. } => row.apply_hard_state(hard_state)?,
            Record::Boundary { boundary, .. } => row.apply_boundary(boundary)?,
            Record::Install { install, .. } => row.apply_install(install)?,
            Record::Tombstone { replica, .. } => {
                if *replica != row.replica {
                    return Err("a tombstone of another replica than the shard's");
                }
                self.rows.remove(&shard);
                self.tombstones.insert(*replica, shard);
            }
            Record::Create { .. } => unreachable!("creations are taken in above"),
        }
        Ok(())
    }

    /// Appends its encoding.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.rows.len() as u64);
        for (shard, row) in &self.rows {
            put_varint(out, shard.0);
            put_varint(out, row.replica.0);
            put_hard_state(out, &row.hard_state);
            put_boundary(out, &row.boundary);
            put_varint(out, row.last.0);
            put_u8(out, u8::from(row.install.is_some()));
            if let Some(install) = &row.install {
                put_install(out, install);
            }
        }
        put_varint(out, self.tombstones.len() as u64);
        for (replica, shard) in &self.tombstones {
            put_varint(out, replica.0);
            put_varint(out, shard.0);
        }
    }

    /// Reads what [`Table::encode`] wrote.
    ///
    /// # Errors
    /// If the bytes are not a table.
    pub(crate) fn decode(payload: Bytes) -> Result<Self, CodecError> {
        let mut reader = Reader::new(payload);
        let mut table = Self::default();
        for _ in 0..reader.count(10)? {
            let shard = ShardId(reader.varint()?);
            let row = Row {
                replica: ReplicaId(reader.varint()?),
                hard_state: read_hard_state(&mut reader)?,
                boundary: read_boundary(&mut reader)?,
                last: LogIndex(reader.varint()?),
                install: if reader.bool()? { Some(read_install(&mut reader)?) } else { None },
                held: VecDeque::new(),
            };
            if row.last < row.boundary.index || row.hard_state.commit > row.last {
                return Err(CodecError("a last entry at or above boundary and commit index"));
            }
            table.rows.insert(shard, row);
        }
        for _ in 0..reader.count(2)? {
            table.tombstones.insert(ReplicaId(reader.varint()?), ShardId(reader.varint()?));
        }
        reader.finish()?;
        Ok(table)
    }
}

impl Row {
    fn apply_entry(&mut self, index: LogIndex, segment: SegmentNumber) -> Result<(), &'static str> {
        if index <= self.boundary.index {
            return Err("an entry at or below the shard's boundary");
        }
        if index.0 - 1 > self.last.0 {
            return Err("an entry that leaves a gap behind the shard's last");
        }
        // What it overwrites is dead, in whatever segment it stands.
        while let Some((held, last)) = self.held.pop_back() {
            point!(OverwroteAcrossSegments if last >= index && held < segment);
            if last < index {
                self.held.push_back((held, last));
                break;
            }
            let below = self.held.back().map_or(self.boundary.index, |(_, last)| *last);
            if below.0 < index.0 - 1 {
                self.held.push_back((held, LogIndex(index.0 - 1)));
                break;
            }
        }
        match self.held.back_mut() {
            Some((held, last)) if *held == segment => *last = index,
            _ => self.held.push_back((segment, index)),
        }
        self.last = index;
        Ok(())
    }

    fn apply_hard_state(&mut self, new: &HardState) -> Result<(), &'static str> {
        let old = &self.hard_state;
        if new.term < old.term {
            return Err("a term below the one stated before");
        }
        if new.term == old.term && old.vote != ReplicaId(0) && new.vote != old.vote {
            return Err("a second vote in one term");
        }
        self.hard_state = *new;
        Ok(())
    }

    fn apply_boundary(&mut self, new: &Boundary) -> Result<(), &'static str> {
        if new.index < self.boundary.index {
            return Err("a boundary below the one stated before");
        }
        if new.index > self.last {
            return Err("a boundary above the shard's last entry");
        }
        // A boundary says that a checkpoint at or above it is durable: an install below it is finished.
        if self.install.as_ref().is_some_and(|install| install.index < new.index) {
            self.install = None;
        }
        while self.held.front().is_some_and(|(_, last)| *last <= new.index) {
            self.held.pop_front();
        }
        self.boundary = new.clone();
        Ok(())
    }

    fn apply_install(&mut self, install: &Install) -> Result<(), &'static str> {
        if install.index < self.boundary.index {
            return Err("an install below the shard's boundary");
        }
        let Install { index, term, configuration, .. } = install.clone();
        self.boundary = Boundary { index, term, configuration };
        self.install = Some(install.clone());
        self.last = index;
        self.held.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        log::record::{LogEntry, StagingId},
        types::{Digest, Term},
    };

    fn numbers() -> impl Strategy<Value = u64> {
        prop_oneof![0..6_u64, Just(u64::MAX), Just(u64::MAX - 1)]
    }

    fn records() -> impl Strategy<Value = Record> {
        (0..6, 0..2_u64, numbers(), numbers(), numbers()).prop_map(|(kind, shard, a, b, c)| {
            let (shard, index, term) = (ShardId(shard), LogIndex(a), Term(b));
            let hard_state = HardState { term, vote: ReplicaId(c), commit: LogIndex(c) };
            let boundary = Boundary { index, term, ..Boundary::default() };
            match kind {
                0 => Record::Create { shard, replica: ReplicaId(c), hard_state, boundary },
                1 => Record::HardState { shard, hard_state },
                2 => Record::Boundary { shard, boundary },
                3 => {
                    let (staging, digest) = (StagingId(1), Digest(2));
                    let Boundary { configuration, .. } = boundary;
                    Record::Install { shard, install: Install { index, term, configuration, staging, digest } }
                }
                4 => Record::Tombstone { shard, replica: ReplicaId(c) },
                _ => {
                    let (context, data) = (Bytes::new(), Bytes::new());
                    Record::Entry { shard, entry: LogEntry { index, term, kind: Default::default(), context, data } }
                }
            }
        })
    }

    proptest! {
        #[test]
        fn any_records_are_taken_or_refused_without_a_panic(records in prop::collection::vec(records(), 0..40)) {
            let mut table = Table::default();
            for (number, record) in records.into_iter().enumerate() {
                let before = table.clone();
                if table.apply(&[record], SegmentNumber(number as u64 / 4)).is_err() {
                    table = before;
                }
            }
            let mut bytes = Vec::new();
            table.encode(&mut bytes);
            prop_assert!(Table::decode(bytes.into()).is_ok_and(|read| read.states_the_same(&table)));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            let _ = Table::decode(bytes.into());
        }
    }

    #[test]
    fn nothing_ends_a_log_below_what_is_decided() {
        let shard = ShardId(0);
        let index = |index| Boundary { index: LogIndex(index), ..Boundary::default() };
        let hard_state = HardState { term: Term(1), vote: ReplicaId(1), commit: LogIndex(3) };
        let entry = |index| Record::Entry {
            shard,
            entry: LogEntry {
                index: LogIndex(index),
                term: Term(1),
                kind: Default::default(),
                context: Bytes::new(),
                data: Bytes::new(),
            },
        };
        let mut table = Table::default();
        let create =
            Record::Create { shard, replica: ReplicaId(1), hard_state: HardState::default(), boundary: index(1) };
        let records = [create, entry(2), entry(3), Record::HardState { shard, hard_state }];
        table.apply(&records, SegmentNumber(1)).expect("a log of two entries, both decided");

        assert!(
            table.clone().apply(&[entry(2)], SegmentNumber(1)).is_err(),
            "an entry over a decided one, and no other above"
        );
        let Boundary { index, term, configuration } = index(2);
        let install = Install { index, term, configuration, staging: StagingId(1), digest: Digest(2) };
        assert!(table.clone().apply(&[Record::Install { shard, install }], SegmentNumber(1)).is_err());
        table
            .apply(&[entry(2), entry(3)], SegmentNumber(1))
            .expect("the same entries again, as recovery may read them");
    }
}
