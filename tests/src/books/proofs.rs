//! Runs of the long commands that keep no books of their own: which command, when, and the last that it said.

use serde::{Deserialize, Serialize};

/// One run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Proof {
    /// The day (UTC), as 2026-11-21.
    pub date: String,
    /// What was run, to be typed again.
    pub command: String,
    /// What it proves.
    pub what: String,
    /// The sum that it printed.
    pub said: String,
}

/// Reads a file.
///
/// # Errors
/// The first line that is none, and why.
pub fn read_all(text: &str) -> Result<Vec<Proof>, String> {
    let lines = text.lines().enumerate();
    lines.map(|(at, line)| serde_json::from_str(line).map_err(|error| format!("line {}: {error}", at + 1))).collect()
}
