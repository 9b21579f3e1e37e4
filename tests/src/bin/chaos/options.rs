//! What a run is asked for, and what of it can be done here.

use std::path::PathBuf;

use clap::Parser;
use kv_tests::workloads::Workload;

use crate::{
    namespaces::Namespaces,
    nemesis::{Need, Nemesis},
    tools::{self, Tool},
};

/// Runs a cluster of real processes under faults, and judges every answer that its clients got.
///
/// Exit status: 0 nothing was violated, 1 something was, 2 the run could not be done.
#[derive(Clone, Debug, Parser)]
#[command(name = "chaos")]
pub(crate) struct Options {
    /// Which nemeses are at work, joined by commas; `all` for all that can be done here, `none` for none.
    #[arg(long, default_value = "kill,pause,partition")]
    pub(crate) nemesis: String,
    /// Say what each nemesis does and whether it can be done here, and end.
    #[arg(long)]
    pub(crate) list: bool,
    /// For how many seconds faults are made.
    #[arg(long, default_value_t = 60)]
    pub(crate) secs: u64,
    /// End once so many faults were made, if that is before the time is over.
    #[arg(long)]
    pub(crate) faults: Option<u64>,
    /// Where all choices begin.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// How many nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(3..=9))]
    pub(crate) nodes: u64,
    /// How many shards.
    #[arg(long, default_value_t = 12)]
    pub(crate) shards: u32,
    /// What the clients do, joined by commas: register, append, counter, mix, sessions, async; or `all`.
    #[arg(long, default_value = "all")]
    pub(crate) workload: String,
    /// How many tasks the clients have.
    #[arg(long, default_value_t = 12)]
    pub(crate) tasks: usize,
    /// Milliseconds that a task pauses between two calls, on the average.
    #[arg(long, default_value_t = 20)]
    pub(crate) pause_ms: u64,
    /// Keys of each workload at a time.
    #[arg(long, default_value_t = 6)]
    pub(crate) keys: u64,
    /// Milliseconds between two faults of a nemesis: from half of it to twice.
    #[arg(long, default_value_t = 2_500)]
    pub(crate) every_ms: u64,
    /// The kv-server to try; by default it is built, or taken from beside this program if that was not run by cargo.
    #[arg(long)]
    pub(crate) server: Option<PathBuf>,
    /// Further flags of the server, separated by blanks, such as `--engine redb`.
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    pub(crate) server_flags: String,
    /// The run's directory, which must not exist; by default a new one where temporary files go.
    #[arg(long)]
    pub(crate) directory: Option<PathBuf>,
    /// Keep the nodes' data also if nothing was violated.
    #[arg(long)]
    pub(crate) keep: bool,
    /// No network namespaces, even where they can be had.
    #[arg(long)]
    pub(crate) loopback: bool,
    /// Plant a bug that power cuts must bring to light, to see that they do: no sync of any log reaches its disk. Needs strace, and
    /// ends with exit status 1 if all is well with this program.
    #[arg(long)]
    pub(crate) lying_syncs: bool,
    /// Add what was run to this file of JSON lines: a line a run.
    #[arg(long)]
    pub(crate) campaign: Option<PathBuf>,
}

impl Options {
    /// Whether nodes get network namespaces, or why not.
    pub(crate) fn namespaces(&self) -> Result<(), String> {
        if self.loopback {
            return Err("asked for by --loopback".to_owned());
        }
        if !tools::is_root() {
            return Err("namespaces need root".to_owned());
        }
        [Tool::Ip, Tool::Nsenter, Tool::Iptables].into_iter().find_map(Tool::missing).map_or(Ok(()), Err)?;
        Namespaces::possible()
    }

    /// The nemeses that were asked for, and with `all` those that can't be had, with the reason.
    pub(crate) fn nemeses(&self, namespaces: bool) -> Result<(Vec<Nemesis>, Vec<String>), String> {
        let (mut chosen, mut lacking) = (Vec::new(), Vec::new());
        for name in self.nemesis.split(',').map(str::trim).filter(|name| *name != "none" && !name.is_empty()) {
            if name == "all" {
                for nemesis in Nemesis::ALL {
                    match nemesis.lacks(namespaces) {
                        None => chosen.push(nemesis),
                        Some(lacks) => lacking.push(format!("{nemesis} is left out: {lacks}")),
                    }
                }
                continue;
            }
            let nemesis = Nemesis::named(name).ok_or_else(|| format!("there is no nemesis {name}; see --list"))?;
            if let Some(lacks) = nemesis.lacks(namespaces) {
                return Err(format!("{nemesis}: {lacks}"));
            }
            chosen.push(nemesis);
        }
        Ok((chosen, lacking))
    }

    /// Whether any of these needs it.
    pub(crate) fn need(nemeses: &[Nemesis], need: Need) -> bool {
        nemeses.iter().any(|nemesis| nemesis.needs().contains(&need))
    }

    /// What the clients do.
    pub(crate) fn workloads(&self) -> Result<Vec<Workload>, String> {
        let named = |name: &str| Workload::named(name.trim()).ok_or_else(|| format!("there is no workload {name}"));
        let workloads: Vec<_> = match self.workload.as_str() {
            "all" => Workload::ALL.to_vec(),
            names => names.split(',').map(named).collect::<Result<_, _>>()?,
        };
        if self.tasks < workloads.len() {
            return Err(format!("{} workloads need as many tasks, not {}", workloads.len(), self.tasks));
        }
        Ok(workloads)
    }
}
