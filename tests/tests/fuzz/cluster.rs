//! Three running nodes, among whose peers one lies.
//!
//! An input is read as a script: what the liar sends to whom, which messages in flight it alters, when time passes and when
//! clients write. The liar is node 3: it says in its own name, and in its replicas', whatever the protocol has words for;
//! wrong ids, terms and indexes of no log, entries out of order, offers of files that are none, epochs of the future. Its first
//! byte may spare a shard: the liar says nothing of that one, and all three nodes are honest there.
//!
//! What must hold: no turn panics, and no replica comes to what raft holds to be impossible; no node holds more than a bound,
//! and owes nobody more messages than it was sent; a plain lie is refused and counted in the turn that takes it ([`plain`]); a
//! replica that can't go on takes only itself out of service, so that a spared shard keeps its leader and its term and takes
//! writes all the while; and once the liar is silent every shard whose replicas on the other two nodes are in service takes
//! writes.
//!
//! *Caveat*: Raft trusts its voters. A voter that lies in ways that an honest one could have spoken (votes it never gave, an
//! append with other entries, a term far ahead, a state that is none) can cost a shard its safety or its leader, or have its
//! replicas taken out of service; nothing here asks for more.

mod liar;
mod plain;
mod world;

use std::{cell::Cell, fmt::Write as _};

use bytes::Bytes;
use kv_core::{
    io::Input,
    log::record::{EntryKind, LogEntry},
    message::{PeerMessage, RaftMessage, RaftMessageKind},
    types::{Epoch, LogIndex, MapVersion, NodeId, ReplicaId, ShardId, Term},
};
use kv_tests::fuzz::Target;

use self::{liar::Script, world::Cluster};

const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];
/// The node whose messages the script makes up.
const LIAR: NodeId = NodeId(3);
const HONEST: [NodeId; 2] = [NodeId(1), NodeId(2)];
const SHARDS: u32 = 2;
/// What one run may make the three nodes and all that is on its way hold together. Honest ones hold some 300 KiB.
const HELD_BYTES_MAX: u64 = 1024 * 1024;
/// Replicas that believed in greater terms may have been led so far from each other that they refuse each other's.
const TERM_FIT_MAX: u64 = 1 << 31;
/// Ticks within which, the liar being silent, a shard in service takes a write.
const HEAL_TICKS: usize = 200;
/// Ticks within which a spared shard takes one, whatever the liar says meanwhile.
const SPARED_TICKS: usize = 10;

/// A shard that the liar says nothing of, and how it stood on each node when the lies began.
struct Spared {
    shard: ShardId,
    stood: Vec<(Term, Option<NodeId>)>,
}

impl Spared {
    fn read(byte: u8, cluster: &Cluster) -> Option<Self> {
        let shard = [None, None, None, None, Some(1), Some(1), Some(2), Some(0)][usize::from(byte % 8)];
        shard.map(ShardId).map(|shard| Self { shard, stood: Self::stand(shard, cluster) })
    }

    fn stand(shard: ShardId, cluster: &Cluster) -> Vec<(Term, Option<NodeId>)> {
        let status = NODES.iter().filter_map(|node| cluster.nodes[node].shard_status(shard));
        status.map(|status| (status.term, status.leader)).collect()
    }

    /// Nothing has happened to it, and it takes a write while others are in whatever state the liar has brought them to.
    fn check(&self, cluster: &mut Cluster) {
        let shard = self.shard;
        let stands = Self::stand(shard, cluster);
        assert_eq!(stands, self.stood, "shard {shard}, of which nobody lied, has another leader");
        let out = cluster.quarantined.keys().find(|(_, other)| *other == shard);
        assert_eq!(out, None, "a replica of which nobody lied is out of service");
        let leader = cluster.leader(shard, &NODES).expect("a leader that did not change is there");
        // The meta shard has no keys to write.
        let Some(write) = cluster.write(leader, shard, 10) else { return };
        let is_written = (0..SPARED_TICKS).any(|_| {
            cluster.tick(1);
            cluster.written.contains(&write)
        });
        assert!(is_written, "shard {shard}, of which nobody lied, takes no writes");
    }
}

/// The liar is silent: every shard whose replicas on the others are in service takes a write. How many there were.
fn heal(cluster: &mut Cluster) -> u64 {
    cluster.is_silent = true;
    for node in HONEST {
        let inputs = cluster.inputs.get_mut(&node).unwrap();
        inputs.retain(|input| !matches!(input, Input::Peer { from, .. } if *from == LIAR));
    }
    let is_fit = |node: &NodeId, shard| {
        let status = cluster.nodes[node].shard_status(shard).unwrap();
        !status.quarantined && status.term.0 < TERM_FIT_MAX
    };
    let fit: Vec<ShardId> = (1..=u64::from(SHARDS))
        .map(ShardId)
        // A state that the liar gave may stand where no other log reaches, and nobody has files to give here.
        .filter(|shard| HONEST.iter().all(|node| is_fit(node, *shard)) && !cluster.installed.contains(shard))
        .collect();
    let mut healed = 0;
    for shard in fit {
        // A leader of before may be deposed only now; what the liar had said may come to light only now.
        let mut writes = Vec::new();
        let is_written = |cluster: &Cluster, writes: &[_]| writes.iter().any(|write| cluster.written.contains(write));
        let is_over = (0..HEAL_TICKS).any(|tick| {
            if let Some(leader) = cluster.leader(shard, &HONEST).filter(|_| tick % 4 == 0) {
                writes.extend(cluster.write(leader, shard, 10));
            }
            cluster.tick(1);
            is_written(cluster, &writes) || cluster.quarantined.keys().any(|(_, other)| *other == shard)
        });
        let status = HONEST.map(|node| cluster.nodes[&node].shard_status(shard));
        assert!(is_over, "shard {shard} takes no writes: {status:#?}");
        healed += u64::from(is_written(cluster, &writes));
    }
    healed
}

/// What came of all runs, so that nobody takes checks for passed that were never made.
#[derive(Default)]
struct Sums {
    runs: Cell<u64>,
    plain_lies: Cell<u64>,
    spared: Cell<u64>,
    healed: Cell<u64>,
    out_of_service: Cell<u64>,
    held_bytes_max: Cell<u64>,
}

impl Sums {
    fn add(sum: &Cell<u64>, count: u64) {
        sum.set(sum.get() + count);
    }
}

fn run(input: &[u8], sums: &Sums) -> String {
    let mut cluster = Cluster::start();
    let mut script = Script(input);
    let spared = Spared::read(script.byte(), &cluster);
    while !script.0.is_empty() {
        cluster.step(&mut script, spared.as_ref().map(|spared| spared.shard));
    }
    cluster.settle();
    if let Some(spared) = &spared {
        spared.check(&mut cluster);
    }
    let healed = heal(&mut cluster);
    Sums::add(&sums.runs, 1);
    Sums::add(&sums.plain_lies, cluster.plain_lies);
    Sums::add(&sums.spared, u64::from(spared.is_some()));
    Sums::add(&sums.healed, healed);
    Sums::add(&sums.out_of_service, cluster.quarantined.len() as u64);
    // What stands in one line is news as a whole.
    let out: Vec<_> = cluster.quarantined.iter().map(|((_, shard), reason)| (*shard == ShardId(0), reason)).collect();
    let mut said = format!("healed {}, out of service {out:?}\n", "x".repeat(healed as usize));
    for reason in cluster.refused.keys() {
        let _ = writeln!(said, "refused: {reason}");
    }
    said
}

#[test]
fn three_nodes() {
    // Scripts of 8 to 320 bytes, which are up to some 40 lies; each way to spare a shard as often.
    let mut random = fastrand::Rng::with_seed(3);
    let mut script =
        |first: u8| std::iter::once(first).chain((0..8 * u16::from(first)).map(|_| random.u8(..))).collect();
    let seeds = (1..=40).map(&mut script).collect();
    let target = Target { name: "cluster", runs: 2_500, bytes_max: 1_024, seeds };
    let sums = Sums::default();
    target.run(|input| {
        let mut said = String::new();
        let info = allocation_counter::measure(|| said = run(input, &sums));
        assert!(info.bytes_max <= HELD_BYTES_MAX, "three nodes held {} bytes", info.bytes_max);
        sums.held_bytes_max.set(sums.held_bytes_max.get().max(info.bytes_max));
        said
    });
    let [runs, plain_lies, spared, healed, out, held] =
        [&sums.runs, &sums.plain_lies, &sums.spared, &sums.healed, &sums.out_of_service, &sums.held_bytes_max]
            .map(Cell::get);
    println!(
        "  of {runs} runs {spared} spared a shard; {plain_lies} plain lies were refused and counted, {out} replicas went out of \
         service, {healed} shards took writes afterwards; at most {held} bytes were held"
    );
    // Of an input that is run alone nothing of the kind is asked.
    if runs > 100 {
        assert!(plain_lies > runs && spared > runs / 8 && healed > runs / 4 && out > 0, "the runs prove little");
    }
}

#[test]
fn an_honest_cluster_refuses_nothing() {
    let mut cluster = Cluster::start();
    for round in 0..40_usize {
        for node in HONEST {
            cluster.write(node, ShardId(1 + round as u64 % u64::from(SHARDS)), 600);
        }
        cluster.tick(1);
    }
    heal(&mut cluster);
    assert!(cluster.written.len() > 20, "{} writes", cluster.written.len());
    assert_eq!((cluster.refused.len(), cluster.quarantined.len()), (0, 0), "{:?}", cluster.quarantined);
}

/// A heartbeat as the liar's replica could send it to a node, if it led.
fn heartbeat(cluster: &Cluster, node: NodeId, shard: ShardId) -> RaftMessage {
    let (to, from, term, _, commit) = cluster.truth(node, shard);
    RaftMessage {
        kind: RaftMessageKind::Heartbeat,
        to,
        from,
        term: Term(term),
        log_term: Term(0),
        index: LogIndex(0),
        entries: Vec::new(),
        commit: LogIndex(commit),
        commit_term: Term(0),
        snapshot: None,
        request_snapshot: LogIndex(0),
        reject: false,
        reject_hint: LogIndex(0),
        context: Bytes::new(),
        priority: 0,
    }
}

fn from_liar(shard: ShardId, message: RaftMessage) -> Input {
    Input::Peer { from: LIAR, message: PeerMessage::Raft { shard, message } }
}

#[test]
#[should_panic(expected = "of 1 plain lies")]
fn a_lie_that_is_not_counted_is_found() {
    let cluster = Cluster::start();
    let message = RaftMessage { term: Term(0), ..heartbeat(&cluster, NodeId(1), ShardId(1)) };
    let node = &cluster.nodes[&NodeId(1)];
    let lies = plain::lies(node, &[from_liar(ShardId(1), message)]);
    plain::check(node, &lies, &[]);
}

#[test]
#[should_panic(expected = "has another leader")]
fn a_spared_shard_that_is_not_left_alone_is_found() {
    let mut cluster = Cluster::start();
    let spared = Spared::read(4, &cluster).unwrap();
    let other = NODES.into_iter().find(|node| cluster.leader(spared.shard, &[*node]).is_none()).unwrap();
    let honest = heartbeat(&cluster, other, spared.shard);
    let leads = RaftMessage { kind: RaftMessageKind::TimeoutNow, ..honest };
    let from = cluster.leader(spared.shard, &NODES).unwrap();
    let leads = RaftMessage { from: world::row(spared.shard).replica_on(from).unwrap(), ..leads };
    let message = PeerMessage::Raft { shard: spared.shard, message: leads };
    cluster.give(other, Input::Peer { from, message });
    cluster.tick(1);
    spared.check(&mut cluster);
}

#[test]
fn each_of_the_plainest_lies_is_refused_and_counted() {
    let mut cluster = Cluster::start();
    let (node, shard) = (NodeId(1), ShardId(1));
    let (to, _, term, last, _) = cluster.truth(node, shard);
    let honest = heartbeat(&cluster, node, shard);
    let entry = |index, entry_term| LogEntry {
        index: LogIndex(index),
        term: Term(entry_term),
        kind: EntryKind::Commands,
        context: Bytes::new(),
        data: Bytes::new(),
    };
    let append = RaftMessage { kind: RaftMessageKind::Append, ..honest.clone() };
    let lies = vec![
        RaftMessage { to: ReplicaId(99), ..honest.clone() },
        RaftMessage { from: to, ..honest.clone() },
        RaftMessage { term: Term(0), ..honest.clone() },
        RaftMessage { term: Term(u64::MAX), ..honest.clone() },
        RaftMessage { index: LogIndex(u64::MAX), log_term: Term(1), ..append.clone() },
        RaftMessage { index: LogIndex(last + 7), entries: vec![entry(last + 8, term)], ..append.clone() },
        RaftMessage { request_snapshot: LogIndex(1), ..honest.clone() },
        RaftMessage { commit: LogIndex(last + 1), ..honest.clone() },
        RaftMessage { entries: vec![entry(5, term)], ..honest.clone() },
        RaftMessage { entries: vec![entry(2, term), entry(1, term)], log_term: Term(1), ..append.clone() },
        RaftMessage { entries: vec![entry(1, term + 1)], log_term: Term(1), ..append.clone() },
        RaftMessage { kind: RaftMessageKind::Snapshot, ..honest },
    ];
    for (number, message) in (1..).zip(lies) {
        let shown = format!("{message:?}");
        cluster.give(node, from_liar(shard, message));
        cluster.settle();
        assert_eq!(cluster.refused.values().sum::<u64>(), number, "{shown}");
    }
    let unknown = PeerMessage::ReadProbe { shard: ShardId(77), probe: 1 };
    let other = PeerMessage::DescribeNode(cluster.nodes[&node].map().nodes[0].clone());
    let mut map = cluster.nodes[&node].map().clone();
    map.version = MapVersion(1_000_000);
    map.shards[1].epoch = Epoch(9);
    let all: u64 = cluster.refused.values().sum();
    for message in [unknown, other, PeerMessage::MapTell(map)] {
        cluster.give(node, Input::Peer { from: LIAR, message });
    }
    cluster.settle();
    assert_eq!(cluster.refused.values().sum::<u64>(), all + 3, "{:?}", cluster.refused);
    heal(&mut cluster);
    assert!(cluster.quarantined.is_empty());
}
