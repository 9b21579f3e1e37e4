//! Three server processes on loopback: started, killed, awaited, always by the handle of the child that was started here.
//!
//! Their output goes to files beside their data, so that a violation can be looked into.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use kv_client::{Client, ClusterStatus};
use tempfile::TempDir;
use tokio::time::sleep;

/// How many nodes there are.
pub const NODES: usize = 3;
/// A cluster that is not whole after so long is a failure of the run.
pub const WHOLE_WAIT: Duration = Duration::from_secs(60);
/// A node that ought to refuse its start must have done so by then.
const REFUSAL_WAIT: Duration = Duration::from_secs(30);
/// Pause between two looks at a process or a cluster.
const PAUSE: Duration = Duration::from_millis(20);
/// How often a start is tried that fails because another process took one of its ports.
const START_ATTEMPTS: u32 = 20;
/// The exit code of a node that could not listen on an address.
const EXIT_ADDRESS: i32 = 5;
/// Ports are taken from below those that the system gives to outgoing connections, so that none slips in during a restart.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// How many lines of a node's output are shown, if it ended without being asked to.
const SHOWN_LINES: usize = 5;

/// Where everything is.
#[derive(Debug)]
pub struct Layout {
    server: PathBuf,
    data: PathBuf,
    temporary: RefCell<Option<TempDir>>,
    shards: u32,
    ports: RefCell<fastrand::Rng>,
}

impl Layout {
    /// A directory for the run.
    ///
    /// # Errors
    /// If it can't be made.
    pub fn new(server: PathBuf, data: Option<PathBuf>, shards: u32, seed: u64) -> Result<Self, String> {
        let (data, temporary) = match data {
            Some(data) => {
                fs::create_dir(&data).map_err(|error| format!("{} can't be made: {error}", data.display()))?;
                (data, None)
            }
            None => {
                let temporary = tempfile::Builder::new().prefix("kv-processes-").tempdir();
                let temporary = temporary.map_err(|error| format!("a temporary directory can't be made: {error}"))?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        // Runs at the same time must not want the same ports.
        let ports = fastrand::Rng::with_seed(seed ^ u64::from(std::process::id()) << 32);
        Ok(Self { server, data, temporary: RefCell::new(temporary), shards, ports: RefCell::new(ports) })
    }

    /// What is tortured, and where.
    #[must_use]
    pub fn describe(&self) -> String {
        format!("{} with {} shards in {}", self.server.display(), self.shards, self.data.display())
    }

    /// Where everything of the run is.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.data
    }

    /// Keeps the directory, and tells where it is.
    pub fn keep(&self) -> PathBuf {
        match self.temporary.take() {
            Some(temporary) => temporary.keep(),
            None => self.data.clone(),
        }
    }

    /// Ports that are free now, all different.
    fn free_ports(&self, count: usize) -> Vec<u16> {
        let mut held = Vec::new();
        let mut ports = BTreeSet::new();
        while ports.len() < count {
            let port = self.ports.borrow_mut().u16(PORTS);
            if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
                held.push(listener);
                ports.insert(port);
            }
        }
        ports.into_iter().collect()
    }
}

/// A cluster of processes. Dropping it kills them.
#[derive(Debug)]
pub struct Cluster<'a> {
    layout: &'a Layout,
    nodes: Vec<Node>,
    flags: Vec<String>,
}

#[derive(Debug)]
struct Node {
    peer_port: u16,
    client_port: u16,
    http_port: u16,
    child: Option<Child>,
}

impl Drop for Node {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Kills a child with SIGKILL and waits for its end.
fn end(child: &mut Option<Child>) {
    if let Some(mut child) = child.take() {
        // It may have ended by itself; either way it has ended once `wait` returns.
        let _ended = child.kill();
        let _status = child.wait();
    }
}

impl<'a> Cluster<'a> {
    /// Starts the nodes, with further flags, and waits until they serve.
    ///
    /// # Errors
    /// If they don't.
    pub async fn start(layout: &'a Layout, flags: &[&str]) -> Result<Self, String> {
        for _ in 0..START_ATTEMPTS {
            let ports = layout.free_ports(3 * NODES);
            let nodes = ports.chunks(3).map(|ports| Node {
                peer_port: ports[0],
                client_port: ports[1],
                http_port: ports[2],
                child: None,
            });
            let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
            let mut cluster = Self { layout, nodes: nodes.collect(), flags };
            for node in 1..=NODES {
                cluster.spawn(node)?;
            }
            match cluster.wait_whole().await {
                Ok(_) => return Ok(cluster),
                Err(_) if cluster.lost_a_port() => {
                    // Nobody was promised anything yet; the next attempt begins with empty directories.
                    for node in 1..=NODES {
                        end(&mut cluster.nodes[node - 1].child);
                        fs::remove_dir_all(cluster.data(node)).map_err(|error| error.to_string())?;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Err("no ports could be had".to_owned())
    }

    fn lost_a_port(&mut self) -> bool {
        self.nodes.iter_mut().any(|node| {
            let ended = node.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            ended.is_some_and(|status| status.code() == Some(EXIT_ADDRESS))
        })
    }

    /// A node's data directory.
    #[must_use]
    pub fn data(&self, node: usize) -> PathBuf {
        self.layout.data.join(node.to_string())
    }

    /// Where a node's clients connect.
    #[must_use]
    pub fn client_address(&self, node: usize) -> String {
        format!("127.0.0.1:{}", self.nodes[node - 1].client_port)
    }

    /// Where a node's peers connect.
    #[must_use]
    pub fn peer_address(&self, node: usize) -> String {
        format!("127.0.0.1:{}", self.nodes[node - 1].peer_port)
    }

    /// Where a node answers over HTTP.
    #[must_use]
    pub fn http_address(&self, node: usize) -> String {
        format!("127.0.0.1:{}", self.nodes[node - 1].http_port)
    }

    /// The process of a node that runs.
    #[must_use]
    pub fn process(&self, node: usize) -> Option<u32> {
        self.nodes[node - 1].child.as_ref().map(Child::id)
    }

    /// A client that knows all nodes.
    ///
    /// # Errors
    /// If none of them answers.
    pub async fn client(&self, deadline: Duration) -> Result<Client, String> {
        let addresses = (1..=NODES).map(|node| self.client_address(node));
        let client = Client::builder().endpoints(addresses).deadline(deadline).connect().await;
        client.map_err(|error| format!("no client could be made: {error}"))
    }

    /// Starts a node that does not run.
    ///
    /// # Errors
    /// If its program can't be run.
    pub fn spawn(&mut self, node: usize) -> Result<(), String> {
        let members: Vec<_> =
            (1..=NODES).map(|id| format!("{id}=127.0.0.1:{}", self.nodes[id - 1].peer_port)).collect();
        let output = |suffix: &str| {
            let path = self.log_file(node, suffix);
            let file = File::options().create(true).append(true).open(&path);
            file.map(Stdio::from).map_err(|error| format!("{} can't be opened: {error}", path.display()))
        };
        let mut command = Command::new(&self.layout.server);
        command
            .args(["serve", "--node", &node.to_string()])
            .args(["--cluster", &members.join(",")])
            .args(["--client", &self.client_address(node)])
            .args(["--http", &self.http_address(node)])
            .args(["--shards", &self.layout.shards.to_string()])
            .arg("--data")
            .arg(self.data(node))
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(output("out")?)
            .stderr(output("err")?);
        let child =
            command.spawn().map_err(|error| format!("{} can't be run: {error}", self.layout.server.display()))?;
        self.nodes[node - 1].child = Some(child);
        Ok(())
    }

    /// Ends a node with SIGKILL.
    pub fn kill(&mut self, node: usize) {
        end(&mut self.nodes[node - 1].child);
    }

    /// Ends all nodes with SIGKILL: first all are killed, then awaited.
    pub fn kill_all(&mut self) {
        for child in self.nodes.iter_mut().filter_map(|node| node.child.as_mut()) {
            // One that has ended by itself was noticed before, or will be missed at the restart.
            let _ended = child.kill();
        }
        for node in &mut self.nodes {
            end(&mut node.child);
        }
    }

    /// Fails if a node that ought to run has ended by itself; one that lost its port is started again.
    ///
    /// # Errors
    /// With what the node said last.
    pub fn check_running(&mut self) -> Result<(), String> {
        for node in 1..=NODES {
            let Some(child) = self.nodes[node - 1].child.as_mut() else { continue };
            match child.try_wait().map_err(|error| error.to_string())? {
                None => {}
                Some(status) if status.code() == Some(EXIT_ADDRESS) => self.spawn(node)?,
                Some(status) => {
                    return Err(format!(
                        "node {node} ended by itself with {status}: {}",
                        self.last_lines(node, SHOWN_LINES)
                    ));
                }
            }
        }
        Ok(())
    }

    /// Waits until every node that was started is ready and every shard has a leader. Tells how the cluster is then.
    ///
    /// # Errors
    /// With what is missing after [`WHOLE_WAIT`], or if a node has ended.
    pub async fn wait_whole(&mut self) -> Result<ClusterStatus, String> {
        let began = Instant::now();
        let mut last = "nobody answered".to_owned();
        while began.elapsed() < WHOLE_WAIT {
            self.check_running()?;
            let running: Vec<_> = (1..=NODES).filter(|node| self.nodes[node - 1].child.is_some()).collect();
            let addresses = running.iter().map(|node| self.client_address(*node));
            let connected = Client::builder().endpoints(addresses).deadline(Duration::from_secs(1)).connect().await;
            match connected {
                Err(error) => last = error.to_string(),
                Ok(client) => {
                    let status = client.status().await.map_err(|error| error.to_string())?;
                    match what_is_missing(&status, running.len()) {
                        None => return Ok(status),
                        Some(missing) => last = missing,
                    }
                }
            }
            sleep(PAUSE).await;
        }
        Err(format!("the cluster is not whole after {} s: {last}", WHOLE_WAIT.as_secs()))
    }

    /// Waits for a node to end by itself.
    ///
    /// # Errors
    /// If it still runs after a while.
    pub async fn wait_refusal(&mut self, node: usize) -> Result<ExitStatus, String> {
        let began = Instant::now();
        loop {
            let child = self.nodes[node - 1].child.as_mut().ok_or("the node was not started")?;
            if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
                self.nodes[node - 1].child = None;
                return Ok(status);
            }
            if began.elapsed() > REFUSAL_WAIT {
                return Err(format!("node {node} still runs after {} s", REFUSAL_WAIT.as_secs()));
            }
            sleep(PAUSE).await;
        }
    }

    /// The sentence with which a node ended.
    #[must_use]
    pub fn last_words(&self, node: usize) -> String {
        self.last_lines(node, 1)
    }

    fn last_lines(&self, node: usize, count: usize) -> String {
        let text = fs::read(self.log_file(node, "err")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().rev().take(count).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    fn log_file(&self, node: usize, suffix: &str) -> PathBuf {
        self.layout.data.join(format!("{node}.{suffix}"))
    }
}

fn what_is_missing(status: &ClusterStatus, running: usize) -> Option<String> {
    let ready = status.nodes.iter().filter(|node| node.report.as_ref().is_ok_and(|report| report.ready)).count();
    if ready < running {
        return Some(format!("{ready} of {running} nodes are ready"));
    }
    let without = status.shards.iter().find(|shard| shard.leader.is_none());
    without.map(|shard| format!("shard {} has no leader", shard.shard))
}
