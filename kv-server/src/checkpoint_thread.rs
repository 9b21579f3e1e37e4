//! The thread that makes checkpoints, keeps the read index, and moves the files of snapshots.
//!
//! It works in small steps, so that a new job waits for one step at most.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc::TryRecvError},
    thread::{self, JoinHandle},
};

use kv_core::{
    checkpoint::{Worker, job::CheckpointEvent},
    io::Input,
};

use crate::{
    disk::{IndexStore, RealFiles},
    inbox::Event,
    jobs::JobReceiver,
    shared::Shared,
    stop::Trouble,
};

/// Starts the thread. It ends when the sender of jobs is dropped, or after its current step if the node is killed.
pub(crate) fn start(
    files: RealFiles,
    store: IndexStore,
    jobs: JobReceiver,
    shared: Arc<Shared>,
) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new().name(format!("checkpoint-{}", shared.node)).spawn(move || {
        let _span = shared.span().entered();
        let mut worker = Worker::new(files, store);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(&mut worker, &jobs, &shared))) {
            shared.stop.panicked("the checkpoint thread", panic.as_ref());
        }
    })
}

fn run(worker: &mut Worker<RealFiles, IndexStore>, jobs: &JobReceiver, shared: &Shared) {
    while !shared.stop.is_abrupt() {
        if worker.is_idle() {
            let Ok(job) = jobs.recv() else { return };
            worker.submit(job);
        }
        loop {
            match jobs.try_recv() {
                Ok(job) => worker.submit(job),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return,
            }
        }
        for event in worker.step().events {
            if let CheckpointEvent::DiskFailed { reason } = event {
                shared.stop.fail(Trouble::Disk, reason);
                return;
            }
            shared.inbox.push(Event::Input(Input::Checkpoint(Box::new(event))));
        }
    }
}
