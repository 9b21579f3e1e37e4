//! The fault matrix: each way to break the promise, how it is made here, what judges it, and how often the books say it was made.

use std::{collections::BTreeMap, fmt::Write};

use super::grouped;

/// A way to break the promise.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// In words.
    pub fault: &'static str,
    /// Kinds of faults that `sim` counts.
    pub simulated: &'static [&'static str],
    /// How the simulator makes it where it counts nothing, or what else it does.
    pub simulated_too: &'static str,
    /// Kinds of faults that `chaos` counts.
    pub real: &'static [&'static str],
    /// What else makes it on real processes, or why nothing does.
    pub real_too: &'static str,
    /// The letters of what judges it.
    pub judges: &'static str,
}

const NONE: &[&str] = &[];

const fn row(
    fault: &'static str,
    (simulated, simulated_too): (&'static [&'static str], &'static str),
    (real, real_too): (&'static [&'static str], &'static str),
    judges: &'static str,
) -> Row {
    Row { fault, simulated, simulated_too, real, real_too, judges }
}

/// All of it.
pub const ROWS: &[Row] = &[
    row("one process killed", (&["kill"], ""), (&["kill"], "`torture kill`"), "L S O T D U"),
    row("all killed at once", (NONE, "several `kill`"), (&["kill-all"], "`torture power`"), "L S O T D U"),
    row("a node asked to stop", (&["asked-to-stop"], ""), (NONE, "the server's tests"), "L S O U"),
    row(
        "power cut of one: what was not synced goes, in any legal part",
        (&["crash", "leader-lost"], "every subset of sectors"),
        (&["power"], "what reached the device stays"),
        "L S O T D",
    ),
    row(
        "power cut of all at once",
        (&["crash-all"], ""),
        (&["power-all"], "`--lying-syncs` shows that the rest goes"),
        "L S O T D",
    ),
    row(
        "crash at each step of writing, recovering, installing, founding",
        (&["crash-in-recovery"], "`--crash-points`, scripts of hard places"),
        (NONE, "no"),
        "S T D",
    ),
    row("torn, reordered, lost, misdirected sectors", (NONE, "at each crash"), (NONE, "no"), "S T D"),
    row(
        "a read, a write, a sync or a change of names fails, a sync with its pages",
        (&["failed-sync", "failed-write", "failed-read", "failed-names", "tree-fails"], ""),
        (&["sync-fails"], ""),
        "L S T",
    ),
    row("disk full", (&["disk-full", "merge-full"], ""), (&["disk-full"], ""), "L S U"),
    row("slow or hanging disk", (&["slow-disk", "stalled-disk"], ""), (&["sync-slow"], ""), "L S U B"),
    row(
        "rot in the log, its middle and its tail",
        (&["rot-log", "rot-badly"], "wherever a legal majority stays good"),
        (&["flip"], "`torture damage`"),
        "L S T",
    ),
    row(
        "rot in checkpoints and the read index; either lost, the index also as it once was",
        (&["rot-file", "rot-running", "rot-down", "store-lost", "tree-lost", "tree-went-back", "values-were-lost"], ""),
        (NONE, "`flip` above, `torture damage`"),
        "L S D",
    ),
    row("a replica's state made wrong", (&["store-altered", "state-differs"], "in memory and tree"), (NONE, "no"), "D"),
    row(
        "a whole disk lost",
        (&["disk-lost"], "at the founding, and then as a node that stays away; logs or states lost, under load"),
        (NONE, "`torture damage`: refused"),
        "T S",
    ),
    row("a node started with other settings", (&["started-otherwise"], ""), (NONE, "no"), "S U"),
    row(
        "partitions: symmetric, one way, bridge, ring, flapping; a minority that stays away",
        (
            &[
                "partition",
                "partition-one-way",
                "link",
                "split",
                "isolate",
                "isolate-leader",
                "bridge",
                "ring",
                "flap",
                "stays-away",
            ],
            "every network of five",
        ),
        (&["partition", "one-way", "bridge", "flap"], ""),
        "L S O U",
    ),
    row(
        "loss, duplicates, reordering, delays of minutes, damaged frames",
        (
            &["loss", "duplicates", "reorder", "minutes", "clog", "corrupt"],
            "less of it in most runs, from the beginning to the end",
        ),
        (&["loss", "slow", "cut"], "no duplicates: TCP"),
        "L S O U",
    ),
    row(
        "connections that are silent without end",
        (NONE, "as lost messages"),
        (NONE, "part of `partition`, `bridge`"),
        "U",
    ),
    row(
        "pauses longer than an election, at any place; a leader that does not hear that it is deposed",
        (&["pause", "zombie", "pause-in-turn", "pause-after-sync", "leader-unaware"], ""),
        (&["pause"], ""),
        "L S O",
    ),
    row(
        "clocks: 0.5x to 2x, years forwards and back",
        (&["clock-rate", "clock-forward", "clock-back"], "a steady drift in most runs"),
        (&["clock"], "the wall clock"),
        "L, ages, sessions",
    ),
    row("leaders handed over again and again", (&["transfer", "transfers"], ""), (&["transfer"], ""), "L S O"),
    row("starved CPU", (&["starve"], ""), (&["starve"], ""), "L U"),
    row(
        "clients that time out, ask elsewhere, reorder, return after eviction, know an old map",
        (NONE, "in half of the runs"),
        (NONE, "workload `sessions`"),
        "O",
    ),
    row(
        "a follower that the log outruns; files sent while both ends fail",
        (&["stream-cut"], "and as other faults have it"),
        (NONE, "in part, by `kill` and `partition` under load"),
        "D U",
    ),
    row("ten times the load", (NONE, "`sim --overload`"), (NONE, "`attack --kind overload`"), "B U"),
    row("a peer that speaks the protocol and lies", (NONE, "three fuzzed nodes"), (NONE, "no"), "L S T B"),
    row(
        "bytes that are no message, from disk or network; floods, slow senders, resets",
        (NONE, "fuzzed decoders"),
        (NONE, "`attack`, e2e tests"),
        "no panic, bounded memory",
    ),
];

/// The matrix with how often each fault was made.
#[must_use]
pub fn table(simulated: &BTreeMap<String, u64>, real: &BTreeMap<String, u64>) -> String {
    let mut table = "| fault | simulated | on real processes | judged by |\n|---|---|---|---|\n".to_owned();
    for row in ROWS {
        let simulated = cell(row.simulated, row.simulated_too, simulated);
        let real = cell(row.real, row.real_too, real);
        let _ = writeln!(table, "| {} | {simulated} | {real} | {} |", row.fault, row.judges);
    }
    table
}

fn cell(kinds: &[&str], too: &str, made: &BTreeMap<String, u64>) -> String {
    let counted = kinds.iter().map(|kind| format!("`{kind}` {}", grouped(made.get(*kind).copied().unwrap_or(0))));
    counted.chain((!too.is_empty()).then(|| too.to_owned())).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::report::Counts;

    #[test]
    fn every_fault_that_is_simulated_stands_in_it() {
        for (kind, _) in Counts::default().faults() {
            let rows = ROWS.iter().filter(|row| row.simulated.contains(&kind)).count();
            assert_eq!(rows, 1, "{kind}");
        }
    }

    #[test]
    fn a_row_says_how_often() {
        let simulated = BTreeMap::from([("kill".to_owned(), 1_200)]);
        let table = table(&simulated, &BTreeMap::from([("kill".to_owned(), 3)]));
        assert!(
            table.contains("| one process killed | `kill` 1,200 | `kill` 3, `torture kill` | L S O T D U |\n"),
            "{table}"
        );
    }
}
