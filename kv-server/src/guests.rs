//! Who is connected at a port, and who has to leave so that others can come.
//!
//! A full port must not be closed to those who are honest: whoever holds connections and asks nothing would need nothing more to keep
//! everybody out. So room is made, by these rules, in this order: who has never asked anything leaves first, the oldest before
//! the younger; then who asks nothing now, the longest silent first; then, if one address has more than half of the port, the oldest of
//! its connections, for a newcomer from elsewhere. If nobody has to leave, the newcomer is not let in: it is closed at once, and
//! tries another node.
//!
//! Whoever has not made a call a while after connecting leaves also where there is room: half a handshake, headers that never end,
//! a scanner. A connection that was used may be idle for as long as it answers when it is asked whether it lives.
//!
//! *Leaves out*: who somebody is. All who come through one translator of addresses are one address; they have half of a port at
//! the least.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::time::Instant;

use crate::unread::Reader;

/// Of all connections of a full port so many leave at once if all have asked, so that looking for them does not cost a newcomer
/// each time.
const LEAVE_SHARE: usize = 256;
/// How often those who never ask are looked for.
pub(crate) const SWEEP_PAUSE: Duration = Duration::from_secs(1);

/// What a port bears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Connections at a time. Past it room is made, or newcomers are closed.
    pub(crate) connections_max: usize,
    /// How long a connection may take to its first call. Past it it is closed.
    pub(crate) first_call_wait: Duration,
}

/// The connections of a port.
pub(crate) struct Guests {
    bounds: Bounds,
    /// As they came.
    list: Mutex<VecDeque<Weak<Reader>>>,
}

impl Guests {
    /// Nobody yet.
    pub(crate) fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self { bounds, list: Mutex::default() })
    }

    /// Somebody was let in.
    pub(crate) fn came(&self, reader: &Arc<Reader>) {
        let mut list = self.lock();
        if list.len() >= 2 * self.bounds.connections_max {
            list.retain(|reader| reader.strong_count() > 0);
        }
        list.push_back(Arc::downgrade(reader));
    }

    /// Closes those who have to leave for a newcomer. Says how many.
    pub(crate) fn make_room(&self, newcomer: IpAddr) -> usize {
        if let Some(silent) = self.silent() {
            silent.cut();
            return 1;
        }
        let count = (self.bounds.connections_max / LEAVE_SHARE).max(1);
        let mut here: Vec<_> = self.here().into_iter().filter(|reader| !reader.is_cut()).collect();
        let mut idle: Vec<_> = here.iter().filter(|reader| reader.is_idle()).collect();
        if !idle.is_empty() {
            idle.sort_by_cached_key(|reader| reader.idle_since());
            return cut(idle.into_iter().take(count));
        }
        let mut by_address: HashMap<IpAddr, usize> = HashMap::new();
        for address in here.iter().filter_map(|reader| reader.from()) {
            *by_address.entry(address.ip()).or_default() += 1;
        }
        let most = by_address.into_iter().max_by_key(|(_, connections)| *connections);
        let Some((address, _)) =
            most.filter(|(address, count)| *address != newcomer && *count > self.bounds.connections_max / 2)
        else {
            return 0;
        };
        here.retain(|reader| reader.from().map(|from| from.ip()) == Some(address));
        here.sort_by_key(|reader| reader.idle_since());
        cut(here.iter().take(count))
    }

    /// Closes those who have not asked anything for too long since they came. Says how many.
    pub(crate) fn sweep(&self, now: Instant) -> usize {
        let late = |reader: &Arc<Reader>| {
            !reader.has_asked()
                && now.duration_since(reader.opened()) >= self.bounds.first_call_wait
                && !reader.is_cut()
        };
        cut(self.here().iter().filter(|reader| late(reader)))
    }

    /// The oldest of those who have never asked. It is near the front, where whoever left for others was before it.
    fn silent(&self) -> Option<Arc<Reader>> {
        let mut list = self.lock();
        while list.front().is_some_and(|reader| reader.strong_count() == 0) {
            list.pop_front();
        }
        list.iter().filter_map(Weak::upgrade).find(|reader| !reader.has_asked() && !reader.is_cut())
    }

    fn here(&self) -> Vec<Arc<Reader>> {
        let mut list = self.lock();
        list.retain(|reader| reader.strong_count() > 0);
        list.iter().filter_map(Weak::upgrade).collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Weak<Reader>>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends them, and says how many they were.
fn cut<'a>(readers: impl Iterator<Item = &'a Arc<Reader>>) -> usize {
    readers.map(|reader| reader.cut()).count()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use metrics::Counter;

    use super::*;
    use crate::unread::{UNREAD_BYTES_MAX, Unread};

    const WAIT: Duration = Duration::from_secs(20);

    fn guests(connections_max: usize) -> (Arc<Guests>, Arc<Unread>) {
        let unread = Unread::new(UNREAD_BYTES_MAX, Counter::noop(), Counter::noop());
        (Guests::new(Bounds { connections_max, first_call_wait: WAIT }), unread)
    }

    fn came(guests: &(Arc<Guests>, Arc<Unread>), host: u8) -> Arc<Reader> {
        let reader = guests.1.reader(Some(SocketAddr::from(([10, 0, 0, host], 1))));
        guests.0.came(&reader);
        reader
    }

    fn newcomer(host: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, host])
    }

    #[test]
    fn who_never_asked_leaves_first_and_then_who_asks_nothing_now() {
        let guests = guests(4);
        let old = came(&guests, 1);
        let (young, used, busy) = (came(&guests, 1), came(&guests, 1), came(&guests, 1));
        drop(used.call(0));
        let call = busy.call(0);
        let cut = || [&old, &young, &used, &busy].map(|reader| reader.is_cut());
        assert_eq!(guests.0.make_room(newcomer(2)), 1);
        assert_eq!(cut(), [true, false, false, false]);
        assert_eq!(guests.0.make_room(newcomer(2)), 1);
        assert_eq!(cut(), [true, true, false, false]);
        assert_eq!(guests.0.make_room(newcomer(2)), 1);
        assert_eq!(cut(), [true, true, true, false]);
        assert_eq!(guests.0.make_room(newcomer(2)), 0, "one busy connection of four is not too many of one address");
        drop(call);
        assert_eq!(guests.0.make_room(newcomer(2)), 1);
        assert_eq!(cut(), [true; 4]);
    }

    #[test]
    fn an_address_with_more_than_half_gives_room_to_others_and_to_them_only() {
        let guests = guests(4);
        let greedy: Vec<_> = (0..3).map(|_| came(&guests, 1)).collect();
        let other = came(&guests, 2);
        let _calls: Vec<_> = greedy.iter().chain([&other]).map(|reader| reader.call(0)).collect();
        assert_eq!(guests.0.make_room(newcomer(1)), 0);
        assert_eq!(guests.0.make_room(newcomer(3)), 1);
        assert_eq!(greedy.iter().filter(|reader| reader.is_cut()).count(), 1);
        assert!(!other.is_cut());
        assert_eq!(guests.0.make_room(newcomer(3)), 0, "what is left of it is half");
    }

    #[test]
    fn who_does_not_ask_in_time_leaves() {
        let guests = guests(4);
        let (asks, silent) = (came(&guests, 1), came(&guests, 1));
        let call = asks.call(0);
        drop(call);
        let due = silent.opened() + WAIT;
        assert_eq!(guests.0.sweep(due - Duration::from_micros(1)), 0);
        assert_eq!((guests.0.sweep(due), guests.0.sweep(due)), (1, 0));
        assert!(silent.is_cut() && !asks.is_cut());
    }
}
