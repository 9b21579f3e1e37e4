//! What one task of each workload does, again and again.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use kv_client::{Entry, Token};
use kv_core::{command::Condition, types::Revision};
use tokio::time::sleep;

use super::{Caller, Change, Common, Told, Workload};
use crate::history::{Consistency, Mode};

/// A list is begun anew past so many elements, since each append writes all of it.
const LIST_ELEMENTS_MAX: usize = 60;
/// Least and most milliseconds that a bounded read asks for.
const BOUNDED_MS: std::ops::Range<u64> = 20..2_000;
/// Milliseconds that the `sessions` workload gives its writes: about what one takes, so that some are answered in time.
const HASTY_MS: std::ops::Range<u64> = 1..40;
/// Tokens that the `async` workload keeps to ask about later; the oldest is forgotten past it.
const TOKENS_KEPT: usize = 16;

/// Runs until it is told to stop.
pub(super) async fn run(common: Arc<Common>, workload: Workload, caller: Caller) {
    let number = caller.number();
    let random = fastrand::Rng::with_seed(common.shape.seed ^ (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut task = Task { common, workload, caller, random, tokens: Vec::new() };
    while !task.common.stops.load(Ordering::Relaxed) {
        match workload {
            Workload::Register => task.register().await,
            Workload::Append => task.append().await,
            Workload::Counter => task.count().await,
            Workload::Mix => task.mix().await,
            Workload::Sessions => task.hasty().await,
            Workload::Async => task.early().await,
        }
        task.pause().await;
    }
}

struct Task {
    common: Arc<Common>,
    workload: Workload,
    caller: Caller,
    random: fastrand::Rng,
    tokens: Vec<Token>,
}

impl Task {
    /// One of the keys that are in use now.
    fn key(&mut self) -> String {
        let age = self.common.recorder.micros() / 1_000_000 / self.common.shape.key_secs.max(1);
        format!("{}/{age}/{}", self.workload, self.random.u64(0..self.common.shape.keys.max(1)))
    }

    async fn pause(&mut self) {
        let micros = u64::try_from(self.common.shape.pause.as_micros()).unwrap_or(u64::MAX);
        match self.random.u64(0..=micros.saturating_mul(2)) {
            0 => tokio::task::yield_now().await,
            micros => sleep(Duration::from_micros(micros)).await,
        }
    }

    /// A read that is linearizable in seven of ten cases.
    async fn read(&mut self, key: &str) -> Option<Option<Entry>> {
        let consistency = match self.random.u8(0..20) {
            0..14 => Consistency::Linearizable,
            14..17 => Consistency::Bounded(self.random.u64(BOUNDED_MS) * 1_000),
            _ => Consistency::Stale,
        };
        self.caller.get(key, consistency).await
    }

    async fn write(&mut self, change: Change) -> Told {
        self.common.written(&change.key);
        self.caller.write(&change).await
    }

    fn put(&mut self, key: &str) -> Change {
        Change {
            key: key.to_owned(),
            value: Some(self.caller.unique_value()),
            condition: Condition::Always,
            return_previous: false,
            mode: Mode::Sync,
        }
    }

    /// Puts a value if the key still holds what was read.
    async fn replace(&mut self, key: &str, read: Option<&Entry>, value: String) -> Told {
        let condition = Condition::RevisionIs(read.map_or(Revision(0), |entry| entry.revision));
        self.write(Change { value: Some(value), condition, ..self.plain(key) }).await
    }

    fn plain(&self, key: &str) -> Change {
        let (condition, mode) = (Condition::Always, Mode::Sync);
        Change { key: key.to_owned(), value: None, condition, return_previous: false, mode }
    }

    async fn register(&mut self) {
        let key = self.key();
        match self.random.u8(0..10) {
            0 => {
                let change = self.put(&key);
                let return_previous = self.random.bool();
                self.write(Change { return_previous, ..change }).await;
            }
            1..6 => {
                self.read(&key).await;
            }
            _ => {
                // Also what a stale read gave: then it ought to conflict.
                if let Some(read) = self.read(&key).await {
                    let value = self.caller.unique_value();
                    self.replace(&key, read.as_ref(), value).await;
                }
            }
        }
    }

    async fn append(&mut self) {
        let key = self.key();
        let Some(read) = self.read(&key).await else { return };
        if self.random.u8(0..4) == 0 {
            return;
        }
        let list = read.as_ref().map(|entry| String::from_utf8_lossy(&entry.value).into_owned());
        let element = self.caller.unique();
        let value = match list {
            Some(list) if list.split(',').count() >= LIST_ELEMENTS_MAX => return,
            Some(list) => format!("{list},{element}"),
            None => element,
        };
        self.replace(&key, read.as_ref(), value).await;
    }

    async fn count(&mut self) {
        let key = self.key();
        let Some(read) = self.read(&key).await else { return };
        if self.random.u8(0..4) == 0 {
            return;
        }
        let text = read.as_ref().map(|entry| String::from_utf8_lossy(&entry.value).into_owned());
        let count = text.as_deref().and_then(|text| text.split('/').next()).and_then(|count| count.parse().ok());
        let next = count.unwrap_or(0_u64) + 1;
        let value = format!("{next}/{}", self.caller.unique());
        self.replace(&key, read.as_ref(), value).await;
    }

    async fn mix(&mut self) {
        let key = self.key();
        let return_previous = self.random.bool();
        match self.random.u8(0..10) {
            0..3 => {
                self.read(&key).await;
            }
            3..6 => {
                let change = self.put(&key);
                self.write(Change { return_previous, ..change }).await;
            }
            6 => {
                let change = self.put(&key);
                self.write(Change { condition: Condition::Absent, ..change }).await;
            }
            7 => {
                if let Some(Some(entry)) = self.read(&key).await {
                    let condition = Condition::RevisionIs(entry.revision);
                    self.write(Change { condition, ..self.plain(&key) }).await;
                }
            }
            _ => {
                self.write(Change { return_previous, ..self.plain(&key) }).await;
            }
        }
    }

    async fn hasty(&mut self) {
        let key = self.key();
        let patient = self.caller.deadline;
        self.caller.deadline = Duration::from_millis(self.random.u64(HASTY_MS));
        for _ in 0..self.random.u8(1..4) {
            let change = self.put(&key);
            let return_previous = self.random.bool();
            self.write(Change { return_previous, ..change }).await;
        }
        self.caller.deadline = patient;
        self.read(&key).await;
        if self.random.bool() {
            let change = self.put(&key);
            self.write(Change { return_previous: true, ..change }).await;
        }
    }

    async fn early(&mut self) {
        let key = self.key();
        match self.random.u8(0..10) {
            0..2 => {
                self.read(&key).await;
            }
            2 if !self.tokens.is_empty() => {
                let token = self.tokens.swap_remove(self.random.usize(0..self.tokens.len()));
                self.caller.wait_durable(token).await;
            }
            choice => {
                let change = if choice == 3 { self.plain(&key) } else { self.put(&key) };
                let told = self.write(Change { mode: Mode::Async, ..change }).await;
                let Told::Accepted(token) = told else { return };
                if self.random.u8(0..3) == 0 {
                    self.caller.wait_durable(token).await;
                } else {
                    if self.tokens.len() == TOKENS_KEPT {
                        self.tokens.remove(0);
                    }
                    self.tokens.push(token);
                }
            }
        }
    }
}
