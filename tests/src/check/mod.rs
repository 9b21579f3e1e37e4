//! The judges of a run: each property that must hold has a file of its own.

pub mod linearizability;
pub mod view;

pub use view::{Fact, Violation};
