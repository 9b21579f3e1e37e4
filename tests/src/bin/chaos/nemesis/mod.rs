//! The nemeses: each makes a fault, holds it for a while, and undoes it. Any of them can be at work at the same time.
//!
//! A fault of a process or of its disk takes the node, so that two don't fight over it; faults of the network add up. All undo
//! what they did, also when the run's time is over while they hold.

mod clock;
mod damage;
mod disk;
mod network;
mod power;
mod process;
mod slow;
mod sync;
mod transfer;

use std::{fmt, time::Duration};

use tokio::time::sleep;

use crate::{
    tools::{self, Tool},
    world::World,
};

/// A nemesis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Nemesis {
    Kill,
    KillAll,
    Pause,
    Starve,
    Partition,
    OneWay,
    Bridge,
    Flap,
    Loss,
    Slow,
    Cut,
    DiskFull,
    SyncFails,
    SyncSlow,
    Power,
    PowerAll,
    Clock,
    Transfer,
    Flip,
}

/// What a nemesis needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Need {
    Root,
    /// A network namespace for each node.
    Namespaces,
    /// Proxies between nodes.
    Proxies,
    /// A disk image for each node.
    Disks,
    /// Wall clocks by libfaketime.
    Clocks,
    /// strace.
    Strace,
}

impl Nemesis {
    pub(crate) const ALL: [Self; 19] = [
        Self::Kill,
        Self::KillAll,
        Self::Pause,
        Self::Starve,
        Self::Partition,
        Self::OneWay,
        Self::Bridge,
        Self::Flap,
        Self::Loss,
        Self::Slow,
        Self::Cut,
        Self::DiskFull,
        Self::SyncFails,
        Self::SyncSlow,
        Self::Power,
        Self::PowerAll,
        Self::Clock,
        Self::Transfer,
        Self::Flip,
    ];

    /// Its name on the command line and in histories.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::KillAll => "kill-all",
            Self::Pause => "pause",
            Self::Starve => "starve",
            Self::Partition => "partition",
            Self::OneWay => "one-way",
            Self::Bridge => "bridge",
            Self::Flap => "flap",
            Self::Loss => "loss",
            Self::Slow => "slow",
            Self::Cut => "cut",
            Self::DiskFull => "disk-full",
            Self::SyncFails => "sync-fails",
            Self::SyncSlow => "sync-slow",
            Self::Power => "power",
            Self::PowerAll => "power-all",
            Self::Clock => "clock",
            Self::Transfer => "transfer",
            Self::Flip => "flip",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|nemesis| nemesis.name() == name)
    }

    /// What it does, in a line.
    pub(crate) fn about(self) -> &'static str {
        match self {
            Self::Kill => "kill -9 of the node that leads most shards; the time to the next write is measured",
            Self::KillAll => "kill -9 of all nodes at once",
            Self::Pause => "SIGSTOP of a node for up to 8 s, the busiest one half of the times",
            Self::Starve => "a node runs a tenth of the time, or less",
            Self::Partition => "the nodes are split in two, the clients reach all of them or only the larger part",
            Self::OneWay => "one node is not heard by the others, or does not hear them",
            Self::Bridge => "two halves that share one node",
            Self::Flap => "one node's links break and heal several times a second",
            Self::Loss => "up to 40 % of all packets to all nodes are dropped",
            Self::Slow => "what goes between two nodes, or to and from one, is up to 400 ms late",
            Self::Cut => "all connections between nodes are cut, several times",
            Self::DiskFull => "a node's disk is filled: below the reserve, or to the last byte",
            Self::SyncFails => "a node's next fdatasync fails with EIO",
            Self::SyncSlow => "each fdatasync of a node takes up to 700 ms more",
            Self::Power => "a node loses what the kernel had not written to its disk",
            Self::PowerAll => "all nodes do, at once",
            Self::Clock => "a node's wall clock jumps by up to a year, forth or back",
            Self::Transfer => "leaderships are handed over, several at once",
            Self::Flip => {
                "bits flip in the read index and the checkpoints of a minority, and once in a log: that node stays out"
            }
        }
    }

    /// What it needs.
    pub(crate) fn needs(self) -> &'static [Need] {
        match self {
            Self::Kill | Self::KillAll | Self::Pause | Self::Starve | Self::Transfer | Self::Flip => &[],
            // Between namespaces packets are dropped; without them proxies hold bytes back.
            Self::Partition | Self::OneWay | Self::Bridge | Self::Flap => &[],
            Self::Loss => &[Need::Root, Need::Namespaces],
            Self::Slow | Self::Cut => &[Need::Proxies],
            Self::DiskFull | Self::Power | Self::PowerAll => &[Need::Root, Need::Disks],
            Self::SyncFails | Self::SyncSlow => &[Need::Strace],
            Self::Clock => &[Need::Clocks],
        }
    }

    /// Why it can't be done here, if it can't.
    pub(crate) fn lacks(self, namespaces: bool) -> Option<String> {
        self.needs().iter().find_map(|need| need.lacks(namespaces))
    }

    /// Makes its fault once, holds it and undoes it. `false` if there was nothing that it could do, or it met nothing; then it is not
    /// counted either.
    async fn round(self, world: &World, random: &mut fastrand::Rng) -> Result<bool, String> {
        match self {
            Self::Kill => process::kill(world, random).await,
            Self::KillAll => process::kill_all(world, random).await,
            Self::Pause => process::pause(world, random).await,
            Self::Starve => process::starve(world, random).await,
            Self::Partition => network::partition(world, random).await,
            Self::OneWay => network::one_way(world, random).await,
            Self::Bridge => network::bridge(world, random).await,
            Self::Flap => network::flap(world, random).await,
            Self::Loss => network::loss(world, random).await,
            Self::Slow => slow::slow(world, random).await,
            Self::Cut => slow::cut(world, random).await,
            Self::DiskFull => disk::full(world, random).await,
            Self::SyncFails => sync::fails(world, random).await,
            Self::SyncSlow => sync::slow(world, random).await,
            Self::Power => power::one(world, random).await,
            Self::PowerAll => power::all(world, random).await,
            Self::Clock => clock::jump(world, random).await,
            Self::Transfer => transfer::storm(world, random).await,
            Self::Flip => damage::flip(world, random).await,
        }
    }
}

impl fmt::Display for Nemesis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Need {
    fn lacks(self, namespaces: bool) -> Option<String> {
        match self {
            Self::Root => (!tools::is_root()).then(|| "it needs root".to_owned()),
            Self::Namespaces => (!namespaces).then(|| "it needs network namespaces".to_owned()),
            Self::Proxies => None,
            Self::Disks => [Tool::MkfsExt4, Tool::Losetup].into_iter().find_map(Tool::missing),
            Self::Clocks => Tool::Libfaketime.missing(),
            Self::Strace => Tool::Strace.missing(),
        }
    }
}

/// Makes a nemesis' fault again and again, until the run's time is over.
pub(crate) async fn haunt(
    nemesis: Nemesis,
    world: &World,
    mut random: fastrand::Rng,
    pause: std::ops::Range<u64>,
) -> Result<(), String> {
    loop {
        world.hold(Duration::from_millis(random.u64(pause.clone()))).await;
        if world.stops.get() {
            return Ok(());
        }
        world.begin();
        let did = nemesis.round(world, &mut random).await;
        world.end();
        if did.is_err() {
            // The run is over: without this one it is not what was asked for.
            world.stops.set(true);
        }
        if !did.map_err(|error| format!("{nemesis}: {error}"))? {
            sleep(Duration::from_millis(200)).await;
        }
    }
}
