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
put KEY VALUE          write a key; the value is the rest of the line, without quotes around it
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
        let key = || match rest {
            "" => Err(format!("{word} what? Give a key: {word} hello")),
            rest => whole(rest),
        };
        let node = || rest.parse().map_err(|_| format!("which node? Give its number: {word} 2"));
        match word {
            "put" => match first(rest)? {
                (key, value) if !value.is_empty() => Ok(Self::Put(key.to_owned(), whole(value)?)),
                _ => Err("put what? Give a key and a value: put hello world".to_owned()),
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

/// The commands of a script: what stands between `;`, but for those in quotes.
pub(super) fn split_script(script: &str) -> impl Iterator<Item = &str> {
    let mut quote = None;
    let parts = script.split(move |character| match (quote, character) {
        (None, '"' | '\'') => {
            quote = Some(character);
            false
        }
        (Some(open), _) => {
            if open == character {
                quote = None;
            }
            false
        }
        (None, _) => character == ';',
    });
    parts.map(str::trim).filter(|line| !line.is_empty())
}

/// The first word, or what stands in quotes instead of it, and what comes after.
fn first(text: &str) -> Result<(&str, &str), String> {
    let Some(quote) = text.chars().next().filter(|character| matches!(character, '"' | '\'')) else {
        let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        return Ok((word, rest.trim()));
    };
    let (inside, rest) = text[1..].split_once(quote).ok_or_else(|| format!("a quote is not closed: {text}"))?;
    if !rest.is_empty() && !rest.starts_with(char::is_whitespace) {
        return Err(format!("after a closing quote comes a space: {text}"));
    }
    Ok((inside, rest.trim()))
}

/// All of it, without the quotes that it may stand in.
fn whole(text: &str) -> Result<String, String> {
    if !text.starts_with(['"', '\'']) {
        return Ok(text.to_owned());
    }
    match first(text)? {
        (inside, "") => Ok(inside.to_owned()),
        _ => Err(format!("put all of it in quotes, or nothing: {text}")),
    }
}

fn nodes(text: &str) -> Option<Vec<u64>> {
    text.trim().split(',').map(|node| node.trim().parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_taken_off_as_a_shell_does() {
        let put = |key: &str, value: &str| Ok(Command::Put(key.into(), value.into()));
        assert_eq!(Command::parse("put hello \"from the majority\""), put("hello", "from the majority"));
        assert_eq!(Command::parse("put 'a b'  it's"), put("a b", "it's"));
        assert_eq!(Command::parse("put a \"\""), put("a", ""));
        assert_eq!(Command::parse("get 'a b'"), Ok(Command::Get("a b".into())));
        let script = "put a \"x; y\"; get a ;; del 'b;'";
        assert_eq!(split_script(script).collect::<Vec<_>>(), ["put a \"x; y\"", "get a", "del 'b;'"]);
    }

    #[test]
    fn lines_are_read() {
        assert_eq!(Command::parse("put a b c"), Ok(Command::Put("a".into(), "b c".into())));
        assert_eq!(Command::parse("get a"), Ok(Command::Get("a".into())));
        assert_eq!(Command::parse("\\partition 1 2,3"), Ok(Command::Partition(vec![1], vec![2, 3])));
        assert_eq!(Command::parse("\\kill 2"), Ok(Command::Kill(2)));
        for bad in
            ["put a", "put a \"b", "put a \"b\" c", "put 'a'b c", "get", "\\kill x", "\\partition 1", "frobnicate"]
        {
            assert!(Command::parse(bad).is_err(), "{bad}");
        }
    }
}
