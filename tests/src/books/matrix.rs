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
    row(
        "power cut of one: what was not synced goes, in any legal part",
        (&["crash"], "every subset of sectors"),
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
    row("sync fails, and its pages with it", (&["failed-sync"], ""), (&["sync-fails"], ""), "L S T"),
    row("disk full", (&["disk-full"], ""), (&["disk-full"], ""), "L S U"),
    row("slow or hanging disk", (&["slow-disk"], ""), (&["sync-slow"], ""), "L S U B"),
    row(
        "rot in the log, its middle and its tail",
        (&["rot-log"], "wherever a legal majority stays good"),
        (&["flip"], "`torture damage`"),
        "L S T",
    ),
    row(
        "rot in checkpoints and the read index; either lost",
        (&["rot-file", "store-lost"], ""),
        (NONE, "`flip` above, `torture damage`"),
        "L S D",
    ),
    row("a replica's state made wrong", (&["store-altered"], "in memory, tree and file"), (NONE, "no"), "D"),
    row(
        "a whole disk lost",
        (NONE, "at the founding, and then as a node that stays away; logs or states lost, under load"),
        (NONE, "`torture damage`: refused"),
        "T S",
    ),
    row(
        "partitions: symmetric, one way, bridge, flapping",
        (&["partition", "partition-one-way", "link"], "every network of five"),
        (&["partition", "one-way", "bridge", "flap"], ""),
        "L S O U",
    ),
    row(
        "loss, duplicates, reordering, delays of minutes",
        (NONE, "in every run"),
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
        (&["pause", "zombie"], ""),
        (&["pause"], ""),
        "L S O",
    ),
    row(
        "clocks: 0.5x to 2x, years forwards and back",
        (NONE, "in every run"),
        (&["clock"], "the wall clock"),
        "L, ages, sessions",
    ),
    row("leaders handed over again and again", (&["transfer"], ""), (&["transfer"], ""), "L S O"),
    row("starved CPU", (NONE, "as pauses"), (&["starve"], ""), "L U"),
    row(
        "clients that time out, ask elsewhere, reorder, return after eviction, know an old map",
        (NONE, "in every run"),
        (NONE, "workload `sessions`"),
        "O",
    ),
    row(
        "a follower that the log outruns; files sent while both ends fail",
        (NONE, "in every run"),
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
    use crate::sim::plan::{Options, Plan};

    #[test]
    fn every_fault_that_is_simulated_stands_in_it() {
        for (kind, _) in Plan::draw(1, Options::default()).faults.kinds() {
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
