//! The program itself: what it refuses and how it says so, how it ends, and that the README shows what it really prints.
#![allow(clippy::unwrap_used, reason = "a test ends where it can't go on")]

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

const SERVER: &str = env!("CARGO_BIN_EXE_kv-server");

/// The program with these arguments, run to its end.
fn run(arguments: &[&str]) -> Output {
    Command::new(SERVER).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// It must end with this exit code and say this on standard error.
fn refused(arguments: &[&str], code: i32, says: &str) {
    let ran = run(arguments);
    let said = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(ran.status.code(), Some(code), "{arguments:?}: {said}");
    assert!(said.contains(says), "{arguments:?}: {said}");
}

#[test]
fn mistakes_in_the_configuration_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let data = data.to_str().unwrap();
    let file = directory.path().join("kv.toml");
    let file = file.to_str().unwrap();
    let one = ["serve", "--node", "1", "--cluster", "1=127.0.0.1:1", "--data", data];
    let with = |more: &[&'static str]| [&one[..], more].concat();

    fs::write(file, "node = 1\nreplicaton = 3\n").unwrap();
    refused(&["serve", "--config", file], 2, "did you mean `replication`?");
    fs::write(file, "node = 1\nshards = \"many\"\n").unwrap();
    refused(&["serve", "--config", file], 2, "line 2");
    refused(&["serve", "--config", "/nowhere/kv.toml"], 2, "/nowhere/kv.toml");
    refused(&["serve"], 2, "--node");
    refused(&["serve", "--node", "1"], 2, "--cluster");
    refused(&["serve", "--node", "4", "--cluster", "1=127.0.0.1:1", "--data", data], 2, "node 4 is not in the cluster");
    refused(&["serve", "--node", "1", "--cluster", "1=localhost", "--data", data], 2, "ID=HOST:PORT");
    refused(&with(&["--shards", "0"]), 2, "0 shards");
    refused(&with(&["--durability", "perhaps"]), 2, "sync or async");
    refused(&with(&["--peer-listen", "127.0.0.1:0", "--client", "0.0.0.0:0"]), 2, "--insecure");
    refused(&with(&["--frobnicate"]), 2, "--frobnicate");
    assert!(!PathBuf::from(data).exists(), "nothing was touched");

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let cluster = format!("1={address}");
    refused(&["serve", "--node", "1", "--cluster", &cluster, "--data", data], 5, "stop the process that uses it");
}

#[test]
fn the_version_names_commit_and_data_format() {
    let ran = run(&["--version"]);
    let said = String::from_utf8(ran.stdout).unwrap();
    assert!(ran.status.success());
    assert!(said.starts_with(concat!("kv-server ", env!("CARGO_PKG_VERSION"))), "{said}");
    // Built in a checkout it knows the commit by itself.
    let commit = option_env!("KV_COMMIT").unwrap_or("unknown");
    assert!(said.contains(&format!("(commit {commit}, data format 1)")), "{said}");
}

#[test]
fn a_script_ends_with_the_status_of_what_failed() {
    let script = |script: &str| run(&["playground", "--nodes", "1", "--shards", "1", "--execute", script]);
    let ran = script("get nothing; put a b");
    assert_eq!(ran.status.code(), Some(3), "a key that is absent, as with `kv get`");
    assert!(!String::from_utf8_lossy(&ran.stdout).contains("OK"), "what comes after a failure is not run");
    assert_eq!(script("frobnicate").status.code(), Some(2));
    assert_eq!(script("put a b; get a; del a; del a").status.code(), Some(0));
}

/// A process that is ended with its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}

#[test]
fn a_termination_signal_ends_it_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(SERVER);
    command.args(["serve", "--node", "1", "--cluster", "1=127.0.0.1:1", "--peer-listen", "127.0.0.1:0"]);
    command.args(["--client", "127.0.0.1:0", "--shards", "2", "--data"]).arg(directory.path().join("data"));
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut running = Running(child);
    let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let addresses = lines.find(|line| line.starts_with("clients ")).expect("it says where it listens");
    let address = addresses.split_whitespace().nth(1).unwrap().to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let patience = std::time::Duration::from_secs(60);
        let client = kv_client::Client::builder().endpoints([address]).deadline(patience).connect().await.unwrap();
        client.put("hello", "world").await.unwrap();
    });
    let told = Command::new("kill").args(["-TERM", &running.0.id().to_string()]).status().unwrap();
    assert!(told.success());
    assert_eq!(running.0.wait().unwrap().code(), Some(0));
}

#[test]
fn the_playground_prints_what_the_readme_shows() {
    let ran = run(&["playground", "--execute", "put hello world; get hello; status"]);
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let printed = shape(&String::from_utf8(ran.stdout).unwrap());
    let shown = shape(&sample(0));
    // What the README leaves out is more of the same.
    let left_out = shown.iter().position(|line| line.trim() == "...").expect("the README shows some of the shards");
    assert_eq!(printed[..left_out], shown[..left_out]);
    assert_eq!(printed.last(), shown.last());
    assert_eq!(printed.len(), 1 + 1 + 1 + 3 + 13);
}

#[test]
fn the_prompt_greets_as_the_readme_shows() {
    // Without input the prompt ends at once, after its greeting.
    let ran = run(&["playground"]);
    let greeting = String::from_utf8(ran.stdout).unwrap();
    assert!(ran.status.success() && greeting.lines().count() > 3, "{greeting}");
    let shown: Vec<_> = shape(&sample(1)).into_iter().take_while(|line| !line.starts_with("kv>")).collect();
    assert_eq!(shape(greeting.trim_end_matches("kv> ").trim_end()), shown);
}

/// One of the README's blocks of output.
fn sample(number: usize) -> String {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let block = readme.split("```text\n").nth(number + 1).expect("there is such a block");
    block.split("```").next().unwrap().to_owned()
}

/// Lines without what differs from run to run: numbers, ids, the place of the data.
fn shape(text: &str) -> Vec<String> {
    // A commit may be unknown; a commit or a cluster is hexadecimal.
    let word = |word: &str| {
        if word == "unknown,"
            || word.len() >= 8 && word.trim_end_matches(',').bytes().all(|byte| byte.is_ascii_hexdigit())
        {
            return "ID".to_owned();
        }
        if word.starts_with('/') {
            return "PATH".to_owned();
        }
        let mut shape = String::new();
        for character in word.chars() {
            if !character.is_ascii_digit() {
                shape.push(character);
            } else if !shape.ends_with('N') {
                shape.push('N');
            }
        }
        shape
    };
    text.lines().map(|line| line.split(' ').map(word).collect::<Vec<_>>().join(" ")).collect()
}
