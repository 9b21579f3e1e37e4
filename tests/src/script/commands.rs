//! What a script can say.
//!
//! Nodes are named by their numbers, requests `c1`, `c2`, ... in the order in which they are asked.
//!
//! | command | what it does |
//! |---|---|
//! | `cluster 3 [shards=1] [setting=value ...]` | starts as many nodes; node 1 owns shard 1 |
//! | `put 1 a=1 [options]`, `del 1 a [options]` | asks node 1 for a write; `a=x*900` is a value of 900 letters |
//! | options of writes | `async`, `prev`, `if=absent`, `if=3` (a revision), `session=1/2/1` (session, number, floor) |
//! | `get 1 a [bounded=100] [stale]` | asks for a read, linearizable unless it says otherwise; ages in ms |
//! | options of all of these | `epoch=2`, `within=100` (ms until its deadline; 5 s) |
//! | `open 1` | opens a session |
//! | `wait 1 4@2` | asks whether what was accepted at 4@2 is durable |
//! | `transfer 1 2` | asks node 1 to hand the leadership to node 2 |
//! | `fill 1 20 900 [session=1]` | 20 writes of 900 bytes, one after the other, of which nothing is told |
//! | `crowd 1 65536` | opens so many sessions, of which nothing is told |
//! | `urge 1 3` | node 1 tells node 3 to campaign at once, as a leader that hands over does |
//! | `tick 20 [1,2]` | that many ticks of all nodes, or of these |
//! | `stall 1 500` | 500 ms pass on node 1's clock without a tick |
//! | `cut 1->2`, `cut 1-2`, `cut 1`; `heal ...` | loses what is sent by these links; the same without an argument: all |
//! | `hold 1->2`, `release 1->2`, `lose 1->2` | holds back what is sent; delivers it; loses it and goes on holding |
//! | `hold disk 1`, `release disk 1`, `sync 1` | the log's disk stands still; goes on; syncs one block |
//! | `hold files 1`, `release files 1`, `work 1 3` | the same of the checkpoint worker; makes 3 steps |
//! | `crash 1`, `restart 1` | loss of power; a start from what was synced |
//! | `free 1 1000` | node 1 hears how many bytes of its disk are free |
//! | `leave 1` | node 1 is about to stop |
//! | `losetree 1`, `lietree 1` | its read index is gone; one record in it is silently dropped |
//! | `differ 1` | its state is changed in memory, behind its log's back |
//! | `spoil 1 delta` | a bit of the last file of that name is flipped |
//! | `files 1`, `status` | tells the files of shard 1's replica; tells all replicas |
//! | `heartbeats` | heartbeats are told of from here on |
//! | `quiet ...` | does the rest of the line without telling |
//! | `expect ...` | see [`super::expect`] |
//! | `founders 3`, ... | see [`super::founding`] |

use bytes::Bytes;
use kv_core::{
    command::{Action, Condition, SessionStamp, Write},
    io::{Answer, Consistency, Input, Operation},
    message::{Heartbeat, PeerMessage, RaftMessage, RaftMessageKind},
    settings::Settings,
    types::{
        Durability, Epoch, Key, LogIndex, NodeId, RequestId, Revision, Sequence, SessionId, ShardId, Term, Token, Value,
    },
};

use super::{
    cluster::{Cluster, SHARD, UNNUMBERED},
    founding::Founders,
};

/// How long a request waits unless it says otherwise, in milliseconds.
const DEADLINE_MILLIS: u64 = 5_000;

/// Sessions that [`crowd`] opens in one turn.
const OPENED_AT_ONCE: u64 = 1_024;

/// A script being run.
#[derive(Default)]
pub struct Script {
    cluster: Option<Cluster>,
    founders: Option<Founders>,
    has_expected: bool,
}

impl Script {
    /// Whether an `expect` was met.
    #[must_use]
    pub fn has_expected(&self) -> bool {
        self.has_expected
    }

    /// Runs a line; its trace is appended to what the block has already.
    ///
    /// # Errors
    /// If it can't be understood, or an `expect` does not hold.
    pub fn line(&mut self, line: &str, output: &mut Vec<String>) -> Result<(), String> {
        let (is_quiet, line) = match line.strip_prefix("quiet ") {
            Some(line) => (true, line),
            None => (false, line),
        };
        if let Some(rest) = line.strip_prefix("expect ") {
            self.has_expected = true;
            return match (&self.cluster, &self.founders) {
                (Some(cluster), _) => super::expect::check(cluster, rest, output),
                (None, Some(founders)) => founders.expect(rest, output),
                (None, None) => Err("there is no cluster yet".to_owned()),
            };
        }
        for command in line.split(';') {
            let words: Vec<&str> = command.split_whitespace().collect();
            match (words.first(), &mut self.founders) {
                (Some(&"founders"), _) => self.founders = Some(Founders::new(number(&words, 1)?)),
                (_, Some(founders)) => founders.command(&words)?,
                (Some(&"cluster"), _) => self.begin(&words)?,
                _ => command_of(self.cluster()?, &words)?,
            }
        }
        let told = match (&mut self.cluster, &mut self.founders) {
            (_, Some(founders)) => founders.settle(),
            (Some(cluster), _) => {
                cluster.settle();
                std::mem::take(&mut cluster.trace)
            }
            (None, None) => Vec::new(),
        };
        if !is_quiet {
            output.extend(told);
        }
        Ok(())
    }

    fn cluster(&mut self) -> Result<&mut Cluster, String> {
        self.cluster.as_mut().ok_or_else(|| "there is no cluster yet".to_owned())
    }

    fn begin(&mut self, words: &[&str]) -> Result<(), String> {
        // What the scripts tell was written for checkpoints that come early.
        let (mut settings, mut shards) = (Settings { checkpoint_percent: 50, ..Settings::default() }, 1);
        for word in &words[2..] {
            let (name, value) = word.split_once('=').ok_or_else(|| format!("{word}: a setting is name=value"))?;
            let value: u64 = value.parse().map_err(|_| format!("{word}: not a number"))?;
            if name == "shards" {
                shards = u32::try_from(value).map_err(|error| error.to_string())?;
            } else {
                set(&mut settings, name, value)?;
            }
        }
        let mut cluster = Cluster::new(number(words, 1)?, shards, &settings);
        for node in cluster.nodes() {
            cluster.start(node)?;
        }
        self.cluster = Some(cluster);
        Ok(())
    }
}

fn set(settings: &mut Settings, name: &str, value: u64) -> Result<(), String> {
    let bytes = usize::try_from(value).map_err(|error| error.to_string())?;
    match name {
        "active_bytes" => settings.active_bytes_max = bytes,
        "kept_bytes" => settings.kept_bytes_max = bytes,
        "tables_bytes" => settings.tables_bytes_max = bytes,
        "uncommitted_bytes" => settings.uncommitted_bytes_max = bytes,
        "async_commands" => settings.async_commands_max = bytes,
        "async_bytes" => settings.async_bytes_max = bytes,
        "waiting" => settings.waiting_requests_max = bytes,
        "checkpoint_ticks" => settings.checkpoint_ticks = value,
        "hand_over_ticks" => settings.hand_over_ticks = value,
        "stream_ticks" => settings.stream_ticks_max = value,
        _ => return Err(format!("there is no setting {name}")),
    }
    Ok(())
}

/// Does one command of a cluster's.
///
/// # Errors
/// If it can't be understood.
pub fn command_of(cluster: &mut Cluster, words: &[&str]) -> Result<(), String> {
    let Some(command) = words.first() else { return Ok(()) };
    match *command {
        "put" | "del" | "get" | "open" | "wait" | "transfer" => request(cluster, words),
        "fill" => fill(cluster, words),
        "crowd" => crowd(cluster, words),
        "urge" => urge(cluster, words),
        "tick" | "stall" | "crash" | "restart" | "free" | "leave" => happen(cluster, words),
        "cut" | "heal" | "hold" | "release" | "lose" | "sync" | "work" => hold(cluster, words),
        "losetree" | "lietree" | "spoil" | "differ" => damage(cluster, words),
        "files" | "status" | "heartbeats" => tell(cluster, words),
        other => Err(format!("there is no command {other}")),
    }
}

fn request(cluster: &mut Cluster, words: &[&str]) -> Result<(), String> {
    let node = node(words, 1)?;
    if cluster.status(node).is_none() {
        return Err(format!("node {node} is down"));
    }
    let what = words.get(2).copied().unwrap_or_default();
    let options = words.get(3..).unwrap_or_default();
    let option = |name: &str| options.iter().find_map(|option| option.strip_prefix(name)?.strip_prefix('='));
    let parse = |name: &str| option(name).map(|value| value.parse::<u64>().map_err(|_| format!("{name}={value}")));
    let operation = match words[0] {
        "put" | "del" => write(words[0], what, options)?,
        "get" => {
            let consistency = match parse("bounded").transpose()? {
                Some(millis) => Consistency::Bounded { age_micros_max: millis * 1_000 },
                None if options.contains(&"stale") => Consistency::Stale,
                None => Consistency::Linearizable,
            };
            Operation::Get { key: key(what)?, consistency }
        }
        "open" => Operation::OpenSession,
        "wait" => Operation::WaitDurable { token: token(what)? },
        _ => Operation::TransferLeader { to: NodeId(number(words, 2)?) },
    };
    let shard = parse("shard").transpose()?.map_or(SHARD, ShardId);
    let millis = parse("within").transpose()?.unwrap_or(DEADLINE_MILLIS);
    cluster.ask(node, shard, parse("epoch").transpose()?.map(Epoch), millis, operation);
    Ok(())
}

fn write(command: &str, what: &str, options: &[&str]) -> Result<Operation, String> {
    let (name, action) = match what.split_once('=') {
        Some((name, value)) if command == "put" => (name, Action::Put(value_of(value)?)),
        None if command == "del" => (what, Action::Delete),
        _ => return Err(format!("{command} {what}: it is put N key=value, or del N key")),
    };
    let mut write =
        Write { key: key(name)?, action, condition: Condition::Always, return_previous: false, session: None };
    let mut durability = Durability::Sync;
    for option in options {
        match option.split_once('=').unwrap_or((option, "")) {
            ("async", _) => durability = Durability::Async,
            ("prev", _) => write.return_previous = true,
            ("if", "absent") => write.condition = Condition::Absent,
            ("if", revision) => write.condition = Condition::RevisionIs(Revision(parsed(revision)?)),
            ("session", stamp) => {
                let numbers = stamp.split('/').map(parsed).collect::<Result<Vec<_>, _>>()?;
                let [session, sequence, floor] = numbers[..] else { return Err(format!("{option}: session/no/floor")) };
                let (session, sequence, floor) = (SessionId(session), Sequence(sequence), Sequence(floor));
                write.session = Some(SessionStamp { session, sequence, floor });
            }
            ("epoch" | "within" | "shard", _) => {}
            _ => return Err(format!("there is no option {option}")),
        }
    }
    Ok(Operation::Write { write, durability: Some(durability) })
}

fn fill(cluster: &mut Cluster, words: &[&str]) -> Result<(), String> {
    let (at, count, bytes) = (node(words, 1)?, number(words, 2)?, number(words, 3)?);
    let told = cluster.trace.len();
    cluster.number_from(Some(UNNUMBERED));
    for round in 0..count {
        let stamp = words.get(4).map(|session| format!("{session}/{}/1", round + 1));
        let options: Vec<&str> = stamp.iter().map(String::as_str).collect();
        let write = write("put", &format!("f{}=x*{bytes}", round % 5), &options)?;
        let id = cluster.ask(at, SHARD, None, DEADLINE_MILLIS, write);
        cluster.settle();
        match cluster.answers.remove(&id).flatten() {
            Some(Ok(Answer::Written { .. })) => {}
            other => return Err(format!("write {round} was answered with {other:?}\n{}", cluster.trace.join("\n"))),
        }
        // Time goes on: what is due by the clock, as a mark is, happens meanwhile.
        let nodes = cluster.nodes();
        cluster.tick(&nodes);
    }
    cluster.number_from(None);
    cluster.trace.truncate(told);
    Ok(())
}

fn crowd(cluster: &mut Cluster, words: &[&str]) -> Result<(), String> {
    let (at, count, told) = (node(words, 1)?, number(words, 2)?, cluster.trace.len());
    cluster.number_from(Some(UNNUMBERED));
    for opened in 1..=count {
        cluster.ask(at, SHARD, None, DEADLINE_MILLIS, Operation::OpenSession);
        if opened == count || opened.is_multiple_of(OPENED_AT_ONCE) {
            cluster.settle();
        }
    }
    let opened = cluster.answers.split_off(&RequestId(UNNUMBERED)).into_values();
    let refused = opened.filter(|answer| !matches!(answer, Some(Ok(Answer::SessionOpened(_))))).count();
    cluster.number_from(None);
    cluster.trace.truncate(told);
    if refused == 0 { Ok(()) } else { Err(format!("{refused} sessions were refused")) }
}

fn urge(cluster: &mut Cluster, words: &[&str]) -> Result<(), String> {
    let (from, to) = (node(words, 1)?, node(words, 2)?);
    let replica =
        |node: NodeId| cluster.words.replicas.iter().find(|(_, at)| **at == node).map(|(replica, _)| *replica);
    let (own, other) = (replica(from).ok_or("no replica")?, replica(to).ok_or("no replica")?);
    let term = cluster.status(from).ok_or("it is down")?.term;
    let plain = Heartbeat { is_answer: false, to: other, from: own, term, commit: LogIndex(0) };
    let message = RaftMessage { kind: RaftMessageKind::TimeoutNow, ..plain.into() };
    let message = PeerMessage::Raft { shard: SHARD, message };
    cluster.trace.extend(cluster.words.message(from, to, &message));
    cluster.host(to).give(Input::Peer { from, message });
    Ok(())
}

fn happen(cluster: &mut Cluster, words: &[&str]) -> Result<(), String> {
    if words[0] == "tick" {
        let nodes = match words.get(2) {
            Some(list) => list.split(',').map(|id| parsed(id).map(NodeId)).collect::<Result<Vec<_>, _>>()?,
            None => cluster.nodes(),
        };
        for _ in 0..number(words, 1)? {
            cluster.tick(&nodes);
        }
        return Ok(());
    }
    let node = node(words, 1)?;
    match words[0] {
        "stall" => cluster.host(node).wait(number(words, 2)? * 1_000),
        "crash" => cluster.crash(node),
        // That it does not start is in the trace, and its status says so.
        "restart" => drop(cluster.start(node)),
        "free" => cluster.host(node).give(Input::DiskFree { bytes: number(words, 2)? }),
        _ => cluster.host(node).give(Input::HandOver),
    }
    Ok(())
}

fn hold(cluster: &mut Cluster, words: &[&str]) -> Result<(), String> {
    match words {
        ["sync", _] => sync_one(cluster, node(words, 1)?),
        ["work", ..] => {
            for _ in 0..number(words, 2)? {
                cluster.step(node(words, 1)?);
            }
        }
        ["hold", "disk", _] => drop(cluster.held_disks.insert(node(words, 2)?)),
        ["release", "disk", _] => drop(cluster.held_disks.remove(&node(words, 2)?)),
        ["hold", "files", _] => drop(cluster.held_files.insert(node(words, 2)?)),
        ["release", "files", _] => drop(cluster.held_files.remove(&node(words, 2)?)),
        ["heal"] => cluster.cut.clear(),
        [command, link] => {
            for link in links(&cluster.nodes(), link)? {
                match *command {
                    "cut" => drop(cluster.cut.insert(link)),
                    "heal" => drop(cluster.cut.remove(&link)),
                    "hold" => drop(cluster.held.insert(link)),
                    "release" => drop(cluster.held.remove(&link)),
                    _ => {
                        let count = cluster.lose(link);
                        cluster.trace.push(format!("{count} messages from n{} to n{} are lost", link.0, link.1));
                    }
                }
            }
        }
        _ => return Err("what?".to_owned()),
    }
    Ok(())
}

/// Syncs the next block that holds anything of shard 1.
fn sync_one(cluster: &mut Cluster, node: NodeId) {
    let told = cluster.trace.len();
    while cluster.sync(node) && cluster.trace.len() == told {
        cluster.settle();
    }
}

/// `1->2` is one way, `1-2` both, `1` all to and from a node.
fn links(nodes: &[NodeId], text: &str) -> Result<Vec<(NodeId, NodeId)>, String> {
    let id = |text: &str| parsed(text).map(NodeId);
    if let Some((from, to)) = text.split_once("->") {
        return Ok(vec![(id(from)?, id(to)?)]);
    }
    if let Some((one, other)) = text.split_once('-') {
        return Ok(vec![(id(one)?, id(other)?), (id(other)?, id(one)?)]);
    }
    let one = id(text)?;
    let others = nodes.iter().copied().filter(|other| *other != one);
    Ok(others.flat_map(|other| [(one, other), (other, one)]).collect())
}

fn damage(cluster: &mut Cluster, words: &[&str]) -> Result<(), String> {
    let node = node(words, 1)?;
    let directory = directory(cluster, node)?;
    let host = cluster.host(node);
    match words[0] {
        "losetree" => host.store.lose(),
        "differ" => {
            if !host.differ(SHARD) {
                return Err(format!("node {node} has no proven state"));
            }
        }
        "lietree" => {
            let lied = host.store.flip(&mut fastrand::Rng::with_seed(1));
            lied.ok_or("there is no record in the tree")?;
        }
        _ => {
            let kind = words.get(2).copied().unwrap_or_default();
            let mut paths = host.disk.paths();
            paths.retain(|path| path.contains(&directory) && path.contains(kind));
            let path = paths.pop().ok_or_else(|| format!("there is no file like {kind}"))?;
            // In the middle, where a record is.
            let bits = host.disk.content(&path).map_or(0, |bytes| bytes.len() as u64 * 4);
            host.disk.flip_bit(&path, bits);
        }
    }
    Ok(())
}

/// The directory of shard 1's replica on a node.
fn directory(cluster: &Cluster, node: NodeId) -> Result<String, String> {
    let replica = cluster.words.replicas.iter().find(|(_, at)| **at == node);
    replica.map(|(replica, _)| format!("files/r{replica}/")).ok_or_else(|| format!("node {node} has no replica"))
}

fn tell(cluster: &mut Cluster, words: &[&str]) -> Result<(), String> {
    match words {
        ["heartbeats"] => cluster.words.heartbeats = true,
        ["files", _] => {
            let node = node(words, 1)?;
            let directory = directory(cluster, node)?;
            for path in cluster.host(node).disk.paths() {
                if let Some(name) = path.strip_prefix(&directory) {
                    cluster.trace.push(format!("n{node} has {name}"));
                }
            }
        }
        _ => {
            for node in cluster.nodes() {
                let told = match cluster.status(node) {
                    None => "down".to_owned(),
                    Some(status) => {
                        let words = cluster.words.status(&status);
                        let names = ["role", "term", "last", "commit", "applied", "state"];
                        names.map(|name| format!("{name} {}", words[name])).join(", ")
                    }
                };
                cluster.trace.push(format!("n{node}: {told}"));
            }
        }
    }
    Ok(())
}

fn key(text: &str) -> Result<Key, String> {
    Key::new(text.to_owned()).map_err(|error| error.to_string())
}

/// `1`, or `x*900` for 900 letters.
fn value_of(text: &str) -> Result<Value, String> {
    let bytes = match text.split_once('*') {
        Some((letter, count)) => Bytes::from(letter.repeat(parsed::<usize>(count)?)),
        None => Bytes::from(text.to_owned()),
    };
    Value::new(bytes).map_err(|error| error.to_string())
}

fn token(text: &str) -> Result<Token, String> {
    let (index, term) = text.split_once('@').ok_or_else(|| format!("{text}: a token is index@term"))?;
    Ok(Token { shard: SHARD, term: Term(parsed(term)?), index: LogIndex(parsed(index)?) })
}

fn node(words: &[&str], at: usize) -> Result<NodeId, String> {
    number(words, at).map(NodeId)
}

pub(super) fn number(words: &[&str], at: usize) -> Result<u64, String> {
    parsed(words.get(at).ok_or("an argument is lacking")?)
}

pub(super) fn parsed<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text}: not a number"))
}
