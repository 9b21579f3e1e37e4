//! Places where systems of this kind break, by name, each entered on purpose. Those that are read best as a trace are golden
//! scripts (`tests/scripts`); those that need every step of something are here, or beside the tests of what they break:
//!
//! | place | entered by |
//! |---|---|
//! | a crash at each step of writing, inserting, merging a checkpoint | `tests/checkpoint/crashes.rs`, `--crash-points` |
//! | two power cuts in the same block of the log | `tests/log/crashes.rs`, `--crash-points` |
//! | an election timeout inside an install | point `TimeoutWhileInstalling`, which campaigns must come to |
//! | a MsgTimeoutNow inside an install | script `install_it_must_not_campaign`, point `TimeoutNowWhileInstalling` |
//! | a follower that the log outruns while it takes a snapshot | script `install_the_log_outruns_a_snapshot` |
//! | a shard that pins the oldest segment | `tests/log/recycling.rs`, point `LogPinned` |
//! | founding with a crash, a kill, a wipe or other settings at each step | `src/sim/founding_places.rs` |
//! | a crash at each step of an install, at either end | [`installs`] |
//! | a kill at each step of making a directory or writing an identity, then a power cut | [`directories`], [`identity`] |

mod directories;
mod identity;
mod installs;
