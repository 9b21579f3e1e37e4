//! One node's files are deleted or damaged: it must refuse to start where it can't be trusted, mend itself where nothing is
//! lost, and the other two must go on all the while.

use std::{fs, path::Path, process::ExitStatus, rc::Rc, time::Duration};

use kv_tests::{
    damage::{bytes_below, files_below, flip_in_the_log, flip_somewhere},
    processes::{Cluster, Layout},
};
use tokio::{task::LocalSet, time::sleep};

use super::{DEADLINE, describe};
use crate::{
    Ran,
    load::{Load, Shape},
    replica,
};

/// The node whose files are damaged.
const VICTIM: usize = 3;
/// Time of load before each damage.
const LOAD_TIME: Duration = Duration::from_secs(3);
/// Checkpoints come every second, so that there is an index to damage.
const FLAGS: [&str; 2] = ["--checkpoint-ticks", "20"];
/// The exit code of a node whose directory was wiped.
const EXIT_DATA_DIRECTORY: i32 = 3;
/// The exit code of a node whose log is damaged.
const EXIT_DAMAGED: i32 = 4;

/// Damages in all ways; of the index this many bytes, one at a time.
pub(crate) async fn run(layout: &Layout, shape: Shape, flips: u32) -> Ran {
    describe("damage", layout, shape);
    let cluster = Cluster::start(layout, &FLAGS).await?;
    LocalSet::new()
        .run_until(async {
            let load = Load::new(cluster.client(DEADLINE).await?, shape, DEADLINE);
            let mut torture = Torture { cluster, load, random: fastrand::Rng::with_seed(shape.seed) };
            torture.wiped().await?;
            torture.index_deleted().await?;
            for _ in 0..flips {
                torture.index_flipped().await?;
            }
            torture.log_damaged().await?;
            torture.load.print_counts();
            let verdict = torture.load.judge.borrow().verdict();
            Ok(verdict)
        })
        .await
}

struct Torture<'a> {
    cluster: Cluster<'a>,
    load: Rc<Load>,
    random: fastrand::Rng,
}

impl Torture<'_> {
    /// The data directory is gone: under its old id the node must not come back, and with its old directory it must.
    async fn wiped(&mut self) -> Result<(), String> {
        self.kill_under_load().await?;
        let data = self.cluster.data(VICTIM);
        let aside = data.with_extension("aside");
        rename(&data, &aside)?;
        self.cluster.spawn(VICTIM)?;
        let status = self.cluster.wait_refusal(VICTIM).await?;
        self.told("data directory gone", status, EXIT_DATA_DIRECTORY, &["wiped"]);
        self.goes_on("without the wiped node").await?;
        fs::remove_dir_all(&data).map_err(|error| error.to_string())?;
        rename(&aside, &data)?;
        self.comes_back("its directory was put back").await
    }

    /// The read index is gone.
    async fn index_deleted(&mut self) -> Result<(), String> {
        self.kill_under_load().await?;
        let index = self.cluster.data(VICTIM).join("index");
        let bytes = bytes_below(&index)?;
        fs::remove_dir_all(&index).map_err(|error| format!("{}: {error}", index.display()))?;
        self.comes_back(&format!("its index of {bytes} bytes was deleted")).await
    }

    /// A bit of the read index is another one.
    async fn index_flipped(&mut self) -> Result<(), String> {
        self.kill_under_load().await?;
        let index = self.cluster.data(VICTIM).join("index");
        let flip = flip_somewhere(&files_below(&index)?, &mut self.random)?;
        let flip = flip.ok_or_else(|| format!("{} holds nothing to flip", index.display()))?;
        self.comes_back(&format!("a bit of byte {} of {} was flipped", flip.offset, flip.name())).await
    }

    /// A bit in the middle of the log is another one: the node must not start, and must not have changed anything.
    async fn log_damaged(&mut self) -> Result<(), String> {
        self.kill_under_load().await?;
        let log = self.cluster.data(VICTIM).join("log");
        let flip = flip_in_the_log(&files_below(&log)?)?;
        let flip = flip.ok_or_else(|| format!("{} holds nothing to flip", log.display()))?;
        let what = format!("a bit of byte {} of log/{} flipped", flip.offset, flip.name());
        for _ in 0..2 {
            self.cluster.spawn(VICTIM)?;
            let status = self.cluster.wait_refusal(VICTIM).await?;
            self.told(&what, status, EXIT_DAMAGED, &["log"]);
        }
        self.goes_on("without the node whose log is damaged").await?;
        flip.undo()?;
        self.comes_back("that bit was put back").await
    }

    /// Writes and checkpoints for a while, then ends the node in the midst of it.
    async fn kill_under_load(&mut self) -> Result<(), String> {
        let tasks = self.load.start();
        sleep(LOAD_TIME).await;
        self.cluster.check_running()?;
        self.cluster.kill(VICTIM);
        self.load.stop(tasks).await
    }

    /// The node must have refused its start with this exit code and these words.
    fn told(&mut self, what: &str, status: ExitStatus, code: i32, words: &[&str]) {
        let said = self.cluster.last_words(VICTIM);
        println!("{what}: node {VICTIM} refused to start, {status}:\n    {said}");
        if status.code() != Some(code) || !words.iter().all(|word| said.contains(word)) {
            let message = format!("{what}: expected exit code {code} and the words {words:?}, got {status}: {said}");
            self.load.judge.borrow_mut().violated(message);
        }
    }

    /// The other nodes serve reads and writes, and hold everything.
    async fn goes_on(&mut self, what: &str) -> Result<(), String> {
        let before = self.load.counts.borrow().acknowledged;
        let tasks = self.load.start();
        sleep(LOAD_TIME).await;
        self.load.stop(tasks).await?;
        let keys = self.load.read_back(&self.cluster.client(DEADLINE).await?).await;
        let acknowledged = self.load.counts.borrow().acknowledged - before;
        println!("    {what} the cluster acknowledged {acknowledged} writes; {keys} keys read back");
        if acknowledged == 0 {
            self.load.judge.borrow_mut().violated(format!("{what} nothing was served"));
        }
        Ok(())
    }

    /// The node starts, is ready, and itself answers for every key.
    async fn comes_back(&mut self, after: &str) -> Result<(), String> {
        let began = std::time::Instant::now();
        self.cluster.spawn(VICTIM)?;
        self.cluster.wait_whole().await?;
        let took = began.elapsed().as_secs_f64();
        let keys = replica::read_all(&self.cluster.client_address(VICTIM), &self.load).await?;
        println!("node {VICTIM} is ready {took:.2} s after {after}, and itself answers for {keys} keys");
        Ok(())
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), String> {
    fs::rename(from, to).map_err(|error| format!("{} can't be moved: {error}", from.display()))
}
