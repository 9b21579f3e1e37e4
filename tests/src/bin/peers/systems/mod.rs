//! The clusters: three processes each, on fresh directories, ended by their handles when they are dropped.

mod echo;
mod etcd;
mod kv;
mod redis;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use clap::ValueEnum;
use kv_client::load::Target;
use tempfile::TempDir;

use crate::{
    drivers::Driver,
    workload::{Tier, Workload},
};

/// Connections to each node of a system that is asked by single gRPC calls: a server works on a connection's frames one at a time.
const UNARY_CONNECTIONS: usize = 3;
/// How many nodes each cluster has.
pub(crate) const NODES: usize = 3;
/// A cluster that does not serve after so long is given up.
const SERVES_WAIT: Duration = Duration::from_secs(30);
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(100);

/// A system, and what it is set to promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Kind {
    /// kv, as it is by default.
    Kv,
    /// kv with redb for its read index.
    KvRedb,
    /// kv by single calls to any node, as any language's gRPC makes them.
    KvUnary,
    /// kv with async writes.
    KvAsync,
    /// etcd, as it is by default.
    Etcd,
    /// Redis with `appendfsync always` on all three and WAIT 1, a connection for each caller.
    RedisWait,
    /// Redis as it is by default, over 8 shared connections.
    Redis,
    /// No store: kv's protocol, every operation answered at once. The limit that the machine sets.
    Echo,
}

impl Kind {
    /// All of them, in the order of their turns.
    pub(crate) const ALL: [Self; 8] =
        [Self::Kv, Self::KvRedb, Self::KvUnary, Self::KvAsync, Self::Etcd, Self::RedisWait, Self::Redis, Self::Echo];

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kv => "kv",
            Self::KvRedb => "kv on redb",
            Self::KvUnary => "kv, single calls",
            Self::KvAsync => "kv async",
            Self::Etcd => "etcd",
            Self::RedisWait => "Redis always+WAIT 1",
            Self::Redis => "Redis default, 8 shared",
            Self::Echo => "echo, the limit",
        }
    }

    /// What it is compared in.
    pub(crate) fn tiers(self) -> &'static [Tier] {
        match self {
            Self::Kv | Self::KvRedb | Self::KvUnary | Self::Etcd | Self::RedisWait => &[Tier::QuorumDisk, Tier::Read],
            Self::KvAsync => &[Tier::LeaderMemory],
            Self::Redis => &[Tier::LeaderMemory, Tier::Read],
            // It promises nothing, and is beside the others as what they can't exceed.
            Self::Echo => &[Tier::QuorumDisk, Tier::LeaderMemory, Tier::Read],
        }
    }
}

/// A running cluster.
pub(crate) struct System {
    /// What it is.
    pub(crate) kind: Kind,
    version: String,
    /// Where each node is asked by clients.
    addresses: Vec<String>,
    processes: Vec<Process>,
}

/// A process that ends when it is dropped.
pub(crate) struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; either way it has ended once `wait` returns.
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}

impl System {
    /// Starts it under this directory, and waits until a put succeeds.
    ///
    /// # Errors
    /// If its program is missing (with the Debian package that has it), or it does not serve in time.
    pub(crate) async fn start(kind: Kind, server: Option<PathBuf>, data: &Path) -> Result<Self, String> {
        let place = data.join(kind.name().replace([' ', ',', '+'], "-"));
        fs::create_dir_all(&place).map_err(|error| format!("{}: {error}", place.display()))?;
        let system = match kind {
            Kind::Kv | Kind::KvRedb | Kind::KvUnary | Kind::KvAsync => kv::start(kind, server, &place)?,
            Kind::Etcd => etcd::start(kind, &place)?,
            Kind::Echo => echo::start(kind, &place)?,
            Kind::RedisWait | Kind::Redis => redis::start(kind, &place)?,
        };
        let (began, value) = (Instant::now(), bytes::Bytes::from_static(b"probe"));
        let probe = &crate::workload::ALL[0];
        loop {
            let tried = match system.drivers(probe).await {
                Ok(drivers) => drivers[0].put("probe", &value).await,
                Err(error) => Err(error),
            };
            match tried {
                Ok(()) => return Ok(system),
                Err(error) if began.elapsed() > SERVES_WAIT => return Err(format!("{}: {error}", kind.name())),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// In words.
    pub(crate) fn describe(&self) -> String {
        format!("{}: {}", self.kind.name(), self.version)
    }

    /// Its processes.
    pub(crate) fn processes(&self) -> Vec<u32> {
        self.processes.iter().map(|process| process.0.id()).collect()
    }

    /// The ways in which a workload's callers ask it; each is shared by as many as there are more callers than ways.
    ///
    /// # Errors
    /// If it does not answer.
    pub(crate) async fn drivers(&self, workload: &Workload) -> Result<Vec<Driver>, String> {
        match self.kind {
            Kind::Kv | Kind::KvRedb | Kind::KvAsync | Kind::Echo => kv::drivers(self).await,
            Kind::KvUnary => kv::unary_drivers(self).await,
            Kind::Etcd => etcd::drivers(self).await,
            Kind::RedisWait => redis::drivers(self, workload.out as usize, 1).await,
            Kind::Redis => redis::drivers(self, redis::SHARED_CONNECTIONS, 0).await,
        }
    }
}

/// Where data goes: a directory that is made now.
pub(crate) enum Data {
    Given(PathBuf),
    Temporary(TempDir),
}

impl Data {
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Given(path) => path,
            Self::Temporary(temporary) => temporary.path(),
        }
    }
}

/// The directory that was asked for, or a temporary one.
///
/// # Errors
/// If it exists, or can't be made.
pub(crate) fn data(given: Option<PathBuf>) -> Result<Data, String> {
    match given {
        Some(path) => {
            fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            Ok(Data::Given(path))
        }
        None => {
            let made = tempfile::Builder::new().prefix("kv-peers-").tempdir();
            made.map(Data::Temporary).map_err(|error| format!("no temporary directory: {error}"))
        }
    }
}

/// Starts a program whose output goes to a file beside its data.
fn spawn(mut command: Command, package: &str, output: &Path) -> Result<Process, String> {
    let file = File::create(output).map_err(|error| format!("{}: {error}", output.display()))?;
    let both = file.try_clone().map_err(|error| error.to_string())?;
    let child = command.stdin(Stdio::null()).stdout(file).stderr(both).spawn();
    child.map(Process).map_err(|error| missing(&command, package, &error))
}

/// What a program says of its version: the first line.
fn version(program: &str, package: &str) -> Result<String, String> {
    let mut command = Command::new(program);
    command.arg("--version");
    let output = command.output().map_err(|error| missing(&command, package, &error))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().next().unwrap_or("of an unknown version").to_owned())
}

fn missing(command: &Command, package: &str, error: &std::io::Error) -> String {
    let program = command.get_program().to_string_lossy().into_owned();
    format!("{program} can't be run ({error}): it comes with {package}")
}
