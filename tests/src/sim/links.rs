//! Storms on the network: the shapes into which it falls, and what happens to messages on links that are there.
//!
//! Shapes are cut between nodes, in one direction or both, and half of the time from and to clients as well: some nodes of any
//! number cut off; one node, or the leader of a shard, alone; two halves that meet in one node; a ring in which each node
//! reaches its neighbours only. A shape may flap. On links that are there, up to half of all envelopes are lost or come twice
//! (a read or a wait of a client too, as another request whose answer nobody takes; answers come twice as well); envelopes
//! overtake each other; a few are held for up to five minutes and arrive then, at whatever process the node runs by then,
//! outside the order of their connection; a link carries nothing for a while and then all. A damaged frame is lost, and its
//! sender is always told: a real connection is closed over it.
//!
//! The transport promises never to send a Raft message twice and ends with the process at either end of it, so messages that
//! come twice or to a later process ask more than it does; Raft promises to bear both.
//!
//! *Never produced*: a *write* of a client that arrives twice by itself (no transport of ours repeats one, and a client could
//! not truthfully say `NotApplied` if one did; the router's own repetitions are another matter); a message that is altered
//! and passes for whole (frames carry checksums below us; what a lying peer may send is for the fuzzers); a message to
//! another node than it was for; a message of another cluster or incarnation.

use fastrand::Rng;
use kv_core::{
    io::Operation,
    node::Role,
    types::{NodeId, ShardId},
};

use super::{
    network::{End, Network},
    storms::{Next, Storm},
    world::World,
};

/// A direction between two ends that is cut.
pub type Cut = (End, End);

/// A message is held for this long at least, in microseconds, when it is held for minutes.
const MINUTES_MICROS_MIN: u64 = 20_000_000;
/// And at most.
const MINUTES_MICROS_MAX: u64 = 300_000_000;

/// What happens to messages beyond what the plan's links do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// Lost, in millionths.
    pub loss_ppm: u32,
    /// Brought twice.
    pub duplicate_ppm: u32,
    /// Damaged: lost, and reported.
    pub corrupt_ppm: u32,
    /// Held for minutes.
    pub minutes_ppm: u32,
    /// Up to this much later than otherwise, outside the connection's order; 0 keeps it.
    pub reorder_micros_max: u64,
}

/// What the weather makes of an envelope that the plan's links would carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing.
    AsItWas,
    /// It is lost; whether its sender is told is up to the plan.
    Lost,
    /// It is lost, and its sender is told.
    Damaged,
    /// It comes so much later, outside its connection's order.
    Later(u64),
}

impl Weather {
    /// Draws what becomes of an envelope. Draws nothing in calm weather.
    pub fn turn(&self, rng: &mut Rng) -> Turn {
        let mut happens = |ppm: u32| ppm > 0 && rng.u32(..1_000_000) < ppm;
        if happens(self.loss_ppm) {
            return Turn::Lost;
        }
        if happens(self.corrupt_ppm) {
            return Turn::Damaged;
        }
        if happens(self.minutes_ppm) {
            return Turn::Later(rng.u64(MINUTES_MICROS_MIN..=MINUTES_MICROS_MAX));
        }
        match self.reorder_micros_max {
            0 => Turn::AsItWas,
            most => Turn::Later(rng.u64(..=most)),
        }
    }

    /// Draws whether something comes twice, and how much later then.
    pub fn again(&self, rng: &mut Rng) -> Option<u64> {
        let again = self.duplicate_ppm > 0 && rng.u32(..1_000_000) < self.duplicate_ppm;
        again.then(|| rng.u64(..200_000))
    }
}

impl Network {
    /// Begins weather of a kind.
    pub(super) fn disturb(&mut self, storm: Storm, rng: &mut Rng) {
        let weather = &mut self.weather;
        match storm {
            Storm::Loss => weather.loss_ppm = rng.u32(..=500_000),
            Storm::Duplicates => weather.duplicate_ppm = rng.u32(..=500_000),
            Storm::Corrupt => weather.corrupt_ppm = rng.u32(..=100_000),
            Storm::Minutes => weather.minutes_ppm = rng.u32(..=30_000),
            _ => weather.reorder_micros_max = [5_000, 50_000, 1_000_000][rng.usize(..3)],
        }
    }

    /// Ends it.
    pub(super) fn clear(&mut self, storm: Storm) {
        let weather = &mut self.weather;
        match storm {
            Storm::Loss => weather.loss_ppm = 0,
            Storm::Duplicates => weather.duplicate_ppm = 0,
            Storm::Corrupt => weather.corrupt_ppm = 0,
            Storm::Minutes => weather.minutes_ppm = 0,
            _ => weather.reorder_micros_max = 0,
        }
    }
}

impl World {
    /// Cuts the network into a shape, for a while.
    pub(super) fn cut_shape(&mut self, storm: Storm, node: usize) {
        let (nodes, clients) = (self.machines.len(), self.clients.len());
        let node = if storm == Storm::IsolateLeader { self.some_leader().unwrap_or(node) } else { node };
        let rng = &mut self.storms.rng;
        let mut order: Vec<usize> = (0..nodes).collect();
        rng.shuffle(&mut order);
        let mut cuts: Vec<Cut> = match storm {
            Storm::Bridge => bridge(&order),
            Storm::Ring => ring(&order),
            Storm::Isolate | Storm::IsolateLeader => between(nodes, |one| one == node),
            _ => {
                let few = rng.usize(1..nodes.max(2));
                between(nodes, |one| order.iter().position(|other| *other == one).is_some_and(|place| place < few))
            }
        };
        if rng.bool() {
            for client in nodes..nodes + clients {
                let cut_off = order[rng.usize(..nodes)];
                cuts.extend([(client, cut_off), (cut_off, client)]);
            }
        }
        match rng.u32(..4) {
            0 => cuts.retain(|(from, to)| from < to),
            1 => cuts.retain(|_| rng.bool()),
            _ => {}
        }
        let lasts = self.storms.lasts();
        if storm == Storm::Flap {
            let period = self.storms.rng.u64(5_000..800_000);
            return self.flap(cuts, false, period, self.now + 2 * lasts);
        }
        cuts.iter().for_each(|(from, to)| self.network.cut(*from, *to));
        self.schedule_next(lasts, Next::Mend(cuts));
    }

    /// Cuts what is whole and mends what is cut, again and again.
    pub(super) fn flap(&mut self, cuts: Vec<Cut>, are_cut: bool, period: u64, until: u64) {
        if are_cut {
            self.mend_cuts(&cuts);
            if self.now >= until {
                return;
            }
        } else {
            cuts.iter().for_each(|(from, to)| self.network.cut(*from, *to));
        }
        let after = self.storms.rng.u64(period / 2..=period + period / 2);
        self.schedule_next(after, Next::Flap { cuts, are_cut: !are_cut, period, until });
    }

    pub(super) fn mend_cuts(&mut self, cuts: &[Cut]) {
        cuts.iter().for_each(|(from, to)| self.network.mend(*from, *to));
    }

    /// Links to a node, or all links, hold back what they carry.
    pub(super) fn clog(&mut self, node: usize) {
        let until = self.now + self.storms.lasts();
        let everywhere = self.storms.rng.u32(..4) == 0;
        for (from, to) in between(self.machines.len(), |one| one == node || (everywhere && one % 2 == 0)) {
            if self.storms.rng.bool() {
                self.network.hold(from, to, until);
            }
        }
    }

    /// Asks the leader of some shard to hand over to some node, and goes on with that.
    pub(super) fn transfer_again(&mut self, period: u64, until: u64) {
        let shard = ShardId(self.storms.rng.u64(..=self.plan.shards));
        let to = NodeId(self.storms.rng.u64(1..=self.plan.nodes));
        if let Some(leader) = self.leader_of(shard) {
            self.ask_for_transfer(leader, shard, to);
        }
        if self.now < until {
            self.schedule_next(period, Next::Transfer { period, until });
        }
    }

    /// Whether a request of a client may come twice by itself: only what changes nothing.
    pub(super) fn may_come_twice(operation: &Operation) -> bool {
        matches!(operation, Operation::Get { .. } | Operation::WaitDurable { .. })
    }

    fn some_leader(&mut self) -> Option<usize> {
        let shard = ShardId(self.storms.rng.u64(..=self.plan.shards));
        self.leader_of(shard)
    }

    fn leader_of(&self, shard: ShardId) -> Option<usize> {
        self.machines
            .iter()
            .position(|machine| machine.shard_status(shard).is_some_and(|status| status.role == Role::Leader))
    }
}

/// All directions between nodes for which `inside` says different things.
fn between(nodes: usize, inside: impl Fn(usize) -> bool) -> Vec<Cut> {
    cuts_where(nodes, |one, other| inside(one) != inside(other))
}

/// The first node of the order reaches all; the others only those of their half.
fn bridge(order: &[usize]) -> Vec<Cut> {
    let half = order.len().div_ceil(2);
    let place = |node: usize| order.iter().position(|other| *other == node).unwrap_or(0);
    cuts_where(order.len(), |one, other| {
        let (one, other) = (place(one), place(other));
        one != 0 && other != 0 && (one < half) != (other < half)
    })
}

/// Each node reaches those beside it in the order; of three nodes only the one after it.
fn ring(order: &[usize]) -> Vec<Cut> {
    let nodes = order.len();
    let place = |node: usize| order.iter().position(|other| *other == node).unwrap_or(0);
    cuts_where(nodes, |from, to| {
        let ahead = (place(to) + nodes - place(from)) % nodes;
        ahead != 1 && (nodes <= 3 || ahead != nodes - 1)
    })
}

fn cuts_where(nodes: usize, cut: impl Fn(usize, usize) -> bool) -> Vec<Cut> {
    let pairs = (0..nodes).flat_map(|from| (0..nodes).map(move |to| (from, to)));
    pairs.filter(|(from, to)| from != to && cut(*from, *to)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(cuts: &[Cut], nodes: usize, node: usize) -> usize {
        let whole = |from, to| !cuts.contains(&(from, to));
        (0..nodes).filter(|other| *other == node || (whole(node, *other) && whole(*other, node))).count()
    }

    #[test]
    fn shapes_are_what_they_are_called() {
        let order = [3, 1, 4, 0, 2];
        let ring = ring(&order);
        assert!((0..5).all(|node| joined(&ring, 5, node) == 3), "in a ring everybody has a majority, each another");
        let bridge = bridge(&order);
        assert_eq!(joined(&bridge, 5, 3), 5);
        assert!([1, 4, 0, 2].iter().all(|node| joined(&bridge, 5, *node) == 3));
        assert!(bridge.contains(&(1, 0)) && bridge.contains(&(0, 1)) && !bridge.contains(&(1, 4)));
        let alone = between(5, |node| node == 2);
        assert_eq!((alone.len(), joined(&alone, 5, 2), joined(&alone, 5, 0)), (8, 1, 4));
        let three = super::ring(&[0, 1, 2]);
        assert_eq!(three, [(0, 2), (1, 0), (2, 1)], "of three nodes a ring is one way");
    }

    #[test]
    fn calm_weather_draws_nothing_and_a_storm_does_what_it_says() {
        let mut rng = Rng::with_seed(1);
        let before = rng.clone();
        assert_eq!((Weather::default().turn(&mut rng), Weather::default().again(&mut rng)), (Turn::AsItWas, None));
        assert_eq!(rng, before);
        let half = Weather { loss_ppm: 500_000, duplicate_ppm: 500_000, ..Weather::default() };
        let lost = (0..10_000).filter(|_| half.turn(&mut rng) == Turn::Lost).count();
        let twice = (0..10_000).filter(|_| half.again(&mut rng).is_some()).count();
        assert!((4_700..5_300).contains(&lost) && (4_700..5_300).contains(&twice), "{lost} {twice}");
        let minutes = Weather { minutes_ppm: 1_000_000, ..Weather::default() };
        assert!(matches!(minutes.turn(&mut rng), Turn::Later(micros) if micros >= MINUTES_MICROS_MIN));
    }
}
