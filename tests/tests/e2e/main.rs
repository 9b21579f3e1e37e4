//! Whole clusters, as users meet them: real servers on loopback sockets and real files, in this process.
//!
//! Nothing waits for a time to pass: what must come to be is waited for, with a deadline that only a broken build reaches.
#![allow(clippy::unwrap_used, reason = "a test ends where it can't go on")]

mod any_node;
mod bad_frames;
mod bad_requests;
mod faults;
mod founding;
mod operations;
mod peers;
mod raw;
mod start;
mod support;
mod torment;
