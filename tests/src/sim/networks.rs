//! Every directed network of five nodes is imposed on a running cluster, held for several elections, then healed.
//!
//! The cluster has five nodes, each shard a replica on all of them, and light clients that reach every node. Promised is:
//! *safe* in every network, as in any run (all checkers watch); *live* where some node has two-way links with a majority:
//! every shard must have acknowledged a write in the last part of the hold. After healing all must be well again.
//!
//! Which node stands where in the network is drawn from the network's number, and with it who leads each shard when the links
//! go; whether a lost message is reported to its sender is drawn as well.
//!
//! *What these runs never produce*: a network that changes while it is held; loss, delay or reordering on a link that is there;
//! crashes; clients that can't reach a node; shards with fewer replicas than nodes (three replicas see a network of three,
//! which is a part of one of these).

use kv_core::{settings::Settings, types::ShardId};

use super::{
    digraphs::{Digraph, NODES},
    plan::{Links, Options, Plan, Workload},
    report::Report,
    trace::Trace,
    world::World,
};

/// The cluster runs undisturbed for so long.
const WARM_UP_MICROS: u64 = 2_000_000;
/// The network is held for so long: about ten elections.
const HOLD_MICROS: u64 = 10_000_000;
/// In the last part of the hold, of this length, a network that is owed a leader must serve.
const SERVE_MICROS: u64 = 4_000_000;

/// Networks in which a shard may stall although some node has links with a majority, by number: exactly those that have a
/// [trap](Digraph::trap).
const EXCEPTIONS: &str = include_str!("../../networks-exceptions.txt");

/// How a network was borne.
#[derive(Debug)]
pub struct Borne {
    /// Its number.
    pub number: usize,
    /// Its links.
    pub network: Digraph,
    /// Shards that served no write in the last part of the hold.
    pub stalled: Vec<ShardId>,
    /// The run.
    pub report: Report,
}

impl Borne {
    /// Whether it was as live as is owed.
    #[must_use]
    pub fn is_live(&self) -> bool {
        !self.network.is_owed_a_leader() || self.stalled.is_empty()
    }

    /// What was promised and did not hold, in words.
    #[must_use]
    pub fn broken(&self) -> Option<String> {
        if let Some(violation) = &self.report.failure {
            return Some(violation.to_string());
        }
        (!self.is_live() && !is_excepted(self.number)).then(|| {
            format!(
                "shards {:?} took no write in the last {} s of the hold, though a node has links with a majority, and the \
                 network is not among the known exceptions",
                self.stalled.iter().map(|shard| shard.0).collect::<Vec<_>>(),
                SERVE_MICROS / 1_000_000
            )
        })
    }
}

/// Whether a network is known to stall a shard.
#[must_use]
pub fn is_excepted(number: usize) -> bool {
    let lines = EXCEPTIONS.lines().filter(|line| !line.starts_with('#'));
    let mut numbers = lines.filter_map(|line| line.split_whitespace().next());
    numbers.any(|word| word.parse() == Ok(number))
}

/// Imposes a network on a cluster.
#[must_use]
pub fn bear(number: usize, network: Digraph, trace: Trace) -> Borne {
    let plan = plan(number as u64);
    let mut rng = plan.stream("names");
    let mut names: [usize; NODES] = std::array::from_fn(|node| node);
    rng.shuffle(&mut names);
    let shards: Vec<ShardId> = (1..=plan.shards).map(ShardId).collect();
    let mut world = World::new(plan, trace);
    world.run_until(WARM_UP_MICROS);
    for (from, to) in network.renamed(names).cuts() {
        world.network.cut(from, to);
    }
    world.trace.tell(world.now, || format!("NETWORK {number}: {network}, nodes a to e are {names:?} (from 0)"));
    world.run_until(WARM_UP_MICROS + HOLD_MICROS);
    let since = world.now - SERVE_MICROS;
    let stalled = shards.into_iter().filter(|shard| world.written_at(*shard).is_none_or(|at| at < since)).collect();
    world.quieten();
    world.settle();
    let (report, _) = world.finish();
    Borne { number, network, stalled, report }
}

/// A light cluster of five.
fn plan(seed: u64) -> Plan {
    let light = Plan::draw(seed, Options { light: true, ..Options::default() });
    let reported_percent = [0, 50, 100][light.stream("reported").usize(..3)];
    Plan {
        nodes: NODES as u64,
        replication: NODES as u64,
        shards: 3,
        // Hand-overs to the ring's owner are to fall into the hold.
        settings: Settings { hand_over_ticks: 60, hand_over_pause_ticks: 200, ..light.settings },
        links: Links { reported_percent, ..light.links },
        workload: Workload {
            clients: 3,
            operations_per_second: 24,
            open_max: 64,
            keys: 6,
            deadline_micros: 2_000_000,
            reads_percent: 25,
            ..light.workload
        },
        ..light
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;
    use crate::sim::digraphs;

    /// Networks of no particular merit, and the whole and the empty one; all of them are `sim --networks`.
    #[test]
    fn a_sample_of_networks_is_safe_and_as_live_as_is_owed() {
        let all = digraphs::all();
        for number in (0..all.len()).step_by(343).chain([all.len() - 1]) {
            let borne = bear(number, all[number], Trace::new(None));
            if let Some(what) = borne.broken() {
                panic!("network {number} ({}): {what}", borne.network);
            }
        }
    }

    #[test]
    fn the_list_of_exceptions_is_what_the_rule_says() {
        let mut list = String::from(
            "# Directed networks of five nodes in which a shard may stall although some node has two-way links with a majority.\n\
             # Number, links (`ab` both ways, `a>b` from a to b only), and the node that springs the trap: if it leads when the\n\
             # links go, it has no majority of its own, but entries of its last moments reach voters; no node with a majority\n\
             # hears it, and each of these needs the vote of a voter that did. The voter can't know that the newer entries are\n\
             # not decided, so Raft has it refuse; nobody who could be elected can get at the entries. It ends when a link\n\
             # comes back. Written by `KV_REGENERATE=1 cargo test -p kv-tests exceptions`.\n",
        );
        for (number, network) in digraphs::all().into_iter().enumerate() {
            if let Some(leader) = network.trap() {
                let _ = writeln!(list, "{number} {network}; {}", char::from(b'a' + leader as u8));
            }
        }
        if std::env::var_os("KV_REGENERATE").is_some() {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/networks-exceptions.txt");
            std::fs::write(path, &list).unwrap();
        }
        assert!(list == EXCEPTIONS || std::env::var_os("KV_REGENERATE").is_some(), "run it with KV_REGENERATE=1");
    }
}
