//! The verdict on a saved run: every promise that clients can hold the store to, judged from what they were told.
//!
//! The judges of [`crate::check`] look into the nodes of a simulation. Here there is a history and nothing else, made by real
//! processes or by somebody else's store; so a verdict of "held" says that *these* answers can be explained, not that no fault is
//! there. [`judge`] gives a [`Finding`] for each [`Promise`]:
//!
//! | Promise | File |
//! |---|---|
//! | One order explains the answers of each key | [`order`] |
//! | Revisions grow, and stand for one entry each | [`revisions`] |
//! | A key never goes back for readers who ask for the latest | [`revisions`] |
//! | A write takes effect at most once, and not at all if it was refused | [`once`] |
//! | What was acknowledged is there in the end | [`present`] |
//! | Of async writes only a suffix of what a leader acknowledged is lost, within the bound | [`durable`] |
//! | `wait_durable` tells the truth | [`durable`] |
//! | A read is no older than it says, and than was asked | [`age`] |
//! | A list loses and doubles nothing, a counter counts | [`values`] |
//!
//! Other people's histories of one register are judged by [`register`].
//!
//! A promise that is broken is shown by the smallest set of operations that shows it. A search that is given up is *undecided*,
//! and an undecided run has not passed; neither has one in which nobody was told anything. Judging a million operations takes a
//! few seconds.

pub mod age;
pub mod durable;
pub mod generate;
pub mod once;
pub mod order;
pub mod present;
pub mod register;
pub mod revisions;
pub mod text;
pub mod values;
pub mod words;

use crate::history::{Name, Operation, index::Index, run::Run};

/// What came of judging a run.
#[derive(Clone, Debug)]
pub struct Judged {
    /// One for each promise, in the order of the table.
    pub findings: Vec<Finding>,
}

/// A promise and whether it was held.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Which promise.
    pub promise: Promise,
    /// What came of it.
    pub status: Status,
}

/// What the store promises, in words that a caller would use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// Linearizability of each key.
    Order,
    /// Revisions grow.
    Revisions,
    /// Reads don't go back.
    Forward,
    /// At most once.
    Once,
    /// Nothing acknowledged is lost.
    Present,
    /// Only a bounded suffix of async writes is lost.
    Suffix,
    /// `wait_durable`.
    Durable,
    /// Age of reads that may be old.
    Age,
    /// Lists and counters.
    Values,
}

/// What came of judging a promise.
#[derive(Clone, Debug)]
pub enum Status {
    /// It was held, and this was looked at.
    Held(String),
    /// Nothing in the history asks for it, for this reason.
    NotAsked(&'static str),
    /// It can't be told, for this reason.
    Undecided(String),
    /// It was broken.
    Violated(Violated),
}

/// How a promise was broken.
#[derive(Clone, Debug)]
pub struct Violated {
    /// Why this can't be, in words.
    pub why: String,
    /// The key that it is about.
    pub key: Option<Name>,
    /// The operations that show it, in the order of their calls: none of them can be left out.
    pub operations: Vec<Operation>,
    /// Among how many they were.
    pub among: usize,
}

/// The verdict on the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No promise was broken, none is undecided, and something was judged.
    Ok,
    /// A promise was broken.
    Violated,
    /// No promise is known to be broken, and of some it can't be told; or there is nothing to tell it from.
    Undecided,
}

/// Judges a run by all promises.
#[must_use]
pub fn judge(run: &Run) -> Judged {
    judge_by(run, &Index::of(&run.history))
}

/// The same with an index that may know more of where keys lie than the answers tell: then what is promised of a shard is judged over
/// all of its keys.
#[must_use]
pub fn judge_by(run: &Run, index: &Index) -> Judged {
    let operations = run.history.operations();
    let (revisions, forward) = revisions::judge(operations, index);
    let settings = &run.about.settings;
    let (suffix, durable) = durable::judge(operations, settings);
    let (order, once, suffix) = match once::Puts::of(operations) {
        Ok(puts) => (order::judge(operations, index, settings), once::judge(operations, puts), suffix),
        // What goes by who wrote a value can't be judged then.
        Err(why) => {
            let undecided = || Status::Undecided(why.clone());
            let suffix = if matches!(suffix, Status::Violated(_)) { undecided() } else { suffix };
            (undecided(), undecided(), suffix)
        }
    };
    let findings = [
        (Promise::Order, order),
        (Promise::Revisions, revisions),
        (Promise::Forward, forward),
        (Promise::Once, once),
        (Promise::Present, present::judge(operations, index, run.final_reads_from())),
        (Promise::Suffix, suffix),
        (Promise::Durable, durable),
        (Promise::Age, age::judge(operations, index, settings)),
        (Promise::Values, values::judge(operations, index, &run.about.workload)),
    ];
    Judged { findings: findings.map(|(promise, status)| Finding { promise, status }).to_vec() }
}

impl Judged {
    /// The verdict on the whole.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let any = |is: fn(&Status) -> bool| self.findings.iter().any(|finding| is(&finding.status));
        if any(|status| matches!(status, Status::Violated(_))) {
            Verdict::Violated
        } else if any(|status| matches!(status, Status::Undecided(_)))
            || !any(|status| matches!(status, Status::Held(_)))
        {
            Verdict::Undecided
        } else {
            Verdict::Ok
        }
    }

    /// What was broken, if anything.
    pub fn violations(&self) -> impl Iterator<Item = (Promise, &Violated)> {
        self.findings.iter().filter_map(|finding| match &finding.status {
            Status::Violated(violated) => Some((finding.promise, violated)),
            _ => None,
        })
    }
}

impl Promise {
    /// The promise in words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Order => "each key behaves like one copy: some order of its operations explains every answer",
            Self::Revisions => "revisions grow with every change of a shard, and stand for one entry each",
            Self::Forward => "who asks for the latest never sees a key go back",
            Self::Once => "a write takes effect at most once, and not at all if it was refused",
            Self::Present => "what was acknowledged is there in the end",
            Self::Suffix => "of async writes only the last of what a leader acknowledged are lost, within the bound",
            Self::Durable => "wait_durable tells the truth",
            Self::Age => "a read that may be old is no older than it says, and than was asked",
            Self::Values => "lists lose and double nothing, counters count each increment once",
        }
    }
}

impl Status {
    /// A violation by these operations, brought into the order of their calls.
    #[must_use]
    pub fn violated(why: String, operations: &[&Operation], among: usize) -> Self {
        let mut operations: Vec<_> = operations.iter().map(|operation| (*operation).clone()).collect();
        operations.sort_by_key(|operation| operation.invoked);
        operations.dedup_by_key(|operation| operation.id);
        let key = operations.iter().find_map(|operation| operation.call.key().cloned());
        Self::Violated(Violated { why, key, operations, among })
    }
}

#[cfg(test)]
mod anomalies;
#[cfg(test)]
mod tests;
