//! Results on standard output: tables for people, JSON for programs, raw bytes for pipes.

use std::io::{self, IsTerminal, Write};

use comfy_table::{Table, presets};
use serde_json::{Value, json};

use crate::{args::Format, exit::Exit};

/// Where results go, and how.
#[derive(Debug)]
pub(crate) struct Output {
    /// How results are written.
    pub(crate) format: Format,
}

impl Output {
    /// As asked for; else a table on a terminal and raw elsewhere.
    pub(crate) fn new(format: Option<Format>) -> Self {
        let usual = if io::stdout().is_terminal() { Format::Table } else { Format::Raw };
        Self { format: format.unwrap_or(usual) }
    }

    /// Writes exactly these bytes.
    ///
    /// # Errors
    /// If standard output takes them no more.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> Result<(), Exit> {
        let mut out = io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Exit::OutputClosed,
            _ => Exit::Failure(format!("standard output: {error}")),
        })
    }

    /// Writes a line.
    ///
    /// # Errors
    /// As [`Output::bytes`].
    pub(crate) fn line(&self, line: impl std::fmt::Display) -> Result<(), Exit> {
        self.bytes(format!("{line}\n").as_bytes())
    }
}

/// A table without borders: a header and rows.
pub(crate) fn table<const COLUMNS: usize>(header: [&str; COLUMNS], rows: Vec<[String; COLUMNS]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.to_vec());
    for row in rows {
        table.add_row(row.to_vec());
    }
    for column in 0..COLUMNS {
        if let Some(column) = table.column_mut(column) {
            column.set_padding((0, 2));
        }
    }
    table.trim_fmt()
}

/// Bytes as a JSON member: text where they are text, hexadecimal digits otherwise.
pub(crate) fn json_bytes(object: &mut Value, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object[name] = json!(text),
        Err(_) => {
            let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            object[format!("{name}_hex")] = json!(digits);
        }
    }
}

/// Bytes for people: escaped where they are not printable.
pub(crate) fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_stay_readable() {
        let mut object = json!({});
        json_bytes(&mut object, "value", "g\u{fc}n".as_bytes());
        json_bytes(&mut object, "key", b"\xff\x00");
        assert_eq!(object, json!({ "value": "g\u{fc}n", "key_hex": "ff00" }));
        assert_eq!((shown("\u{fc}".as_bytes()), shown(b"a\n")), ("\u{fc}".to_owned(), "a\\n".to_owned()));
    }

    #[test]
    fn a_table_has_no_borders_and_no_trailing_space() {
        let text = table(["NODE", "X"], vec![["1".into(), "yes".into()], ["12".into(), String::new()]]);
        assert_eq!(text, "NODE  X\n1     yes\n12");
    }
}
