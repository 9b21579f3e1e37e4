//! A run from beginning to end.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::future::join_all;
use kv_client::{Client, ClientBuilder};
use kv_tests::{
    books::chaos::Line,
    history::{
        recorder::Recorder,
        run::{About, Settings},
    },
    workloads::{Load, Shape, Workload},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};

use crate::{
    campaign,
    cluster::{Cluster, Setup},
    disks,
    end::{self, Judged},
    namespaces,
    nemesis::{self, Need, Nemesis},
    options::Options,
    tools, watch,
    world::World,
};

/// A cluster must be whole so long after its start.
const START_WAIT: Duration = Duration::from_secs(60);
/// Load before the first fault.
const CALM: Duration = Duration::from_secs(2);
/// Time of a call that has no reason for less.
const DEADLINE: Duration = Duration::from_secs(3);
/// Clients with connections and routers of their own.
const CLIENTS: usize = 4;
/// Time to connect to a node: one that is stopped must not hold up those who look at the others.
const CONNECT_WAIT: Duration = Duration::from_millis(500);
/// A run that is this much longer, in milliseconds, than the pauses between faults has time for each.
const TURN_MS: u64 = 20_000;
/// After so many seconds the load turns to new keys.
const KEY_SECS: u64 = 20;

/// Makes a run, and gives what was violated.
pub(crate) async fn run(options: &Options, server: PathBuf) -> Result<Vec<String>, String> {
    let namespaces = options.namespaces();
    let (nemeses, lacking) = options.nemeses(namespaces.is_ok())?;
    lacking.iter().for_each(|lacking| println!("chaos: {lacking}"));
    let directory = make_directory(options)?;
    if tools::is_root() {
        // Also by a run that makes neither.
        namespaces::clear_leftovers();
        disks::clear_leftovers();
    }
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let ran = tokio::select! {
        ran = run_in(options, server, &nemeses, namespaces, &directory) => ran,
        _ = interrupt.recv() => Err("interrupted".to_owned()),
        _ = terminate.recv() => Err("told to end".to_owned()),
    };
    let keeps = options.keep || !ran.as_ref().is_ok_and(Vec::is_empty);
    if !keeps {
        remove_data(&directory);
    }
    println!("directory   {}{}", directory.display(), if keeps { ", with the data of all nodes" } else { "" });
    ran
}

fn make_directory(options: &Options) -> Result<PathBuf, String> {
    let directory = options.directory.clone().unwrap_or_else(|| {
        let name = format!("kv-chaos-{}-{}", campaign::now().replace(':', ""), std::process::id());
        std::env::temp_dir().join(name)
    });
    fs::create_dir(&directory).map_err(|error| format!("{} can't be made: {error}", directory.display()))?;
    let directory = directory.canonicalize().map_err(|error| error.to_string())?;
    let seed = fs::write(directory.join("seed"), format!("{}\n", options.seed));
    let maker = fs::write(directory.join(disks::MAKER), format!("{}\n", std::process::id()));
    seed.and(maker).map_err(|error| format!("{}: {error}", directory.display()))?;
    Ok(directory)
}

fn remove_data(directory: &Path) {
    // Whatever can't be removed stays, where the directory is printed.
    let _gone = fs::remove_dir_all(directory.join("data"));
    let images = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    for image in
        images.filter(|path| path.extension().is_some_and(|extension| extension == "img" || extension == "cut"))
    {
        let _gone = fs::remove_file(image);
    }
}

fn about(options: &Options, nemeses: &[Nemesis], workloads: &[Workload], namespaces: bool) -> About {
    let mut settings = Settings::default();
    let names: Vec<_> = nemeses.iter().map(|nemesis| nemesis.name()).collect();
    settings.others.insert("nemeses".to_owned(), names.join(",").into());
    settings.others.insert("namespaces".to_owned(), namespaces.into());
    let workload = if workloads.len() == 1 { workloads[0].name() } else { "mixed" };
    About {
        program: "chaos".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        seed: options.seed,
        workload: workload.to_owned(),
        nodes: (1..=options.nodes).map(|node| format!("n{node}")).collect(),
        shards: u64::from(options.shards),
        started: campaign::now(),
        settings,
        ..About::default()
    }
}

async fn run_in(
    options: &Options,
    server: PathBuf,
    nemeses: &[Nemesis],
    namespaces: Result<(), String>,
    directory: &Path,
) -> Result<Vec<String>, String> {
    let workloads = options.workloads()?;
    let setup = Setup {
        server,
        directory: directory.to_owned(),
        nodes: usize::try_from(options.nodes).map_err(|error| error.to_string())?,
        shards: options.shards,
        namespaces: namespaces.is_ok(),
        proxies: namespaces.is_err() || Options::need(nemeses, Need::Proxies),
        disks: Options::need(nemeses, Need::Disks),
        clocks: Options::need(nemeses, Need::Clocks),
        lies: options.lying_syncs,
        flags: options.server_flags.split_whitespace().map(str::to_owned).collect(),
    };
    describe(options, nemeses, &setup, namespaces.as_ref().err());
    let (mut cluster, links) = Cluster::prepare(setup)?;
    for node in cluster.numbers() {
        cluster.spawn(node)?;
    }
    let endpoints: Vec<_> = cluster.numbers().map(|node| cluster.client_address(node).to_string()).collect();
    let builder = || Client::builder().endpoints(endpoints.clone()).connect_timeout(CONNECT_WAIT).deadline(DEADLINE);
    let client = connect(&builder, &mut cluster).await?;
    let path = directory.join("run.jsonl");
    let about = about(options, nemeses, &workloads, namespaces.is_ok());
    let recorder = Recorder::start(&path, &about).map_err(|error| format!("{}: {error}", path.display()))?;
    let world = World::new(cluster, links, recorder, client);
    world.wait_whole(START_WAIT).await.map_err(|lacks| format!("the cluster did not become whole: {lacks}"))?;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(builder().connect().await.map_err(|error| error.to_string())?);
    }
    let shape = Shape {
        workloads,
        tasks: options.tasks,
        keys: options.keys,
        pause: Duration::from_millis(options.pause_ms),
        deadline: DEADLINE,
        key_secs: KEY_SECS,
        seed: options.seed,
    };
    *world.load.borrow_mut() = Some(Load::start(&clients, &world.recorder, &shape));
    let stormed = tokio::select! {
        _ = watch::watch(&world) => Ok(()),
        stormed = storm(&world, options, nemeses) => stormed,
    };
    end::heal(&world, builder()).await?;
    world.recorder.finish().map_err(|error| format!("{}: {error}", path.display()))?;
    let (violations, silent) = finish(options, nemeses, &world, &path)?;
    // What was violated counts, whatever else went wrong; without it, what was not tried has not been passed.
    match stormed.and_then(|()| proves_something(options, nemeses, &world, &silent)) {
        Err(error) if violations.is_empty() => Err(error),
        Err(error) => {
            eprintln!("chaos: {error}");
            Ok(violations)
        }
        Ok(()) => Ok(violations),
    }
}

/// Whether every workload was done, and every nemesis made its fault: else the run says nothing of them.
///
/// # Errors
/// Which did nothing.
fn proves_something(options: &Options, nemeses: &[Nemesis], world: &World, silent: &[Workload]) -> Result<(), String> {
    if let Some(workload) = silent.first() {
        return Err(format!("nothing of the workload {workload} was done: the run says nothing of it"));
    }
    let faults = world.faults.borrow();
    let idle = nemeses.iter().filter(|nemesis| !faults.contains_key(nemesis.name()));
    let idle: Vec<_> = idle.map(|nemesis| nemesis.name()).collect();
    if idle.is_empty() {
        return Ok(());
    }
    let idle = idle.join(", ");
    // Of a short run it was not asked that each has its turn.
    let longest_pause_ms = options.every_ms.max(2) * 2;
    if options.faults.is_some() || options.secs * 1_000 <= TURN_MS + longest_pause_ms {
        println!("idle        {idle}");
        return Ok(());
    }
    Err(format!("no fault was made by {idle}: the run says nothing of it"))
}

fn describe(options: &Options, nemeses: &[Nemesis], setup: &Setup, no_namespaces: Option<&String>) {
    let names: Vec<_> = nemeses.iter().map(|nemesis| nemesis.name()).collect();
    println!("chaos       {} for {} s, seed {}", names.join(","), options.secs, options.seed);
    println!("cluster     {} nodes of {}, {} shards", setup.nodes, setup.server.display(), setup.shards);
    match no_namespaces {
        None => println!("network     a namespace for each node{}", if setup.proxies { ", with proxies" } else { "" }),
        Some(why) => println!("network     loopback with proxies: {why}"),
    }
}

/// Connects once the cluster was founded.
async fn connect(builder: &impl Fn() -> ClientBuilder, cluster: &mut Cluster) -> Result<Client, String> {
    let mut last = String::new();
    for _ in 0..START_WAIT.as_secs() {
        for node in cluster.numbers() {
            if let Some(status) = cluster.has_ended(node) {
                return Err(format!("node {node} did not start: {status}: {}", cluster.last_words(node)));
            }
        }
        match builder().connect().await {
            Ok(client) => return Ok(client),
            Err(error) => last = error.to_string(),
        }
        sleep(Duration::from_secs(1)).await;
    }
    Err(format!("no client could connect: {last}"))
}

/// Lets the nemeses work for the time of the run.
async fn storm(world: &World, options: &Options, nemeses: &[Nemesis]) -> Result<(), String> {
    sleep(CALM).await;
    let every = options.every_ms.max(2);
    let haunts = nemeses.iter().enumerate().map(|(number, nemesis)| {
        let random = fastrand::Rng::with_seed(options.seed ^ (number as u64 + 1).wrapping_mul(0xd134_2543_de82_ef95));
        nemesis::haunt(*nemesis, world, random, every / 2..every * 2)
    });
    let time = async {
        let mut left = options.secs * 10;
        while left > 0 && options.faults.is_none_or(|most| world.faults.borrow().values().sum::<u64>() < most) {
            sleep(Duration::from_millis(100)).await;
            left -= 1;
        }
        world.stops.set(true);
        Ok(())
    };
    let (haunted, _): (Vec<Result<(), String>>, Result<(), String>) = tokio::join!(
        async {
            let haunted = join_all(haunts).await;
            // One that could not work ends the run, and so do all of them once the time is over.
            world.stops.set(true);
            haunted
        },
        time
    );
    haunted.into_iter().collect()
}

/// Judges the run, says what it came to, and gives what was violated and the workloads of which nothing was done.
fn finish(
    options: &Options,
    nemeses: &[Nemesis],
    world: &World,
    path: &Path,
) -> Result<(Vec<String>, Vec<Workload>), String> {
    let setup = world.cluster.borrow().setup().clone();
    let Judged { operations, answers, violations, silent } = end::judge(path, setup.shards, &options.workloads()?)?;
    let mut all = world.violations.borrow().clone();
    all.extend(violations);
    let faults = world.faults.borrow().clone();
    let failovers = world.failovers.borrow().clone();
    println!("operations  {operations}: {answers:?}");
    println!("faults      {faults:?}");
    let resident: Vec<_> = world.resident_bytes_max.borrow().values().map(|bytes| bytes / 1024 / 1024).collect();
    println!("memory      at most {resident:?} MiB");
    print_failovers(&failovers);
    if let Some(campaign) = &options.campaign {
        let now = campaign::now();
        let line = Line {
            date: now.split('T').next().unwrap_or_default().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            seed: options.seed,
            nodes: setup.nodes,
            namespaces: setup.namespaces,
            nemeses: nemeses.iter().map(|nemesis| nemesis.name().to_owned()).collect(),
            workload: options.workload.clone(),
            secs: world.recorder.micros() / 1_000_000,
            faults,
            operations: operations as u64,
            failover_ms: failovers.iter().flatten().map(|took| took.as_millis() as u64).collect(),
            violations: all.clone(),
        };
        campaign::add(campaign, &line)?;
        println!("campaign    {}", campaign::sum(campaign)?);
    }
    for violation in &all {
        println!("VIOLATION   {violation}");
    }
    println!("violations  {}", all.len());
    Ok((all, silent))
}

/// How long writes waited after kills of the busiest node.
fn print_failovers(failovers: &[Vec<Duration>]) {
    let mut first: Vec<_> = failovers.iter().filter_map(|waits| waits.iter().min().copied()).collect();
    let mut every: Vec<_> = failovers.iter().flatten().copied().collect();
    for (name, waits) in [("first write", &mut first), ("each shard", &mut every)] {
        waits.sort_unstable();
        let Some(worst) = waits.last() else { return };
        let at = |share: usize| waits[(waits.len() * share / 100).min(waits.len() - 1)].as_secs_f64();
        println!(
            "failover    {name} after a kill: p50 {:.3} s, p99 {:.3} s, worst {:.3} s of {}",
            at(50),
            at(99),
            worst.as_secs_f64(),
            waits.len()
        );
    }
}
