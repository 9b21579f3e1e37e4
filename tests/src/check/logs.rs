//! What each replica's log holds, as told by the batches that it handed to its disk. No property: books for those that need it.

use std::collections::{BTreeMap, VecDeque};

use kv_core::types::{LogIndex, Term};

use super::view::{Fact, Place};

/// One replica's log: a boundary, and the terms of the entries after it.
#[derive(Clone, Debug)]
pub struct Log {
    boundary: (LogIndex, Term),
    terms: VecDeque<Term>,
}

/// The logs of all replicas.
#[derive(Debug, Default)]
pub struct Logs {
    logs: BTreeMap<Place, Log>,
}

impl Default for Log {
    /// Every shard starts as if a snapshot stood at index 1 of term 1.
    fn default() -> Self {
        Self { boundary: (LogIndex(1), Term(1)), terms: VecDeque::new() }
    }
}

impl Log {
    /// The last index.
    #[must_use]
    pub fn last_index(&self) -> LogIndex {
        LogIndex(self.boundary.0.0 + self.terms.len() as u64)
    }

    /// The index on which the log stands.
    #[must_use]
    pub fn boundary(&self) -> LogIndex {
        self.boundary.0
    }

    /// The term of the entry at an index, `None` if it is beyond the end or before the boundary.
    #[must_use]
    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        let place = usize::try_from(index.0.checked_sub(self.boundary.0.0)?).ok()?;
        if place == 0 { Some(self.boundary.1) } else { self.terms.get(place - 1).copied() }
    }

    fn cut_after(&mut self, index: LogIndex) {
        let kept = index.0.saturating_sub(self.boundary.0.0);
        self.terms.truncate(usize::try_from(kept).unwrap_or(usize::MAX));
    }
}

impl Logs {
    /// The log of a replica.
    #[must_use]
    pub fn of(&self, place: Place) -> Option<&Log> {
        self.logs.get(&place)
    }

    /// Keeps the books.
    ///
    /// # Errors
    /// In words, if an entry is not appended to what the log holds, or a log comes back with a gap.
    pub fn see(&mut self, fact: &Fact) -> Result<(), String> {
        match fact {
            Fact::Started { place, boundary, entries, .. } => {
                let terms = entries.iter().map(|entry| entry.term).collect();
                let log = Log { boundary: *boundary, terms };
                let gap = entries.iter().zip(boundary.0.0 + 1..).find(|(entry, index)| entry.index.0 != *index);
                if let Some((entry, index)) = gap {
                    return Err(format!("{place} recovered index {} where {index} stands", entry.index));
                }
                self.logs.insert(*place, log);
            }
            Fact::Installed { place, index, term, .. } => {
                self.logs.insert(*place, Log { boundary: (*index, *term), terms: VecDeque::new() });
            }
            Fact::Appended { place, entry } => {
                let log = self.logs.entry(*place).or_default();
                if entry.index > log.last_index().next() || entry.index <= log.boundary.0 {
                    let (first, last) = (log.boundary.0.next(), log.last_index());
                    return Err(format!("{place} appended index {}, holding {first} to {last}", entry.index));
                }
                log.cut_after(LogIndex(entry.index.0 - 1));
                log.terms.push_back(entry.term);
            }
            _ => {}
        }
        Ok(())
    }
}
