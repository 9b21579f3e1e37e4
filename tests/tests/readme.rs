//! The README says nothing that is not so: its commands exist, its links lead somewhere, and what it promises to be pasted is.
//!
//! Its Rust code is compiled as a doctest of this crate, and its sample of the playground is compared with a real run by
//! kv-server's own tests.
#![allow(clippy::unwrap_used, reason = "a test ends where it can't go on")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn readme() -> String {
    fs::read_to_string(root().join("README.md")).unwrap()
}

/// The lines of all blocks of one language.
fn blocks(language: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut inside = None;
    for line in readme().lines() {
        match (line.strip_prefix("```"), inside.is_some()) {
            (Some(name), false) => inside = Some(name.to_owned()),
            (Some(_), true) => inside = None,
            (None, _) if inside.as_deref() == Some(language) => lines.push(line.to_owned()),
            _ => {}
        }
    }
    assert!(inside.is_none(), "a block is not closed");
    lines
}

#[test]
fn links_lead_to_files() {
    let text = readme();
    let links: Vec<_> =
        text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link).collect();
    assert!(links.len() > 10, "{links:?}");
    for link in links {
        assert!(root().join(link).is_file(), "{link}");
    }
}

#[test]
fn every_command_is_one_that_exists() {
    let ci = fs::read_to_string(root().join(".ci/run")).unwrap().replace(" --locked", "").replace(" -q ", " ");
    let metadata = cargo_metadata::MetadataCommand::new().manifest_path(root().join("Cargo.toml")).no_deps().exec();
    let metadata = metadata.unwrap();
    let binaries = |package: &str| {
        let package = metadata.packages.iter().find(|found| found.name.as_str() == package);
        let targets = &package.unwrap_or_else(|| panic!("there is no such package")).targets;
        targets.iter().filter(|target| target.is_bin()).map(|target| target.name.clone()).collect::<Vec<_>>()
    };
    let mut checked = 0;
    for line in blocks("sh") {
        let words: Vec<_> = line.split_whitespace().collect();
        let after = |flag: &str| words.iter().position(|word| *word == flag).map(|at| words[at + 1]);
        match words.as_slice() {
            // What the README begins with is what must pass before every change.
            ["cargo", "test", ..] => assert!(ci.contains(&line), "{line}"),
            ["cargo", "run", .., "--execute", "\"put", "hello", "world;", "get", "hello;", "status\""] => {
                assert!(ci.contains(&line), "{line}");
            }
            ["cargo", "run" | "build", ..] => {
                let has = binaries(after("-p").unwrap());
                assert!(after("--bin").is_none_or(|name| has.iter().any(|binary| binary == name)), "{line}");
            }
            [program, ..] if program.starts_with("target/release/") => {
                let name = program.trim_start_matches("target/release/");
                let package = if name == "kv" { "kv-client" } else { name };
                assert!(binaries(package).iter().any(|binary| binary == name), "{line}");
            }
            ["venv/bin/python", script, ..] => assert!(root().join(script).is_file(), "{line}"),
            ["export", ..] | ["python3", "-m", "venv", ..] => {}
            [assignment] if assignment.starts_with("C=1=") => {}
            [] => {}
            _ => panic!("nobody checks this command: {line}"),
        }
        checked += 1;
    }
    assert!(checked > 10);
}

#[test]
fn the_torture_takes_the_arguments_that_are_written() {
    for line in blocks("sh").iter().filter(|line| line.contains("--bin torture")) {
        let arguments = line.split_once(" -- ").unwrap().1;
        let ran = Command::new(env!("CARGO_BIN_EXE_torture")).args(arguments.split_whitespace()).arg("--help").output();
        let ran = ran.unwrap();
        assert!(ran.status.success(), "{line}: {}", String::from_utf8_lossy(&ran.stderr));
    }
}

#[test]
fn the_simulator_takes_the_arguments_that_are_written() {
    for line in blocks("sh").iter().filter(|line| line.contains("--bin sim")) {
        let arguments = line.split_once(" -- ").unwrap().1;
        let ran = Command::new(env!("CARGO_BIN_EXE_sim")).args(arguments.split_whitespace()).arg("--help").output();
        assert!(ran.unwrap().status.success(), "{line}");
    }
}

/// The package of a test program that cargo says it is running: `tests/e2e/main.rs (target/debug/deps/e2e-0123)`.
fn package_of(program: &str) -> PathBuf {
    let (path, binary) = program.trim_start_matches("unittests ").split_once(" (").unwrap();
    let name = binary.rsplit('/').next().unwrap().split('-').next().unwrap();
    let has = |folder: &str| {
        let folder = root().join(folder);
        let is_its_own = path != "src/lib.rs"
            || fs::read_to_string(folder.join("Cargo.toml")).unwrap().contains(&name.replace('_', "-"));
        folder.join(path).is_file() && is_its_own
    };
    let folder = ["proto", "kv-core", "kv-server", "kv-client", "tests"].into_iter().find(|folder| has(folder));
    root().join(folder.unwrap_or_else(|| panic!("no package has {program}")))
}

fn sources(folder: &Path) -> String {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let read = |path: PathBuf| match path.extension() {
        _ if path.is_dir() => sources(&path),
        Some(extension) if extension == "rs" => fs::read_to_string(path).unwrap(),
        _ => String::new(),
    };
    entries.map(read).collect()
}

#[test]
fn the_output_of_the_tests_is_of_tests_that_exist() {
    let text = readme();
    let output = text.split("cargo test --workspace\n```\n").nth(1).and_then(|rest| rest.split("```").nth(1)).unwrap();
    let (mut code, mut checked) = (String::new(), 0);
    for line in output.strip_prefix("text\n").unwrap().lines() {
        if let Some(program) = line.strip_prefix("     Running ") {
            code = sources(&package_of(program));
        } else if let Some(test) = line.strip_prefix("test ").and_then(|line| line.strip_suffix(" ... ok")) {
            let name = test.rsplit("::").next().unwrap();
            assert!(code.contains(&format!("fn {name}(")), "{name}");
            checked += 1;
        } else {
            let is_good = line.starts_with("test result: ok. ") && line.contains(" passed; 0 failed; 0 ignored; ");
            assert!(is_good || line.trim() == "...", "{line}");
        }
    }
    assert!(checked > 2);
}

#[test]
fn guarantees_are_ten_lines_and_no_output_is_left_to_be_pasted() {
    let text = readme();
    let section = text.split("## What it promises").nth(1).unwrap().split("\n## ").next().unwrap();
    assert_eq!(section.lines().filter(|line| line.starts_with("- ")).count(), 10);
    let samples = blocks("text");
    assert!(samples.len() > 20);
    assert!(!samples.iter().any(|line| line.starts_with('@')), "{samples:?}");
}
