//! Each promise is judged: a run that keeps it is good, one with a planted fault is not, and is shown by the operations that show it.

use super::*;
use crate::history::{
    History,
    run::{RunEvent, What},
};

fn run(history: &str) -> Run {
    Run { history: history.parse().unwrap(), ..Run::default() }
}

/// The promises that are broken, each with the numbers of the operations that show it.
fn broken(run: &Run) -> Vec<(Promise, Vec<u64>)> {
    let judged = judge(run);
    let shown = |violated: &Violated| violated.operations.iter().map(|operation| operation.id).collect();
    judged.violations().map(|(promise, violated)| (promise, shown(violated))).collect()
}

fn assert_broken(history: &str, promise: Promise, shown: &[u64]) {
    let found = broken(&run(history));
    assert!(
        found.contains(&(promise, shown.to_vec())),
        "{found:?}\n{}",
        text::report(&run(history), &judge(&run(history)))
    );
}

const GOOD: &str = "\
0 c1 1@0 put k a sync 1/1/1 => 2@900 written 1 1/2/5
1 c2 3@1000 put j b sync 1/2/1 => 6@1900 written 2 1/2/6
2 c1 4@1000 get k linearizable => 5@1500 read 1:a at:2 age:0
3 c1 7@2000 put k c async 1/1/2 => 8@2100 accepted 1/2/9
4 c3 9@5000 get k stale => 10@5100 read 1:a at:2 age:4000
5 c3 11@5000 get k bounded:500 => 12@5100 read 3:c at:3 age:400
6 c1 13@6000 wait_durable 1/2/9 => 14@6100 durable
7 c1 15@6200 delete j if=rev:2 sync 1/1/3 => 16@6900 written 4 1/2/11
8 c2 17@7000 put j d sync 1/2/2 => 18@9000 failed Timeout Unknown
9 c1 19@7100 get j linearizable => 20@7200 read absent at:4 age:0
";

#[test]
fn a_good_run_is_ok_and_every_promise_was_looked_at() {
    let mut run = run(&format!(
        "{GOOD}10 c9 31@9100 get k linearizable => 32@9200 read 3:c at:4 age:0\n\
                                11 c9 33@9100 get j linearizable => 34@9200 read 5:d at:5 age:0\n"
    ));
    run.events.push(RunEvent { from_micros: 9_050, until_micros: None, what: What::FinalReads { event: 30 } });
    let judged = judge(&run);
    assert_eq!(judged.verdict(), Verdict::Ok, "{}", text::report(&run, &judged));
    for finding in &judged.findings {
        let is_asked = matches!(finding.status, Status::Held(_));
        assert_eq!(is_asked, finding.promise != Promise::Values, "{finding:?}");
    }
    let report = text::report(&run, &judged);
    assert!(report.contains("verdict  ok: all 8 promises"), "{report}");
}

#[test]
fn answers_without_an_order_are_bad() {
    assert_broken(
        "0 c1 1@0 put k a sync => 4@900 written 1\n\
                   1 c2 2@0 put k b sync => 3@800 written 2\n\
                   2 c2 5@1000 put k c sync => 6@1100 written 3\n\
                   3 c2 7@1200 get k linearizable => 8@1300 read 2:b age:0\n",
        Promise::Order,
        &[1, 2, 3],
    );
    // A stale read of something that was gone for longer than it says.
    assert_broken(
        "0 c1 1@0 put k a sync => 2@100 written 1\n\
                   1 c1 3@200 put k b sync => 4@300 written 2\n\
                   2 c2 5@9000 get k stale => 6@9100 read 1:a age:500\n",
        Promise::Order,
        &[0, 1, 2],
    );
}

#[test]
fn revisions_over_keys_are_judged_where_tokens_tell_the_shard() {
    let history = |shard: u8| {
        format!(
            "0 c1 1@0 put k a sync => 2@100 written 7 1/2/5\n\
                 1 c1 3@200 put j b sync => 4@300 written 6 {shard}/2/6\n"
        )
    };
    assert_broken(&history(1), Promise::Revisions, &[0, 1]);
    assert_eq!(broken(&run(&history(2))), []);
    assert_broken(
        "0 c1 1@0 put k a sync => 3@100 written 7 1/2/5\n\
                   1 c2 2@0 put j b sync => 4@300 written 7 1/2/5\n",
        Promise::Revisions,
        &[0, 1],
    );
    assert_broken(
        "0 c1 1@0 put k a sync => 2@100 written 7 1/2/5\n\
                   1 c2 3@200 get k linearizable => 4@300 read 7:a at:6 age:0\n",
        Promise::Revisions,
        &[1],
    );
}

#[test]
fn a_key_that_goes_back_is_bad() {
    assert_broken(
        "0 c1 1@0 put k a sync => 2@100 written 1\n\
                   1 c1 3@200 put k b sync => 4@300 written 2\n\
                   2 c2 5@400 get k linearizable => 6@500 read 1:a age:0\n",
        Promise::Forward,
        &[1, 2],
    );
}

#[test]
fn a_write_that_takes_effect_twice_or_against_its_answer_is_bad() {
    assert_broken(
        "0 c1 1@0 put k a sync => 9@100 failed Timeout Unknown\n\
                   1 c2 2@0 get k linearizable => 3@10 read 1:a age:0\n\
                   2 c2 4@20 get k linearizable => 5@30 read 2:a age:0\n",
        Promise::Once,
        &[0, 1, 2],
    );
    assert_broken(
        "0 c1 1@0 put k a sync => 2@100 failed Overloaded NotApplied\n\
                   1 c2 3@200 get k stale => 4@300 read 1:a age:0\n",
        Promise::Once,
        &[0, 1],
    );
    assert_broken("0 c2 3@200 get k stale => 4@300 read 1:a age:0\n", Promise::Once, &[0]);
    assert_broken(
        "0 c1 1@0 put k a sync => 2@100 written 1\n\
                   1 c2 3@200 get j linearizable => 4@300 read 1:a age:0\n",
        Promise::Once,
        &[0, 1],
    );
    assert_broken(
        "0 c1 1@0 put k a async => 2@100 accepted 1/2/5\n\
                   1 c1 3@200 wait_durable 1/2/5 => 4@300 lost\n\
                   2 c2 5@400 get k stale => 6@500 read 1:a age:0\n",
        Promise::Once,
        &[0, 1, 2],
    );
    assert_broken(
        "0 c1 1@0 put k a sync 1/7/3 => 2@100 written 1\n\
                   1 c1 3@200 put k b sync 1/7/3 => 4@300 written 2\n",
        Promise::Once,
        &[0, 1],
    );
}

#[test]
fn a_workload_that_writes_a_value_twice_is_undecided() {
    let history =
        "0 c1 1@0 put k a sync => 2@100 failed Overloaded NotApplied\n1 c1 3@200 put j a sync => 4@300 written 1\n";
    assert_eq!(judge(&run(history)).verdict(), Verdict::Undecided);
}

#[test]
fn what_is_gone_in_the_end_is_bad() {
    let judged = |last: &str| {
        let mut run = run(&format!(
            "0 c1 1@0 put k a sync => 2@100 written 1\n\
                                    1 c1 3@200 put k b sync => 4@300 written 2\n{last}"
        ));
        run.events.push(RunEvent { from_micros: 400, until_micros: None, what: What::FinalReads { event: 5 } });
        run
    };
    let last = |found: &str| format!("2 c9 6@500 get k linearizable => 7@600 read {found} age:0\n");
    assert_eq!(broken(&judged(&last("2:b"))), []);
    for found in ["1:a", "absent"] {
        let broken = broken(&judged(&last(found)));
        assert!(broken.contains(&(Promise::Present, vec![1, 2])), "{broken:?}");
    }
    assert_eq!(judge(&judged("")).verdict(), Verdict::Undecided, "nobody looked");
    let deleted = "2 c1 5@320 delete k sync => never\n3 c9 6@500 get k linearizable => 7@600 read absent age:0\n";
    assert_eq!(broken(&judged(deleted)), []);
}

#[test]
fn an_async_loss_that_is_no_suffix_or_too_long_is_bad() {
    let accepted = "0 c1 1@0 put k a async => 2@100 accepted 1/2/5\n1 c1 3@200 put j b async => 4@300 accepted 1/2/6\n\
                    2 c1 5@400 wait_durable 1/2/5 => 6@500 lost\n";
    assert_eq!(broken(&run(accepted)), []);
    assert_broken(&format!("{accepted}3 c1 7@600 wait_durable 1/2/6 => 8@700 durable\n"), Promise::Suffix, &[2, 3]);
    assert_broken(&format!("{accepted}3 c1 7@600 get j stale => 8@700 read 3:b age:0\n"), Promise::Suffix, &[2, 3]);
    assert_broken(&format!("{accepted}3 c1 7@600 put i c sync => 8@700 written 9 1/2/7\n"), Promise::Suffix, &[2, 3]);
    assert_eq!(broken(&run(&format!("{accepted}3 c1 7@600 put i c sync => 8@700 written 9 1/3/7\n"))), []);
    let mut run = run(accepted);
    run.about.settings.async_commands_max = 1;
    assert_eq!(broken(&run), [(Promise::Suffix, vec![0, 1, 2])]);
}

#[test]
fn wait_durable_that_contradicts_itself_or_an_answer_is_bad() {
    let twice = "0 c1 1@0 put k a async => 2@100 accepted 1/2/5\n1 c1 3@200 wait_durable 1/2/5 => 4@300 durable\n\
                 2 c1 5@400 wait_durable 1/2/5 => 6@500 lost\n";
    assert_broken(twice, Promise::Durable, &[1, 2]);
    let written = "0 c1 1@0 put k a sync => 2@100 written 1 1/2/5\n1 c1 3@200 wait_durable 1/2/5 => 4@300 lost\n";
    assert_broken(written, Promise::Durable, &[0, 1]);
}

#[test]
fn a_read_that_is_older_than_it_says_or_than_was_asked_is_bad() {
    assert_broken("0 c1 1@0 get k bounded:500 => 2@100 read absent age:501\n", Promise::Age, &[0]);
    let of_another_key = |called_micros: u64| {
        run(&format!(
            "0 c1 1@0 put k a sync => 2@100 written 1 1/2/5\n1 c1 3@200 put j b sync => 4@300 written 2 1/2/6\n\
                      2 c2 5@{called_micros} get k stale => 6@9000 read 1:a at:1 age:500\n"
        ))
    };
    assert_eq!(broken(&of_another_key(1_700)), [], "500 us and the clock's rounding before");
    assert_eq!(broken(&of_another_key(1_900)), [(Promise::Age, vec![1, 2])]);
    let mut drifting = of_another_key(1_900);
    drifting.about.settings.clock_drift_ppm = 500_000;
    assert_eq!(broken(&drifting), []);
}

#[test]
fn lists_that_lose_or_double_and_counters_that_miscount_are_bad() {
    let judged = |workload: &str, history: &str| {
        let mut run = run(history);
        run.about.workload = workload.into();
        broken(&run)
            .into_iter()
            .filter(|(promise, _)| *promise == Promise::Values)
            .map(|(_, shown)| shown)
            .collect::<Vec<_>>()
    };
    let list = |last: &str| {
        format!(
            "0 c1 1@0 put k a sync => 2@100 written 1\n1 c1 3@200 put k a,b if=rev:1 sync => 4@300 written 2\n\
                 2 c2 5@400 get k linearizable => 6@500 read 9:{last} age:0\n"
        )
    };
    assert_eq!(judged("append", &list("a,b,c")), Vec::<Vec<u64>>::new());
    assert_eq!(judged("append", &list("a,c")), [[1, 2]]);
    assert_eq!(judged("append", &list("b,a,c")), [[1, 2]]);
    assert_eq!(judged("append", &list("a,b,a")), [[2]]);
    let counter = |last: &str| list(last).replace(" a ", " 1/a ").replace(" a,b ", " 2/b ");
    let third = "3 c3 7@600 put k 3/c sync => never\n";
    assert_eq!(judged("counter", &(counter("3/c") + third)), Vec::<Vec<u64>>::new());
    assert_eq!(judged("counter", &counter("3/c")), [[2]], "nobody can have counted so far");
    assert_eq!(judged("counter", &counter("1/c")), [[1, 2]]);
    assert_eq!(judged("counter", &counter("x")), [[2]]);
    assert_eq!(judged("counter", &counter("2/c").replace("2/b", "1/b")), [[0, 1]]);
}

#[test]
fn a_made_up_run_is_ok_and_with_one_answer_changed_it_is_not() {
    let shape = generate::Shape { operations: 4_000, clients: 16, keys: 10, unknown_percent: 5, seed: 7 };
    let good = generate::run(shape);
    let judged = judge(&good);
    assert_eq!(judged.verdict(), Verdict::Ok, "{}", text::report(&good, &judged));
    assert_eq!(good, generate::run(shape), "the same seed gives the same run");
    let mut operations = good.history.operations().to_vec();
    // A get late in the run is told what an early one of its key was told.
    let is_latest = |operation: &Operation| operation.to_string().contains(" linearizable => ");
    let late = operations
        .iter()
        .rposition(|operation| is_latest(operation) && operation.to_string().contains("read "))
        .unwrap();
    let early = operations
        .iter()
        .position(|early| early.call == operations[late].call && early.to_string().contains(":v"))
        .unwrap();
    let answer = operations[early].completed.clone().unwrap().1;
    operations[late].completed.as_mut().unwrap().1 = answer;
    let bad = Run { history: History::from_operations(operations), ..good };
    let judged = judge(&bad);
    let shown = judged.violations().find(|(promise, _)| *promise == Promise::Order).unwrap().1;
    assert!((2..=3).contains(&shown.operations.len()), "{}", text::report(&bad, &judged));
}

#[test]
fn a_search_that_explodes_is_given_up_and_is_no_pass() {
    // There is no order, and to see that all subsets of the writes of unknown outcome have to be tried.
    let mut history = "80 c1 1@0 put k u sync => never\n".to_owned();
    for i in 0..40 {
        history += &format!("{i} c{i} {}@0 put k v{i} if=rev:{} sync => never\n", i + 2, i + 20);
    }
    history +=
        "90 c90 90@5 put k w sync => 91@6 written 99\n91 c90 92@7 get k linearizable => 93@8 read absent age:0\n";
    let run = run(&history);
    let settings = &run.about.settings;
    let status = order::judge_within(run.history.operations(), &Index::of(&run.history), settings, 10_000);
    assert!(
        matches!(&status, Status::Undecided(why) if why.contains("41 of them writes of unknown outcome")),
        "{status:?}"
    );
    let judged = Judged { findings: vec![Finding { promise: Promise::Order, status }] };
    assert_eq!(judged.verdict(), Verdict::Undecided);
}
