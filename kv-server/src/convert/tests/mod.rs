//! What comes from the wire: every message comes back as it went, and bytes that nobody wrote are refused without a panic and
//! without much memory. How inputs are made is told in [`kv_tests::fuzz`].

mod fuzz;
mod peers;
