//! The load: tasks that write, tasks that read, and what each of them saw.
//!
//! A key is written by one task only, one write at a time, with numbers that grow. So each key's history is a line, and
//! what a read may return can be said at once, without a search: see [`crate::judge`].

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    time::{Duration, Instant},
};

use kv_client::{Client, Error, ErrorKind, Outcome};
use tokio::task::JoinHandle;

use crate::judge::{Judge, Key, Written};

/// Keys of one writer.
const KEYS_EACH: u64 = 40;
/// Length of a value, so that the files that are damaged hold something.
const VALUE_BYTES: usize = 200;
/// Pause of a task after an error, so that a cluster that is down is not asked in a tight loop.
const ERROR_PAUSE: Duration = Duration::from_millis(20);
/// A call that took this share of its deadline has failed by it.
const DEADLINE_SHARE: f64 = 0.9;

/// How much load there is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Tasks that write.
    pub(crate) writers: usize,
    /// Tasks that read.
    pub(crate) readers: usize,
    /// Where the choice of keys begins.
    pub(crate) seed: u64,
}

/// What came of the calls.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Writes that were acknowledged.
    pub(crate) acknowledged: u64,
    /// Reads that were answered.
    pub(crate) read: u64,
    /// Failed calls, by kind and outcome.
    pub(crate) errors: BTreeMap<String, u64>,
    /// The longest time that a call took which succeeded.
    pub(crate) longest_wait: Duration,
    /// The same, since it was last taken.
    longest_wait_lately: Duration,
    /// The longest time in which no write was acknowledged at all.
    pub(crate) longest_silence: Duration,
    last_acknowledged: Option<Instant>,
}

impl Counts {
    fn waited(&mut self, wait: Duration) {
        self.longest_wait = self.longest_wait.max(wait);
        self.longest_wait_lately = self.longest_wait_lately.max(wait);
    }

    /// The longest time that a call took which succeeded since this was last asked.
    pub(crate) fn take_longest_wait(&mut self) -> Duration {
        std::mem::take(&mut self.longest_wait_lately)
    }
}

/// What the tasks share.
pub(crate) struct Load {
    client: Client,
    shape: Shape,
    deadline: Duration,
    stops: Cell<bool>,
    /// What each key may hold.
    pub(crate) judge: RefCell<Judge>,
    /// What came of the calls.
    pub(crate) counts: RefCell<Counts>,
}

impl Load {
    /// No load yet.
    pub(crate) fn new(client: Client, shape: Shape, deadline: Duration) -> Rc<Self> {
        let keys =
            (0..shape.writers as u64).flat_map(|writer| (0..KEYS_EACH).map(move |number| Key { writer, number }));
        let judge = RefCell::new(Judge::new(keys));
        Rc::new(Self { client, shape, deadline, stops: Cell::new(false), judge, counts: RefCell::default() })
    }

    /// Starts the tasks. Must be called in a local set.
    pub(crate) fn start(self: &Rc<Self>) -> Vec<JoinHandle<()>> {
        self.stops.set(false);
        let mut tasks = Vec::new();
        for writer in 0..self.shape.writers as u64 {
            tasks.push(tokio::task::spawn_local(Rc::clone(self).write(writer)));
        }
        for reader in 0..self.shape.readers as u64 {
            tasks.push(tokio::task::spawn_local(Rc::clone(self).read(reader)));
        }
        tasks
    }

    /// Lets every task finish the call it is in, and waits for that.
    pub(crate) async fn stop(&self, tasks: Vec<JoinHandle<()>>) -> Result<(), String> {
        self.stops.set(true);
        for task in tasks {
            task.await.map_err(|error| format!("a task of the load failed: {error}"))?;
        }
        // The time until the next start is no gap.
        self.counts.borrow_mut().last_acknowledged = None;
        Ok(())
    }

    async fn write(self: Rc<Self>, writer: u64) {
        let mut turn = 0;
        while !self.stops.get() {
            let key = Key { writer, number: turn % KEYS_EACH };
            turn += 1;
            let number = self.judge.borrow_mut().issue(key);
            let began = Instant::now();
            let value = format!("{number:0VALUE_BYTES$}");
            let result = self.client.put(key.to_string(), value).deadline(self.deadline).await;
            let written = match &result {
                Ok(receipt) => Written::Acknowledged(receipt.revision),
                Err(error) if error.outcome() == Outcome::Unknown => Written::Unknown,
                Err(_) => Written::NotApplied,
            };
            self.judge.borrow_mut().written(key, number, written);
            match result {
                Ok(_) => self.acknowledged(began),
                Err(error) => self.failed("put", &error, began).await,
            }
        }
    }

    async fn read(self: Rc<Self>, reader: u64) {
        let mut random = fastrand::Rng::with_seed(self.shape.seed ^ (reader + 1) << 40);
        while !self.stops.get() {
            let writer = random.u64(0..self.shape.writers as u64);
            let key = Key { writer, number: random.u64(0..KEYS_EACH) };
            let floor = self.judge.borrow().floor(key);
            let began = Instant::now();
            match self.client.get(key.to_string()).deadline(self.deadline).await {
                Ok(entry) => {
                    self.judge.borrow_mut().saw(key, floor, entry.as_ref());
                    let mut counts = self.counts.borrow_mut();
                    counts.read += 1;
                    counts.waited(began.elapsed());
                }
                Err(error) => self.failed("get", &error, began).await,
            }
        }
    }

    /// Reads every key and judges it; for the end, when nobody writes.
    pub(crate) async fn read_back(&self, client: &Client) -> usize {
        let keys: Vec<Key> = self.judge.borrow().keys().collect();
        let floors: Vec<_> = keys.iter().map(|key| self.judge.borrow().floor(*key)).collect();
        let names = keys.iter().map(Key::to_string);
        let entries = client.get_many(names).deadline(self.deadline).await;
        let mut judge = self.judge.borrow_mut();
        for ((key, floor), entry) in keys.iter().zip(floors).zip(entries) {
            match entry {
                Ok(entry) => judge.saw(*key, floor, entry.as_ref()),
                Err(error) => judge.violated(format!("{key} could not be read back: {error}")),
            }
        }
        keys.len()
    }

    fn acknowledged(&self, began: Instant) {
        let mut counts = self.counts.borrow_mut();
        let now = Instant::now();
        counts.acknowledged += 1;
        counts.waited(now - began);
        if let Some(last) = counts.last_acknowledged.replace(now) {
            counts.longest_silence = counts.longest_silence.max(now - last);
        }
    }

    /// Only a passed deadline may reach a caller.
    async fn failed(&self, what: &str, error: &Error, began: Instant) {
        let took = began.elapsed();
        let in_time = took.as_secs_f64() < DEADLINE_SHARE * self.deadline.as_secs_f64();
        if in_time || !matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Unavailable) {
            let (kind, took) = (error.kind(), took.as_secs_f64());
            self.judge.borrow_mut().violated(format!("a {what} failed after {took:.3} s with {kind:?}: {error}"));
        }
        let name = format!("{what} {:?} {:?}", error.kind(), error.outcome());
        *self.counts.borrow_mut().errors.entry(name).or_default() += 1;
        tokio::time::sleep(ERROR_PAUSE).await;
    }

    /// Prints what came of the calls, and how many there were a second.
    pub(crate) fn print(&self, time: Duration) {
        self.print_counts();
        let counts = self.counts.borrow();
        let per_second = |count: u64| count as f64 / time.as_secs_f64().max(0.001);
        let (writes, reads) = (per_second(counts.acknowledged), per_second(counts.read));
        println!("throughput  {writes:.0} writes and {reads:.0} reads a second over {:.0} s", time.as_secs_f64());
    }

    /// Prints what came of the calls.
    pub(crate) fn print_counts(&self) {
        let counts = self.counts.borrow();
        let judge = self.judge.borrow();
        println!(
            "writes      {} acknowledged, {} unknown, {} not applied",
            counts.acknowledged,
            judge.unknown(),
            judge.not_applied()
        );
        println!("reads       {} answered, each judged", counts.read);
        match counts.errors.is_empty() {
            true => println!("errors      none reached a caller"),
            false => println!("errors      {:?}", counts.errors),
        }
        println!(
            "gaps        longest wait of a call that succeeded {:.3} s; longest time without any acknowledged write {:.3} s",
            counts.longest_wait.as_secs_f64(),
            counts.longest_silence.as_secs_f64()
        );
    }
}
