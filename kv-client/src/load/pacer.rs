//! When operations of an open loop are to begin: at an even rate, whether or not the earlier ones have been answered.
//!
//! A thread of its own lets them go, some ten thousand times a second: the runtime's own timer knows only milliseconds, and
//! would add its own steps to every latency.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::Semaphore;

/// How long the thread sleeps between two looks at the clock.
const LOOK_EVERY: Duration = Duration::from_micros(100);

/// Lets operations go; ends when it is dropped.
#[derive(Debug)]
pub(super) struct Pacer {
    due: Arc<Semaphore>,
    began: Instant,
    per_second: f64,
    taken: AtomicU64,
}

impl Pacer {
    /// Begins now.
    ///
    /// # Errors
    /// If the system has no thread for it.
    pub(super) fn start(per_second: f64) -> std::io::Result<Self> {
        let due = Arc::new(Semaphore::new(0));
        let began = Instant::now();
        let given = Arc::clone(&due);
        thread::Builder::new().name("pacer".to_owned()).spawn(move || {
            let mut released = 0_u64;
            while !given.is_closed() {
                let reached = (began.elapsed().as_secs_f64() * per_second) as u64;
                // What nobody takes for years would overflow the semaphore; until then it is the backlog, and is counted as latency.
                let room = (Semaphore::MAX_PERMITS - given.available_permits()) as u64;
                let step = (reached - released).min(room);
                given.add_permits(step as usize);
                released += step;
                thread::sleep(LOOK_EVERY);
            }
        })?;
        Ok(Self { due, began, per_second, taken: AtomicU64::new(0) })
    }

    /// Waits for the next operation that is due, and says when it was; `None` once closed.
    pub(super) async fn next(&self) -> Option<Instant> {
        self.due.acquire().await.ok()?.forget();
        let number = self.taken.fetch_add(1, Ordering::Relaxed) + 1;
        Some(self.began + Duration::from_secs_f64(number as f64 / self.per_second))
    }

    /// Operations that are due and that nobody has begun.
    pub(super) fn waiting(&self) -> u64 {
        self.due.available_permits() as u64
    }

    /// No more operations begin.
    pub(super) fn close(&self) {
        self.due.close();
    }
}

impl Drop for Pacer {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn operations_are_due_at_an_even_rate_however_late_they_are_taken() {
        let pacer = Pacer::start(1_000.0).unwrap();
        let mut due = Vec::new();
        for _ in 0..20 {
            due.push(pacer.next().await.unwrap());
        }
        for (number, pair) in due.windows(2).enumerate() {
            let apart = (pair[1] - pair[0]).as_micros();
            assert!((999..=1_001).contains(&apart), "{number}: {apart} us");
        }
        assert!(due[19] <= Instant::now(), "none is let go early");
        pacer.close();
        assert!(pacer.next().await.is_none());
    }
}
