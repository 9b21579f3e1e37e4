//! Throughput against latency: a line for each system, a point for each number of operations outstanding.

use crate::{systems::Kind, workload::Tier};

use kv_tests::report::svg::{Scale, across, along, dot, line, short, text};

use super::{Plot, Row, class};

const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 48.0;
/// Room for the number below the lowest dot.
const LABEL: f64 = 18.0;
/// Only values of this size: a line joins what differs in nothing but how much is asked at once.
const VALUE_BYTES: usize = 128;

/// The plot of a tier; nothing if nothing was measured.
pub(super) fn plot(tier: Tier, rows: &[Row]) -> Option<Plot> {
    let is_shown = |row: &&Row| {
        let workload = row.workload;
        workload.tier == tier && workload.value_bytes == VALUE_BYTES && !workload.is_new
    };
    let rows: Vec<_> = rows.iter().filter(is_shown).collect();
    if rows.is_empty() {
        return None;
    }
    let title = match tier {
        Tier::QuorumDisk => "Puts, on the disks of a majority",
        Tier::LeaderMemory => "Puts, in one memory",
        Tier::Read => "Gets",
    };
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    let x = Scale::of(rows.iter().map(|row| row.per_second()), LEFT, right);
    let y = Scale::of(rows.iter().flat_map(|row| [row.p50_ms(), row.p99_ms()]), bottom - LABEL, TOP);
    let mut svg = text(16.0, 26.0, "start", "title", title);
    svg += &across(&x, TOP, bottom);
    svg += &along(&y, LEFT, right);
    svg += &text(right, HEIGHT - 12.0, "end", "tick", "operations a second");
    svg += &text(WIDTH - RIGHT, 26.0, "end", "tick", "latency in ms, up");
    for kind in Kind::ALL {
        let mut points: Vec<_> = rows.iter().filter(|row| row.kind == kind).collect();
        points.sort_by_key(|row| row.workload.out);
        svg += &curve(kind, &points, &x, &y);
    }
    Some(Plot { width: WIDTH, height: HEIGHT, shapes: svg })
}

fn curve(kind: Kind, points: &[&&Row], x: &Scale, y: &Scale) -> String {
    if points.is_empty() {
        return String::new();
    }
    let class = class(kind);
    let places: Vec<_> =
        points.iter().map(|row| format!("{:.1},{:.1}", x.at(row.per_second()), y.at(row.p50_ms()))).collect();
    let mut svg = format!(r#"<polyline class="{class} curve" points="{}"/>"#, places.join(" "));
    for row in points {
        let (at, p50) = (x.at(row.per_second()), y.at(row.p50_ms()));
        svg += &line(&format!("{class} hair"), (at, p50), (at, y.at(row.p99_ms())));
        let out = row.workload.out;
        let says = format!(
            "{}, {out} outstanding: {} a second, p50 {} ms, p99 {} ms",
            kind.name(),
            short(row.per_second()),
            short(row.p50_ms()),
            short(row.p99_ms())
        );
        svg += &dot(class, at, p50, &says);
        svg += &text(at, p50 + 18.0, "middle", "tick", &out.to_string());
    }
    svg
}
