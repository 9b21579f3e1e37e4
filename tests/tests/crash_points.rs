//! A small slice of the crash points: `sim --crash-points` visits many more.

use kv_tests::sim::crash_points::{Effort, run};

#[test]
fn a_crash_at_any_step_of_a_disk_leaves_what_was_promised() {
    let summary = run(Effort { seed: 1, states: 1_200, clusters: 2 });
    println!("{summary}");
    assert_eq!(summary.failure, None);
    let looks = summary.looks;
    assert!(looks.checkpoints > 100 && looks.merges > 0 && looks.recycled > 5, "{looks:?}");
    assert!(looks.installs > 0 && looks.states_lost > 0, "{looks:?}");
    assert!(summary.first > 500 && summary.in_recovery > 100 && summary.same_block > 50 && summary.after_kill > 50);
    assert!(summary.compared > 10 * summary.not_seen);
}
