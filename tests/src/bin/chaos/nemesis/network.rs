//! Links between nodes that break, in one direction or both, and lose packets.
//!
//! In network namespaces packets are dropped on their way in: connections stay open and silent. A link that drops one direction's
//! packets stops the other direction too once a window is full, since TCP's acknowledgements go the dropped way. Without namespaces
//! proxies hold the bytes back, each direction by itself, and nothing is lost when the link heals. *Can't produce* reordered or
//! doubled messages, and the clients are cut off only between namespaces.

use std::time::Duration;

use crate::world::World;

/// Milliseconds that a partition holds.
const HELD_MS: std::ops::Range<u64> = 1_000..10_000;
/// Milliseconds between two changes of a flapping link.
const FLAP_MS: std::ops::Range<u64> = 60..900;
/// How often it changes.
const FLAPS: std::ops::Range<u32> = 6..20;

type Pairs = Vec<(Option<usize>, Option<usize>)>;

/// Both directions between two sets of nodes.
fn between(one: &[usize], other: &[usize]) -> Pairs {
    let pairs = one.iter().flat_map(|a| other.iter().map(move |b| (Some(*a), Some(*b))));
    pairs.flat_map(|(a, b)| [(a, b), (b, a)]).collect()
}

/// Records a fault if it stopped anything: one that nothing ran into proves nothing.
fn record(world: &World, name: &str, from: u64, nodes: &[usize], stopped: u64, detail: String) -> bool {
    if stopped > 0 {
        let what = if world.network.is_some() { "packets dropped" } else { "times bytes were held back" };
        world.record(name, from, nodes, format!("{detail}; {stopped} {what}"));
    }
    stopped > 0
}

fn shuffled(world: &World, random: &mut fastrand::Rng) -> Vec<usize> {
    let mut nodes = world.nodes();
    random.shuffle(&mut nodes);
    nodes
}

/// Blocks these for a while, and tells how much did not get through.
async fn hold(world: &World, random: &mut fastrand::Rng, pairs: &Pairs) -> Result<u64, String> {
    let blocked = world.block(pairs).await?;
    world.hold(Duration::from_millis(random.u64(HELD_MS))).await;
    world.unblock(blocked).await
}

/// Splits the nodes in two.
pub(super) async fn partition(world: &World, random: &mut fastrand::Rng) -> Result<bool, String> {
    let nodes = shuffled(world, random);
    let (minority, majority) = nodes.split_at(random.usize(1..=nodes.len() / 2));
    let mut pairs = between(minority, majority);
    let clients_too = random.u8(0..3) == 0 && world.network.is_some();
    if clients_too {
        pairs.extend(minority.iter().flat_map(|node| [(Some(*node), None), (None, Some(*node))]));
    }
    let from = world.recorder.micros();
    let stopped = hold(world, random, &pairs).await?;
    let clients = if clients_too { "; clients on the larger side" } else { "" };
    Ok(record(world, "partition", from, minority, stopped, format!("{minority:?} | {majority:?}{clients}")))
}

/// One node does not hear the others, or is not heard.
pub(super) async fn one_way(world: &World, random: &mut fastrand::Rng) -> Result<bool, String> {
    let nodes = shuffled(world, random);
    let (one, others) = (nodes[0], &nodes[1..]);
    let is_deaf = random.bool();
    let pair = |other: &usize| if is_deaf { (Some(*other), Some(one)) } else { (Some(one), Some(*other)) };
    let pairs = others.iter().map(pair).collect();
    let from = world.recorder.micros();
    let stopped = hold(world, random, &pairs).await?;
    let what = if is_deaf { "hears nobody" } else { "is heard by nobody" };
    Ok(record(world, "one-way", from, &[one], stopped, format!("node {one} {what}")))
}

/// Two halves that share one node.
pub(super) async fn bridge(world: &World, random: &mut fastrand::Rng) -> Result<bool, String> {
    let nodes = shuffled(world, random);
    let (shared, others) = (nodes[0], &nodes[1..]);
    let (left, right) = others.split_at(others.len() / 2);
    let from = world.recorder.micros();
    let stopped = hold(world, random, &between(left, right)).await?;
    Ok(record(world, "bridge", from, &nodes, stopped, format!("{left:?} - {shared} - {right:?}")))
}

/// One node's links break and heal again and again.
pub(super) async fn flap(world: &World, random: &mut fastrand::Rng) -> Result<bool, String> {
    let nodes = shuffled(world, random);
    let (one, others) = nodes.split_at(1);
    let pairs = between(one, others);
    let from = world.recorder.micros();
    let flaps = random.u32(FLAPS);
    let mut stopped = 0;
    for _ in 0..flaps {
        let blocked = world.block(&pairs).await?;
        world.hold(Duration::from_millis(random.u64(FLAP_MS))).await;
        stopped += world.unblock(blocked).await?;
        world.hold(Duration::from_millis(random.u64(FLAP_MS))).await;
        if world.stops.get() {
            break;
        }
    }
    Ok(record(world, "flap", from, one, stopped, format!("up to {flaps} times")))
}

/// Drops packets at random.
pub(super) async fn loss(world: &World, random: &mut fastrand::Rng) -> Result<bool, String> {
    let network = world.network.clone().ok_or("there are no network namespaces")?;
    let probability = f64::from(random.u32(20..400)) / 1_000.0;
    let nodes = world.nodes();
    let rules = nodes.iter().map(|node| network.loses(*node, probability)).collect();
    let from = world.recorder.micros();
    let blocked = world.add_rules(rules).await?;
    world.hold(Duration::from_millis(random.u64(HELD_MS))).await;
    let stopped = world.unblock(blocked).await?;
    let detail = format!("{:.1} % of all packets to nodes", probability * 100.0);
    Ok(record(world, "loss", from, &nodes, stopped, detail))
}
