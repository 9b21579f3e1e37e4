//! Every bug planted in the log is found by the tests of this directory.

use std::panic;

use kv_core::mutants;

use crate::model;

/// Seeds tried for each bug; a bug that they don't find is a hole in the tests.
const SEEDS: u64 = 400;

#[test]
fn every_planted_bug_is_found() {
    for bug in ["B9", "B12", "B16", "B18"] {
        mutants::switch_on(bug);
        let found = (0..SEEDS).find(|seed| panic::catch_unwind(|| model::run(*seed)).is_err());
        mutants::switch_all_off();
        println!("{bug}: found by seed {found:?}");
        assert!(found.is_some(), "{bug} was not found");
    }
    (0..20).for_each(model::run);
}

#[test]
fn damage_taken_for_a_torn_end_is_found() {
    for bug in ["B15", "B17"] {
        mutants::switch_on(bug);
        let found = panic::catch_unwind(crate::damage::every_flipped_bit_is_harmless_or_refused).is_err()
            || panic::catch_unwind(crate::damage::zeros_in_the_midst_of_the_log_are_refused).is_err();
        mutants::switch_all_off();
        assert!(found, "{bug} was not found");
    }
}
