//! One line on the terminal while a benchmark runs; nothing where standard error is no terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use kv_client::load::Load;

/// Between two looks.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The line.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
    is_time: bool,
}

impl Progress {
    /// Of so much time.
    pub(super) fn of_time(length: Duration) -> Self {
        let bar = ProgressBar::new(u64::try_from(length.as_millis()).unwrap_or(u64::MAX));
        Self { bar, is_time: true }.styled()
    }

    /// Of so many operations.
    pub(super) fn of_operations(count: u64) -> Self {
        Self { bar: ProgressBar::new(count), is_time: false }.styled()
    }

    fn styled(self) -> Self {
        let style = ProgressStyle::with_template("{prefix} [{bar:30}] {msg}").expect("the template is sound");
        self.bar.set_style(style.progress_chars("=> "));
        self
    }

    /// What is being done.
    pub(super) fn phase(&self, phase: String) {
        self.bar.set_prefix(phase);
        self.bar.set_position(0);
    }

    /// How far it is.
    pub(super) fn show(&self, elapsed: Duration, load: &Load) {
        let (operations, failures, p99) = load.look(|record| {
            let p99 = [&record.puts, &record.gets].map(|side| side.latency.value_at_quantile(0.99)).into_iter().max();
            (record.operations(), record.failures(), p99.unwrap_or(0))
        });
        let position = if self.is_time { elapsed.as_millis() as u64 } else { operations + failures };
        self.bar.set_position(position);
        let rate = operations as f64 / elapsed.as_secs_f64().max(1e-9);
        self.bar.set_message(format!("{rate:.0} per second, p99 {:.2} ms, errors {failures}", p99 as f64 / 1e3));
    }

    /// The line goes.
    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
