//! The format of a script: blocks of commands, a line `---`, and the trace; an empty line between two blocks.

/// Commands and what came of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// Lines as they stand, comments among them.
    pub lines: Vec<String>,
    /// The commands with the numbers of their lines.
    pub commands: Vec<(usize, String)>,
    /// The trace.
    pub output: Vec<String>,
}

const SEPARATOR: &str = "---";

/// The blocks of a script.
///
/// # Errors
/// If it does not begin with its property, as a comment.
pub fn parse(text: &str) -> Result<Vec<Block>, String> {
    if !text.starts_with("# ") || !text.lines().next().is_some_and(|line| line.ends_with('.')) {
        return Err("the first line says in one sentence what the script shows: # ...".to_owned());
    }
    let mut blocks = vec![Block::default()];
    let mut in_output = false;
    for (number, line) in text.lines().enumerate() {
        if line.is_empty() {
            if *blocks.last().expect("there is one") != Block::default() {
                blocks.push(Block::default());
            }
            in_output = false;
            continue;
        }
        let block = blocks.last_mut().expect("there is one");
        if in_output {
            block.output.push(line.to_owned());
        } else if line == SEPARATOR {
            in_output = true;
        } else {
            block.lines.push(line.to_owned());
            if !line.starts_with('#') {
                block.commands.push((number + 1, line.to_owned()));
            }
        }
    }
    blocks.retain(|block| *block != Block::default());
    Ok(blocks)
}

/// The text of these blocks.
#[must_use]
pub fn print(blocks: &[Block]) -> String {
    let block = |block: &Block| {
        let mut lines = block.lines.clone();
        if !block.output.is_empty() {
            lines.push(SEPARATOR.to_owned());
            lines.extend(block.output.iter().cloned());
        }
        lines.join("\n")
    };
    blocks.iter().map(block).collect::<Vec<_>>().join("\n\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_printed_as_it_was_read() {
        let text = "# It is so.\n# Because.\n\nput 1 a=1\n---\nn1 does\n  this\n\nget 1 a\n";
        let blocks = parse(text).unwrap();
        assert_eq!(blocks.len(), 3);
        assert_eq!(blocks[1].commands, [(4, "put 1 a=1".to_owned())]);
        assert_eq!(blocks[1].output, ["n1 does", "  this"]);
        assert_eq!(print(&blocks), text);
        assert!(parse("put 1 a=1\n").is_err());
    }
}
