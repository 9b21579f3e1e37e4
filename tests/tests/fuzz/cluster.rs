//! Three running nodes, among whose peers one lies.
//!
//! An input is read as a script: what the liar sends to whom, which messages in flight it alters, when time passes, and when
//! clients of the honest nodes write and read ([`clients`]). The liar is node 3: it says in its own name, and in its replicas',
//! whatever the protocol has words for; wrong ids, terms and indexes of no log, entries out of order, offers of files that are
//! none, epochs of the future, rounds of leadership that nobody asked and answers to the questions of others ([`reads`]). Beside
//! it runs an honest node 3, from which what the liar alters comes. A link may be slow for a while, so that a replica is asked for
//! what it does not know yet to be decided.
//!
//! # What must hold
//!
//! Whatever is said: no turn panics, and no replica comes to what raft holds to be impossible; no node holds more than a bound,
//! and owes nobody more messages than it was sent; a plain lie is refused and counted in the turn that takes it ([`plain`]); a
//! replica that can't go on takes only itself out of service; no read shows what nobody wrote to that key; and once the liar is
//! silent every shard whose replicas on the other two nodes are in service takes writes, and reads see them.
//!
//! Some lies must be harmless, and a shard that hears no others of it is *spared* ([`spared`]): it keeps its leader and its term, takes
//! writes, and answers every read rightly all the while, whatever comes of the shards beside it. These are
//! - all that is said of a shard by a node that does not hold it;
//! - plain lies: other groups' and other replicas' ids, terms and indexes that no log reaches, entries out of order, an empty or
//!   endless list, a round that was never asked, an answer to what another was asked;
//! - all that a member asks for: whether it is still known as a leader (its claim may be of any term), an index to read at, a state, a
//!   piece of a file, a map;
//! - the answer to a round of leadership, once or a hundred times, as long as nobody else was elected: then it is true.
//!
//! # What was never promised
//!
//! Raft trusts its voters. A voter that lies in ways that an honest one could have spoken (votes it never gave, an append with
//! other entries, a term far ahead, a state that is none, marks of another) can cost *its own* shards their safety or their leader, or
//! have their replicas taken out of service. So it is with reads: a voter that elected a new leader and still recognises the old
//! one has it show old values, and a leader that tells a follower too small an index has it show old ones as new. Nothing here asks for
//! more of such shards than the list above does of all.

mod clients;
mod liar;
mod plain;
mod reads;
mod spared;
mod world;

use std::{cell::Cell, fmt::Write as _};

use bytes::Bytes;
use kv_core::{
    io::{Answer, Consistency, Input},
    log::record::{EntryKind, LogEntry},
    message::{ClaimedLeadership, Heartbeat, LeadershipRound, PeerMessage, RaftMessage, RaftMessageKind},
    types::{Entry, Epoch, LogIndex, MapVersion, NodeId, ReplicaId, RequestId, Revision, ShardId, Term},
};
use kv_tests::fuzz::Target;

use self::{
    liar::Script,
    spared::{Spared, Why},
    world::{Cluster, EVERYWHERE},
};

const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];
/// The node whose messages the script makes up.
const LIAR: NodeId = NodeId(3);
const HONEST: [NodeId; 2] = [NodeId(1), NodeId(2)];
/// What one run may make the three nodes and all that is on its way hold together. Honest ones hold some 300 KiB.
const HELD_BYTES_MAX: u64 = 1024 * 1024;
/// Replicas that believed in greater terms may have been led so far from each other that they refuse each other's.
const TERM_FIT_MAX: u64 = 1 << 31;
/// Ticks within which, the liar being silent, a shard in service takes a write, and a read sees it.
const HEAL_TICKS: usize = 200;

/// The liar is silent: every shard whose replicas on the others are in service takes a write. How many there were.
fn heal(cluster: &mut Cluster) -> u64 {
    cluster.is_silent = true;
    cluster.release();
    for node in HONEST {
        let inputs = cluster.inputs.get_mut(&node).unwrap();
        inputs.retain(|input| !matches!(input, Input::Peer { from, .. } if *from == LIAR));
    }
    let is_fit = |node: &NodeId, shard| {
        let status = cluster.nodes[node].shard_status(shard);
        status.is_some_and(|status| !status.quarantined && status.term.0 < TERM_FIT_MAX)
    };
    let fit: Vec<ShardId> = (1..cluster.map().shards.len() as u64)
        .map(ShardId)
        // A state that the liar gave may stand where no other log reaches, and nobody has files to give here.
        .filter(|shard| HONEST.iter().all(|node| is_fit(node, *shard)) && !cluster.installed.contains(shard))
        .collect();
    fit.into_iter().map(|shard| u64::from(heal_shard(cluster, shard))).sum()
}

/// Whether the shard took a write and a read saw it; else a replica of it went out of service only now.
fn heal_shard(cluster: &mut Cluster, shard: ShardId) -> bool {
    // A leader of before may be deposed only now; what the liar had said may come to light only now.
    let (mut writes, mut reads): (Vec<RequestId>, Vec<(RequestId, Revision)>) = (Vec::new(), Vec::new());
    for tick in 0..HEAL_TICKS {
        let written = writes.iter().filter_map(|write| cluster.clients.written.get(write)).max().copied();
        let seen = reads.iter().find_map(|(read, due)| Some((*cluster.clients.read.get(read)?, *due)));
        if let Some((seen, due)) = seen {
            assert!(seen >= due, "shard {shard} shows revision {seen} after {due} was acknowledged");
            return true;
        }
        if cluster.quarantined.keys().any(|(_, other)| *other == shard) || cluster.needs_files(shard, &HONEST) {
            return false;
        }
        if let Some(leader) = cluster.leader(shard, &HONEST).filter(|_| tick % 4 == 0) {
            match written {
                None => writes.extend(cluster.write(leader, shard, 10)),
                Some(due) => {
                    let read = cluster.read(leader, shard, Consistency::Linearizable);
                    reads.extend(read.map(|read| (read, due)));
                }
            }
        }
        cluster.tick(1);
    }
    let status = HONEST.map(|node| cluster.nodes[&node].shard_status(shard));
    panic!("shard {shard} takes no writes, or answers no reads: {status:#?}");
}

/// What came of all runs, so that nobody takes checks for passed that were never made.
#[derive(Default)]
struct Sums {
    runs: Cell<u64>,
    plain_lies: Cell<u64>,
    /// Shards that were spared, by the reason.
    spared: [Cell<u64>; 3],
    reads_judged: Cell<u64>,
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
    let mut script = Script(input);
    let (mut cluster, spared) = Spared::begin(script.byte());
    while !script.0.is_empty() {
        cluster.step(&mut script, spared.as_ref());
    }
    cluster.settle();
    if let Some(spared) = &spared {
        spared.check(&mut cluster);
    }
    let healed = heal(&mut cluster);
    Sums::add(&sums.runs, 1);
    Sums::add(&sums.plain_lies, cluster.plain_lies);
    if let Some(spared) = &spared {
        Sums::add(&sums.spared[spared.why as usize], 1);
    }
    Sums::add(&sums.reads_judged, cluster.clients.reads_judged);
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
    let [runs, plain_lies, reads, healed, out, held] =
        [&sums.runs, &sums.plain_lies, &sums.reads_judged, &sums.healed, &sums.out_of_service, &sums.held_bytes_max]
            .map(Cell::get);
    let [silent, harmless, foreign] =
        [Why::Silent, Why::Harmless, Why::Foreign].map(|why| sums.spared[why as usize].get());
    println!(
        "  of {runs} runs {silent} spared a shard by silence, {harmless} by harmless lies, {foreign} by lies of a node without it, \
         whose {reads} reads were right; {plain_lies} plain lies were refused and counted, {out} replicas went out of service, \
         {healed} shards took writes afterwards; at most {held} bytes were held"
    );
    // Of an input that is run alone nothing of the kind is asked.
    if runs > 100 {
        assert!(plain_lies > runs && healed > runs / 4 && out > 0, "the runs prove little");
        assert!(
            // Inputs that make news are mutated most, whatever they spare: after a million the rarest kind is one in 46.
            silent.min(harmless).min(foreign) > runs / 100 && reads > runs / 2,
            "the runs prove little of what is spared"
        );
    }
}

#[test]
fn an_honest_cluster_refuses_nothing() {
    for mode in [2, 6] {
        let (mut cluster, spared) = Spared::begin(mode);
        let shards = cluster.map().shards.len() as u64;
        (1..shards).for_each(|shard| cluster.clients.judge(ShardId(shard)));
        for round in 0..60 {
            let shard = ShardId(1 + round % (shards - 1));
            for node in NODES {
                cluster.write(node, shard, 600);
                cluster.read(node, shard, Consistency::Linearizable);
                cluster.read(node, shard, Consistency::Bounded { age_micros_max: 50_000 * (1 + round % 3) });
            }
            cluster.tick(usize::from(round % 4 != 0));
        }
        cluster.settle();
        spared.unwrap().check(&mut cluster);
        heal(&mut cluster);
        let clients = &cluster.clients;
        assert!(clients.written.len() > 40, "{} writes", clients.written.len());
        assert!(clients.reads_judged > 100, "{} reads", clients.reads_judged);
        assert_eq!((cluster.refused.len(), cluster.quarantined.len()), (0, 0), "{:?}", cluster.quarantined);
    }
}

/// A heartbeat as the liar's replica could send it to a node, if it led.
fn heartbeat(cluster: &Cluster, node: NodeId, shard: ShardId) -> RaftMessage {
    let (to, from, term, _, commit) = cluster.truth(node, shard);
    Heartbeat { is_answer: false, to, from, term: Term(term), commit: LogIndex(commit) }.into()
}

fn from_liar(shard: ShardId, message: RaftMessage) -> Input {
    Input::Peer { from: LIAR, message: PeerMessage::Raft { shard, message } }
}

#[test]
#[should_panic(expected = "of 1 plain lies")]
fn a_lie_that_is_not_counted_is_found() {
    let cluster = Cluster::start(&EVERYWHERE);
    let message = RaftMessage { term: Term(0), ..heartbeat(&cluster, NodeId(1), ShardId(1)) };
    let node = &cluster.nodes[&NodeId(1)];
    let lies = plain::lies(node, cluster.map(), plain::Asked::default(), &[from_liar(ShardId(1), message)]);
    plain::check(node, &lies, &[]);
}

#[test]
#[should_panic(expected = "has another leader")]
fn a_spared_shard_that_is_not_left_alone_is_found() {
    let (mut cluster, spared) = Spared::begin(2);
    let spared = spared.unwrap();
    let other = NODES.into_iter().find(|node| cluster.leader(spared.shard, &[*node]).is_none()).unwrap();
    let honest = heartbeat(&cluster, other, spared.shard);
    let leads = RaftMessage { kind: RaftMessageKind::TimeoutNow, ..honest };
    let from = cluster.leader(spared.shard, &NODES).unwrap();
    let leads = RaftMessage { from: cluster.row(spared.shard).unwrap().replica_on(from).unwrap(), ..leads };
    let message = PeerMessage::Raft { shard: spared.shard, message: leads };
    cluster.give(other, Input::Peer { from, message });
    cluster.tick(1);
    spared.check(&mut cluster);
}

#[test]
fn each_of_the_plainest_lies_is_refused_and_counted() {
    let mut cluster = Cluster::start(&EVERYWHERE);
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
    let round = LeadershipRound { run: 1, number: 1 };
    let claimed = ClaimedLeadership { shard, replica: to, term: Term(u64::MAX) };
    let ask = |leaderships| PeerMessage::LeadershipAsk { round, leaderships };
    let answer = PeerMessage::LeadershipAnswer { round, shards: Vec::new() };
    let all: u64 = cluster.refused.values().sum();
    let lies = [unknown, other, PeerMessage::MapTell(map), ask(Vec::new()), ask(vec![claimed; 5]), answer];
    let count = lies.len() as u64;
    for message in lies {
        cluster.give(node, Input::Peer { from: LIAR, message });
    }
    cluster.settle();
    assert_eq!(cluster.refused.values().sum::<u64>(), all + count, "{:?}", cluster.refused);
    heal(&mut cluster);
    assert!(cluster.quarantined.is_empty());
}

/// What one that is behind is read for waits until it has heard what was decided; and who was not asked can't answer for the leader.
#[test]
fn a_follower_that_is_behind_waits_for_what_it_must_show() {
    for lie in [false, true] {
        let (mut cluster, spared) = Spared::begin(12);
        let shard = spared.unwrap().shard;
        let leader = cluster.leader(shard, &HONEST).unwrap();
        let behind = HONEST.into_iter().find(|node| *node != leader).unwrap();
        cluster.hold_back(leader, behind);
        let write = cluster.write(leader, shard, 10).unwrap();
        cluster.settle();
        assert!(cluster.clients.written.contains_key(&write));
        let read = cluster.read(behind, shard, Consistency::Bounded { age_micros_max: 1_000_000 }).unwrap();
        cluster.turns();
        if lie {
            let probe = cluster.probes[&(behind, shard)];
            cluster.say(behind, LIAR, PeerMessage::ReadProbeAnswer { shard, probe, index: Some(LogIndex(1)) });
        }
        cluster.settle();
        assert_eq!((cluster.clients.read.get(&read), cluster.plain_lies), (None, u64::from(lie)));
        cluster.tick(1);
        assert_eq!(cluster.clients.read.get(&read), cluster.clients.written.get(&write));
        assert_eq!(cluster.clients.reads_judged, 1);
    }
}

/// What a client hears of a shard that is judged, and which is wrong.
fn hear(read: Consistency, value_of: impl Fn(RequestId) -> RequestId, revision: u64, age_micros: u64) {
    let (mut cluster, spared) = Spared::begin(2);
    let shard = spared.unwrap().shard;
    let leader = cluster.leader(shard, &NODES).unwrap();
    let write = cluster.write(leader, shard, 10).unwrap();
    cluster.settle();
    assert!(cluster.clients.written.contains_key(&write));
    cluster.tick(4);
    // Its own answer is on the way, and never comes.
    let read = cluster.read(leader, shard, read).unwrap();
    let value = clients::Clients::value(value_of(write), 10);
    let entry = (revision > 0).then(|| Entry { value, revision: Revision(revision) });
    let answer = Answer::Got { entry, revision: Revision(revision), age_micros: Some(age_micros) };
    cluster.clients.answered(read, &Ok(answer), cluster.now);
}

#[test]
#[should_panic(expected = "was known")]
fn a_read_that_lost_an_acknowledged_write_is_found() {
    hear(Consistency::Linearizable, |write| write, 0, 0);
}

#[test]
#[should_panic(expected = "was known")]
fn a_read_that_is_older_than_it_says_is_found() {
    hear(Consistency::Bounded { age_micros_max: 1_000_000 }, |write| write, 0, 1_000);
}

#[test]
#[should_panic(expected = "what nobody wrote there")]
fn a_read_of_an_invented_value_is_found() {
    hear(Consistency::Stale, |write| RequestId(write.0 + 1_000), 1, 0);
}

#[test]
#[should_panic(expected = "two values at revision")]
fn a_revision_of_two_values_is_found() {
    hear(Consistency::Linearizable, |_| RequestId(0), 1, 0);
}
