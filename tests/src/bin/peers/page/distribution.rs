//! How the latencies of a workload are spread: a hill for each system, one below the other.

use crate::workload::Workload;

use kv_tests::report::svg::{Scale, across, line, text};

use super::{Plot, Row, class, short_name};

const WIDTH: f64 = 520.0;
const LEFT: f64 = 20.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 48.0;
/// Of one hill, with its name above it.
const ROW: f64 = 54.0;
const HILL: f64 = 40.0;
/// Into how many places a hill is cut: wide enough for each to hold many operations, narrow enough for two peaks to show.
const PLACES: usize = 96;

/// The plot; nothing if nothing was measured.
pub(super) fn plot(workload: &Workload, rows: &[Row]) -> Option<Plot> {
    let rows: Vec<_> = rows.iter().filter(|row| row.workload.name == workload.name).collect();
    if rows.is_empty() {
        return None;
    }
    let height = TOP + ROW * rows.len() as f64 + BOTTOM;
    let (right, bottom) = (WIDTH - RIGHT, height - BOTTOM);
    // The slowest thousandth would squeeze everything else to the left.
    let ends = rows.iter().flat_map(|row| [quantile(row, 0.0005), quantile(row, 0.999)]);
    let x = Scale::of(ends, LEFT, right);
    let mut svg = text(16.0, 26.0, "start", "title", &short_name(workload));
    svg += &across(&x, TOP, bottom);
    svg += &text(right, height - 12.0, "end", "tick", "latency in ms");
    for (index, row) in rows.into_iter().enumerate() {
        let foot = TOP + ROW * (index as f64 + 1.0) - 2.0;
        svg += &hill(row, &x, foot, (LEFT, right));
        svg += &text(right, foot - HILL + 12.0, "end", "name", row.kind.name());
    }
    Some(Plot { width: WIDTH, height, shapes: svg })
}

fn hill(row: &Row, x: &Scale, foot: f64, (left, right): (f64, f64)) -> String {
    let width = (right - left) / PLACES as f64;
    let mut places = vec![0.0; PLACES];
    for (ms, count) in &row.latencies {
        let place = ((x.at(*ms) - left) / width) as usize;
        places[place.min(PLACES - 1)] += *count as f64;
    }
    let most = places.iter().copied().fold(1.0, f64::max);
    let mut path = format!("M{left:.1},{foot:.1}");
    for (index, count) in places.iter().enumerate() {
        path += &format!("L{:.1},{:.1}", left + width * (index as f64 + 0.5), foot - count / most * HILL);
    }
    path += &format!("L{right:.1},{foot:.1}Z");
    let class = class(row.kind);
    let mut svg = format!(r#"<path class="{class} hill" d="{path}"/>"#);
    for ms in [row.p50_ms(), row.p99_ms()] {
        svg += &line(&format!("{class} mark"), (x.at(ms), foot - 7.0), (x.at(ms), foot + 3.0));
    }
    svg
}

/// The latency that a share of the operations did not exceed.
fn quantile(row: &Row, share: f64) -> f64 {
    let all: u64 = row.latencies.iter().map(|(_, count)| count).sum();
    let mut left = (all as f64 * share) as u64;
    for (ms, count) in &row.latencies {
        if left < *count {
            return *ms;
        }
        left -= count;
    }
    row.latencies.last().map_or(0.0, |(ms, _)| *ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{page::tests::row, systems::Kind};

    #[test]
    fn a_share_of_the_operations_is_found() {
        let row = row("put-64", Kind::Kv, 1.0, 2.0, 1.0);
        assert_eq!(
            [0.0, 0.05, 0.1, 0.5, 0.95, 1.0].map(|share| quantile(&row, share)),
            [1.0, 1.0, 2.0, 2.0, 4.0, 10.0]
        );
    }
}
