//! The named points of the core: the list and the code agree, and what no run comes to is reached by a script.

use std::{
    fs,
    path::{Path, PathBuf},
};

use kv_core::points::{self, Point};
use kv_tests::{
    script,
    sim::reach::{ELSEWHERE, Elsewhere, RARE},
};

/// All sources under a directory, as one text.
fn sources(directory: &Path, text: &mut String) {
    let entries = fs::read_dir(directory).expect("the sources are beside this package");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a directory can be read").path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            sources(&path, text);
        } else if !path.ends_with("points.rs") {
            text.push_str(&fs::read_to_string(&path).expect("a source is a text"));
        }
    }
}

#[test]
fn every_point_of_the_list_has_a_place_in_the_core() {
    let mut text = String::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../kv-core/src"), &mut text);
    let has_place = |point: &Point| {
        let name = point.name();
        text.contains(&format!("point!({name})")) || text.contains(&format!("point!({name} if "))
    };
    let lost: Vec<_> = Point::ALL.iter().filter(|point| !has_place(point)).collect();
    assert!(lost.is_empty(), "declared, and reached nowhere: {lost:?}");
}

#[test]
fn a_point_is_excused_once_and_for_a_reason() {
    let mut excused: Vec<_> = RARE.iter().copied().chain(ELSEWHERE.iter().map(|(point, _)| *point)).collect();
    let count = excused.len();
    excused.sort_unstable();
    excused.dedup();
    assert_eq!(excused.len(), count, "a point is in two lists, or twice in one");
}

#[test]
fn what_no_run_comes_to_is_reached_by_its_script_or_test() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (point, elsewhere) in ELSEWHERE {
        let path = match elsewhere {
            Elsewhere::Script(name) => here.join("scripts").join(name),
            Elsewhere::Test(path) => here.join("..").join(path),
        };
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{elsewhere}: {error}"));
        let comes_to_it = match elsewhere {
            Elsewhere::Script(_) => {
                let _before = points::take();
                script::run(&text).unwrap();
                points::take().of(*point) > 0
            }
            // It must say so itself.
            Elsewhere::Test(_) => text.contains(&format!("points::take().of(Point::{})", point.name())),
        };
        assert!(comes_to_it, "{elsewhere} does not come to {point:?}: {}", point.sentence());
    }
}
