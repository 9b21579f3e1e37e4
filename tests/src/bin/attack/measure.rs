//! What windows of honest load came to, and what the attacked node held and used meanwhile.

use std::{cell::Cell, pin::pin, time::Duration};

use kv_client::load::{Record, Side, Window};
use kv_tests::usage::{self, Usage};
use tokio::time::sleep;

use crate::{
    honest::Seen,
    report::{Half, Latency},
};

/// How often the attacked process is looked at.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// All windows of one kind, quiet or attacked, added up.
#[derive(Debug, Default)]
pub(crate) struct Sum {
    record: Record,
    newcomers: Seen,
    elapsed: Duration,
    /// CPU of the attacked node.
    cpu: Duration,
    /// The p99 of each window's puts and gets together, which shows the noise.
    rounds_ms: Vec<f64>,
    /// Calls that were due and had not begun at the end of a window.
    waiting: u64,
}

impl Sum {
    pub(crate) fn add(&mut self, window: Window, newcomers: Seen, cpu: Duration) {
        let mut both = Side::default();
        for (all, one) in [(&mut self.record.puts, &window.record.puts), (&mut self.record.gets, &window.record.gets)] {
            all.latency.add(&one.latency).expect("all have the same bounds");
            both.latency.add(&one.latency).expect("all have the same bounds");
            all.found += one.found;
        }
        for (name, count) in window.record.errors {
            *self.record.errors.entry(name).or_default() += count;
        }
        self.newcomers.took.extend(newcomers.took);
        self.newcomers.failed.extend(newcomers.failed);
        self.elapsed += window.elapsed;
        self.cpu += cpu;
        self.waiting += window.waiting;
        self.rounds_ms.push(both.latency.value_at_quantile(0.99) as f64 / 1e3);
    }

    /// In figures.
    pub(crate) fn half(&self) -> Half {
        let (puts, gets) = (&self.record.puts, &self.record.gets);
        let mut newcomers = self.newcomers.took.clone();
        newcomers.sort_unstable();
        let ms = |took: Option<&Duration>| took.map_or(0.0, |took| took.as_secs_f64() * 1e3);
        Half {
            operations: self.record.operations(),
            errors: self.record.errors.clone(),
            not_found: gets.latency.len() - gets.found,
            waiting: self.waiting,
            put: latency(puts),
            get: latency(gets),
            rounds_p99_ms: self.rounds_ms.clone(),
            newcomers: newcomers.len() as u64,
            newcomers_failed: self.newcomers.failed.clone(),
            newcomer_p50_ms: ms(newcomers.get(newcomers.len() / 2)),
            newcomer_worst_ms: ms(newcomers.last()),
            node_cores: self.cpu.as_secs_f64() / self.elapsed.as_secs_f64().max(1e-9),
        }
    }
}

fn latency(side: &Side) -> Latency {
    let ms = |quantile| side.latency.value_at_quantile(quantile) as f64 / 1e3;
    Latency { p50_ms: ms(0.5), p99_ms: ms(0.99), worst_ms: side.latency.max() as f64 / 1e3 }
}

/// The most that a process held.
#[derive(Debug, Default)]
pub(crate) struct Peak {
    most: Cell<Usage>,
}

impl Peak {
    pub(crate) fn most(&self) -> Usage {
        self.most.get()
    }

    /// Looks once.
    pub(crate) fn look(&self, process: u32) -> Result<Usage, String> {
        let usage = usage::usage(process)?;
        let most = self.most.get();
        self.most.set(Usage {
            resident_bytes: most.resident_bytes.max(usage.resident_bytes),
            files: most.files.max(usage.files),
            cpu: usage.cpu,
        });
        Ok(usage)
    }

    /// Looks again and again while something is done.
    pub(crate) async fn during<F: Future>(&self, process: u32, what: F) -> Result<F::Output, String> {
        let mut what = pin!(what);
        loop {
            tokio::select! {
                done = &mut what => return Ok(done),
                () = sleep(LOOK_PAUSE) => { self.look(process)?; }
            }
        }
    }
}
