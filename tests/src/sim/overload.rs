//! Open-loop load at ten times what the cluster can do: goodput must hold, nobody may lose an election for it, and every queue
//! must stay within its bound.
//!
//! First the peak is looked for: the same cluster under growing loads, until more load brings no more operations that succeed
//! within their deadline. Then ten times that goodput, from clients that ask again as the router has it, for
//! some seconds, without any fault. [`Figures::broken`] says what did not hold: *goodput* at least 90 % of the peak; *no
//! election*; requests waiting at the door, and in each shard, tables, and entries kept, within their bounds at every look.
//! Afterwards the cluster must be well, and all checkers judge what it answered.
//!
//! The machines are slow on purpose, so that ten times their capacity can be simulated: an input costs [`INPUT_MICROS`], about
//! fifty times what a real one does, and the bounds that count inputs are as many times lower ([`SLOWER`]), so that the time to
//! work a full queue off is that of a real node.
//!
//! *Never produced*: what a refusal costs in gRPC (one at the door is taken to cost a hundredth of an input); unfair clients;
//! connections and memory of the shell; a slow disk as what is short: here it is the node's thread.

use kv_core::{inbox::Limits, settings::Settings};

use super::{
    plan::{Costs, Options, Plan, Workload},
    trace::Trace,
    world::World,
};

/// How much slower than a real machine the simulated one is.
pub const SLOWER: u64 = 50;
/// What an input of a turn costs.
pub const INPUT_MICROS: u64 = 500;
/// What a refusal at the door costs.
const REFUSE_MICROS: u64 = INPUT_MICROS / 100;
/// Loads at which the peak is looked for, in operations a second.
const LOADS: [u64; 6] = [500, 1_000, 2_000, 3_000, 4_000, 6_000];
/// How many times the load of the peak is offered.
const TIMES: u64 = 10;
/// Least share of the peak's goodput that must be left, in percent.
const GOODPUT_PERCENT_MIN: u64 = 90;
/// The load is on for so long before anything is counted: sessions are opened, queues fill.
const WARM_UP_MICROS: u64 = 2_500_000;
/// How often the queues are looked at.
const LOOK_MICROS: u64 = 10_000;

/// The most that was seen of each queue, on any node or shard.
#[derive(Clone, Copy, Debug, Default)]
pub struct Queues {
    /// Requests at a node's door.
    pub requests: usize,
    /// Requests that wait for a shard's answer.
    pub waiting: usize,
    /// Bytes of a node's tables.
    pub table_bytes: usize,
    /// Bytes of a shard's kept entries.
    pub kept_bytes: usize,
}

/// What one load did.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Offered operations a second.
    pub offered: u64,
    /// Operations a second that succeeded within their deadline.
    pub goodput: u64,
    /// Requests that clients sent, a second.
    pub attempts: u64,
    /// Elections won while it was counted.
    pub elections: u64,
    /// The queues.
    pub queues: Queues,
    /// What did not hold.
    pub failure: Option<String>,
}

/// The peak, and ten times that.
#[derive(Clone, Debug)]
pub struct Figures {
    /// All loads up to the peak and one beyond.
    pub search: Vec<Measured>,
    /// The best of them.
    pub peak: Measured,
    /// Under ten times the load.
    pub overload: Measured,
}

impl Figures {
    /// What did not hold.
    #[must_use]
    pub fn broken(&self) -> Vec<String> {
        let mut broken: Vec<String> =
            self.search.iter().chain([&self.overload]).filter_map(|measured| measured.failure.clone()).collect();
        // Without a peak there is nothing to fall from.
        if let Some(Measured { offered, goodput, .. }) = self.search.first()
            && goodput * 100 < offered * GOODPUT_PERCENT_MIN
        {
            broken.push(format!("of {offered} operations a second, which can be borne, {goodput} were answered"));
        }
        if self.overload.goodput * 100 < self.peak.goodput * GOODPUT_PERCENT_MIN {
            let (left, peak) = (self.overload.goodput, self.peak.goodput);
            broken.push(format!("goodput fell from {peak} to {left} operations a second"));
        }
        if self.overload.elections > 0 {
            broken.push(format!("load caused {} elections", self.overload.elections));
        }
        broken
    }
}

/// Looks for the peak, then offers ten times as much; counts for so many seconds each time.
#[must_use]
pub fn measure(seed: u64, secs: u64, loads: &[u64]) -> Figures {
    let mut search: Vec<Measured> = Vec::new();
    for load in loads {
        let measured = under(seed, *load, secs);
        let is_more = search.iter().all(|before| measured.goodput * 100 > before.goodput * 105);
        search.push(measured);
        if !is_more {
            break;
        }
    }
    let peak = search.iter().max_by_key(|measured| measured.goodput).expect("a load was offered").clone();
    let overload = under(seed, (TIMES * peak.goodput).max(1), secs);
    Figures { search, peak, overload }
}

/// The same in short: a load that can be borne and one with which the peak is about reached, a second each.
#[must_use]
pub fn measure_briefly(seed: u64) -> Figures {
    measure(seed, 1, &[2_000, 6_000])
}

/// The loads at which the peak is looked for.
#[must_use]
pub fn loads() -> &'static [u64] {
    &LOADS
}

fn under(seed: u64, offered: u64, secs: u64) -> Measured {
    let mut world = World::new(plan(seed, offered), Trace::new(None));
    world.run_until(WARM_UP_MICROS);
    let before = (succeeded(&world), world.counts.elections, world.counts.attempts);
    let mut queues = Queues::default();
    for _ in 0..secs * 1_000_000 / LOOK_MICROS {
        world.run_until(world.now + LOOK_MICROS);
        look(&world, &mut queues);
    }
    let goodput = (succeeded(&world) - before.0) / secs;
    let elections = world.counts.elections - before.1;
    let attempts = (world.counts.attempts - before.2) / secs;
    let bounds = bounds(&world.plan);
    world.closing = true;
    world.quieten();
    world.settle();
    let failure = world.finish().0.failure.map(|violation| violation.to_string());
    let failure = failure.or_else(|| beyond(&queues, &bounds));
    Measured { offered, goodput, attempts, elections, queues, failure }
}

fn succeeded(world: &World) -> u64 {
    let told = world.counts.operations.iter();
    told.filter(|((_, told), _)| matches!(*told, "ok" | "conflict")).map(|(_, count)| count).sum()
}

fn look(world: &World, most: &mut Queues) {
    for machine in &world.machines {
        let Some(process) = &machine.process else { continue };
        most.requests = most.requests.max(process.inbox.requests());
        let statuses = process.node.status().shards;
        let tables = statuses.iter().map(|status| status.table_bytes).sum();
        most.table_bytes = most.table_bytes.max(tables);
        for status in &statuses {
            most.waiting = most.waiting.max(status.waiting);
            most.kept_bytes = most.kept_bytes.max(status.log_bytes);
        }
    }
}

/// What each queue may hold at most.
fn bounds(plan: &Plan) -> Queues {
    let settings = &plan.settings;
    // One turn may apply what was proposed before the bound was seen.
    let turn_bytes = plan.inbox.turn_inputs_max * (plan.workload.value_bytes_max + 256);
    Queues {
        requests: plan.inbox.requests_max,
        waiting: settings.waiting_requests_max,
        table_bytes: settings.tables_bytes_max + turn_bytes,
        // Twice behind the checkpoint, and what is not decided yet.
        kept_bytes: 2 * settings.kept_bytes_max + settings.uncommitted_bytes_max + turn_bytes,
    }
}

fn beyond(seen: &Queues, bounds: &Queues) -> Option<String> {
    let queues = [
        ("requests at the door", seen.requests, bounds.requests),
        ("requests waiting for a shard", seen.waiting, bounds.waiting),
        ("bytes of tables", seen.table_bytes, bounds.table_bytes),
        ("bytes of kept entries", seen.kept_bytes, bounds.kept_bytes),
    ];
    let (name, seen, bound) = queues.into_iter().find(|(_, seen, bound)| seen > bound)?;
    Some(format!("{name}: {seen}, where {bound} is the bound"))
}

fn plan(seed: u64, operations_per_second: u64) -> Plan {
    let light = Plan::draw(seed, Options { light: true, ..Options::default() });
    let real = Limits::default();
    let slower = SLOWER as usize;
    Plan {
        shards: 3,
        costs: Costs { turn_micros: 100, input_micros: INPUT_MICROS, ..light.costs },
        refuse_micros: REFUSE_MICROS,
        inbox: Limits {
            requests_max: real.requests_max / slower,
            turn_inputs_max: real.turn_inputs_max / slower,
            ..real
        },
        settings: Settings {
            waiting_requests_max: Settings::default().waiting_requests_max / slower,
            active_bytes_max: 256 * 1024,
            tables_bytes_max: 2 * 1024 * 1024,
            kept_bytes_max: 512 * 1024,
            uncommitted_bytes_max: 2 * 1024 * 1024,
            ..light.settings
        },
        workload: Workload {
            // As many as it takes that none has more open than one stream may.
            clients: 48,
            operations_per_second,
            open_max: usize::MAX,
            keys: 400,
            deadline_micros: 2_000_000,
            ..light.workload
        },
        ..light
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_times_the_load_costs_neither_goodput_nor_elections() {
        let figures = measure_briefly(1);
        assert_eq!(figures.broken(), Vec::<String>::new(), "{figures:#?}");
    }

    #[test]
    fn a_collapse_is_seen() {
        let measured = |goodput| Measured {
            offered: 1,
            goodput,
            attempts: 1,
            elections: 0,
            queues: Queues::default(),
            failure: None,
        };
        let figures = |left| Figures { search: Vec::new(), peak: measured(1_000), overload: measured(left) };
        assert!(figures(900).broken().is_empty());
        assert_eq!(figures(899).broken().len(), 1);
        let at_first =
            |goodput| Figures { search: vec![Measured { offered: 500, ..measured(goodput) }], ..figures(900) };
        assert!(at_first(450).broken().is_empty());
        assert_eq!(at_first(449).broken().len(), 1);
        let full = Queues { requests: 11, ..Queues::default() };
        assert!(beyond(&full, &Queues { requests: 10, ..Queues::default() }).is_some());
    }
}
