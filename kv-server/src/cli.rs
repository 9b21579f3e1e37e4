//! Flags, environment and file: every key of the file is also a flag and a `KV_*` variable. A flag beats a variable, a
//! variable beats the file, the file beats the default.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use clap::{Args, CommandFactory, Parser, Subcommand};
use kv_core::types::{Durability, NodeId};
use kv_server::{Config, Failure, Trouble, disk::Engine};
use serde::Deserialize;

/// The server of kv, a distributed key-value store.
#[derive(Debug, Parser)]
#[command(name = "kv-server", disable_version_flag = true, arg_required_else_help = true, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// Print the version, with commit and data format.
    #[arg(long, short = 'V')]
    pub(crate) version: bool,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// How a node ends; what a script may act on.
const EXIT_CODES: &str = "\
Exit codes: 0 stopped by a signal, all that was accepted answered; 1 a bug, or killed by a second signal; 2 a mistake in the
configuration; 3 the data directory is in use, another node's or cluster's, was wiped, or has an unknown format; 4 the data is
damaged; 5 an address can't be listened on; 6 the disk failed or is full";

/// How scripts of the playground end.
const PLAYGROUND_EXIT_CODES: &str = "\
With --execute the exit code is that of the first command that fails, as with kv: 0 done, 1 failure, 2 usage, 3 key not found,
5 unavailable, 6 deadline passed, 8 outcome unknown (a write may have happened)";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run one node of a cluster.
    #[command(after_help = EXIT_CODES)]
    Serve(Box<Serve>),
    /// Run a whole cluster in this process, to try things.
    #[command(after_help = PLAYGROUND_EXIT_CODES)]
    Playground(Playground),
}

#[derive(Debug, Args)]
pub(crate) struct Playground {
    /// How many nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=9))]
    pub(crate) nodes: u64,
    /// How many shards.
    #[arg(long, default_value_t = 12)]
    pub(crate) shards: u32,
    /// Keep the data in this directory; without it the data is removed at the end.
    #[arg(long)]
    pub(crate) data: Option<PathBuf>,
    /// Run these commands, separated by `;`, and exit with their status.
    #[arg(long)]
    pub(crate) execute: Option<String>,
    /// What to log: error, warn, info, debug, or a filter.
    #[arg(long, env = "KV_LOG_LEVEL", default_value = "error")]
    pub(crate) log_level: String,
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Read settings from this TOML file; its keys are the flags below, with `_` for `-`.
    #[arg(long, env = "KV_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) keys: Keys,
}

/// All settings. None is required by its form: what is lacking is said in a sentence.
#[derive(Clone, Debug, Default, Args, Deserialize)]
pub(crate) struct Keys {
    /// This node's id: one of those in `cluster`.
    #[arg(long, env = "KV_NODE")]
    node: Option<u64>,
    /// All members with the addresses by which their peers reach them: 1=host:port,2=host:port.
    #[arg(long, env = "KV_CLUSTER")]
    cluster: Option<String>,
    /// Where to listen for peers, if not at this node's address in `cluster`.
    #[arg(long, env = "KV_PEER_LISTEN")]
    peer_listen: Option<String>,
    /// Where to listen for clients [default: 127.0.0.1:7101].
    #[arg(long, env = "KV_CLIENT")]
    client: Option<String>,
    /// The address that clients are told, if not the one listened on.
    #[arg(long, env = "KV_CLIENT_ADDRESS")]
    client_address: Option<String>,
    /// Where to listen for health checks and metrics; nowhere if not given.
    #[arg(long, env = "KV_HTTP")]
    http: Option<String>,
    /// The data directory [default: data/ID].
    #[arg(long, env = "KV_DATA")]
    data: Option<PathBuf>,
    /// How many shards a new cluster has [default: 12]. Must be the same on all nodes, and stay so.
    #[arg(long, env = "KV_SHARDS")]
    shards: Option<u32>,
    /// How many replicas each shard has [default: 3]. Must be the same on all nodes, and stay so.
    #[arg(long, env = "KV_REPLICATION")]
    replication: Option<u32>,
    /// When writes are acknowledged that don't say: sync or async [default: sync]. Must be the same on all nodes, and
    /// stay so.
    #[arg(long, env = "KV_DURABILITY")]
    durability: Option<String>,
    /// The failure domain that the node stands in; nodes that name none each have one of their own. Counts
    /// when the cluster is founded, and never again.
    #[arg(long, env = "KV_ZONE")]
    zone: Option<String>,
    /// The node's share of the load against the others' [default: 1]. Counts when the cluster is founded, and never again.
    #[arg(long, env = "KV_WEIGHT")]
    weight: Option<u32>,
    /// Listen beyond this machine although connections are not encrypted.
    #[arg(long, env = "KV_INSECURE", num_args = 0..=1, default_missing_value = "true")]
    insecure: Option<bool>,
    /// What to log: error, warn, info, debug, or a filter [default: info].
    #[arg(long, env = "KV_LOG_LEVEL")]
    log_level: Option<String>,
    /// Length of a tick in milliseconds [default: 50]. Should be the same on all nodes.
    #[arg(long, env = "KV_TICK_MS")]
    tick_ms: Option<u64>,
    /// A leader sends heartbeats every so many ticks [default: 2]. Should be the same on all nodes.
    #[arg(long, env = "KV_HEARTBEAT_TICKS")]
    heartbeat_ticks: Option<u64>,
    /// A follower campaigns after hearing nothing for so many ticks up to twice as many [default: 10]. Should be the same
    /// on all nodes.
    #[arg(long, env = "KV_ELECTION_TICKS")]
    election_ticks: Option<u64>,
    /// A checkpoint is made after so many ticks with writes [default: 1200].
    #[arg(long, env = "KV_CHECKPOINT_TICKS")]
    checkpoint_ticks: Option<u64>,
    /// Client writes are refused while less is free on the disk [default: 268435456].
    #[arg(long, env = "KV_DISK_RESERVE_BYTES")]
    disk_reserve_bytes: Option<u64>,
    /// What the read index is kept in: sled or redb [default: sled]. It may be changed at any start: the index is then built anew.
    #[arg(long, env = "KV_ENGINE")]
    engine: Option<String>,
    /// Answers that clients have not read may take so much memory; past it, the client that has left the most unread loses
    /// its stream, and asks again on a new one [default: 268435456].
    #[arg(long, env = "KV_UNREAD_BYTES_MAX")]
    unread_bytes_max: Option<usize>,
    /// How many connections clients may have at a time, at most half of the files that the process may open; past it those are
    /// closed that ask nothing, or newcomers if there are none [default: 10000].
    #[arg(long, env = "KV_CONNECTIONS_MAX")]
    connections_max: Option<usize>,
}

/// Takes each key from the first that has it.
macro_rules! first_of {
    ($one:ident, $other:ident; $($key:ident),*) => {
        Keys { $($key: $one.$key.or($other.$key)),* }
    };
}

impl Serve {
    /// What all sources say together.
    pub(crate) fn keys(self) -> Result<Keys, Failure> {
        let file = match &self.config {
            Some(path) => read_file(path)?,
            None => Keys::default(),
        };
        let flags = self.keys;
        Ok(first_of!(flags, file;
            node, cluster, peer_listen, client, client_address, http, data, shards, replication, durability, zone, weight,
            insecure, log_level, tick_ms, heartbeat_ticks, election_ticks, checkpoint_ticks, disk_reserve_bytes,
            engine, unread_bytes_max, connections_max))
    }
}

impl Keys {
    /// What to log.
    pub(crate) fn log_level(&self) -> &str {
        self.log_level.as_deref().unwrap_or("info")
    }

    /// The server's configuration.
    pub(crate) fn config(self) -> Result<Config, Failure> {
        let Some(node) = self.node.map(NodeId) else {
            return Err(mistake("no node id is given; pass --node ID, or set `node` in the file"));
        };
        let Some(cluster) = &self.cluster else {
            return Err(mistake("no cluster is given; pass --cluster 1=HOST:PORT,2=HOST:PORT,3=HOST:PORT"));
        };
        let data = self.data.unwrap_or_else(|| PathBuf::from(format!("data/{node}")));
        let mut config = Config::new(node, parse_cluster(cluster)?, data);
        config.peer_listen = self.peer_listen;
        config.client_listen = self.client.unwrap_or_else(|| "127.0.0.1:7101".to_owned());
        config.client_address = self.client_address;
        config.http_listen = self.http;
        config.shards = self.shards.unwrap_or(config.shards);
        config.replication = self.replication.unwrap_or(config.replication);
        config.durability = match self.durability.as_deref() {
            None | Some("sync") => Durability::Sync,
            Some("async") => Durability::Async,
            Some(other) => return Err(mistake(format!("durability is `{other}`; it is sync or async"))),
        };
        if let Some(name) = self.engine {
            let unknown = || mistake(format!("the engine is `{name}`; it is sled or redb"));
            config.engine = Engine::named(&name).ok_or_else(unknown)?;
        }
        config.zone = self.zone.unwrap_or_default();
        config.weight = self.weight.unwrap_or(config.weight);
        config.insecure = self.insecure.unwrap_or(false);
        config.connections_max = self.connections_max.unwrap_or(config.connections_max);
        config.unread_bytes_max = self.unread_bytes_max.unwrap_or(config.unread_bytes_max);
        let settings = &mut config.settings;
        settings.tick_micros = self.tick_ms.map_or(settings.tick_micros, |ms| ms.saturating_mul(1_000));
        settings.heartbeat_ticks = self.heartbeat_ticks.unwrap_or(settings.heartbeat_ticks);
        settings.election_ticks = self.election_ticks.unwrap_or(settings.election_ticks);
        settings.checkpoint_ticks = self.checkpoint_ticks.unwrap_or(settings.checkpoint_ticks);
        settings.disk_reserve_bytes = self.disk_reserve_bytes.unwrap_or(settings.disk_reserve_bytes);
        Ok(config)
    }
}

/// Reads a flat TOML file of [`Keys`].
fn read_file(path: &Path) -> Result<Keys, Failure> {
    let named = |message: String| mistake(format!("{}: {message}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| named(format!("can't be read: {error}")))?;
    parse_file(&text).map_err(named)
}

fn parse_file(text: &str) -> Result<Keys, String> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| error.to_string().trim_end().to_owned())?;
    let command = Keys::augment_args(Cli::command());
    let known: Vec<_> = command
        .get_arguments()
        .map(|argument| argument.get_id().as_str())
        .filter(|name| !matches!(*name, "version" | "help"))
        .collect();
    if let Some(key) = table.keys().find(|key| !known.contains(&key.as_str())) {
        let nearest = known
            .iter()
            .map(|name| (strsim::jaro_winkler(key, name), name))
            .max_by(|one, other| one.0.total_cmp(&other.0));
        return Err(match nearest {
            Some((likeness, name)) if likeness > 0.7 => format!("there is no key `{key}`; did you mean `{name}`?"),
            _ => format!("there is no key `{key}`; the keys are {}", known.join(", ")),
        });
    }
    // Again from the text, so that an error names the line.
    toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())
}

fn parse_cluster(text: &str) -> Result<BTreeMap<NodeId, String>, Failure> {
    let mut members = BTreeMap::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let member = part.split_once('=').and_then(|(id, address)| {
            let (host, port) = address.trim().rsplit_once(':')?;
            let is_address = !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0);
            is_address.then_some((NodeId(id.trim().parse().ok()?), address.trim().to_owned()))
        });
        let Some((id, address)) = member else {
            return Err(mistake(format!("`{part}` in the cluster is not ID=HOST:PORT, such as 1=127.0.0.1:7201")));
        };
        if members.insert(id, address).is_some() {
            return Err(mistake(format!("the cluster names node {id} twice")));
        }
    }
    Ok(members)
}

fn mistake(message: impl Into<String>) -> Failure {
    Failure::new(Trouble::Configuration, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve(arguments: &[&str]) -> Serve {
        let all = ["kv-server", "serve"].iter().chain(arguments);
        match Cli::try_parse_from(all).unwrap().command {
            Some(Command::Serve(serve)) => *serve,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_flag_beats_the_file_and_the_file_the_default() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("kv.toml");
        let text = "node = 2\ncluster = \"1=a:1,2=b:2\"\nshards = 6\ninsecure = true\ntick_ms = 20\n";
        std::fs::write(&file, text).unwrap();
        let serve = serve(&["--config", file.to_str().unwrap(), "--shards", "24"]);
        let config = serve.keys().unwrap().config().unwrap();
        assert_eq!((config.node, config.shards, config.replication), (NodeId(2), 24, 3));
        assert_eq!(config.members[&NodeId(1)], "a:1");
        assert!(config.insecure);
        assert_eq!(config.settings.tick_micros, 20_000);
        assert_eq!(config.data, PathBuf::from("data/2"));
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest() {
        assert!(parse_file("replicaton = 3").unwrap_err().contains("did you mean `replication`?"));
        assert!(parse_file("zzz = 3").unwrap_err().contains("the keys are node, cluster"));
        assert!(parse_file("config = \"x\"").is_err());
        assert!(parse_file("shards = \"many\"").unwrap_err().contains("line 1"));
        assert!(parse_file("node = ").is_err());
    }

    #[test]
    fn what_is_lacking_or_wrong_is_said() {
        let message = |arguments: &[&str]| serve(arguments).keys().unwrap().config().unwrap_err().message;
        assert!(message(&["--cluster", "1=a:1"]).contains("--node"));
        assert!(message(&["--node", "1"]).contains("--cluster"));
        for bad in ["1", "x=a:1", "1=a", "1=:1", "1=a:x", "1=a:0"] {
            assert!(message(&["--node", "1", "--cluster", bad]).contains("ID=HOST:PORT"), "{bad}");
        }
        assert!(message(&["--node", "1", "--cluster", "1=a:1,1=b:1"]).contains("twice"));
        let one = ["--node", "1", "--cluster", "1=a:1", "--durability", "maybe"];
        assert!(message(&one).contains("sync or async"));
        let one = ["--node", "1", "--cluster", "1=a:1", "--engine", "rocks"];
        assert!(message(&one).contains("sled or redb"));
    }

    /// A configuration file that nobody wrote. Where the parser's tables and errors come from is not ours to bound tightly:
    /// a key of one byte becomes an entry of a map, and an error shows the line that it is in.
    #[test]
    fn a_configuration_file() {
        let full = "node = 2\ncluster = \"1=a:1,2=b:2\"\npeer_listen = 'x:1'\nclient = \"c:1\"\nclient_address = \"d:2\"\n\
                    http = \"e:3\"\ndata = \"/data\"\nshards = 6\nreplication = 3\ndurability = \"async\"\nzone = \"z\"\n\
                    weight = 2\ninsecure = true\nlog_level = \"info\"\ntick_ms = 20\nheartbeat_ticks = 2\n\
                    election_ticks = 10\ncheckpoint_ticks = 1_200\ndisk_reserve_bytes = 0x1000\nengine = \"redb\"\nunread_bytes_max = 0x1000_0000\n";
        let nested = format!("node = {}", "[".repeat(500));
        // As large as numbers can be: none is multiplied, or taken for a size, unchecked.
        let huge = "node = 9223372036854775807\ncluster = '9223372036854775807=a:1'\nshards = 4294967295\nweight = 4294967295\n\
                    replication = 4294967295\ntick_ms = 9223372036854775807\nheartbeat_ticks = 9223372036854775807\n\
                    election_ticks = 9223372036854775807\ncheckpoint_ticks = 9223372036854775807";
        let seeds = [full, "node = 1\ncluster = '1=a:1'", huge, "[node]\na.b.c = {d = [1, 2]}", &nested];
        let seeds = seeds.map(|seed| seed.as_bytes().to_vec()).to_vec();
        let target = kv_tests::fuzz::Target { name: "configuration", runs: 15_000, bytes_max: 4 * 1024, seeds };
        target.run(|input| {
            let Ok(text) = std::str::from_utf8(input) else { return "no text".to_owned() };
            let mut said = String::new();
            let info = allocation_counter::measure(|| {
                said = match parse_file(text).map(Keys::config) {
                    Ok(Ok(config)) => format!("{:?}", config.check().map_err(|mistake| mistake.message)),
                    Ok(Err(mistake)) => mistake.message,
                    Err(error) => error.lines().last().unwrap_or_default().to_owned(),
                };
            });
            let most = 256 * 1024 + 400 * input.len() as u64;
            assert!(info.bytes_max <= most, "{} bytes were held for {} bytes", info.bytes_max, input.len());
            // Names and values that an answer repeats make no new kind of it.
            said.split(['`', '"']).step_by(2).collect()
        });
    }
}
