//! kv-core's layers, as ARCHITECTURE.md lists them: a file imports from its own layer and from those on its left, never from
//! its right.
//!
//! Read off the sources: every `crate::` outside of comments and unit tests. *Left out*: what goes through `super`, which stays
//! within a module.
#![allow(clippy::unwrap_used, reason = "a test ends where it can't go on")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// What may be used anywhere and uses nothing.
const EVERYWHERE: [&str; 3] = ["points", "mutants", "lib"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The layers in ARCHITECTURE.md, from left to right.
fn layers() -> Vec<BTreeSet<String>> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let (_, list) = text.split_once("never from its right:\n`").expect("the list of layers");
    let (list, _) = list.split_once('`').expect("its end");
    list.split('<').map(|layer| layer.split(',').map(|module| module.trim().to_owned()).collect()).collect()
}

/// All sources below a directory but for unit tests.
fn sources(directory: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.file_stem().unwrap().to_str().unwrap() {
            "tests" => {}
            _ if path.is_dir() => sources(&path, into),
            _ => into.push(path),
        }
    }
}

/// The modules of its own crate that a source names.
fn imports(text: &str) -> BTreeSet<String> {
    let code = text.split("\n#[cfg(test)]").next().unwrap();
    let code: String = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut found = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            None => found.extend(module(rest)),
            Some(list) => {
                let mut depth = 1;
                let mut begins = true;
                for (at, character) in list.char_indices() {
                    match character {
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        ',' if depth == 1 => begins = true,
                        _ if character.is_whitespace() => {}
                        _ if begins => {
                            found.extend(module(&list[at..]));
                            begins = false;
                        }
                        _ => {}
                    }
                    if depth == 0 {
                        break;
                    }
                }
            }
        }
    }
    found
}

/// The name that a path begins with, unless it is that of a macro.
fn module(path: &str) -> Option<String> {
    let end = path.find(|character: char| !character.is_alphanumeric() && character != '_').unwrap_or(path.len());
    (!path[end..].starts_with('!')).then(|| path[..end].to_owned())
}

#[test]
fn imports_are_found_however_they_are_written() {
    let text = "use crate::{\n    io::{Input, Output},\n    node,\n    // crate::log\n};\nfn a() { crate::ring::arcs(); crate::mutant!(\"A\") }\n\
                #[cfg(test)]\nmod tests { use crate::replica; }";
    assert_eq!(imports(text), ["io", "node", "ring"].map(str::to_owned).into());
}

#[test]
fn a_file_of_the_core_imports_nothing_from_its_right() {
    let layers = layers();
    assert!(layers.len() > 4, "{layers:?}");
    let place: BTreeMap<&str, usize> =
        layers.iter().zip(0..).flat_map(|(layer, at)| layer.iter().map(move |module| (module.as_str(), at))).collect();
    let directory = root().join("kv-core/src");
    let mut files = Vec::new();
    sources(&directory, &mut files);
    assert!(files.len() > 80, "{} files", files.len());
    let mut seen = BTreeSet::new();
    for file in files {
        let inside = file.strip_prefix(&directory).unwrap();
        let own = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
        if EVERYWHERE.contains(&own.as_str()) {
            continue;
        }
        let at = place.get(own.as_str()).unwrap_or_else(|| panic!("{own} is in no layer of ARCHITECTURE.md"));
        for other in imports(&fs::read_to_string(&file).unwrap()) {
            let Some(of) = place.get(other.as_str()) else {
                assert!(
                    EVERYWHERE.contains(&other.as_str()),
                    "{} imports {other}, which is in no layer",
                    inside.display()
                );
                continue;
            };
            assert!(of <= at, "{} imports {other}, which is on its right", inside.display());
        }
        seen.insert(own);
    }
    let listed: BTreeSet<String> = layers.into_iter().flatten().collect();
    assert_eq!(listed, seen, "ARCHITECTURE.md lists a module that is none");
}
