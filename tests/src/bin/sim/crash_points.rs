//! `sim --crash-points`: crashes one machine of a recorded run at every step of its disk, and says how many states that was.

use std::process::ExitCode;

use kv_tests::sim::crash_points::{Effort, run};

use super::out::say;

/// Whole clusters go on after one in so many states.
const STATES_PER_CLUSTER: u64 = 20_000;

/// Visits about so many states for each of so many seeds of the story.
pub(crate) fn crash_everywhere(seed: u64, runs: u64, states: u64, keep_going: bool) -> ExitCode {
    let (mut failed, began) = (false, super::cpu_seconds());
    for seed in seed..seed.saturating_add(runs) {
        let before = super::cpu_seconds();
        let summary = run(Effort { seed, states, clusters: states.div_ceil(STATES_PER_CLUSTER) });
        let seconds = super::cpu_seconds() - before;
        say(format_args!(
            "story {seed}: {summary}\n{seconds:.1} s of CPU, {:.0} states a second",
            summary.states() as f64 / seconds
        ));
        if let Some(what) = summary.failure {
            failed = true;
            say(format_args!("story {seed}: FAILED\n  {}", shortened(&what)));
            say(format_args!(
                "  again: cargo run --release -p kv-tests --bin sim -- --crash-points --states {states} --seed {seed}"
            ));
            if !keep_going {
                break;
            }
        }
    }
    say(format_args!("{} failed; {:.2} s of CPU", u32::from(failed), super::cpu_seconds() - began));
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// What two logs say can be long.
fn shortened(what: &str) -> String {
    const MOST: usize = 4_000;
    let mut text: String = what.chars().take(MOST).collect();
    if text.len() < what.len() {
        text += " ...";
    }
    text
}
