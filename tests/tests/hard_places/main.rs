//! Places where systems of this kind break, by name, each entered on purpose. Those that are read best as a trace are golden
//! scripts (`tests/scripts`); those that need every step of something are here.

mod directories;
mod identity;
mod installs;
