//! A run: a cluster, honest clients, and one kind of attack after the other.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use kv_client::{Client, ClusterStatus};
use kv_tests::{
    processes::{Cluster, Layout},
    usage,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{sleep, timeout},
};

use crate::{
    attacker::Tally,
    honest::Honest,
    kinds::{Kind, Port},
    measure::{Peak, Sum},
    options::Options,
    overload,
    report::{self, Line, files_are_back},
};

/// The node that is attacked.
const ATTACKED: usize = 1;
const SHARDS: u32 = 12;
/// Leaders stand where they are preferred by then, or the run goes on without.
const SETTLE_WAIT: Duration = Duration::from_secs(40);
/// An attack has begun by then.
const BEGIN_WAIT: Duration = Duration::from_secs(20);
/// Then it goes on for so long before anything is measured: what is asked for is the attack, and not its first moment, in which
/// the kernel has thousands of connections to make.
const SETTLE_PAUSE: Duration = Duration::from_secs(1);
/// After an attack its connections must be closed by then: the server asks silent ones every 10 s, and gives them 5.
const BACK_WAIT: Duration = Duration::from_secs(30);
/// Attackers must have ended by then once they are told to.
const END_WAIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);

/// Makes a run. True if everything held.
pub(crate) async fn run(options: &Options, server: PathBuf) -> Result<bool, String> {
    let is_overload = options.kind == "overload";
    let kinds = if is_overload { Vec::new() } else { options.kinds()? };
    let layout = Layout::new(server, None, SHARDS, options.seed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let work = async {
        if is_overload { overload::run(options, &layout).await } else { run_in(options, &kinds, &layout).await }
    };
    let ran = tokio::select! {
        ran = work => ran,
        _ = interrupt.recv() => Err("interrupted".to_owned()),
        _ = terminate.recv() => Err("told to end".to_owned()),
    };
    if !ran.as_ref().is_ok_and(|held| *held) {
        println!("directory   {}", layout.keep().display());
    }
    ran
}

async fn run_in(options: &Options, kinds: &[Kind], layout: &Layout) -> Result<bool, String> {
    println!("attack      {}", layout.describe());
    let flags: Vec<_> = options.server_flags.split_whitespace().collect();
    let mut cluster = Cluster::start(layout, &flags).await?;
    let honest = Honest::start(&cluster, ATTACKED, options, layout.directory()).await?;
    settle(&honest.client).await?;
    report::print_head();
    let mut held = true;
    for kind in kinds {
        let line = try_kind(options, *kind, &mut cluster, &honest).await?;
        line.print();
        held &= line.broken.is_empty();
        if let Some(out) = &options.out {
            line.append(out)?;
        }
    }
    let broken = honest.judge().await?;
    broken.iter().for_each(|broken| println!("VIOLATION   {broken}"));
    Ok(held && broken.is_empty())
}

/// Waits until every shard is led by the node that ought to: what moves later is then the attack's doing.
pub(crate) async fn settle(client: &Client) -> Result<(), String> {
    let settled = async {
        loop {
            let status = client.status().await.map_err(|error| error.to_string())?;
            if status.shards.iter().all(|shard| shard.leader.is_some() && shard.leader == shard.owner) {
                return Ok(());
            }
            sleep(PAUSE).await;
        }
    };
    timeout(SETTLE_WAIT, settled).await.unwrap_or(Ok(()))
}

/// The terms of all shards together, which rise with each election.
pub(crate) fn terms(status: &ClusterStatus) -> u64 {
    status.shards.iter().map(|shard| shard.term).sum()
}

async fn try_kind(options: &Options, kind: Kind, cluster: &mut Cluster<'_>, honest: &Honest) -> Result<Line, String> {
    let node = cluster.process(ATTACKED).ok_or("the attacked node does not run")?;
    let target = match kind.port {
        Port::Client => cluster.client_address(ATTACKED),
        Port::Peer => cluster.peer_address(ATTACKED),
        Port::Http => cluster.http_address(ATTACKED),
    };
    let status = async || honest.client.status().await.map_err(|error| error.to_string());
    let (before, terms_before) = (usage::usage(node)?, terms(&status().await?));
    let (peak, length) = (Peak::default(), Duration::from_secs(options.secs));
    let (mut quiet, mut attacked, mut tally) = (Sum::default(), Sum::default(), Tally::default());
    let (mut attacker_cpu, mut back_secs, mut broken) = (Duration::ZERO, 0.0_f64, Vec::new());
    for _ in 0..options.rounds {
        let cpu = usage::usage(node)?.cpu;
        let (window, newcomers) = honest.window(length).await;
        quiet.add(window, newcomers, usage::usage(node)?.cpu.saturating_sub(cpu));

        let mut attackers = Attackers::start(kind, &target, options)?;
        peak.during(node, attackers.begun()).await??;
        peak.during(node, sleep(SETTLE_PAUSE)).await?;
        let (cpu, own) = (peak.look(node)?.cpu, attackers.cpu()?);
        let (window, newcomers) = peak.during(node, honest.window(length)).await?;
        attacked.add(window, newcomers, peak.look(node)?.cpu.saturating_sub(cpu));
        attacker_cpu += attackers.cpu()?.saturating_sub(own);
        let one = attackers.end().await?;
        tally.opened += one.opened;
        tally.refused += one.refused;
        tally.ended += one.ended;
        tally.sent_bytes += one.sent_bytes;
        tally.open_max = tally.open_max.max(one.open_max);
        let ended = Instant::now();
        while !files_are_back(before.files, peak.look(node)?.files) && ended.elapsed() < BACK_WAIT {
            sleep(PAUSE).await;
        }
        back_secs = back_secs.max(ended.elapsed().as_secs_f64());
        if let Err(ended) = cluster.check_running() {
            broken.push(ended);
        }
    }
    let most = peak.most();
    let mut line = Line {
        kind: kind.name(),
        version: env!("CARGO_PKG_VERSION"),
        seed: options.seed,
        rounds: options.rounds,
        secs: options.secs,
        rate: options.rate,
        quiet: quiet.half(),
        attacked: attacked.half(),
        resident_before_bytes: before.resident_bytes,
        resident_peak_bytes: most.resident_bytes,
        files_before: before.files,
        files_peak: most.files,
        files_after: usage::usage(node)?.files,
        files_back_secs: back_secs,
        elections: terms(&status().await?).saturating_sub(terms_before),
        attacker_cores: attacker_cpu.as_secs_f64() / (length.as_secs_f64() * f64::from(options.rounds)),
        attackers: tally,
        broken,
    };
    line.judge(!options.no_times);
    Ok(line)
}

/// The attackers' process. Dropping it ends it.
struct Attackers {
    child: Child,
    output: Option<BufReader<std::process::ChildStdout>>,
}

impl Attackers {
    fn start(kind: Kind, target: &str, options: &Options) -> Result<Self, String> {
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        let child = Command::new(own)
            .args(["--attacker", &kind.name(), "--target", target, "--seed", &options.seed.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = child.map_err(|error| format!("the attackers can't be started: {error}"))?;
        let output = child.stdout.take().map(BufReader::new);
        Ok(Self { child, output })
    }

    /// The next line that they say.
    async fn line(&mut self, wait: Duration) -> Result<String, String> {
        let mut output = self.output.take().ok_or("the attackers say nothing any more")?;
        let read = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            let read = output.read_line(&mut line);
            (output, read.map(|_| line))
        });
        let (output, line) = timeout(wait, read)
            .await
            .map_err(|_| "the attackers say nothing".to_owned())?
            .map_err(|error| error.to_string())?;
        self.output = Some(output);
        line.map_err(|error| error.to_string())
    }

    /// Waits until the attack has begun.
    async fn begun(&mut self) -> Result<(), String> {
        match self.line(BEGIN_WAIT).await?.trim() {
            "ready" => Ok(()),
            other => Err(format!("the attackers said {other:?}")),
        }
    }

    fn cpu(&self) -> Result<Duration, String> {
        usage::usage(self.child.id()).map(|usage| usage.cpu)
    }

    /// Tells them to end, and what they did.
    async fn end(mut self) -> Result<Tally, String> {
        drop(self.child.stdin.take());
        let line = self.line(END_WAIT).await?;
        serde_json::from_str(&line).map_err(|error| format!("{line:?}: {error}"))
    }
}

impl Drop for Attackers {
    fn drop(&mut self) {
        // They may have ended by themselves; either way they have once `wait` returns.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}
