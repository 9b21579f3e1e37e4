//! What can be asked for on the command line.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Parser, Subcommand, ValueEnum};
use kv_client::Consistency;

use crate::bench;

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
    Bench(Box<bench::Options>),
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
    /// Only if the key is at this revision; 0 = absent
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
    /// Only if the key is at this revision; 0 = absent
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

/// How fresh a read must be, as it is written.
pub(crate) fn consistency(text: &str) -> Result<Consistency, String> {
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
