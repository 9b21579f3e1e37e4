//! A network namespace for each node, joined by a bridge: where packets can be dropped between two nodes and no others.
//!
//! The clients stay in the namespace of this process and reach the nodes over the bridge. All names carry this process' id, so that
//! runs at the same time don't meet; what a run left that was killed is cleared away by the next one. Dropping it removes everything.

use std::{
    fs,
    path::Path,
    process::Command,
    sync::{Arc, Mutex, PoisonError},
};

use crate::tools::{Tool, ask, is_alive, run};

/// What all names begin with. With process id and node they stay below the 15 letters of a link's name.
const PREFIX: &str = "kvc";

/// The namespaces of a run. Dropping it removes them.
#[derive(Debug)]
pub(crate) struct Namespaces {
    network: Network,
}

/// How the namespaces of a run are named, and a way to drop packets in them.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    nodes: usize,
    /// The first three bytes of all addresses.
    network: String,
    /// Held while a rule changes: iptables finds a rule and then removes it by its number, so that two at once may miss it.
    rules: Arc<Mutex<()>>,
}

impl Namespaces {
    /// Whether they can be had here, or why not: root in a container may lack the right to make them.
    pub(crate) fn possible() -> Result<(), String> {
        let tried = Self::new(1)?;
        let network = tried.network();
        let rule = network.loses(1, 0.5);
        network.add_rule(&rule).and_then(|()| network.remove_rule(&rule))
    }

    /// Makes them.
    pub(crate) fn new(nodes: usize) -> Result<Self, String> {
        clear_leftovers();
        let id = std::process::id();
        // Of the range that is set aside for measurements of networks (RFC 2544).
        let network = format!("198.{}.{}", 18 + id / 256 % 2, id % 256);
        let made = Self { network: Network { nodes, network, rules: Arc::default() } };
        let bridge = bridge(id);
        ip(&["link", "add", &bridge, "type", "bridge"])?;
        ip(&["addr", "add", &format!("{}.1/24", made.network.network), "dev", &bridge])?;
        ip(&["link", "set", &bridge, "up"])?;
        for node in 1..=nodes {
            made.network.add(node)?;
        }
        Ok(made)
    }

    /// Ends all processes in them.
    pub(crate) fn end_all(&self) {
        for node in 1..=self.network.nodes {
            end_all_in(&self.network.name(node));
        }
    }

    /// Their names and rules.
    pub(crate) fn network(&self) -> &Network {
        &self.network
    }
}

/// A rule by which a node drops packets.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    node: usize,
    words: Vec<String>,
}

impl Network {
    fn add(&self, node: usize) -> Result<(), String> {
        let (name, bridge) = (self.name(node), bridge(std::process::id()));
        let (outside, inside) = (format!("{name}o"), format!("{name}i"));
        ip(&["netns", "add", &name])?;
        ip(&["link", "add", &outside, "type", "veth", "peer", "name", &inside])?;
        ip(&["link", "set", &outside, "master", &bridge])?;
        ip(&["link", "set", &outside, "up"])?;
        ip(&["link", "set", &inside, "netns", &name])?;
        ip(&["-n", &name, "addr", "add", &format!("{}/24", self.address(node)), "dev", &inside])?;
        ip(&["-n", &name, "link", "set", &inside, "up"])?;
        ip(&["-n", &name, "link", "set", "lo", "up"])
    }

    /// A node's address.
    pub(crate) fn address(&self, node: usize) -> String {
        format!("{}.{}", self.network, 10 + node)
    }

    fn name(&self, node: usize) -> String {
        name(std::process::id(), node)
    }

    /// The file that stands for a node's namespace.
    pub(crate) fn file(&self, node: usize) -> String {
        format!("/var/run/netns/{}", self.name(node))
    }

    /// A command that runs in a node's namespace: its process is the program's own.
    pub(crate) fn command(&self, node: usize, program: &Path) -> Command {
        let mut command = Command::new(Tool::Nsenter.path().unwrap_or_else(|| "nsenter".into()));
        command.arg(format!("--net={}", self.file(node))).arg("--").arg(program);
        command
    }

    /// Drops all packets that go from a node to another; `None` stands for the clients.
    pub(crate) fn blocks(&self, from: Option<usize>, to: Option<usize>) -> Option<Rule> {
        let address =
            |node: Option<usize>| node.map_or_else(|| format!("{}.1", self.network), |node| self.address(node));
        let (node, chain, flag, other) = match (from, to) {
            (from, Some(to)) => (to, "INPUT", "-s", address(from)),
            (Some(from), None) => (from, "OUTPUT", "-d", address(None)),
            (None, None) => return None,
        };
        Some(Rule { node, words: [chain, flag, &other, "-j", "DROP"].map(str::to_owned).to_vec() })
    }

    /// Drops each packet that comes to a node with this probability.
    pub(crate) fn loses(&self, node: usize, probability: f64) -> Rule {
        let probability = format!("{probability:.3}");
        let words = ["INPUT", "-m", "statistic", "--mode", "random", "--probability", &probability, "-j", "DROP"];
        Rule { node, words: words.map(str::to_owned).to_vec() }
    }

    /// Begins to drop packets.
    pub(crate) fn add_rule(&self, rule: &Rule) -> Result<(), String> {
        self.iptables("-A", rule)
    }

    /// No longer drops what a rule said.
    pub(crate) fn remove_rule(&self, rule: &Rule) -> Result<(), String> {
        self.iptables("-D", rule)
    }

    fn iptables(&self, what: &str, rule: &Rule) -> Result<(), String> {
        let program = Tool::Iptables.path().ok_or_else(|| Tool::Iptables.missing().unwrap_or_default())?;
        let _alone = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        run(self.command(rule.node, &program).args(["-w", what]).args(&rule.words))
    }

    /// How many packets a rule dropped, or another that says the same: which of them is asked first is the kernel's choice.
    pub(crate) fn dropped(&self, rule: &Rule) -> Result<u64, String> {
        let program = Tool::Iptables.path().ok_or_else(|| Tool::Iptables.missing().unwrap_or_default())?;
        let listed = ask(self.command(rule.node, &program).args(["-w", "-nvxL"]).args(&rule.words[..1]))?;
        Ok(dropped_in(&listed, &rule.words))
    }
}

/// The packets of a rule in what iptables lists: `packets bytes DROP all -- in out source destination and more`.
fn dropped_in(listed: &str, rule: &[String]) -> u64 {
    let is_random = rule.iter().any(|word| word == "statistic");
    let packets = listed.lines().filter_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let is_drop = words.get(2) == Some(&"DROP");
        let is_rule = if is_random { words.contains(&"statistic") } else { words.contains(&rule[2].as_str()) };
        words.first().filter(|_| is_drop && is_rule)?.parse::<u64>().ok()
    });
    packets.sum()
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        remove(std::process::id(), self.network.nodes);
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    Tool::Ip.run(arguments)
}

fn name(id: u32, node: usize) -> String {
    format!("{PREFIX}{id}-{node}")
}

fn bridge(id: u32) -> String {
    format!("{PREFIX}{id}b")
}

/// Removes all of a run; what is not there any more is no matter.
fn remove(id: u32, nodes: usize) {
    for node in 1..=nodes {
        // The pair of links goes with the namespace, but only once the last process in it has ended.
        let _gone = ip(&["link", "del", &format!("{}o", name(id, node))]);
        let _gone = ip(&["netns", "del", &name(id, node)]);
    }
    let _gone = ip(&["link", "del", &bridge(id)]);
}

/// Removes what runs left that were killed: namespaces with the processes in them, and links, each by itself.
pub(crate) fn clear_leftovers() {
    for name in left_in("/var/run/netns") {
        end_all_in(&name);
        let _gone = ip(&["netns", "del", &name]);
    }
    // Of a pair of links that a namespace took with it nothing is there any more.
    for link in left_in("/sys/class/net") {
        let _gone = ip(&["link", "del", &link]);
    }
}

/// The names in a directory that are of runs whose process is no more.
fn left_in(directory: &str) -> Vec<String> {
    let names = fs::read_dir(directory).into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| maker(name).is_some_and(|id| !is_alive(id))).collect()
}

/// The process that made what has this name, if it is one of ours: `kvc7-1` and its links `kvc7-1o` and `kvc7-1i`, or the bridge `kvc7b`.
fn maker(name: &str) -> Option<u32> {
    let rest = name.strip_prefix(PREFIX)?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let id = match rest.split_once('-') {
        Some((id, node)) => is_number(node.strip_suffix(['o', 'i']).unwrap_or(node)).then_some(id)?,
        None => rest.strip_suffix('b')?,
    };
    is_number(id).then(|| id.parse().ok())?
}

fn end_all_in(namespace: &str) {
    let Some(program) = Tool::Ip.path() else { return };
    let Ok(output) = Command::new(program).args(["netns", "pids", namespace]).output() else { return };
    for id in String::from_utf8_lossy(&output.stdout).split_whitespace() {
        let Some(id) = id.parse().ok().and_then(rustix::process::Pid::from_raw) else { continue };
        let _ended = rustix::process::kill_process(id, rustix::process::Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_runs_made_has_a_maker() {
        for ours in ["kvc7-1", "kvc7-12o", "kvc7-1i", "kvc7b"] {
            assert_eq!(maker(ours), Some(7), "{ours}");
        }
        for other in
            ["kvc", "kvc7", "kvcb", "kvc-1", "kvc7-", "kvc7-o", "kvc7-1x", "kvc7-1-2", "kvc7bb", "kvc+7b", "eth0", "lo"]
        {
            assert_eq!(maker(other), None, "{other}");
        }
    }

    #[test]
    fn the_packets_of_a_rule_are_found_in_what_is_listed() {
        let listed = "Chain INPUT (policy ACCEPT 15 packets, 812 bytes)\n    \
                      pkts      bytes target     prot opt in     out     source               destination         \n       \
                      3      180 DROP       0    --  *      *       198.18.7.12          0.0.0.0/0           \n       \
                      2      120 DROP       0    --  *      *       198.18.7.12          0.0.0.0/0           \n      \
                      40     2100 DROP       0    --  *      *       198.18.7.1           0.0.0.0/0           \n       \
                      5      300 DROP       0    --  *      *       0.0.0.0/0            0.0.0.0/0            statistic mode random\n";
        let network = Network { nodes: 3, network: "198.18.7".to_owned(), rules: Arc::default() };
        let dropped = |rule: Rule| dropped_in(listed, &rule.words);
        assert_eq!(dropped(network.blocks(Some(2), Some(1)).unwrap()), 5);
        assert_eq!(dropped(network.blocks(None, Some(1)).unwrap()), 40);
        assert_eq!(dropped(network.blocks(Some(3), Some(1)).unwrap()), 0);
        assert_eq!(dropped(network.loses(1, 0.3)), 5);
    }
}
