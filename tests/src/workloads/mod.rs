//! What clients do in a run on a real cluster, each in a way of which something can be proven.
//!
//! | Workload | What its tasks do |
//! |---|---|
//! | `register` | read a key, write it by compare-and-set on the revision that was read, or unconditionally |
//! | `append` | read a list, write it with one more element, by compare-and-set: one list a key |
//! | `counter` | read a count, write one more, by compare-and-set |
//! | `mix` | puts, deletes, puts of absent keys, previous entries |
//! | `sessions` | writes with so little time that many end unanswered while the client still sends them; then the same key again |
//! | `async` | writes that are acknowledged early, some with `wait_durable` at once, some later, some never |
//!
//! All of them read: most reads are linearizable, the others stale or bounded. Every call is recorded, and no two puts of a run write
//! the same value. A task has one call open at a time; what overlaps is those of several tasks.
//!
//! *Caveat*: keys are few and busy, since that is where orders can go wrong; what becomes of a million keys is not asked here.

mod caller;
mod tasks;

use std::{
    collections::BTreeSet,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use kv_client::Client;
use tokio::task::JoinHandle;

pub use caller::{Caller, Change, Told};

use crate::history::{Consistency, recorder::Recorder};

/// How often a final read is tried: the cluster is whole then, so that one that fails twice shows something.
const FINAL_READ_ATTEMPTS: u32 = 3;

/// Once so many keys could not be read, no more are tried: nobody serves.
const UNREAD_MAX: usize = 3;

/// A kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Workload {
    /// A register with compare-and-set.
    Register,
    /// Append to a list.
    Append,
    /// A counter.
    Counter,
    /// Puts and deletes of all kinds.
    Mix,
    /// Writes whose time is up before they are answered.
    Sessions,
    /// Asynchronous writes.
    Async,
}

impl Workload {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Register, Self::Append, Self::Counter, Self::Mix, Self::Sessions, Self::Async];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Append => "append",
            Self::Counter => "counter",
            Self::Mix => "mix",
            Self::Sessions => "sessions",
            Self::Async => "async",
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|workload| workload.name() == name)
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How much load there is.
#[derive(Clone, Debug)]
pub struct Shape {
    /// What is done; the tasks take them in turn.
    pub workloads: Vec<Workload>,
    /// How many tasks.
    pub tasks: usize,
    /// Keys of each workload.
    pub keys: u64,
    /// Pause of a task between two calls, on the average.
    pub pause: Duration,
    /// Time for a call that has no reason for less.
    pub deadline: Duration,
    /// After so many seconds the tasks turn to new keys, so that the order of a key's operations can be found whatever the length of a run.
    pub key_secs: u64,
    /// Where the tasks' choices begin.
    pub seed: u64,
}

/// A load that runs.
#[derive(Debug)]
pub struct Load {
    recorder: Recorder,
    deadline: Duration,
    common: Arc<Common>,
    tasks: Vec<JoinHandle<()>>,
}

/// What tasks share.
#[derive(Debug)]
struct Common {
    shape: Shape,
    recorder: Recorder,
    stops: AtomicBool,
    /// All keys that anybody wrote.
    keys: Mutex<BTreeSet<String>>,
}

impl Load {
    /// Starts the tasks on these clients, in turn. Must be called in a runtime of Tokio.
    #[must_use]
    pub fn start(clients: &[Client], recorder: &Recorder, shape: &Shape) -> Self {
        let common = Arc::new(Common {
            shape: shape.clone(),
            recorder: recorder.clone(),
            stops: AtomicBool::new(false),
            keys: Mutex::default(),
        });
        let tasks = clients.iter().cycle().take(shape.tasks).zip(shape.workloads.iter().cycle()).zip(0..);
        let tasks = tasks.map(|((client, workload), number)| {
            let caller = Caller::new(client.clone(), recorder.clone(), number, shape.deadline);
            tokio::spawn(tasks::run(Arc::clone(&common), *workload, caller))
        });
        Self { recorder: recorder.clone(), deadline: shape.deadline, tasks: tasks.collect(), common }
    }

    /// Lets every task finish its call, and waits for that.
    ///
    /// # Errors
    /// If a task panicked.
    pub async fn stop(&mut self) -> Result<(), String> {
        self.common.stops.store(true, Ordering::Relaxed);
        for task in self.tasks.drain(..) {
            task.await.map_err(|error| format!("a task of the load failed: {error}"))?;
        }
        Ok(())
    }

    /// Adds a key that was written by others than the tasks, so that it is read in the end.
    pub fn also_written(&self, key: &str) {
        self.common.written(key);
    }

    /// Reads every key that was written, linearizably, with this client. Says which could not be read.
    ///
    /// The tasks must have been stopped, and the cluster ought to be whole.
    pub async fn final_reads(&self, client: Client) -> (usize, Vec<String>) {
        self.recorder.final_reads();
        let number = self.common.shape.tasks as u64;
        let caller = Caller::new(client, self.recorder.clone(), number, self.deadline.max(Duration::from_secs(5)));
        let keys = self.common.keys.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut unread = Vec::new();
        for key in &keys {
            if unread.len() >= UNREAD_MAX {
                unread.push(key.clone());
                continue;
            }
            let mut attempts = 0;
            while caller.get(key, Consistency::Linearizable).await.is_none() {
                attempts += 1;
                if attempts == FINAL_READ_ATTEMPTS {
                    unread.push(key.clone());
                    break;
                }
            }
        }
        (keys.len(), unread)
    }
}

impl Common {
    fn written(&self, key: &str) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if !keys.contains(key) {
            keys.insert(key.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::BufReader};

    use kv_client::testing::{Fault, MemoryKv};
    use kv_core::command::Condition;

    use super::*;
    use crate::{
        check::linearizability,
        history::{
            Mode,
            run::{About, Run},
        },
    };

    /// Begins a run in a directory.
    fn recorder(directory: &std::path::Path) -> Recorder {
        Recorder::start(&directory.join("run.jsonl"), &About::default()).unwrap()
    }

    fn recorded(recorder: &Recorder) -> Run {
        Run::read(BufReader::new(File::open(recorder.finish().unwrap()).unwrap())).unwrap()
    }

    #[tokio::test]
    async fn every_workload_leaves_a_history_that_has_an_order() {
        let directory = tempfile::tempdir().unwrap();
        let recorder = recorder(directory.path());
        let kv = MemoryKv::new();
        let shape = Shape {
            workloads: Workload::ALL.to_vec(),
            tasks: 12,
            keys: 2,
            pause: Duration::ZERO,
            deadline: Duration::from_secs(3),
            key_secs: 60,
            seed: 5,
        };
        let mut load = Load::start(&[kv.client()], &recorder, &shape);
        for _ in 0..40 {
            tokio::task::yield_now().await;
        }
        kv.fail_next(Fault::LoseAnswer);
        kv.fail_next(Fault::LoseRequest);
        load.stop().await.unwrap();
        let (keys, unread) = load.final_reads(kv.client()).await;
        assert_eq!((keys > 0, unread), (true, vec![]));
        let run = recorded(&recorder);
        assert!(run.history.operations().len() > 100, "{}", run.history.operations().len());
        assert!(run.final_reads_from().is_some());
        linearizability::check(&run.history).unwrap();
    }

    #[tokio::test]
    async fn what_a_caller_was_told_is_what_is_recorded() {
        let directory = tempfile::tempdir().unwrap();
        let recorder = recorder(directory.path());
        let kv = MemoryKv::new();
        let mut caller = Caller::new(kv.client(), recorder.clone(), 7, Duration::from_secs(3));
        let value = Some(caller.unique());
        let change = Change {
            key: "k".to_owned(),
            value,
            condition: Condition::Absent,
            return_previous: true,
            mode: Mode::Sync,
        };
        assert_eq!(caller.write(&change).await, Told::Done);
        let other = Change { value: Some(caller.unique()), ..change.clone() };
        assert_eq!(caller.write(&other).await, Told::Conflict);
        kv.fail_next(Fault::LoseAnswer);
        let delete = Change { value: None, condition: Condition::Always, return_previous: false, ..change };
        assert_eq!(caller.write(&delete).await, Told::Failed);
        assert_eq!(caller.get("k", Consistency::Linearizable).await, Some(None));
        let lines: Vec<_> = recorded(&recorder).history.operations().iter().map(ToString::to_string).collect();
        let ends: Vec<_> = lines.iter().filter_map(|line| line.split(" => ").nth(1)?.split_once(' ')).collect();
        let told: Vec<_> = ends.iter().map(|(_, told)| told.split(" t").next().unwrap_or_default()).collect();
        assert_eq!(
            told[1..],
            ["failed Conflict NotApplied current:1", "failed Timeout Unknown", "read absent at:2 age:0"]
        );
        assert!(told[0].starts_with("written 1 "), "{told:?}");
    }
}
