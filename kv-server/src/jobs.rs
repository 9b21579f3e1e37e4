//! The way of jobs from the loop to the checkpoint thread.
//!
//! All kinds but two are asked for one at a time: a replica waits for the answer before it wants the next. A table to be freed follows
//! an answer. A slice of the scrub is asked for each second, whatever became of the last. While a disk hangs one of them waits here,
//! and those that come meanwhile are dropped: each is for the next replica in turn, so that who is left out has its slice in a
//! later round.
//!
//! *Left out*: what the thread has taken and not finished. It keeps one slice of the scrub at a time as well.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
    mpsc::{self, Receiver, RecvError, SendError, Sender, TryRecvError},
};

use kv_core::checkpoint::job::CheckpointJob;

/// The loop's end.
pub(crate) struct JobSender {
    jobs: Sender<CheckpointJob>,
    scrub_waits: Arc<AtomicBool>,
}

/// The checkpoint thread's end.
pub(crate) struct JobReceiver {
    jobs: Receiver<CheckpointJob>,
    scrub_waits: Arc<AtomicBool>,
}

/// Both ends.
pub(crate) fn channel() -> (JobSender, JobReceiver) {
    let (sender, receiver) = mpsc::channel();
    let scrub_waits = Arc::new(AtomicBool::new(false));
    (JobSender { jobs: sender, scrub_waits: Arc::clone(&scrub_waits) }, JobReceiver { jobs: receiver, scrub_waits })
}

impl JobSender {
    /// Hands a job over, or drops it if it is a slice of the scrub and one waits already.
    ///
    /// # Errors
    /// If the other end is gone.
    pub(crate) fn send(&self, job: CheckpointJob) -> Result<(), SendError<()>> {
        let is_one_too_many = is_scrub(&job) && self.scrub_waits.swap(true, Ordering::Relaxed);
        if is_one_too_many { Ok(()) } else { self.jobs.send(job).map_err(|_| SendError(())) }
    }
}

impl JobReceiver {
    /// The next job, once there is one.
    ///
    /// # Errors
    /// If the other end is gone, and nothing is left.
    pub(crate) fn recv(&self) -> Result<CheckpointJob, RecvError> {
        self.jobs.recv().inspect(|job| self.taken(job))
    }

    /// The next job, if there is one.
    ///
    /// # Errors
    /// If there is none, or the other end is gone as well.
    pub(crate) fn try_recv(&self) -> Result<CheckpointJob, TryRecvError> {
        self.jobs.try_recv().inspect(|job| self.taken(job))
    }

    fn taken(&self, job: &CheckpointJob) {
        if is_scrub(job) {
            self.scrub_waits.store(false, Ordering::Relaxed);
        }
    }
}

fn is_scrub(job: &CheckpointJob) -> bool {
    matches!(job, CheckpointJob::Scrub { .. })
}

#[cfg(test)]
mod tests {
    use kv_core::types::{ReplicaId, ShardId};

    use super::*;

    #[test]
    fn while_nobody_takes_jobs_one_slice_of_the_scrub_waits_and_all_else() {
        let (sender, receiver) = channel();
        let scrub = |shard| CheckpointJob::Scrub { shard: ShardId(shard), replica: ReplicaId(shard) };
        for round in 0..3 {
            for shard in 1..1_000 {
                sender.send(scrub(shard)).unwrap();
                sender.send(CheckpointJob::Release { stream: shard }).unwrap();
            }
            let jobs: Vec<_> = std::iter::from_fn(|| receiver.try_recv().ok()).collect();
            let scrubs = jobs.iter().filter(|job| is_scrub(job)).count();
            assert_eq!((scrubs, jobs.len() - scrubs), (1, 999), "round {round}");
        }
        sender.send(scrub(7)).unwrap();
        assert!(matches!(receiver.recv(), Ok(CheckpointJob::Scrub { shard: ShardId(7), .. })));
        drop(receiver);
        assert!(sender.send(scrub(8)).is_err(), "whoever is gone is noticed");
    }
}
