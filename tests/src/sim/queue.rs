//! What is to happen, in the order in which it will.
//!
//! Two events at the same microsecond happen in the order in which they were scheduled, so that a run has one order.

use std::{cmp::Ordering, collections::BinaryHeap};

use fastrand::Rng;

/// Events by time, then by the order of scheduling.
#[derive(Debug)]
pub struct Queue<E> {
    heap: BinaryHeap<Scheduled<E>>,
    scheduled: u64,
}

#[derive(Debug)]
struct Scheduled<E> {
    at: u64,
    sequence: u64,
    event: E,
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), scheduled: 0 }
    }
}

impl<E> Queue<E> {
    /// Schedules an event for a time in microseconds.
    pub fn push(&mut self, at: u64, event: E) {
        self.scheduled += 1;
        self.heap.push(Scheduled { at, sequence: self.scheduled, event });
    }

    /// Schedules what happens by chance, so often in a simulated minute; nothing if that is never.
    pub fn push_by_chance(&mut self, now: u64, rng: &mut Rng, often: f64, event: E) {
        if often > 0.0 {
            let after = -60_000_000.0 / often * (1.0 - rng.f64()).ln();
            self.push(now + after as u64 + 1, event);
        }
    }

    /// Takes the next event with its time.
    pub fn pop(&mut self) -> Option<(u64, E)> {
        self.heap.pop().map(|next| (next.at, next.event))
    }

    /// The time of the next event.
    #[must_use]
    pub fn next_at(&self) -> Option<u64> {
        self.heap.peek().map(|next| next.at)
    }
}

impl<E> Ord for Scheduled<E> {
    /// The earliest is the greatest: `BinaryHeap` gives the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

impl<E> PartialOrd for Scheduled<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Scheduled<E> {
    fn eq(&self, other: &Self) -> bool {
        self.sequence == other.sequence
    }
}

impl<E> Eq for Scheduled<E> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_in_the_order_of_scheduling() {
        let mut queue = Queue::default();
        for (at, event) in [(5, 'a'), (3, 'b'), (5, 'c'), (3, 'd')] {
            queue.push(at, event);
        }
        assert_eq!(queue.next_at(), Some(3));
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, [(3, 'b'), (3, 'd'), (5, 'a'), (5, 'c')]);
    }
}
