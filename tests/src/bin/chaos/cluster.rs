//! The processes of a run: where each node stands, started, stopped, continued and killed by the handle of the child that was started.
//!
//! A node that ends by itself is noticed, and is a violation unless a fault was made that is answered by ending.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    disks::Disk,
    links::Links,
    namespaces::{Namespaces, Network},
    tamper::Tampered,
    tools::Tool,
};

/// Ports inside a namespace, where nobody else listens.
const CLIENT_PORT: u16 = 7101;
const PEER_PORT: u16 = 7201;
const HTTP_PORT: u16 = 7401;
/// Where proxies listen inside a namespace: this and the number of the node that they stand for.
const PROXY_PORT: u16 = 7300;
/// Without namespaces ports are taken from below those that the system gives to outgoing connections, so that none slips in
/// during a restart.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// How often one is tried.
const PORT_ATTEMPTS: u32 = 1_000;
/// How many lines of a node's output are shown, if it ended without being asked to.
const SHOWN_LINES: usize = 2;

/// How a cluster is set up.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) server: PathBuf,
    /// Everything of the run is below it.
    pub(crate) directory: PathBuf,
    pub(crate) nodes: usize,
    pub(crate) shards: u32,
    /// Whether each node has a network namespace.
    pub(crate) namespaces: bool,
    /// Whether connections between nodes go through proxies.
    pub(crate) proxies: bool,
    /// Whether each node has a disk of its own.
    pub(crate) disks: bool,
    /// Whether nodes get their wall clock from libfaketime.
    pub(crate) clocks: bool,
    /// Whether all syncs of all logs only pretend: a planted bug, which power cuts must bring to light.
    pub(crate) lies: bool,
    /// Further flags of the server.
    pub(crate) flags: Vec<String>,
}

/// All nodes. Dropping it kills them, unmounts their disks and removes their network.
pub(crate) struct Cluster {
    setup: Setup,
    nodes: Vec<Node>,
    disks: Vec<Disk>,
    /// Dropped after the processes in it have ended.
    namespaces: Option<Namespaces>,
}

struct Node {
    child: Option<Child>,
    lies: Option<Tampered>,
    stopped: bool,
    client: SocketAddr,
    http: SocketAddr,
    peer: SocketAddr,
    /// What its flag `--cluster` says.
    members: String,
}

impl Cluster {
    /// Prepares a cluster whose nodes don't run yet, with the links between them. Must be called in a runtime.
    pub(crate) fn prepare(setup: Setup) -> Result<(Self, Links), String> {
        let namespaces = setup.namespaces.then(|| Namespaces::new(setup.nodes)).transpose()?;
        let mut cluster = Self { nodes: Vec::new(), disks: Vec::new(), namespaces, setup };
        for node in 1..=cluster.setup.nodes {
            let directory = cluster.setup.directory.join("data").join(node.to_string());
            if cluster.setup.disks {
                let image = cluster.setup.directory.join(format!("disk-{node}.img"));
                cluster.disks.push(Disk::new(image, directory)?);
            } else {
                fs::create_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
            }
            if cluster.setup.clocks {
                cluster.set_clock(node, 0)?;
            }
            let made = cluster.place(node)?;
            cluster.nodes.push(made);
        }
        let links = cluster.link()?;
        Ok((cluster, links))
    }

    fn place(&self, node: usize) -> Result<Node, String> {
        let address = |port: u16| match &self.namespaces {
            Some(namespaces) => {
                let text = format!("{}:{port}", namespaces.network().address(node));
                text.parse::<SocketAddr>().map_err(|error| format!("{text}: {error}"))
            }
            None => free_port(),
        };
        let (client, peer, http) = (address(CLIENT_PORT)?, address(PEER_PORT)?, address(HTTP_PORT)?);
        Ok(Node { child: None, lies: None, stopped: false, client, http, peer, members: String::new() })
    }

    /// Tells every node where it finds the others, and puts proxies in between if that is wanted.
    fn link(&mut self) -> Result<Links, String> {
        let mut links = Links::default();
        for from in self.numbers() {
            let mut members = Vec::new();
            for to in self.numbers() {
                members.push(format!("{to}={}", self.link_from(from, to, &mut links)?));
            }
            self.nodes[from - 1].members = members.join(",");
        }
        Ok(links)
    }

    /// Where a node finds another.
    fn link_from(&self, from: usize, to: usize, links: &mut Links) -> Result<String, String> {
        let target = self.nodes[to - 1].peer;
        let port = u16::try_from(to).map_err(|error| error.to_string())? + PROXY_PORT;
        match &self.namespaces {
            _ if !self.setup.proxies => Ok(target.to_string()),
            Some(namespaces) => {
                // The same for all, since a node also tells the others what it says of itself.
                let listen = SocketAddr::from(([127, 0, 0, 1], port));
                if from != to {
                    links.add((from, to), listen, target, Some(namespaces.network().file(from)))?;
                }
                Ok(listen.to_string())
            }
            None if from != to => {
                let listen = SocketAddr::from(([127, 0, 0, 1], 0));
                links.add((from, to), listen, target, None).map(|address| address.to_string())
            }
            // What it tells the others of itself: nobody listens there, so that none goes around its proxy.
            None => Ok("127.0.0.1:1".to_owned()),
        }
    }

    /// All nodes' numbers, from 1.
    pub(crate) fn numbers(&self) -> std::ops::RangeInclusive<usize> {
        1..=self.setup.nodes
    }

    /// How it is set up.
    pub(crate) fn setup(&self) -> &Setup {
        &self.setup
    }

    /// The network, if nodes have one.
    pub(crate) fn network(&self) -> Option<Network> {
        self.namespaces.as_ref().map(|namespaces| namespaces.network().clone())
    }

    /// A node's disk, if nodes have some.
    pub(crate) fn disk(&self, node: usize) -> Option<Disk> {
        self.disks.get(node - 1).cloned()
    }

    /// Where a node's clients connect.
    pub(crate) fn client_address(&self, node: usize) -> SocketAddr {
        self.nodes[node - 1].client
    }

    /// Where a node answers over HTTP.
    pub(crate) fn http_address(&self, node: usize) -> SocketAddr {
        self.nodes[node - 1].http
    }

    /// A node's data directory, which is not the mount point: that holds `lost+found` too.
    pub(crate) fn data(&self, node: usize) -> PathBuf {
        self.setup.directory.join("data").join(node.to_string()).join("kv")
    }

    /// Where a node's output goes.
    pub(crate) fn log_file(&self, node: usize) -> PathBuf {
        self.setup.directory.join(format!("node-{node}.log"))
    }

    /// Where strace notes a node's system calls.
    pub(crate) fn trace_file(&self, node: usize) -> PathBuf {
        self.setup.directory.join(format!("trace-{node}"))
    }

    fn clock_file(&self, node: usize) -> PathBuf {
        self.setup.directory.join(format!("clock-{node}"))
    }

    /// Sets a node's wall clock so many seconds off.
    pub(crate) fn set_clock(&self, node: usize, seconds: i64) -> Result<(), String> {
        let file = self.clock_file(node);
        fs::write(&file, format!("{seconds:+}s\n")).map_err(|error| format!("{}: {error}", file.display()))
    }

    /// Whether a node runs with the library that gives it its wall clock; `None` if it does not run.
    pub(crate) fn has_clock(&self, node: usize) -> Option<bool> {
        let maps = fs::read_to_string(Path::new("/proc").join(self.process(node)?.to_string()).join("maps")).ok()?;
        Some(maps.contains("libfaketime"))
    }

    /// Starts a node that does not run.
    pub(crate) fn spawn(&mut self, node: usize) -> Result<(), String> {
        let path = self.log_file(node);
        let log = File::options().create(true).append(true).open(&path);
        let log = log.map_err(|error| format!("{} can't be opened: {error}", path.display()))?;
        // Should this program be killed, so are the nodes.
        let (program, words) = match Tool::Setpriv.path() {
            Some(setpriv) => (setpriv, ["--pdeathsig", "KILL", "--"].as_slice()),
            None => (self.setup.server.clone(), [].as_slice()),
        };
        let mut command = match &self.namespaces {
            Some(namespaces) => namespaces.network().command(node, &program),
            None => Command::new(&program),
        };
        command.args(words);
        if !words.is_empty() {
            command.arg(&self.setup.server);
        }
        let place = &self.nodes[node - 1];
        command
            .args(["serve", "--insecure", "--node", &node.to_string()])
            .args(["--cluster", &place.members])
            .args(["--peer-listen", &place.peer.to_string()])
            .args(["--client", &place.client.to_string()])
            .args(["--http", &place.http.to_string()])
            .args(["--shards", &self.setup.shards.to_string()])
            .arg("--data")
            .arg(self.data(node))
            .args(&self.setup.flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        if let Some(library) = Tool::Libfaketime.path().filter(|_| self.setup.clocks) {
            command
                .env("LD_PRELOAD", library)
                .env("FAKETIME_TIMESTAMP_FILE", self.clock_file(node))
                .env("FAKETIME_NO_CACHE", "1")
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        let child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
        let lies = self
            .setup
            .lies
            .then(|| Tampered::new(child.id(), "fdatasync", "retval=0", self.trace_file(node)))
            .transpose();
        let place = &mut self.nodes[node - 1];
        (place.child, place.stopped) = (Some(child), false);
        place.lies = lies?;
        Ok(())
    }

    /// The process of a node that runs.
    pub(crate) fn process(&self, node: usize) -> Option<u32> {
        self.nodes[node - 1].child.as_ref().map(Child::id)
    }

    /// Kills nodes with SIGKILL: first all of them, then each is awaited. Gives those that had ended by themselves before, and how.
    pub(crate) fn kill(&mut self, nodes: &[usize]) -> Vec<(usize, ExitStatus)> {
        for node in nodes {
            if let Some(child) = self.nodes[node - 1].child.as_mut() {
                // What became of one that is not there any more is told below.
                let _ended = child.kill();
            }
        }
        let ended = nodes.iter().filter_map(|node| {
            let status = self.nodes[node - 1].child.take()?.wait().ok()?;
            (status.signal() != Some(Signal::KILL.as_raw())).then_some((*node, status))
        });
        ended.collect()
    }

    /// Stops a node as it is (SIGSTOP), until [`Cluster::resume`].
    pub(crate) fn stop(&mut self, node: usize) {
        self.signal(node, Signal::STOP);
        self.nodes[node - 1].stopped = true;
    }

    /// Lets a stopped node go on.
    pub(crate) fn resume(&mut self, node: usize) {
        self.signal(node, Signal::CONT);
        self.nodes[node - 1].stopped = false;
    }

    fn signal(&self, node: usize, signal: Signal) {
        if let Some(child) = &self.nodes[node - 1].child {
            // It is our child and was not awaited, so the id is still its own.
            let _sent = kill_process(Pid::from_child(child), signal);
        }
    }

    /// If a node that was started has ended by itself: how.
    pub(crate) fn has_ended(&mut self, node: usize) -> Option<ExitStatus> {
        let status = self.nodes[node - 1].child.as_mut()?.try_wait().ok().flatten()?;
        self.nodes[node - 1].child = None;
        Some(status)
    }

    /// Whether a node was started and not stopped.
    pub(crate) fn runs(&self, node: usize) -> bool {
        self.nodes[node - 1].child.is_some() && !self.nodes[node - 1].stopped
    }

    /// The last that a node said.
    pub(crate) fn last_words(&self, node: usize) -> String {
        let text = fs::read(self.log_file(node)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().rev().take(SHOWN_LINES).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let all: Vec<_> = (1..=self.nodes.len()).collect();
        let _ended = self.kill(&all);
        if let Some(namespaces) = &self.namespaces {
            namespaces.end_all();
        }
        for disk in self.disks.drain(..) {
            if let Err(error) = disk.unmount() {
                eprintln!("chaos: {error}");
            }
        }
    }
}

/// A port of this machine that is free now.
fn free_port() -> Result<SocketAddr, String> {
    for _ in 0..PORT_ATTEMPTS {
        let address = SocketAddr::from(([127, 0, 0, 1], fastrand::u16(PORTS)));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    Err("no port is free".to_owned())
}
