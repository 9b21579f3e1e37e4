//! All networks of five nodes, up to renaming: directed graphs, one of each kind.
//!
//! A link is a direction between two nodes; with five nodes there are 20, so 2^20 networks. Two that differ only in the nodes'
//! names are one *kind*; its representative is the one whose links, read as a number, are the least. There are 9,608 kinds
//! (the number of unlabelled digraphs on five vertices). They are numbered from 0 in the order of their representatives, so
//! 0 has no link and the last has all.

use std::fmt;

/// Nodes of a network.
pub const NODES: usize = 5;

/// Directed links that it can have.
const LINKS: usize = NODES * (NODES - 1);

/// Which messages can get from one of five nodes to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digraph(u32);

/// The number of a link.
const fn link(from: usize, to: usize) -> usize {
    from * (NODES - 1) + if to < from { to } else { to - 1 }
}

impl Digraph {
    /// The network with all links.
    pub const WHOLE: Self = Self((1 << LINKS) - 1);

    /// Whether messages get from one node to another.
    #[must_use]
    pub fn has(self, from: usize, to: usize) -> bool {
        from == to || self.0 >> link(from, to) & 1 == 1
    }

    /// Whether they get there and back.
    #[must_use]
    pub fn joins(self, one: usize, other: usize) -> bool {
        self.has(one, other) && self.has(other, one)
    }

    /// Whether a node has two-way links with a majority, itself counted.
    #[must_use]
    pub fn has_majority(self, node: usize) -> bool {
        (0..NODES).filter(|other| self.joins(node, *other)).count() > NODES / 2
    }

    /// Whether any node has: then somebody can lead.
    #[must_use]
    pub fn is_owed_a_leader(self) -> bool {
        (0..NODES).any(|node| self.has_majority(node))
    }

    /// A node that, if it leads when the links go, can leave every node that could lead without the votes for it.
    ///
    /// Such a leader has no majority of its own, yet entries of its last moments reach voters; none of the nodes with a
    /// majority hears it, and each of these needs the vote of one that did. The voter holds newer entries, which may be
    /// decided for all that it knows, so Raft has it refuse; it can't lead itself, and nobody else can bring the entries to
    /// where they are needed.
    #[must_use]
    pub fn trap(self) -> Option<usize> {
        let able = || (0..NODES).filter(|node| self.has_majority(*node));
        let traps = |leader: usize| {
            able().all(|node| {
                let voters = (0..NODES).filter(|other| self.joins(node, *other) && (!self.has(leader, *other)));
                !self.has(leader, node) && voters.count() <= NODES / 2
            })
        };
        (0..NODES).filter(|node| !self.has_majority(*node)).find(|leader| self.is_owed_a_leader() && traps(*leader))
    }

    /// The same network with its nodes renamed: node `n` becomes `names[n]`.
    #[must_use]
    pub fn renamed(self, names: [usize; NODES]) -> Self {
        let mut links = 0;
        for (from, to) in self.links() {
            links |= 1 << link(names[from], names[to]);
        }
        Self(links)
    }

    /// Its links.
    pub fn links(self) -> impl Iterator<Item = (usize, usize)> {
        let pairs = (0..NODES).flat_map(|from| (0..NODES).map(move |to| (from, to)));
        pairs.filter(move |(from, to)| from != to && self.has(*from, *to))
    }

    /// What is missing in it.
    pub fn cuts(self) -> impl Iterator<Item = (usize, usize)> {
        Self(!self.0 & Self::WHOLE.0).links()
    }
}

impl fmt::Display for Digraph {
    /// Nodes are the letters a to e; `ab` is a link both ways, `a>b` one from a to b.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |node: usize| char::from(b'a' + node as u8);
        let mut words = Vec::new();
        for (from, to) in self.links() {
            match self.has(to, from) {
                true if from < to => words.push(format!("{}{}", name(from), name(to))),
                true => {}
                false => words.push(format!("{}>{}", name(from), name(to))),
            }
        }
        f.write_str(if words.is_empty() { "none".to_owned() } else { words.join(" ") }.as_str())
    }
}

/// One network of each kind, in order.
#[must_use]
pub fn all() -> Vec<Digraph> {
    // Where a renaming takes each link.
    let renamings: Vec<[u8; LINKS]> = permutations().into_iter().map(links_renamed).collect();
    let mut seen = vec![false; 1 << LINKS];
    let mut kinds = Vec::new();
    for number in 0..1_u32 << LINKS {
        if seen[number as usize] {
            continue;
        }
        kinds.push(Digraph(number));
        for renaming in &renamings {
            let mut same = 0;
            let mut rest = number;
            while rest != 0 {
                same |= 1_u32 << renaming[rest.trailing_zeros() as usize];
                rest &= rest - 1;
            }
            seen[same as usize] = true;
        }
    }
    kinds
}

fn links_renamed(names: [usize; NODES]) -> [u8; LINKS] {
    let mut renamed = [0; LINKS];
    for (from, to) in Digraph::WHOLE.links() {
        renamed[link(from, to)] = link(names[from], names[to]) as u8;
    }
    renamed
}

/// All orders of five nodes.
fn permutations() -> Vec<[usize; NODES]> {
    let mut orders: Vec<Vec<usize>> = vec![Vec::new()];
    for _ in 0..NODES {
        let longer = orders.iter().flat_map(|order| {
            let left = (0..NODES).filter(|node| !order.contains(node));
            left.map(|node| [order.as_slice(), &[node]].concat()).collect::<Vec<_>>()
        });
        orders = longer.collect();
    }
    orders.into_iter().map(|order| order.try_into().expect("each order has all nodes")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_9608_kinds_and_none_is_another_renamed() {
        let kinds = all();
        assert_eq!(kinds.len(), 9_608);
        assert_eq!((kinds[0], kinds[9_607]), (Digraph(0), Digraph::WHOLE));
        for kind in kinds.iter().step_by(97) {
            for names in permutations() {
                assert!(kind.renamed(names) >= *kind, "{kind} has a lesser name");
            }
        }
        // By Burnside: each orbit's size divides 120, and together they are all labelled networks.
        let labelled: usize = kinds
            .iter()
            .map(|kind| 120 / permutations().into_iter().filter(|names| kind.renamed(*names) == *kind).count())
            .sum();
        assert_eq!(labelled, 1 << LINKS);
    }

    #[test]
    fn a_star_and_a_ring_are_owed_a_leader_and_a_one_way_ring_is_not() {
        let of = |links: &[(usize, usize)]| Digraph(links.iter().map(|(from, to)| 1 << link(*from, *to)).sum());
        let star = of(&[(0, 1), (1, 0), (0, 2), (2, 0)]);
        assert!(star.is_owed_a_leader() && star.has_majority(0) && !star.has_majority(1));
        assert_eq!(star.to_string(), "ab ac");
        let one_way = of(&[(0, 1), (1, 2), (2, 3), (3, 4), (4, 0)]);
        assert!(!one_way.is_owed_a_leader());
        assert_eq!(one_way.to_string(), "a>b b>c c>d d>e e>a");
        assert_eq!(one_way.cuts().count(), 15);
        assert_eq!(star.renamed([4, 3, 2, 1, 0]).to_string(), "ce de");
    }
}
