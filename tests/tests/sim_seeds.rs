//! Seeds that are run at each change: a few of every kind, and all that have ever found something (the files in `seeds`).
//!
//! A kept seed is a whole plan with a sentence that says what it found (`sim --save` writes one), so that it keeps its meaning
//! when plans come to be drawn differently. Its run changes with the code all the same: what it found must be proven by a test of
//! its own too, where that can be.
//!
//! And that the simulator is what it has to be: the same seed does the same, byte for byte.

use std::{
    cell::RefCell,
    io::{self, Write},
    path::Path,
    rc::Rc,
};

use kv_tests::sim::{
    plan::{Options, Plan},
    run,
    trace::Trace,
};

/// Seeds of no particular merit.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=12;

fn holds(plan: Plan, again: &str) {
    let (report, _) = run(plan, Trace::new(None));
    if let Some(violation) = report.failure {
        panic!("{violation}\nagain: cargo run --release -p kv-tests --bin sim -- {again} --trace");
    }
}

#[test]
fn fixed_seeds_hold() {
    SEEDS.for_each(|seed| holds(Plan::draw(seed, Options::default()), &format!("--seed {seed}")));
}

#[test]
fn seeds_that_once_found_something_hold() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    let mut paths: Vec<_> = directory.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() > 10, "only {paths:?} are kept");
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# "), "{}: the first line says why it is kept", path.display());
        let plan = Plan::from_text(&text).unwrap_or_else(|reason| panic!("{}: {reason}", path.display()));
        holds(plan, &format!("--plan {}", path.display()));
    }
}

/// A buffer that the test still holds when the trace is gone.
#[derive(Clone, Default)]
struct Shared(Rc<RefCell<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_seed_does_the_same_each_time_byte_for_byte() {
    for seed in [1, 5, 9] {
        let once = || {
            let text = Shared::default();
            let options = Options { sim_secs: Some(20), ..Options::default() };
            let (report, history) = run(Plan::draw(seed, options), Trace::new(Some(Box::new(text.clone()))));
            let text = text.0.take();
            (report.trace_hash, history.to_string(), text)
        };
        let (first, second) = (once(), once());
        assert!(first.2.len() > 10_000, "seed {seed} told next to nothing");
        assert_eq!(first.0, second.0, "seed {seed}");
        assert!(first.1 == second.1, "the history of seed {seed} differs");
        assert!(first.2 == second.2, "the trace of seed {seed} differs");
        let options = Options { sim_secs: Some(20), ..Options::default() };
        let (untold, _) = run(Plan::draw(seed, options), Trace::new(None));
        assert_eq!(first.0, untold.trace_hash, "telling seed {seed} changed it");
    }
}
