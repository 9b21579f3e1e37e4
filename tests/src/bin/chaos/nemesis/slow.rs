//! Links that are slow or cut, by proxies.
//!
//! *Can't produce* late packets below TCP (the kernel here may lack netem): each piece of up to 32 KiB waits before the next is read, so
//! that a late link is also a narrow one. A cut closes the connection properly; silence is what `partition` makes.

use std::time::Duration;

use tokio::time::sleep;

use crate::world::World;

/// Milliseconds that links are slow.
const SLOW_MS: std::ops::Range<u64> = 2_000..10_000;
/// Milliseconds that a piece waits.
const LATE_MS: std::ops::Range<u64> = 2..400;
/// How often connections are cut in a round.
const CUTS: std::ops::Range<u32> = 1..12;

/// Makes links slow.
pub(super) async fn slow(world: &World, random: &mut fastrand::Rng) -> Result<bool, String> {
    let mut nodes = world.nodes();
    random.shuffle(&mut nodes);
    let (one, others) = (nodes[0], if random.bool() { &nodes[1..2] } else { &nodes[1..] });
    let delay = Duration::from_millis(random.u64(LATE_MS));
    let links: Vec<_> = others.iter().flat_map(|other| [(one, *other), (*other, one)]).collect();
    let (from, touched) = (world.recorder.micros(), world.links.touched());
    links.iter().for_each(|link| world.links.change(*link, |link| link.delay += delay));
    world.hold(Duration::from_millis(random.u64(SLOW_MS))).await;
    links.iter().for_each(|link| world.links.change(*link, |link| link.delay = link.delay.saturating_sub(delay)));
    let late = world.links.touched() - touched;
    if late > 0 {
        world.record("slow", from, &[one], format!("{delay:?} between {one} and {others:?}, {late} pieces were late"));
    }
    Ok(late > 0)
}

/// Cuts all connections between nodes.
pub(super) async fn cut(world: &World, random: &mut fastrand::Rng) -> Result<bool, String> {
    let nodes = world.nodes();
    let (from, touched) = (world.recorder.micros(), world.links.touched());
    let cuts = random.u32(CUTS);
    for _ in 0..cuts {
        for (one, other) in nodes.iter().flat_map(|one| nodes.iter().map(move |other| (*one, *other))) {
            world.links.change((one, other), |link| link.cuts += 1);
        }
        sleep(Duration::from_millis(random.u64(20..700))).await;
    }
    let ended = world.links.touched() - touched;
    if ended > 0 {
        world.record("cut", from, &nodes, format!("all connections between nodes, {cuts} times; {ended} were there"));
    }
    Ok(ended > 0)
}
