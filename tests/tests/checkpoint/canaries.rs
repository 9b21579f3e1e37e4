//! The bugs planted in how checkpoints are written are found by the crashes of this directory.

use std::panic;

use kv_core::mutants;

use crate::{crashes, states};

#[test]
fn every_planted_bug_is_found() {
    let finders: [(&str, fn()); 4] = [
        ("B13", crashes::a_checkpoint_that_is_durable_outlives_a_crash_at_any_step_after_it),
        ("B14", crashes::a_checkpoint_that_is_durable_outlives_a_crash_at_any_step_after_it),
        ("B19", states::a_state_that_is_loaded_again_and_again_ends_as_one_that_never_was),
        ("B24", states::a_state_that_is_loaded_again_and_again_ends_as_one_that_never_was),
    ];
    for (bug, finder) in finders {
        mutants::switch_on(bug);
        let found = panic::catch_unwind(finder).is_err();
        mutants::switch_all_off();
        assert!(found, "{bug} was not found");
    }
}
