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

use crate::{disk::RealLog, inbox::Event, notices::SlowSteps, shared::Shared, stop::Failure};

/// A sync, with the wait for a segment if it needs a new one, that takes longer is named: heartbeats still go out, writes wait.
const SLOW: Duration = Duration::from_millis(500);

/// Starts the thread. It ends when the sender of batches is dropped, or at once after its current batch if the node is
/// killed.
pub(crate) fn start(
    mut log: Log<RealLog>,
    batches: mpsc::Receiver<LogBatch>,
    shared: Arc<Shared>,
) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new().name(format!("log-{}", shared.node)).spawn(move || {
        let _span = shared.span().entered();
        let ran = catch_unwind(AssertUnwindSafe(|| run(&mut log, &batches, &shared)));
        match ran {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let failure = Failure::from(error);
                shared.stop.failed(Failure { message: format!("the log can't go on: {failure}"), ..failure });
            }
            Err(panic) => shared.stop.panicked("the log thread", panic.as_ref()),
        }
    })
}

fn run(log: &mut Log<RealLog>, batches: &mpsc::Receiver<LogBatch>, shared: &Shared) -> Result<(), LogError> {
    let slow = SlowSteps::new(SLOW);
    let mut lacks_room = false;
    prepare(log, &slow, &mut lacks_room)?;
    for batch in batches {
        if shared.stop.is_abrupt() {
            break;
        }
        let began = Instant::now();
        shared.faults.before_sync(|| shared.stop.is_abrupt())?;
        if shared.stop.is_abrupt() {
            break;
        }
        let report = log.append(&batch)?;
        shared.metrics.log_synced(slow.took("sync of the log", began), batch.records.len(), report.bytes);
        // No message that waits for this batch can leave before: the node sends them only once it has taken this.
        shared.inbox.push(Event::Input(Input::Synced(report)));
        prepare(log, &slow, &mut lacks_room)?;
    }
    Ok(())
}

/// Has the next segment made while the log goes on. Without room the log goes on as long as its segment lasts.
/// That is said once, and once when there is room again.
fn prepare(log: &mut Log<RealLog>, slow: &SlowSteps, lacks_room: &mut bool) -> Result<(), LogError> {
    let lacked = std::mem::take(lacks_room);
    let began = Instant::now();
    let prepared = log.prepare_next();
    slow.took("preparation of a log segment", began);
    match prepared {
        Err(LogError::Disk(error)) if error.kind == DiskErrorKind::Full => {
            *lacks_room = true;
            if !lacked {
                tracing::warn!(%error, "no room for the next log segment; the node stops when this one is full");
            }
            Ok(())
        }
        Ok(is_waiting) => {
            *lacks_room = lacked && !is_waiting;
            if lacked && is_waiting {
                tracing::info!("there is room again for the next log segment");
            }
            Ok(())
        }
        Err(error) => Err(error),
    }
}
