//! CPU for one operation: a row for each workload, a dot for each system.

use kv_tests::report::svg::{Scale, across, dot, line, short, text};

use super::{Plot, Row, class, short_name};

const WIDTH: f64 = 1_056.0;
const LEFT: f64 = 190.0;
const RIGHT: f64 = 32.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 48.0;
const ROW: f64 = 38.0;
/// The width of a number.
const NUMBER: f64 = 30.0;

/// The plot; nothing if nothing was measured.
pub(super) fn plot(rows: &[Row]) -> Option<Plot> {
    let is_shown = |name: &str| rows.iter().any(|row| row.workload.name == name);
    let workloads: Vec<_> = crate::workload::ALL.iter().filter(|workload| is_shown(workload.name)).collect();
    if workloads.is_empty() {
        return None;
    }
    let height = TOP + ROW * workloads.len() as f64 + BOTTOM;
    let (right, bottom) = (WIDTH - RIGHT, height - BOTTOM);
    let x = Scale::of(rows.iter().map(Row::cpu_micros), LEFT, right);
    let mut svg = text(16.0, 26.0, "start", "title", "Microseconds of the servers' CPU");
    svg += &across(&x, TOP, bottom);
    svg += &text(right, height - 12.0, "end", "tick", "us of CPU an operation");
    for (index, workload) in workloads.into_iter().enumerate() {
        let y = TOP + ROW * (index as f64 + 0.5);
        svg += &text(LEFT - 16.0, y + 4.0, "end", "name", &short_name(workload));
        svg += &line("row", (LEFT, y), (right, y));
        let mut dots: Vec<_> = rows.iter().filter(|row| row.workload.name == workload.name).collect();
        dots.sort_by(|one, other| one.cpu_micros().total_cmp(&other.cpu_micros()));
        let mut above = f64::NEG_INFINITY;
        for row in dots {
            let says = format!("{}: {} us", row.kind.name(), short(row.cpu_micros()));
            let at = x.at(row.cpu_micros());
            svg += &dot(class(row.kind), at, y, &says);
            // Where two numbers would lie on each other, the second goes below.
            let is_free = at - above > NUMBER;
            above = if is_free { at } else { above };
            let height = if is_free { -8.0 } else { 17.0 };
            svg += &text(at, y + height, "middle", "tick", &short(row.cpu_micros()));
        }
    }
    Some(Plot { width: WIDTH, height, shapes: svg })
}
