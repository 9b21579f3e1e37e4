//! A history in the form that Jepsen's checkers read (EDN, one operation map a line), for a second opinion.
//!
//! Of a whole history each value is a pair, `[key value]`, as `jepsen.independent` has it. Of one key the values are bare, which is what
//! Knossos judges with its model `cas-register`. Only what such a register can say is written: gets that ask for the latest, puts
//! (`:write`), deletes (`:write nil`) and conditional puts (`:cas [old new]`, if the value at the revision that was asked for is known; a
//! plain `:write` if not, which asks for less). Revisions, ages and what an answer told of the entry before are left out.
//!
//! A process of Jepsen has one call open and ends with an unknown outcome, so processes are not our clients: each call takes one that is
//! free.

use std::{
    collections::{BTreeSet, HashMap},
    io::{self, Write},
};

use kv_core::{command::Condition, error::Outcome, types::Revision};

use super::{Answer, Call, Consistency, History, Moment, Name, Operation, Previous};

/// Writes a history; only the operations of `key` if one is given.
///
/// # Errors
/// What writing gives.
pub fn write(history: &History, key: Option<&Name>, mut out: impl Write) -> io::Result<()> {
    let shown: Vec<_> = history.operations().iter().filter(|operation| is_shown(operation, key)).collect();
    let values = values(history);
    let mut lines: Vec<(Moment, bool, usize)> = Vec::with_capacity(2 * shown.len());
    for (place, operation) in shown.iter().enumerate() {
        lines.push((operation.invoked, true, place));
        lines.extend(operation.completed.as_ref().map(|(at, _)| (*at, false, place)));
    }
    lines.sort_unstable();
    let mut free: BTreeSet<u64> = BTreeSet::new();
    let mut processes = 0;
    let mut process_of = vec![0; shown.len()];
    for (index, (at, is_call, place)) in lines.into_iter().enumerate() {
        let operation = shown[place];
        if is_call {
            process_of[place] = free.pop_first().unwrap_or_else(|| {
                processes += 1;
                processes - 1
            });
        }
        let kind = if is_call { ":invoke" } else { kind(operation) };
        if kind == ":ok" || kind == ":fail" {
            free.insert(process_of[place]);
        }
        let (f, value) = function(operation, is_call, &values);
        let value = match (key, operation.call.key()) {
            (None, Some(own)) => format!("[{} {value}]", text(own)),
            _ => value,
        };
        writeln!(
            out,
            "{{:index {index}, :time {}, :process {}, :type {kind}, :f {f}, :value {value}}}",
            at.micros.saturating_mul(1_000),
            process_of[place]
        )?;
    }
    out.flush()
}

fn is_shown(operation: &Operation, key: Option<&Name>) -> bool {
    let is_asked = |own| key.is_none_or(|key| key == own);
    let is_old = matches!(operation.call, Call::Get { consistency: Consistency::Bounded(_) | Consistency::Stale, .. });
    !is_old && operation.call.key().is_some_and(is_asked)
}

fn kind(operation: &Operation) -> &'static str {
    match operation.answer() {
        None | Some(Answer::Accepted { .. } | Answer::Failed { outcome: Outcome::Unknown, .. }) => ":info",
        Some(Answer::Failed { .. }) => ":fail",
        Some(_) => ":ok",
    }
}

/// Which value each key had at which revision, as far as anybody was told.
fn values(history: &History) -> HashMap<(&Name, Revision), &Name> {
    let mut values = HashMap::new();
    for operation in history.operations() {
        let (Some(key), Some(answer)) = (operation.call.key(), operation.answer()) else { continue };
        match (&operation.call, answer) {
            (_, Answer::Read { entry: Some(seen), .. }) => {
                values.insert((key, seen.revision), &seen.value);
            }
            (Call::Write { value, .. }, Answer::Written { revision, previous, .. }) => {
                values.extend(value.as_ref().map(|value| ((key, *revision), value)));
                if let Previous::Entry(seen) = previous {
                    values.insert((key, seen.revision), &seen.value);
                }
            }
            _ => {}
        }
    }
    values
}

fn function(
    operation: &Operation,
    is_call: bool,
    values: &HashMap<(&Name, Revision), &Name>,
) -> (&'static str, String) {
    let word = |name: Option<&Name>| name.map_or("nil".into(), text);
    match &operation.call {
        Call::Write { key, value, condition, .. } => {
            let new = word(value.as_ref());
            match condition {
                Condition::Always => (":write", new),
                Condition::Absent | Condition::RevisionIs(Revision(0)) => (":cas", format!("[nil {new}]")),
                Condition::RevisionIs(revision) => match values.get(&(key, *revision)) {
                    Some(old) => (":cas", format!("[{} {new}]", text(old))),
                    None => (":write", new),
                },
            }
        }
        _ => match operation.answer() {
            Some(Answer::Read { entry, .. }) if !is_call => (":read", word(entry.as_ref().map(|seen| &seen.value))),
            _ => (":read", "nil".into()),
        },
    }
}

/// A name as an EDN string.
fn text(name: &Name) -> String {
    format!("\"{}\"", name.as_str().replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        history::jepsen::read,
        verdict::register::{Judged, judge},
    };

    const HISTORY: &str = "\
0 c1 1@0 put k v0 sync => 4@900 written 6
1 c2 2@0 get k linearizable => 3@100 read absent age:0
2 c1 5@1000 put k v1 if=rev:6 sync => 9@1200 written 7
3 c1 6@1000 put k v2 if=rev:6 sync => 10@1300 failed Conflict NotApplied current:7
4 c2 7@1000 get k stale => 8@1100 read 6:v0 age:900
5 c1 11@1300 put j w sync => 12@1400 failed Timeout Unknown
6 c1 13@1500 delete k sync => never
7 c1 14@1500 get k linearizable => 15@1600 read FOUND age:0
";

    fn written(key: Option<&str>, found: &str) -> String {
        let history: History = HISTORY.replace("FOUND", found).parse().unwrap();
        let mut out = Vec::new();
        write(&history, key.map(Name::from).as_ref(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn one_key_is_a_register_with_compare_and_set() {
        let text = written(Some("k"), "7:v1");
        assert_eq!(text.lines().count(), 11, "{text}");
        assert!(text.contains(":type :ok, :f :cas, :value [\"v0\" \"v1\"]}"), "{text}");
        assert!(text.contains(":type :invoke, :f :write, :value nil}"), "{text}");
        assert_eq!(judge(&read(&text).unwrap()), Judged::Ok);
        assert_eq!(judge(&read(&written(Some("k"), "absent")).unwrap()), Judged::Ok);
        assert!(matches!(judge(&read(&written(Some("k"), "6:v0")).unwrap()), Judged::Violated(_)));
    }

    #[test]
    fn of_many_keys_each_value_has_its_key_and_no_process_lives_on() {
        let text = written(None, "7:v1");
        assert!(text.contains(":process 0, :type :info, :f :write, :value [\"j\" \"w\"]}"), "{text}");
        let after: String = text.lines().skip_while(|line| !line.contains(":info")).skip(1).collect();
        assert!(
            !after.contains(":process 0,"),
            "a process that does not know what came of its call asks nothing more: {text}"
        );
    }
}
