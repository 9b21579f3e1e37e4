//! Sessions: what makes a write that is sent again run at most once.
//!
//! One session per shard, opened at the first write there. Which sequences are open is the business of the core's window; here
//! it is shared by concurrent calls, and a place in it gives itself back.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kv_core::{
    router::Window as Sequences,
    types::{Sequence, ShardId},
};
use kv_proto::v1;
use tokio::sync::Notify;

/// The sessions of a client, by shard.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    shards: Mutex<BTreeMap<ShardId, Arc<ShardSession>>>,
}

impl Sessions {
    /// The session with a shard.
    pub(crate) fn of(&self, shard: ShardId) -> Arc<ShardSession> {
        lock(&self.shards).entry(shard).or_default().clone()
    }
}

/// The session with one shard: none, or the one in use.
#[derive(Debug, Default)]
pub(crate) struct ShardSession {
    current: Mutex<Option<Arc<Window>>>,
    /// Held by whoever opens a session: the others wait for that one.
    pub(crate) opening: tokio::sync::Mutex<()>,
}

impl ShardSession {
    /// The session in use.
    pub(crate) fn current(&self) -> Option<Arc<Window>> {
        lock(&self.current).clone()
    }

    /// A session was opened.
    pub(crate) fn opened(&self, session: u64) -> Arc<Window> {
        let window = Arc::new(Window { session, sequences: Mutex::default(), room: Notify::new() });
        *lock(&self.current) = Some(window.clone());
        window
    }

    /// The shard does not know this session any more; another may have taken its place already.
    pub(crate) fn expired(&self, session: u64) {
        let mut current = lock(&self.current);
        if current.as_ref().is_some_and(|window| window.session == session) {
            *current = None;
        }
    }
}

/// A session and its open sequences.
#[derive(Debug)]
pub(crate) struct Window {
    session: u64,
    sequences: Mutex<Sequences>,
    room: Notify,
}

impl Window {
    /// Takes the next sequence, if there is room.
    pub(crate) fn take(self: &Arc<Self>) -> Option<Stamp> {
        let sequence = lock(&self.sequences).take()?;
        Some(Stamp { window: self.clone(), sequence })
    }

    /// Takes the next sequence as soon as there is room.
    pub(crate) async fn take_when_there_is_room(self: &Arc<Self>) -> Stamp {
        loop {
            let mut room = std::pin::pin!(self.room.notified());
            room.as_mut().enable();
            if let Some(stamp) = self.take() {
                return stamp;
            }
            room.await;
        }
    }

    fn close(&self, sequence: Sequence) {
        let mut sequences = lock(&self.sequences);
        let was_full = sequences.is_full();
        sequences.close(sequence);
        let has_room = was_full && !sequences.is_full();
        drop(sequences);
        if has_room {
            self.room.notify_waiters();
        }
    }
}

/// A write's place in its session. Dropping it closes the sequence.
#[derive(Debug)]
pub(crate) struct Stamp {
    window: Arc<Window>,
    sequence: Sequence,
}

impl Stamp {
    /// The session.
    pub(crate) fn session(&self) -> u64 {
        self.window.session
    }

    /// What a sending carries now.
    pub(crate) fn to_wire(&self) -> v1::SessionStamp {
        let floor = lock(&self.window.sequences).floor();
        v1::SessionStamp { session: self.window.session, sequence: self.sequence.0, floor: floor.0 }
    }
}

impl Drop for Stamp {
    fn drop(&mut self) {
        self.window.close(self.sequence);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that holds one of these locks can panic half-way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use kv_core::router::WINDOW_MAX;

    use super::*;

    #[test]
    fn a_place_that_is_dropped_is_closed() {
        let window = ShardSession::default().opened(7);
        let stamps: Vec<_> = (0..4).map(|_| window.take().unwrap()).collect();
        let [first, second, third, fourth] = <[Stamp; 4]>::try_from(stamps).unwrap();
        assert_eq!(fourth.to_wire(), v1::SessionStamp { session: 7, sequence: 4, floor: 1 });
        drop(second);
        assert_eq!(fourth.to_wire().floor, 1);
        drop(first);
        assert_eq!(fourth.to_wire().floor, 3);
        drop(third);
        drop(fourth);
        assert_eq!(window.take().unwrap().to_wire(), v1::SessionStamp { session: 7, sequence: 5, floor: 5 });
    }

    #[tokio::test]
    async fn a_full_window_waits_for_its_floor() {
        let window = ShardSession::default().opened(1);
        let first = window.take().unwrap();
        let rest: Vec<_> = (1..WINDOW_MAX).map(|_| window.take().unwrap()).collect();
        assert!(window.take().is_none());
        drop(rest);
        assert!(window.take().is_none(), "the floor has not moved");
        let mut waiting = std::pin::pin!(window.take_when_there_is_room());
        let context = &mut std::task::Context::from_waker(std::task::Waker::noop());
        assert!(waiting.as_mut().poll(context).is_pending());
        drop(first);
        assert_eq!(waiting.await.to_wire().floor, WINDOW_MAX as u64 + 1);
    }

    #[test]
    fn only_the_session_that_expired_is_given_up() {
        let shard = ShardSession::default();
        shard.opened(1);
        shard.expired(1);
        assert!(shard.current().is_none());
        shard.opened(2);
        shard.expired(1);
        assert!(shard.current().is_some());
    }
}
