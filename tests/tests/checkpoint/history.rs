//! What the state of a shard is at each of its checkpoints.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use kv_core::{
    configuration::Configuration,
    state::{
        codec::{entry_key, session_key},
        digest::RecordSum,
        record::{Footer, FrozenTable, StateHeader, Table},
    },
    types::{Epoch, Key, LogIndex, Revision, SessionId, Term},
};

/// All records of a state.
pub(crate) type Records = BTreeMap<Bytes, Bytes>;

/// One checkpoint: what changed, and what there is then.
#[derive(Clone)]
pub(crate) struct Point {
    pub(crate) table: FrozenTable,
    pub(crate) footer: Footer,
    pub(crate) records: Records,
}

/// The checkpoints of a shard, the initial state (which has no table) first.
#[derive(Clone)]
pub(crate) struct History {
    pub(crate) points: Vec<Point>,
}

impl History {
    /// So many checkpoints after the initial state, each with so many changes of few keys.
    pub(crate) fn new(seed: u64, checkpoints: usize, changes: usize, value_bytes_max: usize) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut points = vec![point(Table::default(), Records::new(), &header(0))];
        for number in 1..=checkpoints {
            let mut records = points[number - 1].records.clone();
            let mut table = Table::default();
            for change in 0..changes {
                let key = match random.u8(0..8) {
                    0 => session_key(SessionId(random.u64(1..20))),
                    _ => entry_key(&Key::new(format!("key{}", random.usize(0..2 * changes))).expect("it is short")),
                };
                // The first is always a change, so that no two states are equal.
                let value = (change == 0 || random.u8(0..4) > 0).then(|| {
                    let length = random.usize(0..=value_bytes_max);
                    std::iter::repeat_with(|| random.u8(..)).take(length).collect::<Vec<u8>>()
                });
                table.set(&key, value.as_deref());
            }
            for (key, value) in table.sorted() {
                match value {
                    Some(value) => records.insert(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)),
                    None => records.remove(key),
                };
            }
            points.push(point(table, records, &header(number)));
        }
        Self { points }
    }

    /// The checkpoint at an index.
    pub(crate) fn at(&self, index: LogIndex) -> &Point {
        self.points.iter().find(|point| point.footer.header.index == index).expect("an index of no checkpoint")
    }

    /// The index of a checkpoint.
    pub(crate) fn index(&self, number: usize) -> LogIndex {
        self.points[number].footer.header.index
    }

    pub(crate) fn initial(&self) -> StateHeader {
        self.points[0].footer.header.clone()
    }
}

fn point(table: Table, records: Records, header: &StateHeader) -> Point {
    let mut sum = RecordSum::default();
    for (key, value) in &records {
        sum.add(key, value);
    }
    Point { table: Arc::new(table), footer: Footer { digest: sum.digest(header), header: header.clone() }, records }
}

fn header(number: usize) -> StateHeader {
    let number = number as u64;
    StateHeader {
        index: LogIndex(1 + 10 * number),
        term: Term(1 + number / 5),
        epoch: Epoch(1),
        revision: Revision(7 * number),
        last_session: SessionId(20),
        terms: (0..=number / 5).map(|row| (Term(1 + row), LogIndex(1 + 50 * row))).collect(),
        configurations: vec![(LogIndex(1), Configuration::default())],
        ..StateHeader::default()
    }
}
