//! The command line against a cluster of fake nodes: bytes, exit codes, and what people are told.

mod fake;

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

use fake::{Cluster, Plan};
use serde_json::Value;

/// Runs `kv` with these arguments and this on standard input.
fn kv_with(cluster: &Cluster, args: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kv"))
        .env("KV_ENDPOINTS", cluster.url())
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    // A process that does not read its input may be gone already.
    let _unread = child.stdin.take().expect("piped").write_all(input);
    child.wait_with_output().expect("it ends")
}

fn kv(cluster: &Cluster, args: &[&str]) -> Output {
    kv_with(cluster, args, b"")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("no signal")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("JSON: {output:?}"))
}

#[test]
fn a_pipe_gets_the_exact_bytes() {
    let cluster = Cluster::start(3);
    let value = b"\x00line\nno newline at the end \xff";
    let put = kv_with(&cluster, &["put", "hello", "-"], value);
    assert_eq!((code(&put), put.stdout.as_slice()), (0, b"1\n".as_slice()), "{put:?}");
    let get = kv(&cluster, &["get", "hello"]);
    assert_eq!((code(&get), get.stdout.as_slice()), (0, value.as_slice()));
    let get = json(&kv(&cluster, &["get", "hello", "-o", "json"]));
    assert_eq!((&get["key"], &get["revision"]), (&"hello".into(), &1.into()));
    assert!(get["value_hex"].as_str().unwrap().ends_with("ff"));
}

#[test]
fn exit_codes_tell_what_happened() {
    let cluster = Cluster::start(1);
    let absent = kv(&cluster, &["get", "nothing"]);
    assert_eq!((code(&absent), absent.stdout.len()), (3, 0));
    assert_eq!(code(&kv(&cluster, &["put", "a", "1", "--if-absent"])), 0);
    let conflict = kv(&cluster, &["put", "a", "2", "--if-absent"]);
    assert_eq!(code(&conflict), 4);
    assert!(text(&conflict.stderr).contains("Read the key"), "{conflict:?}");
    assert_eq!(code(&kv(&cluster, &["put", "a", "2", "--if-revision", "1"])), 0);
    assert_eq!(code(&kv(&cluster, &["put", "", "2"])), 2);
    assert_eq!(code(&kv(&cluster, &["put", "a"])), 2);
    assert_eq!(code(&kv(&cluster, &["--endpoints", "nowhere", "get", "a"])), 2);
    let nobody = kv(&cluster, &["--endpoints", "127.0.0.1:1", "--timeout", "100ms", "get", "a"]);
    assert_eq!(code(&nobody), 5);
    assert!(text(&nobody.stderr).contains("KV_ENDPOINTS"), "{nobody:?}");

    cluster.store.lock().plans.push_back(Plan::Silence);
    let unknown = kv(&cluster, &["--timeout", "300ms", "put", "a", "3"]);
    assert_eq!(code(&unknown), 8, "{unknown:?}");
    assert!(text(&unknown.stderr).contains("once or not at all"), "{unknown:?}");

    assert_eq!(code(&kv(&cluster, &["del", "a"])), 0);
    assert_eq!(kv(&cluster, &["del", "a", "-o", "table"]).stdout, b"OK  the key was absent, nothing changed\n");
}

#[test]
fn status_shows_nodes_and_shards_and_can_wait() {
    let cluster = Cluster::start(3);
    let status = kv(&cluster, &["status", "--wait", "5s"]);
    assert_eq!(code(&status), 0, "{status:?}");
    let shown = text(&status.stdout);
    assert!(shown.contains("0 (meta)") && shown.contains("1: 0  2: 1  3: 2"), "{shown}");
    let status = json(&kv(&cluster, &["status", "-o", "json"]));
    assert_eq!((&status["whole"], &status["shards"][3]["leader"]), (&true.into(), &1.into()));

    cluster.store.lock().leaders.insert(2, 0);
    let waited = kv(&cluster, &["status", "--wait", "300ms"]);
    assert_eq!(code(&waited), 6);
    assert!(text(&waited.stderr).contains("no leader: shard 2"), "{waited:?}");
}

#[test]
fn a_benchmark_says_what_it_did() {
    let cluster = Cluster::start(1);
    let bench = kv(&cluster, &["bench", "--count", "2000", "--keys", "50", "--out", "20", "--fill", "-o", "json"]);
    assert_eq!(code(&bench), 0, "{bench:?}");
    let report = json(&bench);
    let (puts, gets) = (report["put"]["count"].as_u64().unwrap(), report["get"]["count"].as_u64().unwrap());
    assert_eq!((puts + gets, report["get"]["found"].as_u64()), (2_000, Some(gets)));
    assert_eq!(report["errors"], serde_json::json!({}));
    assert!(report["command"].as_str().unwrap().contains("--out 20"));
    let bench = kv(&cluster, &["bench", "--duration", "50ms", "--mix", "get"]);
    assert!(text(&bench.stdout).contains("repeat with: kv --endpoints"), "{bench:?}");
}

#[test]
fn a_shell_gets_its_completion_without_a_cluster() {
    let output = Command::new(env!("CARGO_BIN_EXE_kv")).args(["completion", "bash"]).output().unwrap();
    assert!(output.status.success() && text(&output.stdout).contains("_kv()"));
}
