//! Reads a history of whichever kind it is, told by its beginning.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::Path,
};

use kv_tests::history::{
    History,
    jepsen::{self, RegisterOperation},
    run::Run,
};

/// Largest history in another form than JSON lines, in bytes: those are read as a whole.
const TEXT_BYTES_MAX: u64 = 1 << 30;

/// A history.
#[derive(Debug)]
pub(crate) enum Input {
    /// Of our own.
    Run(Box<Run>),
    /// Of one register.
    Register(Vec<RegisterOperation>),
}

/// Reads a file.
pub(crate) fn read(path: &Path) -> Result<Input, String> {
    let file = File::open(path).map_err(|fault| fault.to_string())?;
    let mut input = BufReader::with_capacity(1 << 20, file);
    let beginning = input.fill_buf().map_err(|fault| fault.to_string())?.trim_ascii_start();
    if beginning.strip_prefix(b"{").is_some_and(|rest| rest.trim_ascii_start().starts_with(b"\"")) {
        return Run::read(input).map(|run| Input::Run(Box::new(run))).map_err(|fault| fault.to_string());
    }
    let mut bytes = Vec::new();
    input.take(TEXT_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|fault| fault.to_string())?;
    if bytes.len() as u64 > TEXT_BYTES_MAX {
        return Err(format!("larger than {TEXT_BYTES_MAX} bytes, and not in JSON lines"));
    }
    let text = String::from_utf8_lossy(&bytes);
    if is_printed(&text) {
        let history = text.parse::<History>().map_err(|fault| fault.to_string())?.in_order()?;
        return Ok(Input::Run(Box::new(Run { history, ..Run::default() })));
    }
    jepsen::read(&text).map(Input::Register).map_err(|fault| fault.to_string())
}

/// Whether it is a history as the simulator prints it: `7 c2 120@3500 put ...`.
fn is_printed(text: &str) -> bool {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    let Some(line) = lines.next() else { return false };
    let words: Vec<_> = line.split_ascii_whitespace().take(3).collect();
    matches!(words.as_slice(), [_, client, moment] if client.starts_with('c') && moment.contains('@'))
}
