//! Everything that decodes bytes of a disk or of a peer, and a running cluster among whose peers one lies, fed with bytes
//! that nobody wrote: no panic, and no more memory than a multiple of the input and 64 KiB.
//!
//! How inputs are made, and how to run it for long, is told in [`kv_tests::fuzz`]. What only the server decodes (messages on
//! the wire, clients' requests, configuration files) is fuzzed by the server's own tests, in the same way.
//!
//! The bound on memory is what a decoder holds at its worst moment, beside the input. No decoder takes a length or a count at its word, so
//! that all bounds are multiples of the bytes that are there. Twice the input is enough where bytes stay bytes (founding's messages, a
//! node's description, entries). Where an item of a byte or two becomes a value of a fixed size the multiple is that size over the
//! item's bytes, and more where the list of them grows: while it moves to twice the room the old one is still there. Each target states
//! its own, and [`dense`] holds the longest lists of the smallest items against it.

// Everything here runs only in tests, helpers included.
#![allow(clippy::unwrap_used)]

mod checkpoint;
mod cluster;
mod codecs;
mod dense;
mod log;
mod reader;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// What may be held beside a multiple of the input.
const SPARE_BYTES: u64 = 64 * 1024;

/// Runs a decoder, which may hold at most so many times its input's bytes at once, and 64 KiB.
fn bounded<R>(times: u64, input_bytes: usize, decode: impl FnOnce() -> R) -> R {
    let mut result = None;
    let info = allocation_counter::measure(|| result = Some(catch_unwind(AssertUnwindSafe(decode))));
    let result = result.expect("it was just set").unwrap_or_else(|panic| resume_unwind(panic));
    let most = times * input_bytes as u64 + SPARE_BYTES;
    assert!(info.bytes_max <= most, "{} bytes were held for {input_bytes} bytes of input", info.bytes_max);
    result
}

/// Splits the first byte off: it says what to do with the rest.
fn mode(input: &[u8]) -> (u8, &[u8]) {
    input.split_first().map_or((0, input), |(mode, rest)| (*mode, rest))
}

/// An input that asks for this, with this as the rest.
fn with_mode(mode: u8, rest: &[u8]) -> Vec<u8> {
    [&[mode], rest].concat()
}

#[test]
#[should_panic(expected = "were held")]
fn a_decoder_that_trusts_a_length_is_found() {
    bounded(2, 100, || drop(std::hint::black_box(Vec::<u8>::with_capacity(66_000))));
}
