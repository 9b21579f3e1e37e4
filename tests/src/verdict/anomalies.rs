//! The anomalies that stores are known for, each as a small history that some promise must refuse; and beside them histories that look
//! alike and are legal.
//!
//! What a single judge looks at in detail is tested in `tests`; here it only counts that something is seen, and by whom.

use super::*;
use crate::history::{
    History,
    run::{RunEvent, What},
};

fn run(history: &str) -> Run {
    Run { history: history.parse().unwrap(), ..Run::default() }
}

#[track_caller]
fn assert_bad(promise: Promise, history: &str) {
    let run = run(history);
    let judged = judge(&run);
    assert!(judged.violations().any(|(broken, _)| broken == promise), "{}", text::report(&run, &judged));
}

#[track_caller]
fn assert_good(history: &str) {
    let run = run(history);
    let judged = judge(&run);
    assert_eq!(judged.verdict(), Verdict::Ok, "{}", text::report(&run, &judged));
}

/// Two puts of one key, one after the other.
const TWO_PUTS: &str = "0 c1 1@0 put k a sync => 2@100 written 1\n1 c1 3@200 put k b sync => 4@300 written 2\n";

fn after_two_puts(then: &str) -> String {
    format!("{TWO_PUTS}2 c2 5@400 {then}\n")
}

#[test]
fn stale_reads_and_reads_from_the_future() {
    for promise in [Promise::Order, Promise::Forward] {
        assert_bad(promise, &after_two_puts("get k linearizable => 6@500 read 1:a age:0"));
    }
    assert_bad(Promise::Order, &after_two_puts("get k linearizable => 6@500 read absent age:0"));
    assert_bad(
        Promise::Order,
        "0 c1 1@0 get k stale => 2@9 read 1:a age:9\n1 c1 3@200 put k a sync => 4@300 written 1\n",
    );
    assert_good(&after_two_puts("get k linearizable => 6@500 read 2:b age:0"));
    assert_good(&after_two_puts("get k stale => 6@500 read 1:a age:400"));
    // Who asks for no more may well see the older of two states later.
    assert_good(&format!(
        "{}3 c2 7@500 get k stale => 8@600 read 1:a age:500\n",
        after_two_puts("get k stale => 6@500 read 2:b age:10")
    ));
    assert_good(&after_two_puts("get k linearizable => never"));
}

#[test]
fn lost_updates_and_conditions_that_were_not_met() {
    for wrong in ["put k c if=rev:1 sync", "put k c if=absent sync", "delete k if=rev:1 sync", "put k c if=rev:9 sync"]
    {
        assert_bad(Promise::Order, &after_two_puts(&format!("{wrong} => 6@500 written 3")));
        assert_good(&after_two_puts(&format!("{wrong} => 6@500 failed Conflict NotApplied current:2")));
    }
    for refused in [
        "put k c if=rev:2 sync => 6@500 failed Conflict NotApplied current:2",
        "put k c if=rev:3 sync => 6@500 failed Conflict NotApplied current:1",
        "put k c if=rev:3 sync => 6@500 failed Conflict NotApplied current:0",
    ] {
        assert_bad(Promise::Order, &after_two_puts(refused));
    }
}

#[test]
fn what_a_write_is_told_of_the_entry_before_and_of_its_own_revision() {
    for wrong in ["written 3 absent", "written 3 entry:1:a", "written 2 entry:2:b", "written 0", "written 1"] {
        assert_bad(Promise::Order, &after_two_puts(&format!("put k c previous sync => 6@500 {wrong}")));
    }
    for wrong in ["written 0 entry:2:b", "written 0", "written 3 absent", "written 2", "written 1"] {
        assert_bad(Promise::Order, &after_two_puts(&format!("delete k previous sync => 6@500 {wrong}")));
    }
    assert_good(&after_two_puts("put k c previous sync => 6@500 written 7 entry:2:b"));
    assert_good(&after_two_puts("delete k previous sync => 6@500 written 7 entry:2:b"));
    // What is deleted is not there, so that there is nothing to change.
    let absent = "0 c1 1@0 get k linearizable => 2@100 read absent age:0\n1 c1 3@200 delete k sync => 4@300 written";
    assert_bad(Promise::Order, &format!("{absent} 3\n"));
    assert_good(&format!("{absent} 0\n"));
}

#[test]
fn writes_without_effect_that_have_one() {
    let refused = "failed Overloaded NotApplied";
    assert_bad(
        Promise::Order,
        &format!(
            "{}3 c2 7@600 get k linearizable => 8@700 read absent age:0\n",
            after_two_puts(&format!("delete k sync => 6@500 {refused}"))
        ),
    );
    for promise in [Promise::Order, Promise::Once] {
        assert_bad(
            promise,
            &format!(
                "{}3 c2 7@600 get k linearizable => 8@700 read 3:c age:0\n",
                after_two_puts(&format!("put k c sync => 6@500 {refused}"))
            ),
        );
    }
    assert_good(&format!(
        "{}3 c2 7@600 get k linearizable => 8@700 read 2:b age:0\n",
        after_two_puts(&format!("delete k sync => 6@500 {refused}"))
    ));
}

#[test]
fn writes_of_unknown_outcome_take_effect_late_and_not_twice() {
    let late = |unknown: &str, found: [&str; 3]| {
        let mut history =
            format!("0 c1 1@0 {unknown} => 2@90 failed Timeout Unknown\n1 c1 3@200 put k b sync => 4@300 written 5\n");
        for (read, found) in found.iter().enumerate() {
            let event = 5 + 2 * read;
            history +=
                &format!("{} c2 {event}@400 get k linearizable => {}@500 read {found} age:0\n", read + 2, event + 1);
        }
        history
    };
    assert_good(&late("put k a sync", ["5:b", "7:a", "7:a"]));
    assert_good(&late("put k a sync", ["5:b", "5:b", "5:b"]));
    assert_good(&late("delete k sync", ["5:b", "absent", "absent"]));
    for promise in [Promise::Order, Promise::Forward] {
        assert_bad(promise, &late("put k a sync", ["5:b", "7:a", "5:b"]));
    }
    assert_bad(Promise::Once, &late("put k a sync", ["4:a", "5:b", "7:a"]));
    // Deleted before the put, seen by a fourth read, and again after it.
    let first = "0 c0 1@0 put k o sync => 2@9 written 1\n1 c1 3@10 delete k sync => 4@90 failed Timeout Unknown\n\
                 2 c0 5@100 get k linearizable => 6@110 read absent age:0\n3 c1 7@200 put k b sync => 8@300 written 5\n";
    assert_good(&format!("{first}4 c0 9@400 get k linearizable => 10@410 read 5:b age:0\n"));
    assert_bad(Promise::Order, &format!("{first}4 c0 9@400 get k linearizable => 10@410 read absent age:0\n"));
}

/// An async write of one key at index 5 of term 2.
const EARLY: &str = "0 c1 1@0 put k a async => 2@100 accepted 1/2/5\n";

#[test]
fn an_early_write_is_kept_with_all_that_its_leader_acknowledged_before_what_is_kept() {
    let read = |event: u64, found: &str| {
        format!("9 c2 {event}@900 get k linearizable => {}@990 read {found} age:0\n", event + 1)
    };
    // Another key's write stands further on in the same leader's log, and is done: nobody has to ask what became of the first.
    for kept in [
        "1 c1 3@200 put j b sync => 4@300 written 2 1/2/6\n",
        "1 c1 3@200 put j b async => 4@300 accepted 1/2/6\n2 c1 5@310 wait_durable 1/2/6 => 6@320 durable\n",
        "1 c1 3@200 put j b async => 4@300 accepted 1/2/6\n2 c1 5@310 get j stale => 6@320 read 2:b age:0\n",
        "1 c1 3@200 wait_durable 1/2/5 => 4@300 durable\n",
    ] {
        assert_bad(Promise::Order, &format!("{EARLY}{kept}{}", read(10, "absent")));
        assert_good(&format!("{EARLY}{kept}{}", read(10, "1:a")));
        // Its effect may come between the read and what tells of it.
        assert_good(&format!(
            "{EARLY}3 c2 3@100 get k linearizable => 13@990 read absent age:0\n{}",
            kept.replace("c1 3@", "c1 14@1")
                .replace("=> 4@", "=> 15@1")
                .replace("c1 5@", "c1 16@1")
                .replace("=> 6@", "=> 17@1")
        ));
    }
    // What another leader did, or what it did before, says nothing.
    for other in ["written 2 1/3/6", "written 2 1/2/4", "written 2 2/2/6"] {
        assert_good(&format!("{EARLY}1 c1 3@200 put j b sync => 4@300 {other}\n{}", read(10, "absent")));
    }
    // The operations that show it: the early write, what was kept after it, and who looked in vain.
    let lost = run(&format!("{EARLY}1 c1 3@200 put j b sync => 4@300 written 2 1/2/6\n{}", read(10, "absent")));
    let judged = judge(&lost);
    let shown: Vec<_> =
        judged.violations().flat_map(|(_, violated)| &violated.operations).map(|shown| shown.id).collect();
    assert_eq!(shown, [0, 1, 9], "{}", text::report(&lost, &judged));
    assert!(judged.violations().all(|(_, violated)| violated.why.contains("what a leader acknowledged is kept")));
}

#[test]
fn what_was_called_lost_and_had_an_effect() {
    assert_bad(
        Promise::Order,
        "0 c1 1@0 put k a sync => 2@100 written 1 1/2/4\n1 c1 3@200 delete k async => 4@300 accepted 1/2/5\n\
         2 c1 5@310 wait_durable 1/2/5 => 6@320 lost\n3 c1 7@330 get k linearizable => 8@340 read absent age:0\n",
    );
}

#[test]
fn a_shard_has_one_log() {
    let two = |one: &str, other: &str| {
        format!("0 c1 1@0 put k a sync => 2@100 written 1 {one}\n1 c1 3@200 put j b sync => 4@300 written 2 {other}\n")
    };
    assert_bad(Promise::Suffix, &two("1/2/6", "1/3/6"));
    assert_bad(Promise::Suffix, &two("1/3/5", "1/2/6"));
    assert_bad(Promise::Suffix, &two("1/2/6", "1/3/5"));
    // Many writes go into one entry.
    assert_good(&two("1/2/6", "1/2/6"));
    assert_good(&two("1/2/6", "1/3/7"));
    assert_good(&two("1/2/6", "2/1/6"));
}

#[test]
fn a_revision_that_a_condition_met_is_one_of_its_key() {
    // Revision 2 is another key's in the same shard; that the order of `k` alone would allow it is no excuse.
    let met = |what: &str| {
        format!(
            "0 c1 1@0 put k a sync 1/1/1 => 2@100 written 1 1/2/5\n1 c1 3@200 put j b sync => 4@300 written 2 1/2/6\n\
                 2 c2 5@400 put k c sync => never\n3 c2 6@400 put k d if=rev:{what}\n"
        )
    };
    assert_bad(Promise::Revisions, &met("9 sync => 7@500 failed Conflict NotApplied current:2"));
    assert_bad(Promise::Revisions, &met("2 sync => 7@500 written 4 1/2/8"));
    assert_good(&met("9 sync => 7@500 failed Conflict NotApplied current:3"));
    assert_good(&met("3 sync => 7@500 written 4 1/2/8"));
    assert_bad(
        Promise::Revisions,
        "0 c1 1@0 put k a sync => 3@100 written 7\n1 c1 2@0 delete k if=rev:7 sync => 4@100 written 7\n",
    );
}

#[test]
fn an_old_read_knows_what_anybody_was_told_before() {
    let old = |at: u64| {
        format!(
            "0 c1 1@0 put k a sync => 2@100 written 1 1/2/5\n1 c1 3@110 delete j sync => 4@120 written 0 1/2/6\n\
                 2 c1 5@200 get j linearizable => 6@300 read absent at:7 age:0\n3 c2 7@1900 get k stale => 8@9000 read 1:a at:{at} age:500\n"
        )
    };
    assert_bad(Promise::Age, &old(6));
    assert_good(&old(7));
}

#[test]
fn counters_count_what_nobody_acknowledged_too() {
    let counter = |puts: [&str; 2], last: &str| {
        format!(
            "0 c1 1@0 put counter/k {} if=absent sync => 2@100 failed Timeout Unknown\n\
                 1 c1 3@100 put counter/k {} if=rev:1 sync => 4@200 failed Timeout Unknown\n\
                 2 c2 5@400 get counter/k stale => 6@500 read 1:{} age:400\n3 c2 7@600 get counter/k linearizable => 8@700 read {last} age:0\n",
            puts[0], puts[1], puts[0]
        )
    };
    assert_good(&counter(["1/a", "2/b"], "2:2/b"));
    assert_bad(Promise::Values, &counter(["1/a", "1/b"], "2:1/b"));
    assert_bad(Promise::Values, &counter(["1/a", "3/b"], "2:3/b"));
}

#[test]
fn the_last_look_is_held_against_what_was_told_before_it() {
    let judged = |history: &str| {
        let mut run = run(history);
        run.events.push(RunEvent { from_micros: 350, until_micros: None, what: What::FinalReads { event: 5 } });
        let judged = judge(&run);
        let report = text::report(&run, &judged);
        (judged.verdict(), report)
    };
    // Somebody writes on, and is answered after the last read was called.
    let (verdict, report) = judged(&format!(
        "{TWO_PUTS}2 c2 6@400 get k linearizable => 8@500 read 2:b age:0\n3 c1 7@400 put k c sync => 9@500 written 3\n"
    ));
    assert_eq!(verdict, Verdict::Ok, "{report}");
    let (verdict, report) = judged(&format!(
        "{TWO_PUTS}2 c2 6@400 get k linearizable => 8@500 read absent age:0\n3 c1 7@400 delete k sync => 9@500 written 3\n"
    ));
    assert_eq!(verdict, Verdict::Ok, "{report}");
    let early = "0 c1 1@0 put k a async => 2@100 accepted 1/2/5\n";
    assert_eq!(judged(early).0, Verdict::Undecided, "nobody looked what became of it");
    assert_eq!(judged(&format!("{early}1 c2 6@400 get k linearizable => 8@500 read absent age:0\n")).0, Verdict::Ok);
}

#[test]
fn a_run_in_which_nobody_was_told_anything_has_not_passed() {
    for silent in [
        "",
        "0 c1 1@0 put k a sync => never\n",
        "0 c1 1@0 put k a sync => 2@100 failed NoQuorum NotApplied\n1 c1 3@0 get k linearizable => 4@9 failed Timeout Unknown\n",
    ] {
        let run = run(silent);
        let judged = judge(&run);
        assert_eq!(judged.verdict(), Verdict::Undecided, "{}", text::report(&run, &judged));
    }
}

#[test]
fn a_workload_that_writes_a_value_twice_to_one_key_is_at_fault_and_not_the_store() {
    let history = "0 c1 1@0 put k a sync => 2@100 written 1\n1 c1 3@200 put k a sync => 4@300 written 2\n\
                   2 c1 5@400 get k linearizable => 6@500 read 2:a age:0\n";
    let run = run(history);
    let judged = judge(&run);
    assert_eq!(judged.verdict(), Verdict::Undecided, "{}", text::report(&run, &judged));
    let bare = Run { history: History::default(), ..run };
    assert_eq!(judge(&bare).verdict(), Verdict::Undecided);
}
