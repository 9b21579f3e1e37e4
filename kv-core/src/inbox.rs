//! What waits for a node's next turn, and what is turned away at the door.
//!
//! Three kinds wait: what the node itself has asked for (a synced batch, a tick, a finished job), peers' messages, and clients'
//! requests. What all fits into one turn is taken in the order in which it came. When it does not, load must not cost an
//! election: the node's own goes first, then peers' messages, and requests take the room that is left, a quarter of a turn
//! at least.
//!
//! Every queue has a bound. Requests are refused past [`Limits::requests_max`] and [`Limits::requests_bytes_max`], and those
//! that have waited for longer than [`Limits::wait_micros_max`], or beyond their deadline, are given back when their turn comes,
//! and take no room of it: whoever asked is about to ask again or has given up, and a node that works off what nobody waits
//! for does nothing of use. A peer's connection is not read while [`Limits::peer_bytes_max`] wait. What the node itself has
//! asked for is always taken; it bounds that by asking.
//!
//! *Left out*: fairness between clients, which a stream's bound of outstanding operations has to give.

use std::collections::VecDeque;

use crate::types::Time;

/// The bounds of an inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests that wait for a turn. Past it a request is refused as overloaded.
    pub requests_max: usize,
    /// Bytes of requests that wait for a turn. While so many do a request is refused as overloaded; what is over is one
    /// client's message at most.
    pub requests_bytes_max: usize,
    /// How long a request may wait for a turn, in microseconds, before it is given back. Below the second after which a
    /// client asks again.
    pub wait_micros_max: u64,
    /// Bytes of peers' messages that wait for a turn. Past it no connection is read.
    pub peer_bytes_max: usize,
    /// Most inputs of one turn.
    pub turn_inputs_max: usize,
    /// Bytes of inputs after which a turn takes no more.
    pub turn_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: usize = 1024 * 1024;
        Self {
            requests_max: 65_536,
            requests_bytes_max: 64 * MIB,
            wait_micros_max: 500_000,
            peer_bytes_max: 32 * MIB,
            turn_inputs_max: 4_096,
            turn_bytes_max: 4 * MIB,
        }
    }
}

/// The queue. `E` is what waits.
#[derive(Debug)]
pub struct Inbox<E> {
    limits: Limits,
    /// Counts what came, for the order.
    came: u64,
    own: VecDeque<Waiting<E>>,
    peers: VecDeque<Waiting<E>>,
    requests: VecDeque<Waiting<E>>,
    peer_bytes: usize,
    request_bytes: usize,
    /// All of them.
    bytes: usize,
}

#[derive(Debug)]
struct Waiting<E> {
    came: u64,
    /// When nobody waits for it any more.
    until: Time,
    bytes: usize,
    event: E,
}

impl<E> Default for Inbox<E> {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl<E> Inbox<E> {
    /// An empty one.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            came: 0,
            own: VecDeque::new(),
            peers: VecDeque::new(),
            requests: VecDeque::new(),
            peer_bytes: 0,
            request_bytes: 0,
            bytes: 0,
        }
    }

    /// Puts in what the node itself has asked for, or what is rare.
    pub fn push(&mut self, event: E) {
        let waiting = self.waiting(Time(u64::MAX), 0, event);
        self.own.push_back(waiting);
    }

    /// Whether there is room for a peer's message; if not, its connection must not be read.
    #[must_use]
    pub fn has_room_for_peers(&self) -> bool {
        self.peer_bytes < self.limits.peer_bytes_max
    }

    /// Puts in a peer's message of so many bytes.
    pub fn push_peer(&mut self, bytes: usize, event: E) {
        self.peer_bytes += bytes;
        let waiting = self.waiting(Time(u64::MAX), bytes, event);
        self.peers.push_back(waiting);
    }

    /// Whether there is room for so many requests more; if not, they are to be refused as overloaded.
    #[must_use]
    pub fn has_room_for_requests(&self, count: usize) -> bool {
        self.requests.len() + count <= self.limits.requests_max && self.request_bytes < self.limits.requests_bytes_max
    }

    /// Puts in a client's request of so many bytes, for which its client waits until its deadline.
    pub fn push_request(&mut self, now: Time, deadline: Time, bytes: usize, event: E) {
        self.request_bytes += bytes;
        let until = deadline.min(now.plus_micros(self.limits.wait_micros_max));
        let waiting = self.waiting(until, bytes, event);
        self.requests.push_back(waiting);
    }

    /// Takes out what one turn takes, and requests that have waited too long, to be refused: they take no room of the turn's.
    /// True if nothing is left.
    pub fn take(&mut self, now: Time, into: &mut Vec<E>, late: &mut Vec<E>) -> bool {
        let Limits { turn_inputs_max, turn_bytes_max, .. } = self.limits;
        self.turn_away(now, late);
        if self.len() <= turn_inputs_max && self.bytes <= turn_bytes_max {
            self.take_all(now, into, late);
            return true;
        }
        point!(TurnCut);
        let mut room = Room { inputs: turn_inputs_max, bytes: turn_bytes_max };
        // A flood of requests goes first, and the rest waits for whatever room it leaves.
        let flood = if crate::mutant!("B42") { room.fill(&mut self.requests, into, 0) } else { 0 };
        let own = room.fill(&mut self.own, into, 0);
        let peers = room.fill(&mut self.peers, into, 4);
        self.bytes -= flood + own + peers;
        self.peer_bytes -= peers;
        self.request_bytes -= flood;
        while room.is_left() {
            let Some(first) = self.pop_request() else { break };
            room.take(first.bytes);
            into.push(first.event);
            self.turn_away(now, late);
        }
        self.is_empty()
    }

    /// How many events wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.own.len() + self.peers.len() + self.requests.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many requests wait.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.requests.len()
    }

    /// What of the node's own waits.
    pub fn own(&self) -> impl Iterator<Item = &E> {
        self.own.iter().map(|waiting| &waiting.event)
    }

    fn waiting(&mut self, until: Time, bytes: usize, event: E) -> Waiting<E> {
        self.came += 1;
        self.bytes += bytes;
        Waiting { came: self.came, until, bytes, event }
    }

    /// Takes out those at the front for which nobody waits any more.
    fn turn_away(&mut self, now: Time, late: &mut Vec<E>) {
        while self.requests.front().is_some_and(|first| first.until < now) {
            point!(RequestWaitedTooLong);
            late.extend(self.pop_request().map(|first| first.event));
        }
    }

    fn pop_request(&mut self) -> Option<Waiting<E>> {
        let first = self.requests.pop_front()?;
        self.bytes -= first.bytes;
        self.request_bytes -= first.bytes;
        Some(first)
    }

    /// Takes everything in the order in which it came.
    fn take_all(&mut self, now: Time, into: &mut Vec<E>, late: &mut Vec<E>) {
        let came = |queue: &VecDeque<Waiting<E>>| queue.front().map_or(u64::MAX, |first| first.came);
        loop {
            let (own, peers, requests) = (came(&self.own), came(&self.peers), came(&self.requests));
            let first = own.min(peers).min(requests);
            let queue = match first {
                u64::MAX => break,
                _ if first == own => &mut self.own,
                _ if first == peers => &mut self.peers,
                _ => &mut self.requests,
            };
            let Some(waiting) = queue.pop_front() else { break };
            if waiting.until < now { &mut *late } else { &mut *into }.push(waiting.event);
        }
        (self.bytes, self.peer_bytes, self.request_bytes) = (0, 0, 0);
    }
}

/// What a turn can still take.
struct Room {
    inputs: usize,
    bytes: usize,
}

impl Room {
    /// Takes from a queue while there is room, leaving one part in so many for others if that is not 0. Gives the
    /// bytes of what was taken; one event is taken however large it is, if there is any room.
    fn fill<E>(&mut self, queue: &mut VecDeque<Waiting<E>>, into: &mut Vec<E>, part_left: usize) -> usize {
        let left = |all: usize| all.checked_div(part_left).unwrap_or(0);
        let (inputs_left, bytes_left) = (left(self.inputs), left(self.bytes));
        let mut bytes = 0;
        while self.inputs > inputs_left && self.bytes > bytes_left {
            let Some(first) = queue.pop_front() else { break };
            self.take(first.bytes);
            bytes += first.bytes;
            into.push(first.event);
        }
        bytes
    }

    fn is_left(&self) -> bool {
        self.inputs > 0 && self.bytes > 0
    }

    fn take(&mut self, bytes: usize) {
        self.inputs -= 1;
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        requests_max: 6,
        requests_bytes_max: 2_000,
        wait_micros_max: 100,
        peer_bytes_max: 50,
        turn_inputs_max: 8,
        turn_bytes_max: 1_000,
    };

    const NEVER: Time = Time(u64::MAX);

    fn taken(inbox: &mut Inbox<char>, now: u64) -> (String, String, bool) {
        let (mut into, mut late) = (Vec::new(), Vec::new());
        let is_empty = inbox.take(Time(now), &mut into, &mut late);
        (into.into_iter().collect(), late.into_iter().collect(), is_empty)
    }

    #[test]
    fn what_fits_is_taken_in_the_order_in_which_it_came() {
        let mut inbox = Inbox::new(LIMITS);
        inbox.push_request(Time(0), NEVER, 1, 'r');
        inbox.push('o');
        inbox.push_peer(1, 'p');
        inbox.push_request(Time(0), NEVER, 1, 's');
        inbox.push('n');
        assert_eq!(taken(&mut inbox, 1), ("ropsn".into(), String::new(), true));
        assert_eq!(taken(&mut inbox, 1), (String::new(), String::new(), true));
    }

    #[test]
    fn what_does_not_fit_is_taken_own_first_and_requests_get_a_part() {
        let mut inbox = Inbox::new(LIMITS);
        (0..6).for_each(|_| inbox.push_request(Time(0), NEVER, 1, 'r'));
        (0..9).for_each(|_| inbox.push_peer(1, 'p'));
        (0..4).for_each(|_| inbox.push('o'));
        assert_eq!(taken(&mut inbox, 1), ("oooopppr".into(), String::new(), false));
        assert_eq!(taken(&mut inbox, 1), ("pppppprr".into(), String::new(), false));
        assert_eq!(taken(&mut inbox, 1), ("rrr".into(), String::new(), true));
    }

    #[test]
    fn a_turn_is_bounded_in_bytes_but_takes_something() {
        let mut inbox = Inbox::new(LIMITS);
        inbox.push_peer(5_000, 'p');
        inbox.push_peer(600, 'q');
        inbox.push_request(Time(0), NEVER, 600, 'r');
        assert!(!inbox.has_room_for_peers());
        assert_eq!(taken(&mut inbox, 1), ("p".into(), String::new(), false));
        assert!(!inbox.has_room_for_peers());
        assert_eq!(taken(&mut inbox, 1), ("qr".into(), String::new(), true));
        assert!(inbox.has_room_for_peers());
    }

    #[test]
    fn requests_past_the_bound_or_too_old_are_turned_away() {
        let mut inbox = Inbox::new(LIMITS);
        (0..6).for_each(|at| inbox.push_request(Time(at * 30), NEVER, 1, 'r'));
        assert!(!inbox.has_room_for_requests(1));
        // Asked at 0, 30, .. 150; those of before 60 have waited for more than 100.
        assert_eq!(taken(&mut inbox, 160), ("rrrr".into(), "rr".into(), true));
        assert!(inbox.has_room_for_requests(6) && !inbox.has_room_for_requests(7));
    }

    #[test]
    fn requests_whose_deadline_has_passed_take_no_room_of_a_turn() {
        let mut inbox = Inbox::new(LIMITS);
        for (name, deadline) in [('a', 60), ('b', 10), ('c', 60), ('d', 20), ('e', 49)] {
            inbox.push_request(Time(0), Time(deadline), 300, name);
        }
        inbox.push_request(Time(50), NEVER, 300, 'f');
        // 1,800 bytes do not fit into a turn; four that somebody waits for begin within one.
        assert_eq!(taken(&mut inbox, 50), ("acf".into(), "bde".into(), true));
        assert!(inbox.has_room_for_requests(6));
        // What was due at this very moment is looked at.
        inbox.push_request(Time(50), Time(60), 1, 'g');
        assert_eq!(taken(&mut inbox, 60), ("g".into(), String::new(), true));
    }

    #[test]
    fn requests_are_bounded_in_bytes_and_room_comes_back_however_they_leave() {
        let mut inbox = Inbox::new(LIMITS);
        assert!(inbox.has_room_for_requests(1), "one is taken however large it is");
        inbox.push_request(Time(0), NEVER, 1_999, 'r');
        assert!(inbox.has_room_for_requests(1));
        inbox.push_request(Time(50), NEVER, 900, 's');
        inbox.push_request(Time(50), NEVER, 900, 't');
        assert!(!inbox.has_room_for_requests(1));
        // The first has waited too long; of the others a turn takes what begins within its bytes.
        assert_eq!(taken(&mut inbox, 101), ("st".into(), "r".into(), true));
        assert!(inbox.has_room_for_requests(6));
        inbox.push_request(Time(200), NEVER, 2_000, 'u');
        assert!(!inbox.has_room_for_requests(1));
        assert_eq!(taken(&mut inbox, 201), ("u".into(), String::new(), true));
        inbox.push_request(Time(201), NEVER, 500, 'v');
        assert_eq!(taken(&mut inbox, 202), ("v".into(), String::new(), true));
        assert!(inbox.has_room_for_requests(6));
    }
}
