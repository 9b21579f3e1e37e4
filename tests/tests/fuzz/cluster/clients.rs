//! What clients wrote and read, and whether the answers may be so.
//!
//! Each shard has one key, and each write of it a value of its own, so that a value says who wrote it. Of every answer, whatever
//! was lied: it holds a value that somebody asked to be written, to that key. Of a shard that is *judged*, which is one that no
//! lie may have touched: a revision never stands for two values; a linearizable read is no older than anything that was
//! acknowledged, or read by such a read, before it was asked; and one of bounded age is as new as it says, and as was asked for.

use std::collections::{BTreeMap, BTreeSet};

use kv_core::{
    error::Error,
    io::{Answer, Consistency, Operation},
    types::{Entry, Key, RequestId, Revision, ShardId, Time, Value},
};

/// What is asked of a shard's key.
#[derive(Clone, Copy, Debug)]
struct Asked {
    shard: ShardId,
    /// `None` for a write.
    read: Option<Consistency>,
    /// What everybody knew to be there by then.
    known: Revision,
}

#[derive(Default)]
pub(super) struct Clients {
    last: u64,
    open: BTreeMap<RequestId, Asked>,
    /// Every write, by its number, which is its value too.
    writes: BTreeMap<RequestId, ShardId>,
    /// Writes that were acknowledged.
    pub(super) written: BTreeMap<RequestId, Revision>,
    /// Reads that were answered, with what they saw.
    pub(super) read: BTreeMap<RequestId, Revision>,
    registers: BTreeMap<ShardId, Register>,
    judged: BTreeSet<ShardId>,
    /// Answers to reads of judged shards, each found to be right.
    pub(super) reads_judged: u64,
}

/// A shard's key.
#[derive(Default)]
struct Register {
    /// Who wrote what stands there at a revision, as far as anybody was told.
    written_by: BTreeMap<Revision, RequestId>,
    /// The newest revision that was acknowledged or read, and since when.
    known: Vec<(Time, Revision)>,
}

impl Register {
    fn known(&self) -> Revision {
        self.known.last().map_or(Revision(0), |(_, revision)| *revision)
    }

    /// What was known before this time.
    fn known_before(&self, time: Time) -> Revision {
        let known = self.known.iter().rev().find(|(since, _)| *since < time);
        known.map_or(Revision(0), |(_, revision)| *revision)
    }

    fn note(&mut self, revision: Revision, by: RequestId) {
        let first = *self.written_by.entry(revision).or_insert(by);
        assert_eq!(first, by, "two values at revision {revision}");
    }

    fn learn(&mut self, revision: Revision, now: Time) {
        if revision > self.known() {
            self.known.push((now, revision));
        }
    }
}

impl Clients {
    /// From now on answers of this shard must be right.
    pub(super) fn judge(&mut self, shard: ShardId) {
        self.judged.insert(shard);
        // What was told before may have been lies.
        self.registers.remove(&shard);
        self.open.retain(|_, asked| asked.shard != shard);
    }

    /// Something new to ask, and its number.
    pub(super) fn ask(
        &mut self,
        shard: ShardId,
        read: Option<Consistency>,
        operation: impl FnOnce(RequestId) -> Operation,
    ) -> (RequestId, Operation) {
        self.last += 1;
        let id = RequestId(self.last);
        if read.is_none() {
            self.writes.insert(id, shard);
        }
        let known = self.registers.get(&shard).map_or(Revision(0), Register::known);
        self.open.insert(id, Asked { shard, read, known });
        (id, operation(id))
    }

    /// A value of at least so many bytes, which says whose it is.
    pub(super) fn value(by: RequestId, bytes: usize) -> Value {
        let mut value = by.0.to_le_bytes().to_vec();
        value.resize(bytes.max(8), 1);
        Value::new(value).unwrap()
    }

    fn writer(entry: Option<&Entry>) -> (Revision, RequestId) {
        entry.map_or((Revision(0), RequestId(0)), |entry| {
            let number = entry.value.as_bytes().first_chunk().map_or(u64::MAX, |bytes| u64::from_le_bytes(*bytes));
            (entry.revision, RequestId(number))
        })
    }

    /// A request was answered.
    pub(super) fn answered(&mut self, id: RequestId, result: &Result<Answer, Error>, now: Time) {
        let Some(asked) = self.open.remove(&id) else { return };
        let judged = self.judged.contains(&asked.shard);
        match (result, asked.read) {
            (Ok(Answer::Written { revision, .. }), None) => {
                self.written.insert(id, *revision);
                if judged {
                    let register = self.registers.entry(asked.shard).or_default();
                    register.note(*revision, id);
                    register.learn(*revision, now);
                }
            }
            (Ok(Answer::Got { entry, age_micros, .. }), Some(wanted)) => {
                let (revision, by) = Self::writer(entry.as_ref());
                let is_ours = by == RequestId(0) || self.writes.get(&by) == Some(&asked.shard);
                assert!(is_ours, "a read of shard {} saw what nobody wrote there: {entry:?}", asked.shard);
                if judged {
                    self.judge_read(asked, wanted, (revision, by), *age_micros, now);
                }
                self.read.insert(id, revision);
            }
            // An error says nothing of what is there.
            (Err(_), _) => {}
            (Ok(answer), _) => panic!("{asked:?} was answered with {answer:?}"),
        }
    }

    fn judge_read(
        &mut self,
        asked: Asked,
        wanted: Consistency,
        (revision, by): (Revision, RequestId),
        age_micros: Option<u64>,
        now: Time,
    ) {
        self.reads_judged += 1;
        let register = self.registers.entry(asked.shard).or_default();
        register.note(revision, by);
        let due = match wanted {
            Consistency::Linearizable => asked.known,
            Consistency::Bounded { age_micros_max } => {
                let age = age_micros.expect("an age that is bounded is known");
                assert!(age <= age_micros_max, "of shard {} a state of {age} us is shown", asked.shard);
                register.known_before(now.minus_micros(age))
            }
            Consistency::Stale => age_micros.map_or(Revision(0), |age| register.known_before(now.minus_micros(age))),
        };
        assert!(revision >= due, "{asked:?} saw revision {revision} where {due} was known");
        if wanted == Consistency::Linearizable {
            register.learn(revision, now);
        }
    }

    /// The shard's requests that nobody has answered.
    pub(super) fn open(&self, shard: ShardId) -> usize {
        self.open.values().filter(|asked| asked.shard == shard).count()
    }
}

/// The first of these names that lies on a shard.
pub(super) fn key_in(contains: impl Fn(&[u8]) -> bool) -> Key {
    let mut names = (0_u32..).map(|number| format!("key{number}"));
    Key::new(names.find(|name| contains(name.as_bytes())).expect("names without end")).unwrap()
}
