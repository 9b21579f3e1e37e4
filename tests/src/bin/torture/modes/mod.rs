//! What is done to the cluster.

pub(crate) mod damage;
pub(crate) mod kill;
pub(crate) mod power;

use std::time::Duration;

use kv_tests::processes::Layout;

/// The deadline of every call. A passed deadline is no violation, but it is counted.
const DEADLINE: Duration = Duration::from_secs(10);

fn describe(mode: &str, layout: &Layout, load: crate::load::Shape) {
    println!(
        "torture {mode}: 3 processes, {}; {} tasks write and {} read, each call has {} s",
        layout.describe(),
        load.writers,
        load.readers,
        DEADLINE.as_secs()
    );
}
