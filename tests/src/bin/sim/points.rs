//! `sim --points` and `sim --points-required`: which named points of the core the runs came to.

use clap::ValueEnum;
use kv_tests::sim::reach::{Reach, Required};

use crate::out::say;

/// Which points must have been reached.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Which {
    /// Those that each simulated day comes to.
    Day,
    /// All that runs come to.
    Runs,
}

/// Prints the table if it is asked for; false if a point is required and was never reached.
pub(crate) fn tell(reach: &Reach, table: bool, required: Option<Which>) -> bool {
    if table {
        say(reach);
    }
    let required = required.map(|which| match which {
        Which::Day => Required::Day,
        Which::Runs => Required::Runs,
    });
    let missing = required.map_or_else(Vec::new, |required| reach.missing(required));
    for point in &missing {
        say(format_args!("never reached: {}: {}", point.name(), point.sentence()));
    }
    missing.is_empty()
}
