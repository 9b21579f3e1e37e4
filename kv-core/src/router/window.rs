//! The open sequences of one session, at its client.
//!
//! A write takes the next sequence and keeps it through all its sendings; when it is over, however it ended, the sequence is
//! closed. Each sending carries the floor: the lowest sequence still open, below which the shard may forget outcomes. A
//! sequence is never given twice, and the floor never passes one that is open.

use std::collections::VecDeque;

use crate::types::Sequence;

/// Most sequences from the floor on. A write beyond waits until the floor has moved: a shard remembers no more.
pub const WINDOW_MAX: usize = 1_024;

/// A session's open sequences.
#[derive(Clone, Debug)]
pub struct Window {
    count_max: usize,
    /// Sequences below `closed + 1` are closed; that is the floor.
    closed: u64,
    /// Whether each sequence from the floor on is open; the first always is.
    open: VecDeque<bool>,
}

impl Default for Window {
    fn default() -> Self {
        Self::of(WINDOW_MAX)
    }
}

impl Window {
    /// A window of so many sequences: [`WINDOW_MAX`] everywhere but in simulations, whose shards may remember fewer.
    #[must_use]
    pub fn of(count_max: usize) -> Self {
        Self { count_max, closed: 0, open: VecDeque::new() }
    }

    /// Takes the next sequence; `None` if there is no room.
    #[must_use]
    pub fn take(&mut self) -> Option<Sequence> {
        if self.is_full() {
            return None;
        }
        self.open.push_back(true);
        Some(Sequence(self.closed + self.open.len() as u64))
    }

    /// A write is over. Nothing is done for a sequence that is closed or was never given.
    pub fn close(&mut self, sequence: Sequence) {
        let offset = sequence.0.checked_sub(self.closed + 1).and_then(|offset| usize::try_from(offset).ok());
        if let Some(open) = offset.and_then(|offset| self.open.get_mut(offset)) {
            *open = false;
        }
        while self.open.front() == Some(&false) {
            self.open.pop_front();
            self.closed += 1;
        }
    }

    /// The lowest open sequence, or the next one if none is open: what a sending carries now.
    #[must_use]
    pub fn floor(&self) -> Sequence {
        Sequence(self.closed + 1)
    }

    /// Whether a further write has to wait.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.open.len() >= self.count_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_is_the_lowest_open_sequence() {
        let mut window = Window::default();
        assert_eq!(window.floor(), Sequence(1));
        let given: Vec<_> = (0..4).map(|_| window.take().unwrap().0).collect();
        assert_eq!(given, [1, 2, 3, 4]);
        window.close(Sequence(2));
        assert_eq!(window.floor(), Sequence(1));
        window.close(Sequence(1));
        assert_eq!(window.floor(), Sequence(3));
        for closed_or_never_given in [0, 1, 2, 5, u64::MAX] {
            window.close(Sequence(closed_or_never_given));
            assert_eq!(window.floor(), Sequence(3));
        }
        window.close(Sequence(3));
        window.close(Sequence(4));
        assert_eq!((window.floor(), window.take()), (Sequence(5), Some(Sequence(5))));
    }

    #[test]
    fn a_full_window_has_room_when_its_floor_moves() {
        let mut window = Window::default();
        (0..WINDOW_MAX).for_each(|_| assert!(window.take().is_some()));
        assert!(window.is_full() && window.take().is_none());
        window.close(Sequence(2));
        assert!(window.take().is_none(), "the floor has not moved");
        window.close(Sequence(1));
        assert_eq!((window.floor(), window.take()), (Sequence(3), Some(Sequence(WINDOW_MAX as u64 + 1))));
    }
}
