//! The records of a base and the deltas on it, as one ascending stream in which the newest file wins.
//!
//! Reading it to its end proves every file whole, and (with the sum over its records) that together they are the state that
//! the newest footer claims.

use bytes::Bytes;

use crate::{
    checkpoint::{
        context::Slice,
        reader::{Damaged, FileReader},
    },
    disk::FileDisk,
    state::{digest::RecordSum, record::StateHeader},
    types::Digest,
};

/// Files being read side by side, the oldest first.
pub(super) struct Merge {
    readers: Vec<FileReader>,
    sum: RecordSum,
}

impl Merge {
    /// Opens all files.
    pub(super) fn open<F: FileDisk>(files: &mut F, directory: &str, names: &[String]) -> Result<Self, Damaged> {
        let readers = names.iter().map(|name| FileReader::open(files, directory, name)).collect::<Result<_, _>>()?;
        Ok(Self { readers, sum: RecordSum::default() })
    }

    /// The files, the oldest first.
    pub(super) fn readers(&self) -> &[FileReader] {
        &self.readers
    }

    /// Appends the next live records, as many as a slice may have; `true` at the end, when all files are proven.
    pub(super) fn slice<F: FileDisk>(
        &mut self,
        files: &mut F,
        slice: &mut Slice,
        live: &mut Vec<(Bytes, Bytes)>,
    ) -> Result<bool, Damaged> {
        let mut records = Vec::new();
        let is_end = self.slice_with_tombstones(files, slice, &mut records)?;
        live.extend(records.into_iter().filter_map(|(key, value)| Some((key, value?))));
        Ok(is_end)
    }

    /// The same with the keys that the newest file says are gone.
    pub(super) fn slice_with_tombstones<F: FileDisk>(
        &mut self,
        files: &mut F,
        slice: &mut Slice,
        records: &mut Vec<(Bytes, Option<Bytes>)>,
    ) -> Result<bool, Damaged> {
        while !slice.is_full() {
            let Some((key, value)) = self.next(files)? else { return Ok(true) };
            slice.count(&key, value.as_deref());
            if let Some(value) = &value {
                self.sum.add(&key, value);
            }
            records.push((key, value));
        }
        Ok(false)
    }

    /// The digest of all live records handed out so far, under a header.
    pub(super) fn digest(&self, header: &StateHeader) -> Digest {
        self.sum.digest(header)
    }

    /// The next key with its newest record, a tombstone too.
    fn next<F: FileDisk>(&mut self, files: &mut F) -> Result<Option<(Bytes, Option<Bytes>)>, Damaged> {
        let mut newest: Option<(usize, &Bytes)> = None;
        for (number, reader) in self.readers.iter().enumerate() {
            if let Some((key, _)) = reader.head()
                && newest.is_none_or(|(_, least)| key <= least)
            {
                newest = Some((number, key));
            }
        }
        let Some((number, key)) = newest else { return Ok(None) };
        let key = key.clone();
        for older in &mut self.readers[..number] {
            if older.head().is_some_and(|(head, _)| *head == key) {
                older.advance(files)?;
            }
        }
        self.readers[number].advance(files)
    }
}
