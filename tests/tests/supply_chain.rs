//! What is linked into kv: only crates from crates.io, under licences that we list, and one version of those that must be one.
//!
//! The lists are those of `deny.toml`. Sources and versions are judged from the lock file, which names the packages of every
//! platform; licences from cargo's metadata of this platform, which needs no network. *Caveat*: licences of packages that only
//! other platforms use are left to `cargo deny`.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

use cargo_metadata::{Metadata, MetadataCommand};

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the workspace").to_owned()
}

fn read(name: &str) -> String {
    let path = root().join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

struct Locked {
    name: String,
    version: String,
    source: Option<String>,
}

fn locked() -> Vec<Locked> {
    let field = |package: &str, name: &str| {
        let line = package.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = \""))?;
        Some(line.trim_end_matches('"').to_owned())
    };
    let text = read("Cargo.lock");
    let packages: Vec<_> = text
        .split("[[package]]")
        .skip(1)
        .map(|package| Locked {
            name: field(package, "name").expect("a package has a name"),
            version: field(package, "version").expect("a package has a version"),
            source: field(package, "source"),
        })
        .collect();
    assert!(packages.len() > 50, "the lock file was not understood: {} packages", packages.len());
    packages
}

fn versions() -> BTreeMap<String, Vec<String>> {
    let mut versions: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for package in locked() {
        versions.entry(package.name).or_default().push(package.version);
    }
    versions
}

fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

fn host() -> String {
    let output = Command::new("rustc").arg("-vV").output().expect("rustc runs");
    let text = String::from_utf8(output.stdout).expect("rustc speaks UTF-8");
    text.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc names its host").to_owned()
}

fn metadata() -> Metadata {
    let options = ["--locked", "--offline", "--filter-platform", &host()].map(str::to_owned);
    MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .other_options(options)
        .exec()
        .expect("cargo metadata runs without network: what this test was built from is there")
}

/// The quoted words of a list in `deny.toml`.
fn listed(section: &str, list: &str) -> BTreeSet<String> {
    let text = read("deny.toml");
    let section = text.split(&format!("[{section}]\n")).nth(1).expect("the section is there");
    let section = section.split("\n[").next().expect("split gives at least one");
    let list = section.split(&format!("\n{list} = [")).nth(1).expect("the list is there");
    let list = list.split("\n]").next().expect("split gives at least one");
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Whether an SPDX expression is satisfied by licences of a list. A slash is an old way to write OR.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<_> = spaced.split_whitespace().collect();
    let (verdict, rest) = either(&words, allowed);
    verdict && rest.is_empty()
}

fn either<'a, 'b>(words: &'a [&'b str], allowed: &BTreeSet<String>) -> (bool, &'a [&'b str]) {
    let (mut verdict, mut rest) = both(words, allowed);
    while rest.first() == Some(&"OR") {
        let (other, after) = both(&rest[1..], allowed);
        (verdict, rest) = (verdict || other, after);
    }
    (verdict, rest)
}

fn both<'a, 'b>(words: &'a [&'b str], allowed: &BTreeSet<String>) -> (bool, &'a [&'b str]) {
    let (mut verdict, mut rest) = one(words, allowed);
    while rest.first() == Some(&"AND") {
        let (other, after) = one(&rest[1..], allowed);
        (verdict, rest) = (verdict && other, after);
    }
    (verdict, rest)
}

fn one<'a, 'b>(words: &'a [&'b str], allowed: &BTreeSet<String>) -> (bool, &'a [&'b str]) {
    match words {
        ["(", inner @ ..] => {
            let (verdict, rest) = either(inner, allowed);
            match rest {
                [")", rest @ ..] => (verdict, rest),
                _ => (false, rest),
            }
        }
        // An exception only adds rights, but the list would have to name it.
        [license, "WITH", exception, rest @ ..] => (allowed.contains(&format!("{license} WITH {exception}")), rest),
        [license, rest @ ..] => (allowed.contains(*license), rest),
        [] => (false, words),
    }
}

#[test]
fn licence_expressions_are_understood() {
    let allowed = ["MIT", "Zlib"].map(str::to_owned).into();
    for good in
        ["MIT", "MIT OR GPL-3.0", "GPL-3.0/MIT", "MIT AND Zlib", "(GPL-3.0 OR MIT) AND Zlib", "GPL-3.0 AND X OR MIT"]
    {
        assert!(is_allowed(good, &allowed), "{good}");
    }
    for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT OR Zlib) AND GPL-3.0", "MIT WITH X", "(MIT", "MIT)"] {
        assert!(!is_allowed(bad, &allowed), "{bad}");
    }
}

#[test]
fn all_packages_come_from_crates_io_or_are_ours() {
    let ours: BTreeSet<_> = metadata().workspace_packages().iter().map(|package| package.name.to_string()).collect();
    assert!(ours.contains("kv-core") && ours.contains("kv-tests"));
    for package in locked() {
        match package.source.as_deref() {
            Some(source) => assert_eq!(source, CRATES_IO, "{} {}", package.name, package.version),
            None => assert!(ours.contains(&package.name), "{} has no source", package.name),
        }
    }
}

#[test]
fn all_licences_are_on_the_list() {
    let allowed = listed("licenses", "allow");
    assert!(allowed.contains("MIT"), "the list was not understood: {allowed:?}");
    for package in metadata().packages {
        let license = package.license.clone().unwrap_or_default();
        assert!(is_allowed(&license, &allowed), "{} {} is under {license:?}", package.name, package.version);
    }
}

#[test]
fn what_must_be_one_version_is_one() {
    let versions = versions();
    for name in ["tonic", "prost", "h2", "raft"] {
        let found = versions.get(name).map(Vec::as_slice).unwrap_or_default();
        assert_eq!(found.len(), 1, "{name}: {found:?}");
    }
}

#[test]
fn h2_is_new_enough() {
    let version = &versions()["h2"][0];
    let parts: Vec<u64> = version.split('.').map(|part| part.parse().expect("a number")).collect();
    assert!(parts.as_slice() >= [0, 4, 19].as_slice(), "h2 {version} closes connections that carry many small frames");
}

/// The names of all packages that are linked into the client.
fn client_links(features: &[&str]) -> BTreeSet<String> {
    let kinds = ["-e", "normal", "--prefix", "none", "--format", "{p}"];
    let output = cargo().args(["tree", "--locked", "--offline", "-p", "kv-client"]).args(kinds).args(features).output();
    let output = output.expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).expect("cargo speaks UTF-8");
    let names: BTreeSet<_> = tree.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
    assert!(names.contains("kv-core") && names.contains("tonic"), "the tree was not understood: {names:?}");
    names
}

#[test]
fn the_client_links_no_consensus_code() {
    let names = client_links(&[]);
    for name in ["raft", "raft-proto", "protobuf", "sled", "kv-server"] {
        assert!(!names.contains(name), "kv-client links {name}");
    }
}

#[test]
fn an_application_that_embeds_the_client_compiles_nothing_of_the_command_line() {
    let (all, embedded) = (client_links(&[]), client_links(&["--no-default-features"]));
    let manifest = read("kv-client/Cargo.toml");
    let optional =
        manifest.lines().filter_map(|line| line.split_once(" = { workspace = true, optional")).map(|(name, _)| name);
    let optional: Vec<_> = optional.collect();
    assert!(optional.contains(&"clap") && optional.contains(&"hdrhistogram"), "{optional:?}");
    for name in optional {
        assert!(all.contains(name) && !embedded.contains(name), "an application compiles {name}");
    }
}

/// Otherwise the README's first command builds much of what a build of the workspace has just made a second time.
#[test]
fn the_server_alone_is_built_with_the_features_that_it_has_in_the_workspace() {
    let built = |packages: &[&str]| {
        let kinds = ["-e", "normal,build", "--prefix", "none", "--no-dedupe", "--format", "{p} {f}"];
        let output = cargo().args(["tree", "--locked", "--offline"]).args(packages).args(kinds).output();
        let output = output.expect("cargo runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let tree = String::from_utf8(output.stdout).expect("cargo speaks UTF-8");
        tree.lines().map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let (server, workspace) = (built(&["-p", "kv-server"]), built(&["--workspace"]));
    assert!(server.len() > 100, "the tree was not understood");
    let differ: Vec<_> = server.difference(&workspace).collect();
    assert!(differ.is_empty(), "{differ:#?}");
}

#[test]
fn every_exception_has_a_reason_and_is_needed() {
    let exceptions = read("deny.toml");
    let ids: Vec<_> = exceptions.lines().filter(|line| line.contains("id = \"RUSTSEC-")).collect();
    assert_eq!(ids.len(), 3, "an exception more or less: say why here too");
    assert!(ids.iter().all(|line| line.contains("reason = \"") && line.len() > 100));
    let versions = versions();
    for name in ["protobuf", "fxhash", "instant"] {
        assert!(versions.contains_key(name), "{name} is gone: take its exception out of deny.toml");
    }
}

#[test]
fn property_tests_draw_the_same_cases_at_every_run() {
    let seed = proptest::test_runner::Config::default().rng_seed;
    assert_ne!(seed, proptest::test_runner::RngSeed::Random, "cargo reads the seed from .cargo/config.toml");
}
