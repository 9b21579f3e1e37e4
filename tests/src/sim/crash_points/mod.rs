//! A crash at every step: one machine of a recorded run loses its power before each change of its disk, in every legal state
//! in which that can leave the disk, and is started again.
//!
//! A whole cluster for each of a million states would take days. A run of three nodes is therefore recorded once: images of
//! one machine's disk, and what it had promised ([`tape`]). From each image its process is started on its own, the very code
//! of production, its peers silent, and judged against the promises ([`restart`]): what it has told as synced, voted and
//! acknowledged is all in there, since nothing leaves a node before its batch is synced. Some of these starts are recorded in
//! turn, and crashed again at every step of the recovery, and at a batch written where a torn one stood before. Or the process is
//! only killed first: what it had written and not synced is in the page cache still, is found there by the next start, which writes
//! more, and then the power goes. The read index has no place in all this: it may stand at any earlier moment of the story.
//! For a sample of steps the whole cluster goes on ([`cluster`]), and must come to rest as after any fault.
//!
//! *Left out*: see [`story`] for what the story does not have in it, [`mod@subsets`] for the bound on disk states; crashes of two
//! machines at once, damage on top of a crash, and more than two crashes without progress in between, which the swarm has.

pub(super) mod cluster;
mod restart;
mod story;
mod subsets;
pub(crate) mod tape;

use std::fmt;

use fastrand::Rng;

use self::{
    restart::Restarter,
    story::{NODE, Story},
    subsets::subsets,
    tape::{Promise, Tape},
};
use crate::disk::{SimDisk, image::Image};

pub use self::story::Looks;

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// What the story's choices are drawn from.
    pub seed: u64,
    /// About how many disk states to visit.
    pub states: u64,
    /// How many whole clusters go on after a crash.
    pub clusters: u64,
}

/// What was done.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// What the story had in it.
    pub looks: Looks,
    /// States after one crash.
    pub first: u64,
    /// Steps of which all legal states were visited.
    pub complete: u64,
    /// States after a crash within the recovery from a first.
    pub in_recovery: u64,
    /// States after a crash in the batch that was written at the place of a torn one.
    pub same_block: u64,
    /// States of a start after the process was killed, and after a crash within it or behind it.
    pub after_kill: u64,
    /// Replicas whose state was compared with that of the run.
    pub compared: u64,
    /// Replicas at an index whose state was not seen in the run.
    pub not_seen: u64,
    /// Whole clusters that went on.
    pub clusters: u64,
    /// What did not hold, with the place.
    pub failure: Option<String>,
}

impl Summary {
    /// All disk states that a machine was started on.
    #[must_use]
    pub fn states(&self) -> u64 {
        self.first + self.in_recovery + self.same_block + self.after_kill
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let looks = &self.looks;
        writeln!(
            f,
            "{} steps of a disk; {} checkpoints, {} merges, {} snapshots installed, {} states fetched, {} segments recycled",
            looks.steps, looks.checkpoints, looks.merges, looks.installs, looks.states_lost, looks.recycled
        )?;
        writeln!(
            f,
            "{} disk states: {} after one crash ({} steps in all legal states), {} after another in the recovery, {} after \
             another in the same block, {} after a kill",
            self.states(),
            self.first,
            self.complete,
            self.in_recovery,
            self.same_block,
            self.after_kill
        )?;
        write!(
            f,
            "{} states of replicas compared, {} at an index not seen in the run; {} clusters went on",
            self.compared, self.not_seen, self.clusters
        )
    }
}

/// Records the story and crashes it.
#[must_use]
pub fn run(effort: Effort) -> Summary {
    let mut summary = Summary::default();
    match Story::record(effort.seed) {
        Err(what) => summary.failure = Some(format!("the story does not hold: {what}")),
        Ok(story) => {
            summary.looks = story.looks;
            let mut crasher = Crasher {
                restarter: Restarter::new(&story),
                rng: Rng::with_seed(effort.seed),
                states: effort.states,
                summary: &mut summary,
            };
            let failure = crasher.crash_everywhere(&story).err();
            let (compared, not_seen) = (crasher.restarter.compared, crasher.restarter.not_seen);
            (summary.compared, summary.not_seen, summary.failure) = (compared, not_seen, failure);
            if summary.failure.is_none() {
                summary.failure = cluster::go_on(&story, effort.clusters, &mut summary.clusters).err();
            }
        }
    }
    summary
}

/// States of one step of a recovery that are visited.
const RECOVERY_SUBSETS: usize = 3;
/// Moments of the story that the read index may have gone back by, at most.
const TREE_MOMENTS_BACK: usize = 300;
/// States of one step of writing at the place of a torn block that are visited.
const SAME_BLOCK_SUBSETS: usize = 32;
/// Bytes of what is written there, at most: several sectors.
const SAME_BLOCK_BYTES: usize = 1_600;

struct Crasher<'a> {
    restarter: Restarter<'a>,
    rng: Rng,
    states: u64,
    summary: &'a mut Summary,
}

impl Crasher<'_> {
    /// Half of the states are spent on first crashes, at each step alike; what a step does not need goes to the later ones. If
    /// there are fewer states than steps, steps are drawn. An eighth follows a kill, the rest another crash.
    fn crash_everywhere(&mut self, story: &Story) -> Result<(), String> {
        let steps = story.moments.len() as u64;
        for (number, (image, promise)) in (0..).zip(&story.moments) {
            let promise = &self.with_an_older_tree(story, number as usize, promise);
            self.kill_first(image, promise, self.states / 8 * (number + 1) / steps)
                .map_err(|what| format!("step {number}, killed: {what}"))?;
            let left = (self.states / 2).saturating_sub(self.summary.first);
            let most = left / (steps - number) + u64::from(self.rng.u64(..steps - number) < left % (steps - number));
            if most == 0 {
                continue;
            }
            let undecided = image.undecided();
            let (chosen, complete) = subsets(undecided.count(), most as usize, &mut self.rng);
            self.summary.complete += u64::from(complete);
            for subset in chosen {
                let disk = image.after_power_loss(&undecided, |number| subset.has(number));
                self.summary.first += 1;
                self.crash_twice(&disk, promise, self.states * 3 / 8 * (number + 1) / steps)
                    .map_err(|what| format!("step {number}, {undecided:?}, of which survives {subset:?}: {what}"))?;
            }
        }
        Ok(())
    }

    /// Starts the machine; while fewer than so many second crashes were seen, it is crashed again all along its recovery.
    fn crash_twice(&mut self, disk: &SimDisk, promise: &Promise, second_most: u64) -> Result<(), String> {
        if self.summary.in_recovery + self.summary.same_block >= second_most || self.rng.bool() {
            return self.restarter.judge(disk.clone(), promise, None).map(drop);
        }
        let (in_recovery, same_block) = self.crash_all_along(disk, promise)?;
        self.summary.in_recovery += in_recovery;
        self.summary.same_block += same_block;
        Ok(())
    }

    /// Starts the machine as it is after a kill, while fewer than so many states were visited after one.
    fn kill_first(&mut self, image: &Image, promise: &Promise, most: u64) -> Result<(), String> {
        if self.summary.after_kill < most {
            let (in_recovery, same_block) = self.crash_all_along(&image.disk(), promise)?;
            self.summary.after_kill += 1 + in_recovery + same_block;
        }
        Ok(())
    }

    /// In half of the states the read index stands where it once stood: nothing makes it durable.
    fn with_an_older_tree(&mut self, story: &Story, number: usize, promise: &Promise) -> Promise {
        let back = if self.rng.bool() { 0 } else { self.rng.usize(..=TREE_MOMENTS_BACK) };
        let (_, older) = &story.moments[number.saturating_sub(back)];
        Promise { tree: older.tree.clone(), ..promise.clone() }
    }

    /// Starts the machine, and crashes it at every step of its recovery and of the next batch; how many states of either were
    /// visited.
    fn crash_all_along(&mut self, disk: &SimDisk, promise: &Promise) -> Result<(u64, u64), String> {
        let mut tape = Tape::new(NODE, disk);
        let told = self.restarter.judge(disk.clone(), promise, Some(&mut tape))?;
        let recovered = disk.images_taken();
        let bytes = self.rng.usize(..SAME_BLOCK_BYTES);
        self.restarter.write_another(&told, bytes, &mut tape)?;
        let shards: Vec<_> = told.shards.keys().copied().collect();
        let moments = tape.end(promise.clone(), &shards)?;
        let (mut in_recovery, mut same_block) = (0, 0);
        for (number, (image, promise)) in moments.iter().enumerate() {
            let is_recovery = number < recovered;
            let most = if is_recovery { RECOVERY_SUBSETS } else { SAME_BLOCK_SUBSETS };
            let visited = self.crash_again(image, promise, most);
            let what = if is_recovery { "of the recovery" } else { "to the end of the next batch" };
            let visited = visited.map_err(|why| format!("and again at step {number} {what}, {why}"))?;
            *(if is_recovery { &mut in_recovery } else { &mut same_block }) += visited;
        }
        Ok((in_recovery, same_block))
    }

    fn crash_again(&mut self, image: &Image, promise: &Promise, most: usize) -> Result<u64, String> {
        let undecided = image.undecided();
        let (chosen, _) = subsets(undecided.count(), most, &mut self.rng);
        for subset in &chosen {
            let disk = image.after_power_loss(&undecided, |number| subset.has(number));
            self.restarter
                .judge(disk, promise, None)
                .map_err(|what| format!("{undecided:?}, of which survives {subset:?}: {what}"))?;
        }
        Ok(chosen.len() as u64)
    }
}
