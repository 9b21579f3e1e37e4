//! A failure told to people: which promise is broken, the smallest history that shows it, what happened to the nodes.

use std::fmt::Write;

use super::{report::Report, timeline};
use crate::{check::Violation, history::History};

/// Operations shown of a history that no check has cut down by itself.
const OPERATIONS_MAX: usize = 12;

/// What each property promises, in a sentence.
const PROMISES: &[(&str, &str)] = &[
    (
        "linearizability",
        "Each key behaves as if every operation on it happened at one moment between its call and its answer.",
    ),
    (
        "acknowledged writes present",
        "A write that was acknowledged is there in the end, unless a later one took its place.",
    ),
    ("revisions", "Revisions of a shard grow with every change, and none is given twice."),
    (
        "exactly once",
        "A write takes effect at most once, however often it was sent, and a retry hears the first outcome.",
    ),
    (
        "async loss",
        "Of async writes only a suffix is lost, only with the leader that acknowledged them, and within the bound.",
    ),
    ("wait_durable", "What wait_durable calls durable stays, and what it calls lost never took effect."),
    ("nothing read vanishes", "What anybody has read was decided, and is not undone."),
    ("synced before it counts", "Nothing is committed or acknowledged, and no vote counts, before the disks have it."),
    ("kept promises", "Votes and acknowledgements that left a node outlive its crash."),
    ("election safety", "A shard has at most one leader in a term."),
    ("log matching", "Two logs that hold the same entry are the same up to it."),
    ("leader completeness", "A leader holds everything that was committed before it was elected."),
    ("state-machine safety", "All replicas apply the same entries in the same order, with the same outcomes."),
    ("monotonic state", "A replica's term, commit index and applied index never go back."),
    ("one owner", "Each arc of the ring has one owner at a time."),
    (
        "no replica has to leave its group",
        "Nothing that nodes and disks may do brings a replica to a state that raft holds to be impossible.",
    ),
    (
        "the model of the state",
        "What comes of each command, and what each copy of a shard holds, is what the commands before it say.",
    ),
    ("each request is answered once", "A request is answered once, and nobody is answered who did not ask."),
    ("what is applied decodes", "What is in the log can be read."),
    ("a node ends only for a reason", "A node ends by itself only for a fault of its disk, or if it may take no part."),
    ("no node panics", "Nothing that arrives brings a node down."),
    ("a whole log is never refused", "A node whose disk was not damaged starts."),
    (
        "damage of a log is refused, or costs nothing",
        "Where a log could know that its disk has damaged it, its node does not take part, instead of forgetting.",
    ),
    (
        "a checkpoint that nothing damaged can be loaded",
        "A replica whose files were not damaged finds its state at a start.",
    ),
    ("queues stay within their bounds", "What waits for a shard has a bound, past which a request is refused."),
    (
        "in quiet, every shard takes writes and answers reads",
        "Once faults end, every key can be written and read again.",
    ),
    ("who keeps to the rules is not told otherwise", "A request that may be asked is never called invalid."),
    ("in quiet, every shard gets one leader", "Once faults end, every shard finds one leader."),
    ("in quiet, every operation ends", "Once faults end, nobody waits for ever."),
    (
        "in quiet, every replica catches up",
        "Once faults end, every replica comes to hold all that its shard has committed.",
    ),
    (
        "the same state at a mark",
        "Only what a majority holds is given to others, and only who is contradicted by a majority loses a state.",
    ),
    (
        "in quiet, a state that was made to differ is found and replaced",
        "A replica whose state differs from its group's is found at a mark, and gets a right one.",
    ),
];

/// The promise behind a property, in words.
#[must_use]
pub fn promise(property: &str) -> &'static str {
    let known = PROMISES.iter().find(|(name, _)| *name == property);
    known.map_or("A property that the checkers judge; its file in tests/src/check says which.", |(_, promise)| promise)
}

/// A failed run, told to people.
#[must_use]
pub fn explain(report: &Report, history: &History) -> String {
    let Some(violation) = &report.failure else { return "nothing failed".to_owned() };
    let mut out = format!("broken promise: {}\n{violation}\n", promise(violation.property));
    let operations = concerned(violation, history);
    if !operations.is_empty() {
        out += "what clients saw of it, or last before it:\n";
        for operation in operations {
            let _ = writeln!(out, "  {operation}");
        }
    }
    out += &timeline::table(&report.timeline, report.plan.nodes as usize, violation.at.micros);
    out
}

/// The operations on a key that the violation names, else those around its moment; none if it tells its own history.
fn concerned<'a>(violation: &Violation, history: &'a History) -> Vec<&'a crate::history::Operation> {
    if violation.what.contains("\n  ") {
        return Vec::new();
    }
    let before = history.operations().iter().filter(|operation| operation.invoked.event <= violation.at.event);
    let named: Vec<_> = before
        .clone()
        .filter(|operation| {
            operation.call.key().is_some_and(|key| {
                violation.what.split_whitespace().any(|word| word.trim_matches([',', ':', '.']) == key.as_str())
            })
        })
        .collect();
    let all = if named.is_empty() { before.collect() } else { named };
    all[all.len().saturating_sub(OPERATIONS_MAX)..].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_property_of_the_checkers_has_a_sentence() {
        for name in [crate::check::linearizability::NAME, "async loss", "kept promises", "one owner"] {
            assert!(PROMISES.iter().any(|(known, _)| *known == name), "{name}");
        }
        let mut names: Vec<_> = PROMISES.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), PROMISES.len());
    }
}
