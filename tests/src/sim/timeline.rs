//! What happened to the nodes of a run, as a table for people: a row a moment, a column a node.
//!
//! Only what a reader needs to see how a violation came about: faults, starts and ends of processes, leaders, installs, states
//! that were lost. Everything else is in the trace.

use std::fmt::Write;

/// Something that happened to one node, or to all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When, in simulated microseconds.
    pub at: u64,
    /// Which node, counted from 0; none for what concerns all.
    pub node: Option<usize>,
    /// What, in few words.
    pub what: String,
}

/// Rows that are shown, the last ones.
const ROWS_MAX: usize = 40;

/// Characters of a column at least; a longer entry pushes those right of it aside.
const COLUMN_CHARS: usize = 26;

/// The last rows of a timeline up to a moment.
#[must_use]
pub fn table(entries: &[Entry], nodes: usize, until: u64) -> String {
    let mut rows: Vec<&Entry> = entries.iter().filter(|entry| entry.at <= until).collect();
    let left_out = rows.len().saturating_sub(ROWS_MAX);
    rows.drain(..left_out);
    let mut out = format!("{:>12}", "seconds");
    for node in 1..=nodes {
        let _ = write!(out, "  {:<COLUMN_CHARS$}", format!("node {node}"));
    }
    out = out.trim_end().to_owned();
    if left_out > 0 {
        let _ = write!(out, "\n{:>12}  {left_out} earlier rows are in the trace", "...");
    }
    for row in rows {
        let _ = write!(out, "\n{:>12.6}  ", row.at as f64 / 1e6);
        match row.node {
            Some(node) => {
                let _ = write!(out, "{}{}", " ".repeat(node * (COLUMN_CHARS + 2)), row.what);
            }
            None => {
                let _ = write!(out, "-- {} --", row.what);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_a_column_and_what_concerns_all_has_none() {
        let entry = |at, node, what: &str| Entry { at, node, what: what.to_owned() };
        let entries = [entry(1, Some(0), "is up"), entry(2, None, "QUIET"), entry(9, Some(1), "too late")];
        let text = table(&entries, 2, 5);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[1], "    0.000001  is up");
        assert_eq!(lines[2], "    0.000002  -- QUIET --");
        assert_eq!(lines.len(), 3);
    }

    #[test]
    fn of_a_long_timeline_the_end_is_shown() {
        let entries: Vec<_> = (0..100).map(|at| Entry { at, node: Some(0), what: format!("event {at}") }).collect();
        let text = table(&entries, 1, 100);
        assert!(text.contains("60 earlier rows") && text.contains("event 99") && !text.contains("event 59\n"));
    }
}
