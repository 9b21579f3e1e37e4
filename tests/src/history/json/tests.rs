//! Runs written and read back, lines that others may write, and lines that nobody should.

use crate::history::{
    ReadError,
    run::{About, Run, RunEvent, What},
    text::tests::SAMPLE,
};

fn sample() -> Run {
    let fault = What::Fault { name: "kill".into(), nodes: vec![2, 3], detail: "kill -9 \"now\"".into() };
    let events = [
        (5, Some(9), fault),
        (7, None, What::Leader { shard: 3, node: 1, term: 8 }),
        (11, None, What::FinalReads { event: 23 }),
        (12, None, What::Note("a < b".into())),
    ];
    let event = |(from_micros, until_micros, what)| RunEvent { from_micros, until_micros, what };
    let mut about = About { program: "chaos".into(), seed: 7, nodes: vec!["n1".into()], ..About::default() };
    about.settings.others.insert("keys".into(), 12.into());
    Run { about, history: SAMPLE.parse().unwrap(), events: events.map(event).to_vec() }
}

fn read(text: &str) -> Result<Run, ReadError> {
    Run::read(text.as_bytes())
}

fn written(run: &Run) -> String {
    String::from_utf8(run.write(Vec::new()).unwrap()).unwrap()
}

#[test]
fn a_run_reads_back_as_it_was_written() {
    let text = written(&sample());
    let run = read(&text).unwrap();
    assert_eq!(run.history.to_string(), SAMPLE);
    assert_eq!(run, sample());
    assert_eq!(run.final_reads_from(), Some(23));
    assert_eq!(run.until_micros(), 1_500);
    assert!(text.lines().all(|line| !line.contains("null") || line.contains("found") || line.contains("previous")));
}

const ABOUT: &str = r#"{"type":"about","format":1,"settings":{"durability":"async"}}"#;

#[test]
fn others_may_leave_out_what_they_do_not_know() {
    let text = format!(
        "{ABOUT}\n\n\
         {{\"type\":\"invoke\",\"id\":70,\"client\":1,\"event\":3,\"micros\":0,\"f\":\"put\",\"key\":\"a b\",\"value\":\"\",\"ours\":[1]}}\n\
         {{\"type\":\"invoke\",\"id\":7,\"client\":1,\"event\":1,\"micros\":0,\"f\":\"get\",\"key\":\"a b\"}}\n\
         {{\"type\":\"unknown\",\"id\":70,\"event\":5,\"micros\":9}}\n\
         {{\"type\":\"ok\",\"id\":7,\"event\":6,\"micros\":9,\"found\":null}}\n"
    );
    let run = read(&text).unwrap();
    let expected = "7 c1 1@0 get a\\x20b linearizable => 6@9 read absent age:0\n\
                    70 c1 3@0 put a\\x20b \\0 async => 5@9 failed Internal Unknown\n";
    assert_eq!(run.history.to_string(), expected);
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let invoke = r#"{"type":"invoke","id":0,"client":1,"event":5,"micros":4,"f":"get","key":"k"}"#;
    let ok = r#"{"type":"ok","id":0,"event":6,"micros":9,"found":null}"#;
    for (lines, line, expected) in [
        (vec![""], 1, "expected an `about` line, found nothing"),
        (vec![invoke], 1, "expected an `about` line: its `type` is another"),
        (vec![r#"{"type":"about","format":2}"#], 1, "expected format 1, found 2"),
        (vec![ABOUT, "{"], 2, "expected a line of a run: EOF"),
        (vec![ABOUT, r#"{"type":"invok"}"#], 2, "expected `type` to be"),
        (vec![ABOUT, r#"{"type":"invoke","id":3}"#], 2, "expected a field `f`"),
        (vec![ABOUT, r#"{"type":"invoke","id":3,"f":"cas","key":"k"}"#], 2, "expected `f` to be get, put"),
        (vec![ABOUT, ok], 2, "expected the completion of a call, found id 0"),
        (vec![ABOUT, invoke, invoke], 3, "0 was called before"),
        (vec![ABOUT, invoke, ok, ok], 4, "operation 0 has two"),
        (vec![ABOUT, invoke, r#"{"type":"ok","id":0,"event":6,"micros":9}"#], 3, "expected a field `found`"),
        (
            vec![ABOUT, invoke, r#"{"type":"ok","id":0,"event":5,"micros":9,"found":null}"#],
            3,
            "the answer after the call",
        ),
        (
            vec![ABOUT, invoke, r#"{"type":"ok","id":0,"event":6,"micros":3,"found":null}"#],
            3,
            "the answer after the call",
        ),
        (
            vec![ABOUT, invoke, r#"{"type":"fail","id":0,"event":6,"micros":9,"kind":"Odd"}"#],
            3,
            "expected an error kind",
        ),
    ] {
        let error = read(&lines.join("\n")).unwrap_err();
        assert_eq!(error.line, line, "{error}");
        assert!(error.what.contains(expected), "{error}");
    }
}

#[test]
fn damaged_bytes_never_panic() {
    let text = written(&sample()).into_bytes();
    for place in 0..text.len() {
        for byte in [0, b'"', b'9', 0xff] {
            let mut damaged = text.clone();
            damaged[place] = byte;
            let _ = Run::read(&damaged[..]);
        }
        let _ = Run::read(&text[..place]);
    }
}
