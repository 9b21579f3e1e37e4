//! Planted bugs: the mutant build (`--cfg kv_mutants`) can switch one on, and the simulator must find it.
//!
//! A check that has never failed proves nothing. Each bug is one that another store really had; `mutant!("B12")` marks the
//! spot, and in a normal build is the constant `false`, so that nothing of it is left in what is shipped. Bugs are switched
//! on for the calling thread only: a simulation runs on one thread, and tests beside each other don't disturb each other.

use std::{cell::RefCell, collections::BTreeSet};

thread_local! {
    static ON: RefCell<BTreeSet<String>> = const { RefCell::new(BTreeSet::new()) };
}

/// Whether a bug is switched on in this thread.
#[must_use]
pub fn on(bug: &str) -> bool {
    ON.with_borrow(|on| !on.is_empty() && on.contains(bug))
}

/// Switches a bug on in this thread.
pub fn switch_on(bug: &str) {
    ON.with_borrow_mut(|on| on.insert(bug.to_owned()));
}

/// Switches all bugs of this thread off.
pub fn switch_all_off() {
    ON.with_borrow_mut(BTreeSet::clear);
}
