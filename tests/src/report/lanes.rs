//! Two pictures of lanes over time: what was done to the cluster, and who led which shard.

use std::collections::BTreeMap;

use super::{
    axis::{Axis, END, LEFT, WIDTH},
    svg::{line, rect, text},
};
use crate::{
    history::run::{Run, What},
    verdict::words::span,
};

const TOP: f64 = 44.0;
const BOTTOM: f64 = 32.0;
const FAULT_LANE: f64 = 26.0;
const SHARD_LANE: f64 = 17.0;
/// So many lanes of shards are drawn; more would be lines that nobody can tell apart.
const SHARDS_SHOWN_MAX: usize = 64;
/// Nodes from this one on share a colour.
const COLOURS: u64 = 7;

/// A fault as it is drawn: from, until, and what it says when it is pointed at.
type Spell = (u64, Option<u64>, String);

/// What was done to the cluster: a lane for each kind. Nothing if nothing was.
pub(super) fn faults(run: &Run, axis: &Axis) -> String {
    let mut lanes: BTreeMap<&str, Vec<Spell>> = BTreeMap::new();
    let mut notes = Vec::new();
    for event in &run.events {
        match &event.what {
            What::Fault { name, nodes, detail } => {
                let nodes: Vec<_> = nodes.iter().map(|node| node_name(run, *node)).collect();
                let nodes = nodes.join(" ");
                let until = event
                    .until_micros
                    .map_or(String::new(), |until| format!(" for {}", span(until - event.from_micros.min(until))));
                let says = format!("{name} {nodes} at {}{until} {detail}", span(event.from_micros));
                lanes.entry(name).or_default().push((event.from_micros, event.until_micros, says.trim().to_owned()));
            }
            What::Note(text) => notes.push((event.from_micros, text.as_str())),
            What::Leader { .. } | What::FinalReads { .. } => {}
        }
    }
    if lanes.is_empty() && notes.is_empty() {
        return String::new();
    }
    let count = lanes.len() + usize::from(!notes.is_empty());
    let bottom = TOP + FAULT_LANE * count as f64;
    let mut svg = open("What was done to the cluster", bottom + BOTTOM);
    svg += &axis.ticks(TOP, bottom);
    let mut y = TOP;
    for (name, faults) in &lanes {
        svg += &lane(name, y, FAULT_LANE);
        for (from, until, says) in faults {
            let x = axis.x(*from);
            let width = until.map_or(3.0, |until| axis.x(until) - x).max(3.0);
            svg += &rect("fault", (x, y + 5.0), (width, FAULT_LANE - 10.0), says);
        }
        y += FAULT_LANE;
    }
    if !notes.is_empty() {
        svg += &lane("notes", y, FAULT_LANE);
        for (from, words) in notes {
            svg += &rect("note", (axis.x(from) - 1.5, y + 7.0), (3.0, FAULT_LANE - 14.0), words);
        }
    }
    svg + "</svg>\n"
}

/// A reign: from, term, node.
type Reign = (u64, u64, u64);

/// Who led which shard: a lane for each shard, coloured by node. Nothing if nothing is known.
pub(super) fn leaders(run: &Run, axis: &Axis) -> String {
    let mut shards: BTreeMap<u64, Vec<Reign>> = BTreeMap::new();
    for event in &run.events {
        if let What::Leader { shard, node, term } = event.what {
            shards.entry(shard).or_default().push((event.from_micros, term, node));
        }
    }
    if shards.is_empty() {
        return String::new();
    }
    let hidden = shards.len().saturating_sub(SHARDS_SHOWN_MAX);
    let bottom = TOP + SHARD_LANE * (shards.len() - hidden) as f64;
    let changes: usize = shards.values().map(|reigns| reigns.len() - 1).sum();
    let hidden = if hidden > 0 { format!(", {hidden} shards not shown") } else { String::new() };
    let mut svg = open(&format!("Leaders: {changes} changes{hidden}"), bottom + BOTTOM);
    svg += &legend(run, shards.values().flatten().map(|(_, _, node)| *node));
    svg += &axis.ticks(TOP, bottom);
    svg += &axis.bands(run, TOP, bottom);
    let mut y = TOP;
    for (shard, reigns) in shards.iter_mut().take(SHARDS_SHOWN_MAX) {
        reigns.sort_unstable();
        svg += &lane(&if *shard == 0 { "meta".to_owned() } else { format!("shard {shard}") }, y, SHARD_LANE);
        for (i, (from, term, node)) in reigns.iter().enumerate() {
            let until = reigns.get(i + 1).map_or(axis.until_micros, |(next, ..)| *next);
            let (x, to) = (axis.x(*from), axis.x(until));
            let says = format!("{} leads shard {shard} in term {term} from {}", node_name(run, *node), span(*from));
            // A gap of a pixel shows a change of term even where the node stays the same.
            svg += &rect(&class(*node), (x, y + 2.5), ((to - x - 1.0).max(1.0), SHARD_LANE - 5.0), &says);
        }
        y += SHARD_LANE;
    }
    svg + "</svg>\n"
}

fn legend(run: &Run, nodes: impl Iterator<Item = u64>) -> String {
    let nodes: std::collections::BTreeSet<_> = nodes.collect();
    let mut svg = String::new();
    let mut x = END;
    for node in nodes.into_iter().take(12).rev() {
        let name = node_name(run, node);
        svg += &text(x, 26.0, "end", "tick", &name);
        x -= 7.3 * name.chars().count() as f64 + 15.0;
        svg += &rect(&class(node), (x, 17.0), (10.0, 10.0), "");
        x -= 14.0;
    }
    svg
}

fn node_name(run: &Run, node: u64) -> String {
    let place = usize::try_from(node).ok().and_then(|node| node.checked_sub(1));
    place.and_then(|place| run.about.nodes.get(place)).cloned().unwrap_or_else(|| format!("node {node}"))
}

fn class(node: u64) -> String {
    format!("n{}", node.clamp(1, COLOURS))
}

fn lane(name: &str, y: f64, height: f64) -> String {
    text(LEFT - 10.0, y + height / 2.0 + 4.0, "end", "name", name) + &line("row", (LEFT, y + height), (END, y + height))
}

fn open(title: &str, height: f64) -> String {
    format!(r#"<svg viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" role="img">"#)
        + &text(16.0, 26.0, "start", "title", title)
}
