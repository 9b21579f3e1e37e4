//! The shell around kv-core: threads, sockets and files, and nothing that decides anything.
//!
//! [`Server`] is one node of a cluster; the binary runs one of them (`serve`) or several in one process (`playground`), and
//! [`testing::TestCluster`] does so for tests. What happens goes through one queue to the core, a turn at a time, and what
//! the core says is done: see `node_loop`. Nothing here is process-wide: metrics, links and the decision to stop belong to
//! a node, and `tracing` is only written to.

#[cfg(kv_mutants)]
compile_error!("planted bugs are for the simulator only: build the server without --cfg kv_mutants");

mod checkpoint_thread;
mod clock;
mod config;
mod convert;
pub mod disk;
mod faults;
mod founding;
mod gate;
mod guests;
mod http;
mod inbox;
mod jobs;
mod leaders;
mod links;
mod log_thread;
mod metrics;
mod net;
mod node_loop;
mod notices;
mod pace;
mod peers;
mod pending;
mod seldom;
mod server;
mod services;
mod shared;
mod sink;
mod status;
mod stop;
pub mod testing;
mod toll;
mod unread;
mod upkeep;
mod usage;

pub use config::{Config, Listeners};
pub use faults::Faults;
pub use links::Links;
pub use server::{Addresses, Server};
pub use stop::{Ending, Failure, Trouble};

/// What a caught panic said.
fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
