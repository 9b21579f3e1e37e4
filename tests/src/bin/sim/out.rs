//! Printing to whoever reads: if nobody does any more (`| head`), the program ends, without a panic.

use std::io::Write;

/// What a shell reports of a program that wrote into a closed pipe.
const STATUS_CLOSED_PIPE: i32 = 141;

/// Prints a line.
pub(crate) fn say(line: impl std::fmt::Display) {
    if writeln!(std::io::stdout(), "{line}").is_err() {
        std::process::exit(STATUS_CLOSED_PIPE);
    }
}
