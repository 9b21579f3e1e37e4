//! Planted bugs: the mutant build (`--cfg kv_mutants`) can switch one on, and the simulator must find it.
//!
//! A check that has never failed proves nothing. Each bug is one that another store really had; `mutant!("B12")` marks the
//! spot, and in a normal build is the constant `false`, so that nothing of it is left in what is shipped. Bugs are switched
//! on for the calling thread only: a simulation runs on one thread, and tests beside each other don't disturb each other.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
};

thread_local! {
    static ON: RefCell<BTreeSet<String>> = const { RefCell::new(BTreeSet::new()) };
    static NOW_MICROS: Cell<u64> = const { Cell::new(0) };
    static DRAWN: Cell<u32> = const { Cell::new(0) };
}

/// A turn of a node begins: what a bug that looks at the clock sees.
pub fn set_clock(now_micros: u64) {
    NOW_MICROS.set(now_micros);
}

/// The clock of the node whose turn it is.
#[must_use]
pub fn clock_micros() -> u64 {
    NOW_MICROS.get()
}

/// A number that is another each time, for a bug that draws one where it must not.
#[must_use]
pub fn draw() -> u32 {
    DRAWN.set(DRAWN.get().wrapping_add(1));
    DRAWN.get()
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
    DRAWN.set(0);
}
