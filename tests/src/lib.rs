//! How kv is proven: the simulator's world, the record of what clients saw, and the judges of both.

pub mod books;
pub mod check;
pub mod damage;
pub mod disk;
pub mod fuzz;
pub mod history;
pub mod processes;
pub mod report;
pub mod script;
pub mod server;
pub mod sim;
pub mod usage;
pub mod verdict;
pub mod workloads;

/// The README's code, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
