//! What a run is asked for.

use std::path::PathBuf;

use clap::Parser;

use crate::kinds::Kind;

/// Attacks a cluster of real processes, and measures what its honest clients notice.
///
/// Exit status: 0 all held, 1 something did not, 2 the run could not be done.
#[derive(Clone, Debug, Parser)]
#[command(name = "attack")]
pub(crate) struct Options {
    /// Say what kinds of attack there are, with how many connections each, and end.
    #[arg(long)]
    pub(crate) list: bool,
    /// Kinds of attack, joined by commas, or `all`; or `overload`, which is none.
    #[arg(long, default_value = "all")]
    pub(crate) kind: String,
    /// Seconds of each window that is measured.
    #[arg(long, default_value_t = 5)]
    pub(crate) secs: u64,
    /// How often a quiet and an attacked window follow one another.
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: u32,
    /// Where all choices begin.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Operations a second that the measuring honest client offers: half puts, half gets.
    #[arg(long, default_value_t = 300)]
    pub(crate) rate: u32,
    /// Judge no times, and nothing that comes of being late: for machines that others use too.
    #[arg(long)]
    pub(crate) no_times: bool,
    /// The kv-server to attack; by default it is built, or taken from beside this program if that was not run by cargo.
    #[arg(long)]
    pub(crate) server: Option<PathBuf>,
    /// Further flags of the server, separated by blanks.
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    pub(crate) server_flags: String,
    /// Add the results to this file of JSON lines.
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    /// Be the attackers of this kind until the standard input ends: what a run starts as a process of its own.
    #[arg(long, hide = true)]
    pub(crate) attacker: Option<String>,
    /// Whom to attack.
    #[arg(long, hide = true, default_value = "")]
    pub(crate) target: String,
}

impl Options {
    /// The kinds that were asked for.
    pub(crate) fn kinds(&self) -> Result<Vec<Kind>, String> {
        if self.kind == "all" {
            return Ok(Kind::all().collect());
        }
        let named = |name: &str| Kind::named(name.trim()).ok_or_else(|| format!("there is no kind {name}; see --list"));
        self.kind.split(',').map(named).collect()
    }
}
