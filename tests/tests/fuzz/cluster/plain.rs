//! Plain lies: messages that no honest node sends, whatever has happened before. Which these are is written down here a second
//! time, apart from the core: each must be refused and counted, for its sender and its shard, in the turn that takes it.
//!
//! *Left out*: what is a lie only beside what the node knows just then (a commit index beyond its log, an old leader's offer),
//! and replicas that are out of service, which hear nobody.

use std::collections::BTreeMap;

use kv_core::{
    checkpoint::job::Manifest,
    io::{Input, Notice, Output},
    log::record::EntryKind,
    message::{MARKS_TOLD_MAX, PeerMessage, RaftMessage, RaftMessageKind},
    node::Node,
    shard_map::{ShardMap, ShardRow},
    types::{LogIndex, NodeId, ShardId, Term},
};
use kv_tests::disk::MemoryStore;

use super::world::FOUNDING;

/// No log comes to such an index.
const INDEX_MAX: u64 = u64::MAX / 2;
/// Replicas take over terms that are far ahead, but not as far as this within one run.
const TERM_MAX: u64 = 1 << 62;

/// By sender and shard.
pub(super) type Lies = BTreeMap<(NodeId, Option<ShardId>), u64>;

/// The plain lies among what a node is about to take.
pub(super) fn lies(at: &Node<MemoryStore>, inputs: &[Input]) -> Lies {
    let mut lies = Lies::new();
    for input in inputs {
        let Input::Peer { from, message } = input else { continue };
        let about = message.shard();
        if is_plain_lie(at.id(), *from, message) && hears(at, about) {
            *lies.entry((*from, about)).or_default() += 1;
        }
    }
    lies
}

/// Each of them was refused and counted in the turn that gave these outputs; how many there were.
pub(super) fn check(at: &Node<MemoryStore>, lies: &Lies, outputs: &[Output]) -> u64 {
    let mut checked = 0;
    for ((from, about), told) in lies.iter().filter(|((_, about), _)| hears(at, *about)) {
        let is_theirs = |output: &&Output| matches!(output, Output::Notice(Notice::Refused { from: whose, shard, reason }) if (whose, shard) == (from, about) && !reason.is_empty());
        let refused = outputs.iter().filter(is_theirs).count() as u64;
        assert!(refused >= *told, "of {told} plain lies of node {from} about {about:?} {refused} were refused");
        checked += told;
    }
    checked
}

/// A replica that is out of service before or after a turn need not have judged what came in it.
fn hears(at: &Node<MemoryStore>, about: Option<ShardId>) -> bool {
    !about.and_then(|shard| at.shard_status(shard)).is_some_and(|status| status.quarantined)
}

fn is_plain_lie(to: NodeId, from: NodeId, message: &PeerMessage) -> bool {
    let row = message.shard().and_then(|shard| FOUNDING.1.shards.iter().find(|row| row.shard == shard));
    match (message, row) {
        (PeerMessage::MapTell(map), _) => is_foreign(map),
        (PeerMessage::DescribeNode(own), _) => own.node != from || own.weight == 0,
        // Who asks for what is not there gets nothing. A round of leadership is about several shards.
        (
            PeerMessage::MapAsk { .. }
            | PeerMessage::StateAsk { .. }
            | PeerMessage::SnapshotWant { .. }
            | PeerMessage::SnapshotEnd { .. }
            | PeerMessage::LeadershipAsk { .. }
            | PeerMessage::LeadershipAnswer { .. },
            _,
        ) => false,
        (_, None) => true,
        (PeerMessage::Raft { message, .. }, Some(row)) => {
            message.snapshot.is_some() || is_plain_raft_lie(row, to, from, message)
        }
        (PeerMessage::Marks { report, .. }, Some(row)) => {
            let rises = report.checkpoints.is_sorted_by(|one, next| one.index < next.index);
            !rises || report.checkpoints.len() > MARKS_TOLD_MAX || row.replica_on(from).is_none()
        }
        (PeerMessage::SnapshotOffer { manifest, message, .. }, Some(row)) => {
            let mark = message.as_ref().and_then(|message| message.snapshot.as_ref());
            let differs = mark.is_some_and(|mark| (mark.index, mark.term) != (manifest.index, manifest.term));
            let message = message.as_ref();
            is_no_manifest(manifest)
                || differs
                || message.is_some_and(|message| mark.is_none() || is_plain_raft_lie(row, to, from, message))
        }
        _ => false,
    }
}

/// Nothing of the founding changes but how nodes are reached.
fn is_foreign(map: &ShardMap) -> bool {
    let known = &FOUNDING.1;
    let ids = |map: &ShardMap| map.nodes.iter().map(|node| (node.node, node.incarnation)).collect::<Vec<_>>();
    map.shards != known.shards || ids(map) != ids(known) || map.version.0 > INDEX_MAX
}

fn is_no_manifest(manifest: &Manifest) -> bool {
    let is_name = |name: &str| name.starts_with("base-") || name.starts_with("delta-");
    manifest.files.is_empty()
        || !manifest.files.iter().all(|file| is_name(&file.name))
        || manifest.index.0 > INDEX_MAX
        || manifest.term.0 == 0
        || manifest.term.0 >= TERM_MAX
}

fn is_plain_raft_lie(row: &ShardRow, to: NodeId, from: NodeId, message: &RaftMessage) -> bool {
    let mark = message.snapshot.as_ref();
    let indexes = [message.index, message.commit, message.reject_hint, mark.map_or(LogIndex(0), |mark| mark.index)];
    let terms = [message.term, message.log_term, message.commit_term, mark.map_or(Term(0), |mark| mark.term)];
    row.replica_on(to) != Some(message.to)
        || row.replica_on(from) != Some(message.from)
        || message.term == Term(0)
        || indexes.iter().any(|index| index.0 > INDEX_MAX)
        || terms.iter().any(|term| term.0 >= TERM_MAX)
        || mark.is_some() != (message.kind == RaftMessageKind::Snapshot)
        || message.request_snapshot != LogIndex(0)
        || match message.kind {
            RaftMessageKind::Append => has_no_place(message),
            // Raft looks at no entries of these, and may drop them unseen.
            RaftMessageKind::Heartbeat | RaftMessageKind::TimeoutNow => false,
            _ => !message.entries.is_empty(),
        }
}

/// Whether the entries can't stand in a log behind the one that they are said to follow.
fn has_no_place(append: &RaftMessage) -> bool {
    let places = [(append.index, append.log_term)].into_iter();
    let places: Vec<_> = places.chain(append.entries.iter().map(|entry| (entry.index, entry.term))).collect();
    append.log_term == Term(0)
        || places.windows(2).any(|two| two[1].0.0 != two[0].0.0 + 1 || two[1].1 < two[0].1)
        || append.entries.iter().any(|entry| entry.term > append.term || entry.kind != EntryKind::Commands)
}
