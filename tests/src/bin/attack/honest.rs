//! The honest clients: one that measures, some whose every answer is judged, and those who come anew.

use std::{
    collections::BTreeMap,
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use kv_client::{
    Client,
    load::{self, Keys, Kv, Pace, Plan},
};
use kv_tests::{
    history::{
        Answer,
        recorder::Recorder,
        run::{About, Run},
    },
    processes::Cluster,
    verdict::{self, Status},
    workloads::{self, Shape, Workload},
};
use tokio::{task::JoinHandle, time::sleep};

use crate::options::Options;

/// A key whose value is large, for attackers who want large answers.
pub(crate) const LARGE_KEY: &str = "large";
const LARGE_BYTES: usize = 1024 * 1024;
/// The deadline of honest calls: within it the client asks again, and whoever called notices nothing.
const DEADLINE: Duration = Duration::from_secs(5);
/// Most calls of the measuring client that are outstanding.
const OUT_MAX: u32 = 512;
/// Keys of the measuring client.
const KEYS: u64 = 2_000;
/// Pause between two who come anew.
const NEWCOMER_PAUSE: Duration = Duration::from_millis(250);
/// The clients that are judged.
const JUDGED_TASKS: usize = 6;
const JUDGED_PAUSE: Duration = Duration::from_millis(40);
const JUDGED_KEYS: u64 = 6;
const JUDGED_KEY_SECS: u64 = 20;

/// All of them at work.
pub(crate) struct Honest {
    /// The one that measures.
    pub(crate) load: load::Load,
    /// A client for whoever asks how the cluster is.
    pub(crate) client: Client,
    judged: workloads::Load,
    recorder: Recorder,
    path: PathBuf,
    newcomers: Arc<Newcomers>,
    coming: JoinHandle<()>,
}

/// Those who came anew, and how long each took from its first packet to its last answer.
#[derive(Debug, Default)]
pub(crate) struct Newcomers {
    seen: Mutex<Seen>,
}

/// What became of those who came in a while.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) took: Vec<Duration>,
    pub(crate) failed: Vec<String>,
}

impl Newcomers {
    /// Takes out what has been seen so far.
    fn take(&self) -> Seen {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One comes, writes, reads what it wrote and goes. It knows the attacked node only.
    async fn come(self: Arc<Self>, address: String, number: u64) {
        let began = Instant::now();
        let (key, value) = (format!("newcomer/{}", number % 100), format!("{number}"));
        let served = async {
            let client = Client::builder().endpoints([address]).deadline(DEADLINE).connect().await?;
            client.put(&key, value.clone()).await?;
            client.get(&key).await
        };
        let served: kv_client::Result<_> = served.await;
        let mut seen = self.lock();
        match served {
            // An older one may still be at work on the same key, a hundred later: only slowness of 25 s could mix them up.
            Ok(Some(entry)) if entry.value == value => seen.took.push(began.elapsed()),
            Ok(other) => seen.failed.push(format!("it read {other:?} where it had written {value}")),
            Err(error) => seen.failed.push(error.to_string()),
        }
    }
}

impl Honest {
    /// Writes all keys, then sets everybody to work.
    pub(crate) async fn start(
        cluster: &Cluster<'_>,
        attacked: usize,
        options: &Options,
        directory: &Path,
    ) -> Result<Self, String> {
        let client = cluster.client(DEADLINE).await?;
        client.put(LARGE_KEY, vec![7; LARGE_BYTES]).await.map_err(|error| error.to_string())?;
        let target = Kv::from(cluster.client(DEADLINE).await?);
        let keys = Keys { prefix: "measured/".to_owned(), bytes: 16, count: KEYS, choice: load::Choice::Uniform };
        let plan = Plan { keys, out: OUT_MAX, seed: options.seed, ..Plan::default() };
        load::fill(std::slice::from_ref(&target), &Plan { out: 64, ..plan.clone() }).await?;
        let pace = Pace::Open { per_second: f64::from(options.rate) };
        let load = load::Load::start(vec![target], Plan { pace, ..plan })?;
        let path = directory.join("attack.run.jsonl");
        let about = About {
            program: "attack".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            seed: options.seed,
            workload: "mixed".to_owned(),
            ..About::default()
        };
        let recorder = Recorder::start(&path, &about).map_err(|error| format!("{}: {error}", path.display()))?;
        let shape = Shape {
            workloads: vec![Workload::Register, Workload::Append, Workload::Counter],
            tasks: JUDGED_TASKS,
            keys: JUDGED_KEYS,
            pause: JUDGED_PAUSE,
            deadline: DEADLINE,
            key_secs: JUDGED_KEY_SECS,
            seed: options.seed,
        };
        let judged = workloads::Load::start(&[cluster.client(DEADLINE).await?], &recorder, &shape);
        let newcomers = Arc::new(Newcomers::default());
        let coming = tokio::spawn({
            let (newcomers, address) = (Arc::clone(&newcomers), cluster.client_address(attacked));
            async move {
                for number in 0.. {
                    tokio::spawn(Arc::clone(&newcomers).come(address.clone(), number));
                    sleep(NEWCOMER_PAUSE).await;
                }
            }
        });
        Ok(Self { load, client, judged, recorder, path, newcomers, coming })
    }

    /// Measures for so long.
    pub(crate) async fn window(&self, length: Duration) -> (load::Window, Seen) {
        let _before = self.newcomers.take();
        let window = self.load.window(length).await;
        (window, self.newcomers.take())
    }

    /// Ends their work, reads every key of those who are judged, and says what of their answers was wrong, and which of their calls
    /// failed.
    pub(crate) async fn judge(mut self) -> Result<Vec<String>, String> {
        self.coming.abort();
        self.load.stop().await;
        self.judged.stop().await?;
        let (keys, unread) = self.judged.final_reads(self.client.clone()).await;
        let mut broken = Vec::new();
        if !unread.is_empty() {
            broken.push(format!("{} of {keys} keys could not be read in the end", unread.len()));
        }
        self.recorder.finish().map_err(|error| format!("{}: {error}", self.path.display()))?;
        let file = File::open(&self.path).map_err(|error| format!("{}: {error}", self.path.display()))?;
        let run = Run::read(BufReader::new(file)).map_err(|error| format!("{}: {error}", self.path.display()))?;
        let judged = verdict::judge(&run);
        for finding in &judged.findings {
            match &finding.status {
                Status::Violated(violated) => broken.push(format!("{}: {}", finding.promise.words(), violated.why)),
                // What can't be decided has not passed.
                Status::Undecided(why) => broken.push(format!("undecided: {}: {why}", finding.promise.words())),
                _ => {}
            }
        }
        broken.extend(failures(&run).into_iter().map(|(name, count)| format!("{count} judged calls failed: {name}")));
        println!("judged      {} calls, {} keys read in the end", run.history.operations().len(), keys);
        Ok(broken)
    }
}

/// Calls that failed otherwise than by their own condition.
fn failures(run: &Run) -> BTreeMap<String, u64> {
    let mut failures = BTreeMap::new();
    for operation in run.history.operations() {
        if let Some(Answer::Failed { kind, outcome, .. }) = operation.answer()
            && *kind != kv_core::error::ErrorKind::Conflict
        {
            *failures.entry(format!("{kind:?}, {outcome:?}")).or_default() += 1;
        }
    }
    failures
}
