//! What a script expects, whatever its trace says.
//!
//! | line | what must hold |
//! |---|---|
//! | `expect c1: written` | the answer to the first request begins so; `expect c1 waits`: it has none yet |
//! | `expect 2 role=leader term=3 ...` | node 2's replica says this of itself; the words are those of [`super::words::Words::status`] |
//! | `expect 2 down` | node 2 is not up |
//! | `expect leader 2` | node 2 leads, and no other node that is up leads in that term or a later one |
//! | `expect no leader` | nobody that is up leads |
//! | `expect same 1,2,3` | these replicas have applied the same, and their states have the same digest |
//! | `expect saw TEXT`, `expect not TEXT`, `expect 2x TEXT` | the block's trace so far has lines with this text; none; two |
//! | `expect order A \| B` | a line with A comes, and a line with B comes after it |

use kv_core::{
    node::Role,
    types::{NodeId, RequestId},
};

use super::{cluster::Cluster, commands::parsed, words::answer};

/// Checks one line, without its first word.
///
/// # Errors
/// If it does not hold, with what does.
pub fn check(cluster: &Cluster, line: &str, output: &[String]) -> Result<(), String> {
    if let Some(verdict) = check_trace(line, output) {
        return verdict;
    }
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        [request, "waits"] if request.starts_with('c') => check_answer(cluster, request, None),
        [request, ..] if request.starts_with('c') && request.ends_with(':') => {
            check_answer(cluster, request, Some(line))
        }
        ["leader", node] => check_leader(cluster, Some(NodeId(parsed(node)?))),
        ["no", "leader"] => check_leader(cluster, None),
        ["same", nodes] => check_same(cluster, nodes),
        [node, "down"] => match cluster.status(NodeId(parsed(node)?)) {
            None => Ok(()),
            Some(_) => Err("it is up".to_owned()),
        },
        [node, ref fields @ ..] if !fields.is_empty() => check_status(cluster, NodeId(parsed(node)?), fields),
        _ => Err("this can't be expected".to_owned()),
    }
}

/// Checks a line that is about the trace; `None` if it is not.
pub(super) fn check_trace(line: &str, output: &[String]) -> Option<Result<(), String>> {
    let (word, text) = line.split_once(' ')?;
    let count = |text: &str| output.iter().filter(|line| line.contains(text)).count();
    Some(match word {
        "saw" if count(text) == 0 => Err("no line says so".to_owned()),
        "not" if count(text) > 0 => Err("a line says so".to_owned()),
        "saw" | "not" => Ok(()),
        "order" => {
            let mut rest = output.iter();
            match text.split(" | ").find(|part| !rest.any(|line| line.contains(part))) {
                None => Ok(()),
                Some(part) => Err(format!("no line with \"{part}\" comes then")),
            }
        }
        _ => {
            let wanted: usize = word.strip_suffix('x')?.parse().ok()?;
            let found = count(text);
            if found == wanted { Ok(()) } else { Err(format!("there are {found} such lines")) }
        }
    })
}

fn check_answer(cluster: &Cluster, request: &str, line: Option<&str>) -> Result<(), String> {
    let id = RequestId(parsed(request.trim_matches(|letter| letter == 'c' || letter == ':'))?);
    let given = cluster.answers.get(&id).ok_or("nobody asked this")?;
    match (given, line) {
        (None, None) => Ok(()),
        (Some(result), None) => Err(format!("it has its answer: {}", answer(id, result))),
        (None, Some(_)) => Err("it waits for its answer".to_owned()),
        (Some(result), Some(line)) => {
            let given = answer(id, result);
            if given.starts_with(line) { Ok(()) } else { Err(format!("the answer is {given}")) }
        }
    }
}

fn check_leader(cluster: &Cluster, wanted: Option<NodeId>) -> Result<(), String> {
    let mut leaders: Vec<_> = cluster
        .nodes()
        .into_iter()
        .filter_map(|node| cluster.status(node).map(|status| (status.term, node, status.role)))
        .filter(|(_, _, role)| *role == Role::Leader)
        .collect();
    leaders.sort_unstable();
    if leaders.last().map(|(_, node, _)| *node) == wanted {
        return Ok(());
    }
    Err(format!("leaders, by term: {leaders:?}"))
}

fn check_same(cluster: &Cluster, nodes: &str) -> Result<(), String> {
    let mut states = Vec::new();
    for node in nodes.split(',') {
        let node = NodeId(parsed(node)?);
        states.push(cluster.state(node).ok_or_else(|| format!("node {node} has no state"))?);
    }
    if states.windows(2).all(|two| two[0] == two[1]) { Ok(()) } else { Err(format!("{states:?}")) }
}

fn check_status(cluster: &Cluster, node: NodeId, fields: &[&str]) -> Result<(), String> {
    let status = cluster.status(node).ok_or("it is down")?;
    let known = cluster.words.status(&status);
    for field in fields {
        let (name, wanted) = field.split_once('=').ok_or_else(|| format!("{field}: name=value"))?;
        let found = known.get(name).ok_or_else(|| format!("there is no {name}; there are {:?}", known.keys()))?;
        if found != wanted {
            return Err(format!("{name} is {found}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check_trace;

    #[test]
    fn expectations_about_the_trace_hold_or_not() {
        let output = ["n1 leads", "n2 follows", "n2 follows"].map(str::to_owned);
        for good in ["saw n1", "not n3", "2x n2", "order leads | follows"] {
            assert_eq!(check_trace(good, &output), Some(Ok(())), "{good}");
        }
        for bad in ["saw n3", "not n1", "1x n2", "order follows | leads"] {
            assert!(matches!(check_trace(bad, &output), Some(Err(_))), "{bad}");
        }
        assert_eq!(check_trace("leader 1", &output), None);
    }
}
