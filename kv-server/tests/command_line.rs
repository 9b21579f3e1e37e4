//! The program itself: what it refuses and how it says so, how it ends, and that the README shows what it really prints.
#![allow(clippy::unwrap_used, reason = "a test ends where it can't go on")]

use std::{
    cell::RefCell,
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use kv_server::Trouble;

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
    for level in ["verbose", "nonsense=", "info,kv_server=much", ""] {
        refused(&with(&["--log-level", level]), 2, "error, warn, info or debug");
    }
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
    let ran = script("put a \"b; c\"; get a; \\partition 1 9");
    assert!(String::from_utf8_lossy(&ran.stdout).contains("\nb; c\n"), "{ran:?}");
    assert_eq!(ran.status.code(), Some(1), "there is no node 9");
    assert!(String::from_utf8_lossy(&ran.stderr).contains("there is no node 9"), "{ran:?}");
}

#[test]
fn the_help_says_how_it_may_end() {
    let help = String::from_utf8(run(&["--help"]).stdout).unwrap();
    let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let ways = [
        (Trouble::Internal, "a bug"),
        (Trouble::Configuration, "a mistake in the configuration"),
        (Trouble::DataDirectory, "the data directory"),
        (Trouble::Damaged, "the data is damaged"),
        (Trouble::Address, "an address"),
        (Trouble::Disk, "the disk failed"),
    ];
    for (trouble, what) in ways {
        assert!(words.contains(&format!("; {} {what}", trouble.exit_code())), "{what} is not in {help}");
    }
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

impl Running {
    /// Starts a node and waits until it listens; gives the address for clients, and the rest of what it says on stderr.
    fn serve(arguments: &[&str]) -> (Self, String, impl Iterator<Item = String> + use<>) {
        let mut command = Command::new(SERVER);
        command.arg("serve").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = Self(command.spawn().unwrap());
        let errors = BufReader::new(running.0.stderr.take().unwrap()).lines().map(Result::unwrap);
        let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines().map(Result::unwrap);
        let addresses = lines.find(|line| line.starts_with("clients ")).expect("it says where it listens");
        (running, addresses.split_whitespace().nth(1).unwrap().to_owned(), errors)
    }

    fn terminate(&self) {
        let told = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status().unwrap();
        assert!(told.success());
    }

    /// Its exit code, while the tasks of the runtime go on.
    async fn ended(&mut self) -> Option<i32> {
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(60);

async fn connect(address: &str) -> kv_client::Client {
    kv_client::Client::builder().endpoints([address.to_owned()]).deadline(PATIENCE).connect().await.unwrap()
}

#[tokio::test]
async fn a_termination_under_load_answers_what_was_accepted_and_loses_none_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let arguments = |client: &str| {
        let fixed = ["--node", "1", "--cluster", "1=127.0.0.1:1", "--peer-listen", "127.0.0.1:0", "--shards", "2"];
        let rest = ["--client", client, "--data", data.to_str().unwrap()];
        fixed.iter().chain(&rest).map(|&text| text.to_owned()).collect::<Vec<_>>()
    };
    let serve = |client: &str| Running::serve(&arguments(client).iter().map(String::as_str).collect::<Vec<_>>());
    let (mut running, address, _errors) = serve("127.0.0.1:0");
    let client = connect(&address).await;
    // Async writes, acknowledged before any disk: some are undecided at every moment.
    let acknowledged = RefCell::new(Vec::new());
    let write = |task: u64| {
        let (client, acknowledged) = (client.clone(), &acknowledged);
        async move {
            for number in 0.. {
                let key = format!("{task}-{number}");
                client.put(&key, "v").durability(kv_client::Durability::Async).await.unwrap();
                acknowledged.borrow_mut().push(key);
            }
        }
    };
    let stop = async {
        while acknowledged.borrow().len() < 500 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        running.terminate();
        running.ended().await
    };
    let code = tokio::select! {
        _ = futures_util::future::join_all((0..16).map(write)) => panic!("the load has no end"),
        code = tokio::time::timeout(PATIENCE, stop) => code.unwrap(),
    };
    assert_eq!(code, Some(0));
    let (_running, address, _errors) = serve("127.0.0.1:0");
    let client = connect(&address).await;
    for part in acknowledged.into_inner().chunks(256) {
        for (key, entry) in part.iter().zip(client.get_many(part).await) {
            assert!(entry.unwrap().is_some(), "{key} was acknowledged and is lost");
        }
    }
}

#[tokio::test]
async fn a_node_whose_cluster_is_not_founded_has_nothing_to_wait_for_when_it_is_terminated() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = "1=127.0.0.1:1,2=127.0.0.1:2";
    let fixed = ["--node", "1", "--cluster", cluster, "--peer-listen", "127.0.0.1:0", "--client", "127.0.0.1:0"];
    let data = directory.path().join("data");
    let (mut running, _, errors) = Running::serve(&[&fixed[..], &["--data", data.to_str().unwrap()]].concat());
    running.terminate();
    assert_eq!(tokio::time::timeout(PATIENCE, running.ended()).await.unwrap(), Some(0));
    let said: Vec<_> = errors.collect();
    assert!(said.iter().any(|line| line.contains("its cluster is not founded yet")), "{said:?}");
    assert!(!said.iter().any(|line| line.contains("in time")), "it has waited: {said:?}");
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let ports: Vec<_> = (0..2).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let addresses: Vec<_> = ports.iter().map(|port| port.local_addr().unwrap()).collect();
    let cluster = format!("1={},2={}", addresses[0], addresses[1]);
    drop(ports);
    let serve = |node: &str| {
        let data = directory.path().join(node);
        let fixed = ["--node", node, "--cluster", &cluster, "--client", "127.0.0.1:0", "--shards", "2"];
        // A leader that loses its peer goes on to think that it leads, and has nobody to hand over to.
        let rest = ["--election-ticks", "10000", "--data", data.to_str().unwrap()];
        Running::serve(&[&fixed[..], &rest].concat())
    };
    let ((one, address, errors), (two, _, other_errors)) = (serve("1"), serve("2"));
    let client = connect(&address).await;
    client.put("hello", "world").await.unwrap();
    let leader = loop {
        let status = client.status().await.unwrap();
        if let Some(leader) = status.shards[0].leader {
            break leader;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let (mut leading, mut errors, other): (_, Box<dyn Iterator<Item = String>>, _) = match leader.0 {
        1 => (one, Box::new(errors), two),
        _ => (two, Box::new(other_errors), one),
    };
    drop(other);
    leading.terminate();
    assert!(errors.any(|line| line.contains("hands its leaderships over")), "it says what it does");
    leading.terminate();
    let code = tokio::time::timeout(PATIENCE, leading.ended()).await.unwrap();
    assert_eq!(code, Some(1), "not in order");
}

#[test]
fn a_signal_ends_the_playground_and_its_data_goes_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(SERVER);
    command.args(["playground", "--nodes", "1", "--shards", "1"]).env("TMPDIR", directory.path());
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut running = Running(child);
    // Held: at the end of its input the prompt would end by itself.
    let _input = running.0.stdin.take();
    let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.starts_with("try ")), "it greets");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    running.terminate();
    assert_eq!(running.0.wait().unwrap().code(), Some(128 + 15));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
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
