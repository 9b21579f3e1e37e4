//! Plain lies: messages that no honest node sends, whatever has happened before. Which these are is written down here a second
//! time, apart from the core: each must be refused and counted, for its sender and its shard, in the turn that takes it. A list
//! of lies about several shards is one.
//!
//! *Left out*: what is a lie only beside what the node knows just then (a commit index beyond its log, an old leader's offer),
//! and replicas that are out of service, which hear nobody.

use std::collections::BTreeMap;

use kv_core::{
    checkpoint::job::Manifest,
    io::{Input, Notice, Output},
    log::record::EntryKind,
    message::{
        ClaimedLeadership, LEADERSHIPS_MAX, LeadershipRound, MARKS_TOLD_MAX, PeerMessage, RaftMessage, RaftMessageKind,
    },
    node::Node,
    shard_map::{ShardMap, ShardRow},
    types::{LogIndex, NodeId, ShardId, Term},
};
use kv_tests::disk::MemoryStore;

/// No log comes to such an index.
const INDEX_MAX: u64 = u64::MAX / 2;
/// Replicas take over terms that are far ahead, but not as far as this within one run.
const TERM_MAX: u64 = 1 << 62;

/// By sender and by what they are about.
pub(super) type Lies = BTreeMap<(NodeId, About), u64>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum About {
    One(Option<ShardId>),
    /// A list, which is refused for one of its shards.
    Several,
}

/// Questions to leaders that a node has just asked: of whom, and their numbers.
pub(super) type FreshProbes = BTreeMap<ShardId, (NodeId, u64)>;

/// What a node has asked others.
#[derive(Default)]
pub(super) struct Asked {
    /// The last round of leadership.
    pub(super) round: Option<LeadershipRound>,
    /// What its last turn asked.
    pub(super) probes: FreshProbes,
}

impl Asked {
    /// Whether this answers, in the place of who was asked, a question that is still open. It is as long as nothing has come that
    /// could have ended it.
    fn answers_for_another(&self, from: NodeId, message: &PeerMessage) -> bool {
        let PeerMessage::ReadProbeAnswer { shard, probe, .. } = message else { return false };
        self.probes.get(shard).is_some_and(|(of, asked)| of != &from && asked == probe)
    }

    /// What an input that comes before others may have ended.
    fn end(&mut self, input: &Input) {
        match input {
            Input::Request(_) | Input::Synced(_) => {}
            Input::Peer { from, message } if self.answers_for_another(*from, message) => {}
            Input::Peer { message, .. } => self.probes.retain(|shard, _| message.shard() != Some(*shard)),
            _ => self.probes.clear(),
        }
    }
}

/// The plain lies among what a node is about to take.
pub(super) fn lies(at: &Node<MemoryStore>, map: &ShardMap, mut asked: Asked, inputs: &[Input]) -> Lies {
    let mut lies = Lies::new();
    for input in inputs {
        let answers_for_another = match input {
            Input::Peer { from, message } => asked.answers_for_another(*from, message),
            _ => false,
        };
        asked.end(input);
        let Input::Peer { from, message } = input else { continue };
        let (is_lie, about) = match message {
            PeerMessage::LeadershipAsk { leaderships, .. } => {
                (lies_asking(map, at.id(), *from, leaderships), About::Several)
            }
            PeerMessage::LeadershipAnswer { round, shards } => {
                let lies =
                    asked.round.is_some_and(|asked| lies_answering(map, at.id(), *from, (asked, *round), shards));
                (lies, About::Several)
            }
            message => (answers_for_another || is_plain_lie(map, at.id(), *from, message), About::One(message.shard())),
        };
        if is_lie && hears(at, about) {
            *lies.entry((*from, about)).or_default() += 1;
        }
    }
    lies
}

/// Each of them was refused and counted in the turn that gave these outputs; how many there were.
pub(super) fn check(at: &Node<MemoryStore>, lies: &Lies, outputs: &[Output]) -> u64 {
    let refused = |whose: &NodeId, about: Option<Option<ShardId>>| {
        let is_theirs = |output: &&Output| match output {
            Output::Notice(Notice::Refused { from, shard, reason }) => {
                from == whose && about.is_none_or(|about| *shard == about) && !reason.is_empty()
            }
            _ => false,
        };
        outputs.iter().filter(is_theirs).count() as u64
    };
    let heard = || lies.iter().filter(|((_, about), _)| hears(at, *about));
    for ((from, about), told) in heard() {
        let (told, refused) = match about {
            About::One(shard) => (*told, refused(from, Some(*shard))),
            About::Several => {
                let all = heard().filter(|((other, _), _)| other == from).map(|(_, told)| told).sum();
                (all, refused(from, None))
            }
        };
        assert!(refused >= told, "of {told} plain lies of node {from} about {about:?} {refused} were refused");
    }
    heard().map(|(_, told)| told).sum()
}

/// A replica that is out of service before or after a turn need not have judged what came in it.
fn hears(at: &Node<MemoryStore>, about: About) -> bool {
    let About::One(Some(shard)) = about else { return true };
    !at.shard_status(shard).is_some_and(|status| status.quarantined)
}

/// The row of a shard that a node and another both hold.
fn shared_row(map: &ShardMap, shard: ShardId, nodes: [NodeId; 2]) -> Option<&ShardRow> {
    let row = map.shards.iter().find(|row| row.shard == shard)?;
    nodes.iter().all(|node| row.replica_on(*node).is_some()).then_some(row)
}

fn lies_asking(map: &ShardMap, to: NodeId, from: NodeId, claimed: &[ClaimedLeadership]) -> bool {
    let is_lie = |claimed: &ClaimedLeadership| {
        let replica = shared_row(map, claimed.shard, [to, from]).and_then(|row| row.replica_on(to));
        replica != Some(claimed.replica) || claimed.term == Term(0) || claimed.term.0 >= TERM_MAX
    };
    claimed.is_empty() || claimed.len() > LEADERSHIPS_MAX || claimed.iter().any(is_lie)
}

fn lies_answering(
    map: &ShardMap,
    to: NodeId,
    from: NodeId,
    (asked, answered): (LeadershipRound, LeadershipRound),
    shards: &[ShardId],
) -> bool {
    // One of an earlier start may be late.
    let is_lie =
        answered.number > asked.number || shards.iter().any(|shard| shared_row(map, *shard, [to, from]).is_none());
    shards.is_empty() || shards.len() > LEADERSHIPS_MAX || (answered.run == asked.run && is_lie)
}

/// Those about several shards are judged elsewhere.
pub(super) fn is_plain_lie(map: &ShardMap, to: NodeId, from: NodeId, message: &PeerMessage) -> bool {
    let row = message.shard().and_then(|shard| shared_row(map, shard, [to, from]));
    match (message, row) {
        (PeerMessage::MapTell(told), _) => is_foreign(map, told),
        (PeerMessage::DescribeNode(own), _) => own.node != from || own.weight == 0,
        (PeerMessage::MapAsk { .. } | PeerMessage::LeadershipAsk { .. } | PeerMessage::LeadershipAnswer { .. }, _) => {
            false
        }
        (_, None) => true,
        (PeerMessage::ReadProbeAnswer { index, .. }, _) => index.is_some_and(|index| index.0 > INDEX_MAX),
        (PeerMessage::Raft { message, .. }, Some(row)) => {
            message.snapshot.is_some() || is_plain_raft_lie(row, to, from, message)
        }
        (PeerMessage::Marks { report, .. }, Some(_)) => {
            let rises = report.checkpoints.is_sorted_by(|one, next| one.index < next.index);
            !rises || report.checkpoints.len() > MARKS_TOLD_MAX
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
fn is_foreign(known: &ShardMap, told: &ShardMap) -> bool {
    let ids = |map: &ShardMap| map.nodes.iter().map(|node| (node.node, node.incarnation)).collect::<Vec<_>>();
    told.shards != known.shards || ids(told) != ids(known) || told.version.0 > INDEX_MAX
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
