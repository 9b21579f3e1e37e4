//! The verdict on a history of one plain register with compare-and-set, as Jepsen logs it.
//!
//! Values repeat and carry no revision, so the search branches more than on our own histories: a step that reads what is there is still
//! taken at once, and writes of unknown outcome that do the same thing still count as one.

use std::collections::HashMap;

use xxhash_rust::xxh3::xxh3_128;

use crate::{
    check::linearizability::{
        search::{Model, Verdict, search},
        steps::{Step, Steps},
    },
    history::jepsen::{End, RegisterCall, RegisterOperation},
};

/// Steps after which the search is given up. A step takes about 100 ns.
pub const STEPS_MAX: u64 = 20_000_000;
/// The same for each trial of a smaller history.
const TRIAL_STEPS_MAX: u64 = 200_000;

/// What a step does to the register. Values are numbers; 0 is `nil`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Plain {
    Read(usize),
    Write(usize),
    Cas(usize, usize),
}

impl Model for Plain {
    type State = usize;

    fn after(&self, state: usize) -> Option<usize> {
        match *self {
            Self::Read(value) => (value == state).then_some(state),
            Self::Write(value) => Some(value),
            Self::Cas(old, new) => (old == state).then_some(new),
        }
    }

    fn hash(state: &usize) -> u128 {
        xxh3_128(&(*state as u64).to_le_bytes())
    }

    fn looks(&self) -> bool {
        matches!(self, Self::Read(_))
    }

    fn rank(&self) -> Option<u64> {
        None
    }
}

/// What came of judging a register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judged {
    /// An order explains it.
    Ok,
    /// No order explains these, none of which can be left out.
    Violated(Vec<RegisterOperation>),
    /// The search was given up.
    Undecided,
}

/// Judges a history.
#[must_use]
pub fn judge(operations: &[RegisterOperation]) -> Judged {
    match verdict(operations, STEPS_MAX) {
        Verdict::Linearizable => Judged::Ok,
        Verdict::Undecided => Judged::Undecided,
        Verdict::NotLinearizable(_) | Verdict::Impossible(_) => Judged::Violated(core(operations)),
    }
}

/// The verdict as text, for a terminal.
#[must_use]
pub fn report(operations: &[RegisterOperation], judged: &Judged) -> String {
    let ends = |end| operations.iter().filter(|operation| operation.end.map(|(_, end)| end) == end).count();
    let mut out = format!(
        "history  one register, {} operations: {} ok, {} failed, {} unknown\n",
        operations.len(),
        ends(Some(End::Ok)),
        ends(Some(End::Fail)),
        ends(Some(End::Info)) + ends(None),
    );
    match judged {
        Judged::Ok => out += "verdict  ok: some order of the operations explains every answer\n",
        Judged::Undecided => {
            out += &format!("verdict  UNDECIDED, which is no pass: the search was given up after {STEPS_MAX} steps\n");
        }
        Judged::Violated(core) => {
            out += "verdict  VIOLATED: no order of the operations explains every answer\n\n";
            out += &format!("These {} of {} operations are enough to see it:\n\n", core.len(), operations.len());
            core.iter().for_each(|operation| out += &format!("  {operation}\n"));
        }
    }
    out
}

fn verdict(operations: &[RegisterOperation], steps_max: u64) -> Verdict {
    let mut steps = Steps::default();
    let mut names = Names::default();
    for operation in operations {
        let effect = match &operation.call {
            RegisterCall::Read(value) => Plain::Read(names.number(value)),
            RegisterCall::Write(value) => Plain::Write(names.number(value)),
            RegisterCall::Cas(old, new) => Plain::Cas(names.number(old), names.number(new)),
        };
        let (id, from) = (operation.line as u64, operation.line as u64);
        match operation.end {
            Some((line, End::Ok)) => steps.must.push(Step { id, from, until: line as u64, effect }),
            Some((_, End::Fail)) => {}
            Some((_, End::Info)) | None if effect.looks() => {}
            Some((_, End::Info)) | None => steps.may.push(Step { id, from, until: u64::MAX, effect }),
        }
    }
    search(&steps, steps_max)
}

#[derive(Default)]
struct Names<'a> {
    known: HashMap<&'a str, usize>,
}

impl<'a> Names<'a> {
    fn number(&mut self, value: &'a Option<String>) -> usize {
        let next = self.known.len() + 1;
        value.as_ref().map_or(0, |value| *self.known.entry(value).or_insert(next))
    }
}

fn has_no_order(operations: &[RegisterOperation]) -> bool {
    matches!(verdict(operations, TRIAL_STEPS_MAX), Verdict::NotLinearizable(_) | Verdict::Impossible(_))
}

/// Few operations that have no order; had the whole one, so had they.
fn core(operations: &[RegisterOperation]) -> Vec<RegisterOperation> {
    let mut ends: Vec<_> = operations.iter().filter_map(|operation| operation.end).map(|(line, _)| line).collect();
    ends.sort_unstable();
    let first = ends.partition_point(|line| !has_no_order(&until(operations, *line)));
    let mut kept = ends.get(first).map_or_else(|| operations.to_vec(), |line| until(operations, *line));
    let last = last_write_before_the_end(&kept);
    let mut piece = kept.len().div_ceil(2).max(1);
    loop {
        let (mut start, mut dropped) = (0, false);
        while start < kept.len() {
            let end = (start + piece).min(kept.len());
            let left: Vec<_> = kept[..start].iter().chain(&kept[end..]).cloned().collect();
            let needs = Needs::of(&left);
            let may_go = |gone: &RegisterOperation| Some(gone.line) != last && needs.may_go(gone);
            if kept[start..end].iter().all(may_go) && has_no_order(&left) {
                (kept, dropped) = (left, true);
            } else {
                start = end;
            }
        }
        if piece > 1 {
            piece = piece.div_ceil(2);
        } else if !dropped {
            return kept;
        }
    }
}

/// The call of the last write that happened before what ended last was called: a value that is not there any more is shown with what took
/// its place, though it would be as wrong without.
fn last_write_before_the_end(operations: &[RegisterOperation]) -> Option<usize> {
    let last = operations.iter().max_by_key(|operation| operation.end.map(|(end, _)| end))?;
    let writes = operations.iter().filter_map(write_that_happened);
    writes.filter(|(end, _)| *end < last.line).map(|(_, call)| call).max()
}

/// What was known at a line: later calls did not happen, and later ends did not come.
fn until(operations: &[RegisterOperation], line: usize) -> Vec<RegisterOperation> {
    let mut kept: Vec<_> = operations.iter().filter(|operation| operation.line <= line).cloned().collect();
    for operation in &mut kept {
        operation.end = operation.end.filter(|(end, _)| *end <= line);
    }
    kept
}

/// What those who are left need of values, so that it can be told who is not needed.
struct Needs<'a> {
    /// For each value that somebody finds or compares with: no write of it that ended before this line is the one that any of them saw,
    /// since another write lies between; 0 if one may be.
    superseded: HashMap<&'a Option<String>, usize>,
}

impl<'a> Needs<'a> {
    fn of(left: &'a [RegisterOperation]) -> Self {
        // By their ends, the writes that happened, each with the latest call among those up to it.
        let mut writes: Vec<(usize, usize)> = left.iter().filter_map(write_that_happened).collect();
        writes.sort_unstable();
        let mut latest = 0;
        for (_, call) in &mut writes {
            latest = latest.max(*call);
            *call = latest;
        }
        let mut superseded = HashMap::new();
        for operation in left {
            let needed = match &operation.call {
                RegisterCall::Read(found) if matches!(operation.end, Some((_, End::Ok))) => found,
                RegisterCall::Cas(old, _) if !matches!(operation.end, Some((_, End::Fail))) => old,
                _ => continue,
            };
            let before = writes.partition_point(|(end, _)| *end < operation.line);
            let latest = before.checked_sub(1).map_or(0, |last| writes[last].1);
            let line = superseded.entry(needed).or_insert(latest);
            *line = latest.min(*line);
        }
        Self { superseded }
    }

    /// Whether an order of the whole stays one without this operation: it changes nothing, or nobody sees what it leaves.
    fn may_go(&self, gone: &RegisterOperation) -> bool {
        let leaves = match &gone.call {
            RegisterCall::Read(_) => return true,
            RegisterCall::Write(value) | RegisterCall::Cas(_, value) => value,
        };
        match (gone.end, self.superseded.get(leaves)) {
            (Some((_, End::Fail)), _) | (_, None) => true,
            (Some((end, End::Ok)), Some(line)) => end < *line,
            (Some((_, End::Info)) | None, Some(_)) => false,
        }
    }
}

/// End and call of a write that happened.
fn write_that_happened(operation: &RegisterOperation) -> Option<(usize, usize)> {
    match (&operation.call, operation.end) {
        (RegisterCall::Write(_) | RegisterCall::Cas(..), Some((end, End::Ok))) => Some((end, operation.line)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::jepsen::read;

    fn judged(text: &str) -> Judged {
        judge(&read(text).unwrap())
    }

    #[test]
    fn a_failed_compare_and_set_did_not_happen_and_one_with_info_may_have() {
        let then = |end: &str, found: u8| {
            judged(&format!(
                "0 :invoke :write 1\n0 :ok :write 1\n1 :invoke :cas [1 2]\n1 {end} :cas [1 2]\n\
                 2 :invoke :read nil\n2 :ok :read {found}\n"
            ))
        };
        assert_eq!(then(":ok", 2), Judged::Ok);
        assert_eq!(then(":info", 1), Judged::Ok);
        assert_eq!(then(":info", 2), Judged::Ok);
        assert_eq!(then(":fail", 1), Judged::Ok);
        assert!(matches!(then(":fail", 2), Judged::Violated(_)));
        assert!(matches!(then(":ok", 1), Judged::Violated(_)));
        assert!(matches!(then(":info", 3), Judged::Violated(_)));
    }

    #[test]
    fn the_counter_example_holds_what_is_needed() {
        let mut text = String::new();
        for turn in 0..40 {
            let value = turn % 5;
            text +=
                &format!("0 :invoke :write {value}\n0 :ok :write {value}\n1 :invoke :read nil\n1 :ok :read {value}\n");
        }
        assert_eq!(judged(&text), Judged::Ok);
        text += "2 :invoke :read nil\n2 :ok :read 3\n0 :invoke :write 1\n0 :ok :write 1\n";
        let Judged::Violated(core) = judged(&text) else { panic!("the last read is stale") };
        let shown: Vec<_> = core.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            ["line 157: process 0 write 4 -> ok at line 158", "line 161: process 2 read -> ok 3 at line 162"]
        );
    }
}
