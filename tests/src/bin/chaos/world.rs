//! What the nemeses of a run share: the cluster, who is under which fault, and what came of it.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use kv_client::{Client, ClusterStatus};
use kv_core::{ring, types::ShardId};
use kv_tests::{
    history::{
        Mode,
        recorder::Recorder,
        run::{RunEvent, What},
    },
    workloads::{Caller, Change, Load, Told},
};
use tokio::time::sleep;

use crate::{
    cluster::Cluster,
    links::Links,
    namespaces::{Network, Rule},
    tools::aside,
};

/// Time for a write that looks when a shard takes writes again.
const PROBE_DEADLINE: Duration = Duration::from_secs(20);
/// Numbers of callers that are not the load's begin here.
const PROBES_FROM: u64 = 100_000;
/// Pause between two looks at the cluster.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// A run as nemeses see it.
pub(crate) struct World {
    pub(crate) cluster: RefCell<Cluster>,
    pub(crate) links: Links,
    pub(crate) network: Option<Network>,
    pub(crate) recorder: Recorder,
    /// For probes, and for looking at the cluster.
    pub(crate) client: Client,
    pub(crate) load: RefCell<Option<Load>>,
    /// Set when nothing more is to be injected.
    pub(crate) stops: Cell<bool>,
    /// Nodes under a fault of their process or disk: one at a time.
    taken: RefCell<BTreeSet<usize>>,
    /// Nodes that may end by themselves now.
    pub(crate) may_end: RefCell<BTreeSet<usize>>,
    /// Nodes that stay out for the rest of the run.
    pub(crate) out: RefCell<BTreeSet<usize>>,
    /// How many faults of each name were made.
    pub(crate) faults: RefCell<BTreeMap<String, u64>>,
    /// After each kill of the busiest node: for each shard that it led, the time until a write to it succeeded.
    pub(crate) failovers: RefCell<Vec<Vec<Duration>>>,
    pub(crate) violations: RefCell<Vec<String>>,
    /// How often each node has ended by itself.
    pub(crate) deaths: RefCell<BTreeMap<usize, u32>>,
    /// The greatest memory that each node held.
    pub(crate) resident_bytes_max: RefCell<BTreeMap<usize, u64>>,
    probes: Cell<u64>,
    /// How many faults were begun, and how many of them are not over.
    begun: Cell<(u64, u64)>,
}

/// What was blocked, to be unblocked.
pub(crate) struct Blocked {
    rules: Vec<Rule>,
    links: Vec<(usize, usize)>,
    /// What links had done before.
    touched: u64,
}

/// A node that no other nemesis may touch meanwhile.
pub(crate) struct Taken<'a> {
    world: &'a World,
    pub(crate) node: usize,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.world.taken.borrow_mut().remove(&self.node);
    }
}

impl World {
    pub(crate) fn new(cluster: Cluster, links: Links, recorder: Recorder, client: Client) -> Self {
        let network = cluster.network();
        Self {
            cluster: RefCell::new(cluster),
            links,
            network,
            recorder,
            client,
            load: RefCell::default(),
            stops: Cell::new(false),
            taken: RefCell::default(),
            may_end: RefCell::default(),
            out: RefCell::default(),
            faults: RefCell::default(),
            failovers: RefCell::default(),
            violations: RefCell::default(),
            deaths: RefCell::default(),
            resident_bytes_max: RefCell::default(),
            probes: Cell::new(PROBES_FROM),
            begun: Cell::default(),
        }
    }

    pub(crate) fn nodes(&self) -> Vec<usize> {
        self.cluster.borrow().numbers().collect()
    }

    /// Takes a node, if nobody has it and it runs.
    pub(crate) fn take(&self, node: usize) -> Option<Taken<'_>> {
        let free = self.cluster.borrow().runs(node) && !self.out.borrow().contains(&node);
        // Made only if it was free: dropping it gives the node back.
        (free && self.taken.borrow_mut().insert(node)).then(|| Taken { world: self, node })
    }

    /// Takes any node.
    pub(crate) fn take_any(&self, random: &mut fastrand::Rng) -> Option<Taken<'_>> {
        let mut nodes = self.nodes();
        random.shuffle(&mut nodes);
        nodes.into_iter().find_map(|node| self.take(node))
    }

    /// Takes all nodes that run.
    pub(crate) fn take_all(&self) -> Vec<Taken<'_>> {
        self.nodes().into_iter().filter_map(|node| self.take(node)).collect()
    }

    /// A nemesis begins a round.
    pub(crate) fn begin(&self) {
        let (begun, now) = self.begun.get();
        self.begun.set((begun + 1, now + 1));
    }

    /// A nemesis has ended a round.
    pub(crate) fn end(&self) {
        let (begun, now) = self.begun.get();
        self.begun.set((begun, now.saturating_sub(1)));
    }

    /// How many rounds were begun.
    pub(crate) fn faults_begun(&self) -> u64 {
        self.begun.get().0
    }

    /// How many are not over.
    pub(crate) fn faults_now(&self) -> u64 {
        self.begun.get().1
    }

    /// Counts a fault and records it, when it is over.
    pub(crate) fn record(&self, name: &str, from_micros: u64, nodes: &[usize], detail: String) {
        *self.faults.borrow_mut().entry(name.to_owned()).or_default() += 1;
        let until_micros = Some(self.recorder.micros());
        let nodes = nodes.iter().map(|node| *node as u64).collect();
        let what = What::Fault { name: name.to_owned(), nodes, detail };
        self.recorder.event(&RunEvent { from_micros, until_micros, what });
    }

    /// Waits, but no longer than until the run's end.
    pub(crate) async fn hold(&self, time: Duration) {
        let began = Instant::now();
        while began.elapsed() < time && !self.stops.get() {
            sleep(LOOK_PAUSE.min(time.saturating_sub(began.elapsed()))).await;
        }
    }

    /// Blocks what goes between nodes, each pair in the one direction that it says; `None` stands for the clients, whom only
    /// namespaces can cut off.
    pub(crate) async fn block(&self, pairs: &[(Option<usize>, Option<usize>)]) -> Result<Blocked, String> {
        let Some(network) = self.network.clone() else {
            let links: Vec<_> = pairs.iter().filter_map(|(from, to)| Some(((*from)?, (*to)?))).collect();
            let touched = self.links.touched();
            links.iter().for_each(|(from, to)| self.links.block(*from, *to));
            return Ok(Blocked { rules: Vec::new(), links, touched });
        };
        let rules = pairs.iter().filter_map(|(from, to)| network.blocks(*from, *to)).collect();
        self.add_rules(rules).await
    }

    /// Adds rules by which packets are dropped.
    pub(crate) async fn add_rules(&self, rules: Vec<Rule>) -> Result<Blocked, String> {
        let network = self.network.clone().ok_or("there are no network namespaces")?;
        aside(move || {
            rules.iter().try_for_each(|rule| network.add_rule(rule))?;
            Ok(Blocked { rules, links: Vec::new(), touched: 0 })
        })
        .await
    }

    /// Undoes it, and tells how many packets were dropped, or how often bytes were held back.
    pub(crate) async fn unblock(&self, blocked: Blocked) -> Result<u64, String> {
        blocked.links.iter().for_each(|(from, to)| self.links.unblock(*from, *to));
        let Some(network) = self.network.clone() else { return Ok(self.links.touched() - blocked.touched) };
        aside(move || {
            let dropped = blocked.rules.iter().map(|rule| network.dropped(rule)).sum::<Result<u64, String>>()?;
            blocked.rules.iter().try_for_each(|rule| network.remove_rule(rule))?;
            Ok(dropped)
        })
        .await
    }

    /// Kills nodes at once. One that turns out to have ended by itself before is a violation that nobody else would see.
    pub(crate) fn kill(&self, nodes: &[usize]) {
        let ended = self.cluster.borrow_mut().kill(nodes);
        for (node, status) in ended {
            if !self.may_end.borrow().contains(&node) {
                let words = self.cluster.borrow().last_words(node);
                self.violated(format!(
                    "node {node} had ended by itself with {status} when it was to be killed: {words}"
                ));
            }
        }
    }

    /// How the cluster is.
    pub(crate) async fn status(&self) -> Result<ClusterStatus, String> {
        self.client.status().await.map_err(|error| error.to_string())
    }

    /// What is lacking for the cluster to be whole, if anything.
    pub(crate) async fn lacks(&self) -> Option<String> {
        let status = match self.status().await {
            Ok(status) => status,
            Err(error) => return Some(error),
        };
        for node in &status.nodes {
            let number = usize::try_from(node.node.0).unwrap_or_default();
            if self.out.borrow().contains(&number) {
                continue;
            }
            match &node.report {
                Err(error) => return Some(format!("node {}: {error}", node.node)),
                Ok(report) if !report.ready => return Some(format!("node {} is not ready", node.node)),
                Ok(_) => {}
            }
        }
        let without = status.shards.iter().find(|shard| shard.leader.is_none());
        if let Some(shard) = without {
            return Some(format!("shard {} has no leader", shard.shard));
        }
        status.shards.iter().find_map(|shard| {
            shard.replicas.iter().find_map(|replica| {
                let report = replica.report.as_ref()?;
                (!report.trouble.is_empty())
                    .then(|| format!("shard {} on node {}: {}", shard.shard, replica.node, report.trouble))
            })
        })
    }

    /// Waits until the cluster is whole, or says what is lacking.
    pub(crate) async fn wait_whole(&self, time: Duration) -> Result<(), String> {
        let began = Instant::now();
        loop {
            let Some(lacks) = self.lacks().await else { return Ok(()) };
            if began.elapsed() > time {
                return Err(lacks);
            }
            sleep(LOOK_PAUSE).await;
        }
    }

    /// A caller of its own for a probe.
    pub(crate) fn caller(&self) -> Caller {
        self.probes.set(self.probes.get() + 1);
        Caller::new(self.client.clone(), self.recorder.clone(), self.probes.get(), PROBE_DEADLINE)
    }

    /// Writes to a shard, and tells how long that took; `None` if it did not succeed.
    pub(crate) async fn probe(&self, shard: ShardId) -> Option<Duration> {
        let mut caller = self.caller();
        let key = self.key_in(shard);
        if let Some(load) = &*self.load.borrow() {
            load.also_written(&key);
        }
        let change = Change {
            key,
            value: Some(caller.unique()),
            condition: kv_core::command::Condition::Always,
            return_previous: false,
            mode: Mode::Sync,
        };
        let began = Instant::now();
        (caller.write(&change).await == Told::Done).then(|| began.elapsed())
    }

    fn key_in(&self, shard: ShardId) -> String {
        let shards = self.cluster.borrow().setup().shards;
        let mut number = 0_u64;
        loop {
            let key = format!("probe/{}", number);
            if shard_of(&key, shards) == shard {
                return key;
            }
            number += 1;
        }
    }

    /// Notes something that must not be.
    pub(crate) fn violated(&self, what: String) {
        eprintln!("chaos: {what}");
        self.violations.borrow_mut().push(what);
    }
}

/// The shard of a key in a cluster whose arcs are as they were founded: nothing cuts them yet.
pub(crate) fn shard_of(key: &str, shards: u32) -> ShardId {
    let position = ring::position(key.as_bytes());
    let arcs = ring::arcs(shards);
    let place = arcs.iter().position(|arc| arc.first <= position && position <= arc.last);
    // Shard 0 is the meta shard; the arcs cover the whole ring.
    ShardId(place.map_or(0, |place| place as u64 + 1))
}
