//! The network between nodes, and between clients and nodes: what becomes of each envelope.
//!
//! Fault model: an envelope is delayed, lost, brought twice, or very late; with `ordered` off, envelopes of one connection
//! overtake each other. Links are cut in one direction at a time (a two-way cut is two of them), and cuts overlap. What is on
//! the way when a link is cut still arrives. A link may hold back what it carries for a while, as a clogged one does. A real
//! transport never sends a Raft message twice; the duplicates here ask more than it does. A loss is reported to the sender
//! with the plan's probability, since a dead connection may stay unnoticed. [`super::links`] adds harder weather.
//!
//! *Never produced here*: an envelope of which a part arrives (all its messages share its fate; [`super::unaware`] takes single ones
//! away); a link that is slower for larger envelopes, or that refuses more than it can hold; a message that is altered on its way.

use fastrand::Rng;

use super::{
    links::{Turn, Weather},
    plan::{Links, Plan},
};

/// What can be reached: nodes first (node 1 is end 0), then clients.
pub type End = usize;

/// What becomes of an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives at this time, and perhaps once more.
    Arrives(u64, Option<u64>),
    /// It is lost; if the sender hears of it, then at this time.
    Lost(Option<u64>),
}

/// All links.
#[derive(Debug)]
pub struct Network {
    links: Links,
    rng: Rng,
    ends: usize,
    /// How many cuts lie on the link from one end to another.
    cuts: Vec<u16>,
    /// What is sent on a link before now arrives after this time only.
    held_until: Vec<u64>,
    /// When the last envelope of each link and lane arrives.
    last_arrival: Vec<[u64; LANES]>,
    /// What storms add.
    pub(super) weather: Weather,
    weather_rng: Rng,
    /// Envelopes lost, brought twice, and late.
    pub counts: NetworkCounts,
}

/// What the network did.
#[derive(Clone, Copy, Debug, Default)]
pub struct NetworkCounts {
    /// Envelopes sent.
    pub sent: u64,
    /// Lost.
    pub lost: u64,
    /// Brought twice.
    pub twice: u64,
    /// Very late.
    pub late: u64,
}

/// Connections between two ends.
const LANES: usize = 3;

impl Network {
    /// A network of the plan, all links whole.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let ends = (plan.nodes + plan.workload.clients) as usize;
        Self {
            links: plan.links,
            rng: plan.stream("network"),
            ends,
            cuts: vec![0; ends * ends],
            held_until: vec![0; ends * ends],
            last_arrival: vec![[0; LANES]; ends * ends],
            weather: Weather::default(),
            weather_rng: plan.stream("weather"),
            counts: NetworkCounts::default(),
        }
    }

    /// Decides about an envelope that is sent now.
    pub fn send(&mut self, now: u64, from: End, to: End, lane: usize) -> Fate {
        self.counts.sent += 1;
        let link = from * self.ends + to;
        let turn = self.weather.turn(&mut self.weather_rng);
        let lost =
            self.cuts[link] > 0 || self.chance(self.links.drop_ppm) || matches!(turn, Turn::Lost | Turn::Damaged);
        if lost {
            self.counts.lost += 1;
            let reported = self.rng.u32(..100) < self.links.reported_percent || turn == Turn::Damaged;
            return Fate::Lost(reported.then(|| now + 2 * self.links.delay_micros_min + self.jitter()));
        }
        let mut at = now + self.links.delay_micros_min + self.jitter();
        if self.chance(self.links.late_ppm) {
            self.counts.late += 1;
            at += self.rng.u64(..=self.links.late_micros_max);
        }
        if self.held_until[link] > at {
            self.counts.late += 1;
            at = self.held_until[link] + self.jitter();
        }
        if let Turn::Later(micros) = turn {
            self.counts.late += 1;
            at += micros;
        } else if self.links.ordered {
            let last = &mut self.last_arrival[link][lane];
            at = at.max(*last);
            *last = at;
        }
        let mut again = None;
        if self.chance(self.links.duplicate_ppm) {
            self.counts.twice += 1;
            again = Some(at + self.jitter());
        }
        if let Some(later) = self.weather.again(&mut self.weather_rng) {
            self.counts.twice += 1;
            again = Some(at + later);
        }
        Fate::Arrives(at, again)
    }

    /// Whether what a client sent or is sent comes once more, and how much later.
    pub fn again(&mut self) -> Option<u64> {
        self.weather.again(&mut self.weather_rng)
    }

    /// Cuts a link in one direction.
    pub fn cut(&mut self, from: End, to: End) {
        self.cuts[from * self.ends + to] += 1;
    }

    /// From now on what is sent on a link is held back until then; time 0 ends that for what is sent later.
    pub fn hold(&mut self, from: End, to: End, until: u64) {
        self.held_until[from * self.ends + to] = until;
    }

    /// Takes one cut off a link; does nothing if it was healed meanwhile.
    pub fn mend(&mut self, from: End, to: End) {
        let cuts = &mut self.cuts[from * self.ends + to];
        *cuts = cuts.saturating_sub(1);
    }

    /// Whether messages get from one end to the other.
    #[must_use]
    pub fn is_open(&self, from: End, to: End) -> bool {
        self.cuts[from * self.ends + to] == 0
    }

    /// Mends all links, and nothing is lost or late any more.
    pub fn heal(&mut self) {
        self.cuts.fill(0);
        self.held_until.fill(0);
        self.links.drop_ppm = 0;
        self.links.duplicate_ppm = 0;
        self.links.late_ppm = 0;
        self.weather = Weather::default();
    }

    fn chance(&mut self, ppm: u32) -> bool {
        ppm > 0 && self.rng.u32(..1_000_000) < ppm
    }

    /// Exponential, cut at ten times its mean.
    fn jitter(&mut self) -> u64 {
        let mean = self.links.jitter_micros as f64;
        (-mean * (1.0 - self.rng.f64()).ln()).min(10.0 * mean) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::plan::Options;

    #[test]
    fn a_cut_is_one_way_and_cuts_overlap() {
        let mut network = Network::new(&Plan::draw(1, Options { light: true, ..Options::default() }));
        network.cut(0, 1);
        network.cut(0, 1);
        assert!(matches!(network.send(0, 0, 1, 0), Fate::Lost(Some(_))));
        assert!(matches!(network.send(0, 1, 0, 0), Fate::Arrives(_, None)));
        network.mend(0, 1);
        assert!(!network.is_open(0, 1));
        network.mend(0, 1);
        assert!(network.is_open(0, 1));
    }

    #[test]
    fn a_connection_keeps_its_order_where_the_plan_says_so() {
        let mut network = Network::new(&Plan::draw(1, Options { light: true, ..Options::default() }));
        let mut last = 0;
        for now in 0..1_000 {
            let Fate::Arrives(at, None) = network.send(now, 0, 1, 0) else { panic!("lost without a fault") };
            assert!(at >= last);
            last = at;
        }
    }
}
