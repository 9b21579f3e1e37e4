//! What can be typed at the prompt.

/// A command.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    Put(String, String),
    Get(String),
    Delete(String),
    Status,
    Kill(u64),
    Restart(u64),
    Partition(Vec<u64>, Vec<u64>),
    Heal,
    Help,
    Quit,
}

/// All of them, for people.
pub(super) const HELP: &str = "\
put KEY VALUE          write a key; the value is the rest of the line
get KEY                read a key
del KEY                delete a key
status                 nodes, shards, leaders
\\kill 2                end a node without a farewell
\\restart 2             start it again
\\partition 1 2,3       cut node 1 off from nodes 2 and 3
\\heal                  restore all links
\\help                  this text
\\quit                  end the cluster (or Ctrl-D)";

impl Command {
    /// Reads a line.
    ///
    /// # Errors
    /// A sentence that says what was expected.
    pub(super) fn parse(line: &str) -> Result<Self, String> {
        let (word, rest) = match line.split_once(char::is_whitespace) {
            Some((word, rest)) => (word, rest.trim()),
            None => (line, ""),
        };
        let key = || {
            if rest.is_empty() { Err(format!("{word} what? Give a key: {word} hello")) } else { Ok(rest.to_owned()) }
        };
        let node = || rest.parse().map_err(|_| format!("which node? Give its number: {word} 2"));
        match word {
            "put" => match rest.split_once(char::is_whitespace) {
                Some((key, value)) => Ok(Self::Put(key.to_owned(), value.trim().to_owned())),
                None => Err("put what? Give a key and a value: put hello world".to_owned()),
            },
            "get" => Ok(Self::Get(key()?)),
            "del" | "delete" => Ok(Self::Delete(key()?)),
            "status" => Ok(Self::Status),
            "\\kill" => Ok(Self::Kill(node()?)),
            "\\restart" => Ok(Self::Restart(node()?)),
            "\\partition" => {
                let sides = rest.split_once(char::is_whitespace);
                let sides = sides.and_then(|(one, other)| Some((nodes(one)?, nodes(other)?)));
                let (one, other) = sides.ok_or("which nodes? Give two sides: \\partition 1 2,3")?;
                Ok(Self::Partition(one, other))
            }
            "\\heal" => Ok(Self::Heal),
            "\\help" | "help" | "?" => Ok(Self::Help),
            "\\quit" | "quit" | "exit" => Ok(Self::Quit),
            _ => Err(format!("`{word}` is no command; \\help lists them")),
        }
    }
}

fn nodes(text: &str) -> Option<Vec<u64>> {
    text.trim().split(',').map(|node| node.trim().parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        assert_eq!(Command::parse("put a b c"), Ok(Command::Put("a".into(), "b c".into())));
        assert_eq!(Command::parse("get a"), Ok(Command::Get("a".into())));
        assert_eq!(Command::parse("\\partition 1 2,3"), Ok(Command::Partition(vec![1], vec![2, 3])));
        assert_eq!(Command::parse("\\kill 2"), Ok(Command::Kill(2)));
        for bad in ["put a", "get", "\\kill x", "\\partition 1", "frobnicate"] {
            assert!(Command::parse(bad).is_err(), "{bad}");
        }
    }
}
