//! Checkpoints on a disk that loses, tears and rots, and on a read index that is lost, wrong and fails.
//!
//! A [`history::History`] says what the state is at each checkpoint; a [`bench::Bench`] has a worker write it and load it.
//! Whatever happens in between, what is loaded must be the state of some checkpoint, record by record, and at least that of
//! the last one reported durable.

mod bench;
#[cfg(kv_mutants)]
mod canaries;
mod crashes;
mod damage;
mod history;
mod install;
mod offers;
mod scrub;
mod states;
mod work;
