//! What an application takes in with the client: no consensus, no store.

use std::process::Command;

#[test]
fn the_client_links_no_consensus_and_no_store() {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "-p", "kv-client", "-e", "normal", "--prefix", "none", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    let tree = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && tree.contains("tonic v"), "{output:?}");
    let unwanted = ["raft", "raft-proto", "protobuf", "sled", "slog", "kv-server"];
    for name in tree.lines().filter_map(|line| line.split(' ').next()) {
        assert!(!unwanted.contains(&name), "the client depends on {name}");
    }
}
