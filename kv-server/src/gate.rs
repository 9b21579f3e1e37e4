//! Whether a connection is read, by what it has sent: see `toll.rs` for its frames and `pace.rs` for its bytes.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use metrics::Counter;
use tokio::time::{Instant, Sleep, sleep};

use crate::{
    pace::{Account, Pace},
    toll::Toll,
    unread::{Reader, Slow},
};

/// The accounts of a connection that speaks HTTP/2.
pub(crate) struct Gate {
    reader: Arc<Reader>,
    toll: Toll,
    pace: Pace,
    wait: Option<Pin<Box<Sleep>>>,
    /// While it owes more than its credit.
    slow: Option<Slow>,
    /// How often somebody had to wait.
    slowed: Counter,
}

impl Gate {
    /// For a connection that has sent nothing yet.
    pub(crate) fn new(reader: Arc<Reader>, slowed: Counter) -> Self {
        let now = Instant::now();
        Self { reader, toll: Toll::new(now), pace: Pace::new(now), wait: None, slow: None, slowed }
    }

    /// Whether the connection may be read. Wakes the task if it may be later.
    pub(crate) fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(wait) = &mut self.wait {
                if wait.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
                self.wait = None;
            }
            let account = Account::of(&self.reader);
            let is_within = self.pace.is_within(&account);
            if is_within {
                self.slow = None;
                if self.toll.is_paid() {
                    return Poll::Ready(());
                }
            } else if self.slow.is_none() {
                self.slow = Some(self.reader.node().slows());
                continue;
            }
            let now = Instant::now();
            match self.toll.due(now).max(self.pace.due(now, &account)) {
                None => return Poll::Ready(()),
                Some(wait) => {
                    self.slowed.increment(1);
                    self.wait = Some(Box::pin(sleep(wait)));
                }
            }
        }
    }

    /// These bytes were read.
    pub(crate) fn read(&mut self, bytes: &[u8]) {
        self.pace.data(self.toll.read(bytes));
    }

    /// So many bytes were sent.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.toll.sent(bytes);
    }
}
