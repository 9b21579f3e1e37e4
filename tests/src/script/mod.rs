//! Golden scripts: one behaviour of a cluster a file, to be read.
//!
//! A script begins with the property that it shows, in English. Then come blocks: commands, a line `---`, and what the
//! cluster did. The cluster is the very code of production ([`kv_core::node::Node`], its log, its checkpoint worker) on
//! simulated disks, and nothing in it is random, so that the trace is the same at every run.
//!
//! ```text
//! # A write is acknowledged once a majority has synced it.      the property
//! quiet cluster 3
//!
//! put 1 a=1                                                     a client's write, at node 1
//! expect c1: written                                            holds whatever the trace says
//! ---
//! n1@2 -> n2 append 3@2 a=1                                     node 1, in term 2, sends index 3 of term 2
//! ```
//!
//! A line is one step: its commands (separated by `;`) are inputs of the same turn, then everything runs until nothing is
//! left to do, apart from what is held back ([`commands`] lists what can be said). The trace tells only of shard 1, and of
//! no heartbeats but those that carry a round of reads.
//!
//! *Regenerating* writes new traces and proves nothing; the `expect` lines hold in any case. So a script says what its
//! property comes to in `expect` lines, and a reviewer reads the rest.
//!
//! - [`mod@file`]: the format.
//! - [`host`]: one node with its disk; [`cluster`]: nodes, links, steps.
//! - [`words`]: the trace.
//! - [`commands`], [`expect`]: what a script can say.
//! - [`founding`]: scripts about how a cluster comes to be.
//!
//! *Left out*: chance. Disks lose nothing but what was not synced, messages keep their order on a link; the simulator sees to
//! the rest.

pub mod cluster;
pub mod commands;
pub mod expect;
pub mod file;
pub mod founding;
pub mod host;
pub mod words;

use self::commands::Script;

/// Runs a script: the same text with the trace as it is now.
///
/// # Errors
/// If a command can't be understood or an `expect` does not hold: where and why, with the trace up to there.
pub fn run(text: &str) -> Result<String, String> {
    let mut blocks = file::parse(text)?;
    let mut script = Script::default();
    for block in &mut blocks {
        let mut output = Vec::new();
        for (number, line) in &block.commands {
            let done = script.line(line, &mut output);
            done.map_err(|error| format!("line {number}: {line}\n  {error}\n{}", output.join("\n")))?;
        }
        block.output = output;
    }
    if !script.has_expected() {
        return Err("the script expects nothing: any behaviour could be regenerated into it".to_owned());
    }
    Ok(file::print(&blocks))
}
