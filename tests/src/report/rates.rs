//! Two pictures over time: operations by how they ended, and latency.

use super::{
    axis::{Axis, END, LEFT, WIDTH},
    slices::{Slice, Slices},
    svg::{Scale, along, line, rect, short, text},
};
use crate::{history::run::Run, verdict::words::span};

const HEIGHT: f64 = 236.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = HEIGHT - 32.0;

/// The lower and the upper end of a layer in a slice.
type Ends = fn(&Slice) -> (u64, u64);
/// A latency of a slice.
type Latency = fn(&Slice) -> Option<u64>;

/// Operations a second, those that were done below, the others on top.
pub(super) fn operations(run: &Run, slices: &Slices, axis: &Axis) -> String {
    let sum = |slice: &Slice| slice.ok + slice.fail + slice.unknown;
    let most = slices.all.iter().map(sum).max().unwrap_or_default();
    let most = slices.per_second(most).max(1.0) * 1.06;
    let y = |per_second: f64| BOTTOM - (BOTTOM - TOP) * per_second / most;
    let mut svg = open("Operations a second");
    svg += &legend(&[("sok", "done"), ("sunknown", "outcome unknown"), ("sfail", "refused")]);
    svg += &axis.ticks(TOP, BOTTOM);
    svg += &axis.bands(run, TOP, BOTTOM);
    for tick in round_ticks(most) {
        svg += &line("grid", (LEFT, y(tick)), (END, y(tick)));
        svg += &text(LEFT - 8.0, y(tick) + 4.0, "end", "tick", &if tick > 0.0 { short(tick) } else { "0".into() });
    }
    let layers: [(&str, Ends); 3] = [
        ("sok", |slice| (0, slice.ok)),
        ("sunknown", |slice| (slice.ok, slice.ok + slice.unknown)),
        ("sfail", |slice| (slice.ok + slice.unknown, slice.ok + slice.unknown + slice.fail)),
    ];
    for (class, ends) in layers {
        svg += &layer(class, slices, axis, ends, &y);
    }
    svg += &points(slices, axis);
    svg + "</svg>\n"
}

/// The area between two counts of each slice, in steps.
fn layer(class: &str, slices: &Slices, axis: &Axis, ends: Ends, y: &impl Fn(f64) -> f64) -> String {
    let (mut there, mut back) = (String::new(), Vec::new());
    let mut is_empty = true;
    for slice in &slices.all {
        let (from, to) = (axis.x(slice.from_micros), axis.x(slice.from_micros + slices.slice_micros));
        let (low, high) = ends(slice);
        is_empty &= low == high;
        let (low, high) = (y(slices.per_second(low)), y(slices.per_second(high)));
        there += &format!("{}{from:.1},{high:.1}L{to:.1},{high:.1}", if there.is_empty() { "M" } else { "L" });
        back.push(format!("L{to:.1},{low:.1}L{from:.1},{low:.1}"));
    }
    back.reverse();
    if is_empty { String::new() } else { format!(r#"<path class="{class}" d="{there}{}Z"/>"#, back.concat()) }
}

/// Latency of what was done, on a logarithmic scale.
pub(super) fn latency(run: &Run, slices: &Slices, axis: &Axis) -> String {
    let ms = |micros: u64| micros.max(1) as f64 / 1e3;
    let all = slices.all.iter().flat_map(|slice| [slice.p50_micros, slice.p99_micros]).flatten();
    let y = Scale::of(all.map(ms), BOTTOM, TOP);
    let mut svg = open("Latency in ms");
    svg += &legend(&[("fp50", "median"), ("fp99", "99th percentile")]);
    svg += &axis.ticks(TOP, BOTTOM);
    svg += &along(&y, LEFT, END);
    svg += &axis.bands(run, TOP, BOTTOM);
    let curves: [(&str, Latency); 2] = [("lp50", |slice| slice.p50_micros), ("lp99", |slice| slice.p99_micros)];
    for (class, of) in curves {
        let mut path = String::new();
        let mut goes_on = false;
        for slice in &slices.all {
            // Where nothing was done the line breaks off: there is no latency.
            let Some(micros) = of(slice) else {
                goes_on = false;
                continue;
            };
            let x = axis.x(slice.from_micros + slices.slice_micros / 2);
            path += &format!("{}{x:.1},{:.1}", if goes_on { "L" } else { "M" }, y.at(ms(micros)));
            if !goes_on {
                // A single slice shows as a dot.
                path += "h0.1";
            }
            goes_on = true;
        }
        svg += &format!(r#"<path class="{class}" d="{path}"/>"#);
    }
    svg += &points(slices, axis);
    svg + "</svg>\n"
}

fn open(title: &str) -> String {
    format!(r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img">"#)
        + &text(16.0, 26.0, "start", "title", title)
}

fn legend(entries: &[(&str, &str)]) -> String {
    let mut svg = String::new();
    let mut x = END;
    for (class, words) in entries.iter().rev() {
        svg += &text(x, 26.0, "end", "tick", words);
        x -= 7.3 * words.chars().count() as f64 + 16.0;
        svg += &rect(class, (x, 17.0), (10.0, 10.0), "");
        x -= 14.0;
    }
    svg
}

/// What each slice says when it is pointed at.
fn points(slices: &Slices, axis: &Axis) -> String {
    let mut svg = String::new();
    for slice in &slices.all {
        let (from, to) = (axis.x(slice.from_micros), axis.x(slice.from_micros + slices.slice_micros));
        let latency = match (slice.p50_micros, slice.p99_micros) {
            (Some(p50), Some(p99)) => format!("; median {}, 99th percentile {}", span(p50), span(p99)),
            _ => String::new(),
        };
        let per_second = |count| short(slices.per_second(count));
        let says = format!(
            "at {}: {} done a second, {} refused, {} unknown{latency}",
            span(slice.from_micros),
            per_second(slice.ok),
            per_second(slice.fail),
            per_second(slice.unknown)
        );
        svg += &rect("point", (from, TOP), (to - from, BOTTOM - TOP), &says);
    }
    svg
}

/// Round numbers from 0 to below the most.
fn round_ticks(most: f64) -> Vec<f64> {
    let decades = (-1..12).flat_map(|decade| [1.0, 2.0, 5.0].map(|step| step * 10_f64.powi(decade)));
    let step = decades.into_iter().find(|step| most / step <= 5.0).unwrap_or(most);
    (0..=(most / step) as u32).map(|number| f64::from(number) * step).collect()
}
