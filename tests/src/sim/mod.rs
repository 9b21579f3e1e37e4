//! The simulator: the whole algorithm, the very code that runs in production, in simulated time on simulated machines.
//!
//! One thread, one queue of events, one seed. A [`world::World`] holds machines (disk, read index, clock, and while it is up a
//! process of log, checkpoint worker and node), a network, clients on the real router, and faults; whatever is random is drawn
//! from the seed, so that the same seed does the same, byte for byte. What nodes do is told to the checkers of
//! [`crate::check`] as it happens, what clients saw is judged at the end.
//!
//! ```text
//!   plan ── seed ──▶ world ◀── faults            every choice, drawn before and during the run
//!                      │
//!     clients ── network ── machines             requests, messages, replies; each an event
//!                      │        └ disk, read index, log, worker, node
//!                      ▼
//!                    judge ──▶ checkers          facts as they happen, the history at the end
//! ```
//!
//! A run has two phases. In the first, faults happen and clients work. Then it is quiet: links are mended, nodes that may run
//! are started (in some runs but for a minority, which comes back later), and within a bounded time every shard must have one
//! leader, read every key, take a write to it and read it back, and all replicas must come to hold the same state.
//!
//! *Left out*: the shell (threads, sockets, gRPC) has tests of its own; a disk that lies about a sync, and losses of more than
//! a minority, which no design of this kind survives.

mod aftermath;
pub mod atlas;
mod away;
mod bystanders;
pub mod client;
mod client_sessions;
pub mod clock;
pub mod crash_points;
mod cut_streams;
pub mod digraphs;
pub mod disk_faults;
mod divergence;
pub mod failure;
pub mod faults;
pub mod founding;
mod founding_checks;
mod founding_faults;
mod founding_greetings;
pub mod founding_places;
mod full_merges;
#[cfg(test)]
mod hard_disk_tests;
pub mod judge;
mod lifecycle;
pub mod links;
mod losses;
pub mod machine;
mod maps;
mod name_faults;
pub mod network;
pub mod networks;
mod operators;
pub mod overload;
pub mod plan;
pub mod queue;
pub mod quiet;
pub mod reach;
pub mod record;
pub mod report;
pub mod rot;
pub mod shrink;
mod stalls;
mod storage;
pub mod storms;
pub mod timeline;
pub mod trace;
mod turns;
mod unaware;
pub mod workload;
pub mod world;

use crate::history::History;

use self::{plan::Plan, report::Report, trace::Trace, world::World};

/// Does a whole run: what happened, and what the clients saw.
#[must_use]
pub fn run(plan: Plan, trace: Trace) -> (Report, History) {
    let mut world = World::new(plan, trace);
    world.run_until(world.plan.faults_micros);
    world.quieten();
    world.settle();
    world.finish()
}
