//! The page shows the verdict, the pictures that there is something for, and fetches nothing.

use super::html;
use crate::{
    history::run::{Run, RunEvent, What},
    verdict::{generate, judge},
};

fn page(run: &Run) -> String {
    html(run, &judge(run), "check <run>")
}

fn assert_whole(page: &str) {
    for tag in ["svg", "div", "table", "text", "h2"] {
        let opened = page.matches(&format!("<{tag} ")).count() + page.matches(&format!("<{tag}>")).count();
        assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
    }
    assert!(!page.contains("http"), "nothing is fetched");
    assert!(!page.contains("NaN") && !page.contains("inf\"") && !page.contains("=\"-inf"), "every place is a number");
}

#[test]
fn a_good_run_has_all_pictures() {
    let shape = generate::Shape { operations: 2_000, clients: 8, keys: 10, unknown_percent: 5, seed: 3 };
    let run = generate::run(shape);
    let page = page(&run);
    assert_whole(&page);
    assert_eq!(page.matches("<svg").count(), 4);
    assert!(
        page.contains("Every promise was held") && page.contains("check &lt;run&gt;") && page.contains("power cut")
    );
    assert_eq!(
        page.matches("leads shard").count(),
        run.events.iter().filter(|event| matches!(event.what, What::Leader { .. })).count()
    );
}

#[test]
fn a_violation_is_drawn() {
    let history = "0 c1 1@0 put k a<b sync => 2@100 written 1\n1 c1 3@200 put k c sync => 4@300 written 2\n\
                   2 c2 5@400 get k linearizable => 6@500 read 1:a<b age:0\n3 c2 7@600 put k d sync => never\n";
    let run = Run { history: history.parse().unwrap(), ..Run::default() };
    let page = page(&run);
    assert_whole(&page);
    assert!(page.contains("A promise was broken") && page.contains("put k = a&lt;b"), "{page}");
    assert!(page.contains("class=\"bar last\""));
}

#[test]
fn an_empty_run_and_odd_events_make_a_page() {
    let fault = What::Fault { name: "kill \"now\"".into(), nodes: vec![0, 9], detail: "<>".into() };
    let event = |from_micros, until_micros, what| RunEvent { from_micros, until_micros, what };
    let events = vec![
        event(5, Some(2), fault),
        event(7, None, What::Leader { shard: 0, node: 99, term: 1 }),
        event(9, None, What::Note("<note>".into())),
    ];
    assert_whole(&page(&Run::default()));
    assert_whole(&page(&Run { events, ..Run::default() }));
}
