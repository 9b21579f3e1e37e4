//! Offers of snapshots that no honest leader makes.

use super::*;
use crate::{
    checkpoint::job::{FileDescription, Manifest},
    io::Notice,
    message::{RaftMessage, SnapshotMark},
};

/// A cluster of three with entries in shard 1, its leader, and another node.
fn cluster() -> (Cluster, NodeId, NodeId) {
    let mut cluster = Cluster::start(3, 1, &Settings::default());
    let leader = cluster.leader(ShardId(1));
    for name in ["a", "b", "c"] {
        cluster.answer(leader, ShardId(1), put(write(name, "1"), Durability::Sync)).unwrap();
    }
    let follower = *cluster.nodes.keys().find(|node| **node != leader).unwrap();
    let (of_leader, of_follower) = (status(&cluster, leader), status(&cluster, follower));
    assert_eq!((of_leader.commit, of_leader.term), (of_follower.commit, of_follower.term));
    assert_eq!((of_follower.commit, of_follower.term), (of_follower.last_index, of_follower.last_term));
    (cluster, leader, follower)
}

fn status(cluster: &Cluster, node: NodeId) -> ShardStatus {
    cluster.nodes[&node].shard_status(ShardId(1)).unwrap()
}

fn header(cluster: &Cluster, node: NodeId) -> StateHeader {
    cluster.nodes[&node].replicas.get(ShardId(1)).unwrap().state().unwrap().header().clone()
}

/// The leader's offer of a snapshot at this place, in a message of this term.
fn offer(cluster: &Cluster, leader: NodeId, to: NodeId, (index, term): (LogIndex, Term), of: Term) -> Input {
    let (from, to) = (status(cluster, leader).replica, status(cluster, to).replica);
    let configuration = header(cluster, leader).configurations.last().unwrap().1.clone();
    let message = RaftMessage {
        kind: RaftMessageKind::Snapshot,
        to,
        from,
        term: of,
        log_term: Term(0),
        index: LogIndex(0),
        entries: Vec::new(),
        commit: LogIndex(0),
        commit_term: Term(0),
        snapshot: Some(Box::new(SnapshotMark { index, term, configuration })),
        request_snapshot: LogIndex(0),
        reject: false,
        reject_hint: LogIndex(0),
        context: Bytes::new(),
        priority: 0,
    };
    let files = vec![FileDescription { name: "base-1".to_owned(), bytes: 100, hash: 1 }];
    let manifest = Manifest { files, index, term, digest: Digest(0) };
    let message =
        PeerMessage::SnapshotOffer { shard: ShardId(1), stream: 7, manifest, message: Some(Box::new(message)) };
    Input::Peer { from: leader, message }
}

/// What a node says and does about it.
fn take(cluster: &mut Cluster, node: NodeId, input: Input) -> Vec<Output> {
    let (mut inputs, mut outputs) = (vec![input], Vec::new());
    cluster.now = cluster.now.plus_micros(10);
    cluster.nodes.get_mut(&node).unwrap().turn(cluster.now, &mut inputs, &mut outputs);
    outputs
}

fn stages(outputs: &[Output]) -> bool {
    outputs
        .iter()
        .any(|output| matches!(output, Output::Checkpoint(job) if matches!(**job, CheckpointJob::Stage { .. })))
}

/// Whether the sender is told how its stream has ended.
fn ends(outputs: &[Output], well: bool) -> bool {
    outputs.iter().any(|output| {
        let Output::Send { message: PeerMessage::SnapshotEnd { complete, .. }, .. } = output else { return false };
        *complete == well
    })
}

fn quarantined(outputs: &[Output]) -> Option<&str> {
    outputs.iter().find_map(|output| match output {
        Output::Notice(Notice::Quarantined { reason, .. }) => Some(reason.as_str()),
        _ => None,
    })
}

#[test]
fn a_snapshot_of_what_is_here_is_answered_without_its_files() {
    let (mut cluster, leader, follower) = cluster();
    let here = status(&cluster, follower);
    let offer = offer(&cluster, leader, follower, (here.commit, here.last_term), here.term);
    let outputs = take(&mut cluster, follower, offer);
    assert!(ends(&outputs, true) && !stages(&outputs) && quarantined(&outputs).is_none(), "{outputs:?}");
}

#[test]
fn a_snapshot_that_differs_from_what_is_committed_takes_the_replica_out_of_service() {
    for below in 0..2 {
        let (mut cluster, leader, follower) = cluster();
        let here = status(&cluster, follower);
        let at = LogIndex(here.commit.0 - below);
        // Raft would put the one at the commit index in place of entries that are decided and applied.
        let offer = offer(&cluster, leader, follower, (at, Term(here.last_term.0 + 1)), Term(here.term.0 + 1));
        let outputs = take(&mut cluster, follower, offer);
        assert!(quarantined(&outputs).is_some_and(|reason| reason.contains("committed here")), "{outputs:?}");
        assert!(ends(&outputs, false) && !stages(&outputs), "{outputs:?}");
        assert_eq!(status(&cluster, follower).commit, here.commit);
    }
}

#[test]
fn a_snapshot_that_differs_from_what_was_committed_while_its_files_came_does_too() {
    let (mut cluster, leader, follower) = cluster();
    let here = status(&cluster, follower);
    // It stands right behind what is here, and as yet nothing can be said against it.
    let (index, term) = (here.last_index.next(), Term(here.term.0 + 1));
    let offer = offer(&cluster, leader, follower, (index, term), term);
    let Input::Peer { message: PeerMessage::SnapshotOffer { manifest, .. }, .. } = &offer else { unreachable!() };
    let staging = manifest.staging();
    let outputs = take(&mut cluster, follower, offer);
    assert!(stages(&outputs), "{outputs:?}");

    // Meanwhile that index is decided, with an entry of another term.
    let header = header(&cluster, leader);
    cluster.perform(follower, outputs);
    cluster.other_jobs.clear();
    cluster.run_ticks(60);
    let now_leads = cluster.leader(ShardId(1));
    cluster.answer(now_leads, ShardId(1), put(write("d", "1"), Durability::Sync)).unwrap();
    let after = status(&cluster, follower);
    assert!(after.commit >= index, "{after:?}");

    let replica = after.replica;
    let staged = CheckpointEvent::Staged { replica, staging, lacking: Vec::new() };
    let outputs = take(&mut cluster, follower, Input::Checkpoint(Box::new(staged)));
    assert!(
        outputs
            .iter()
            .any(|output| matches!(output, Output::Checkpoint(job) if matches!(**job, CheckpointJob::Verify { .. }))),
        "{outputs:?}"
    );
    let header = StateHeader { index, term, ..header };
    let verified = CheckpointEvent::Verified { replica, staging, header };
    let outputs = take(&mut cluster, follower, Input::Checkpoint(Box::new(verified)));
    assert!(quarantined(&outputs).is_some(), "{outputs:?}");
    assert!(ends(&outputs, false), "{outputs:?}");
}
