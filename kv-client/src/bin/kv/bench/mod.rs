//! `bench`: a mix of puts and gets, with a fixed number outstanding or at a given rate, and what it cost.
//!
//! All callers run on one thread: what it uses is told beside what the servers use. *Caveat*: a closed loop asks a slow
//! cluster less, so its latencies leave out what would have had to wait; `--rate` counts that.

pub(crate) mod options;
mod progress;
mod report;
mod usage;

use std::time::{Duration, Instant};

use kv_client::{
    Durability,
    load::{self, Kv, Load, Window},
};

pub(crate) use options::Options;

use crate::{args::Common, connect, exit::Exit, output::Output};
use progress::{LOOK_EVERY, Progress};
use usage::{Reading, Usage};

/// One measurement.
#[derive(Debug)]
struct Measured {
    window: Window,
    usage: Usage,
}

/// Runs the benchmark and reports; an interrupt ends it early, with a report of what was seen.
pub(crate) async fn run(common: &Common, options: Options, output: &Output) -> Result<(), Exit> {
    let plan = options.plan();
    plan.keys.check().map_err(Exit::Usage)?;
    let targets = targets(common, &options).await?;
    if options.fill {
        let filled = load::fill(&targets, &plan).await;
        filled.map_err(|name| Exit::Failure(format!("the keys could not all be written: {name}")))?;
    }
    let before = Reading::take(&targets[0].client).await?;
    let load = Load::start(targets.clone(), plan).map_err(Exit::Usage)?;
    let (measured, last) = match options.count {
        Some(count) => count_out(&targets[0], load, before, count).await?,
        None => repeat(&targets[0], load, &options).await?,
    };
    report::write(&options, common, &measured, &last.status, output)
}

/// One for each connection.
async fn targets(common: &Common, options: &Options) -> Result<Vec<Kv>, Exit> {
    let mut targets = Vec::new();
    for _ in 0..options.connections {
        let durability = options.is_async.then_some(Durability::Async);
        targets.push(Kv { client: connect(common).await?, consistency: options.consistency, durability });
    }
    Ok(targets)
}

/// One measurement of all operations of the plan.
async fn count_out(target: &Kv, mut load: Load, before: Reading, count: u64) -> Result<(Vec<Measured>, Reading), Exit> {
    let progress = Progress::of_operations(count);
    progress.phase("measuring".to_owned());
    let began = load.begin();
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        tokio::select! {
            () = load.until_counted() => break,
            _interrupted = &mut interrupt => break,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        progress.show(began.elapsed(), &load);
    }
    let window = load.end(began);
    load.stop().await;
    progress.clear();
    let after = Reading::take(&target.client).await?;
    Ok((vec![Measured { window, usage: Usage::between(&before, &after) }], after))
}

/// Measurements one after another, under the same load.
async fn repeat(target: &Kv, load: Load, options: &Options) -> Result<(Vec<Measured>, Reading), Exit> {
    let warming = Progress::of_time(options.warm_up);
    warming.phase("warming up".to_owned());
    let mut goes_on = watch(&load, options.warm_up, &warming).await.1;
    warming.clear();
    if !goes_on {
        return Err(Exit::Failure("interrupted before anything was measured".to_owned()));
    }
    let mut before = Reading::take(&target.client).await?;
    let mut measured = Vec::new();
    let progress = Progress::of_time(options.duration);
    for number in 1..=options.repeat {
        progress.phase(format!("measuring {number}/{}", options.repeat));
        let (window, uninterrupted) = watch(&load, options.duration, &progress).await;
        let after = Reading::take(&target.client).await?;
        measured.push(Measured { window, usage: Usage::between(&before, &after) });
        before = after;
        goes_on &= uninterrupted;
        if !goes_on {
            break;
        }
    }
    progress.clear();
    load.stop().await;
    Ok((measured, before))
}

/// A window, and whether it was not interrupted.
async fn watch(load: &Load, length: Duration, progress: &Progress) -> (Window, bool) {
    let began = load.begin();
    let until = began + length;
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    while Instant::now() < until {
        tokio::select! {
            _interrupted = &mut interrupt => return (load.end(began), false),
            () = tokio::time::sleep(LOOK_EVERY.min(until.saturating_duration_since(Instant::now()))) => {}
        }
        progress.show(began.elapsed(), load);
    }
    (load.end(began), true)
}
