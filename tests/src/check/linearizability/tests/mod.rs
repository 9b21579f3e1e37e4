//! The judge judged: histories known to be good and bad, and verdicts compared with those of a checker that tries everything.

mod brute;
mod generate;

use std::time::Instant;

use super::{STEPS_MAX, check, judge, search::Verdict, shrink};
use crate::history::History;
use generate::{Shape, linearizable, mutated};

fn violation(text: &str) -> String {
    let history: History = text.parse().expect("a history");
    check(&history).expect_err("a history without an order").what
}

fn assert_good(text: &str) {
    let history: History = text.parse().expect("a history");
    assert_eq!(check(&history), Ok(()));
}

#[test]
fn concurrent_operations_may_take_effect_in_any_order() {
    assert_good(
        "0 c1 1@1 put k a sync => 6@6 written 2\n\
         1 c2 2@2 put k b sync => 5@5 written 1\n\
         2 c3 3@3 get k linearizable => 4@4 read absent age:0\n\
         3 c3 7@7 get k linearizable => 8@8 read 2:a age:0\n",
    );
}

#[test]
fn an_unknown_write_may_take_effect_late_or_never() {
    assert_good(
        "0 c1 1@1 put k a sync => 2@2 failed Timeout Unknown\n\
         1 c2 3@3 get k linearizable => 4@4 read absent age:0\n\
         2 c2 5@5 get k linearizable => 6@6 read 9:a age:0\n\
         3 c1 7@7 delete k sync => never\n\
         4 c2 8@8 get k linearizable => 9@9 read 9:a age:0\n",
    );
}

#[test]
fn an_unknown_write_explains_a_presence_that_nobody_named() {
    assert_good(
        "0 c1 1@1 put k a sync => never\n\
         1 c2 3@3 get k linearizable => 4@4 read absent age:0\n\
         2 c2 5@5 put k b if=absent sync => 6@6 failed Conflict NotApplied current:3\n\
         3 c2 7@7 put k c if=rev:3 sync => 8@8 written 4\n",
    );
    // With no such write the conflict can't be.
    violation(
        "1 c2 3@3 get k linearizable => 4@4 read absent age:0\n\
         2 c2 5@5 put k b if=absent sync => 6@6 failed Conflict NotApplied current:3\n",
    );
}

#[test]
fn a_stale_read_is_allowed_its_age_and_no_more() {
    let history = |age: u64| {
        format!(
            "0 c1 1@100 put k a sync => 2@200 written 1\n\
             1 c1 3@300 put k b sync => 4@400 written 2\n\
             2 c2 5@900 get k stale => 6@950 read 1:a age:{age}\n"
        )
    };
    assert_good(&history(500));
    violation(&history(499));
}

#[test]
fn a_stale_linearizable_read_is_found() {
    let what = violation(
        "0 c1 1@1 put k a sync => 2@2 written 1\n\
         1 c1 3@3 put k b sync => 4@4 written 2\n\
         2 c3 5@5 get other linearizable => 6@6 read absent age:0\n\
         3 c2 7@7 get k linearizable => 8@8 read 1:a age:0\n",
    );
    assert!(what.starts_with("key k: no order explains these 3 of 3 operations:"), "{what}");
}

#[test]
fn a_read_that_goes_back_is_found() {
    violation(
        "0 c1 1@1 put k a sync => never\n\
         1 c2 2@2 get k linearizable => 3@3 read 5:a age:0\n\
         2 c2 4@4 get k linearizable => 5@5 read absent age:0\n",
    );
}

#[test]
fn a_lost_update_is_found() {
    // Both saw revision 1 and both were let through.
    violation(
        "0 c1 1@1 put k a sync => 2@2 written 1\n\
         1 c1 3@3 put k b if=rev:1 sync => 6@6 written 2\n\
         2 c2 4@4 put k c if=rev:1 sync => 5@5 written 3\n",
    );
    violation(
        "0 c1 1@1 put k a if=absent sync => 3@3 written 1\n\
         1 c2 2@2 put k b if=absent sync => 4@4 written 2\n",
    );
}

#[test]
fn a_value_that_comes_back_is_found() {
    violation(
        "0 c1 1@1 put k a sync => 2@2 written 1\n\
         1 c1 3@3 delete k sync => 4@4 written 2\n\
         2 c2 5@5 get k linearizable => 6@6 read 1:a age:0\n",
    );
}

#[test]
fn a_write_that_takes_effect_twice_is_found() {
    // After b had replaced a, a is there again: with a new revision, or with its own.
    for revision in [1, 3] {
        violation(&format!(
            "0 c1 1@1 put k a sync => never\n\
             1 c2 2@2 get k linearizable => 3@3 read 1:a age:0\n\
             2 c2 4@4 put k b sync => 5@5 written 2\n\
             3 c2 6@6 get k linearizable => 7@7 read {revision}:a age:0\n"
        ));
    }
}

#[test]
fn a_delete_that_takes_effect_twice_is_found() {
    violation(
        "0 c1 1@1 put k a sync => 2@2 written 1\n\
         1 c1 3@3 delete k sync => 4@4 written 2\n\
         2 c1 5@5 put k b sync => 6@6 written 3\n\
         3 c2 7@7 get k linearizable => 8@8 read absent age:0\n",
    );
}

#[test]
fn reads_of_failed_future_and_invented_writes_are_found() {
    let failed = violation(
        "0 c1 1@1 put k a sync => 2@2 failed Overloaded NotApplied\n\
         1 c2 3@3 get k linearizable => 4@4 read 1:a age:0\n",
    );
    assert!(failed.contains("took no effect"), "{failed}");
    violation(
        "0 c2 1@1 get k linearizable => 2@2 read 1:a age:0\n\
         1 c1 3@3 put k a sync => 4@4 written 1\n",
    );
    let invented = violation("0 c2 1@1 get k linearizable => 2@2 read 1:a age:0\n");
    assert!(invented.contains("never written"), "{invented}");
}

#[test]
fn revisions_that_go_back_or_are_shared_are_found() {
    violation(
        "0 c1 1@1 put k a sync => 2@2 written 5\n\
         1 c1 3@3 put k b sync => 4@4 written 4\n",
    );
    violation(
        "0 c1 1@1 put k a sync => 3@3 written 5\n\
         1 c2 2@2 put k b sync => 4@4 written 5\n",
    );
    violation(
        "0 c1 1@1 put k a sync => 2@2 written 5\n\
         1 c2 3@3 get k linearizable => 4@4 read 6:a age:0\n",
    );
}

#[test]
fn a_wrong_previous_entry_is_found() {
    violation(
        "0 c1 1@1 put k a sync => 2@2 written 1\n\
         1 c1 3@3 put k b previous sync => 4@4 written 2 absent\n",
    );
}

#[test]
fn accepted_writes_are_open_until_wait_durable_has_spoken() {
    let history = |told: &str| {
        format!(
            "0 c1 1@1 put k a async => 2@2 accepted 1/2/7\n\
             1 c1 3@3 wait_durable 1/2/7 => 4@4 {told}\n\
             2 c2 5@5 get k linearizable => 6@6 read absent age:0\n"
        )
    };
    assert_good(&history("lost"));
    assert_good(&history("unknown"));
    violation(&history("durable"));
    violation(
        "0 c1 1@1 put k a async => 2@2 accepted 1/2/7\n\
         1 c1 3@3 wait_durable 1/2/7 => 4@4 lost\n\
         2 c2 5@5 get k linearizable => 6@6 read 3:a age:0\n",
    );
}

#[test]
fn a_search_without_an_end_counts_as_a_violation() {
    let history: History = "0 c1 1@1 put k a sync => 2@2 written 5\n".parse().expect("a history");
    assert_eq!(judge(history.operations(), 1), Verdict::Undecided);
}

#[test]
fn random_histories_of_an_atomic_register_pass() {
    for seed in 0..300 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let shape = Shape { operations: 200, keys: 3, concurrency: 1 + seed % 12, open_percent: 10 };
        let history = linearizable(&mut rng, shape);
        assert_eq!(check(&history), Ok(()), "seed {seed}");
    }
}

#[test]
fn verdicts_equal_those_of_trying_everything() {
    let (mut good, mut bad) = (0, 0);
    for seed in 0..6_000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let shape = Shape { operations: 2 + seed % 6, keys: 1, concurrency: 1 + seed % 5, open_percent: 25 };
        let mut history = linearizable(&mut rng, shape);
        for _ in 0..rng.u8(0..3) {
            history = mutated(&mut rng, &history);
        }
        let expected = brute::has_order(history.operations());
        let verdict = judge(history.operations(), STEPS_MAX);
        assert_eq!(verdict == Verdict::Linearizable, expected, "seed {seed}: {verdict:?}\n{history}");
        if expected {
            good += 1;
        } else {
            bad += 1;
            let core = shrink::shrink(history.operations().to_vec());
            assert!(!brute::has_order(&core), "seed {seed}: shrunk to something possible\n{history}");
        }
    }
    assert!(good > 1_000 && bad > 1_000, "{good} good, {bad} bad: the comparison is one-sided");
}

#[test]
fn a_violation_in_a_long_history_is_shrunk_to_a_few_lines() {
    let mut rng = fastrand::Rng::with_seed(7);
    let shape = Shape { operations: 2_000, keys: 2, concurrency: 8, open_percent: 5 };
    let history = linearizable(&mut rng, shape);
    let mut lines = Vec::new();
    for _ in 0..20 {
        if let Err(violation) = check(&mutated(&mut rng, &history)) {
            lines.push(violation.what.lines().count());
        }
    }
    lines.sort_unstable();
    assert!(lines.len() >= 5, "only {} of 20 mutations did harm", lines.len());
    // Some violations hang on many operations; most must not.
    assert!(lines[lines.len() * 3 / 4] <= 6, "lines per violation: {lines:?}");
}

#[test]
fn a_hundred_thousand_operations_are_judged_in_few_steps() {
    let mut rng = fastrand::Rng::with_seed(1);
    let shape = Shape { operations: 100_000, keys: 100, concurrency: 10, open_percent: 3 };
    let history = linearizable(&mut rng, shape);
    let start = Instant::now();
    assert_eq!(check(&history), Ok(()));
    println!("judged {} operations in {:?}", history.operations().len(), start.elapsed());
    // Not a wall-clock bound, which a loaded machine would break: the search must hardly ever go back.
    for (key, operations) in super::by_key(&history) {
        let steps = 20 * operations.len() as u64 + 1_000;
        assert_eq!(judge(&operations, steps), Verdict::Linearizable, "key {key} needs more than {steps} steps");
    }
}
