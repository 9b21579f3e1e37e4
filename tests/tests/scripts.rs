//! Every golden script does what it says. `KV_REGENERATE=1 cargo test -p kv-tests --test scripts` writes traces anew; what a
//! script expects holds in any case.

use std::{fs, path::Path};

use kv_tests::script;

#[test]
fn golden_scripts_do_what_they_say() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let regenerate = std::env::var_os("KV_REGENERATE").is_some();
    let mut names: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    assert!(names.len() >= 70, "where have the scripts gone?");
    let mut failures = Vec::new();
    for path in &names {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(path).unwrap();
        match script::run(&text) {
            Err(reason) => failures.push(format!("{name}: {reason}")),
            Ok(now) if now == text => {}
            Ok(now) if regenerate => fs::write(path, now).unwrap(),
            Ok(now) => failures.push(format!("{name}: the trace has changed\n{}", difference(&text, &now))),
        }
    }
    assert!(failures.is_empty(), "{} of {} scripts:\n{}", failures.len(), names.len(), failures.join("\n\n"));
}

/// The first line in which two texts differ, with what is around it.
fn difference(before: &str, now: &str) -> String {
    let (before, now): (Vec<&str>, Vec<&str>) = (before.lines().collect(), now.lines().collect());
    let at = before.iter().zip(&now).take_while(|(before, now)| before == now).count();
    let show = |lines: &[&str]| lines[at.min(lines.len())..(at + 6).min(lines.len())].join("\n    ");
    format!("  from line {}\n  before:\n    {}\n  now:\n    {}", at + 1, show(&before), show(&now))
}

#[test]
fn a_script_does_the_same_again() {
    let text = "# It is so.\ncluster 3\nput 1 a=1\ntick 30\nexpect leader 1\n";
    assert_eq!(script::run(text).unwrap(), script::run(text).unwrap());
}

#[test]
fn what_a_script_expects_holds_whatever_its_trace_says() {
    let refused = |text: &str| script::run(text).unwrap_err();
    assert!(refused("# It is so.\nquiet cluster 3\n").contains("expects nothing"));
    assert!(refused("# It is so.\nquiet cluster 3\nexpect leader 2\n").contains("line 3"));
    assert!(refused("# It is so.\nquiet cluster 3\nput 1 a=1\nexpect c1: lost\n").contains("written"));
}
