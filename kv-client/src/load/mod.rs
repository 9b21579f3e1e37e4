//! A load on a store, and what it saw: what `kv bench` runs, for whoever wants the same load on another store.
//!
//! Operations are drawn from a seed. In a **closed loop** a fixed number is outstanding, and a slow store is asked less; in an
//! **open loop** operations are due at an even rate, and each latency counts from when the operation was due, so that what
//! had to wait is not left out. What ends within a window is counted in that window; windows follow one another under
//! the same load.
//!
//! *Leaves out*: more than one thread of its own making (callers are tasks of the runtime it is started in), and rates that
//! follow a curve.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), String> {
//! use std::time::Duration;
//! use kv_client::{load::{Kv, Load, Plan}, testing::MemoryKv};
//!
//! let plan = Plan { put_percent: 20, out: 8, ..Plan::default() };
//! let load = Load::start(vec![Kv::from(MemoryKv::new().client())], plan)?;
//! let window = load.window(Duration::from_millis(20)).await;
//! load.stop().await;
//! assert!(window.operations() > 0 && window.record.errors.is_empty());
//! # Ok(()) }
//! ```

mod client;
mod keys;
mod pacer;
mod record;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::task::JoinSet;

pub use client::Kv;
pub use keys::{Choice, Keys};
pub use record::{Kind, LATENCY_MICROS_MAX, Record, Side};

use keys::Chooser;
use pacer::Pacer;

/// Something that puts and gets.
pub trait Target: Clone + Send + Sync + 'static {
    /// Writes a key.
    ///
    /// # Errors
    /// By a name under which failures are counted: one of a few.
    fn put(&self, key: &str, value: &Bytes) -> impl Future<Output = Result<(), String>> + Send;

    /// Reads a key, and says whether it is there.
    ///
    /// # Errors
    /// As [`Target::put`].
    fn get(&self, key: &str) -> impl Future<Output = Result<bool, String>> + Send;
}

/// When operations begin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// When an earlier one has been answered.
    Closed,
    /// At so many a second; at most [`Plan::out`] are outstanding, the others wait, and that counts.
    Open {
        /// Operations due in a second.
        per_second: f64,
    },
}

/// A load.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// How many of a hundred operations are puts; the others are gets.
    pub put_percent: u8,
    /// When they begin.
    pub pace: Pace,
    /// Most of them that are outstanding at once.
    pub out: u32,
    /// On which keys they are.
    pub keys: Keys,
    /// Size of each value in bytes.
    pub value_bytes: usize,
    /// Ends after so many operations; `None`: goes on until it is stopped.
    pub count: Option<u64>,
    /// Where the choice of keys and values begins: the same seed chooses the same for each caller.
    pub seed: u64,
}

impl Default for Plan {
    /// Half puts, half gets, 64 outstanding, on 10,000 keys of 16 bytes with values of 100 bytes.
    fn default() -> Self {
        let keys = Keys { prefix: "bench/".to_owned(), bytes: 16, count: 10_000, choice: Choice::Uniform };
        Self { put_percent: 50, pace: Pace::Closed, out: 64, keys, value_bytes: 100, count: None, seed: 1 }
    }
}

impl Plan {
    /// The value of all puts: random bytes, which no layer can make smaller.
    #[must_use]
    pub fn value(&self) -> Bytes {
        let mut random = fastrand::Rng::with_seed(self.seed);
        (0..self.value_bytes).map(|_| random.u8(..)).collect()
    }
}

/// What was seen between two moments.
#[derive(Debug)]
pub struct Window {
    /// How long it was.
    pub elapsed: Duration,
    /// What ended in it.
    pub record: Record,
    /// Operations of an open loop that were due at its end and had not begun.
    pub waiting: u64,
}

impl Window {
    /// Operations that succeeded.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.record.operations()
    }

    /// Operations a second that succeeded.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        self.operations() as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// A load that runs. Dropping it ends it at once.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    callers: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    plan: Plan,
    value: Bytes,
    chooser: Chooser,
    pacer: Option<Pacer>,
    stopped: AtomicBool,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    record: Record,
    /// Operations not begun yet, if their number is given.
    left: Option<u64>,
}

impl Load {
    /// Starts the callers, spread evenly over the targets. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// With a sentence, if the plan can't be carried out.
    pub fn start<T: Target>(targets: Vec<T>, plan: Plan) -> Result<Self, String> {
        plan.keys.check()?;
        if targets.is_empty() || plan.out == 0 {
            return Err("nobody to ask, or nothing outstanding".to_owned());
        }
        let pacer = match plan.pace {
            Pace::Closed => None,
            Pace::Open { per_second } if per_second > 0.0 && per_second.is_finite() => {
                Some(Pacer::start(per_second).map_err(|error| format!("no thread for the pace: {error}"))?)
            }
            Pace::Open { per_second } => return Err(format!("{per_second} operations a second are no rate")),
        };
        let shared = Arc::new(Shared {
            value: plan.value(),
            chooser: Chooser::new(&plan.keys),
            pacer,
            stopped: AtomicBool::new(false),
            seen: Mutex::new(Seen { record: Record::default(), left: plan.count }),
            plan,
        });
        let mut callers = JoinSet::new();
        for (caller, target) in (0..shared.plan.out).zip(targets.iter().cycle()) {
            callers.spawn(shared.clone().call(target.clone(), u64::from(caller)));
        }
        Ok(Self { shared, callers })
    }

    /// Watches for so long: what ends from now on until then.
    pub async fn window(&self, length: Duration) -> Window {
        let began = self.begin();
        tokio::time::sleep(length).await;
        self.end(began)
    }

    /// Forgets what has been seen, and says when.
    #[must_use]
    pub fn begin(&self) -> Instant {
        self.shared.seen().record = Record::default();
        Instant::now()
    }

    /// What was seen since.
    #[must_use]
    pub fn end(&self, began: Instant) -> Window {
        let elapsed = began.elapsed();
        let record = std::mem::take(&mut self.shared.seen().record);
        Window { elapsed, record, waiting: self.shared.pacer.as_ref().map_or(0, Pacer::waiting) }
    }

    /// Looks at what has been seen since [`Load::begin`].
    pub fn look<R>(&self, at: impl FnOnce(&Record) -> R) -> R {
        at(&self.shared.seen().record)
    }

    /// Waits until the plan's count of operations is through.
    pub async fn until_counted(&mut self) {
        while self.callers.join_next().await.is_some() {}
    }

    /// Begins no more operations, and waits for those outstanding.
    pub async fn stop(mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        if let Some(pacer) = &self.shared.pacer {
            pacer.close();
        }
        self.until_counted().await;
    }
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn call<T: Target>(self: Arc<Self>, target: T, caller: u64) {
        let mut random = fastrand::Rng::with_seed(self.plan.seed ^ caller.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        while let Some(began) = self.next().await {
            let kind = if random.u8(..100) < self.plan.put_percent { Kind::Put } else { Kind::Get };
            let key = self.plan.keys.key(self.chooser.choose(&mut random, kind == Kind::Put));
            let result = match kind {
                Kind::Put => target.put(&key, &self.value).await.map(|()| true),
                Kind::Get => target.get(&key).await,
            };
            self.seen().record.add(kind, began.elapsed(), result);
            // A target that answers at once would otherwise keep the thread for itself.
            tokio::task::coop::consume_budget().await;
        }
    }

    /// Waits until there is an operation to begin, and says from when its latency counts; `None` if there is none any more.
    async fn next(&self) -> Option<Instant> {
        let due = match &self.pacer {
            None => Instant::now(),
            Some(pacer) => pacer.next().await?,
        };
        if self.stopped.load(Ordering::Relaxed) {
            return None;
        }
        match &mut self.seen().left {
            None => Some(due),
            Some(0) => {
                // The others need not wait for a turn that will not be theirs.
                self.pacer.iter().for_each(Pacer::close);
                None
            }
            Some(left) => {
                *left -= 1;
                Some(due)
            }
        }
    }
}

/// Writes every key of a plan once, with as many outstanding as it says.
///
/// # Errors
/// The first failure, by its name; keys after it may not have been written.
pub async fn fill<T: Target>(targets: &[T], plan: &Plan) -> Result<(), String> {
    plan.keys.check()?;
    let next = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let mut callers: JoinSet<Result<(), String>> = JoinSet::new();
    for target in targets.iter().cycle().take(plan.out as usize) {
        let (target, keys, next, value) = (target.clone(), plan.keys.clone(), next.clone(), plan.value());
        callers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= keys.count {
                    return Ok(());
                }
                target.put(&keys.key(number), &value).await?;
            }
        });
    }
    while let Some(ended) = callers.join_next().await {
        ended.map_err(|error| error.to_string())??;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fault, MemoryKv};

    fn plan() -> Plan {
        Plan { count: Some(500), out: 7, put_percent: 40, ..Plan::default() }
    }

    #[tokio::test]
    async fn a_count_is_kept_and_the_same_seed_asks_the_same() {
        let run = async || {
            let kv = Kv::from(MemoryKv::new().client());
            let mut load = Load::start(vec![kv.clone(), kv], plan()).unwrap();
            let began = load.begin();
            load.until_counted().await;
            let window = load.end(began);
            (window.record.puts.latency.len(), window.record.gets.latency.len(), window.record.gets.found)
        };
        let (puts, gets, found) = run().await;
        assert_eq!(puts + gets, 500);
        assert!((150..250).contains(&puts), "{puts}");
        assert_eq!(run().await, (puts, gets, found));
    }

    #[tokio::test]
    async fn a_full_store_has_every_key_and_failures_have_names() {
        let memory = MemoryKv::new();
        let kv = Kv::from(memory.client());
        let plan = Plan { keys: Keys { count: 100, ..Plan::default().keys }, put_percent: 0, ..plan() };
        fill(std::slice::from_ref(&kv), &plan).await.unwrap();
        memory.fail_next(Fault::LoseRequest);
        let mut load = Load::start(vec![kv.clone()], plan.clone()).unwrap();
        load.until_counted().await;
        assert_eq!(load.look(|record| (record.gets.found, record.errors.values().sum::<u64>())), (499, 1));
        memory.fail_next(Fault::LoseRequest);
        assert!(fill(&[kv], &plan).await.is_err());
    }

    #[tokio::test]
    async fn what_waits_for_its_turn_counts() {
        /// Answers each after 2 ms, and does nothing else meanwhile.
        #[derive(Clone)]
        struct Slow;
        impl Target for Slow {
            async fn put(&self, _: &str, _: &Bytes) -> Result<(), String> {
                std::thread::sleep(Duration::from_millis(2));
                Ok(())
            }
            async fn get(&self, _: &str) -> Result<bool, String> {
                Ok(true)
            }
        }
        // Due every millisecond, answered every other: the hundredth has waited for 100 ms at the least.
        let plan =
            Plan { pace: Pace::Open { per_second: 1_000.0 }, out: 1, put_percent: 100, count: Some(100), ..plan() };
        let mut load = Load::start(vec![Slow], plan.clone()).unwrap();
        load.until_counted().await;
        assert!(load.look(|record| record.puts.latency.max()) >= 99_000);
        for per_second in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Load::start(vec![Slow], Plan { pace: Pace::Open { per_second }, ..plan.clone() }).is_err());
        }
    }

    #[tokio::test]
    async fn a_load_that_is_stopped_ends() {
        let kv = Kv::from(MemoryKv::new().client());
        for pace in [Pace::Closed, Pace::Open { per_second: 50_000.0 }] {
            let load = Load::start(vec![kv.clone()], Plan { pace, count: None, ..plan() }).unwrap();
            let window = load.window(Duration::from_millis(5)).await;
            load.stop().await;
            assert!(window.elapsed >= Duration::from_millis(5));
        }
    }
}
