//! Histories of one register as Jepsen logs them: what others measured of their stores, for our judge.
//!
//! Two forms are read, line by line. The log's: `0 :invoke :read nil`, with whatever a logger put before the process
//! (`INFO  jepsen.util - 0<tab>:invoke<tab>:cas<tab>[1 2]`). And a history's: `{:process 0, :type :ok, :f :read, :value 3}`. Lines with
//! neither, and those of a nemesis, are skipped.
//!
//! The operations are `:read`, `:write` and `:cas [old new]`; values are compared as they are written, `nil` is the register that was
//! never written. `:ok` happened as it says, `:fail` did not happen, `:info` may have or may yet, and so may what has no second line.
//! Who reads with an unknown outcome saw nothing.

use std::{collections::HashMap, fmt};

use super::ReadError;

/// An operation on the one register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterOperation {
    /// The line of its call, from 1.
    pub line: usize,
    /// The process that called.
    pub process: u64,
    /// What was asked, and for an `:ok` read what was found.
    pub call: RegisterCall,
    /// The line of its end, from 1; `None` if it has none.
    pub end: Option<(usize, End)>,
}

/// What was asked of the register. Values are as written; `None` is `nil`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegisterCall {
    /// Read it; what was found counts only with [`End::Ok`].
    Read(Option<String>),
    /// Write it.
    Write(Option<String>),
    /// Write the second if it holds the first.
    Cas(Option<String>, Option<String>),
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It happened.
    Ok,
    /// It did not happen.
    Fail,
    /// It may have, or may yet.
    Info,
}

impl fmt::Display for RegisterOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |value: &Option<String>| value.clone().unwrap_or_else(|| "nil".into());
        let (asked, found) = match &self.call {
            RegisterCall::Read(found) => ("read".to_owned(), Some(word(found))),
            RegisterCall::Write(value) => (format!("write {}", word(value)), None),
            RegisterCall::Cas(old, new) => (format!("cas [{} {}]", word(old), word(new)), None),
        };
        let end = match self.end {
            None => "no end".into(),
            Some((line, End::Fail)) => format!("fail at line {line}"),
            Some((line, End::Info)) => format!("info at line {line}"),
            Some((line, End::Ok)) => {
                format!("ok{} at line {line}", found.map(|found| format!(" {found}")).unwrap_or_default())
            }
        };
        write!(f, "line {}: process {} {asked} -> {end}", self.line, self.process)
    }
}

/// Reads a history.
///
/// # Errors
/// A line that is an operation's, and none of these; an end without a call; a text without any operation.
pub fn read(text: &str) -> Result<Vec<RegisterOperation>, ReadError> {
    let mut operations: Vec<RegisterOperation> = Vec::new();
    let mut open: HashMap<u64, usize> = HashMap::new();
    for (line, text) in text.lines().enumerate().map(|(at, text)| (at + 1, text)) {
        let error = |what: &str| ReadError { line, what: what.to_owned() };
        let Some([process, kind, f, value]) = fields(text) else { continue };
        let Ok(process) = process.parse::<u64>() else { continue };
        if kind == ":invoke" {
            let call = call(&f, &value).map_err(error)?;
            if open.insert(process, operations.len()).is_some() {
                return Err(error("expected an end: the process has a call open"));
            }
            operations.push(RegisterOperation { line, process, call, end: None });
            continue;
        }
        let end = match kind.as_str() {
            ":ok" => End::Ok,
            ":fail" => End::Fail,
            ":info" => End::Info,
            _ => continue,
        };
        let Some(place) = open.remove(&process) else {
            // A process may log what it thinks without having asked anything.
            if end == End::Info {
                continue;
            }
            return Err(error("expected a call before its end"));
        };
        let operation = &mut operations[place];
        if end == End::Ok
            && let RegisterCall::Read(found) = &mut operation.call
        {
            *found = known(&value);
        }
        operation.end = Some((line, end));
    }
    if operations.is_empty() {
        return Err(ReadError { line: 0, what: "expected lines such as `0 :invoke :read nil`, found none".into() });
    }
    Ok(operations)
}

/// Judged as one register, many would be found wanting whatever they did.
const MANY: &str = "expected a bare value: pairs are those of many registers, of which one is judged at a time";

fn call(f: &str, value: &str) -> Result<RegisterCall, &'static str> {
    let is_pair = |value: &str| value.starts_with('[');
    match f {
        ":read" | ":write" if is_pair(value) => Err(MANY),
        ":read" => Ok(RegisterCall::Read(None)),
        ":write" => Ok(RegisterCall::Write(known(value))),
        ":cas" => {
            let pair = value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).ok_or("expected [old new]")?;
            let pair = words(pair);
            let [old, new] = pair.as_slice() else { return Err("expected [old new]") };
            if is_pair(old) || is_pair(new) {
                return Err(MANY);
            }
            Ok(RegisterCall::Cas(known(old), known(new)))
        }
        _ => Err("expected :read, :write or :cas"),
    }
}

fn known(value: &str) -> Option<String> {
    Some(value.to_owned()).filter(|value| value != "nil")
}

/// Process, type, function and value of a line, if it has them.
fn fields(text: &str) -> Option<[String; 4]> {
    let text = text.trim();
    if let Some(map) = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        let words = words(map);
        let field = |name: &str| words.chunks(2).find(|pair| pair[0] == name).and_then(|pair| pair.get(1).cloned());
        return Some([field(":process")?, field(":type")?, field(":f")?, field(":value").unwrap_or("nil".into())]);
    }
    let words = words(text);
    let at = words.iter().position(|word| [":invoke", ":ok", ":fail", ":info"].contains(&word.as_str()))?;
    let [process, kind, f] = words.get(at.checked_sub(1)?..at + 2)? else { return None };
    Some([process.clone(), kind.clone(), f.clone(), words.get(at + 2).cloned().unwrap_or("nil".into())])
}

/// The words of a text: blanks and commas part them, but not inside brackets or quotes.
fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for letter in text.chars() {
        let parts = depth == 0 && !quoted && (letter.is_whitespace() || letter == ',');
        if parts {
            words.push(String::new());
            continue;
        }
        match letter {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '[' | '{' | '(' if !quoted => depth += 1,
            ']' | '}' | ')' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
        words.last_mut().expect("there is always a last word").push(letter);
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_log_and_of_a_history_are_read_alike() {
        let log = "INFO  jepsen.util - 0\t:invoke\t:read\tnil\n\
                   INFO  jepsen.core - Worker 0 starting\n\
                   INFO  jepsen.util - 1\t:invoke\t:cas\t[1 2]\n\
                   INFO  jepsen.util - :nemesis\t:info\t:start\tnil\n\
                   INFO  jepsen.util - 0\t:ok\t:read\t3\n\
                   INFO  jepsen.util - 1\t:info\t:cas\t:timed-out\n";
        let history = "{:process 0, :type :invoke, :f :read, :value nil}\n\n\
                       {:index 1, :process 1, :type :invoke, :f :cas, :value [1 2], :time 12}\n\n\
                       {:value 3, :process 0, :type :ok, :f :read}\n\
                       {:process 1, :type :info, :f :cas, :value [1 2], :error \"a, \\\"b\\\"\"}\n";
        let operations = read(log).unwrap();
        assert_eq!(operations, read(history).unwrap());
        let shown: Vec<_> = operations.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            ["line 1: process 0 read -> ok 3 at line 5", "line 3: process 1 cas [1 2] -> info at line 6"]
        );
    }

    #[test]
    fn what_is_no_register_is_refused_with_its_line() {
        for (text, line, what) in [
            ("", 0, "expected lines such as"),
            ("0 :invoke :enqueue 4", 1, "expected :read, :write or :cas"),
            ("0 :invoke :cas 4", 1, "expected [old new]"),
            ("0 :invoke :read [\"k\" nil]", 1, "expected a bare value"),
            ("0 :invoke :cas [\"k\" [1 2]]", 1, "expected a bare value"),
            ("0 :invoke :read nil\n1 :ok :read 3", 2, "expected a call before its end"),
            ("0 :invoke :read nil\n0 :invoke :read nil", 2, "expected an end"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.line == line && error.what.contains(what), "{error}");
        }
    }

    #[test]
    fn any_text_is_read_without_a_panic() {
        for text in ["{", "{}", "[[[", "\"", ":ok", "0 :ok", "\\ {:process}", "{:process 0 :type}", "0 :invoke :cas []"]
        {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
