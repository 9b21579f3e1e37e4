//! When a replica campaigns: our own draw of the election timeout.
//!
//! raft draws from the thread's generator, which no seed can repeat, and reads the value only at a tick. So a value of ours
//! is set before every tick: drawn anew whenever role or term changed and whenever a timeout has passed, as raft would.

use raft::StateRole;

/// raft's limits are fixed when it is made: the least is the election timeout, the most is this.
pub(super) const ELECTION_TICKS_MOST: usize = 1_000_000;

/// A timeout that never passes: for a replica that must not campaign.
const NEVER: usize = ELECTION_TICKS_MOST - 1;

/// Draws election timeouts from a seed.
#[derive(Debug)]
pub(super) struct ElectionClock {
    random: u64,
    election_ticks: usize,
    seen: Option<(StateRole, u64)>,
    drawn: usize,
}

/// How eager a replica is to lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Eagerness {
    /// It campaigns after 1 to 2 election timeouts.
    Ready,
    /// Its state is not proven yet: it leaves the others the first chance, and campaigns after 2 to 4.
    Unverified,
    /// It must not campaign at all: a snapshot is being taken over.
    Never,
}

impl ElectionClock {
    pub(super) fn new(seed: u64, election_ticks: u64) -> Self {
        let election_ticks = usize::try_from(election_ticks).unwrap_or(10).clamp(1, NEVER / 4);
        Self { random: seed | 1, election_ticks, seen: None, drawn: election_ticks }
    }

    /// Forgets the draw: the timeout has passed.
    pub(super) fn redraw(&mut self) {
        self.seen = None;
    }

    /// Whether the timeout for this role and term has been drawn.
    pub(super) fn has_drawn(&self, role: StateRole, term: u64) -> bool {
        self.seen == Some((role, term))
    }

    /// The timeout that was drawn last, as it is for a replica that is ready to lead.
    pub(super) fn drawn_ticks(&self) -> u64 {
        self.drawn as u64
    }

    /// The timeout to set before the next tick.
    pub(super) fn timeout(&mut self, role: StateRole, term: u64, eagerness: Eagerness) -> usize {
        if self.seen != Some((role, term)) {
            self.seen = Some((role, term));
            // xorshift64*: spread is all that is asked of it.
            self.random ^= self.random >> 12;
            self.random ^= self.random << 25;
            self.random ^= self.random >> 27;
            let high = self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
            self.drawn = self.election_ticks + usize::try_from(high).unwrap_or(0) % self.election_ticks;
        }
        match eagerness {
            Eagerness::Ready => self.drawn,
            // [1, 2) becomes [2, 4).
            Eagerness::Unverified => self.drawn * 2,
            Eagerness::Never => NEVER,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_lie_in_their_ranges_and_depend_on_the_seed() {
        let mut clock = ElectionClock::new(7, 10);
        let mut other = ElectionClock::new(8, 10);
        let mut differ = false;
        for term in 0..200 {
            let ready = clock.timeout(StateRole::Follower, term, Eagerness::Ready);
            assert!((10..20).contains(&ready));
            assert_eq!(ready, clock.timeout(StateRole::Follower, term, Eagerness::Ready));
            assert!((20..40).contains(&clock.timeout(StateRole::Follower, term, Eagerness::Unverified)));
            differ |= ready != other.timeout(StateRole::Follower, term, Eagerness::Ready);
        }
        assert!(differ);
        assert_eq!(clock.timeout(StateRole::Follower, 1, Eagerness::Never), NEVER);
    }
}
