//! Gathers the records of all shards into blocks: one write and one sync for whatever the turns since the last one produced.
//!
//! At most one block is at the log; what is gathered meanwhile is the next. A block takes at most
//! [`crate::settings::Settings::block_bytes_max`], the rest waits for the one after. Order is kept.

use std::collections::VecDeque;

use crate::{
    log::record::{LogBatch, Record},
    types::BatchNumber,
};

#[derive(Debug)]
pub(crate) struct Batcher {
    block_bytes_max: usize,
    next: BatchNumber,
    waiting: VecDeque<LogBatch>,
    last_bytes: usize,
    in_flight: Option<BatchNumber>,
    in_flight_ticks: u64,
}

impl Batcher {
    pub(crate) fn new(block_bytes_max: usize) -> Self {
        Self {
            block_bytes_max,
            next: BatchNumber(1),
            waiting: VecDeque::new(),
            last_bytes: 0,
            in_flight: None,
            in_flight_ticks: 0,
        }
    }

    /// Adds records, in one block if they fit into one, and tells the block that holds the last of them.
    pub(crate) fn push(&mut self, records: Vec<Record>) -> BatchNumber {
        let bytes: usize = records.iter().map(Record::bytes_about).sum();
        if self.waiting.is_empty() || self.last_bytes + bytes > self.block_bytes_max {
            self.open_block();
        }
        if self.last_bytes + bytes <= self.block_bytes_max {
            self.last_bytes += bytes;
            let block = self.waiting.back_mut().expect("a block is open");
            block.records.extend(records);
            return block.number;
        }
        for record in records {
            let bytes = record.bytes_about();
            if self.last_bytes + bytes > self.block_bytes_max && self.last_bytes > 0 {
                point!(RecordsCut);
                self.open_block();
            }
            self.last_bytes += bytes;
            self.waiting.back_mut().expect("a block is open").records.push(record);
        }
        self.waiting.back().expect("a block is open").number
    }

    fn open_block(&mut self) {
        self.waiting.push_back(LogBatch { number: self.next, records: Vec::new() });
        self.next = self.next.next();
        self.last_bytes = 0;
    }

    /// Whether nothing is written, and nothing waits to be.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight.is_none() && self.waiting.is_empty()
    }

    /// The next block to write, if none is being written.
    pub(crate) fn emit(&mut self) -> Option<LogBatch> {
        if self.in_flight.is_some() {
            return None;
        }
        let batch = self.waiting.pop_front()?;
        self.in_flight = Some(batch.number);
        self.in_flight_ticks = 0;
        Some(batch)
    }

    /// The block that is being written is synced.
    pub(crate) fn synced(&mut self, number: BatchNumber) {
        assert_eq!(self.in_flight, Some(number), "the log reports the one block that it was given");
        self.in_flight = None;
    }

    /// For how many ticks the log has been silent about the block given to it, counting this tick.
    pub(crate) fn tick(&mut self) -> u64 {
        if self.in_flight.is_some() {
            self.in_flight_ticks += 1;
            self.in_flight_ticks
        } else {
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        log::record::{EntryKind, LogEntry},
        types::{LogIndex, ShardId, Term},
    };
    use bytes::Bytes;

    const BLOCK_BYTES: usize = 64 * 1024;

    fn record(index: u64, bytes: usize) -> Record {
        Record::Entry {
            shard: ShardId(1),
            entry: LogEntry {
                index: LogIndex(index),
                term: Term(1),
                kind: EntryKind::Commands,
                context: Bytes::new(),
                data: vec![0; bytes].into(),
            },
        }
    }

    #[test]
    fn one_block_is_at_the_log_and_the_rest_waits_in_order() {
        let mut batcher = Batcher::new(BLOCK_BYTES);
        assert_eq!(batcher.push(vec![record(1, 10)]), BatchNumber(1));
        assert_eq!(batcher.push(vec![record(2, 10)]), BatchNumber(1));
        let first = batcher.emit().unwrap();
        assert_eq!(first.records.len(), 2);
        assert_eq!(batcher.push(vec![record(3, 10)]), BatchNumber(2));
        assert_eq!(batcher.emit(), None);
        batcher.synced(first.number);
        assert_eq!(batcher.emit().unwrap().records, vec![record(3, 10)]);
    }

    #[test]
    fn what_does_not_fit_into_a_block_is_the_next_one() {
        let mut batcher = Batcher::new(BLOCK_BYTES);
        let half = BLOCK_BYTES / 2 - 100;
        let last = batcher.push(vec![record(1, half), record(2, half), record(3, half)]);
        assert_eq!(last, BatchNumber(2));
        assert_eq!(batcher.emit().unwrap().records.len(), 2);
        batcher.synced(BatchNumber(1));
        assert_eq!(batcher.emit().unwrap().records.len(), 1);
    }
}
