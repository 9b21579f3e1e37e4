//! What can be asked for on the command line.

use std::{ffi::OsString, path::PathBuf, str::FromStr, time::Duration};

use clap::{Parser, Subcommand, ValueEnum};
use kv_client::Consistency;

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "kv", version, about = "Reads, writes, inspects and measures a kv cluster", after_help = EXIT_CODES)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failure, 2 usage, 3 key not found, 4 condition did not hold, 5 unavailable, 6 deadline passed,
8 outcome unknown (a write may have happened)";

/// What all commands share.
#[derive(Debug, clap::Args)]
pub(crate) struct Common {
    /// Nodes to begin with, as host:port,host:port; one that answers is enough
    #[arg(long, global = true, env = "KV_ENDPOINTS", default_value = "127.0.0.1:7101", value_name = "LIST")]
    pub(crate) endpoints: String,
    /// How results are written; a table on a terminal and raw in a pipe if not given
    #[arg(short, long, global = true, env = "KV_OUTPUT", value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
    /// Time for each operation, retries included
    #[arg(long, global = true, env = "KV_TIMEOUT", default_value = "5s", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Duration,
    /// Time to connect to one node
    #[arg(long, global = true, env = "KV_CONNECT_TIMEOUT", default_value = "2s", value_parser = humantime::parse_duration)]
    pub(crate) connect_timeout: Duration,
}

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// One JSON object
    Json,
    /// The value's exact bytes, or the bare number
    Raw,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Read a key
    Get(Get),
    /// Write a key
    Put(Put),
    /// Delete a key
    Del(Del),
    /// Show nodes, shards, leaders, terms and lag
    Status(Status),
    /// Measure throughput and latency
    Bench(Bench),
    /// Print a completion script for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Reads a key.
#[derive(Debug, clap::Args)]
pub(crate) struct Get {
    /// The key
    pub(crate) key: OsString,
    /// How fresh the answer must be: linearizable, stale, or bounded=AGE as in bounded=500ms
    #[arg(long, default_value = "linearizable", value_parser = consistency)]
    pub(crate) consistency: Consistency,
}

/// Writes a key.
#[derive(Debug, clap::Args)]
pub(crate) struct Put {
    /// The key
    pub(crate) key: OsString,
    /// The value; - reads it from standard input
    #[arg(conflicts_with = "file", required_unless_present = "file")]
    pub(crate) value: Option<OsString>,
    /// Read the value from a file
    #[arg(long, value_name = "PATH")]
    pub(crate) file: Option<PathBuf>,
    /// Only if the key is absent
    #[arg(long, conflicts_with = "if_revision")]
    pub(crate) if_absent: bool,
    /// Only if the key is at this revision
    #[arg(long, value_name = "REVISION")]
    pub(crate) if_revision: Option<u64>,
    /// Show what the key held before
    #[arg(long)]
    pub(crate) previous: bool,
    /// Do not wait for the disks; a crash may lose the write
    #[arg(long = "async", conflicts_with_all = ["if_absent", "if_revision", "previous"])]
    pub(crate) is_async: bool,
}

/// Deletes a key.
#[derive(Debug, clap::Args)]
pub(crate) struct Del {
    /// The key
    pub(crate) key: OsString,
    /// Only if the key is at this revision
    #[arg(long, value_name = "REVISION")]
    pub(crate) if_revision: Option<u64>,
    /// Show what the key held before
    #[arg(long)]
    pub(crate) previous: bool,
    /// Do not wait for the disks; a crash may undo the delete
    #[arg(long = "async", conflicts_with_all = ["if_revision", "previous"])]
    pub(crate) is_async: bool,
}

/// Shows the cluster.
#[derive(Debug, clap::Args)]
pub(crate) struct Status {
    /// Wait so long for every node to be ready and every shard to have a leader
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) wait: Option<Duration>,
}

/// Measures the cluster.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Bench {
    /// Share of puts and gets: put, get, or percentages as in put=20,get=80
    #[arg(long, default_value = "put=50,get=50")]
    pub(crate) mix: Mix,
    /// Operations outstanding at any time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) out: u32,
    /// Number of different keys
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) keys: u64,
    /// What the keys begin with
    #[arg(long, default_value = "bench/")]
    pub(crate) prefix: String,
    /// Size of each value in bytes
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    pub(crate) value_bytes: u32,
    /// How long to run
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration, conflicts_with = "count")]
    pub(crate) duration: Duration,
    /// Number of operations to run, instead of a duration
    #[arg(long)]
    pub(crate) count: Option<u64>,
    /// Write all keys once before measuring
    #[arg(long)]
    pub(crate) fill: bool,
    /// How fresh gets must be: linearizable, stale, or bounded=AGE
    #[arg(long, default_value = "linearizable", value_parser = consistency)]
    pub(crate) consistency: Consistency,
    /// Puts do not wait for the disks
    #[arg(long = "async")]
    pub(crate) is_async: bool,
    /// Where the choice of keys and values begins; the same seed chooses the same
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

/// How many of a hundred operations are puts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mix {
    pub(crate) put_percent: u8,
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut put, mut get) = (None, None);
        for part in text.split(',') {
            let (kind, percent) = part.split_once('=').unwrap_or((part, "100"));
            let place = match kind.trim() {
                "put" => &mut put,
                "get" => &mut get,
                _ => return Err(format!("{kind:?} is no kind of operation; put and get are")),
            };
            let percent: u8 = percent.trim().parse().map_err(|_| format!("{percent:?} is no percentage"))?;
            if place.replace(percent).is_some() {
                return Err(format!("{kind} is given twice"));
            }
        }
        let (put, get) = (put.unwrap_or(0), get.unwrap_or(0));
        match put.checked_add(get) {
            Some(100) => Ok(Self { put_percent: put }),
            _ => Err("the percentages of put and get must add up to 100".to_owned()),
        }
    }
}

fn consistency(text: &str) -> Result<Consistency, String> {
    match text {
        "linearizable" => Ok(Consistency::Linearizable),
        "stale" => Ok(Consistency::Stale),
        _ => match text.strip_prefix("bounded=").map(humantime::parse_duration) {
            Some(Ok(age)) => Ok(Consistency::Bounded(age)),
            _ => Err("write linearizable, stale, or bounded=AGE as in bounded=500ms".to_owned()),
        },
    }
}

/// As it was given.
pub(crate) fn consistency_text(consistency: Consistency) -> String {
    match consistency {
        Consistency::Linearizable => "linearizable".to_owned(),
        Consistency::Stale => "stale".to_owned(),
        Consistency::Bounded(age) => {
            format!("bounded={}", humantime::format_duration(age).to_string().replace(' ', ""))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_mix_adds_up() {
        let put_percent = |text: &str| text.parse().map(|mix: Mix| mix.put_percent);
        assert_eq!((put_percent("put"), put_percent("get"), put_percent("get=80,put=20")), (Ok(100), Ok(0), Ok(20)));
        for wrong in ["", "put=50", "put=50,get=60", "put=a,get=50", "scan=100", "put,put", "put=200,get=100"] {
            assert!(put_percent(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_consistency_reads_as_it_is_written() {
        for text in ["linearizable", "stale", "bounded=500ms", "bounded=1m30s"] {
            assert_eq!(consistency_text(consistency(text).unwrap()), text);
        }
        assert!(consistency("bounded=").is_err() && consistency("fresh").is_err());
    }

    #[test]
    fn a_value_comes_from_one_place() {
        assert!(Args::try_parse_from(["kv", "put", "a", "b"]).is_ok());
        assert!(Args::try_parse_from(["kv", "put", "a", "--file", "f"]).is_ok());
        assert!(Args::try_parse_from(["kv", "put", "a"]).is_err());
        assert!(Args::try_parse_from(["kv", "put", "a", "b", "--file", "f"]).is_err());
        assert!(Args::try_parse_from(["kv", "put", "a", "b", "--async", "--if-absent"]).is_err());
    }
}
