//! What a key may hold, and the violations.
//!
//! The writes to a key are a line: one writer, one at a time, numbered. So a linearizable read that was called when `floor`
//! was the newest number acknowledged or seen must return a number from `floor` to the newest issued, one that was not
//! answered "not applied", and never an unknown one from before another that was acknowledged (`floor` sees to that). Its
//! revision must be the one that the writer was told.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use kv_client::{Entry, Revision};

/// More violations are counted, not kept.
const VIOLATIONS_MAX: usize = 20;

/// A key of the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    /// The task that writes it.
    pub(crate) writer: u64,
    /// Its number among the writer's keys.
    pub(crate) number: u64,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "torture/{}/{}", self.writer, self.number)
    }
}

/// What a writer was told of a write.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Written {
    Acknowledged(Option<Revision>),
    Unknown,
    NotApplied,
}

/// A key's history so far.
#[derive(Clone, Debug, Default)]
struct Line {
    issued: u64,
    /// The newest acknowledged number, with its revision.
    acknowledged: Option<(u64, Option<Revision>)>,
    /// The newest number that a read has returned.
    seen: u64,
    not_applied: BTreeSet<u64>,
}

/// What all keys may hold.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    lines: BTreeMap<Key, Line>,
    unknown: u64,
    violations: Vec<String>,
    more: usize,
}

impl Judge {
    /// None of these keys was written yet.
    pub(crate) fn new(keys: impl Iterator<Item = Key>) -> Self {
        Self { lines: keys.map(|key| (key, Line::default())).collect(), ..Self::default() }
    }

    /// All keys.
    pub(crate) fn keys(&self) -> impl Iterator<Item = Key> {
        self.lines.keys().copied()
    }

    /// Writes whose fate the writer was not told.
    pub(crate) fn unknown(&self) -> u64 {
        self.unknown
    }

    /// Writes that certainly did not happen.
    pub(crate) fn not_applied(&self) -> usize {
        self.lines.values().map(|line| line.not_applied.len()).sum()
    }

    /// The next write to a key, which is about to be sent.
    pub(crate) fn issue(&mut self, key: Key) -> u64 {
        let line = self.lines.entry(key).or_default();
        line.issued += 1;
        line.issued
    }

    /// What the writer was told.
    pub(crate) fn written(&mut self, key: Key, number: u64, written: Written) {
        let line = self.lines.entry(key).or_default();
        match written {
            Written::Acknowledged(revision) => {
                let before = line.acknowledged.and_then(|(_, revision)| revision);
                line.acknowledged = Some((number, revision));
                if revision.is_none() || revision <= before {
                    self.violated(format!("{key}: write {number} got revision {revision:?} after {before:?}"));
                }
            }
            Written::Unknown => self.unknown += 1,
            Written::NotApplied => {
                line.not_applied.insert(number);
                if line.seen >= number {
                    self.violated(format!("{key}: write {number} was read and then told not to have been applied"));
                }
            }
        }
    }

    /// What a read that is called now must at least see.
    pub(crate) fn floor(&self, key: Key) -> u64 {
        self.lines.get(&key).map_or(0, |line| line.seen.max(line.acknowledged.map_or(0, |(number, _)| number)))
    }

    /// A read has returned this.
    pub(crate) fn saw(&mut self, key: Key, floor: u64, entry: Option<&Entry>) {
        let number = match entry.map(|entry| std::str::from_utf8(&entry.value).map(str::parse::<u64>)) {
            None => 0,
            Some(Ok(Ok(number))) => number,
            Some(_) => return self.violated(format!("{key} holds {entry:?}, which nobody wrote")),
        };
        let line = self.lines.entry(key).or_default();
        line.seen = line.seen.max(number);
        let told = line.acknowledged.filter(|(acknowledged, _)| *acknowledged == number).and_then(|(_, told)| told);
        let revision = entry.map(|entry| entry.revision);
        let (issued, was_refused) = (line.issued, line.not_applied.contains(&number));
        if number < floor {
            self.violated(format!("{key}: LOST WRITE: it was at {floor} when it was asked for, and {number} was read"));
        } else if number > issued {
            self.violated(format!("{key}: {number} was read, and only {issued} were written"));
        } else if was_refused {
            self.violated(format!("{key}: {number} was read, which was told not to have been applied"));
        } else if told.is_some() && told != revision {
            self.violated(format!("{key}: {number} was written at {told:?} and read at {revision:?}"));
        }
    }

    /// Something else that must not be.
    pub(crate) fn violated(&mut self, violation: String) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(violation);
        } else {
            self.more += 1;
        }
    }

    /// All violations.
    pub(crate) fn verdict(&self) -> Vec<String> {
        let mut violations = self.violations.clone();
        if self.more > 0 {
            violations.push(format!("and {} more", self.more));
        }
        violations
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = Key { writer: 0, number: 0 };

    fn judge(writes: &[Written]) -> Judge {
        let mut judge = Judge::new([KEY].into_iter());
        for written in writes {
            let number = judge.issue(KEY);
            judge.written(KEY, number, *written);
        }
        judge
    }

    fn acknowledged(revision: u64) -> Written {
        Written::Acknowledged(Some(Revision(revision)))
    }

    fn reads(mut judge: Judge, number: Option<u64>, revision: u64) -> usize {
        let floor = judge.floor(KEY);
        let entry = number.map(|number| Entry { value: number.to_string().into(), revision: Revision(revision) });
        judge.saw(KEY, floor, entry.as_ref());
        judge.verdict().len()
    }

    #[test]
    fn the_newest_acknowledged_write_or_an_unknown_one_after_it_is_right() {
        assert_eq!(reads(judge(&[]), None, 0), 0);
        assert_eq!(reads(judge(&[acknowledged(3), acknowledged(4)]), Some(2), 4), 0);
        assert_eq!(reads(judge(&[acknowledged(3), Written::Unknown]), Some(1), 3), 0);
        assert_eq!(reads(judge(&[acknowledged(3), Written::Unknown]), Some(2), 9), 0);
    }

    #[test]
    fn a_lost_a_refused_and_an_invented_write_are_seen() {
        assert_eq!(reads(judge(&[acknowledged(3)]), None, 0), 1);
        assert_eq!(reads(judge(&[acknowledged(3), acknowledged(4)]), Some(1), 3), 1);
        assert_eq!(reads(judge(&[Written::Unknown, acknowledged(4)]), Some(1), 3), 1);
        assert_eq!(reads(judge(&[acknowledged(3), Written::NotApplied]), Some(2), 4), 1);
        assert_eq!(reads(judge(&[acknowledged(3)]), Some(2), 4), 1);
        assert_eq!(reads(judge(&[acknowledged(3)]), Some(1), 4), 1);
    }

    #[test]
    fn what_was_read_once_stays() {
        let mut judge = judge(&[acknowledged(3), Written::Unknown]);
        let floor = judge.floor(KEY);
        judge.saw(KEY, floor, Some(&Entry { value: "2".into(), revision: Revision(4) }));
        assert_eq!(reads(judge, Some(1), 3), 1);
    }

    #[test]
    fn revisions_grow() {
        assert_eq!(judge(&[acknowledged(3), acknowledged(3)]).verdict().len(), 1);
    }
}
