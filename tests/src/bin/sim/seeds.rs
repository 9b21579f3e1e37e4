//! Runs seeds one after the other, or on several threads at once; what is told comes in the order of the seeds either way.

use std::{
    collections::BTreeMap,
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
};

use kv_tests::{
    history::History,
    sim::{plan::Plan, report::Report, run, trace::Trace},
};

/// A run that is over.
pub(crate) struct Ended {
    pub(crate) report: Report,
    pub(crate) history: History,
    /// CPU seconds that it took.
    pub(crate) seconds: f64,
}

/// Finished runs that wait for an earlier one to be told.
const ENDED_WAITING_MAX: usize = 16;

/// Runs what `plans` makes of the numbers from 0 on, until it makes nothing or `take` (called in their order) says false.
/// With one job all happens on this thread, with the trace that `trace` makes; else without traces.
pub(crate) fn run_each(
    jobs: usize,
    plans: impl Fn(u64) -> Option<Plan> + Sync,
    trace: impl Fn() -> Trace,
    begin: impl Fn() + Sync,
    mut take: impl FnMut(Ended) -> bool,
) {
    if jobs <= 1 {
        begin();
        (0..).map_while(&plans).all(|plan| take(run_one(plan, trace())));
        return;
    }
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let (tell, ended) = mpsc::sync_channel(ENDED_WAITING_MAX);
        for _ in 0..jobs {
            let (tell, next, stop, plans, begin) = (tell.clone(), &next, &stop, &plans, &begin);
            scope.spawn(move || {
                begin();
                while !stop.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(plan) = plans(number) else { return };
                    if tell.send((number, run_one(plan, Trace::new(None)))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(tell);
        let (mut waiting, mut turn) = (BTreeMap::new(), 0);
        for (number, run) in ended {
            waiting.insert(number, run);
            while let Some(run) = waiting.remove(&turn) {
                turn += 1;
                if !take(run) {
                    stop.store(true, Ordering::Relaxed);
                    return;
                }
            }
        }
    });
}

/// Runs a plan on this thread.
pub(crate) fn run_one(plan: Plan, trace: Trace) -> Ended {
    let before = thread_seconds();
    let (report, history) = run(plan, trace);
    Ended { report, history, seconds: thread_seconds() - before }
}

/// CPU time that this process has used, in seconds.
pub(crate) fn cpu_seconds() -> f64 {
    seconds(rustix::time::ClockId::ProcessCPUTime)
}

fn thread_seconds() -> f64 {
    seconds(rustix::time::ClockId::ThreadCPUTime)
}

fn seconds(clock: rustix::time::ClockId) -> f64 {
    let used = rustix::time::clock_gettime(clock);
    used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
}
