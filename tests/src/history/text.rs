//! A history as text, one line per operation, and back: so that a history that failed is kept and judged again.
//!
//! `7 c2 120@3500 put k1 v7 if=rev:4 previous sync 1/2/9 => 131@4100 written 6 entry:4:v3 1/2/33`
//!
//! number, client, event@micros of the call, the call, session stamps (shard/session/sequence), then the answer with its
//! moment, or `=> never`. Reading takes any text without a panic.

use std::fmt;

use kv_core::{
    command::Condition,
    error::{ErrorKind, Outcome},
    types::{LogIndex, Revision, Sequence, SessionId, ShardId, Term, Token},
};

use super::{
    Answer, Call, Consistency, Durability, History, Mode, Moment, Name, Operation, Previous, ReadError, Seen, Stamp,
};

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.operations.iter().try_for_each(|operation| writeln!(f, "{operation}"))
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} c{} {} {}", self.id, self.client, self.invoked, self.call)?;
        for stamp in &self.stamps {
            write!(f, " {}/{}/{}", stamp.shard, stamp.session, stamp.sequence)?;
        }
        match &self.completed {
            Some((at, answer)) => write!(f, " => {at} {answer}"),
            None => f.write_str(" => never"),
        }
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.event, self.micros)
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Get { key, consistency: Consistency::Linearizable } => write!(f, "get {key} linearizable"),
            Self::Get { key, consistency: Consistency::Bounded(micros) } => write!(f, "get {key} bounded:{micros}"),
            Self::Get { key, consistency: Consistency::Stale } => write!(f, "get {key} stale"),
            Self::Write { key, value, condition, return_previous, mode } => {
                match value {
                    Some(value) => write!(f, "put {key} {value}")?,
                    None => write!(f, "delete {key}")?,
                }
                match condition {
                    Condition::Always => {}
                    Condition::Absent => f.write_str(" if=absent")?,
                    Condition::RevisionIs(revision) => write!(f, " if=rev:{revision}")?,
                }
                if *return_previous {
                    f.write_str(" previous")?;
                }
                f.write_str(match mode {
                    Mode::Sync => " sync",
                    Mode::Async => " async",
                })
            }
            Self::WaitDurable { token } => write!(f, "wait_durable {}", token_text(token)),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { entry, at, age_micros } => {
                match entry {
                    Some(seen) => write!(f, "read {}:{}", seen.revision, seen.value)?,
                    None => f.write_str("read absent")?,
                }
                if let Some(revision) = at {
                    write!(f, " at:{revision}")?;
                }
                write!(f, " age:{age_micros}")
            }
            Self::Written { revision, previous, token } => {
                write!(f, "written {revision}")?;
                match previous {
                    Previous::Untold => {}
                    Previous::Absent => f.write_str(" absent")?,
                    Previous::Entry(seen) => write!(f, " entry:{}:{}", seen.revision, seen.value)?,
                }
                token.as_ref().map_or(Ok(()), |token| write!(f, " {}", token_text(token)))
            }
            Self::Accepted { token } => write!(f, "accepted {}", token_text(token)),
            Self::Durability(Durability::Durable) => f.write_str("durable"),
            Self::Durability(Durability::Lost) => f.write_str("lost"),
            Self::Durability(Durability::Unknown) => f.write_str("unknown"),
            Self::Failed { kind, outcome, current } => {
                write!(f, "failed {kind:?} {outcome:?}")?;
                current.map_or(Ok(()), |current| write!(f, " current:{current}"))
            }
        }
    }
}

fn token_text(token: &Token) -> String {
    format!("{}/{}/{}", token.shard, token.term, token.index)
}

impl std::str::FromStr for History {
    type Err = ReadError;

    /// Reads what [`History`]'s `Display` wrote; empty lines and lines that begin with `#` are skipped.
    fn from_str(text: &str) -> Result<Self, ReadError> {
        let mut operations = Vec::new();
        for (number, line) in text.lines().enumerate() {
            if !line.trim().is_empty() && !line.starts_with('#') {
                let operation = Words { rest: line.split_ascii_whitespace().peekable() }.operation();
                operations.push(
                    operation
                        .map_err(|expected| ReadError { line: number + 1, what: format!("expected {expected}") })?,
                );
            }
        }
        Ok(Self { operations })
    }
}

/// The words of one line, read from left to right.
struct Words<'a> {
    rest: std::iter::Peekable<std::str::SplitAsciiWhitespace<'a>>,
}

type Parsed<T> = Result<T, &'static str>;

impl<'a> Words<'a> {
    fn operation(mut self) -> Parsed<Operation> {
        let id = number(self.word("a number")?)?;
        let client = number(self.word("a client")?.strip_prefix('c').ok_or("a client such as c3")?)?;
        let invoked = moment(self.word("a moment")?)?;
        let call = self.call()?;
        let mut stamps = Vec::new();
        while let Some(word) = self.rest.next_if(|word| *word != "=>") {
            let [shard, session, sequence] = three_numbers(word)?;
            stamps.push(Stamp { shard: ShardId(shard), session: SessionId(session), sequence: Sequence(sequence) });
        }
        self.exactly("=>")?;
        let completed = if self.rest.next_if_eq(&"never").is_some() {
            None
        } else {
            Some((moment(self.word("a moment or never")?)?, self.answer()?))
        };
        match self.rest.next() {
            None => Ok(Operation { id, client, call, invoked, stamps, completed }),
            Some(_) => Err("the end of the line"),
        }
    }

    fn call(&mut self) -> Parsed<Call> {
        match self.word("a call")? {
            "get" => {
                let key = self.name()?;
                let consistency = match self.word("a consistency")? {
                    "linearizable" => Consistency::Linearizable,
                    "stale" => Consistency::Stale,
                    word => Consistency::Bounded(number(word.strip_prefix("bounded:").ok_or("a consistency")?)?),
                };
                Ok(Call::Get { key, consistency })
            }
            "put" => {
                let (key, value) = (self.name()?, self.name()?);
                self.write(key, Some(value))
            }
            "delete" => {
                let key = self.name()?;
                self.write(key, None)
            }
            "wait_durable" => Ok(Call::WaitDurable { token: token(self.word("a token")?)? }),
            _ => Err("get, put, delete or wait_durable"),
        }
    }

    fn write(&mut self, key: Name, value: Option<Name>) -> Parsed<Call> {
        let condition = match self.rest.next_if(|word| word.starts_with("if=")) {
            None => Condition::Always,
            Some("if=absent") => Condition::Absent,
            Some(word) => {
                Condition::RevisionIs(Revision(number(word.strip_prefix("if=rev:").ok_or("if=absent or if=rev:N")?)?))
            }
        };
        let return_previous = self.rest.next_if_eq(&"previous").is_some();
        let mode = match self.word("sync or async")? {
            "sync" => Mode::Sync,
            "async" => Mode::Async,
            _ => return Err("sync or async"),
        };
        Ok(Call::Write { key, value, condition, return_previous, mode })
    }

    fn answer(&mut self) -> Parsed<Answer> {
        match self.word("an answer")? {
            "read" => {
                let entry = match self.word("an entry or absent")? {
                    "absent" => None,
                    word => Some(seen(word)?),
                };
                let at = match self.rest.next_if(|word| word.starts_with("at:")) {
                    Some(word) => Some(Revision(number(&word[3..])?)),
                    None => None,
                };
                let age = self.word("an age")?.strip_prefix("age:").ok_or("an age such as age:0")?;
                Ok(Answer::Read { entry, at, age_micros: number(age)? })
            }
            "written" => {
                let revision = Revision(number(self.word("a revision")?)?);
                let previous = if self.rest.next_if_eq(&"absent").is_some() {
                    Previous::Absent
                } else if let Some(word) = self.rest.next_if(|word| word.starts_with("entry:")) {
                    Previous::Entry(seen(&word[6..])?)
                } else {
                    Previous::Untold
                };
                let token = self.rest.next().map(token).transpose()?;
                Ok(Answer::Written { revision, previous, token })
            }
            "accepted" => Ok(Answer::Accepted { token: token(self.word("a token")?)? }),
            "durable" => Ok(Answer::Durability(Durability::Durable)),
            "lost" => Ok(Answer::Durability(Durability::Lost)),
            "unknown" => Ok(Answer::Durability(Durability::Unknown)),
            "failed" => {
                let name = self.word("an error kind")?;
                let kind = *ERROR_KINDS.iter().find(|kind| format!("{kind:?}") == name).ok_or("an error kind")?;
                let outcome = match self.word("an outcome")? {
                    "NotApplied" => Outcome::NotApplied,
                    "Unknown" => Outcome::Unknown,
                    _ => return Err("NotApplied or Unknown"),
                };
                let current = match self.rest.next() {
                    Some(word) => Some(Revision(number(word.strip_prefix("current:").ok_or("current:N")?)?)),
                    None => None,
                };
                Ok(Answer::Failed { kind, outcome, current })
            }
            _ => Err("an answer"),
        }
    }

    fn word(&mut self, expected: &'static str) -> Parsed<&'a str> {
        self.rest.next().ok_or(expected)
    }

    fn exactly(&mut self, word: &'static str) -> Parsed<()> {
        self.rest.next_if_eq(&word).map(|_| ()).ok_or(word)
    }

    fn name(&mut self) -> Parsed<Name> {
        self.word("a name").map(name)
    }
}

pub(super) const ERROR_KINDS: [ErrorKind; 12] = [
    ErrorKind::NotOwner,
    ErrorKind::StaleEpoch,
    ErrorKind::NoQuorum,
    ErrorKind::Overloaded,
    ErrorKind::DiskFull,
    ErrorKind::Timeout,
    ErrorKind::SessionExpired,
    ErrorKind::Conflict,
    ErrorKind::Invalid,
    ErrorKind::WrongCluster,
    ErrorKind::Corrupt,
    ErrorKind::Internal,
];

fn name(word: &str) -> Name {
    Name::printed(word)
}

fn number(word: &str) -> Parsed<u64> {
    word.parse().map_err(|_| "a number")
}

fn moment(word: &str) -> Parsed<Moment> {
    let (event, micros) = word.split_once('@').ok_or("a moment such as 12@5000")?;
    Ok(Moment { event: number(event)?, micros: number(micros)? })
}

fn seen(word: &str) -> Parsed<Seen> {
    let (revision, value) = word.split_once(':').ok_or("an entry such as 4:value")?;
    Ok(Seen { revision: Revision(number(revision)?), value: name(value) })
}

fn token(word: &str) -> Parsed<Token> {
    let [shard, term, index] = three_numbers(word)?;
    Ok(Token { shard: ShardId(shard), term: Term(term), index: LogIndex(index) })
}

fn three_numbers(word: &str) -> Parsed<[u64; 3]> {
    let mut parts = word.splitn(3, '/').map(number);
    let mut next = || parts.next().unwrap_or(Err("three numbers such as 1/2/3"));
    Ok([next()?, next()?, next()?])
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Calls and answers of every form.
    pub(in super::super) const SAMPLE: &str = "\
0 c1 1@0 put k1 v0 sync 1/2/9 => 4@900 written 6 entry:4:v3 1/2/33
1 c2 2@0 put k\\x20\\x7e v1 if=absent previous async => 5@950 accepted 1/2/34
2 c1 6@1000 delete k1 if=rev:6 sync 1/2/10 1/5/1 => 9@1200 failed Conflict NotApplied current:7
3 c1 7@1000 get k1 linearizable => 8@1100 read 6:v0 at:9 age:0
4 c1 10@1300 get k1 bounded:500 => 11@1400 read absent age:120
5 c1 12@1400 get k1 stale => never
6 c3 13@1400 wait_durable 1/2/34 => 14@1500 lost
7 c3 15@1500 wait_durable 1/2/34 => 16@1500 durable
8 c3 17@1500 delete k1 sync => 18@1500 written 0 absent
9 c3 19@1500 delete k1 sync => 20@1500 failed Timeout Unknown
10 c3 21@1500 wait_durable 1/2/35 => 22@1500 unknown
11 c3 23@1500 get k1 stale => 24@1500 read absent age:18446744073709551615
";

    #[test]
    fn a_history_reads_back_as_it_was_printed() {
        let history: History = SAMPLE.parse().unwrap();
        assert_eq!(history.operations().len(), 12);
        assert_eq!(history.to_string(), SAMPLE);
        assert!(history.operations()[1].is_open_write());
        assert!(!history.operations()[0].is_open_write());
        assert!(!history.operations()[5].is_open_write(), "a read is no write");
    }

    #[test]
    fn moments_that_cannot_be_those_of_one_run_are_refused() {
        let in_order = |text: &str| text.parse::<History>().unwrap().in_order();
        let (call, answer) =
            ("1 c1 1@5 get k stale => 4@9 read absent age:0\n", "2 c2 2@6 get k stale => 3@8 read absent age:0\n");
        let sorted = in_order(&format!("{answer}{call}")).unwrap();
        assert_eq!(sorted.to_string(), format!("{call}{answer}"));
        assert!(in_order(SAMPLE).is_ok());
        for (odd, what) in [
            ("2 c2 2@6 get k stale => 4@9 read absent age:0\n", "event 4 is given twice"),
            ("2 c2 2@6 get k stale => 3@5 read absent age:0\n", "time goes back from event@micros 2@6 to 3@5"),
            ("2 c2 3@6 get k stale => 2@6 read absent age:0\n", "operation 2 was called at 3@6 and answered at 2@6"),
        ] {
            assert_eq!(in_order(&format!("{call}{odd}")).unwrap_err(), what);
        }
    }

    #[test]
    fn damaged_lines_are_refused_with_their_number() {
        for line in SAMPLE.lines() {
            for cut in (0..line.len()).filter(|cut| line.is_char_boundary(*cut)) {
                // A line cut short is either refused or a shorter line that is whole by chance; it never panics.
                if let Ok(history) = line[..cut].parse::<History>() {
                    assert_eq!(history.to_string().trim_end(), line[..cut].trim_end());
                }
            }
        }
        let error = "\n# comment\n3 c1 5 get k".parse::<History>().unwrap_err();
        assert_eq!(error.to_string(), "line 3: expected a moment such as 12@5000");
    }

    #[test]
    fn names_are_equal_only_for_equal_bytes() {
        let long = vec![b'a'; 100];
        let mut other = long.clone();
        other[99] = b'b';
        let names = [&b""[..], b"\0", b"a", b" ", b"\\x20", b"~", b":", b"\\0", &long, &other].map(Name::of);
        for (i, a) in names.iter().enumerate() {
            assert!(!a.as_str().contains([' ', ':']) && !a.as_str().is_empty());
            assert!(names[i + 1..].iter().all(|b| a != b), "{a} stands for two different texts");
        }
    }
}
