//! Faults of a [`TestCluster`] for an application's own tests, drawn from a seed: none of them needs root or another program.
//!
//! What a seed draws is the same each time; what comes of it is not, since the nodes run on real threads. *Left out*: the loss of what
//! was not synced (a node that is killed here keeps all that it wrote), networks that lose single packets, and clocks.

use std::{collections::BTreeSet, fmt, time::Duration};

use tokio::time::sleep;

use super::TestCluster;
use crate::Failure;

/// What a slow disk takes longer for each sync, in milliseconds.
const DELAY_MS: std::ops::Range<u64> = 1..200;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Nemesis {
    /// A node's threads end where they stand; it is started again.
    Kill,
    /// Those of all nodes do, at once.
    KillAll,
    /// A node stands still, with its connections open, and goes on as if nothing had been.
    Pause,
    /// The nodes are cut in two.
    Partition,
    /// A node is not heard by the others, or does not hear them.
    OneWay,
    /// Two halves share one node.
    Bridge,
    /// A node's links are cut and heal several times a second.
    Flap,
    /// Each sync of a node's log takes long.
    SlowLog,
    /// A node's log does not answer at all.
    StalledLog,
    /// A sync of a node's log fails, which ends the node; it is started again.
    FailedSync,
    /// A node's disk is full.
    FullDisk,
}

impl Nemesis {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Kill,
        Self::KillAll,
        Self::Pause,
        Self::Partition,
        Self::OneWay,
        Self::Bridge,
        Self::Flap,
        Self::SlowLog,
        Self::StalledLog,
        Self::FailedSync,
        Self::FullDisk,
    ];
}

/// A fault that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its kind.
    pub nemesis: Nemesis,
    /// Whom it struck: of a partition one side, of a bridge the node that both halves share.
    pub nodes: Vec<u64>,
    /// How long it lasted.
    pub lasted: Duration,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {:?} for {} ms", self.nemesis, self.nodes, self.lasted.as_millis())
    }
}

impl TestCluster {
    /// Makes so many faults of these kinds, one after the other, and ends them all: the cluster is whole afterwards, once its nodes
    /// have found each other ([`TestCluster::ready`]). Run the application's load beside it.
    ///
    /// A fault lasts up to `lasts_max`, and the cluster is left alone as long before the next: with two seconds some are longer
    /// than an election and some are not.
    ///
    /// # Errors
    /// If a node can't be started again.
    ///
    /// # Panics
    /// If no kind is given.
    pub async fn torment(
        &mut self,
        kinds: &[Nemesis],
        seed: u64,
        faults: usize,
        lasts_max: Duration,
    ) -> Result<Vec<Fault>, Failure> {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut made = Vec::new();
        for _ in 0..faults {
            let nemesis = kinds[random.usize(0..kinds.len())];
            let lasted = lasts_max.mul_f64(random.f64());
            let nodes = self.strike(nemesis, lasted, &mut random).await?;
            made.push(Fault { nemesis, nodes, lasted });
            sleep(lasts_max.mul_f64(random.f64())).await;
        }
        Ok(made)
    }

    /// One fault, begun and ended.
    async fn strike(
        &mut self,
        nemesis: Nemesis,
        lasts: Duration,
        random: &mut fastrand::Rng,
    ) -> Result<Vec<u64>, Failure> {
        let mut nodes: Vec<u64> = self.nodes().collect();
        random.shuffle(&mut nodes);
        let (one, others) = nodes.split_first().map(|(one, others)| (*one, others.to_vec())).unwrap_or_default();
        let mut struck = vec![one];
        match nemesis {
            Nemesis::Kill => self.kill(one)?,
            Nemesis::KillAll => {
                nodes.iter().try_for_each(|node| self.kill(*node))?;
                struck = nodes;
            }
            Nemesis::Pause => self.with_faults(one, |faults| faults.pause()),
            Nemesis::Partition => {
                let side = &nodes[..random.usize(1..nodes.len().max(2))];
                self.partition(side, &nodes[side.len()..])?;
                struck = side.to_vec();
            }
            Nemesis::OneWay => {
                let hears = random.bool();
                for other in &others {
                    if hears { self.cut_one_way(one, *other)? } else { self.cut_one_way(*other, one)? }
                }
            }
            Nemesis::Bridge => {
                let (left, right) = others.split_at(others.len() / 2);
                self.partition(left, right)?;
            }
            Nemesis::Flap => {
                let period = Duration::from_millis(random.u64(50..300));
                for _ in 0..(lasts.as_millis() / period.as_millis() / 2) {
                    self.partition(&[one], &others)?;
                    sleep(period).await;
                    self.heal();
                    sleep(period).await;
                }
                return Ok(struck);
            }
            Nemesis::SlowLog => {
                let delay = Duration::from_millis(random.u64(DELAY_MS));
                self.with_faults(one, |faults| faults.slow_log(delay));
            }
            Nemesis::StalledLog => self.with_faults(one, |faults| faults.stall_log()),
            Nemesis::FailedSync => self.with_faults(one, |faults| faults.fail_log()),
            Nemesis::FullDisk => self.with_faults(one, |faults| faults.fill_disk(true)),
        }
        sleep(lasts).await;
        // Whether the sync came in that time or not.
        if nemesis == Nemesis::FailedSync {
            self.kill(one)?;
        }
        self.relieve()?;
        Ok(struck)
    }

    /// Ends whatever was made to go wrong: links are whole, disks and nodes answer, who has ended is started again.
    ///
    /// # Errors
    /// If a node can't be started again.
    pub fn relieve(&mut self) -> Result<(), Failure> {
        self.heal();
        let nodes: BTreeSet<u64> = self.nodes().collect();
        for node in nodes {
            self.with_faults(node, |faults| {
                faults.resume();
                faults.resume_log();
                faults.slow_log(Duration::ZERO);
                faults.fill_disk(false);
                faults.forget_failure();
            });
            // One may have ended by itself.
            if self.server(node).is_some_and(|server| server.ending().is_some()) {
                self.kill(node)?;
            }
            if self.server(node).is_none() {
                self.restart(node)?;
            }
        }
        Ok(())
    }

    fn with_faults(&self, node: u64, change: impl FnOnce(&crate::Faults)) {
        if let Some(faults) = self.faults(node) {
            change(faults);
        }
    }
}
