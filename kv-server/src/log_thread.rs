//! The thread that writes the log: one batch, one write, one sync, one report.
//!
//! It is the only one that touches the log. Any failure stops the node: what the disk holds is then not known.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use kv_core::{
    disk::DiskErrorKind,
    io::Input,
    log::{Log, LogError, record::LogBatch},
};

use crate::{disk::RealLog, inbox::Event, notices::SlowSteps, panic_text, shared::Shared, stop::Trouble};

/// A sync, or the preparation of a segment, that takes longer is named: heartbeats still go out, writes wait.
const SLOW: Duration = Duration::from_millis(500);

/// Starts the thread. It ends when the sender of batches is dropped, or at once after its current batch if the node is
/// killed.
pub(crate) fn start(
    mut log: Log<RealLog>,
    batches: mpsc::Receiver<LogBatch>,
    shared: Arc<Shared>,
) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new().name(format!("log-{}", shared.node)).spawn(move || {
        let ran = catch_unwind(AssertUnwindSafe(|| run(&mut log, &batches, &shared)));
        match ran {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let trouble = if matches!(error, LogError::Disk(_)) { Trouble::Disk } else { Trouble::Internal };
                shared.stop.fail(trouble, error.to_string());
            }
            Err(panic) => {
                shared.stop.fail(Trouble::Internal, format!("the log thread panicked: {}", panic_text(panic.as_ref())));
            }
        }
    })
}

fn run(log: &mut Log<RealLog>, batches: &mpsc::Receiver<LogBatch>, shared: &Shared) -> Result<(), LogError> {
    let mut slow = SlowSteps::new(SLOW);
    prepare(log, &mut slow)?;
    for batch in batches {
        if shared.stop.is_abrupt() {
            break;
        }
        let began = Instant::now();
        let report = log.append(&batch)?;
        shared.metrics.log_synced(slow.took("sync of the log", began), batch.records.len(), report.bytes);
        // No message that waits for this batch can leave before: the node sends them only once it has taken this.
        shared.inbox.push(Event::Input(Input::Synced(report)));
        prepare(log, &mut slow)?;
    }
    Ok(())
}

/// Makes the next segment while nobody waits. Without room the log goes on as long as its segment lasts.
fn prepare(log: &mut Log<RealLog>, slow: &mut SlowSteps) -> Result<(), LogError> {
    let began = Instant::now();
    let prepared = log.prepare_next();
    slow.took("preparation of a log segment", began);
    match prepared {
        Err(LogError::Disk(error)) if error.kind == DiskErrorKind::Full => {
            tracing::warn!(%error, "no room for the next log segment");
            Ok(())
        }
        other => other,
    }
}
